//! The test's end of a pair by AF_PACKET, which sends and receives raw frames.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt};
use socket2::Socket;
use testkit::PATIENCE;

/// A device in the test's namespace. Frames that the test's kernel sends there are not received.
pub(crate) struct Wire {
    socket: Socket,
    pub(crate) mac: [u8; 6],
}

impl Wire {
    pub(crate) fn open(device: &str) -> Self {
        let mut interfaces = getifaddrs().expect("the kernel lists interfaces");
        let link = interfaces.find_map(|interface| {
            interface.address.filter(|_| interface.interface_name == device)?.as_link_addr().copied()
        });
        let link = link.expect("a device has an address");
        let descriptor = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let descriptor = descriptor.expect("root may open such sockets");
        bind(descriptor.as_raw_fd(), &link).expect("the device is there");
        // The buffer must hold all answers to a batch of frames until the test reads them.
        let size = 32 << 20;
        setsockopt(&descriptor, sockopt::RcvBufForce, &size).expect("root may have as much");
        Self { socket: Socket::from(descriptor), mac: link.addr().expect("Ethernet") }
    }

    /// Sends a frame as it is. Returns false if the kernel rejects it, because it is shorter than its header
    /// or longer than the device carries.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        match (&self.socket).write(frame) {
            Ok(length) => length == frame.len(),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput) => false,
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32) => false,
            Err(error) => panic!("{error}: {} octets", frame.len()),
        }
    }

    /// Waits for the next frame from the other end.
    pub(crate) fn receive(&self) -> Vec<u8> {
        self.receive_within(PATIENCE).expect("a frame in time")
    }

    /// Returns the next frame from the other end, or `None` if none arrives in this time.
    pub(crate) fn receive_within(&self, time: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(time)).expect("a timeout above zero");
        let mut buffer = vec![0; 65_536 + 64];
        loop {
            match (&self.socket).read(&mut buffer) {
                // These are, for example, neighbor discovery of this end.
                Ok(length) if length < 14 || buffer[6..12] == self.mac => {}
                Ok(length) => return Some(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENETDOWN as i32) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
