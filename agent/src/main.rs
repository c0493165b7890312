//! The command line of the agent. Each command lives in its own part; here they are only named.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Probes endpoints, patch level and energy of one host and delivers every result.
#[derive(Parser)]
#[command(name = "peil-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The patch level of this host, or of an image or chroot.
    #[command(subcommand)]
    Patch(Patch),
}

#[derive(Subcommand)]
enum Patch {
    /// Which security fixes are missing, from the package manager's files alone.
    Scan {
        /// The system to read.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Patch(Patch::Scan { root, json }) => peil_agent::patch::command(&root, json),
    }
}
