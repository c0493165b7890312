//! Man pages and shell completions, written from a command line's own description: `peil-agent generate DIR` and
//! `peil-collector generate DIR`, which the packages call when they are built. Behind the feature `manual`, because
//! nothing else here knows a command line.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Writes the pages of the program `name`, whose command line is `whole`: `man/*.1`, and completions of bash, zsh and fish under the names their shells look for, below `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn generate(dir: &Path, whole: &Command, name: &'static str, version: &'static str) -> io::Result<()> {
    let man = dir.join("man");
    std::fs::create_dir_all(&man)?;
    clap_mangen::generate_to(visible(whole, name, version), &man)?;
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let place = dir.join(place);
        std::fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut whole.clone(), name, &place)?;
    }
    Ok(())
}

/// Without what is hidden, and without `help`, which needs no page of its own.
fn visible(whole: &Command, name: &'static str, version: &'static str) -> Command {
    let shown: Vec<Command> = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned().collect();
    let bare = Command::new(name)
        .version(version)
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default());
    bare.disable_help_subcommand(true).subcommands(shown.into_iter().map(|one| one.disable_help_subcommand(true)))
}
