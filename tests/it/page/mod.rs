//! The page at `/` of the admin server: its files and headers, and what a browser makes of it. What it is
//! shown comes from a real server, or, where that would take a day or two thousand backends, from a stand-in
//! behind a path prefix.

mod fixture;

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use hedgerow::control::observe::sight::live::VerdictState;
use serde_json::json;
use testkit::browser::Browser;
use testkit::stand_in::StandIn;
use testkit::*;

use self::fixture::{Fixture, HOSTILE, NOW, WRONG};
use crate::support::admin_site::{HOST, Site, TOKEN};

/// The rights of the page in a browser.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The widths of a phone, a tablet, a laptop and a large screen, and in how many rows each has the charts.
const WIDTHS: [(u32, u32); 4] = [(390, 5), (820, 5), (1280, 3), (2200, 2)];

#[test]
fn files_come_with_headers_that_let_them_do_no_more_than_they_need() {
    let site = Site::start();
    for (path, media) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/uplot.js", "text/javascript; charset=utf-8"),
        ("/uplot.css", "text/css; charset=utf-8"),
        ("/uplot.license", "text/plain; charset=utf-8"),
    ] {
        let answer = site.ask_with(&format!("GET {path}"), &[HOST], "");
        assert_eq!(answer.status, 200, "{path}");
        for line in [
            format!("content-type: {media}"),
            format!("content-security-policy: {POLICY}"),
            "x-content-type-options: nosniff".to_owned(),
            "referrer-policy: no-referrer".to_owned(),
            "cross-origin-opener-policy: same-origin".to_owned(),
            "cross-origin-resource-policy: same-origin".to_owned(),
        ] {
            assert!(answer.head.lines().any(|found| found == line), "{path}: no {line} in {}", answer.head);
        }
        assert_eq!(site.ask_with(&format!("GET {path}"), &["Host: evil.example"], "").status, 403, "{path}");
    }
}

#[test]
fn a_reload_takes_the_page_away_and_brings_it_back() {
    let backend = Backend::new(answer("192.0.2.1"));
    let config = Forwarder::to(&[&backend], "").admin().to_toml();
    let server = Server::start(&config);
    assert_eq!(server.admin().get("/").status, 200);
    for (config, status) in [(format!("{config}page = false\n"), 404), (config, 200)] {
        server.reload("config.toml", &config);
        until(&format!("/ is {status}"), || (server.admin().get("/").status == status).then_some(()));
        assert_eq!(server.admin().get("/page.js").status, status);
        assert_eq!(server.admin().get("/healthz").status, 200);
    }
}

/// The page lists zones with their state.
#[test]
fn zones_are_told_with_their_state() {
    let nobody = Closed::new();
    let zone =
        "$ORIGIN example.org.\n@ 300 SOA ns.elsewhere. h.example.org. 7 3600 600 86400 60\n@ 300 NS ns.elsewhere.\n";
    let config = format!(
        "[admin]\nlisten = '127.0.0.1:0'\n[authorities.ts1]\nlisten = ['127.0.0.1:0']\n\
         zones = ['example.org.zone', {{ zone = 'example.net', primaries = ['{}'], file = 'net.saved' }}]\n",
        nobody.address()
    );
    let server = Server::start_with_files(&config, &[("example.org.zone", zone)]);
    let status = server.admin().get("/api/v1/status").body;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let reported = json!([
        {"authority": "ts1", "name": "example.net.", "state": "absent", "serial": null},
        {"authority": "ts1", "name": "example.org.", "state": "primary", "serial": 7},
    ]);
    assert_eq!((&status["zones"], &status["more_zones"]), (&reported, &json!(0)));
}

