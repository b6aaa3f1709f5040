//! `hedgerow lookup` as a user meets it: the binary, through real sockets, against scripted servers.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, MX, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;
use testkit::lookup::*;

// ---- Order and window ----

#[test]
fn results_keep_the_order_of_the_list() {
    let mut held = Vec::new();
    let server = Server::start(move |query, client| {
        held.push((client, answer(query)));
        // Nothing before all five are there, and then the last one first.
        if held.len() < 5 { Vec::new() } else { held.drain(..).rev().collect() }
    });
    let run = server.lookup(&["5.example", "1.example", "4.example", "2.example", "3.example"], "");
    run.check(
        0,
        "5.example 192.0.2.5 A\n1.example 192.0.2.1 A\n4.example 192.0.2.4 A\n\
         2.example 192.0.2.2 A\n3.example 192.0.2.3 A\n",
    );
}

#[test]
fn no_more_than_the_window_is_in_flight() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (sizes, seen) = mpsc::channel();
    thread::spawn(move || {
        // Answers come in rounds: one round is all that the client sends before it falls silent.
        socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let mut round = Vec::new();
        loop {
            match receive(&socket) {
                Some((query, client)) => round.push((client, answer(&query))),
                None if round.is_empty() => {}
                None => {
                    sizes.send(round.len()).unwrap();
                    for (client, reply) in round.drain(..) {
                        socket.send_to(&reply, client).unwrap();
                    }
                }
            }
        }
    });
    let names: String = (0..10).map(|number| format!("{number}.example\n")).collect();
    let run = lookup(address, &["-j", "3"], &names);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 10), "{}", run.stderr);
    let sizes: Vec<usize> = seen.try_iter().collect();
    assert!(sizes.iter().all(|&size| size <= 3), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 10, "{sizes:?}");
}

#[test]
fn a_slow_name_does_not_hold_up_the_others() {
    let (asked, seen) = mpsc::channel();
    let server = Server::start(move |query, client| {
        asked.send(query.queries[0].name().to_string()).unwrap();
        match query.queries[0].name().to_string().as_str() {
            "lost.example." => Vec::new(),
            _ => vec![(client, answer(query))],
        }
    });
    let names: String = (0..50).map(|number| format!("{number}.example\n")).collect();
    let mut child = server.spawn(&["-j", "2", "--timeout", "60s"], &format!("lost.example\n{names}"));
    // All others are asked while the first is still out.
    for _ in 0..51 {
        wait_for(&seen);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

// ---- Lists ----

#[test]
fn a_list_may_have_crlf_and_no_final_newline() {
    let server = Server::answering();
    server.lookup(&[], "WWW.Google.com\r\n").check(0, "WWW.Google.com 192.0.2.0 A\n");
    server
        .lookup(&["-f", "-"], "\u{feff}# list\r\n\r\n1.example AAAA\r\n2.Example.")
        .check(0, "1.example 2001:db8::1 AAAA\n2.Example. 192.0.2.2 A\n");
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    fs::write(&list, "1.example\n2.example A # both").unwrap();
    let run = server.lookup(&["3.example", "-t", "aaaa", "-f", list.to_str().unwrap()], "");
    run.check(0, "3.example 2001:db8::3 AAAA\n1.example 2001:db8::1 AAAA\n2.example 192.0.2.2 A\n");
}

#[test]
fn a_bad_line_is_refused_before_anything_is_asked() {
    let server = Untouched::new();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    fs::write(&list, "1.example\n2..example\n3.example AAA\n").unwrap();
    let list = list.to_str().unwrap();
    let run = lookup(server.address(), &["-f", list], "");
    run.check(2, "");
    server.check();
    assert!(run.stderr.contains(&format!("{list}:2:3: empty label")), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("{list}:3:11: unknown type \"AAA\"")), "{}", run.stderr);
}

#[test]
fn an_empty_list_is_answered_at_once() {
    let run = Server::answering().lookup(&[], "# nothing\n");
    run.check(0, "");
    assert!(run.stderr.starts_with("0 names: "), "{}", run.stderr);
}

#[test]
fn slips_on_the_command_line_are_usage_errors() {
    let cases: [(&[&str], &str); 9] = [
        (&["@localhost", "x.example"], "@localhost: expected an address"),
        (&["@192.0.2.1", "@192.0.2.2", "x.example"], "two servers"),
        (&["@192.0.2.1:53", "-p", "54", "x.example"], "-p 54"),
        (&["a..b"], "empty label"),
        (&["-t", "AXFR", "x.example"], "zone transfer"),
        (&["--timeout", "0s", "x.example"], "no time"),
        (&["--tries", "0", "x.example"], "--tries"),
        (&["-j", "0", "x.example"], "--in-flight"),
        (&["-f", "/no/such/list"], "/no/such/list: cannot read names"),
    ];
    for (arguments, message) in cases {
        let run = finish(start(arguments, ""));
        run.check(2, "");
        assert!(run.stderr.contains(message), "{arguments:?}: {}", run.stderr);
    }
}

// ---- Tries, junk, transports ----

#[test]
fn silence_is_asked_again_from_another_port_with_another_id() {
    let (asked, seen) = mpsc::channel();
    let mut count = 0;
    let server = Server::start(move |query, client| {
        count += 1;
        asked.send((query.metadata.id, client.port())).unwrap();
        if count < 3 { Vec::new() } else { vec![(client, answer(query))] }
    });
    server.lookup(&["--timeout", "100ms", "1.example"], "").check(0, "1.example 192.0.2.1 A\n");
    let asked: Vec<_> = seen.try_iter().collect();
    // Three IDs and ports that agree by chance: less than once in a billion runs.
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().collect::<HashSet<_>>().len() == 3, "{asked:?}");
}

