//! An HTTP client that hedges GETs among servers with the same content:
//! `cargo run -p hedge --example http -- /index.html 127.0.0.1:8001 127.0.0.1:8002 127.0.0.1:8003`

use std::net::SocketAddr;
use std::time::Instant;

use hedge::backend_load::{AttemptEnd, BackendLoad};
use hedge::balance::{Balance, BalanceInput, Balancer};
use hedge::budget::Budget;
use hedge::latency::{self, Latency};
use hedge::race::{Race, RaceContext, RaceStep, ReplyValue};
use hedge::{BackendIndex, RaceRules};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Response, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// A client of several servers.
pub struct Client {
    servers: Vec<SocketAddr>,
    rules: RaceRules,
    budget: Budget,
    balancer: Balancer,
    loads: Vec<BackendLoad>,
    latency: Vec<Latency>,
    rng: SmallRng,
}

impl Client {
    /// Creates a client. The servers have the same content.
    pub fn new(servers: Vec<SocketAddr>, rules: RaceRules) -> Self {
        let now = Instant::now();
        let loads = servers.iter().map(|_| BackendLoad::new(now)).collect();
        let latency = vec![Latency::new(now); servers.len()];
        let backends = (0..servers.len() as u16).map(|number| (BackendIndex(number), 1, number.into(), true));
        let (budget, balancer) = (Budget::new(rules.hedge.budget), Balancer::new(backends));
        Self { servers, rules, budget, balancer, loads, latency, rng: SmallRng::seed_from_u64(1) }
    }

    /// Returns the first success. Without one it returns the best response before the deadline.
    pub async fn get(&mut self, path: &str) -> Option<Response<Bytes>> {
        let now = Instant::now();
        let input = BalanceInput { now, turn: 0, name: 0, loads: &self.loads, out: 0, remembered: None };
        let candidates = self.balancer.candidates(Balance::Fastest, &input, &mut self.rng);
        // Of the ranks `false` and `true`, the second one ends the race at once.
        let mut race = Race::start(&self.context(), &candidates, true, now);
        let (mut attempts, mut kept) = (JoinSet::new(), None);
        loop {
            let now = Instant::now();
            match race.poll(&self.context(), now) {
                RaceStep::Ask { attempt, backend, .. } => {
                    self.loads[backend.get()].asked(now);
                    let answer = fetch(self.servers[backend.get()], path.to_owned());
                    attempts.spawn(async move { (attempt, answer.await) });
                }
                RaceStep::WaitUntil(until) => tokio::select! {
                    Some(Ok((id, answer))) = attempts.join_next() => {
                        let (now, attempt) = (Instant::now(), race.attempt(id).expect("the race asked for it"));
                        match answer {
                            Ok(response) => {
                                self.end(attempt.backend, AttemptEnd::Reply(now - attempt.asked_at), now);
                                self.budget.earn(1);
                                if race.on_reply(id, response.status().is_success(), now) != ReplyValue::NotNeeded {
                                    kept = Some(response);
                                }
                            }
                            Err(_) => {
                                self.end(attempt.backend, AttemptEnd::Unreachable, now);
                                race.on_failure(id);
                            }
                        }
                    }
                    () = sleep_until(until.into()) => {}
                },
                RaceStep::Finished(_) => {
                    // The set of tasks cancels the attempts that are still open.
                    for late in race.attempts().filter(|attempt| attempt.open) {
                        self.end(late.backend, AttemptEnd::Silence(now - late.asked_at), now);
                    }
                    return kept;
                }
            }
        }
    }

    fn context(&self) -> RaceContext<'_> {
        RaceContext { rules: &self.rules, latency: &self.latency, loads: &[], by_stream: &[], budget: &self.budget }
    }

    fn end(&mut self, backend: BackendIndex, end: AttemptEnd, now: Instant) {
        latency::ended(&mut self.loads[backend.get()], &mut self.latency[backend.get()], end, false, now);
    }
}

async fn fetch(server: SocketAddr, path: String) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(server).await?)).await?;
    let request = Request::get(path).header(HOST, server.to_string()).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    // The connection does the I/O of the exchange, and ends with it.
    tokio::select! { biased; done = exchange => done, end = connection => Err(end.err().map_or_else(|| "closed".into(), Into::into)) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("usage: http PATH SERVER...")?;
    let servers = words.map(|word| word.parse()).collect::<Result<_, _>>()?;
    let response = Client::new(servers, RaceRules::default()).get(&path).await.ok_or("no server has replied")?;
    println!("{}: {} octets", response.status(), response.body().len());
    Ok(())
}
