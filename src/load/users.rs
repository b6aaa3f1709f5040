//! Users of this host, from `/etc/passwd` and `/etc/group`.
//!
//! The functions of the C library for this load shared libraries (NSS), which in a static binary fail or
//! crash if the C library of the host has another version.

use std::fs;
use std::path::Path;

use config::User;

/// Looks up a user of this host by name, with its groups.
pub fn find_user(name: &str) -> Option<User> {
    find(&read("/etc/passwd"), &read("/etc/group"), name)
}

/// Looks up the name of a user of this host.
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = read("/etc/passwd");
    users(&passwd).find_map(|(name, id, _)| (id == uid).then(|| name.to_owned()))
}

/// Reads a file; a file that is missing or cannot be read has no users.
fn read(file: impl AsRef<Path>) -> String {
    fs::read(file).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default()
}

fn find(passwd: &str, group: &str, name: &str) -> Option<User> {
    let (_, uid, gid) = users(passwd).find(|user| user.0 == name)?;
    let supplementary = groups(group).filter(|(_, members)| members.split(',').any(|member| member == name));
    let mut groups = vec![gid];
    groups.extend(supplementary.map(|(id, _)| id).filter(|id| *id != gid));
    Some(User { name: name.to_owned(), uid, gid, groups })
}

/// Yields name, UID and GID of each line of passwd(5).
fn users(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some((name, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// Yields GID and members of each line of group(5).
fn groups(group: &str) -> impl Iterator<Item = (u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# dns:x:1:1::/:\n+\nbad:x:one:1::/:\n\
                          dns:x:990:980:DNS:/nonexistent:/usr/sbin/nologin\ndns:x:7:7::/:\n";
    const GROUP: &str =
        "root:x:0:\ndns:x:980:dns\nssl:x:112:dns,www\nwww:x:33:www,dnsx\nlog:x:4:www,dns\nbad:x:z:dns\nshort:x\n";

    #[test]
    fn a_user_has_the_groups_that_name_it() {
        let user = find(PASSWD, GROUP, "dns").expect("it is there");
        assert_eq!((user.uid, user.gid, &*user.groups), (990, 980, &[980, 112, 4][..]));
        assert_eq!(find(PASSWD, "", "dns").map(|user| user.groups), Some(vec![980]));
        for name in ["bad", "+", "# dns", "ssl", ""] {
            assert_eq!(find(PASSWD, GROUP, name), None, "{name}");
        }
    }

    #[test]
    fn a_missing_file_has_no_users() {
        assert_eq!(read("/no/such/file"), "");
    }
}
