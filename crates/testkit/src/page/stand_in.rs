//! A reverse proxy below a path prefix, before an admin server: what is asked of the API it answers from a
//! fixture, so that a test says what a page is shown; the rest, such as the page itself, comes from the
//! server behind it.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// The proxy. Its data can be changed at any time.
pub struct StandIn {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The server behind it.
    behind: SocketAddr,
    reported: Mutex<PublishedData>,
    /// Notified when there is another second.
    changed: Condvar,
    has_ended: AtomicBool,
}

/// The responses of the API, and what was asked.
#[derive(Default)]
pub struct PublishedData {
    /// The answers to paths, with or without their query: status and JSON.
    pub answers: HashMap<&'static str, (u16, Value)>,
    /// The seconds of the stream.
    seconds: Vec<Value>,
    /// All that was asked for.
    pub asked: Vec<String>,
    /// Streams that are open.
    pub streams: usize,
    /// True if the stream is refused.
    pub has_no_stream: bool,
}

/// The path of the stream.
const LIVE: &str = "/api/v1/live";

/// How long a browser may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// The header that a proxy adds: its client is on another host.
const CLIENT: &str = "X-Forwarded-For: 192.0.2.7\r\n";

/// Everything is below this.
pub const PREFIX: &str = "/dns/ls1";

impl StandIn {
    /// Before the server at this address.
    pub fn before(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            behind,
            reported: Mutex::default(),
            changed: Condvar::new(),
            has_ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        // Ends with the stand-in, whose end wakes it.
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.has_ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&serving);
                thread::spawn(move || shared.answer(stream));
            }
        });
        Self { address, shared }
    }

    /// Returns the URL of the page.
    pub fn url(&self) -> String {
        format!("http://{}{PREFIX}/", self.address)
    }

    /// Returns the data served by the proxy, to be read and changed.
    pub fn reported(&self) -> MutexGuard<'_, PublishedData> {
        self.shared.reported()
    }

    /// Waits until so many streams are open.
    pub fn wait_for_streams(&self, streams: usize) {
        let reported = self.reported();
        let waited = self.shared.changed.wait_timeout_while(reported, PATIENCE, |reported| reported.streams != streams);
        assert!(!waited.expect("nothing panics here").1.timed_out(), "{streams} streams expected");
    }

    /// Adds a second: for the stream, and for single requests.
    pub fn publish(&self, second: Value) {
        let mut reported = self.reported();
        reported.answers.insert(LIVE, (200, second.clone()));
        reported.seconds.push(second);
        drop(reported);
        self.shared.changed.notify_all();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn reported(&self) -> MutexGuard<'_, PublishedData> {
        self.reported.lock().expect("nothing panics here")
    }

    /// Answers the one request of a connection.
    fn answer(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (mut line, mut last_id) = (String::new(), None);
        reader.read_line(&mut line).ok()?;
        let target = line.split(' ').nth(1)?.to_owned();
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? <= 2 {
                break;
            }
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("last-event-id"))
            {
                last_id = value.trim().parse().ok();
            }
        }
        let path = target.strip_prefix(PREFIX)?.to_owned();
        let (name, query) = path.split_once('?').unwrap_or((&path, ""));
        let (reported, has_no_stream) = {
            let mut reported = self.reported();
            reported.asked.push(path.clone());
            (reported.answers.get(&*path).or_else(|| reported.answers.get(name)).cloned(), reported.has_no_stream)
        };
        if name == LIVE && query != "once" {
            if has_no_stream {
                write!(&stream, "HTTP/1.1 503 enough\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").ok()?;
                return Some(());
            }
            let last_id = query.strip_prefix("last_event_id=").and_then(|id| id.parse().ok()).or(last_id);
            self.reported().streams += 1;
            self.changed.notify_all();
            let _gone = self.stream(&stream, last_id);
            self.reported().streams -= 1;
            self.changed.notify_all();
        } else if let Some((status, json)) = reported {
            let body = json.to_string();
            let head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Type: application/json");
            write!(&stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
        } else {
            let mut behind = TcpStream::connect(self.behind).ok()?;
            write!(behind, "GET {path} HTTP/1.1\r\nHost: {}\r\n{CLIENT}Connection: close\r\n\r\n", self.behind).ok()?;
            io::copy(&mut behind, &mut &stream).ok()?;
        }
        Some(())
    }

    /// Sends each second after this one as it comes.
    fn stream(&self, mut stream: &TcpStream, last_id: Option<usize>) -> io::Result<()> {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n")?;
        let mut next = last_id.map_or_else(|| self.reported().seconds.len(), |id| id + 1);
        // A client that goes says so by the end of what it sends, which is looked for beside.
        let is_gone = Arc::new(AtomicBool::new(false));
        let (mut watched, gone) = (stream.try_clone()?, Arc::clone(&is_gone));
        let is_over = || is_gone.load(Ordering::Relaxed) || self.has_ended.load(Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = watched.read(&mut [0; 1]);
                // Under the lock, or it might be missed.
                let _told = self.reported();
                gone.store(true, Ordering::Relaxed);
                self.changed.notify_all();
            });
            loop {
                let reported = self.reported();
                let reported =
                    self.changed.wait_while(reported, |reported| reported.seconds.len() <= next && !is_over());
                let reported = reported.expect("nothing panics here");
                if is_over() {
                    break;
                }
                let seconds = reported.seconds[next..].to_vec();
                drop(reported);
                let mut text = String::new();
                for second in seconds {
                    text.push_str(&format!("event: second\nid: {next}\ndata: {second}\n\n"));
                    next += 1;
                }
                if stream.write_all(text.as_bytes()).is_err() {
                    break;
                }
            }
            stream.shutdown(std::net::Shutdown::Both)
        })
    }
}
