//! The HTTP client of the examples with three servers, of which one is killed and one stalls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hedge::{AttemptTimeout, Hedge, RaceRules};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

// The test has no use for `main`.
#[allow(dead_code, unreachable_pub)]
#[path = "../examples/http.rs"]
mod http;

/// A server that answers its number, unless it stalls.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    is_stalled: watch::Sender<bool>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(number: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (is_stalled, stalls) = watch::channel(false);
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            // The connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                let (stalls, counter) = (stalls.clone(), Arc::clone(&counter));
                let service = service_fn(move |_| {
                    counter.fetch_add(1, Relaxed);
                    let mut stalls = stalls.clone();
                    async move {
                        let _ = stalls.wait_for(|is_stalled| !is_stalled).await;
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(number.to_string()))))
                    }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, task, is_stalled, requests }
    }

    async fn kill(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.is_err_and(|error| error.is_cancelled()));
    }

    fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

/// Gets a page so many times. Returns the longest time that one took.
async fn get(client: &mut http::Client, times: usize) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let start = Instant::now();
        let response = client.get("/page").await.expect("a server replies");
        assert_eq!(response.status(), StatusCode::OK);
        longest = longest.max(start.elapsed());
    }
    longest
}

#[tokio::test]
async fn gets_are_answered_in_time_by_the_servers_that_are_left() {
    let mut servers = [Server::start(0).await, Server::start(1).await, Server::start(2).await];
    let hedge = Hedge { budget: 1.0, max_delay: Duration::from_millis(50), max: 2, ..Hedge::default() };
    let rules = RaceRules {
        timeout: Duration::from_secs(30),
        attempt_timeout: AttemptTimeout::after(Duration::from_secs(20)),
        hedge,
        ..RaceRules::default()
    };
    let mut client = http::Client::new(servers.iter().map(|server| server.address).collect(), rules);
    // Nothing but a hedge or a failover is faster than this.
    let in_time = Duration::from_secs(10);
    assert!(get(&mut client, 60).await < in_time);
    assert!(servers.iter().all(|server| server.requests() > 0), "each server gets requests");

    servers[0].kill().await;
    assert!(get(&mut client, 60).await < in_time);

    servers[1].is_stalled.send_replace(true);
    let before = servers[2].requests();
    assert!(get(&mut client, 60).await < in_time);
    assert!(servers[2].requests() - before >= 60, "only the last server answers");

    servers[1].is_stalled.send_replace(false);
    servers[2].kill().await;
    assert!(get(&mut client, 20).await < in_time);
}
