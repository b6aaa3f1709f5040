//! Scripts of which a corpus begins.

use super::Step::{
    Answer, Ask, Burst, ChangeTls, CloseSending, Connect, Deaf, Frame, Hello, Leave, Listening, MoveOut, NameClient,
    NextPart, Pressure, Quic, Raw, Release, Remove, Reset, Rules, Select, Settle, StopReading, Store, Wait,
};
use super::{Door, Step};

/// A script in the making.
#[derive(Clone)]
struct Draft(Vec<u8>);

/// Begins a script with these rules.
fn rules(octet: u8) -> Draft {
    Draft(vec![octet])
}

impl Draft {
    fn then(mut self, step: Step, octets: &[u8]) -> Self {
        self.0.push(step as u8);
        self.0.extend(octets);
        self
    }

    fn connect(self, door: Door, manner: u8) -> Self {
        self.then(Connect, &[door as u8, manner])
    }

    /// Asks with a form of the request and of the message.
    fn ask(self, form: u8, query: u8) -> Self {
        self.then(Ask, &[form, query, 0]).then(Settle, &[])
    }

    fn raw(self, octets: &[u8]) -> Self {
        self.then(Raw, &[octets.len() as u8]).with(octets)
    }

    fn with(mut self, octets: &[u8]) -> Self {
        self.0.extend(octets);
        self
    }

    /// Answers later queries of all clients in this way.
    fn answer(self, kind: u8, length: u16) -> Self {
        let [high, low] = length.to_be_bytes();
        self.then(Answer, &[kind, high, low])
    }

    /// Each form of a request and of a message, with each kind of answer.
    fn ask_all(self, forms: u8) -> Self {
        let asked = (0..8).fold(self, |draft, query| draft.ask(0, query | 0xb0));
        let asked = (0..forms).fold(asked, |draft, form| draft.ask(form, form & 3));
        [(1, 0), (2, 3000), (5, 0), (3, 0)].into_iter().fold(asked, |draft, (kind, length)| {
            draft.answer(kind, length).ask(0, 1).then(Release, &[9]).then(Settle, &[]).ask(1, 0)
        })
    }
}

/// The manner of a TLS client: ALPN number `alpn`, or one of those with none.
const fn alpn(number: u8) -> u8 {
    number << 3
}

/// Rules with short times, few places, and little room for unsent octets.
const FAST: u8 = 1;
const FEW: u8 = 0b10;
const FEW_OF_ONE: u8 = 0b100;
const TWO_IN_FLIGHT: u8 = 0b1000;
const LITTLE_UNSENT: u8 = 1 << 4;
const FEW_HANDSHAKES: u8 = 1 << 5;
const EARLY: u8 = 1 << 6;
/// With [`FAST`]: only the first query has a short time.
const PATIENT: u8 = 1 << 7;

/// The client has a small window, or is behind a proxy, or may not connect.
const NARROW: u8 = 4;
const PROXIED: u8 = 1;
const UNWELCOME: u8 = 3;

/// Each transport, with the manner of its client.
const DOORS: [(Door, u8); 6] = [
    (Door::Tcp, 0),
    (Door::Tls, alpn(1)),
    (Door::Https, alpn(2)),
    (Door::Http, alpn(0)),
    (Door::Quic, 0),
    (Door::Udp, 0),
];

/// Returns the first scripts.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut drafts = parts();
    for (door, manner) in DOORS {
        drafts.extend(of_door(door, manner));
    }
    for (door, manner) in
        [(Door::Tls, alpn(0) | 64), (Door::Https, alpn(3)), (Door::Both, alpn(2) | 128), (Door::Both, alpn(1))]
    {
        drafts.push(begin(0, door, manner).ask_all(2).then(CloseSending, &[]).then(Settle, &[]));
    }
    drafts.extend(of_http());
    drafts.extend(of_limits());
    drafts.extend(of_quic());
    drafts.extend(of_tcp());
    drafts.into_iter().map(|Draft(octets)| octets).collect()
}

/// Begins a script with a client that can ask.
fn begin(octet: u8, door: Door, manner: u8) -> Draft {
    again(rules(octet), door, manner)
}

/// Connects a client that can ask.
fn again(draft: Draft, door: Door, manner: u8) -> Draft {
    let draft = draft.connect(door, manner);
    let is_http2 =
        matches!(door, Door::Https | Door::Both) && manner & 56 == alpn(2) || door == Door::Http && manner & 8 == 8;
    if is_http2 { draft.then(Frame, &[0, 0, 0, 1]) } else { draft }
}

