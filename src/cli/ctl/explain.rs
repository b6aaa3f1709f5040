//! `hedgerow ctl explain`: the route of a question, the candidates and their ranks, the events of the race
//! and its response, as text for 100 columns.

use std::net::IpAddr;

use config::{Expectation, listen_address, words};
use data_encoding::BASE64;
use dns::{Name, RecordType, Section, SectionRecord, Transport};
use engine::explanation::{Candidate, ExplainedResponse, Explanation, Plan};
use engine::slow::{Fate, RaceOutcome, SlowAttempt, SlowRace, rank_words, time};
use hedge::race::AttemptKind;
use serde_json::json;

use super::connection::{AdminConnection, AdminOrder};
use super::table::{TextTable, WIDTH, millis, or_dash, wrap};
use super::{CommandFailure, Show};
use crate::cli::lookup::message::{LookupReply, data_of};

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The name; the last dot may be left out
    #[arg(value_parser = words::domain_name)]
    name: Name,
    /// The type to query
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "A", value_parser = words::record_type)]
    qtype: RecordType,
    /// Ask backends even if the cache has an answer
    #[arg(long)]
    fresh: bool,
    /// Apply rules as for a client at this address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// Apply rules as for a query to this listener, as bound
    #[arg(long, value_parser = listener)]
    listener: Option<String>,
    /// Apply rules as for a query by this transport (default: that of the listener, or udp)
    #[arg(long, value_parser = words::word::<Transport>)]
    transport: Option<Transport>,
    #[command(flatten)]
    show: Show,
}

fn listener(text: &str) -> Result<String, Expectation> {
    listen_address(text).map(|_| text.to_owned())
}

pub(super) fn obey(connection: &AdminConnection, asked: &ExplainArgs) -> Result<String, CommandFailure> {
    let ExplainArgs { name, qtype, fresh, client, listener, transport, show } = asked;
    let body = json!({ "name": name.to_string(), "type": qtype.to_string(), "fresh": fresh, "client": client, "listener": listener, "transport": transport });
    let explained: Explanation = connection.send(&AdminOrder::post("explain").with(&body))?;
    Ok(show.print(&explained, text))
}

fn text(explained: &Explanation) -> String {
    let Explanation { race, plan, rule, response } = explained;
    let mut paragraphs = vec![head(race, plan, rule.as_deref())];
    if !plan.candidates.is_empty() {
        let more = match plan.more_backends {
            0 => String::new(),
            more => format!("\nand {more} more, which the race does not ask"),
        };
        paragraphs.push(candidates(&plan.candidates) + &more);
    }
    let events = timeline(race, response.as_ref());
    if !events.is_empty() {
        paragraphs.push(events);
    }
    paragraphs.push(wrap(&format!("Why: {}.", race.why), WIDTH, "     "));
    paragraphs.extend(response.as_ref().map(answer));
    paragraphs.join("\n\n")
}

fn head(race: &SlowRace, plan: &Plan, rule: Option<&str>) -> String {
    let SlowRace { name, qtype, pool, .. } = race;
    if let Some(rule) = rule.filter(|_| plan.route.is_empty()) {
        return format!("{name} {qtype}: rule {rule:?}");
    }
    if plan.route.is_empty() {
        return format!("{name} {qtype}: no route");
    }
    let Plan { route, worker, cache, balance, dispatch, hedge_delay_ms, hedge_delay_from, tokens, .. } = plan;
    let cached = match (cache.state.as_str(), cache.ttl_seconds, cache.stale_seconds) {
        ("off", ..) => "off for this pool".to_owned(),
        ("none", ..) => "has nothing".to_owned(),
        ("stale", _, Some(stale)) => format!("stale, may be given out for {stale} s more"),
        (state, Some(ttl), _) => format!("{state}, for {ttl} s more"),
        (state, ..) => state.to_owned(),
    };
    let by = match rule {
        Some(rule) if route == Plan::BY_RULE => format!("rule {rule:?}"),
        Some(rule) => format!("route {route} (rule {rule:?})"),
        None => format!("route {route}"),
    };
    let hits = cache.hits.map(|hits| format!(", {hits} hits")).unwrap_or_default();
    let hedge = hedge_delay_ms.zip(hedge_delay_from.as_ref()).map(|(delay, from)| {
        let tokens = tokens.map(|tokens| format!("; budget for {tokens} more")).unwrap_or_default();
        format!(", a hedge after {}: {from}{tokens}", time(delay))
    });
    let asking = format!("  asking  {dispatch}{}", hedge.unwrap_or_default());
    let asking = wrap(&asking, WIDTH, "          ");
    format!(
        "{name} {qtype}: pool {pool} by {by}, worker {worker}\n  cache   {cached}{hits}\n  order   {balance}\n{asking}"
    )
}

