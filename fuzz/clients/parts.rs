//! Parts without clients: certificates and their store, passed sockets, and the defense of a UDP socket.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use data_encoding::BASE64;
use net::from_clients::listening::{Endpoint, ListeningSocket, PassedSocketError};
use net::from_clients::pressure::{Adjustment, UdpPressure};
use net::from_clients::tls::{Certificate, CertificateStore};
use net::sys::bind::SOCKET_BUFFER;
use rustix::net::{AddressFamily, SocketType};
use socket2::{Domain, Socket, Type};

use super::world::KEYS;

/// Changes a certificate by `edits`, each a position and an octet, and has the store take it.
pub fn change_store(store: &Arc<CertificateStore>, form: u8, edits: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(form.into());
    let (chain, key) = &KEYS.pems[usize::from(form & 1)];
    let mut der = KEYS.certificates[usize::from(form & 1)].certificate.chain()[0].to_vec();
    for edit in edits.chunks_exact(3) {
        let position = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % der.len();
        der[position] = edit[2];
    }
    let edited = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&der));
    let chain = if edits.is_empty() { chain } else { &edited };
    let key = match form >> 1 & 7 {
        0 => &KEYS.pems[usize::from(form & 1 ^ 1)].1,
        1 => chain,
        _ => key,
    };
    let chain = if form >> 1 & 7 == 2 { "" } else { chain };
    let names = if form >> 4 & 1 == 1 { vec!["Other.example".to_owned()] } else { Vec::new() };
    let read = Certificate::read(chain.as_bytes(), key.as_bytes(), &names).map(Arc::new);
    if let Ok(certificate) = &read {
        assert!(certificate.is_same(certificate) && !certificate.chain().is_empty());
        let _ = certificate.bears_name("A.star.example") | certificate.bears_address(Ipv4Addr::LOCALHOST.into());
        let _ = certificate.bears_address(IpAddr::from([0; 16]));
        assert!(!certificate.key().secret_der().is_empty());
        let validity = certificate.validity();
        assert!(validity.not_before > validity.not_after || !(validity.is_over(now) && validity.is_to_come(now)));
    }
    if let Err(error) = &read {
        assert_eq!(error.is_of_key(), error.to_string().contains("key"), "{error}");
    }
    store.take("section0", Path::new("0.pem"), read.map_err(|error| error.to_string()), now);
    let before = store.snapshot();
    if form >> 5 & 1 == 1 && before.iter().all(|one| one.loads < 1 << 30) {
        store.add_counted(&before);
        let loads = |snapshot: &[metrics::CertificateSnapshot]| snapshot.iter().map(|one| one.loads).sum::<u64>();
        assert_eq!(loads(&store.snapshot()), 2 * loads(&before));
    }
    if form >> 6 & 1 == 1 {
        store.set(KEYS.certificates[usize::from(form & 1)..].to_vec(), now);
    }
}

/// Inherits a socket of a kind.
pub fn inherit(form: u8) {
    let socket = |domain, kind| Socket::new(domain, kind, None).expect("a socket");
    let local: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    let path = std::env::temp_dir().join(format!("hedgerow-fuzz-{}.sock", std::process::id()));
    let fd: OwnedFd = match form % 9 {
        0 => std::net::UdpSocket::bind(local).expect("loopback").into(),
        1 => std::net::TcpListener::bind(local).expect("loopback").into(),
        2 => socket(Domain::IPV4, Type::DGRAM).into(),
        3 => {
            let bound = socket(Domain::IPV4, Type::STREAM);
            bound.bind(&local.into()).expect("loopback");
            bound.into()
        }
        4 => std::os::unix::net::UnixDatagram::unbound().expect("a socket").into(),
        5 => rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket"),
        6 => std::fs::File::open("/dev/null").expect("a device").into(),
        7 => {
            let _ = std::fs::remove_file(&path);
            std::os::unix::net::UnixListener::bind(&path).expect("a free path").into()
        }
        _ => {
            let both = socket(Domain::IPV6, Type::DGRAM);
            let _ = both.set_only_v6(form & 8 != 0);
            let _ = both.bind(&std::net::SocketAddr::from(([0_u16; 8], 0)).into());
            both.into()
        }
    };
    let name = if form & 16 == 0 { "ts1.0" } else { "" };
    let passed = ListeningSocket::inherited(fd, name.to_owned(), 3);
    let _ = std::fs::remove_file(&path);
    match passed {
        Ok(passed) => {
            let shown = passed.endpoint().to_string();
            let is_udp = matches!(passed.endpoint(), Endpoint::Udp(_));
            assert_eq!(shown.ends_with("(UDP)"), is_udp, "{shown}");
            let endpoint = passed.endpoint().clone();
            let again = ListeningSocket::new(String::new(), true, endpoint, passed.into_fd());
            assert!(again.is_kept && again.as_fd().as_raw_fd() > 2);
        }
        Err(error) => assert!(error.to_string().starts_with("passed socket 3"), "{error}"),
    }
    for error in [PassedSocketError::closed(4, String::new()), PassedSocketError::no_socket(4, name.to_owned())] {
        assert!(error.to_string().starts_with("passed socket 4"), "{error}");
    }
}

/// Runs the defense of a UDP socket on a clock of its own. Each call of the kernel is two octets: if it filled
/// all buffers and the time since the last one, and the age of the oldest datagram.
pub fn press(calls: &[u8]) {
    let (mut pressure, mut now) = (UdpPressure::default(), Instant::now());
    let (mut full, mut is_under) = (0, false);
    for call in calls.chunks_exact(2) {
        let is_full = call[0] >= 128;
        full = if is_full { full + 1 } else { 0 };
        now += Duration::from_millis(2 * u64::from(call[0] & 127));
        let waited = Some(Duration::from_millis(2 * u64::from(call[1]))).filter(|waited| !waited.is_zero());
        if !pressure.note(is_full) {
            assert!(!is_under, "what is under pressure is looked at");
            continue;
        }
        match pressure.look(waited, || SOCKET_BUFFER, now) {
            Adjustment::Begin => {
                assert!(!is_under && full >= 16, "a burst is no pressure");
                is_under = true;
            }
            Adjustment::End => is_under = false,
            Adjustment::Measure(Some(buffer)) => assert!(is_under && (64 << 10..=SOCKET_BUFFER).contains(&buffer)),
            Adjustment::Measure(None) | Adjustment::Nothing => assert!(is_under),
        }
        assert!(is_under || !pressure.is_overload());
    }
}
