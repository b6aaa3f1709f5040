//! Datagrams with a forged source address, made byte by byte. Only inside a namespace (see `namespace`),
//! because it takes raw sockets.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

/// Sends what others did not.
pub struct Forger {
    /// Takes datagrams with their IP header.
    raw: Socket,
    icmp: Socket,
    /// Takes those of IPv6.
    icmp_6: Socket,
}

impl Forger {
    /// One with its sockets.
    pub fn new() -> Self {
        let open = |domain, protocol| {
            Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).expect("a raw socket, inside a namespace")
        };
        Self {
            raw: open(Domain::IPV4, IPPROTO_RAW),
            icmp: open(Domain::IPV4, IPPROTO_ICMP),
            icmp_6: open(Domain::IPV6, IPPROTO_ICMPV6),
        }
    }

    /// A datagram by UDP that claims to come from `from`.
    pub fn udp(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let datagram = ip_udp(from, to, payload.len(), payload);
        // The kernel may be out of buffers for a moment; a forger does not care.
        let _ = self.raw.send_to(&datagram, &address(to));
    }

    /// Says, as a router would, that nothing takes the datagrams that the socket `victim` sends to `to` (ICMP
    /// type 3, code 3).
    pub fn port_unreachable(&self, victim: SocketAddrV4, to: SocketAddrV4) {
        self.unreachable(3, 0, victim, to);
    }

    /// Says that the datagrams that `victim` sends to `to` are too long for a link on the way (ICMP type 3,
    /// code 4).
    pub fn too_long(&self, mtu: u16, victim: SocketAddrV4, to: SocketAddrV4) {
        self.unreachable(4, mtu, victim, to);
    }

    /// Sends a Packet Too Big message over IPv6 (RFC 4443 section 3.2). The kernel fills in the checksum.
    pub fn too_long_6(&self, mtu: u32, victim: SocketAddrV6, to: SocketAddrV6) {
        let mut message = vec![2, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        // RFC 8200 section 3: version, traffic class and flow label; length, UDP, hop limit 64.
        message.extend([0x60, 0, 0, 0, 0, 40, 17, 64]);
        message.extend(victim.ip().octets());
        message.extend(to.ip().octets());
        for field in [victim.port(), to.port(), 40, 0] {
            message.extend(field.to_be_bytes());
        }
        message.extend([0; 32]);
        let _ = self.icmp_6.send_to(&message, &SocketAddr::from(SocketAddrV6::new(*victim.ip(), 0, 0, 0)).into());
    }

    /// ICMP type 3 with the start of a datagram from `victim` to `to`.
    fn unreachable(&self, code: u8, mtu: u16, victim: SocketAddrV4, to: SocketAddrV4) {
        let [high, low] = mtu.to_be_bytes();
        let mut message = vec![3, code, 0, 0, 0, 0, high, low];
        message.extend(ip_udp(victim, to, 32, &[]));
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let _ = self.icmp.send_to(&message, &address(SocketAddrV4::new(*victim.ip(), 0)));
    }
}

/// An IPv4 and a UDP header for so many bytes, and the bytes.
fn ip_udp(from: SocketAddrV4, to: SocketAddrV4, length: usize, payload: &[u8]) -> Vec<u8> {
    let udp = (8 + length) as u16;
    // RFC 791 section 3.1: version and header length, don't fragment, time to live 64, UDP; the kernel fills
    // in checksums.
    let mut datagram = vec![0x45, 0];
    datagram.extend((20 + udp).to_be_bytes());
    datagram.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    datagram.extend(from.ip().octets());
    datagram.extend(to.ip().octets());
    for field in [from.port(), to.port(), udp, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An address as the sockets take it.
fn address(of: SocketAddrV4) -> socket2::SockAddr {
    SocketAddr::from(of).into()
}

/// Headers are part of what is sent.
const IPPROTO_RAW: i32 = 255;

const IPPROTO_ICMP: i32 = 1;

const IPPROTO_ICMPV6: i32 = 58;