#[test]
fn what_is_told_is_shown_to_everybody() {
    let Some(browser) = Browser::start("the page") else { return };
    let site = Site::start();
    let stand_in = StandIn::before(site.address);
    let fixture = Fixture::new(VerdictState::Trouble, &["ts1", HOSTILE, "ts3"]);
    stand_in.reported().answers.extend(fixture.answers());
    stand_in.publish(fixture.second(NOW));
    browser.prefer("light");
    browser.open(&stand_in.url());
    stand_in.wait_for_streams(1);
    // Where a browser is slow, a second is old before it is drawn.
    let mut second = NOW;
    until("the page is live", || {
        second += 1;
        // With those before it: one that it has missed would be a gap, and a row more.
        (NOW + 1..=second).for_each(|second| stand_in.publish(fixture.second(second)));
        let is_live = "document.getElementById('feed').dataset.state === 'live'";
        browser.look_for(is_live, Duration::from_secs(2)).as_bool()
    });

    // What it is about stands on top, in words.
    assert_eq!(browser.text("verdict-word"), "Trouble");
    assert!(browser.text("reasons").contains("ts1 of pool ts has been down for 40 s"));
    assert!(browser.text("verdict-since").starts_with("since "), "{}", browser.text("verdict-since"));
    assert_eq!(browser.run("return document.title"), "Trouble · hedgerow");
    browser.wait_for("!document.getElementById('reload').hidden");
    assert_eq!(browser.run("return document.getElementById('reload-error').textContent"), WRONG);
    let backends = browser.text("backends");
    let first = backends.lines().nth(1).expect("a row");
    assert!(first.starts_with("down\tts1\tts\t4"), "{backends}");
    assert!(backends.lines().nth(2).is_some_and(|row| row.starts_with("up, flapping\tts3\t")), "{backends}");
    for (table, text) in [
        ("tiles", "From the cache"),
        // Of the pool that nearly all queries ask, not of the slower one.
        ("tiles", "0.50 ms"),
        ("pools", "2 of 3"),
        ("answers", "made up here"),
        ("cache", "misses"),
        ("dropped", "malformed"),
        // Of 930 responses a second 93 report a failure.
        ("tiles", "10.0 %"),
        ("late", "late replies"),
        ("sources", "doubted"),
        ("zones", "expired"),
        ("server", "edition 3 of the config"),
    ] {
        assert!(browser.text(table).contains(text), "{table}: {}", browser.text(table));
    }

    // Names are text.
    assert_eq!(browser.run("return document.querySelectorAll('#backends img, #slow img').length"), 0);
    let named = "return [...document.querySelectorAll('#backends tbody th')].map(cell => cell.textContent)";
    let shown = HOSTILE.replace('\u{202e}', "\\u{202e}").replace('\u{7}', "\\u{7}");
    assert!(browser.run(named).as_array().expect("a list").contains(&shown.into()));

    // Each chart says the same as a table.
    browser.run("document.querySelectorAll('details').forEach(table => { table.open = true })");
    browser.wait_for("[...document.querySelectorAll('details table')].every(table => table.rows.length === 601)");
    for (chart, values) in [(1, "0.50 212 850"), (3, "700 137 93.0 0")] {
        let row = format!("document.querySelectorAll('details table')[{chart}].rows[1]");
        let row = browser.run(&format!("return {row}.innerText.split('\\t').slice(1).join(' ')"));
        assert_eq!(row, format!("{values} Trouble"));
    }
    // A day of it, and back.
    browser.click("span-24h");
    browser.wait_for("document.querySelectorAll('details table')[0].rows.length === 1441");
    browser.click("span-10m");
    browser.wait_for("document.querySelectorAll('details table')[0].rows.length === 601");
    browser.run("document.querySelectorAll('details').forEach(table => { table.open = false })");

    // By the keyboard: a moment, and its slow races.
    browser.run("document.querySelectorAll('.plot')[1].focus()");
    browser.press("\u{e012}\u{e012}\u{e012}");
    let said = browser.run("return document.activeElement.getAttribute('aria-valuetext')");
    assert!(said.as_str().is_some_and(|said| said.ends_with("p50 0.50, p99 212, p99.9 850")), "{said}");
    browser.press("\u{e007}");
    browser.wait_for("document.querySelectorAll('#slow-table tbody tr').length > 0");
    let races = browser.text("slow-table");
    assert!(races.contains("ts1 silent; hedge to ts2 denied for 180 ms") && races.contains("onerror"), "{races}");
    assert!(browser.text("slow-title").starts_with("Slow races from"), "{}", browser.text("slow-title"));
    assert_eq!(browser.run("return document.activeElement.id"), "slow-title");
    // By a click.
    browser.run("document.getElementById('slow-title').textContent = ''");
    browser.click_in(".u-over", 300);
    browser.wait_for("document.getElementById('slow-title').textContent.startsWith('Slow races from')");

    // The names and clients that ask most.
    browser.click("names-show");
    browser.wait_for("document.querySelectorAll('#clients tbody tr').length === 2");
    let clients =
        "Client\tQueries\tShare\tError, at most\n192.0.2.7\t3,200\t0.52 %\n\t0\n2001:db8::7\t160\t0.03 %\n\t0";
    assert_eq!(browser.text("clients"), clients);
    assert!(browser.text("names").contains("onerror") && browser.text("servfail").contains("broken.example."));
    let places = "return ['names', 'clients-part'].map(id => document.getElementById(id).closest('section').offsetTop)";
    let places = browser.run(places);
    assert_eq!(places[0], places[1], "clients stand beside names");

    accessible(&browser, "light");
    browser.click("names-show");
    browser.wait_for("document.querySelectorAll('#names tbody tr').length > 0");
    for (width, rows_of_charts) in WIDTHS {
        browser.picture(&format!("light-{width}"), width);
        let rows = "return new Set([...document.querySelectorAll('.chart')].map(chart => chart.offsetTop)).size";
        assert_eq!(browser.run(rows), rows_of_charts, "{width}");
        let cut = "return [...document.querySelectorAll('section > .wide')].filter(table => table.scrollWidth > table.clientWidth).length";
        assert_eq!(browser.run(cut), 0, "tables with hidden columns at {width}");
    }
    for width in [320, 360] {
        browser.resize(width, 640);
        let wide = browser.run("return document.documentElement.scrollWidth");
        assert!(wide.as_u64().is_some_and(|wide| wide <= width.into()), "{wide} in {width}");
    }
    let titles = "return getComputedStyle(document.querySelector('#backends td'), '::before').content";
    assert_eq!(browser.run(titles), "\"State\"", "cells of a card have titles");
    accessible(&browser, "narrow");
    // Dark by the system's wish, and by the switch.
    let back = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.run(back);
    browser.prefer("dark");
    assert_ne!(browser.run(back), light);
    accessible(&browser, "dark");
    WIDTHS.iter().for_each(|(width, _)| browser.picture(&format!("dark-{width}"), *width));
    browser.click("theme");
    assert_eq!((browser.text("theme").as_str(), browser.run(back)), ("Theme: light", light));

    // The page sends requests only to its own server, and reads the responses.
    let requests = browser.requests();
    assert!(requests.len() > 8, "{requests:?}");
    assert!(requests.iter().all(|url| url.starts_with(&stand_in.url())), "{requests:?}");
    assert_eq!(browser.console(), Vec::<String>::new());
    // From elsewhere the page shows no names, but how to see them.
    for path in ["/api/v1/slow", "/api/v1/names"] {
        stand_in.reported().answers.insert(path, (403, json!({"error": "names are private"})));
    }
    for (button, note) in [("slow-all", "slow-note"), ("names-show", "names-note")] {
        browser.click(button);
        browser.wait_for(&format!("document.getElementById('{note}').textContent.includes('Names are private')"));
        assert!(browser.text(note).contains("hedgerow ctl"), "{}", browser.text(note));
    }
    let shown = "return document.querySelectorAll('#slow-table tbody tr, #names tbody tr, #clients tbody tr').length";
    assert_eq!(browser.run(shown), 0, "the page forgets what it may no longer read");
    assert_eq!(browser.console().len(), 2, "the two refusals");
}

