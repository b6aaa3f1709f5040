//! Scripted servers, and runs of the `lookup` command.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;

/// The datagrams that a script sends, each with its destination.
pub type Datagrams = Vec<(SocketAddr, Vec<u8>)>;

/// A server on a new port that handles each query by its script. Ends with the process.
pub struct Server {
    /// The address of the server.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server by UDP only; the TCP port is closed.
    pub fn start(script: impl FnMut(&Message, SocketAddr) -> Datagrams + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::serve(socket, script)
    }

    /// By UDP and TCP.
    pub fn start_with_tcp(
        script: impl FnMut(&Message, SocketAddr) -> Datagrams + Send + 'static,
        tcp_reply: fn(&Message) -> Vec<u8>,
    ) -> Self {
        let (socket, listener) = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            // The same port may be taken for UDP: then try another one.
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                let reply = tcp_reply(&Message::from_vec(&query).unwrap());
                stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        Self::serve(socket, script)
    }

    /// Answers every A and AAAA query with an address that ends like the name begins.
    pub fn answering() -> Self {
        Self::start(|query, client| vec![(client, answer(query))])
    }

    pub(crate) fn serve(
        socket: UdpSocket,
        mut script: impl FnMut(&Message, SocketAddr) -> Datagrams + Send + 'static,
    ) -> Self {
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            loop {
                let Some((query, client)) = receive(&socket) else {
                    continue;
                };
                for (client, datagram) in script(&query, client) {
                    // The client may be gone by now.
                    let _ = socket.send_to(&datagram, client);
                }
            }
        });
        Self { address }
    }

    /// Asks this server, waits for the end.
    pub fn lookup(&self, arguments: &[&str], stdin: &str) -> Run {
        lookup(self.address, arguments, stdin)
    }

    /// Starts `hedgerow lookup` with this server, and does not wait for the end.
    pub fn spawn(&self, arguments: &[&str], stdin: &str) -> Child {
        spawn(self.address, arguments, stdin)
    }
}

/// A server that must not be asked at all.
pub struct Untouched(pub(crate) UdpSocket);

impl Untouched {
    /// Creates a server on a new port.
    pub fn new() -> Self {
        Self(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Nothing has come: over loopback, what was sent is here before the sender's next step.
    #[track_caller]
    pub fn check(&self) {
        self.0.set_nonblocking(true).unwrap();
        assert!(receive(&self.0).is_none(), "the server was asked");
    }
}

/// The next query, or nothing within the socket's time.
pub fn receive(socket: &UdpSocket) -> Option<(Message, SocketAddr)> {
    let mut buffer = [0; 2048];
    let (length, client) = socket.recv_from(&mut buffer).ok()?;
    Some((Message::from_vec(&buffer[..length]).unwrap(), client))
}

/// A reply with the question of `query`, as changed by `edit`.
pub fn reply(query: &Message, edit: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.add_query(query.queries[0].clone());
    edit(&mut message);
    message.to_vec().unwrap()
}

/// A reply with an address that ends like the name begins: 192.0.2.7 for `7.example`.
pub fn answer(query: &Message) -> Vec<u8> {
    let owner = query.queries[0].name().clone();
    let last = number_of(&owner);
    let data = match query.queries[0].query_type() {
        RecordType::AAAA => RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last))),
        _ => RData::A(A::new(192, 0, 2, last)),
    };
    reply(query, |message| message.answers.push(Record::from_rdata(owner, 300, data)))
}

/// The number that a name begins with; 0 if it begins with none.
pub fn number_of(name: &Name) -> u8 {
    name.to_string().split('.').next().and_then(|label| label.parse().ok()).unwrap_or_default()
}

/// Returns a CNAME record.
pub fn cname(owner: Name, target: &str) -> Record {
    Record::from_rdata(owner, 60, RData::CNAME(CNAME(name(target))))
}

/// Reads a name.
pub fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Returns the next report of a script, waited for with a deadline.
pub fn wait_for<T>(reports: &Receiver<T>) -> T {
    reports.recv_timeout(Duration::from_secs(30)).expect("the server is asked in time")
}

// ---- The binary ----

/// The result of a run.
pub struct Run {
    /// The exit status; -1 for a signal.
    pub status: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Run {
    /// The run ended with this status and wrote this.
    #[track_caller]
    pub fn check(&self, status: i32, stdout: &str) {
        assert_eq!((self.status, self.stdout.as_str()), (status, stdout), "stderr: {}", self.stderr);
    }

    /// The only line of output, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Asks the server at `address`, waits for the end.
pub fn lookup(address: SocketAddr, arguments: &[&str], stdin: &str) -> Run {
    finish(spawn(address, arguments, stdin))
}

/// Asks the server at `address`.
pub fn spawn(address: SocketAddr, arguments: &[&str], stdin: &str) -> Child {
    let server = format!("@{address}");
    let arguments: Vec<&str> = [server.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    start(&arguments, stdin)
}

/// Starts `hedgerow lookup` with this input.
pub fn start(arguments: &[&str], stdin: &str) -> Child {
    let mut child = Command::new(crate::program())
        .arg("lookup")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child
}

/// Waits for the end.
pub fn finish(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
