//! Scripted HTTPS backends; some of their connections misbehave as scripted. A thread with a runtime serves
//! all of them; probes are always answered.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::NAME;
use crate::{CertificateAuthority, Script, Seen};

/// The reaction of a connection to queries other than probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HttpManner {
    /// Answers each.
    Answers,
    /// Waits for so many, and answers the last first.
    Reverses(usize),
    /// Answers PINGs at once, and queries late.
    AnswersAfter(Duration),
    /// Reads nothing any more, whatever comes.
    IsSilent,
    /// Answers by this status, with this `retry-after`.
    Says(u16, &'static str),
    /// Answers by another content type.
    MistakesType,
    /// Answers by so many bytes of a reply and zeros.
    FillsTo(usize),
    /// Resets the stream.
    ResetsStreams,
    /// Answers so many, says GOAWAY for all that come after, and closes.
    GoesAwayAfter(usize),
    /// Resets the connection when so many wait.
    ResetsWith(usize),
    /// Says that it ends by an error when so many wait.
    FailsWith(usize),
    /// Offers another protocol by ALPN.
    MistakesProtocol,
    /// Takes the connection and never says anything, from the first byte on.
    Hangs,
}

/// A backend by HTTPS.
pub struct HttpsBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: HttpManner,
    /// The first so many connections behave so; all others answer.
    faulty: usize,
    tls: Arc<ServerConfig>,
    /// Streams that it allows.
    streams: u32,
    script: Mutex<Script>,
    /// Connections on which something else than a probe was asked.
    asked: AtomicUsize,
    /// Queries that were no probes.
    queries: AtomicUsize,
    /// Lengths of queries, and whether each came as it should: path, authority, ID, content type.
    seen: Mutex<Vec<(usize, bool)>>,
}

impl HttpsBackend {
    /// One whose connections all answer as this script does.
    pub fn new(ca: &CertificateAuthority, script: Script) -> Self {
        Self::misbehaving(HttpManner::Answers, 0, ca, script)
    }

    /// One of whose connections the first so many misbehave.
    pub fn misbehaving(manner: HttpManner, faulty: usize, ca: &CertificateAuthority, script: Script) -> Self {
        Self::allowing(100, manner, faulty, ca, script)
    }

