//! Tests of dnstap: each message is sent once, as its schema demands, to each collector; and a collector that
//! is away, hangs or sends nonsense costs frames and no query.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::*;

const ONE: &str = "192.0.2.1";

#[derive(Debug, Default)]
struct Frame {
    kind: u64,
    identity: String,
    version: String,
    extra: String,
    /// Numbers of `Message`, by field.
    numbers: HashMap<u64, u64>,
    /// Octets of `Message`, by field.
    octets: HashMap<u64, Vec<u8>>,
}

impl Frame {
    fn read(data: &[u8]) -> Self {
        let mut frame = Self::default();
        for (field, value) in fields(data) {
            match (field, value) {
                (1, Value::Octets(text)) => frame.identity = String::from_utf8(text).expect("text"),
                (2, Value::Octets(text)) => frame.version = String::from_utf8(text).expect("text"),
                (3, Value::Octets(text)) => frame.extra = String::from_utf8(text).expect("text"),
                (15, Value::Number(1)) => {}
                (14, Value::Octets(message)) => {
                    for (field, value) in fields(&message) {
                        match value {
                            Value::Number(number) => frame.numbers.extend([(field, number)]),
                            Value::Octets(octets) => frame.octets.extend([(field, octets)]),
                        }
                    }
                }
                (field, value) => panic!("field {field}: {value:?}"),
            }
        }
        frame.kind = frame.numbers[&1];
        frame
    }

    fn is_response(&self) -> bool {
        self.kind.is_multiple_of(2)
    }

    /// The octets of the DNS message.
    fn message(&self) -> &[u8] {
        &self.octets[if self.is_response() { &14 } else { &10 }]
    }

    /// The name that it asks for, in lower case.
    fn name(&self) -> String {
        let mut name = String::new();
        let mut rest = question_of(self.message());
        while let Some((&len, after)) = rest.split_first().filter(|(len, _)| **len > 0) {
            let (label, after) = after.split_at(len.into());
            name.push_str(&String::from_utf8_lossy(label).to_lowercase());
            name.push('.');
            rest = after;
        }
        name
    }
}

#[derive(Debug)]
enum Value {
    Number(u64),
    Octets(Vec<u8>),
}