/// Takes some 25 s: two windows wait for `OLD` (5 s) of page.js, two for `POLL` (4 s), and each of seven for
/// `HEARSAY`.
#[test]
fn tabs_share_the_connections_of_a_browser_and_rest_while_hidden() {
    let Some(browser) = Browser::start("tabs of the page") else { return };
    let site = Site::start();
    let stand_in = StandIn::before(site.address);
    let fixture = Fixture::new(VerdictState::Well, &["ts1", "ts2"]);
    stand_in.reported().answers.extend(fixture.answers());
    let now = Cell::new(NOW);
    let publish = |fixture: &Fixture| {
        stand_in.publish(fixture.second(now.get()));
        now.set(now.get() + 1);
    };
    // A second after the other, until this is seen.
    let tell_until = |expression: &str| {
        patiently(expression, || {
            publish(&fixture);
            let script = format!("setTimeout(() => done(Boolean({expression})), 100)");
            browser.run_until_done(&script).as_bool().filter(|&holds| holds)
        })
    };
    let mode = |state: &str| format!("document.getElementById('feed').dataset.state === '{state}'");
    publish(&fixture);
    browser.open(&stand_in.url());
    tell_until(&mode("live"));

    // Hidden for a minute: nothing is asked for. Then it has all that it missed.
    browser.hide(true);
    stand_in.wait_for_streams(0);
    let (first, asked) = (now.get(), stand_in.reported().asked.len());
    let changed = Fixture::new(VerdictState::Watch, &["ts1", "ts2"]);
    (0..60).for_each(|_| publish(&changed));
    assert_eq!(stand_in.reported().asked.len(), asked, "{:?}", stand_in.reported().asked);
    browser.hide(false);
    browser.wait_for("document.getElementById('verdict-word').textContent === 'Watch'");
    let since: Vec<_> = stand_in.reported().asked[asked..].to_vec();
    assert!(since.iter().any(|path| path.starts_with("/api/v1/live?last_event_id=")), "{since:?}");
    assert!(since.iter().all(|path| !path.contains("span=10m")), "{since:?}");
    browser.run("document.querySelector('details').open = true");
    browser.wait_for("document.querySelector('details table').rows.length > 60");
    let times =
        "return [...document.querySelector('details table').rows].slice(1, 61).map(row => row.cells[0].textContent)";
    let expected: Vec<_> = (first..first + 60).rev().map(|at| time_of_day(&browser, at)).collect();
    assert_eq!(browser.run(times), json!(expected));

    // A browser has six connections to a host: some windows have streams, the seventh asks, and is shown all
    // the same.
    for _ in 1..7 {
        browser.open_beside(&stand_in.url());
        tell_until(&format!("{} || {}", mode("live"), mode("polling")));
    }
    assert!(browser.text("feed").starts_with("asking each 4 s: other tabs"), "{}", browser.text("feed"));
    assert!((2..6).contains(&stand_in.reported().streams), "{}", stand_in.reported().streams);
    let before = stand_in.reported().asked.iter().filter(|path| path.ends_with("live?once")).count();
    patiently("it asks again", || {
        publish(&fixture);
        browser.run_until_done("setTimeout(done, 100)");
        let count = stand_in.reported().asked.iter().filter(|path| path.ends_with("live?once")).count();
        (count > before + 1).then_some(())
    });
    assert_eq!(browser.console(), Vec::<String>::new());

    // Nor is there a stream where the server has enough of them. Old data is marked as old.
    stand_in.reported().has_no_stream = true;
    browser.open(&stand_in.url());
    tell_until(&mode("polling"));
    // A server that repeats a second sends nothing new.
    browser.wait_for(&mode("late"));
    tell_until(&mode("polling"));
    stand_in.reported().answers.insert("/api/v1/live", (500, json!({"error": "no more"})));
    browser.wait_for(&mode("late"));
    assert!(browser.text("feed").contains("old"), "{}", browser.text("feed"));
}

