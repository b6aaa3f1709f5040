//! The system call `bpf`: maps, programs of XDP, and links by which these hang on an interface.
//!
//! Everything goes with its descriptor, and so with the process, however that ends; a new program that is executed inherits none. Maps of
//! numbers are also mapped into memory, where they are read and written without a call, by atomics alone, since the program does so
//! meanwhile. Each block with `unsafe` says why it is sound.

#![allow(unsafe_code)] // No crate at hand offers this call without C.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

/// A map with a socket of AF_XDP for each queue (`BPF_MAP_TYPE_XSKMAP`). A socket that is closed leaves it by itself.
pub struct SocketMap {
    fd: OwnedFd,
}

impl SocketMap {
    /// One with room for so many queues.
    pub fn new(queues: u32) -> io::Result<Self> {
        Ok(Self { fd: create(BPF_MAP_TYPE_XSKMAP, size_of::<u32>(), size_of::<u32>(), queues, 0)? })
    }

    /// Its descriptor, as programs name it.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Puts a socket in for a queue, in place of another.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: `new` makes the map with keys and values of 32 bits.
        unsafe { update(&self.fd, &queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes()) }
    }
}

/// A set of keys of fixed length (`BPF_MAP_TYPE_HASH`). Each has a number as its value, which says nothing.
pub struct KeySet<const LENGTH: usize> {
    fd: OwnedFd,
}

impl<const LENGTH: usize> KeySet<LENGTH> {
    /// One with room for so many keys.
    pub fn new(max_entries: u32) -> io::Result<Self> {
        Ok(Self { fd: create(BPF_MAP_TYPE_HASH, LENGTH, size_of::<u32>(), max_entries, 0)? })
    }

    /// Its descriptor, as programs name it.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Puts a key in, which may be there already.
    pub fn insert(&self, key: &[u8; LENGTH]) -> io::Result<()> {
        // SAFETY: `new` makes the map with keys of `LENGTH` octets and values of 32 bits.
        unsafe { update(&self.fd, key, &1_u32.to_ne_bytes()) }
    }

