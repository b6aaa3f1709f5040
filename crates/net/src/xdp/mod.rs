//! The seam to AF_XDP: [`Bypass`] and [`BypassPorts`]. A build without the cargo feature `xdp` has
//! `absent.rs` in place of this module.

mod ports;

pub use af_xdp::Bypass;

#[cfg(test)]
pub(super) use self::ports::BY_KERNEL_EVERY;
pub use self::ports::BypassPorts;
