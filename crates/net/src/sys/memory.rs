//! Memory that the process has, but does not need.

#![allow(unsafe_code)] // Two calls; each block says why it is sound.

use rustix::param::page_size;

/// Gives back memory that a start or a reload has left: free heap, and the code and constants of the program,
/// which the kernel maps 64 KiB at a time. It maps those that are used from now on again.
pub fn release_unused() {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let octets = (end.addr() - start.addr()) / page_size() * page_size();
    // SAFETY: between these symbols, the linker places the read-only segments of the file without
    // relocations, so the pages that the kernel maps again have the same content.
    unsafe { libc::madvise(start.cast_mut().cast(), octets, libc::MADV_DONTNEED) };
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes no allocation in use.
    unsafe {
        libc::malloc_trim(0)
    };
}