    /// Takes a key out, if it is there.
    pub fn remove(&self, key: &[u8; LENGTH]) -> io::Result<()> {
        let mut attributes =
            Element { map_fd: self.fd.as_raw_fd() as u32, key: key.as_ptr() as u64, ..Element::default() };
        // SAFETY: `Element` is what this command takes, and the key is borrowed for the call and as long as the map's keys are.
        match unsafe { call(BPF_MAP_DELETE_ELEM, &mut attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// A map of values of so many words of 64 bits, numbered from 0 (`BPF_MAP_TYPE_ARRAY`), that is mapped into memory.
pub struct WordArray<const WORDS: usize> {
    fd: OwnedFd,
    first: NonNull<[AtomicU64; WORDS]>,
    entries: usize,
}

// SAFETY: what is mapped belongs to no thread, and is reached by shared references to atomics alone.
unsafe impl<const WORDS: usize> Send for WordArray<WORDS> {}
// SAFETY: as above.
unsafe impl<const WORDS: usize> Sync for WordArray<WORDS> {}

impl<const WORDS: usize> WordArray<WORDS> {
    /// One of so many values, all zeros.
    pub fn new(entries: u32) -> io::Result<Self> {
        let fd = create(BPF_MAP_TYPE_ARRAY, size_of::<u32>(), Self::VALUE, entries, BPF_F_MMAPABLE)?;
        let entries = entries as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: this maps what is not mapped yet, at a place of the kernel's choice, and takes nobody's memory away.
        let mapped =
            unsafe { libc::mmap(ptr::null_mut(), entries * Self::VALUE, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("a map is mapped at 0"))?;
        Ok(Self { fd, first, entries })
    }

    /// Its descriptor, as programs name it.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// The values, which programs may read and write at any time.
    pub fn values(&self) -> &[[AtomicU64; WORDS]] {
        // SAFETY: so many values are mapped, from the beginning of a page, for as long as this lives. In such a map the kernel has value
        // behind value, each of a multiple of eight octets. Any octets are numbers, and nobody but the kernel writes other than by these.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.entries) }
    }

    /// Octets of a value.
    const VALUE: usize = size_of::<[AtomicU64; WORDS]>();
}

impl<const WORDS: usize> Drop for WordArray<WORDS> {
    fn drop(&mut self) {
        // SAFETY: this has been mapped by `new`, in this length, and no reference to it outlives what is dropped here.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.entries * Self::VALUE) };
    }
}

/// A program that the kernel has found to be sound.
pub struct Program {
    fd: OwnedFd,
}

impl Program {
    /// Loads it. The error of one that is refused has what the kernel says of it.
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
        // SAFETY: `Load` is what this command takes. Instructions and license outlive the call, with the count of the former beside them and a
        // zero at the end of the latter; there is no log.
        let error = match unsafe { call_for_fd(BPF_PROG_LOAD, &mut load) } {
            Ok(fd) => return Ok(Self { fd }),
            Err(error) => error,
        };
        // Who may load none has not had it looked at.
        if error.raw_os_error() == Some(libc::EPERM) {
            return Err(error);
        }
        let mut log = vec![0_u8; 256 << 10];
        (load.log_level, load.log_size, load.log_buf) = (1, log.len() as u32, log.as_mut_ptr() as u64);
        // SAFETY: as above, and the log outlives the call and is as long as stated.
        match unsafe { call_for_fd(BPF_PROG_LOAD, &mut load) } {
            Ok(fd) => Ok(Self { fd }),
            Err(_) => {
                let said = String::from_utf8_lossy(&log);
                let said = said.trim_end_matches('\0').trim_end();
                Err(io::Error::new(error.kind(), format!("the program is refused: {error}\n{said}")))
            }
        }
    }

    /// What it says of a frame on queue 0, which nobody gets (`BPF_PROG_TEST_RUN`). The kernel takes no frame shorter than a header of Ethernet.
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
        // SAFETY: `Test` is what this command takes. The frame is borrowed for the call and as long as stated, and nothing is asked back.
        unsafe { call(BPF_PROG_TEST_RUN, &mut test) }?;
        Ok(test.retval as i32)
    }

    /// Has an interface run it for each frame that arrives.
    pub fn attach(&self, interface: u32, mode: Mode) -> io::Result<Link> {
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
        // SAFETY: `Attach` is what this command takes, it has no addresses, and the command returns a descriptor.
        Ok(Link { _fd: unsafe { call_for_fd(BPF_LINK_CREATE, &mut attach) }? })
    }
}

/// Where an interface runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In its driver, before the kernel has made anything of the frame.
    Native,
    /// Behind it, in the kernel's own buffers: with every driver.
    Generic,
}

/// A program on an interface, for as long as this lives. An interface that goes takes it off; this does not tell.
pub struct Link {
    _fd: OwnedFd,
}

/// What the kernel reads to find or change a value of a map.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    _gap: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A new map.
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
    // SAFETY: `Create` is what this command takes, it has no addresses, and the command returns a descriptor.
    unsafe { call_for_fd(BPF_MAP_CREATE, &mut attributes) }
}

/// Sets a value of a map.
///
/// # Safety
/// Key and value are at least as long as those of the map.
unsafe fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (map_fd, key, value) = (map.as_raw_fd() as u32, key.as_ptr() as u64, value.as_ptr() as u64);
    let mut attributes = Element { map_fd, key, value, ..Element::default() };
    // SAFETY: `Element` is what this command takes. Key and value are borrowed for the call, and long enough as the caller promises.
    unsafe { call(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

// The numbers of linux/bpf.h and linux/if_link.h.
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

/// What the kernel asks of every program. None of the functions that are called is for the GPL alone.
const LICENSE: &[u8] = b"MIT\0";

/// The call, where it returns a new descriptor, which no program inherits that is executed.
///
/// # Safety
/// As for [`call`]; and the command returns a new descriptor.
unsafe fn call_for_fd<Attributes>(command: i64, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller promises what `call` needs.
    let fd = unsafe { call(command, attributes) }?;
    // SAFETY: the kernel makes this descriptor for this call, as the caller promises, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The call. Each attribute is one of the structures above, as the kernel's union begins for that command; what they lack of it
/// the kernel takes for zeros.
///
/// # Safety
/// `Attributes` is the structure of that command, without padding, and each address in it is of memory that lives until the call returns, is as
/// long as the length beside it or as the map fixes it, and may be written where the kernel writes.
unsafe fn call<Attributes>(command: i64, attributes: &mut Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: the kernel reads and writes no more than `size` octets of what is borrowed for the call. The caller promises the rest.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned as i32)
}
