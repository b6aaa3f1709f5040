//! The yardstick for AF_XDP: `cargo bench --bench xdp`, options behind `--`, see `--help`.
//!
//! A bare echo by XDP, in the driver (native) and behind it (generic), beside the bare batched echo by a UDP
//! socket, with GRO and GSO and without; nothing else is in them, so that each is the least that a server on
//! such a socket can cost. They answer on one end of a veth pair, on a core of their own, and the client asks
//! from a namespace at the other end, on another core. First a closed loop for the rate, then open loops at a
//! share of what the socket echo can do. CPU time is that of whole cores, since the kernel does much of the
//! work in interrupts that no process is charged for: nothing else should run on the machine.
//!
//! It needs root, iproute2 and util-linux; kxdpgun (of knot-dnsutils) is a second client if it is there, and
//! ethtool turns GRO of the device on. Without the first it says so, and fails only where `HEDGEROW_REQUIRED`
//! is set.

#[path = "../common/mod.rs"]
mod common;
mod report;
mod sample;
mod socket_echo;

use std::env;
use std::error::Error;
use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use common::client::{self, Plan};
use common::message::Lengths;
use common::process::{Cores, Hold, Place};
use common::xdp_echo::XdpEcho;
use common::{positive, veth, xdp_echo};
use sample::Setting;

/// Measures a bare echo by XDP beside one by a UDP socket, over a veth pair.
#[derive(Parser)]
#[command(name = "xdp")]
struct Options {
    /// The role of this process; `None` for the process that a person started.
    #[command(subcommand)]
    role: Option<Role>,
    /// Where, if it is one of those.
    #[command(flatten)]
    place: Place,
    /// Rounds over all subjects.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    secs: f64,
    /// How long names are. Only those of one length leave together by GSO.
    #[arg(long, default_value = "equal")]
    lengths: Lengths,
    /// One short round, to see that all works.
    #[arg(long)]
    quick: bool,
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The parts that this program plays for itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    /// Sends every datagram back by a socket.
    SocketEcho {
        #[arg(long)]
        address: SocketAddr,
        /// With GRO and GSO.
        #[arg(long)]
        coupled: bool,
    },
    /// Sends every datagram back by XDP.
    XdpEcho(XdpEcho),
    /// Sends queries and prints what it saw.
    Client(Plan),
    /// Is in a namespace until stdin is closed.
    Namespace,
    /// Becomes another program that ends with this one.
    Hold(Hold),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(role) = options.role else { return measure(&options) };
    options.place.settle()?;
    match role {
        Role::SocketEcho { address, coupled } => socket_echo::run(address, coupled)?,
        Role::XdpEcho(echo) => echo.run()?,
        Role::Client(plan) => client::run(&plan)?,
        Role::Namespace => veth::hold_namespace()?,
        Role::Hold(command) => command.run()?,
    }
    Ok(())
}

/// Runs all rounds and prints the report.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(why) = veth::missing().or_else(xdp_echo::missing) {
        if env::var_os("HEDGEROW_REQUIRED").is_some() {
            return Err(why.into());
        }
        println!("XDP is not measured: {why}.");
        return Ok(());
    }
    let Some(cores) = Cores::find()? else { return Err("two cores are needed, one for the echo alone".into()) };
    let (rounds, secs) = if options.quick { (1, 0.5) } else { (options.rounds, options.secs) };
    let setting = Setting { cores, secs, lengths: options.lengths };
    let rounds = setting.measure(rounds)?;
    print!("{}", report::markdown(&rounds, setting));
    Ok(())
}
