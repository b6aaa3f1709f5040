//! The kernel support, capabilities and memory limit of this process for AF_XDP.

use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// The prerequisites of AF_XDP that this process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// True if the kernel has AF_XDP sockets.
    pub is_supported: bool,
    /// The missing capabilities, by their names in capabilities(7).
    pub missing: Vec<&'static str>,
    /// The limit on locked memory in bytes; `None` if unlimited.
    pub lockable: Option<u64>,
}

impl Rights {
    /// Returns the rights of this thread.
    pub fn of_this_thread() -> io::Result<Self> {
        let effective = capabilities(None)?.effective;
        let probe = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None);
        // EPERM comes after the kernel has found that it supports these sockets.
        let is_supported = !matches!(probe, Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT));
        Ok(Self::of(is_supported, effective, getrlimit(Resource::Memlock).current))
    }

    fn of(is_supported: bool, effective: CapabilitySet, limit: Option<u64>) -> Self {
        // CAP_SYS_ADMIN includes CAP_BPF, and was the only way before Linux 5.8.
        let needed = [
            ("CAP_NET_RAW", CapabilitySet::NET_RAW),
            ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
            ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ];
        let missing = needed.into_iter().filter(|(_, any)| !effective.intersects(*any)).map(|(name, _)| name).collect();
        let lockable = limit.filter(|_| !effective.contains(CapabilitySet::IPC_LOCK));
        Self { is_supported, missing, lockable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let (raw, admin, bpf) = (CapabilitySet::NET_RAW, CapabilitySet::NET_ADMIN, CapabilitySet::BPF);
        for (effective, missing) in [
            (CapabilitySet::empty(), &["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"][..]),
            (raw, &["CAP_NET_ADMIN", "CAP_BPF"]),
            (admin | bpf, &["CAP_NET_RAW"]),
            (raw | admin | bpf, &[]),
            (raw | admin | CapabilitySet::SYS_ADMIN, &[]),
            (CapabilitySet::all(), &[]),
        ] {
            assert_eq!(Rights::of(true, effective, None).missing, missing, "{effective:?}");
        }
    }

    #[test]
    fn memory_is_limited_unless_it_may_be_locked_at_will() {
        let (none, lock) = (CapabilitySet::empty(), CapabilitySet::IPC_LOCK);
        for (effective, limit, lockable) in
            [(none, Some(65_536), Some(65_536)), (none, None, None), (lock, Some(65_536), None), (lock, None, None)]
        {
            assert_eq!(Rights::of(true, effective, limit).lockable, lockable, "{effective:?} {limit:?}");
        }
    }

    #[test]
    fn the_kernel_tells_of_this_thread() {
        let rights = Rights::of_this_thread().expect("the kernel reports rights");
        let all = capabilities(None).expect("the kernel reports rights").effective;
        assert_eq!(rights.missing.contains(&"CAP_NET_RAW"), !all.contains(CapabilitySet::NET_RAW));
    }
}