/// The fields of a message of Protocol Buffers.
fn fields(mut rest: &[u8]) -> Vec<(u64, Value)> {
    fn varint(rest: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (octet, after) = rest.split_first().expect("a whole number");
            *rest = after;
            number |= u64::from(octet & 0x7F) << shift;
            shift += 7;
            if octet & 0x80 == 0 {
                return number;
            }
        }
    }
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)),
            2 => {
                let len = varint(&mut rest) as usize;
                let (octets, after) = rest.split_at(len);
                rest = after;
                Value::Octets(octets.to_vec())
            }
            5 => {
                let (number, after) = rest.split_first_chunk().expect("four octets");
                rest = after;
                Value::Number(u32::from_le_bytes(*number).into())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

/// A control frame: READY and the like.
fn control(kind: u32) -> Vec<u8> {
    let content = b"protobuf:dnstap.Dnstap";
    let fields = match kind {
        3 | 5 => Vec::new(),
        _ => [&1_u32.to_be_bytes()[..], &(content.len() as u32).to_be_bytes(), content].concat(),
    };
    [&[0; 4][..], &(4 + fields.len() as u32).to_be_bytes(), &kind.to_be_bytes(), &fields].concat()
}

/// Reads a frame of Frame Streams; `Err` is the type of a control frame. `None`: the stream has ended between
/// two.
fn read_frame(stream: &mut impl Read) -> Option<Result<Vec<u8>, u32>> {
    let mut word = [0; 4];
    stream.read_exact(&mut word).ok()?;
    let len = u32::from_be_bytes(word) as usize;
    let is_control = len == 0;
    let len = if is_control {
        stream.read_exact(&mut word).expect("the length of a control frame");
        u32::from_be_bytes(word) as usize
    } else {
        len
    };
    let mut data = vec![0; len];
    stream.read_exact(&mut data).expect("a whole frame");
    Some(if is_control { Err(u32::from_be_bytes(*data.first_chunk().expect("a type"))) } else { Ok(data) })
}

/// Takes the connection of a server, and shakes hands.
fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().expect("it connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    assert_eq!(read_frame(&mut stream), Some(Err(4)), "READY");
    stream.write_all(&control(1)).expect("it reads");
    assert_eq!(read_frame(&mut stream), Some(Err(2)), "START");
    stream
}

/// Asks for these names, a few at a time, and waits for all responses.
fn ask_all(client: &Client, names: &[String]) {
    for (index, names) in names.chunks(20).enumerate() {
        for (number, name) in names.iter().enumerate() {
            client.send(&query(name, A).id((index * 20 + number) as u16));
        }
        names.iter().for_each(|_| drop(client.receive()));
    }
}

/// Frames that were written and dropped, as the metrics have them.
fn records(metrics: &Metrics, fate: &str) -> u64 {
    metrics.sum("hedgerow_tap_records_total", &[("tap", "dnstap"), ("fate", fate)])
}

/// How many frames there are of each type for each name.
fn tally(frames: &[Frame]) -> BTreeMap<(String, u64), usize> {
    let mut tally = BTreeMap::new();
    frames.iter().for_each(|frame| *tally.entry((frame.name(), frame.kind)).or_default() += 1);
    tally
}

/// Ends a server, and returns the frames of its file.
fn frames_of(server: &mut Server) -> Vec<Frame> {
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    let file = fs::read(server.path("tap")).expect("it is there");
    let mut rest = &file[..];
    assert_eq!(read_frame(&mut rest), Some(Err(2)), "START");
    let frames = std::iter::from_fn(|| read_frame(&mut rest)?.ok()).map(|data| Frame::read(&data)).collect();
    assert!(rest.is_empty() && file.ends_with(&control(3)), "STOP is the end");
    frames
}

#[test]
fn every_message_is_told_once_and_attempts_with_their_kind() {
    let (one, failing) = (Backend::new(answer(ONE)), Backend::new(servfail()));
    let (slow, quiet) = (Backend::new(answer(ONE).held()), Backend::new(silent()));
    let hedge = "dispatch = 'hedge'\nbalance = 'ordered'\ncache = false\n[hedge]\ndelay = '5ms'\nbudget = 1.0";
    let forwarder = Forwarder::new()
        .workers(2)
        .pool("plain", "plain.test", &[&one], "")
        .pool("over", "over.test", &[&failing, &one], "dispatch = 'sequential'\nbalance = 'ordered'\ncache = false")
        .pool("late", "late.test", &[&slow, &one], hedge)
        .pool("quiet", "quiet.test", &[&quiet], "timeout = '50ms'\ncache = false")
        .cache("size = '8MiB'")
        .admin();
    let config = format!(
        "{}\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['table']\n\
         [dnstap]\nto = 'file:tap'\nidentity = 'here'\nmessages = ['client', 'backend', 'authority']\n",
        forwarder.to_toml()
    );
    let mut server = Server::start_with_files(&config, &[("table", "host.test 192.0.2.7 A\n")]);
    let names = |zone: &str, count: usize| (0..count).map(|n| format!("q{n}.{zone}.test")).collect::<Vec<_>>();
    let client = server.client();
    let mut expected: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for (zone, count) in [("plain", 2000), ("plain", 1000), ("over", 500), ("late", 100), ("quiet", 50), ("none", 20)] {
        let names = names(zone, count);
        ask_all(&client, &names);
        let is_again = expected.contains_key(&(format!("{}.", names[0]), 5));
        // Queries to backends, and their replies.
        let (queries, replies) = match zone {
            "plain" if !is_again => (1, 1),
            "over" => (2, 2),
            "late" => (2, 1),
            "quiet" => (1, 0),
            _ => (0, 0),
        };
        for name in names {
            for (kind, count) in [(5, 1), (6, 1), (7, queries), (8, replies)].into_iter().filter(|(_, n)| *n > 0) {
                *expected.entry((format!("{name}."), kind)).or_default() += count;
            }
        }
    }
    ask_all(&Client::of(server.listener("ts")), &vec!["host.test".to_owned(); 30]);
    expected.extend([(("host.test.".to_owned(), 1), 30), (("host.test.".to_owned(), 2), 30)]);
    // A reply whose race is over is sent as well.
    slow.release();
    expected.extend(names("late", 100).into_iter().map(|name| ((format!("{name}."), 8), 2)));
    let total: usize = expected.values().sum();
    let admin = server.admin();
    let metrics = admin.wait_for("all is written", |metrics| records(metrics, "written") >= total as u64);
    assert_eq!((records(&metrics, "written"), records(&metrics, "dropped")), (total as u64, 0));
    let frames = frames_of(&mut server);
    assert_eq!(tally(&frames), expected);
    let local = server.address();
    let by_kind = |frame: &Frame, kind: &str| frame.extra.ends_with(&format!(" kind={kind}"));
    for frame in &frames {
        assert_eq!((&*frame.identity, &*frame.version), ("here", concat!("hedgerow ", env!("CARGO_PKG_VERSION"))));
        assert!(frame.numbers[&8] > 1_700_000_000 && frame.numbers.contains_key(&9), "query_time: {frame:?}");
        assert_eq!(frame.numbers.contains_key(&12), frame.is_response(), "response_time: {frame:?}");
        assert_eq!((frame.numbers[&2], frame.numbers[&3]), (1, 1), "IPv4, UDP");
        let zone = frame.name();
        if matches!(frame.kind, 5 | 6) {
            assert_eq!(frame.octets[&4], [127, 0, 0, 1]);
            assert_eq!(frame.numbers[&6], u64::from(client.address().port()));
            assert_eq!(frame.numbers[&7], u64::from(local.port()));
            assert_eq!(frame.extra, "");
        }
        if frame.kind == 7 {
            let (pool, _) = frame.extra.split_once(' ').expect("pool=P backend=B kind=K");
            assert_eq!(pool, format!("pool={}", zone.split('.').nth(1).expect("three labels")));
            let asked = u64::from(one.address().port()) == frame.numbers[&7];
            let kind = match pool {
                "pool=over" if asked => "failover",
                "pool=late" if asked => "hedge",
                _ => "first",
            };
            assert!(by_kind(frame, kind), "{frame:?}");
        }
    }
    // The reply to a query has its ID.
    let mut open: HashMap<(String, u64, u16), usize> = HashMap::new();
    for frame in frames.iter().filter(|frame| matches!(frame.kind, 7 | 8)) {
        let key = (frame.name(), frame.numbers[&7], word(frame.message(), 0));
        match frame.kind {
            7 => *open.entry(key).or_default() += 1,
            _ => assert!(
                open.get_mut(&key).is_some_and(|count| {
                    *count -= 1;
                    true
                }),
                "{key:?} was not asked"
            ),
        }
    }
}

#[test]
fn clients_by_tcp_and_tls_are_told_with_the_address_that_they_have_asked() {
    let (backend, authorities) = (Backend::new(answer(ONE)), CertificateAuthority::new());
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let forwarder = Forwarder::to(&[&backend], certificate).listen("['127.0.0.1:0', 'tls://127.0.0.1:0']").admin();
    let config = format!("{}\n[dnstap]\nto = 'file:tap'\nmessages = ['client']\n", forwarder.to_toml());
    let (chain, key) = authorities.issue("dns.example");
    let mut server = Server::start_with_files(&config, &[("chain.pem", &chain), ("key.pem", &key)]);
    let listeners = server.listeners("forwarder").to_vec();
    server.tcp_client().ask(&query("tcp.test", A));
    TlsClient::of(listeners[1], &authorities.trusted(&["dot"]), "dns.example").ask(&query("tls.test", A));
    server.admin().wait_for("all is written", |metrics| records(metrics, "written") >= 4);
    let mut seen = Vec::new();
    for frame in frames_of(&mut server) {
        let port = frame.numbers.get(&7).copied();
        assert_eq!(frame.octets.get(&5).map(Vec::as_slice), Some(&[127, 0, 0, 1][..]), "response_address: {frame:?}");
        seen.push((frame.name(), frame.kind, frame.numbers[&3], port));
    }
    seen.sort();
    let expected = |name: &str, kind, protocol, place: usize| {
        (format!("{name}.test."), kind, protocol, Some(u64::from(listeners[place].port())))
    };
    assert_eq!(
        seen,
        [expected("tcp", 5, 2, 0), expected("tcp", 6, 2, 0), expected("tls", 5, 3, 1), expected("tls", 6, 3, 1)]
    );
}

#[test]
fn attempts_have_the_transport_of_their_backend() {
    for (scheme, protocol) in [("", 1), ("tcp://", 2)] {
        let backend = Backend::new(answer(ONE));
        let address = backend.address().to_string();
        let config = Forwarder::to(&[&backend], "").admin().to_toml();
        let config = config.replace(&address, &format!("{scheme}{address}"));
        let config = format!("{config}\n[dnstap]\nto = 'file:tap'\nmessages = ['backend']\n");
        let mut server = Server::start(&config);
        server.client().ask(&query("x.test", A));
        server.admin().wait_for("both are written", |metrics| records(metrics, "written") >= 2);
        let protocols: Vec<_> = frames_of(&mut server).iter().map(|frame| frame.numbers[&3]).collect();
        assert_eq!(protocols, [protocol; 2], "{scheme}");
    }
}

#[test]
fn a_sample_has_whole_queries_and_privacy_leaves_out_what_it_says() {
    let backend = Backend::new(answer(ONE));
    let forwarder = Forwarder::to(&[&backend], "").admin().to_toml();
    let start = |keys: &str| Server::start(&format!("{forwarder}\n[dnstap]\nto = 'file:tap'\n{keys}"));
    let names: Vec<_> = (0..2000).map(|number| format!("q{number}.test")).collect();
    let mut server = start("sample = 0.1");
    ask_all(&server.client(), &names);
    let sample = frames_of(&mut server);
    let tally = tally(&sample);
    // Five and a half standard deviations of a binomial distribution.
    assert!((126..=274).contains(&(tally.len() / 4)), "{}", tally.len());
    for (name, kind) in tally.keys() {
        for other in 5..=8 {
            assert_eq!(tally.get(&(name.clone(), other)), Some(&1), "{name} has {kind}");
        }
    }
    let mut server = start("client = 'prefix'\nnames = 'none'\nmessages = ['client']");
    ask_all(&server.client(), &names[..10]);
    let cut = frames_of(&mut server);
    assert_eq!(cut.len(), 20);
    for frame in cut {
        assert_eq!(frame.octets[&4], [127, 0, 0, 0]);
        assert!(!frame.numbers.contains_key(&6), "no port: {frame:?}");
        assert!(!frame.octets.contains_key(&10) && !frame.octets.contains_key(&14), "no message: {frame:?}");
    }
}

#[test]
fn a_collector_that_comes_late_goes_and_comes_back_gets_whole_frames() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tap.sock");
    let backend = Backend::new(answer(ONE));
    let forwarder = Forwarder::to(&[&backend], "").admin().to_toml();
    let dnstap = format!("[dnstap]\nto = 'unix:{}'\nmessages = ['client']", path.display());
    let mut server = Server::start(&format!("{forwarder}\n{dnstap}"));
    let client = server.client();
    let names: Vec<_> = (0..100).map(|number| format!("q{number}.test")).collect();
    ask_all(&client, &names);
    server.process.wait_for_log("dnstap: records cannot be written");
    let listener = UnixListener::bind(&path).expect("our own folder");
    let mut stream = accept(&listener);
    for _ in 0..200 {
        Frame::read(&read_frame(&mut stream).expect("a frame").expect("data"));
    }
    drop(stream);
    ask_all(&client, &names);
    let mut stream = accept(&listener);
    for _ in 0..200 {
        Frame::read(&read_frame(&mut stream).expect("a frame").expect("data"));
    }
    server.process.signal(Signal::TERM);
    assert_eq!(read_frame(&mut stream), Some(Err(3)), "STOP");
    stream.write_all(&control(5)).expect("it waits for FINISH");
    assert!(server.process.wait_for_exit().success());
}

