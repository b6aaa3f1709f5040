//! Frames on which the program is tried, by the kernel when the bench begins (`BPF_PROG_TEST_RUN`), and by
//! `tests/xdp_yardstick.rs`.

use af_xdp::program::{XDP_PASS, XDP_REDIRECT};

/// Frames, and what becomes of each.
pub(crate) fn all(port: u16) -> Vec<(&'static str, Vec<u8>, i32)> {
    let asked = query(port);
    let with = |place: usize, octet: u8| {
        let mut frame = asked.clone();
        frame[place] = octet;
        frame
    };
    vec![
        ("a query", asked.clone(), XDP_REDIRECT),
        ("one that must not be cut", with(20, 0x40), XDP_REDIRECT),
        ("another port", query(port ^ 0x0100), XDP_PASS),
        ("one more", query(port ^ 1), XDP_PASS),
        ("TCP", with(23, 6), XDP_PASS),
        ("a first fragment", with(20, 0x20), XDP_PASS),
        ("a later one", with(21, 1), XDP_PASS),
        ("IP options", with(14, 0x46), XDP_PASS),
        ("IPv6", with(12, 0x86), XDP_PASS),
        ("ARP", with(13, 0x06), XDP_PASS),
        ("half a header", asked[..41].to_vec(), XDP_PASS),
    ]
}

/// A frame with a query from port 1024 of 198.18.0.2 to a port of 198.18.0.1.
pub(crate) fn query(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 45, 0, 0, 0, 0, 64, 17, 0xEE, 0x98, 198, 18, 0, 2, 198, 18, 0, 1]);
    frame.extend([4, 0, high, low, 0, 25, 0xAB, 0xCD]);
    // The header of a DNS message with one question, for the root, type NS.
    frame.extend([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]);
    frame
}
