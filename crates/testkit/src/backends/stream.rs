//! Scripted backends by TCP or TLS; some of their connections misbehave as scripted. A thread for each
//! connection; probes are always answered.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::NAME;
use crate::certificates::server_builder;
use crate::{CertificateAuthority, Script, Seen};

/// The reaction of a connection to queries other than probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// Answers each.
    Answers,
    /// Waits for so many, and answers the last first.
    Reverses(usize),
    /// Waits for so many, and answers them in the order in which they came, all by one write.
    Collects(usize),
    /// Stays silent until a probe comes, and answers that first.
    AwaitsASign,
    /// Takes them and says nothing, not even to probes.
    IsSilent,
    /// Answers so many, and closes.
    ClosesAfter(usize),
    /// Resets the connection when so many wait.
    ResetsWith(usize),
    /// Says something else altogether.
    MakesNoise,
    /// Answers with another ID.
    MistakesIds,
    /// Answers another question.
    MistakesQuestions,
    /// Takes the connection and never says anything, from the first byte on.
    Hangs,
}

/// A backend by stream.
pub struct StreamBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Manner,
    /// The first so many connections behave so; all others answer.
    faulty: usize,
    tls: Option<Arc<ServerConfig>>,
    script: Mutex<Script>,
    /// Connections on which something else than a probe was asked.
    asked: AtomicUsize,
    /// Queries that were no probes.
    queries: AtomicUsize,
}

impl StreamBackend {
    /// One whose connections all answer as this script does.
    pub fn new(tls: Option<&CertificateAuthority>, script: Script) -> Self {
        Self::misbehaving(Manner::Answers, 0, tls, script)
    }

    /// One of whose connections the first so many misbehave.
    pub fn misbehaving(manner: Manner, faulty: usize, tls: Option<&CertificateAuthority>, script: Script) -> Self {
        Self::with_tls(manner, faulty, tls.map(|ca| ca.leaf(&[NAME]).server()), script)
    }

    /// One by TLS that is shown a certificate of this authority, or says nothing.
    pub fn asking_who(ca: &CertificateAuthority, clients: &CertificateAuthority, script: Script) -> Self {
        Self::with_tls(Manner::Answers, 0, Some(ca.leaf(&[NAME]).server_for(clients)), script)
    }

    /// One by TLS that shows this chain, which has this key, both in PEM.
    pub fn showing(chain: &[u8], key: &[u8], script: Script) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
        let builder = server_builder().with_no_client_auth();
        let config = builder.with_single_cert(chain.expect("a chain"), key).expect("they belong together");
        Self::with_tls(Manner::Answers, 0, Some(Arc::new(config)), script)
    }

    /// One by TCP at this address.
    pub fn at(address: SocketAddr, script: Script) -> Self {
        Self::listening(TcpListener::bind(address).expect("the port is free"), Manner::Answers, 0, None, script)
    }

    fn with_tls(manner: Manner, faulty: usize, tls: Option<Arc<ServerConfig>>, script: Script) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").expect("a port is free"), manner, faulty, tls, script)
    }

    fn listening(
        listener: TcpListener,
        manner: Manner,
        faulty: usize,
        tls: Option<Arc<ServerConfig>>,
        script: Script,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            manner,
            faulty,
            tls,
            script: Mutex::new(script),
            asked: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        // Ends with the test: a process that is gone takes its threads along.
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                thread::spawn(move || serving.serve(socket));
            }
        });
        Self { address, shared }
    }

    /// As it stands in `backends`.
    pub fn entry(&self) -> String {
        match &self.shared.tls {
            Some(_) => format!("{{ address = 'tls://{}#dns.example', ca = 'ca.pem' }}", self.address),
            None => format!("'tcp://{}'", self.address),
        }
    }

    /// Connections on which something else than probes was asked.
    pub fn connections(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Queries that were no probes.
    pub fn queries(&self) -> usize {
        self.shared.queries.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream) -> io::Result<()> {
        if self.manner == Manner::Hangs {
            // Until the other side has had enough.
            return io::copy(&mut &socket, &mut io::sink()).map(drop);
        }
        let peer = socket.peer_addr()?;
        let raw = socket.try_clone()?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(config) => {
                let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(tls, socket))
            }
            None => Box::new(socket),
        };
        let (mut order, mut answered, mut waiting) = (None, 0, Vec::new());
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes)?;
            let seen = Seen { bytes, peer, at: Instant::now(), tcp: true, named: None };
            let is_probe = seen.is_probe();
            if !is_probe {
                order.get_or_insert_with(|| self.asked.fetch_add(1, Ordering::SeqCst));
                self.queries.fetch_add(1, Ordering::SeqCst);
            }
            let is_faulty = order.is_some_and(|order| order < self.faulty);
            let manner = if is_faulty { self.manner } else { Manner::Answers };
            if is_probe && manner != Manner::IsSilent {
                self.answer(&mut stream, &seen, |_| ())?;
                if manner == Manner::AwaitsASign {
                    waiting.drain(..).try_for_each(|seen| self.answer(&mut stream, &seen, |_| ()))?;
                }
                continue;
            }
            match manner {
                Manner::Answers => self.answer(&mut stream, &seen, |_| ())?,
                Manner::IsSilent | Manner::Hangs => {}
                Manner::Reverses(count) => {
                    waiting.push(seen);
                    if waiting.len() == count {
                        for seen in waiting.drain(..).rev() {
                            self.answer(&mut stream, &seen, |_| ())?;
                        }
                    }
                }
                Manner::Collects(count) => {
                    waiting.push(seen);
                    if waiting.len() == count {
                        let mut together = Vec::new();
                        waiting.drain(..).try_for_each(|seen| self.answer(&mut together, &seen, |_| ()))?;
                        stream.write_all(&together)?;
                        stream.flush()?;
                    }
                }
                Manner::AwaitsASign => waiting.push(seen),
                Manner::ClosesAfter(count) => {
                    self.answer(&mut stream, &seen, |_| ())?;
                    answered += 1;
                    if answered == count {
                        return Ok(());
                    }
                }
                Manner::ResetsWith(count) => {
                    waiting.push(seen);
                    if waiting.len() == count {
                        return socket2::SockRef::from(&raw).set_linger(Some(Duration::ZERO));
                    }
                }
                Manner::MakesNoise => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?,
                Manner::MistakesIds => self.answer(&mut stream, &seen, |reply| reply[0] ^= 0xFF)?,
                Manner::MistakesQuestions => self.answer(&mut stream, &seen, |reply| reply[13] ^= 1)?,
            }
        }
    }

    fn answer(&self, stream: &mut dyn Write, seen: &Seen, edit: impl Fn(&mut [u8])) -> io::Result<()> {
        let sendings = self.script.lock().unwrap_or_else(PoisonError::into_inner).react(seen);
        for mut sending in sendings {
            edit(&mut sending.bytes);
            stream.write_all(&crate::framed(&sending.bytes))?;
        }
        stream.flush()
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}