#[test]
fn collectors_that_hang_or_talk_nonsense_cost_frames_and_no_query() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let backend = Backend::new(answer_for(3600, ONE));
    let forwarder = Forwarder::to(&[&backend], "").cache("size = '4MiB'").admin().to_toml();
    let dnstap = format!("[dnstap]\nto = 'tcp:{address}'\nmessages = ['client']\nbuffer = '1MiB'");
    let mut server = Server::start(&format!("{forwarder}\n{dnstap}"));
    let (client, admin) = (server.client(), server.admin());
    let name = "www.test".to_owned();
    let mut asked = 0;
    let mut ask = |count: usize| {
        ask_all(&client, &vec![name.clone(); count]);
        asked += count as u64;
        asked
    };
    ask(20);
    let (mut nonsense, _) = listener.accept().expect("it connects");
    nonsense.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it reads");
    server.process.wait_for_log("does not support Frame Streams");
    // The next one shakes hands, and reads nothing more.
    let (mut hung, _) = listener.accept().expect("it connects again");
    hung.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    assert_eq!(read_frame(&mut hung), Some(Err(4)), "READY");
    hung.write_all(&control(1)).expect("it reads");
    until("there is no room any more", || {
        ask(4000);
        (records(&admin.metrics(), "dropped") > 0).then_some(())
    });
    let asked = ask(1000);
    assert_eq!(admin.metrics().sum("hedgerow_responses_total", &[]), asked, "no query waited for dnstap");
    // Read from now on, what was not dropped is there.
    assert_eq!(read_frame(&mut hung), Some(Err(2)), "START");
    let reader = thread::spawn(move || {
        let mut frames = 0;
        while let Some(Ok(frame)) = read_frame(&mut hung) {
            assert_eq!(Frame::read(&frame).name(), "www.test.");
            frames += 1;
        }
        frames
    });
    let metrics = admin.wait_for("what was not dropped is written", |metrics| {
        records(metrics, "written") + records(metrics, "dropped") == 2 * asked
    });
    assert!(records(&metrics, "dropped") > 0);
    // The end waits for no FINISH.
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    assert_eq!(reader.join().expect("whole frames"), records(&metrics, "written"));
}