#[test]
fn a_server_that_never_replies_is_exit_9() {
    let (asked, seen) = mpsc::channel();
    let server = Server::start(move |query, client| match query.queries[0].name().to_string().as_str() {
        "1.example." => vec![(client, answer(query))],
        "lost.example." => {
            asked.send(()).unwrap();
            Vec::new()
        }
        // A program of another test may still send to an earlier owner of the port.
        _ => Vec::new(),
    });
    let run = server.lookup(&["--timeout", "400ms", "--tries", "2", "1.example", "lost.example"], "");
    run.check(9, "1.example 192.0.2.1 A\nlost.example - Error:TIMED OUT\n");
    assert_eq!(seen.try_iter().count(), 2);
    assert!(run.stderr.starts_with("2 names: 1 answered, 0 not found, 0 errors, 1 timed out in "), "{}", run.stderr);
}

#[test]
fn a_closed_port_is_told_from_silence() {
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let run = lookup(closed, &["--timeout", "60s", "1.example"], "");
    run.check(9, "1.example - Error:TIMED OUT\n");
    assert!(run.stderr.contains("1 timed out (1 unreachable)"), "{}", run.stderr);
}

#[test]
fn what_does_not_match_is_ignored() {
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = Server::start(move |query, client| {
        let good = answer(query);
        let forged = |edit: fn(&mut Message)| {
            let mut message = Message::from_vec(&good).unwrap();
            message.answers[0].data = RData::A(A::new(6, 6, 6, 6));
            edit(&mut message);
            message.to_vec().unwrap()
        };
        let right_but_elsewhere = forged(|_| ());
        stranger.send_to(&right_but_elsewhere, client).unwrap();
        let junk = [
            Vec::new(),
            b"junk".to_vec(),
            forged(|message| message.metadata.id ^= 1),
            forged(|message| {
                message.queries[0].set_name(Name::root());
            }),
            query.to_vec().unwrap(),
            good[..good.len() - 1].to_vec(),
        ];
        junk.into_iter().chain([good]).map(|datagram| (client, datagram)).collect()
    });
    let run = server.lookup(&["--tries", "1", "1.example"], "");
    run.check(0, "1.example 192.0.2.1 A\n");
    assert!(run.stderr.contains("6 datagrams ignored"), "{}", run.stderr);
}