fn candidates(candidates: &[Candidate]) -> String {
    TextTable::of(candidates)
        .right("#", |candidate| or_dash(candidate.place))
        .left("BACKEND", |candidate| &candidate.backend)
        .left("STATE", |candidate| &candidate.state)
        .right("P50 ms", |candidate| millis(candidate.p50_ms))
        .right("P99 ms", |candidate| millis(candidate.p99_ms))
        .right("IN FLIGHT", |candidate| candidate.in_flight)
        .left("WHY HERE", |candidate| &candidate.why)
        .text()
}

fn timeline(race: &SlowRace, response: Option<&ExplainedResponse>) -> String {
    let mut events: Vec<(f64, String)> = Vec::new();
    for attempt in &race.attempts {
        let SlowAttempt { backend, kind, at_ms, .. } = attempt;
        let asked = match kind {
            AttemptKind::First => format!("{backend} is asked"),
            AttemptKind::Hedge => format!("{backend} is asked too: a hedge"),
            AttemptKind::Failover => format!("{backend} is asked next: a failover"),
        };
        events.push((*at_ms, asked));
        events.extend(met(attempt, race));
    }
    if let Some(denied) = &race.obstacles.denied {
        let to = denied.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        events.push((denied.at_ms, format!("a hedge{to} is due and denied: the budget is spent")));
    }
    if race.outcome != RaceOutcome::Cached {
        events.push((race.took_ms, format!("the race is over: {}", outcome(race))));
    }
    if let Some(ExplainedResponse { took_ms, rcode, source, .. }) = response {
        events.push((*took_ms, format!("the response leaves: {rcode} from {}", origin(source))));
    }
    // The stable sort keeps the order of simultaneous events.
    events.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let lines = events.iter().map(|(at, what)| wrap(&format!("{at:>10.3} ms  {what}"), WIDTH, "               "));
    lines.collect::<Vec<_>>().join("\n")
}

fn met(attempt: &SlowAttempt, race: &SlowRace) -> Option<(f64, String)> {
    let SlowAttempt { backend, at_ms, took_ms, fate, rank, .. } = attempt;
    let rank = rank.map_or("something", rank_words);
    let replied = |effect: &str| {
        took_ms.map(|took| (at_ms + took, format!("{backend} replies {rank} after {}, {effect}", time(took))))
    };
    match fate {
        Fate::Won => replied("which wins"),
        Fate::Kept => replied("which is kept"),
        Fate::Failed => replied("which does not win").or_else(|| Some((*at_ms, format!("{backend} fails")))),
        Fate::Beaten => replied("which does not win"),
        Fate::Late => replied("too late"),
        Fate::Unreachable => Some((*at_ms, format!("{backend} is unreachable (ICMP)"))),
        Fate::Lost => Some((*at_ms, format!("{backend} loses it with its connection"))),
        Fate::Silent => Some((race.took_ms.max(*at_ms), format!("{backend} is silent to the end"))),
    }
}

