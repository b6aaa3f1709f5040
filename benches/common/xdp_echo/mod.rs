//! The bare echo by XDP, which both benches over veth pairs compare with: a role of theirs.

mod frame;
mod frames;
mod program;
mod rings;

use std::io;

use af_xdp::bpf::{Mode, Program, SocketMap};

/// The arguments of the echo.
#[derive(clap::Args)]
pub(crate) struct XdpEcho {
    #[arg(long)]
    device: String,
    /// The port of datagrams that are echoed.
    #[arg(long)]
    port: u16,
    /// The hook of the program: driver or generic.
    #[arg(long, value_parser = mode)]
    mode: Mode,
}

impl XdpEcho {
    /// Echoes until stdin is closed.
    pub(crate) fn run(&self) -> io::Result<()> {
        rings::run(&self.device, self.port, self.mode)
    }
}

/// The arguments that start the role.
pub(crate) fn arguments(device: &str, port: u16, mode: &str) -> Vec<String> {
    format!("xdp-echo --device {device} --port {port} --mode {mode}").split(' ').map(str::to_owned).collect()
}

/// Returns what this machine lacks for XDP, given the rights for it; `None` if all is there.
pub(crate) fn missing() -> Option<String> {
    if let Err(error) = xdp::socket::XdpSocketBuilder::new() {
        return Some(format!("the kernel gives no socket of AF_XDP: {error}"));
    }
    let program = SocketMap::new(1).and_then(|_| Program::load(&program::passing()));
    program.err().map(|error| format!("the kernel takes no XDP program: {error}"))
}

/// Parses the name of a mode.
fn mode(name: &str) -> Result<Mode, String> {
    match name {
        "native" => Ok(Mode::Native),
        "generic" => Ok(Mode::Generic),
        _ => Err("native or generic".to_owned()),
    }
}