fn of_door(door: Door, manner: u8) -> Vec<Draft> {
    let begun = begin(0, door, manner);
    let [fast, small, narrow] = [
        begin(FAST, door, manner),
        begin(LITTLE_UNSENT, door, manner),
        begin(0, door, manner | NARROW).then(Deaf, &[]),
    ];
    let remove = |draft: Draft, form: u8| draft.then(Remove, &[form << 4 | door as u8]);
    vec![
        begun.clone().ask_all(2).then(CloseSending, &[]).then(Settle, &[]),
        begun.clone().ask(0, 0).then(Reset, &[]).then(Settle, &[]),
        begun
            .clone()
            .answer(6, 0)
            .ask(0, 8)
            .then(NextPart, &[0, 99, 0])
            .then(Settle, &[])
            .then(NextPart, &[255, 0, 0])
            .then(Settle, &[])
            .then(Settle, &[])
            .then(NextPart, &[0, 9, 1])
            .then(Settle, &[])
            .answer(0, 0)
            .ask(0, 0),
        begun
            .clone()
            .answer(3, 0)
            .then(Burst, &[0, 1, 200])
            .then(Settle, &[])
            .then(Release, &[255])
            .then(Settle, &[])
            .then(Release, &[255])
            .then(Settle, &[]),
        remove(begun.clone().answer(3, 0).ask(0, 0), 0).ask(0, 0).then(Release, &[9]).then(Settle, &[]),
        remove(remove(begun.clone(), 1).ask(0, 0), 2).then(Leave, &[]).then(Settle, &[]),
        // The query comes in pieces.
        begun
            .clone()
            .then(Ask, &[0, 1, 60])
            .then(Settle, &[])
            .raw(&[])
            .then(Ask, &[0, 1, 1])
            .then(Settle, &[])
            .raw(&[0]),
        // Messages without a query.
        begun.clone().then(Burst, &[0, 0xb7, 120]).then(Settle, &[]).ask(0, 0),
        begun.clone().raw(b"\x00\x01\xff\x00\x00\x00\x02ab noise").then(Settle, &[]).then(CloseSending, &[]),
        begun.clone().answer(5, 0).then(Burst, &[0, 0, 9]).then(CloseSending, &[]).then(Settle, &[]),
        fast.clone().then(Wait, &[20]).then(Wait, &[20]),
        fast.clone().ask(0, 0).then(Wait, &[16]).ask(0, 0).then(Wait, &[31]).then(Wait, &[20]),
        fast.clone().then(Ask, &[0, 0, 9]).then(Wait, &[20]).then(Wait, &[20]),
        fast.clone().answer(3, 0).ask(0, 0).then(Wait, &[31]).then(Wait, &[31]).then(Release, &[9]).then(Settle, &[]),
        fast.ask(0, 0)
            .then(Wait, &[10])
            .ask(0, 0)
            .then(Wait, &[10])
            .ask(0, 0)
            .then(Wait, &[10])
            .ask(0, 0)
            .then(Wait, &[10])
            .ask(0, 0)
            .then(Wait, &[20]),
        narrow
            .clone()
            .answer(2, 65_000)
            .then(Burst, &[0, 0, 60])
            .then(Settle, &[])
            .then(Settle, &[])
            .then(Deaf, &[])
            .then(Settle, &[])
            .then(Settle, &[])
            .then(Settle, &[]),
        narrow
            .answer(4, 65_000)
            .then(Burst, &[0, 0, 9])
            .then(Settle, &[])
            .then(Release, &[99])
            .then(Settle, &[])
            .then(Leave, &[]),
        small
            .clone()
            .then(Deaf, &[])
            .answer(4, 60_000)
            .then(Burst, &[0, 0, 9])
            .then(Settle, &[])
            .then(Release, &[99])
            .then(Settle, &[])
            .ask(0, 0),
        begin(FAST, door, manner | NARROW)
            .then(Deaf, &[])
            .answer(2, 65_000)
            .then(Burst, &[0, 0, 120])
            .then(Settle, &[])
            .then(Wait, &[31])
            .then(Wait, &[31]),
    ]
}