fn outcome(race: &SlowRace) -> String {
    let winner = race.winner.as_deref().unwrap_or("no backend");
    let rcode = race.rcode.as_deref().unwrap_or("nothing");
    match race.outcome {
        RaceOutcome::Won => format!("{winner} has won"),
        RaceOutcome::Kept => format!("the kept reply of {winner} is the best"),
        RaceOutcome::MadeUp => format!("no usable reply, {rcode} is synthesized"),
        RaceOutcome::Failed => format!("nothing but failures, {rcode}"),
        RaceOutcome::Stale => "a stale answer of the cache is sent".to_owned(),
        RaceOutcome::Cached => "the cache had it".to_owned(),
    }
}

fn origin(source: &str) -> &str {
    match source {
        "backend" => "a backend",
        "cache" => "the cache",
        "stale" => "the cache, stale",
        "synthesized" => "this server, synthesized",
        "error" => "this server: a failure",
        "rule" => "a rule",
        other => other,
    }
}

fn answer(response: &ExplainedResponse) -> String {
    let ExplainedResponse { rcode, message, .. } = response;
    let octets = BASE64.decode(message.as_bytes()).unwrap_or_default();
    let Some(reply) = LookupReply::of(&octets) else { return format!("Response: {rcode}") };
    let header = reply.header;
    let flags = [
        ("aa", header.is_authoritative()),
        ("tc", header.is_truncated()),
        ("ra", header.recursion_available()),
        ("ad", header.authentic_data()),
    ];
    let flags: String = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| format!(" {flag}")).collect();
    let mut text =
        format!("Response: {}, {} octets{}{flags}", reply.rcode, reply.size, if flags.is_empty() { "" } else { "," });
    for (code, extra) in reply.opt.iter().flat_map(|opt| &opt.errors) {
        let purpose = code.purpose().map(|purpose| format!(" ({purpose})")).unwrap_or_default();
        let extra = if extra.is_empty() { String::new() } else { format!(": {extra}") };
        text.push_str(&format!("\n  EDE {}{purpose}{extra}", code.0));
    }
    for record in &reply.records {
        let section = match record.section {
            Section::Answer => "answer",
            Section::Authority => "authority",
            Section::Additional => "additional",
        };
        let SectionRecord { owner, ttl, rtype, .. } = record;
        let line = format!("  {section:<10}  {owner} {ttl} {rtype} {}", data_of(record));
        text.push('\n');
        text.push_str(&wrap(&line, WIDTH, "              "));
    }
    text
}

#[cfg(test)]
mod tests {
    use config::Rank;
    use engine::explanation::CacheSeen;
    use engine::slow::RaceObstacles;

    use super::*;
    use crate::control::observe::sight::sample_race;

    /// Returns an explained question whose first backend is silent.
    fn sample() -> Explanation {
        let candidate = |backend: &str, place, state: &str, why: &str| Candidate {
            backend: backend.to_owned(),
            place,
            tier: 0,
            state: state.to_owned(),
            p50_ms: place.map(|_| 0.4),
            p99_ms: place.map(|_| 12.345),
            in_flight: 2,
            why: why.to_owned(),
        };
        let cache = CacheSeen { state: "none".to_owned(), ..CacheSeen::default() };
        let plan = Plan {
            route: ".".to_owned(),
            worker: 1,
            cache,
            balance: "sticky".to_owned(),
            dispatch: "hedge".to_owned(),
            candidates: vec![
                candidate("ts1", Some(1), "up", "the name lives here, or it was its turn"),
                candidate("ts2", Some(2), "up", "a hedge would go here"),
                candidate("ts3", None, "down", "down: asked when no backend is up"),
            ],
            hedge_delay_ms: Some(4.0),
            hedge_delay_from: Some("what the budget of 5 % pays, by the latency of ts1".to_owned()),
            tokens: Some(0),
            ..Plan::default()
        };
        // The wire form of a response with one address.
        let message = [
            &[0, 0, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0][..],
            b"\x03www\x07example\x03org\x00\x00\x01\x00\x01",
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x01",
        ];
        let message = BASE64.encode(&message.concat());
        let (source, rcode) = ("backend".to_owned(), "NOERROR".to_owned());
        let response = ExplainedResponse { source, rcode, took_ms: 186.1, message, records: Vec::new() };
        Explanation { race: sample_race(), plan, rule: None, response: Some(response) }
    }

