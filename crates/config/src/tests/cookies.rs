//! Tests of the cookies for clients.

use std::path::Path;

use super::super::{Config, CookieConfig};
use super::check;

fn text(lines: &str) -> String {
    format!(
        "[forwarder]\n{lines}\n[pools.a]\nbackends = [\"192.0.2.1:53\"]\n\
         [authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n{lines}\n"
    )
}

#[test]
fn both_have_the_same_keys() {
    let read = |lines: &str| {
        let config = Config::parse(&text(lines), "c.toml", Path::new("/etc/h")).unwrap_or_else(|p| panic!("{p}"));
        let forwarder = config.forwarder.expect("there is one").cookies;
        assert_eq!(config.authorities[0].cookies, forwarder);
        forwarder
    };
    assert_eq!(read(""), CookieConfig { enabled: true, secrets_file: None });
    let file = Some("/etc/h/cookies.secret".into());
    assert_eq!(
        read("cookies = false\ncookie_secrets_file = \"cookies.secret\""),
        CookieConfig { enabled: false, secrets_file: file }
    );
}

#[test]
fn both_are_checked() {
    check(
        &text("cookies = 1\ncookie_secret_file = \"f\""),
        &[
            "2:11: forwarder.cookies: expected true or false, not an integer",
            "3:1: forwarder: unknown key \"cookie_secret_file\", did you mean \"cookie_secrets_file\"?",
            "9:11: authorities.a.cookies: expected true or false, not an integer",
            "10:1: authorities.a: unknown key \"cookie_secret_file\", did you mean \"cookie_secrets_file\"?",
        ],
    );
    check(
        &text("cookie_secrets_file = \"\""),
        &[
            "2:23: forwarder.cookie_secrets_file: invalid value \"\": expected the name of a file",
            "8:23: authorities.a.cookie_secrets_file: invalid value \"\": expected the name of a file",
        ],
    );
}