#[test]
fn a_truncated_reply_is_fetched_by_tcp() {
    let server = Server::start_with_tcp(
        |query, client| vec![(client, reply(query, |message| message.metadata.truncation = true))],
        answer,
    );
    let run = server.lookup(&["--tries", "1", "--format", "json", "1.example"], "");
    let result = run.json();
    assert_eq!(
        (run.status, &result["transport"], &result["answers"][0]["data"]),
        (0, &"tcp".into(), &"192.0.2.1".into())
    );
}

#[test]
fn a_truncated_reply_without_tcp_is_no_answer() {
    let server =
        Server::start(|query, client| vec![(client, reply(query, |message| message.metadata.truncation = true))]);
    let run = server.lookup(&["1.example"], "");
    run.check(9, "1.example - Error:TRUNCATED\n");
}

#[test]
fn tcp_can_be_asked_for() {
    let server = Server::start_with_tcp(|_, _| Vec::new(), answer);
    server.lookup(&["--tcp", "1.example"], "").check(0, "1.example 192.0.2.1 A\n");
}

#[test]
fn a_server_without_edns_is_asked_without() {
    let server = Server::start(|query, client| {
        let reply = match &query.edns {
            // Some do not even echo the question.
            Some(_) => reply(query, |message| {
                message.queries.clear();
                message.metadata.response_code = ResponseCode::FormErr;
            }),
            None => answer(query),
        };
        vec![(client, reply)]
    });
    server.lookup(&["--tries", "1", "1.example"], "").check(0, "1.example 192.0.2.1 A\n");
}

// ---- Chains and verdicts ----

/// A server with `0.example` > `1.example` > ... > `LINKS.example`, one link a reply, and an address there.
fn chain_server(links: u8) -> Server {
    Server::start(move |query, client| {
        let number = number_of(query.queries[0].name());
        if number == links {
            return vec![(client, answer(query))];
        }
        let owner = query.queries[0].name().clone();
        let link = cname(owner, &format!("{}.example.", number + 1));
        vec![(client, reply(query, |message| message.answers.push(link)))]
    })
}

#[test]
fn a_chain_is_followed_by_eight_more_queries() {
    chain_server(8).lookup(&["0.example"], "").check(0, "0.example 192.0.2.8 A\n");
    chain_server(8).lookup(&["0.example", "--format", "short"], "").check(0, "192.0.2.8\n");
    chain_server(9).lookup(&["0.example"], "").check(0, "0.example - Error:CNAME CHAIN TOO LONG\n");
}

#[test]
fn a_chain_within_a_reply_costs_no_more_queries() {
    let (asked, seen) = mpsc::channel();
    let server = Server::start(move |query, client| {
        asked.send(()).unwrap();
        let data = RData::A(A::new(128, 1, 1, 4));
        let records = [
            Record::from_rdata(name("b.example."), 60, data.clone()),
            cname(name("a.example."), "B.example."),
            Record::from_rdata(name("stranger.example."), 60, data),
            cname(name("www.example."), "a.example."),
        ];
        vec![(client, reply(query, |message| message.answers.extend(records)))]
    });
    server.lookup(&["WWW.example"], "").check(0, "WWW.example 128.1.1.4 A\n");
    assert_eq!(seen.try_iter().count(), 1);
}

