//! The roles of `deploy/etcd`, by an etcd that enforces them.

use std::process::{Command, Stdio};

use testkit::peers::etcd::Etcd;

use super::{text_of, top};

/// One etcd, and its command line.
struct Store(Etcd);

impl Store {
    /// Runs etcdctl as a user, if one is named: whether it has succeeded, and what it has said.
    fn control(&self, user: &str, words: &[&str]) -> (bool, String) {
        self.run(Command::new("etcdctl").args(words), user)
    }

    /// Runs a command that is etcdctl, or calls it.
    fn run(&self, command: &mut Command, user: &str) -> (bool, String) {
        command.env("ETCDCTL_API", "3").stdin(Stdio::null());
        command.env("ETCDCTL_ENDPOINTS", format!("http://{}", self.0.address()));
        if !user.is_empty() {
            command.env("ETCDCTL_USER", user);
        }
        let output = command.output().expect("it is installed");
        (output.status.success(), text_of(&output))
    }
}

#[test]
fn roles_of_etcd_let_everybody_do_what_it_has_to_and_no_more() {
    let Some(etcd) = Etcd::start() else { return };
    let etcd = Store(etcd);
    let roles = || {
        let mut roles = Command::new(top().join("deploy/etcd/roles"));
        roles.args(["fleet", "ts", "other"]);
        roles.envs([("LS_PASSWORD", "l"), ("TS_PASSWORD", "t"), ("OPERATOR_PASSWORD", "o")]);
        roles
    };
    // Twice: what is there is left.
    for _ in 0..2 {
        let (is_done, said) = etcd.run(&mut roles(), "");
        assert!(is_done, "{said}");
    }
    for words in [&["user", "add", "root:r"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]] {
        let (is_done, said) = etcd.control("", words);
        assert!(is_done, "{said}");
    }
    let (is_done, said) = etcd.run(&mut roles(), "root:r");
    assert!(is_done, "with authentication: {said}");
    let [ls, ts, operator] = ["fleet-ls:l", "fleet-ts-ts:t", "fleet-operator:o"];
    let may = |user: &str, words: &[&str]| {
        let (is_done, said) = etcd.control(user, words);
        assert!(is_done, "{user} {words:?}: {said}");
        said
    };
    let may_not = |user: &str, words: &[&str]| {
        let (is_done, said) = etcd.control(user, words);
        assert!(!is_done && said.contains("permission denied"), "{user} {words:?}: {said}");
    };
    let (member, others) = ("fleet/pools/ts/members/192.0.2.1:53", "fleet/pools/other/members/192.0.2.1:53");
    let order = "fleet/orders/ts/ts1";
    // A TS registers under a lease, reads its key, and takes it away with the lease.
    let granted = may(ts, &["lease", "grant", "60"]);
    let lease = granted.split_whitespace().nth(1).expect("its number");
    may(ts, &["put", "--lease", lease, member, "{\"address\":\"192.0.2.1:53\"}"]);
    may(ts, &["get", member]);
    may(ts, &["lease", "keep-alive", "--once", lease]);
    may_not(ts, &["put", others, "{}"]);
    may_not(ts, &["get", others]);
    may_not(ts, &["put", order, "{}"]);
    // An LS reads members and orders, by prefix, and writes nothing.
    for prefix in ["fleet/pools/ts/members/", "fleet/pools/other/members/", "fleet/orders/"] {
        may(ls, &["get", "--prefix", prefix]);
    }
    assert!(may(ls, &["get", "--prefix", "fleet/pools/ts/members/"]).contains("192.0.2.1:53"));
    for key in [member, order] {
        may_not(ls, &["put", key, "{}"]);
        may_not(ls, &["del", key]);
    }
    // The operator gives orders, and has no say about members.
    may(operator, &["put", order, "{\"order\":\"drain\"}"]);
    may(operator, &["del", order]);
    may_not(operator, &["put", member, "{}"]);
    may(ts, &["lease", "revoke", lease]);
    assert!(!may(ls, &["get", "--prefix", "fleet/pools/ts/members/"]).contains("192.0.2.1:53"));
}
