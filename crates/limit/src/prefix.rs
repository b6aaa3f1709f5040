//! Address prefixes, as in access lists.

use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Returns true if the prefix contains an address. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()) & !host_bits_4(self.len) == 0,
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()) & !host_bits_6(self.len) == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Returns the first and the last address of an IPv4 prefix.
    pub fn range_4(&self) -> Option<(u32, u32)> {
        let IpAddr::V4(first) = self.address else { return None };
        Some((first.to_bits(), first.to_bits() | host_bits_4(self.len)))
    }

    /// Returns the first and the last address of an IPv6 prefix.
    pub fn range_6(&self) -> Option<(u128, u128)> {
        let IpAddr::V6(first) = self.address else { return None };
        Some((first.to_bits(), first.to_bits() | host_bits_6(self.len)))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| PrefixError::Address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let digits = |len: &str| len.bytes().all(|octet| octet.is_ascii_digit());
        let len = match len {
            None => longest,
            Some(len) if digits(len) => len.parse().ok().filter(|&len| len <= longest).ok_or(PrefixError::Length)?,
            Some(_) => return Err(PrefixError::Length),
        };
        let has_host_bits = match address {
            IpAddr::V4(address) => address.to_bits() & host_bits_4(len) != 0,
            IpAddr::V6(address) => address.to_bits() & host_bits_6(len) != 0,
        };
        if has_host_bits { Err(PrefixError::HostBits) } else { Ok(Self { address, len }) }
    }
}

/// The error of parsing a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The address is invalid.
    #[error("neither an IP address nor a prefix such as 192.0.2.0/24")]
    Address,
    /// The length is no number, or too large.
    #[error("bad prefix length: write 0 to 32 for IPv4, 0 to 128 for IPv6")]
    Length,
    /// Bits are set after the prefix.
    #[error("bits are set behind the prefix: write the first address of the network")]
    HostBits,
}

fn host_bits_4(len: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(len)).unwrap_or(0)
}

fn host_bits_6(len: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(len)).unwrap_or(0)
}
