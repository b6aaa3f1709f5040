//! What it costs to be watched: the same server with history and slow races, with pages that listen, with a
//! query log, with dnstap.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::subject::{Answerer, Dispatch, Scenario, Subject};

/// The observers of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// History, verdict and slow races: what there is with an admin server.
    Sight,
    /// The server with three open browser tabs that get each second.
    Tabs,
    /// The names asked for most besides.
    Names,
    /// A line of the query log for one of a hundred questions.
    LogOfSome,
    /// A line for each query.
    Log,
    /// All messages of clients and backends as dnstap, to a file.
    Dnstap,
}

impl Watch {
    /// All of them, from the least to the most.
    const ALL: [Self; 6] = [Self::Sight, Self::Tabs, Self::Names, Self::LogOfSome, Self::Log, Self::Dnstap];

    /// The name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sight => "with history and slow races",
            Self::Tabs => "the same, sent to three tabs",
            Self::Names => "with names counted",
            Self::LogOfSome => "query log, sample 0.01",
            Self::Log => "query log, sample 1",
            Self::Dnstap => "dnstap, all messages",
        }
    }

    /// Lines of a config, whose admin server listens here.
    pub(crate) fn config(self, admin: SocketAddr) -> String {
        let admin = |more: &str| format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n{more}");
        let log = |sample: &str| format!("[query_log]\nto = \"queries.jsonl\"\nrotate = \"64MiB\"\nkeep = 1\n{sample}");
        match self {
            Self::Sight | Self::Tabs => admin(""),
            Self::Names => admin("names = true\n"),
            Self::LogOfSome => log("sample = 0.01\nalways = []\n"),
            Self::Log => log(""),
            Self::Dnstap => "[dnstap]\nto = \"file:queries.fstrm\"\nmessages = [\"client\", \"backend\"]\n".to_owned(),
        }
    }

    /// Opens what listens besides. It ends with the server.
    pub(crate) fn open(self, admin: SocketAddr) -> io::Result<()> {
        if self == Self::Tabs {
            (0..TABS).try_for_each(|_| listen(admin))?;
        }
        Ok(())
    }
}

/// Listens to each second, as a page does.
fn listen(admin: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect(admin) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::yield_now(),
        }
    };
    write!(stream, "GET /api/v1/live HTTP/1.1\r\nHost: {admin}\r\nAccept: text/event-stream\r\n\r\n")?;
    thread::spawn(move || while stream.read(&mut [0; 64 << 10]).is_ok_and(|read| read > 0) {});
    Ok(())
}

/// Returns the subjects: in each scenario one without an observer, and one for each kind of observer.
pub(crate) fn subjects(echo: Subject) -> Vec<Subject> {
    let of = |scenario| {
        let unwatched = Answerer::Hedgerow(Dispatch::Sequential);
        let watched = Watch::ALL.map(Answerer::Watched);
        [unwatched].into_iter().chain(watched).map(move |answerer| Subject { scenario, answerer })
    };
    [echo].into_iter().chain(of(Scenario::Cached(10_000))).chain(of(Scenario::Forward)).collect()
}

const TABS: usize = 3;

/// How long the admin server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
