//! The system call `bpf`: maps of sockets, programs of XDP, and links by which these hang on a device.
//!
//! A link goes with the descriptor, and so with the process, however that ends. Each block with `unsafe` says why it is sound.

#![allow(unsafe_code)] // No crate at hand offers this call without C.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A map with a socket for each queue.
pub(crate) struct SocketMap {
    fd: OwnedFd,
}

impl SocketMap {
    /// One with room for one queue.
    pub(crate) fn new() -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
        }
        let mut create = Create { map_type: BPF_MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: 1 };
        Ok(Self { fd: call_for_fd(BPF_MAP_CREATE, &mut create)? })
    }

    /// Its descriptor, as programs name it.
    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Puts a socket in for queue 0.
    pub(crate) fn insert(&self, socket: &impl AsRawFd) -> io::Result<()> {
        #[repr(C)]
        struct Update {
            map_fd: u32,
            _gap: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let (key, value) = (0_u32, socket.as_raw_fd());
        let (map_fd, key, value) = (self.fd.as_raw_fd() as u32, (&raw const key) as u64, (&raw const value) as u64);
        call(BPF_MAP_UPDATE_ELEM, &mut Update { map_fd, _gap: 0, key, value, flags: 0 }).map(drop)
    }
}

/// A program that the kernel has found to be sound.
pub(crate) struct Program {
    fd: OwnedFd,
}

impl Program {
    /// Loads it. The error of one that is refused has what the kernel says of it.
    pub(crate) fn load(instructions: &[u64]) -> io::Result<Self> {
        #[repr(C)]
        struct Load {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log_buf: u64,
        }
        // Without a log at first: the kernel refuses a program whose log has no room.
        let mut load = Load {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
        };
        let error = match call_for_fd(BPF_PROG_LOAD, &mut load) {
            Ok(fd) => return Ok(Self { fd }),
            Err(error) => error,
        };
        let mut log = vec![0_u8; 64 << 10];
        (load.log_level, load.log_size, load.log_buf) = (1, log.len() as u32, log.as_mut_ptr() as u64);
        match call_for_fd(BPF_PROG_LOAD, &mut load) {
            Ok(fd) => Ok(Self { fd }),
            Err(_) => {
                let said = String::from_utf8_lossy(&log);
                let said = said.trim_end_matches('\0').trim_end();
                Err(io::Error::new(error.kind(), format!("the program is refused: {error}\n{said}")))
            }
        }
    }

    /// What it says of a frame, which nobody gets.
    pub(crate) fn try_on(&self, frame: &[u8]) -> io::Result<u32> {
        #[repr(C)]
        struct Test {
            prog_fd: u32,
            retval: u32,
            data_size_in: u32,
            data_size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
        }
        let mut test = Test {
            prog_fd: self.fd.as_raw_fd() as u32,
            retval: 0,
            data_size_in: frame.len() as u32,
            data_size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration: 0,
        };
        call(BPF_PROG_TEST_RUN, &mut test)?;
        Ok(test.retval)
    }

    /// Has a device run it for each frame that arrives.
    pub(crate) fn attach(&self, device: u32, mode: Mode) -> io::Result<Link> {
        #[repr(C)]
        struct Attach {
            prog_fd: u32,
            target_ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        let prog_fd = self.fd.as_raw_fd() as u32;
        let flags = match mode {
            Mode::Native => XDP_FLAGS_DRV_MODE,
            Mode::Generic => XDP_FLAGS_SKB_MODE,
        };
        let mut attach = Attach { prog_fd, target_ifindex: device, attach_type: BPF_XDP, flags };
        Ok(Link { _fd: call_for_fd(BPF_LINK_CREATE, &mut attach)? })
    }
}

/// Where a device runs a program.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// In its driver, before the kernel has made anything of the frame.
    Native,
    /// Behind it, in the kernel's own buffers: with every driver.
    Generic,
}

/// A program on a device, for as long as this lives.
pub(crate) struct Link {
    _fd: OwnedFd,
}

// The numbers of linux/bpf.h and linux/if_link.h.
const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TEST_RUN: i64 = 10;
const BPF_LINK_CREATE: i64 = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// What the kernel asks of every program. None of the functions that are called here is for the GPL alone.
const LICENSE: &[u8] = b"MIT\0";

/// The call, where it returns a new descriptor.
fn call_for_fd<Attributes>(command: i64, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor for this call, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The call. Each attribute is one of the structures above, as the kernel's union begins for that command; what they lack of it
/// the kernel takes for zeros.
fn call<Attributes>(command: i64, attributes: &mut Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: the kernel reads and writes no more than `size` octets of what is borrowed for the call. The addresses in it are of
    // values that its caller holds until the call returns, with their lengths beside them or fixed by the map.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned as i32)
}
