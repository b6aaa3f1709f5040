//! The `bpf` system call. The kernel removes maps, programs and links when their close-on-exec descriptor is
//! closed. Programs change arrays concurrently, so mapped values are atomics.

#![allow(unsafe_code)] // No crate at hand offers this call without C.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

/// A map from queue to AF_XDP socket (`BPF_MAP_TYPE_XSKMAP`). A closed socket leaves it.
pub struct SocketMap {
    fd: OwnedFd,
}

impl SocketMap {
    /// Creates a map for `queues` queues.
    pub fn new(queues: u32) -> io::Result<Self> {
        Ok(Self { fd: create(BPF_MAP_TYPE_XSKMAP, size_of::<u32>(), size_of::<u32>(), queues, 0)? })
    }

    /// The descriptor that programs use for this map.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Sets the socket of a queue.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: `new` makes the map with keys and values of 32 bits.
        unsafe { update(&self.fd, &queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes()) }
    }
}

/// A set of keys of fixed length (`BPF_MAP_TYPE_HASH`). The value of a key has no meaning.
pub(crate) struct KeySet<const LENGTH: usize> {
    fd: OwnedFd,
}

impl<const LENGTH: usize> KeySet<LENGTH> {
    /// Creates a set for `max_entries` keys.
    pub(crate) fn new(max_entries: u32) -> io::Result<Self> {
        Ok(Self { fd: create(BPF_MAP_TYPE_HASH, LENGTH, size_of::<u32>(), max_entries, 0)? })
    }

    /// The descriptor that programs use for this map.
    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Adds a key. A key that is present stays.
    pub(crate) fn insert(&self, key: &[u8; LENGTH]) -> io::Result<()> {
        // SAFETY: `new` makes the map with keys of `LENGTH` bytes and values of 32 bits.
        unsafe { update(&self.fd, key, &1_u32.to_ne_bytes()) }
    }