#[test]
fn chains_that_lead_nowhere_say_so() {
    let server = Server::start(|query, client| {
        let owner = query.queries[0].name().clone();
        let reply = reply(query, |message| match owner.to_string().as_str() {
            "loop.example." => message.answers.push(cname(owner, "pool.example.")),
            "pool.example." => message.answers.push(cname(owner, "loop.example.")),
            "self.example." => message.answers.push(cname(owner, "self.example.")),
            "gone.example." => {
                message.answers.push(cname(owner, "nowhere.example."));
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            "empty.example." => message.answers.push(cname(owner, "nodata.example.")),
            "fails.example." => message.answers.push(cname(owner, "broken.example.")),
            "broken.example." => message.metadata.response_code = ResponseCode::ServFail,
            _ => {}
        });
        vec![(client, reply)]
    });
    server.lookup(&[], "loop.example\nself.example\ngone.example\nempty.example\nfails.example\n").check(
        0,
        "loop.example - Error:CNAME LOOP\n\
         self.example - Error:CNAME LOOP\n\
         gone.example - Error:HOST NOT FOUND\n\
         empty.example - Error:HOST NOT FOUND\n\
         fails.example - Error:SERVFAIL\n",
    );
}

#[test]
fn failures_are_called_by_their_rcode() {
    let server = Server::start(|query, client| {
        let first = query.queries[0].name().iter().next().unwrap_or_default().to_vec();
        let rcode = match first.as_slice() {
            b"nxdomain" => ResponseCode::NXDomain,
            b"servfail" => ResponseCode::ServFail,
            b"refused" => ResponseCode::Refused,
            b"notimp" => ResponseCode::NotImp,
            b"badcookie" => ResponseCode::BADCOOKIE,
            b"unknown" => ResponseCode::Unknown(12),
            _ => ResponseCode::NoError,
        };
        let reply = reply(query, |message| {
            message.metadata.response_code = rcode;
            message.edns = query.edns.as_ref().map(|_| Edns::new());
        });
        vec![(client, reply)]
    });
    let run = server.lookup(&["nxdomain", "nodata", "servfail", "refused", "notimp", "badcookie", "unknown"], "");
    run.check(
        0,
        "nxdomain - Error:HOST NOT FOUND\nnodata - Error:HOST NOT FOUND\nservfail - Error:SERVFAIL\n\
         refused - Error:REFUSED\nnotimp - Error:NOTIMP\nbadcookie - Error:BADCOOKIE\nunknown - Error:RCODE12\n",
    );
    assert!(run.stderr.starts_with("7 names: 0 answered, 2 not found, 5 errors, 0 timed out in "), "{}", run.stderr);
    server.lookup(&["nxdomain", "servfail", "--format", "short"], "").check(0, "");
}

// ---- Formats ----

/// A server with two addresses, an MX, a TXT, and an Extended DNS Error on everything.
fn rich_server() -> Server {
    Server::start(|query, client| {
        let question = &query.queries[0];
        let records: Vec<RData> = match question.query_type() {
            RecordType::A => vec![RData::A(A::new(192, 0, 2, 1)), RData::A(A::new(192, 0, 2, 2))],
            RecordType::MX => vec![RData::MX(MX::new(10, name("mx.example.")))],
            RecordType::TXT => vec![RData::TXT(TXT::new(vec!["a b;\"q\"".to_owned(), "c".to_owned()]))],
            _ => Vec::new(),
        };
        let reply = reply(query, |message| {
            let owner = question.name();
            message.answers.extend(records.into_iter().map(|data| Record::from_rdata(owner.clone(), 300, data)));
            message.metadata.recursion_available = true;
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            edns.options_mut().insert(EdnsOption::Unknown(15, b"\0\x1dall silent".to_vec()));
            message.set_edns(edns);
        });
        vec![(client, reply)]
    })
}

#[test]
fn resolved_writes_every_record_in_master_file_form() {
    rich_server().lookup(&[], "Two.example\nTwo.example MX\nTwo.example TXT\n").check(
        0,
        "Two.example 192.0.2.1 A\nTwo.example 192.0.2.2 A\nTwo.example 10 mx.example. MX\n\
         Two.example \"a b;\\\"q\\\"\" \"c\" TXT\n",
    );
}

#[test]
fn short_writes_data_only() {
    let run = rich_server().lookup(&["--format", "short"], "two.example\nnodata.example SRV\ntwo.example MX\n");
    run.check(0, "192.0.2.1\n192.0.2.2\n10 mx.example.\n");
}

#[test]
fn json_is_an_object_a_line() {
    let server = rich_server();
    let run = server.lookup(&["--format", "json", "Two.example"], "");
    let mut result = run.json();
    assert!(result["time_us"].take().is_u64());
    let expected = serde_json::json!({
        "name": "Two.example", "type": "A", "rcode": "NOERROR",
        "answers": [
            {"name": "Two.example.", "type": "A", "ttl": 300, "data": "192.0.2.1"},
            {"name": "Two.example.", "type": "A", "ttl": 300, "data": "192.0.2.2"},
        ],
        "server": server.address.to_string(), "transport": "udp", "time_us": null, "tries": 1,
        "ede": [{"code": 29, "name": "Synthesized", "text": "all silent"}],
    });
    assert_eq!(result, expected);

    let silent = Server::start(|_, _| Vec::new());
    let run = silent.lookup(&["--format", "json", "--timeout", "20ms", "lost.example"], "");
    let result = run.json();
    assert_eq!((run.status, &result["rcode"], &result["tries"]), (9, &Value::Null, &3.into()));
    assert_eq!((&result["error"], &result["answers"]), (&"TIMED OUT".into(), &serde_json::json!([])));
}

#[test]
fn dig_shows_the_whole_reply() {
    let server = rich_server();
    let run = server.lookup(&["--format", "dig", "two.example"], "");
    let (port, text) = (server.address.port(), &run.stdout);
    assert_eq!(run.status, 0, "{}", run.stderr);
    for part in [
        ";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: ",
        ";; flags: qr rd ra; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 1\n",
        ";; OPT PSEUDOSECTION:\n; EDNS: version: 0, flags:; udp: 1232\n; EDE: 29 (Synthesized): (all silent)\n",
        ";; QUESTION SECTION:\n;two.example.\t\tIN\tA\n",
        ";; ANSWER SECTION:\ntwo.example.\t300\tIN\tA\t192.0.2.1\ntwo.example.\t300\tIN\tA\t192.0.2.2\n",
        ";; Query time: ",
        &format!(";; SERVER: 127.0.0.1#{port}(127.0.0.1) (UDP)\n;; MSG SIZE  rcvd: "),
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

// ---- Output ----

#[test]
fn an_output_file_appears_whole() {
    let server = Server::answering();
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "old").unwrap();
    symlink(&file, &link).unwrap();
    server.lookup(&["1.example", "-o", link.to_str().unwrap()], "").check(0, "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1.example 192.0.2.1 A\n");
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_interrupted_run_leaves_the_old_file() {
    let (asked, seen) = mpsc::channel();
    let server = Server::start(move |query, client| {
        let name = query.queries[0].name().to_string();
        let reply = if name == "1.example." { vec![(client, answer(query))] } else { Vec::new() };
        asked.send(name).unwrap();
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "old").unwrap();
    let arguments = ["-j", "1", "--timeout", "60s", "-o", file.to_str().unwrap(), "1.example", "lost.example"];
    let child = server.spawn(&arguments, "");
    while wait_for(&seen) != "lost.example." {}
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "results are collected beside the file");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let run = finish(child);
    run.check(1, "");
    assert_eq!(run.stderr, "interrupted\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_anything_is_asked() {
    let server = Untouched::new();
    for path in ["/no/such/folder/file", "/"] {
        let run = lookup(server.address(), &["1.example", "-o", path], "");
        run.check(1, "");
        server.check();
        assert!(run.stderr.starts_with(&format!("{path}: cannot write results: ")), "{}", run.stderr);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let (leave, left): (Sender<()>, Receiver<()>) = mpsc::channel();
    let server = Server::start(move |query, client| {
        // Returns at once when the other end is gone.
        let _ = left.recv();
        vec![(client, answer(query))]
    });
    let mut child = server.spawn(&["1.example"], "");
    drop(child.stdout.take());
    drop(leave);
    let run = finish(child);
    run.check(0, "");
    assert_eq!(run.stderr, "");
}