    #[test]
    fn a_page_of_text_tells_all() {
        let expected = "\
www.example.org. A: pool ts by route ., worker 1
  cache   has nothing
  order   sticky
  asking  hedge, a hedge after 4 ms: what the budget of 5 % pays, by the latency of ts1; budget for
          0 more

#  BACKEND  STATE  P50 ms  P99 ms  IN FLIGHT  WHY HERE
1  ts1      up       0.40   12.35          2  the name lives here, or it was its turn
2  ts2      up       0.40   12.35          2  a hedge would go here
-  ts3      down        -       -          2  down: asked when no backend is up

     0.000 ms  ts1 is asked
     4.000 ms  a hedge to ts2 is due and denied: the budget is spent
   184.000 ms  ts2 is asked too: a hedge
   186.000 ms  ts1 is silent to the end
   186.000 ms  ts2 replies with an answer after 2 ms, which wins
   186.000 ms  the race is over: ts2 has won
   186.100 ms  the response leaves: NOERROR from a backend

Why: ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms.

Response: NOERROR, 49 octets, aa
  answer      www.example.org. 300 A 192.0.2.1";
        let shown = text(&sample());
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>());
    }

    #[test]
    fn of_thousands_the_rest_is_counted() {
        let mut explained = sample();
        assert!(!text(&explained).contains(" more, which"));
        explained.plan.more_backends = 4_997;
        let shown = text(&explained);
        assert!(shown.contains(" is up\nand 4997 more, which the race does not ask\n\n"), "{shown}");
    }

    #[test]
    fn no_line_is_longer_than_a_hundred_columns() {
        let mut explained = sample();
        explained.race.why = "ts1 replied with a failure in 3 ms; ".repeat(9);
        explained.plan.hedge_delay_from = Some("hedge.min_delay, as what the budget of 5 % pays is less ".repeat(3));
        let shown = text(&explained);
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
    }

    #[test]
    fn what_came_late_stands_behind_the_response() {
        let mut explained = sample();
        let first = &mut explained.race.attempts[0];
        (first.fate, first.took_ms, first.rank) = (Fate::Late, Some(400.0), Some(Rank::Nxdomain));
        let shown = text(&explained);
        let at = |what: &str| shown.find(what).unwrap_or_else(|| panic!("{what} in {shown}"));
        assert!(at("the response leaves") < at("   400.000 ms  ts1 replies NXDOMAIN after 400 ms, too late"));
    }

    #[test]
    fn an_answer_from_the_cache_has_no_race() {
        let mut explained = sample();
        explained.race = SlowRace {
            outcome: RaceOutcome::Cached,
            took_ms: 0.1,
            attempts: Vec::new(),
            obstacles: RaceObstacles::default(),
            why: "the cache had the answer, fresh for 7 s more: no backend was asked (use --fresh to ask)".to_owned(),
            ..explained.race
        };
        explained.plan.cache =
            CacheSeen { state: "fresh".to_owned(), ttl_seconds: Some(7), stale_seconds: Some(0), hits: Some(3) };
        explained.response.iter_mut().for_each(|response| response.source = "cache".to_owned());
        let shown = text(&explained);
        assert!(shown.contains("  cache   fresh, for 7 s more, 3 hits\n"), "{shown}");
        assert!(shown.contains("NOERROR from the cache\n") && !shown.contains("the race is over"), "{shown}");
    }

    #[test]
    fn a_name_without_a_route_is_short() {
        let mut explained = sample();
        explained.plan = Plan::default();
        explained.race.attempts.clear();
        explained.race.obstacles.denied = None;
        explained.response = None;
        assert!(text(&explained).starts_with("www.example.org. A: no route\n"), "{}", text(&explained));
    }
}