/// The end takes half a second for it; on a busy machine more, but far less than such a collector is waited
/// for while there is time.
#[test]
fn a_collector_that_hangs_does_not_hold_up_the_end() {
    // Whether it shakes hands, and how many times as much is asked as there is room for.
    for (shakes_hands, is_full) in [(false, false), (true, false), (true, true)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tap.sock");
        let listener = UnixListener::bind(&path).expect("our own folder");
        let backend = Backend::new(answer_for(3600, ONE));
        let forwarder = Forwarder::to(&[&backend], "").cache("size = '4MiB'").admin().to_toml();
        let dnstap = format!("[dnstap]\nto = 'unix:{}'\nmessages = ['client']\nbuffer = '1MiB'", path.display());
        let mut server = Server::start(&format!("{forwarder}\n{dnstap}"));
        let (client, admin) = (server.client(), server.admin());
        let names = vec!["www.test".to_owned(); 100];
        ask_all(&client, &names);
        let stream = if shakes_hands { accept(&listener) } else { listener.accept().expect("it connects").0 };
        if is_full {
            until("there is no room any more", || {
                (0..40).for_each(|_| ask_all(&client, &names));
                (records(&admin.metrics(), "dropped") > 0).then_some(())
            });
        } else if shakes_hands {
            admin.wait_for("all is written", |metrics| records(metrics, "written") == 200);
        }
        let began = Instant::now();
        server.process.signal(Signal::TERM);
        assert!(server.process.wait_for_exit().success());
        assert!(began.elapsed() < Duration::from_secs(5), "{shakes_hands} {is_full}: {:?}", began.elapsed());
        let is_told =
            server.process.log().contains("dnstap: ") && server.process.log().contains("could not be written in time");
        assert_eq!(is_told, is_full || !shakes_hands, "{}", server.process.log());
        drop(stream);
    }
}

