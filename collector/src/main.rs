//! `peil-collector`: the command line, and nothing but the command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peil_collector::evaluate::{evaluate, mistake_lines};

/// Turns what agents saw into availability, breaches, patch findings, energy, alerts and pages.
#[derive(Parser)]
#[command(name = "peil-collector", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work with availability figures.
    #[command(subcommand)]
    Sla(Sla),
}

#[derive(Subcommand)]
enum Sla {
    /// Compute the figure of one month from a file and print it as JSON.
    Evaluate {
        /// The case as JSON; `-` reads standard input.
        file: PathBuf,
    },
}

/// Input that cannot be used.
const UNUSABLE: u8 = 2;

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Sla(Sla::Evaluate { file }) => match evaluate(&file) {
            Ok(line) => {
                writeln!(std::io::stdout(), "{line}")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(refused) => {
                let mut stderr = std::io::stderr().lock();
                for line in mistake_lines(&refused) {
                    writeln!(stderr, "{line}")?;
                }
                Ok(ExitCode::from(UNUSABLE))
            }
        },
    }
}
