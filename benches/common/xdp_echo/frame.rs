//! An Ethernet frame with a query in it (IPv4 without options, UDP), turned in place into the frame with its
//! echo.

/// Bytes in front of the DNS message: Ethernet 14, IPv4 20, UDP 8.
const HEADERS: usize = 42;
/// Bytes up to and with the first flags of a DNS header (RFC 1035 section 4.1.1).
const TO_FLAGS: usize = HEADERS + 3;
/// The flag QR among them.
const QR: u8 = 0x80;

/// Sends the frame back to where it came from, with QR set; `false`, and nothing changed, if it is too short
/// for that.
///
/// The checksum of IP stays right: it is a sum, and source and destination have changed places in it. That of
/// UDP is left out, as IPv4 allows (RFC 768): a virtual device hands over frames whose UDP checksum its
/// sender has left to hardware.
pub(crate) fn turn(frame: &mut [u8]) -> bool {
    let Some(head) = frame.first_chunk_mut::<TO_FLAGS>() else { return false };
    swap::<6>(head, 0, 6);
    swap::<4>(head, 26, 30);
    swap::<2>(head, 34, 36);
    head[40..HEADERS].fill(0);
    head[TO_FLAGS - 1] |= QR;
    true
}

/// Swaps so many bytes at two places.
fn swap<const LENGTH: usize>(head: &mut [u8; TO_FLAGS], one: usize, other: usize) {
    for place in 0..LENGTH {
        head.swap(one + place, other + place);
    }
}
