//! The process group.

#![allow(unsafe_code)] // Two calls; the block says why it is sound.

/// Returns true if a process is in the process group of this process.
///
/// Inside a PID namespace, the kernel reports 0 for a group whose leader is outside. `rustix` assumes that a
/// group is above zero.
pub fn is_in_own_group(pid: i32) -> bool {
    // SAFETY: the calls take and return numbers.
    unsafe { libc::getpgid(pid) == libc::getpgid(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_do_not_exist_or_left_the_group_are_in_no_own_group() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(is_in_own_group(own) && !is_in_own_group(i32::MAX));
        let mut other = std::process::Command::new("cat");
        std::os::unix::process::CommandExt::process_group(&mut other, 0);
        let mut other = other.stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(!is_in_own_group(i32::try_from(other.id()).unwrap()));
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
