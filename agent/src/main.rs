//! `peil-agent`: the command line. Each part owns its commands; this file only names them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peil_agent::energy::command::EnergyCommand;

/// Probes endpoints, patch level and energy on this host and delivers every result
#[derive(Parser)]
#[command(name = "peil-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Energy: what can be measured here, and how figures come about
    #[command(subcommand)]
    Energy(EnergyCommand),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Energy(command) => command.run(),
    }
}
