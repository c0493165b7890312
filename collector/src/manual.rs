//! Man pages and shell completions of `peil-collector` ([`peil_proto::manual`]), for the packages.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;

/// Writes them below `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn generate(dir: &Path) -> io::Result<()> {
    peil_proto::manual::generate(dir, &Cli::command(), "peil-collector", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let place = tempfile::tempdir().expect("directory");
        generate(place.path()).expect("written");
        for page in ["peil-collector.1", "peil-collector-token-create.1", "peil-collector-sla-evaluate.1"] {
            let text = std::fs::read_to_string(place.path().join("man").join(page)).expect(page);
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(!place.path().join("man/peil-collector-generate.1").exists(), "what is hidden stays so");
        let bash = std::fs::read_to_string(place.path().join("bash/peil-collector.bash")).expect("written");
        assert!(bash.contains("evaluate"));
    }
}
