//! A relay in front of a backend: connections through it stall, fall silent or are reset, whatever is said on
//! them.
//!
//! It is a role of this program. Each line that it reads is an order, answered by a line; at the end of its
//! input it ends. A connection has a thread for each direction, and one by QUIC is whatever comes from one
//! port.

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::common::encrypted::Way;
use crate::common::process::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The busiest one carries nothing for so long.
    Stall(Duration),
    /// All that there are carry nothing any more, and are not closed. New ones are as ever.
    Mute,
    /// All that there are end by RST.
    Reset,
}

impl Order {
    /// The line that says so.
    fn line(self) -> String {
        match self {
            Self::Stall(time) => format!("stall {}\n", time.as_millis()),
            Self::Mute => "mute\n".to_owned(),
            Self::Reset => "reset\n".to_owned(),
        }
    }

    fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("stall", millis)) => millis.parse().ok().map(|millis| Self::Stall(Duration::from_millis(millis))),
            None if line == "mute" => Some(Self::Mute),
            None if line == "reset" => Some(Self::Reset),
            Some(_) | None => None,
        }
    }
}

/// The arguments of the role.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Plan {
    #[arg(long)]
    backend: SocketAddr,
    /// The protocol towards the relay.
    #[arg(long)]
    way: Way,
}

pub(crate) fn start(backend: SocketAddr, way: Way, core: Option<usize>) -> io::Result<Server> {
    let way = clap::ValueEnum::to_possible_value(&way).map_or_else(String::new, |way| way.get_name().to_owned());
    let arguments = format!("relay --backend {backend} --way {way}");
    Server::role(&arguments.split(' ').map(str::to_owned).collect::<Vec<_>>(), core)
}

/// Gives an order to a relay and waits until it is done.
pub(crate) fn order(relay: &mut Server, order: Order) -> io::Result<()> {
    if let (Some(stdin), Some(stdout)) = (&mut relay.process.child.stdin, &mut relay.process.stdout) {
        stdin.write_all(order.line().as_bytes())?;
        stdout.read_line(&mut String::new())?;
    }
    Ok(())
}

/// All connections that there have been.
type Links = Arc<Mutex<Vec<Arc<Link>>>>;

/// Relays until stdin is closed.
pub(crate) fn run(plan: Plan) -> io::Result<()> {
    let links = Links::default();
    let address = match plan.way {
        Way::Tls | Way::Https => relay_streams(plan.backend, Arc::clone(&links))?,
        Way::Bare | Way::Udp | Way::Quic => relay_datagrams(plan.backend, Arc::clone(&links))?,
    };
    println!("{address}");
    io::stdout().flush()?;
    for line in io::stdin().lock().lines() {
        let links = links.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = || links.iter().filter(|link| !link.is_over.load(Ordering::Relaxed));
        match Order::read(&line?) {
            Some(Order::Stall(time)) => {
                if let Some(link) = alive().max_by_key(|link| link.carried.load(Ordering::Relaxed)) {
                    *link.stalled_until() = Some(Instant::now() + time);
                }
            }
            Some(Order::Mute) => alive().for_each(|link| link.is_mute.store(true, Ordering::Relaxed)),
            Some(Order::Reset) => alive().for_each(|link| link.reset()),
            None => {}
        }
        println!("done");
        io::stdout().flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Link {
    /// Bytes carried, both ways.
    carried: AtomicU64,
    /// True if nothing is carried any more.
    is_mute: AtomicBool,
    /// True if it has ended.
    is_over: AtomicBool,
    /// Until when nothing is carried.
    stalled_until: Mutex<Option<Instant>>,
    /// Both its sockets, to end them by, until that is done.
    streams: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// Until when nothing is carried.
    fn stalled_until(&self) -> impl std::ops::DerefMut<Target = Option<Instant>> {
        self.stalled_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the relay stalls. Returns true if it then carries bytes.
    fn carries(&self, octets: usize) -> bool {
        loop {
            let until = *self.stalled_until();
            match until.and_then(|until| until.checked_duration_since(Instant::now())) {
                Some(wait) if !wait.is_zero() => thread::park_timeout(wait),
                Some(_) | None => break,
            }
        }
        self.carried.fetch_add(octets as u64, Ordering::Relaxed);
        !self.is_mute.load(Ordering::Relaxed)
    }

    /// Ends it. Once its threads have seen that, the last descriptor is closed, and the kernel sends an RST.
    fn reset(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Relays connections by TCP from an address that it returns.
fn relay_streams(backend: SocketAddr, links: Links) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            // Without the backend the client is closed, as it would be there.
            let Ok(backend) = TcpStream::connect(backend) else { continue };
            if let Err(error) = join(client, backend, &links) {
                eprintln!("relay: {error}");
            }
        }
    });
    Ok(address)
}

/// Carries what comes from either of two streams to the other.
fn join(client: TcpStream, backend: TcpStream, links: &Links) -> io::Result<()> {
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    let link = Arc::new(Link::default());
    *link.streams.lock().unwrap_or_else(PoisonError::into_inner) = vec![client.try_clone()?, backend.try_clone()?];
    let ways = [(client.try_clone()?, backend.try_clone()?), (backend, client)];
    for (from, to) in ways {
        let link = Arc::clone(&link);
        thread::spawn(move || pump(from, to, &link));
    }
    links.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    Ok(())
}

/// Carries what comes from one stream to another, until either ends.
fn pump(mut from: TcpStream, mut to: TcpStream, link: &Link) {
    let mut octets = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut octets) {
        if link.carries(read) && to.write_all(&octets[..read]).is_err() {
            break;
        }
    }
    if !link.is_mute.load(Ordering::Relaxed) && !link.is_over.swap(true, Ordering::Relaxed) {
        link.streams.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// Relays datagrams from an address that it returns.
fn relay_datagrams(backend: SocketAddr, links: Links) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    thread::spawn(move || {
        let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut octets = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut octets) {
            let known = clients.get(&client).cloned();
            let sender = match known.map_or_else(|| open(client, backend, &socket, &links), Ok) {
                Ok(sender) => sender,
                Err(error) => {
                    eprintln!("relay: {error}");
                    continue;
                }
            };
            let _ = sender.send(octets[..length].to_vec());
            clients.insert(client, sender);
        }
    });
    Ok(address)
}

/// Carries what comes for a client, and returns where what comes from it is to go.
fn open(
    client: SocketAddr,
    backend: SocketAddr,
    socket: &UdpSocket,
    links: &Links,
) -> io::Result<mpsc::Sender<Vec<u8>>> {
    let outer = socket.try_clone()?;
    let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    inner.connect(backend)?;
    let link = Arc::new(Link::default());
    links.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&link));
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let (there, there_link) = (inner.try_clone()?, Arc::clone(&link));
    thread::spawn(move || {
        for octets in receiver {
            if there_link.carries(octets.len()) {
                // Lost on the way, if the system does not take it.
                let _ = there.send(&octets);
            }
        }
    });
    thread::spawn(move || {
        let mut octets = [0; 4096];
        loop {
            // The kernel reports a refusal while the server does not listen: that ends nothing.
            let Ok(length) = inner.recv(&mut octets) else { continue };
            if link.carries(length) {
                let _ = outer.send_to(&octets[..length], client);
            }
        }
    });
    Ok(sender)
}
