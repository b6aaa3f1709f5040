//! A browser: Chromium without a window, driven by the W3C's WebDriver over chromedriver, which speaks HTTP
//! and JSON.
//!
//! Needs the programs `chromium` and `chromedriver`, of Debian's packages `chromium` and `chromium-driver`.
//! One runs at a time: it takes more of a machine than tests of other things can spare.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{find_program, free_address, leave_out};

/// A browser with one tab. Dropping it ends it.
pub struct Browser {
    /// The process group of chromedriver and of all that it starts.
    driver: Child,
    /// Held open, since chromedriver may still have something to say.
    _said: BufReader<ChildStdout>,
    address: SocketAddr,
    /// The path of what is asked of it.
    session: String,
    _folder: TempDir,
    /// Keeps other tests from starting a browser.
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one for a test; `None`, with a message, where there is none.
    pub fn start(test: &str) -> Option<Self> {
        if ["chromium", "chromedriver"].iter().any(|program| find_program(program).is_none()) {
            leave_out(test, "chromium or chromedriver is not installed");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Command::new("chromedriver");
        // With port 0 it takes one of the system's range for IPv4, and ends if that is not free for IPv6.
        let address = free_address();
        let port = format!("--port={}", address.port());
        command.arg(port).env("TMPDIR", folder.path()).env("HOME", folder.path()).process_group(0);
        let mut driver =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it is installed");
        let mut said = BufReader::new(driver.stdout.take().expect("it is piped"));
        let mut lines = (&mut said).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("started successfully")), "chromedriver has ended");
        let mut this = Self { driver, _said: said, address, session: String::new(), _folder: folder, _turn: turn };
        let options = json!({
            // As root it has no sandbox; in a container /dev/shm may be small. It sends no requests by
            // itself.
            "args": [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1440,1000",
            ],
        });
        let session = this.ask(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
                "timeouts": {"script": PATIENCE.as_millis() as u64, "pageLoad": PATIENCE.as_millis() as u64},
            }}}),
        );
        this.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        Some(this)
    }

    /// Opens a page in the tab that is in front.
    pub fn open(&self, url: &str) {
        self.send("/url", &json!({ "url": url }));
    }

    /// Opens a page in another window, which is in front from now on.
    pub fn open_beside(&self, url: &str) {
        let opened = self.send("/window/new", &json!({"type": "window"}));
        self.send("/window", &json!({"handle": opened["handle"]}));
        self.open(url);
    }

    /// Runs a script; gives what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.send("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs a script that calls `done` with what it gives.
    pub fn run_until_done(&self, script: &str) -> Value {
        let script = format!("const done = arguments[0];\n{script}");
        self.send("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Waits until this expression holds in the page.
    pub fn wait_for(&self, expression: &str) -> Value {
        let found = self.look_for(expression, PATIENCE * 9 / 10);
        if found.is_null() {
            panic!("waited in vain: {expression}\n{}", self.run("return document.body.innerText"));
        }
        found
    }

    /// Waits so long until this expression holds in the page; null if it does not.
    pub fn look_for(&self, expression: &str, patience: Duration) -> Value {
        let script = format!(
            "const end = Date.now() + {}; (function look() {{ let found = null; try {{ found = {expression}; }} catch (error) {{}} \
             if (found) done(found); else if (Date.now() > end) done(null); else setTimeout(look, 50); }})()",
            patience.as_millis()
        );
        self.run_until_done(&script)
    }

    /// The text of the element with this ID.
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById({id:?}).innerText"));
        text.as_str().unwrap_or_else(|| panic!("there is no {id}")).to_owned()
    }

    /// Sets the value of the input with this ID.
    pub fn fill(&self, id: &str, value: &str) {
        self.run(&format!("document.getElementById({id:?}).value = {value:?}"));
    }

    /// Clicks the element with this ID.
    pub fn click(&self, id: &str) {
        self.run(&format!("document.getElementById({id:?}).click()"));
    }

    /// Clicks with the mouse so many pixels right of the left edge of the first element that is meant, in the
    /// middle of its height.
    pub fn click_in(&self, selector: &str, right: u32) {
        let place = self.run(&format!(
            "const element = document.querySelector({selector:?}); element.scrollIntoView({{block: 'center'}}); \
             const place = element.getBoundingClientRect(); \
             return [Math.round(place.left) + {right}, Math.round(place.top + place.height / 2)]"
        ));
        let actions = json!([
            {"type": "pointerMove", "duration": 0, "x": place[0], "y": place[1], "origin": "viewport"},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]);
        self.send("/actions", &json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}));
    }

    /// Presses keys, one after the other, in the element that has the focus.
    pub fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.send("/actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    /// Hides the window, or shows it again.
    pub fn hide(&self, is_hidden: bool) {
        if is_hidden {
            self.send("/window/minimize", &json!({}));
        } else {
            self.send("/window/rect", &json!({"width": 1440, "height": 1000}));
        }
        self.wait_for(&format!("document.hidden === {is_hidden}"));
    }

    /// Sets how many CSS pixels there are.
    pub fn resize(&self, width: u32, height: u32) {
        self.command(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
        self.wait_for(&format!("innerWidth === {width}"));
    }

    /// Has the page wish for light or dark, as the system does.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.command("Emulation.setEmulatedMedia", json!({ "features": features }));
        self.wait_for(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
    }

    /// A command of the DevTools protocol.
    pub fn command(&self, name: &str, parameters: Value) -> Value {
        self.send("/goog/cdp/execute", &json!({"cmd": name, "params": parameters}))
    }

    /// All that was written to the console since this was asked last.
    pub fn console(&self) -> Vec<String> {
        let log = self.send("/se/log", &json!({"type": "browser"}));
        log.as_array().expect("a list").iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// The URLs of all requests of pages since requests were asked for last.
    pub fn requests(&self) -> Vec<String> {
        self.sent_requests().iter().filter_map(|request| request["url"].as_str().map(str::to_owned)).collect()
    }

    /// All requests of pages since requests were asked for last, as the DevTools protocol describes them.
    pub fn sent_requests(&self) -> Vec<Value> {
        let log = self.send("/se/log", &json!({"type": "performance"}));
        let events = log.as_array().expect("a list").iter().filter_map(|entry| entry["message"].as_str());
        let events = events.map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        let sent = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["message"]["params"]["request"].clone()).collect()
    }

    /// Takes a picture of the whole page, so many pixels wide; it goes to `target/shots`.
    pub fn picture(&self, name: &str, width: u32) {
        self.resize(width, 1_000);
        let height = self.run("return document.documentElement.scrollHeight").as_u64().expect("a height");
        self.resize(width, u32::try_from(height).expect("some thousands"));
        let encoded = self.ask("GET", &format!("{}/screenshot", self.session), &Value::Null);
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/shots"));
        fs::create_dir_all(&folder).expect("a folder of ours");
        let picture = BASE64.decode(encoded.as_str().expect("text").as_bytes()).expect("what WebDriver promises");
        fs::write(folder.join(name).with_extension("png"), picture).expect("a file of ours");
    }

    /// Sends a command of the session.
    fn send(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    /// One request; gives the value of its answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_ask(method, path, body).expect("chromedriver answers");
        let value = &answer["value"];
        assert!(value["error"].is_null(), "{method} {path} {body}: {value}");
        value.clone()
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE + PATIENCE)).ok()?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close", self.address);
        let length = body.len();
        write!(stream, "{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        serde_json::from_slice(&body).ok()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session, and what is left of it with the group.
        let _ = self.try_ask("DELETE", &self.session, &Value::Null);
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// Locked by the test that uses the browser.
static TURN: Mutex<()> = Mutex::new(());

/// How long a browser may take for one thing.
const PATIENCE: Duration = Duration::from_secs(60);