fn of_http() -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (door, manner) in [(Door::Http, alpn(0)), (Door::Http, alpn(1))] {
        for form in 0..14 {
            drafts.push(begin(0, door, manner).ask(form, 1).ask(0, 0).then(Settle, &[]));
        }
    }
    for form in 0..10 {
        let frame = [form, 1, 0, 0];
        drafts.push(
            begin(0, Door::Http, alpn(1)).answer(3, 0).ask(1, 0).then(Frame, &frame).then(Release, &[9]).ask(1, 0),
        );
    }
    let h2 = |octet| rules(octet).connect(Door::Http, alpn(1));
    // A stream window of no octets, which opens later.
    let closed =
        h2(0).then(Frame, &[1, 0, 0, 0]).answer(2, 3000).ask(1, 0).then(Frame, &[6, 0, 50, 0]).then(Settle, &[]);
    drafts.push(closed.clone().then(Frame, &[6, 20, 0, 0]).then(Settle, &[]).ask(1, 0));
    drafts.push(closed.then(Frame, &[2, 0, 0, 0]).then(Settle, &[]).ask(1, 0));
    // Bodies that end late or never.
    let begun = begin(FAST, Door::Http, alpn(1));
    drafts.push((0..20).fold(begun, |draft, _| draft.then(Ask, &[3, 0, 0])).then(Wait, &[31]).ask(1, 0));
    let body = begin(0, Door::Http, alpn(1)).then(Ask, &[3, 0, 0]).then(Settle, &[]);
    drafts.push(body.clone().then(Frame, &[7, 0, 1, 1]).then(Settle, &[]));
    drafts.push(body.clone().then(Frame, &[2, 0, 0, 1]).then(Settle, &[]).ask(1, 0));
    drafts.push(
        begin(TWO_IN_FLIGHT, Door::Http, alpn(1))
            .then(Ask, &[3, 0, 0])
            .answer(3, 0)
            .then(Ask, &[1, 0, 0])
            .then(Settle, &[])
            .then(Frame, &[7, 0, 1, 1])
            .then(Settle, &[])
            .then(Release, &[9])
            .then(Settle, &[]),
    );
    let patient = begin(FAST | PATIENT, Door::Http, alpn(1)).ask(1, 0);
    drafts.push((0..70).fold(patient, |draft, _| draft.then(Ask, &[3, 0, 0])).then(Wait, &[31]).ask(1, 0).ask(1, 0));
    // Heads and bodies in large parts, one after the other.
    drafts.push(
        begin(0, Door::Http, alpn(1))
            .then(Burst, &[11, 0, 100])
            .then(Settle, &[])
            .then(Burst, &[11, 0, 200])
            .then(Settle, &[])
            .ask(1, 0),
    );
    drafts.push(begin(0, Door::Http, alpn(1)).then(Burst, &[10, 0, 60]).then(Settle, &[]).ask(1, 0));
    drafts.push(h2(0).raw(b"PRI * HT").then(Settle, &[]).raw(b"TP/2.0\r\n\r\nSM\r\n\r\n").then(Settle, &[]));
    drafts.push(h2(0).raw(b"PRI * HT").then(CloseSending, &[]).then(Settle, &[]));
    drafts.push(h2(0).raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").then(Remove, &[4]).then(Frame, &[8, 0, 0, 0]));
    drafts.push(rules(0).connect(Door::Http, 0).then(Ask, &[1, 0, 9]).then(CloseSending, &[]).then(Settle, &[]));
    drafts
}

fn of_limits() -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (door, manner) in DOORS.into_iter().filter(|(door, _)| *door != Door::Udp) {
        let connect = |draft: Draft, place: u8| again(draft.then(Select, &[place]), door, manner | ((place % 3) & 2));
        let many = |octet: u8, ask: bool| {
            (0..6).fold(rules(octet).answer(3, 0), |draft, place| {
                let draft = connect(draft, place);
                if ask { draft.ask(0, 0) } else { draft }
            })
        };
        drafts.push(many(FEW, false));
        drafts.push(many(FEW, true).then(Release, &[9]).then(Settle, &[]));
        drafts.push(many(FEW_OF_ONE, true));
        drafts.push(many(FEW_HANDSHAKES, false));
        drafts.push(
            many(TWO_IN_FLIGHT, true).then(Burst, &[0, 0, 9]).then(Settle, &[]).then(Release, &[99]).then(Settle, &[]),
        );
        drafts.push(many(0, false).then(Rules, &[FEW]).then(Settle, &[]).connect(door, manner).ask(0, 0));
        // Clients that do not read fill the room, and one that reads comes.
        let full = (0..2).fold(rules(0), |draft, place| {
            let draft = again(draft.then(Select, &[place]), door, manner | NARROW).then(Deaf, &[]).answer(4, 60_000);
            draft.then(Burst, &[0, 0, 60]).then(Settle, &[]).then(Release, &[60]).then(Settle, &[])
        });
        let full = again(full.then(Rules, &[LITTLE_UNSENT]).then(Select, &[4]), door, manner);
        drafts.push(full.answer(2, 50_000).ask(0, 0).then(Settle, &[]));
        // The first response makes room for those that come.
        let asked = again(rules(0).answer(3, 0), door, manner).answer(0, 0).ask(0, 0);
        drafts.push((1..6).fold(asked.then(Rules, &[FEW]), |draft, place| connect(draft, place).ask(0, 0)));
        drafts.push(again(rules(0), door, manner).answer(2, u16::MAX).ask(0, 0).answer(0, 0).ask(0, 0));
        drafts.push(rules(0).connect(door, UNWELCOME | manner & !3).ask(0, 0));
        drafts.push(rules(0).connect(door, PROXIED | manner).ask(0, 0));
    }
    drafts
}