/// A forwarder whose admin server counts names, with these further keys.
fn counting(backend: &Backend, keys: &str) -> Server {
    let config = Forwarder::to(&[backend], "").admin().to_toml() + "names = true\n" + keys;
    let server = Server::start_with_files(&config, &[("admin.token", TOKEN)]);
    until("names are counted", || {
        server.client().ask(&query("www.example", A));
        server.admin().send_over_socket("GET", "/api/v1/names", "").body.contains("www.example").then_some(())
    });
    server
}

#[test]
fn a_name_is_explained_with_the_token_which_goes_nowhere_else() {
    let Some(browser) = Browser::start("the token of the page") else { return };
    let backend = Backend::new(answer("192.0.2.1"));
    let server = counting(&backend, "token_file = 'admin.token'\n");
    let url = format!("http://{}/", server.listener("admin"));
    browser.open(&url);
    browser.wait_for("document.getElementById('feed').dataset.state === 'live'");
    assert_eq!(browser.run("return document.getElementById('token-part').hidden"), true);

    // The server refuses, and the page asks for the token.
    let note = |part: &str| format!("document.getElementById('explain-note').textContent.includes('{part}')");
    browser.fill("explain-name", "www.example");
    browser.click("explain-run");
    browser.wait_for(&note("This needs the token of the server"));
    assert_eq!(browser.run("return document.activeElement.id"), "token");
    browser.press("two words\u{e007}");
    browser.wait_for(&note("no blanks"));
    browser.fill("token", "fedcba9876543210");
    browser.click("token-use");
    browser.wait_for(&note("This is not the token of the server"));
    accessible(&browser, "the page that asks for the token");
    // Another request waits for the token, too.
    browser.click("names-show");
    browser.wait_for("document.getElementById('names-note').textContent.includes('This needs the token')");
    browser.run("document.getElementById('token').focus()");
    browser.press(&format!("{TOKEN}\u{e007}"));
    browser.wait_for("document.getElementById('explain-lines').children.length > 0");
    let (lines, name) = (browser.text("explain-lines"), backend.address());
    let attempt = format!("{name}: first after 0 ms, won in ");
    let response = ["Response: NOERROR from a backend after ", "www.example. 60 A 192.0.2.1"];
    let starts =
        ["Pool all by route ., worker", "Cache: off", "Order: ", &attempt, &format!("Why: {name} replied in ")];
    let mut expected = starts.iter().copied().chain(response);
    assert!(lines.lines().all(|line| expected.next().is_some_and(|start| line.starts_with(start))), "{lines}");
    assert_eq!(expected.next(), None, "{lines}");
    let candidates = browser.text("candidates");
    assert!(candidates.lines().nth(1).is_some_and(|row| row.starts_with(&format!("1\t{name}\tup"))), "{candidates}");

    // The same token shows names, clients and slow races, and a click explains a name of the list.
    browser.wait_for("document.querySelectorAll('#clients tbody tr').length === 1");
    assert!(browser.text("clients").contains("127.0.0.1"), "{}", browser.text("clients"));
    browser.click("slow-all");
    browser.wait_for("document.getElementById('slow-note').textContent === 'There was none.'");
    browser.fill("explain-name", "");
    browser.run("document.querySelector('#names tbody button').click()");
    browser.wait_for("document.getElementById('explain-name').value === 'www.example.'");
    browser.wait_for("document.getElementById('explain-lines').children.length > 0");
    // A request that is not private.
    browser.click("span-24h");
    browser.wait_for("performance.getEntriesByType('resource').some(({ name }) => name.includes('span=24h'))");
    accessible(&browser, "the page with an explained name");
    browser.picture("explain-1440", 1440);
    browser.picture("explain-360", 360);

    // The token is in no storage, no URL and no text, and only in one header of private requests.
    let places = "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state, \
                  window.name, document.documentElement.outerHTML, [...document.querySelectorAll('input')].map(input => input.value)])";
    let places = browser.run(places);
    assert!(places.as_str().is_some_and(|text| text.contains("www.example.") && !text.contains(TOKEN)), "{places}");
    let private = ["api/v1/explain", "api/v1/names", "api/v1/slow"].map(|path| format!("{url}{path}"));
    let mut with_token = 0;
    for mut request in browser.sent_requests() {
        let sent = request["url"].as_str().expect("text").to_owned();
        assert!(sent.starts_with(&url), "{request}");
        let headers = request["headers"].as_object_mut().expect("headers");
        if let Some(credentials) = headers.remove("Authorization") {
            assert!(private.iter().any(|path| sent.split('?').next() == Some(path)), "{request}");
            with_token += usize::from(credentials == format!("Bearer {TOKEN}"));
        }
        assert!(!request.to_string().contains(TOKEN), "{request}");
    }
    assert_eq!(with_token, 4, "explained twice, names and slow races");
    // Chromium would have a form around the field.
    let problems = browser.console().into_iter().filter(|line| !line.contains("Password field is not contained"));
    assert_eq!(problems.count(), 3, "the three refusals");

    // Forgotten, it is not sent.
    browser.click("token-forget");
    browser.click("explain-run");
    browser.wait_for(&note("This needs the token of the server"));
    let sent = browser.sent_requests();
    assert!(sent.iter().any(|request| request["url"] == private[0].as_str()), "{sent:?}");
    assert!(sent.iter().all(|request| request["headers"]["Authorization"].is_null()), "{sent:?}");
}

