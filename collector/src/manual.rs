//! Man pages and shell completions, written from the command line's own description: `peil-collector generate DIR`, which
//! the packages call when they are built.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;

/// Writes `man/*.1`, and completions of bash, zsh and fish under the names their shells look for, below `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn generate(dir: &Path) -> io::Result<()> {
    let man = dir.join("man");
    std::fs::create_dir_all(&man)?;
    clap_mangen::generate_to(visible(), &man)?;
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let place = dir.join(place);
        std::fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut Cli::command(), "peil-collector", &place)?;
    }
    Ok(())
}

/// Without what is hidden, and without `help`, which needs no page of its own.
fn visible() -> Command {
    let whole = Cli::command();
    let shown: Vec<Command> = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned().collect();
    let bare = Command::new("peil-collector")
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default());
    bare.disable_help_subcommand(true).subcommands(shown.into_iter().map(|one| one.disable_help_subcommand(true)))
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