fn of_quic() -> Vec<Draft> {
    let begun = |octet| rules(octet).connect(Door::Quic, 0);
    let stream = |draft: Draft, kind: u8| draft.then(Quic, &[kind]).then(Settle, &[]);
    let mut drafts = vec![
        // Many handshakes at once, and one with no protocol in common.
        rules(0).connect(Door::Quic, 3 << 3).then(Settle, &[]).then(Settle, &[]).ask(0, 0),
        rules(FEW).connect(Door::Quic, 3 << 3).then(Settle, &[]).then(Settle, &[]),
        rules(0).connect(Door::Quic, 1 << 5),
        rules(0)
            .connect(Door::OtherQuic, 0)
            .then(Select, &[1])
            .connect(Door::Quic, 0)
            .then(Quic, &[6])
            .ask(0, 0)
            .then(Settle, &[])
            .ask(0, 0),
        // Sessions are used again, with early data and without.
        begun(EARLY).ask(0, 0).then(Leave, &[]).connect(Door::Quic, 64).then(Settle, &[]).ask(0, 0),
        begun(0).ask(0, 0).then(Leave, &[]).connect(Door::Quic, 64).ask(0, 0),
        begun(0).ask(2, 0).ask(0, 0),
        begun(0)
            .then(Ask, &[1, 0, 9])
            .then(Settle, &[])
            .raw(b"1")
            .then(Settle, &[])
            .raw(b"0123456789")
            .then(Settle, &[]),
        begun(0).then(Ask, &[1, 0, 0]).then(Settle, &[]).then(Quic, &[9]).then(Settle, &[]),
        begun(0).ask(0, 2).ask(0, 0),
        begun(0).ask(0, 6).ask(0, 0),
        begun(0).ask(0, 0x27),
        begun(0).then(Ask, &[0, 0, 9]).then(Settle, &[]),
        begun(FAST).then(Ask, &[1, 0, 9]).then(Wait, &[31]),
        begun(FAST).ask(0, 0).then(Ask, &[1, 0, 9]).then(Wait, &[20]).then(Settle, &[]),
        begun(0).then(Quic, &[2]).ask(0, 0).then(Quic, &[3]).then(Settle, &[]).then(Quic, &[4]).ask(0, 0),
        begun(0).then(Quic, &[5]).then(Settle, &[]).then(Settle, &[]).ask(0, 0),
        begun(0).then(Quic, &[7, 30, 0xc0, 1, 2, 3, 4, 8]).with(&[0; 24]).then(Settle, &[]),
        begun(0).then(Quic, &[7, 40, 0x40]).with(&[7; 39]).then(Settle, &[]),
        begun(0).then(Quic, &[7, 30, 0xc0, 0, 0, 0, 1, 8]).with(&[9; 24]).then(Settle, &[]),
        begun(0).then(StopReading, &[]).then(Settle, &[]).ask(0, 0),
        begun(0).answer(3, 0).ask(0, 0).then(StopReading, &[]).then(Settle, &[]).then(Release, &[9]).then(Settle, &[]),
        rules(0).connect(Door::Quic, 1 << 4).then(Remove, &[5]).then(Settle, &[]).ask(0, 0),
        rules(FAST).connect(Door::Quic, 0).then(Reset, &[]).then(Wait, &[31]),
    ];
    let whole = b"\0\x11\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";
    let wait = |draft: Draft| (0..6).fold(draft, |draft, _| draft.then(Wait, &[31]));
    drafts.extend([
        // Octets after the query, and an ID.
        begun(0).then(Ask, &[1, 0, 255]).raw(&[&whole[..], b"xx"].concat()).then(Settle, &[]).ask(0, 0),
        begun(0).then(Ask, &[1, 0, 255]).raw(&[&whole[..], b""].concat()).then(Settle, &[]).ask(0, 0),
        begun(0).ask(0, 0x80).ask(0, 0),
        // A connection that is over is forgotten.
        wait(begun(0).ask(0, 0).then(Leave, &[])).connect(Door::Quic, 0).ask(0, 0),
        begun(FAST | PATIENT).ask(0, 0).then(Ask, &[1, 0, 9]).then(Wait, &[20]).then(Settle, &[]).ask(0, 0),
        // The listener ends with handshakes at the gate.
        begun(0)
            .answer(3, 0)
            .ask(0, 0)
            .then(Select, &[1])
            .connect(Door::Quic, 0x90)
            .then(Remove, &[5])
            .then(Settle, &[])
            .then(Select, &[2])
            .connect(Door::Quic, 0)
            .then(Settle, &[]),
        (0..8).fold(begun(0).answer(2, 60_000).then(Burst, &[0, 0, 20]), |draft, _| draft.then(Settle, &[])),
        (0..4)
            .fold(begun(EARLY).ask(0, 0).then(Leave, &[]).connect(Door::Quic, 0xc0), |draft, _| draft.then(Quic, &[1])),
    ]);
    for answer in [3, 4, 6] {
        for kind in [0, 1] {
            let asked = begun(0).answer(answer, 60_000).then(Ask, &[0, 0, 0]).then(Settle, &[]);
            drafts.push(stream(asked.clone(), kind).then(Release, &[9]).then(NextPart, &[0, 9, 1]).then(Settle, &[]));
            drafts.push(stream(begun(0).answer(answer, 0).then(Ask, &[1, 0, 9]).then(Settle, &[]), kind).ask(0, 0));
            let narrow = rules(0).connect(Door::Quic, NARROW).then(Deaf, &[]).answer(answer, 60_000).ask(0, 0);
            let narrow = narrow.then(Release, &[9]).then(NextPart, &[90, 9, 0]).then(Settle, &[]);
            drafts.push(stream(narrow, kind).then(NextPart, &[90, 9, 1]).then(Settle, &[]));
        }
    }
    let narrow = rules(0).connect(Door::Quic, NARROW).answer(6, 0).ask(0, 0).then(NextPart, &[90, 9, 0]);
    drafts.push((0..6).fold(narrow, |draft, _| draft.then(Settle, &[])).then(NextPart, &[0, 9, 1]).then(Settle, &[]));
    drafts.push((0..110).fold(begun(0), |draft, _| draft.then(Ask, &[1, 0, 9]).then(Quic, &[0]).then(Quic, &[10])));
    drafts.push((0..60).fold(begun(0), |draft, _| draft.then(Ask, &[1, 0, 9]).then(Settle, &[])));
    drafts
}

