//! One result as text, in the format asked for. `dig` has a file of its own.

use std::fmt::Write;

use clap::ValueEnum;
use serde::Serialize;

use super::dig;
use super::exchange::Server;
use super::list::Question;
use super::message::Record;
use super::resolve::{Resolution, Verdict};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A line per record: NAME ADDRESS TYPE, or NAME - Error:WHY
    #[default]
    Resolved,
    /// Addresses only, one a line; nothing for names without
    Short,
    /// An object a line
    Json,
    /// The whole reply, as dig shows it; CNAMEs are not followed
    Dig,
}

impl Format {
    /// Whether CNAME chains are followed by further queries: `dig` shows one reply as it came.
    pub(super) fn follows_chains(self) -> bool {
        match self {
            Self::Resolved | Self::Short | Self::Json => true,
            Self::Dig => false,
        }
    }

    /// Writes one result.
    pub(super) fn write(self, server: &Server, question: &Question, resolution: &Resolution) -> String {
        match self {
            Self::Resolved => resolved(question, resolution),
            Self::Short => short(resolution),
            Self::Json => json(server, question, resolution),
            Self::Dig => dig::write(server, question, resolution),
        }
    }
}

/// A line per record with the name as it was asked, or one line with the error.
fn resolved(question: &Question, resolution: &Resolution) -> String {
    let name = &question.text;
    if resolution.verdict != Verdict::Answered {
        return format!("{name} - Error:{}\n", resolution.verdict);
    }
    resolution.wanted().fold(String::new(), |mut text, Record { data, rtype, .. }| {
        writeln!(text, "{name} {data} {rtype}").expect("a String takes all that is written");
        text
    })
}

/// A line per record, the data only.
fn short(resolution: &Resolution) -> String {
    match resolution.verdict {
        Verdict::Answered => resolution.wanted().flat_map(|record| [record.data.as_str(), "\n"]).collect(),
        Verdict::NotFound | Verdict::Failed(_) | Verdict::ChainLoops | Verdict::ChainTooLong | Verdict::Lost(_) => {
            String::new()
        }
    }
}

/// One object on a line of its own.
fn json(server: &Server, question: &Question, resolution: &Resolution) -> String {
    let last = resolution.last.as_ref();
    let errors = last.and_then(|answer| answer.reply.opt.as_ref()).map_or(&[][..], |opt| &opt.errors);
    let result = JsonResult {
        name: &question.text,
        r#type: question.rtype.to_string(),
        rcode: last.map(|answer| answer.reply.rcode.to_string()),
        answers: resolution.answers().iter().map(JsonRecord::new).collect(),
        server: server.address.to_string(),
        transport: last.map(|answer| answer.transport.label()),
        time_us: resolution.elapsed.as_micros(),
        tries: resolution.tries,
        error: (resolution.verdict != Verdict::Answered).then(|| resolution.verdict.to_string()),
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
    /// The name as it was asked.
    name: &'a str,
    /// The type asked for.
    r#type: String,
    /// Of the last reply; null if there is none.
    rcode: Option<String>,
    /// All records of the answer sections, chain included.
    answers: Vec<JsonRecord<'a>>,
    /// Address and port.
    server: String,
    /// Of the last reply; null if there is none.
    transport: Option<&'static str>,
    /// Microseconds from the first query to the end.
    time_us: u128,
    /// Tries made, over all queries.
    tries: u32,
    /// What `resolved` shows as error; absent if there are records.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Extended DNS Errors of the last reply; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ede: Vec<JsonExtendedError<'a>>,
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    /// The owner name, with its final dot.
    name: String,
    r#type: String,
    /// The time to live, in seconds.
    ttl: u32,
    /// The data in master-file form.
    data: &'a str,
}

impl<'a> JsonRecord<'a> {
    /// The record's view in JSON.
    fn new(record: &'a Record) -> Self {
        Self { name: record.owner.to_string(), r#type: record.rtype.to_string(), ttl: record.ttl, data: &record.data }
    }
}

/// An Extended DNS Error in JSON.
#[derive(Serialize)]
struct JsonExtendedError<'a> {
    /// The INFO-CODE.
    code: u16,
    /// Its registered name; absent if we know none.
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
    /// The EXTRA-TEXT; absent if empty.
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
}
