//! Formats one result; `dig` has a separate file.

use clap::ValueEnum;
use serde::Serialize;

use super::dig::DigText;
use super::exchange::LookupServer;
use super::list::LookupQuestion;
use super::message::data_of;
use super::resolve::{LookupResolution, LookupVerdict};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LookupFormat {
    /// A line per record: NAME ADDRESS TYPE, or NAME - Error:WHY
    #[default]
    Resolved,
    /// Addresses only, one a line; nothing for names without
    Short,
    /// One JSON object per line
    Json,
    /// The whole reply, as dig shows it; CNAMEs are not followed
    Dig,
}

impl LookupFormat {
    /// Returns true if CNAME chains are followed by further queries; `dig` shows a single reply.
    pub(super) fn follows_chains(self) -> bool {
        self != Self::Dig
    }

    pub(super) fn write(
        self,
        server: &LookupServer,
        question: &LookupQuestion,
        resolution: &LookupResolution,
    ) -> String {
        match self {
            Self::Resolved => resolved(question, resolution),
            Self::Short => short(resolution),
            Self::Json => json(server, question, resolution),
            Self::Dig => DigText { server, question, resolution }.to_string(),
        }
    }
}

fn resolved(question: &LookupQuestion, resolution: &LookupResolution) -> String {
    let name = &question.text;
    if resolution.verdict != LookupVerdict::Answered {
        return format!("{name} - Error:{}\n", resolution.verdict);
    }
    resolution.wanted().map(|record| format!("{name} {} {}\n", data_of(record), record.rtype)).collect()
}

fn short(resolution: &LookupResolution) -> String {
    let records = resolution.wanted().filter(|_| resolution.verdict == LookupVerdict::Answered);
    records.map(|record| format!("{}\n", data_of(record))).collect()
}

fn json(server: &LookupServer, question: &LookupQuestion, resolution: &LookupResolution) -> String {
    let last = resolution.last.as_ref();
    let errors = last.and_then(|answer| answer.reply.opt.as_ref()).map_or(&[][..], |opt| &opt.errors);
    let answers = resolution.answers.iter().map(|record| JsonRecord {
        name: record.owner.to_string(),
        r#type: record.rtype.to_string(),
        ttl: record.ttl,
        data: data_of(record),
    });
    let result = JsonResult {
        name: &question.text,
        r#type: question.rtype.to_string(),
        rcode: last.map(|answer| answer.reply.rcode.to_string()),
        answers: answers.collect(),
        server: server.address.to_string(),
        transport: last.map(|answer| answer.transport.label()),
        time_us: resolution.effort.elapsed.as_micros(),
        tries: resolution.effort.tries,
        error: (resolution.verdict != LookupVerdict::Answered).then(|| resolution.verdict.to_string()),
        ede: errors
            .iter()
            .map(|(code, text)| JsonExtendedError { code: code.0, name: code.purpose().unwrap_or_default(), text })
            .collect(),
    };
    let mut text = serde_json::to_string(&result).expect("strings and numbers always serialize");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct JsonResult<'a> {
    name: &'a str,
    r#type: String,
    rcode: Option<String>,
    answers: Vec<JsonRecord>,
    server: String,
    transport: Option<&'static str>,
    time_us: u128,
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ede: Vec<JsonExtendedError<'a>>,
}

#[derive(Serialize)]
struct JsonRecord {
    name: String,
    r#type: String,
    ttl: u32,
    data: String,
}

#[derive(Serialize)]
struct JsonExtendedError<'a> {
    code: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
}
