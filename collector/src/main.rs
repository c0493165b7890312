//! The program `peil-collector`: reads the command line, hands over, prints what comes back.

use std::process::ExitCode;

use clap::Parser as _;
use peil_collector::cli::Cli;

fn main() -> ExitCode {
    peil_collector::cli::run(Cli::parse())
}
