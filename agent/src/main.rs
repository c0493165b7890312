//! The program `peil-agent`: reads the command line and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use peil_agent::probe::trace::{self, ProbeArgs};

/// Watches endpoints, patch level and energy from this host.
#[derive(clap::Parser)]
#[command(name = "peil-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Probe a target once and tell what came of it
    Probe(ProbeArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Probe(args) => trace::main(&args),
    }
}
