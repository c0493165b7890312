//! Commands for whoever keeps the store: is it well, back-up, restore, the way to another engine.
//!
//! How far they are goes to standard error, what they did to standard output: one line per table with its rows and the
//! SHA-256 over them, which is the same for the same rows on either engine.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use peil_proto::time::WallClock;

use super::{ConfigArg, operator, say};
use crate::config::Config;
use crate::doctor::{self, Severity};
use crate::store::Place;
use crate::store::place::Beside;
use crate::store::survey::survey;
use crate::store::transfer::{self, Asked, Counted, Progress};

/// How far a copy is, is told this often at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(super) enum Operate {
    /// Write a back-up of the store to a new file, or into a directory, while collectors run
    ///
    /// One SQLite file for either engine, read back and checked before it gets its name. `pki/` in the data directory is
    /// not in it: keep a copy of that, too.
    Backup {
        #[command(flatten)]
        config: ConfigArg,
        /// New file, or a directory in which it gets a name with the time
        to: PathBuf,
    },
    /// Fill an empty store from a back-up, after checking it from end to end
    Restore {
        #[command(flatten)]
        config: ConfigArg,
        /// The back-up
        #[arg(value_name = "FILE")]
        from: PathBuf,
        /// Only check it
        #[arg(long)]
        check: bool,
    },
    /// Tell whether the store is well, and what to do if not; exit status 1 when something is to be done
    Doctor {
        #[command(flatten)]
        config: ConfigArg,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Move a store that stands still to another engine; ended at any moment, the same command goes on
    Migrate(MigrateArgs),
}

#[derive(Args)]
pub(super) struct MigrateArgs {
    /// Where everything is: sqlite:///DIR or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "STORE")]
    from: String,
    /// Where it is to go: an empty directory, or an empty schema
    #[arg(long, value_name = "STORE")]
    to: String,
    /// File with the password of the server
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Authority of the server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A weaker setting of the server to accept, such as synchronous_commit=local; may be repeated
    #[arg(long, value_name = "SETTING=VALUE")]
    accept: Vec<String>,
}

/// Does what was asked. Not async: it waits for databases all the time, and nothing else is to be done.
pub(super) fn run(command: Operate, clock: &WallClock) -> anyhow::Result<()> {
    let asked = Asked { who: operator(), at: clock.now() };
    match command {
        Operate::Backup { config, to } => {
            let place = Config::load(&config.config)?.store;
            let (path, counted) = transfer::backup(&place, &to, &asked, &mut teller())?;
            tell(&counted)?;
            say(&format!("{} is a whole copy of {place}, read back and checked", path.display()))
        }
        Operate::Restore { config: _, from, check: true } => {
            tell(&transfer::check_file(&from)?)?;
            say(&format!("{} is whole", from.display()))
        }
        Operate::Restore { config, from, check: false } => {
            let config = Config::load(&config.config)?;
            let counted = transfer::restore(&from, &config.store, &asked, &mut teller())?;
            tell(&counted)?;
            say(&format!("{} holds what is in {}", config.store, from.display()))?;
            remind(&config.data_dir)
        }
        Operate::Doctor { config, json } => doctor(&Config::load(&config.config)?.store, clock, json),
        Operate::Migrate(args) => {
            let (from, to) = (args.place(&args.from, "--from")?, args.place(&args.to, "--to")?);
            let counted = transfer::migrate(&from, &to, &asked, &mut teller())?;
            tell(&counted)?;
            say(&format!("{to} holds what is in {from}; set `store` to it before the next start"))
        }
    }
}

/// A store that cannot even be looked at is told as any failure.
fn doctor(place: &Place, clock: &WallClock, json: bool) -> anyhow::Result<()> {
    let survey = survey(place, clock)?;
    let findings = doctor::examine(&survey);
    say(&if json {
        format!("{:#}", doctor::as_json(&survey, &findings))
    } else {
        doctor::as_text(&survey, &findings)
    })?;
    let to_do = findings.iter().filter(|finding| finding.severity > Severity::Note).count();
    anyhow::ensure!(to_do == 0, "{to_do} findings ask for something to be done");
    Ok(())
}

impl MigrateArgs {
    fn place(&self, url: &str, name: &str) -> anyhow::Result<Place> {
        let beside = if url.starts_with("sqlite://") {
            Beside::default()
        } else {
            Beside {
                password_file: self.password_file.clone(),
                ca_file: self.ca_file.clone(),
                accepts: self.accept.iter().cloned().collect(),
            }
        };
        Place::parse(url, beside).with_context(|| format!("{name} {url:?} cannot be used"))
    }
}

fn tell(counted: &[Counted]) -> anyhow::Result<()> {
    counted.iter().try_for_each(|table| say(&table.to_string()))
}

/// Agents trust an authority that is not in the store.
fn remind(data_dir: &Path) -> anyhow::Result<()> {
    let pki = data_dir.join("pki");
    if pki.join("ca.key").exists() {
        return Ok(());
    }
    say(&format!("{} is not there: put ca.key and ca.pem there before the collector starts", pki.display()))
}

/// Tells how far a copy is: at a terminal now and then, elsewhere after each page.
fn teller() -> impl FnMut(Progress) {
    let rarely = std::io::stderr().is_terminal();
    let mut last: Option<Instant> = None;
    move |at| {
        if rarely && last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            return;
        }
        last = Some(Instant::now());
        let _ = writeln!(std::io::stderr(), "{}: {} rows", at.table, at.rows);
    }
}