fn of_tcp() -> Vec<Draft> {
    let tcp = |octet, manner| rules(octet).connect(Door::Tcp, manner);
    let mut drafts = vec![
        tcp(0, 0).ask(0, 0).then(MoveOut, &[]).then(Settle, &[]).ask(0, 0).then(Settle, &[]),
        tcp(0, 0).then(Ask, &[0, 0, 9]).then(Settle, &[]).then(MoveOut, &[]).then(Settle, &[]).ask(0, 0).ask(0, 0),
        tcp(0, 0)
            .answer(3, 0)
            .ask(0, 0)
            .then(MoveOut, &[])
            .ask(0, 0)
            .then(Release, &[9])
            .then(Settle, &[])
            .ask(0, 0)
            .then(Release, &[9])
            .then(Settle, &[]),
        rules(0).connect(Door::Tls, alpn(1)).ask(0, 0).then(MoveOut, &[]).ask(0, 0),
        tcp(FAST, PROXIED).then(Wait, &[20]),
        tcp(0, PROXIED).then(Remove, &[0]).then(Wait, &[31]),
        // More than one turn reads.
        (0..12).fold(tcp(0, 0), |draft, _| draft.then(Burst, &[0, 0x0b, 255])).then(Settle, &[]).then(Settle, &[]),
        // The server discards what comes after its end.
        tcp(FAST, 0)
            .then(Deaf, &[])
            .ask(0, 0)
            .then(Wait, &[31])
            .then(Burst, &[0, 0, 255])
            .then(Settle, &[])
            .then(Burst, &[0, 0, 255])
            .then(Settle, &[]),
        rules(0)
            .connect(Door::Udp, 0)
            .then(Burst, &[0, 0, 255])
            .then(Burst, &[0, 0, 255])
            .then(Burst, &[0, 0, 255])
            .then(Burst, &[0, 0, 255])
            .then(Burst, &[0, 0, 255])
            .then(Burst, &[0, 0, 255])
            .then(Settle, &[])
            .ask(0, 0),
        rules(0).connect(Door::Udp, PROXIED).ask(0, 0).raw(&[]).then(Settle, &[]),
        rules(0).connect(Door::Udp, 0).raw(&[]).then(Settle, &[]).raw(b"0123456789abcdef").then(Settle, &[]),
    ];
    for place in 1..4 {
        let late = tcp(0, 0).then(Remove, &[0x40]).then(Select, &[place]).connect(Door::Tcp, 0).ask(0, 0);
        drafts.push(late);
    }
    for form in [0, 1, 2, 3, 0x90] {
        drafts.push(tcp(0, PROXIED).then(NameClient, &[form]).then(Settle, &[]).ask(0, 0).ask(0, 0));
    }
    for door in [Door::Tls, Door::Https] {
        let noise = |octet| rules(octet).connect(door, alpn(5));
        drafts.push(noise(0).raw(b"\x16\x03\x01\x00\x05noise, no TLS").then(Settle, &[]).then(Settle, &[]));
        drafts.push(noise(0).then(Hello, &[0, 90]).then(Settle, &[]).then(Remove, &[door as u8]).then(Wait, &[31]));
        drafts.push(noise(FAST).then(Hello, &[0, 90]).then(Wait, &[31]));
        drafts.push(noise(0).then(Hello, &[255, 0]).then(Settle, &[]).raw(b"noise after it").then(Settle, &[]));
        let twice = rules(0).connect(door, alpn(2)).then(Frame, &[0, 0, 0, 0]).ask(0, 0).then(Leave, &[]);
        drafts.push(twice.connect(door, alpn(2)).then(Frame, &[0, 0, 0, 0]).ask(0, 0));
        let twice =
            rules(0).connect(door, alpn(1)).ask(0, 0).then(CloseSending, &[]).then(Settle, &[]).then(Leave, &[]);
        drafts.push(twice.connect(door, alpn(1)).ask(0, 0));
        for octet in 0..8 {
            let changed =
                rules(0).connect(door, alpn(5)).then(ChangeTls, &[octet]).connect(door, alpn(octet % 5) | 128);
            drafts.push(changed.ask(0, 0).connect(Door::Both, alpn(octet % 5)).ask(0, 0));
        }
        drafts.push(
            noise(FEW)
                .then(Select, &[1])
                .connect(door, alpn(5))
                .then(Select, &[2])
                .connect(door, alpn(5))
                .then(Select, &[3])
                .connect(door, alpn(5))
                .then(Select, &[4])
                .connect(door, 2 | alpn(5))
                .ask(0, 0),
        );
    }
    drafts
}