/// Needs the programs `fstrm_capture`, of Debian's package `fstrm-bin`, and `dnstap-read`, of
/// `bind9-dnsutils`.
#[test]
fn fstrm_capture_collects_it_though_it_was_stopped_and_dnstap_read_reads_it() {
    if ["fstrm_capture", "dnstap-read"].iter().any(|program| need_program("dnstap", program).is_none()) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (socket, file) = (folder.path().join("tap.sock"), folder.path().join("tap"));
    let mut command = Command::new("fstrm_capture");
    command.args(["-t", "protobuf:dnstap.Dnstap", "-u"]).arg(&socket).arg("-w").arg(&file);
    let capture = Daemon::start(|_| command);
    until("it listens", || socket.exists().then_some(()));
    let backend = Backend::new(answer_for(3600, ONE));
    let forwarder = Forwarder::to(&[&backend], "").cache("size = '4MiB'").admin().to_toml();
    let dnstap = format!("[dnstap]\nto = 'unix:{}'\nidentity = 'here'\nbuffer = '1MiB'", socket.display());
    let mut server = Server::start(&format!("{forwarder}\n{dnstap}"));
    let (client, admin) = (server.client(), server.admin());
    let mut asked = 1000;
    ask_all(&client, &vec!["www.test".to_owned(); 1000]);
    admin.wait_for("the first are written", |metrics| records(metrics, "written") >= 2002);
    capture.signal(Signal::STOP);
    until("there is no room any more", || {
        ask_all(&client, &vec!["www.test".to_owned(); 4000]);
        asked += 4000;
        (records(&admin.metrics(), "dropped") > 0).then_some(())
    });
    assert_eq!(admin.metrics().sum("hedgerow_responses_total", &[]), asked, "no query waited for it");
    capture.signal(Signal::CONT);
    let all = 2 * asked + 2;
    let metrics = admin.wait_for("what was not dropped is written", |metrics| {
        records(metrics, "written") + records(metrics, "dropped") == all
    });
    let dropped = records(&metrics, "dropped");
    ask_all(&client, &vec!["www.test".to_owned(); 1000]);
    let metrics =
        admin.wait_for("it goes on", |metrics| records(metrics, "written") + records(metrics, "dropped") == all + 2000);
    assert_eq!(records(&metrics, "dropped"), dropped, "there is room again");
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    assert!(capture.stop().success(), "it has read to the end");
    let read = Command::new("dnstap-read").arg(&file).output().expect("it was there a moment ago");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8(read.stdout).expect("text");
    assert_eq!(text.lines().count() as u64, records(&metrics, "written"));
    for kind in [" CQ ", " CR ", " FQ ", " FR "] {
        assert!(text.lines().any(|line| line.contains(kind) && line.contains("www.test/IN/A")), "{kind}: {text:.400}");
    }
    // It shows no `extra`.
    let extra = format!("pool=all backend={} kind=first", backend.address());
    let octets = fs::read(&file).expect("it is there");
    assert!(octets.windows(extra.len()).any(|window| window == extra.as_bytes()), "{extra}");
    let yaml = Command::new("dnstap-read").arg("-y").arg(&file).output().expect("it was there a moment ago");
    let yaml = String::from_utf8(yaml.stdout).expect("text");
    assert!(yaml.contains("identity: here"), "{yaml:.400}");
}