    /// One that allows so many streams on a connection.
    pub fn allowing(
        streams: u32,
        manner: HttpManner,
        faulty: usize,
        ca: &CertificateAuthority,
        script: Script,
    ) -> Self {
        let mut tls = (*ca.leaf(&[NAME]).server()).clone();
        let protocol: &[u8] = if manner == HttpManner::MistakesProtocol { b"http/1.1" } else { b"h2" };
        tls.alpn_protocols = vec![protocol.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("it may be");
        let shared = Arc::new(Shared {
            manner,
            faulty,
            tls: Arc::new(tls),
            streams,
            script: Mutex::new(script),
            asked: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        // Ends with the test: a process that is gone takes its threads along.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
                while let Ok((socket, peer)) = listener.accept().await {
                    let serving = Arc::clone(&serving);
                    tokio::task::spawn_local(async move { serving.serve(socket, peer).await });
                }
            });
        });
        Self { address, shared }
    }

    /// As it stands in `backends`.
    pub(crate) fn entry(&self) -> String {
        format!(
            "{{ address = 'https://{}/q#dns.example', ca = 'ca.pem', name = 'h{}' }}",
            self.address,
            self.address.port()
        )
    }

    /// Returns the address of the backend.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections on which something else than probes was asked.
    pub fn connections(&self) -> usize {
        self.shared.asked.load(SeqCst)
    }

    /// Queries that were no probes.
    pub fn queries(&self) -> usize {
        self.shared.queries.load(SeqCst)
    }

    /// Lengths of queries that were no probes, and whether each came as it should.
    pub fn seen(&self) -> Vec<(usize, bool)> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        if self.manner == HttpManner::Hangs {
            // Until the other side has had enough.
            return tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(drop);
        }
        socket.set_nodelay(true)?;
        let raw = socket2::Socket::from(socket.as_fd().try_clone_to_owned()?);
        let tls = TlsAcceptor::from(Arc::clone(&self.tls)).accept(socket).await?;
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(self.streams);
        let mut connection = builder.handshake::<_, Bytes>(tls).await.map_err(io::Error::other)?;
        let (mut order, mut answered, mut waiting) = (None, 0, Vec::new());
        while let Some(accepted) = connection.accept().await {
            let (request, mut respond) = accepted.map_err(io::Error::other)?;
            let is_right = is_right(&request);
            // The body is in the same record as a rule; for the rest of it the connection is to be driven.
            let body = tokio::select! {
                body = read(request.into_body()) => body.map_err(io::Error::other)?,
                _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return Ok(()),
            };
            let is_zero = body.get(..2) == Some(&[0, 0]);
            let seen = Seen { bytes: body, peer, at: Instant::now(), tcp: true, named: None };
            if seen.is_probe() {
                self.answer(&mut respond, &seen);
                continue;
            }
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((seen.bytes.len(), is_right && is_zero));
            let order = *order.get_or_insert_with(|| self.asked.fetch_add(1, SeqCst));
            self.queries.fetch_add(1, SeqCst);
            let manner = if order < self.faulty { self.manner } else { HttpManner::Answers };
            match manner {
                HttpManner::Answers | HttpManner::MistakesProtocol | HttpManner::Hangs => {
                    self.answer(&mut respond, &seen)
                }
                HttpManner::Reverses(count) => {
                    waiting.push((seen, respond));
                    if waiting.len() == count {
                        waiting.drain(..).rev().for_each(|(seen, mut respond)| self.answer(&mut respond, &seen));
                    }
                }
                HttpManner::AnswersAfter(delay) => {
                    let this = Arc::clone(&self);
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep_until((seen.at + delay).into()).await;
                        this.answer(&mut respond, &seen);
                    });
                }
                // The socket stays open and is not read.
                HttpManner::IsSilent => return std::future::pending().await,
                HttpManner::Says(status, retry_after) => {
                    let head = Response::builder().status(status).header("retry-after", retry_after);
                    let _ = respond.send_response(head.body(()).expect("a head"), true);
                }
                HttpManner::MistakesType => say(&mut respond, "text/html", vec![0x80; 40]),
                HttpManner::FillsTo(length) => {
                    let mut reply = seen.bytes.clone();
                    reply[2] |= 0x80;
                    reply.resize(length, 0);
                    say(&mut respond, DNS, reply);
                }
                HttpManner::ResetsStreams => respond.send_reset(Reason::INTERNAL_ERROR),
                HttpManner::GoesAwayAfter(count) => {
                    self.answer(&mut respond, &seen);
                    answered += 1;
                    if answered == count {
                        connection.graceful_shutdown();
                    }
                }
                HttpManner::ResetsWith(count) => {
                    waiting.push((seen, respond));
                    if waiting.len() == count {
                        return raw.set_linger(Some(Duration::ZERO));
                    }
                }
                HttpManner::FailsWith(count) => {
                    waiting.push((seen, respond));
                    if waiting.len() == count {
                        connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
                        let _ = std::future::poll_fn(|context| connection.poll_closed(context)).await;
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(&self, respond: &mut SendResponse<Bytes>, seen: &Seen) {
        let sendings = self.script.lock().unwrap_or_else(PoisonError::into_inner).react(seen);
        if let Some(sending) = sendings.into_iter().next() {
            say(respond, DNS, sending.bytes);
        }
    }
}

async fn read(mut stream: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(octets) = stream.data().await {
        let octets = octets?;
        let _ = stream.flow_control().release_capacity(octets.len());
        body.extend_from_slice(&octets);
    }
    Ok(body)
}

fn say(respond: &mut SendResponse<Bytes>, media_type: &str, body: Vec<u8>) {
    let head = Response::builder().header("content-type", media_type).body(()).expect("a head");
    // Who is gone hears nothing.
    let _ = respond.send_response(head, false).and_then(|mut stream| stream.send_data(body.into(), true));
}

fn is_right(request: &Request<RecvStream>) -> bool {
    let authority = request.uri().authority().map(|authority| authority.host());
    let headers = request.headers();
    (request.method().as_str(), request.uri().path(), authority) == ("POST", "/q", Some("dns.example"))
        && [headers.get("content-type"), headers.get("accept")].iter().all(|it| it.is_some_and(|it| it == DNS))
}

const DNS: &str = "application/dns-message";