#[test]
fn without_a_token_names_are_shown_here_and_the_page_says_where_they_are_explained() {
    let Some(browser) = Browser::start("the page without a token") else { return };
    let backend = Backend::new(answer("192.0.2.1"));
    let server = counting(&backend, "");
    browser.open(&format!("http://{}/", server.listener("admin")));
    browser.wait_for("document.getElementById('feed').dataset.state === 'live'");
    browser.click("names-show");
    browser.wait_for("document.querySelectorAll('#names tbody tr').length === 1");
    browser.run("document.querySelector('#names tbody button').click()");
    browser.wait_for("document.getElementById('explain-note').textContent.includes('hedgerow ctl explain')");
    assert!(browser.text("explain-note").contains("admin.token_file"), "{}", browser.text("explain-note"));
    assert_eq!(browser.run("return document.getElementById('token-part').hidden"), true);
}

#[test]
fn two_thousand_backends_and_a_long_day_cost_no_more() {
    let Some(browser) = Browser::start("a large page") else { return };
    let site = Site::start();
    let stand_in = StandIn::before(site.address);
    let names: Vec<_> = (1..=2_000).map(|number| format!("ts{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let fixture = Fixture::new(VerdictState::Watch, &names);
    stand_in.reported().answers.extend(fixture.answers());
    stand_in.publish(fixture.second(NOW));
    browser.open(&stand_in.url());
    stand_in.wait_for_streams(1);
    browser.wait_for("document.querySelectorAll('#backends tbody tr').length === 64");
    assert_eq!(browser.text("more-backends"), "and 1,936 more that do better");
    assert!(browser.text("backends").lines().nth(1).is_some_and(|row| row.starts_with("down\tts1\t")));
    assert!(browser.text("pools").contains("1,999 of 2,000"), "{}", browser.text("pools"));
    browser.wait_for("document.getElementById('server').textContent.includes('1.2.3')");

    // Hours of it, as fast as it takes them: what it keeps and shows stays as large as it was.
    let mut now = NOW;
    let mut publish = |count: u64| {
        for _ in 0..count {
            now += 1;
            stand_in.publish(fixture.second(now));
        }
        let last = time_of_day(&browser, now);
        browser
            .wait_for(&format!("document.querySelector('details table').rows[1]?.cells[0].textContent === {last:?}"));
        browser.command("HeapProfiler.collectGarbage", json!({}));
        let heap = browser.command("Runtime.getHeapUsage", json!({}))["usedSize"].as_f64().expect("octets");
        let nodes = browser.run("return document.querySelectorAll('*').length").as_u64().expect("a number");
        (nodes, heap)
    };
    browser.run("document.querySelector('details').open = true");
    let (nodes, heap) = publish(700);
    let (later_nodes, later_heap) = publish(1_800);
    assert_eq!(later_nodes, nodes);
    assert!(later_heap < heap * 1.25 + 1e6, "{heap} octets, then {later_heap}");
}

#[test]
fn a_death_a_stall_a_bad_config_and_a_restart_are_seen() {
    let Some(browser) = Browser::start("the page of a real server") else { return };
    // Names that begin with `slow` take their time.
    let first = Backend::new(answer("192.0.2.1").except("slow", answer("192.0.2.1").after(ms(300))));
    let second = Backend::new(answer("192.0.2.2"));
    let admin = free_address();
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\nattempt_timeout = '2s'\n\
                [health]\ninterval = '1s'\ntimeout = '900ms'\nfall = 1\nrise = 1";
    let config = Forwarder::to(&[&first, &second], keys).to_toml() + &format!("[admin]\nlisten = '{admin}'\n");
    let server = Server::start(&config);
    let url = format!("http://{admin}/");
    // Notes of each second what it says of the first backend, and what the page shows of it two frames later.
    browser.command(
        "Page.addScriptToEvaluateOnNewDocument",
        json!({ "source": SECONDS.replace("NAME", &first.address().to_string()) }),
    );
    browser.open(&url);
    browser.wait_for("document.getElementById('feed').dataset.state === 'live'");
    let row = |states: &[&str]| {
        let words = json!(states);
        format!("seconds.some(([sent, shown]) => {words}.includes(sent) && shown.startsWith(sent))")
    };
    browser.wait_for(&row(&["up"]));

    // The page shows a new state in the second that reports it.
    for (is_dead, state) in [(true, "down"), (false, "up")] {
        browser.run("seconds.length = 0");
        first.play_dead(is_dead);
        browser.wait_for(&row(&[state]));
        let late = browser.run("return seconds.filter(([sent, shown]) => !shown.startsWith(sent))");
        assert_eq!(late, json!([]), "published, and shown two frames later");
    }

    // The page names the cause of slow answers.
    let client = server.client();
    let shown = |name: std::net::SocketAddr| {
        format!(
            "[...document.querySelectorAll('#backends tr')].find(row => row.cells[1].textContent === '{name}').cells[4].textContent"
        )
    };
    patiently("the page shows the slow backend above the other", || {
        let queries: Vec<_> = (0..20).map(|number| query(&format!("slow.n{number}.example"), A)).collect();
        queries.iter().for_each(|query| client.send(query));
        queries.iter().for_each(|_| drop(client.receive()));
        let slow = shown(first.address());
        let is_first =
            format!("document.getElementById('backends').rows[1].cells[1].textContent === '{}'", first.address());
        (browser.run(&format!("return parseFloat({slow}) >= 300 && {is_first}")) == true).then_some(())
    });
    assert_eq!(browser.run(&format!("return parseFloat({}) >= 300", shown(second.address()))), false);

    // A config that is wrong, and where.
    server.reload("config.toml", &config.replace("[forwarder]", "[forwarder]\nlisen = 1"));
    browser.wait_for("!document.getElementById('reload').hidden");
    let error = browser.run("return document.getElementById('reload-error').textContent");
    let error = error.as_str().expect("text");
    assert!(error.contains("config.toml:3:1: forwarder: unknown key \"lisen\""), "{error}");
    assert!(!error.contains("lisen = 1"), "the page shows no line of the config: {error}");

    let requests = browser.requests();
    assert!(requests.iter().all(|asked| asked.starts_with(&url)), "{requests:?}");
    assert_eq!(browser.console(), Vec::<String>::new());

    // The server goes, and comes back: the page says so, and goes on by itself.
    drop(server);
    browser.wait_for("['late', 'waiting'].includes(document.getElementById('feed').dataset.state)");
    browser.run("seconds.length = 0");
    let _server = Server::start(&config);
    browser.wait_for(&row(&["up"]));
    browser.wait_for("document.getElementById('feed').dataset.state === 'live'");
    browser.wait_for("document.getElementById('reload').hidden");
}

/// Notes the state of a backend in each event of a page, and the state that the page then shows, unless the
/// next event is there by then.
const SECONDS: &str = "
    const seconds = [];
    const Plain = EventSource;
    EventSource = class extends Plain {
        constructor(url) {
            super(url);
            let last;
            this.addEventListener('second', event => {
                last = event;
                const reported = JSON.parse(event.data).pools[0].backends.find(({ name }) => name === 'NAME').state;
                const look = () => [...document.querySelectorAll('#backends tr')].find(row => row.cells[1].textContent === 'NAME')?.innerText ?? '';
                requestAnimationFrame(() => requestAnimationFrame(() => last === event && seconds.push([reported, look()])));
            });
        }
    };";

/// Repeats `attempt` until it gives a value. Seven windows on a busy machine take longer than anything else
/// here.
fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + ms(60_000);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
    }
}

/// Returns the time of day of this moment in the browser.
fn time_of_day(browser: &Browser, at: u64) -> String {
    let script = format!("return new Date({at}000).toTimeString().slice(0, 8)");
    browser.run(&script).as_str().expect("text").to_owned()
}

/// Has axe-core look at the page, if it is there.
fn accessible(browser: &Browser, what: &str) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/axe-core/axe.min.js");
    let Ok(script) = fs::read_to_string(file) else {
        return leave_out("accessibility of the page", &format!("there is no {file}: .ci/run fetches it"));
    };
    browser.run(&script);
    let found = browser.run_until_done(
        "axe.run().then(found => done(found.violations.map(({id, nodes}) => [id, nodes.map(node => node.failureSummary + node.html)])))",
    );
    assert_eq!(found, json!([]), "{what}");
}