/// Scripts of the parts that need no client.
fn parts() -> Vec<Draft> {
    let mut drafts = vec![(0..36).fold(rules(0), |draft, form| draft.then(Listening, &[form]))];
    let mut stored = rules(0);
    for form in 0..128 {
        stored = stored.then(Store, &[form, 0]);
    }
    drafts.push(stored);
    // Octets of the certificate one by one.
    for first in (0..500_u16).step_by(100) {
        let edited = (first..first + 100).fold(rules(0), |draft, at| {
            let [high, low] = at.to_be_bytes();
            draft.then(Store, &[6, 3, high, low, 0x84])
        });
        drafts.push(edited);
    }
    let press = |calls: &[[u8; 2]]| {
        calls
            .chunks(100)
            .fold(rules(0), |draft, calls| draft.then(Pressure, &[(calls.len() * 2) as u8]).with(calls.as_flattened()))
    };
    // A burst; then pressure that grows, is measured, and ends.
    let mut calls = vec![[128, 9]; 17];
    calls.extend([[128 + 50, 100]; 30]);
    calls.extend([[128 + 26, 12], [128 + 26, 0], [128 + 26, 24], [128 + 26, 25]]);
    calls.extend([[100, 1]; 6]);
    calls.extend([[128, 9]; 16]);
    drafts.push(press(&calls));
    drafts
}
