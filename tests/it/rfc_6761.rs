//! RFC 6761: names that are special, and names that are not. Most of them are in `local_names.rs`.

use testkit::*;

#[test]
fn section_6_5_example_names_are_forwarded() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Forwarder::to(&[&backend], "").keys("special_names = true").start();
    for name in ["example", "www.example.com", "example.net", "a.b.example.org"] {
        assert_eq!(server.client().ask(&query(name, A)).answers(), ["192.0.2.1"], "{name}");
        assert_eq!(backend.queries_for(name).len(), 1, "{name}");
    }
}