    /// Removes a key if it is present.
    pub(crate) fn remove(&self, key: &[u8; LENGTH]) -> io::Result<()> {
        let mut attributes =
            Element { map_fd: self.fd.as_raw_fd() as u32, key: key.as_ptr() as u64, ..Element::default() };
        // SAFETY: this command reads `Element`; the key is borrowed for the call and as long as the map's
        // keys.
        match unsafe { call(BPF_MAP_DELETE_ELEM, &mut attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// A memory-mapped array of values of `WORDS` 64-bit words each (`BPF_MAP_TYPE_ARRAY`).
pub(crate) struct WordArray<const WORDS: usize> {
    fd: OwnedFd,
    first: NonNull<[AtomicU64; WORDS]>,
    entries: usize,
}

// SAFETY: the mapping belongs to no thread, and is only reached by shared references to atomics.
unsafe impl<const WORDS: usize> Send for WordArray<WORDS> {}
// SAFETY: as above.
unsafe impl<const WORDS: usize> Sync for WordArray<WORDS> {}

impl<const WORDS: usize> WordArray<WORDS> {
    /// Creates an array of zeros.
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let fd = create(BPF_MAP_TYPE_ARRAY, size_of::<u32>(), Self::VALUE, entries, BPF_F_MMAPABLE)?;
        let entries = entries as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: this is a new mapping at a place of the kernel's choice, so it replaces no other memory.
        let mapped =
            unsafe { libc::mmap(ptr::null_mut(), entries * Self::VALUE, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("a map is mapped at 0"))?;
        Ok(Self { fd, first, entries })
    }

    /// The descriptor that programs use for this map.
    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// The values, which programs may read and write at any time.
    pub(crate) fn values(&self) -> &[[AtomicU64; WORDS]] {
        // SAFETY: `entries` values are mapped contiguously, page-aligned, for as long as `self` lives. Any
        // bytes are valid numbers, and only the kernel writes by other means.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.entries) }
    }

    const VALUE: usize = size_of::<[AtomicU64; WORDS]>();
}

impl<const WORDS: usize> Drop for WordArray<WORDS> {
    fn drop(&mut self) {
        // SAFETY: `new` made this mapping in this length, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.entries * Self::VALUE) };
    }
}

/// A program that the kernel has verified.
pub struct Program {
    fd: OwnedFd,
}

impl Program {
    /// Loads a program. If the kernel rejects it, the error contains the verifier's log.
    pub fn load(instructions: &[u64]) -> io::Result<Self> {
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
        // First without a log: the kernel also rejects a program whose log does not fit.
        let mut load = Load {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
        };
        // SAFETY: this command reads `Load`. Instructions and license outlive the call, the count matches,
        // the license ends with a zero, and there is no log.
        let error = match unsafe { call_for_fd(BPF_PROG_LOAD, &mut load) } {
            Ok(fd) => return Ok(Self { fd }),
            Err(error) => error,
        };
        // Without permission the verifier does not run, so there is no log.
        if error.raw_os_error() == Some(libc::EPERM) {
            return Err(error);
        }
        let mut log = vec![0_u8; 256 << 10];
        (load.log_level, load.log_size, load.log_buf) = (1, log.len() as u32, log.as_mut_ptr() as u64);
        // SAFETY: as above; the log outlives the call and has the stated length.
        match unsafe { call_for_fd(BPF_PROG_LOAD, &mut load) } {
            Ok(fd) => Ok(Self { fd }),
            Err(_) => {
                let said = String::from_utf8_lossy(&log);
                let said = said.trim_end_matches('\0').trim_end();
                Err(io::Error::new(error.kind(), format!("the program is refused: {error}\n{said}")))
            }
        }
    }

    /// Runs the program on a frame without delivering it (`BPF_PROG_TEST_RUN`). The kernel rejects frames
    /// shorter than an Ethernet header.
    pub fn try_on(&self, frame: &[u8]) -> io::Result<i32> {
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
        // SAFETY: this command reads `Test`. The frame outlives the call, its length matches, and there is no
        // output.
        unsafe { call(BPF_PROG_TEST_RUN, &mut test) }?;
        Ok(test.retval as i32)
    }

    /// Attaches the program to an interface.
    pub fn attach(&self, interface: u32, mode: Mode) -> io::Result<BpfLink> {
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
        let mut attach = Attach { prog_fd, target_ifindex: interface, attach_type: BPF_XDP, flags };
        // SAFETY: this command reads `Attach`, which has no addresses, and returns a descriptor.
        Ok(BpfLink { _fd: unsafe { call_for_fd(BPF_LINK_CREATE, &mut attach) }? })
    }
}

/// The place where an interface runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel handles the frame.
    Native,
    /// After the driver, on kernel buffers. Works with every driver.
    Generic,
}

/// A program on an interface while this lives. If the interface disappears, it is detached without notice.
pub struct BpfLink {
    _fd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    _gap: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn create(map_type: u32, key_size: usize, value_size: usize, max_entries: u32, map_flags: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let [key_size, value_size] = [key_size, value_size].map(|size| size as u32);
    let mut attributes = Create { map_type, key_size, value_size, max_entries, map_flags };
    // SAFETY: this command reads `Create`, which has no addresses, and returns a descriptor.
    unsafe { call_for_fd(BPF_MAP_CREATE, &mut attributes) }
}

/// Sets a value of a map.
///
/// # Safety
/// Key and value are at least as long as those of the map.
unsafe fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (map_fd, key, value) = (map.as_raw_fd() as u32, key.as_ptr() as u64, value.as_ptr() as u64);
    let mut attributes = Element { map_fd, key, value, ..Element::default() };
    // SAFETY: this command reads `Element`. Key and value outlive the call, and are as long as promised.
    unsafe { call(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_DELETE_ELEM: i64 = 3;
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TEST_RUN: i64 = 10;
const BPF_LINK_CREATE: i64 = 28;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// None of the helpers used is GPL-only.
const LICENSE: &[u8] = b"MIT\0";

/// Makes a call that returns a new close-on-exec descriptor.
///
/// # Safety
/// As for [`call`]; and the command returns a new descriptor.
unsafe fn call_for_fd<Attributes>(command: i64, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller promises what `call` needs.
    let fd = unsafe { call(command, attributes) }?;
    // SAFETY: the kernel made this descriptor for this call, as the caller promises, and nothing else owns
    // it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the system call. The kernel reads zeros for missing attributes.
///
/// # Safety
/// `Attributes` is the structure of that command, without padding. Each address in it points to memory that
/// outlives the call, is as long as stated or as the map says, and is writable where the kernel writes.
unsafe fn call<Attributes>(command: i64, attributes: &mut Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: the kernel accesses at most `size` bytes of the borrowed value. The caller promises the rest.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned as i32)
}
