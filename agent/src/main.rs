//! The program `peil-agent`: reads the command line and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use peil_agent::cli::Cli;

fn main() -> ExitCode {
    peil_agent::cli::run(Cli::parse())
}
