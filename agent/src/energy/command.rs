//! `peil-agent energy …`: the two commands a person runs.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use peil_proto::settings::Refused;

use super::settings::{PSYS_WORDS, Psys, Settings};
use super::{doctor, replay};

/// Exit status for input that cannot be used.
const UNUSABLE: u8 = 2;

/// Energy: what can be measured here, and how figures come about.
#[derive(Debug, clap::Subcommand)]
pub enum EnergyCommand {
    /// Recompute a recorded trace of counters: JSON lines in, energy with bounds out
    Replay {
        /// The trace; `-` reads standard input
        file: PathBuf,
    },
    /// Show the counters of this machine, which are used, and why not the others
    Doctor {
        /// Where the host's /sys is
        #[arg(long, default_value = "/sys")]
        sysfs_root: PathBuf,
        /// Where the host's /proc is
        #[arg(long, default_value = "/proc")]
        procfs_root: PathBuf,
        /// As in the settings: auto, always or never
        #[arg(long, default_value = "auto", value_parser = psys)]
        psys: Psys,
    },
}

impl EnergyCommand {
    /// Runs the command; what went wrong stands on standard error.
    pub fn run(self) -> ExitCode {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = match self {
            Self::Replay { file } => match read_trace(&file) {
                Ok(trace) => trace.write(&mut out),
                Err(refused) => {
                    eprintln!("{refused}");
                    return ExitCode::from(UNUSABLE);
                }
            },
            Self::Doctor { sysfs_root, procfs_root, psys } => {
                doctor::examine(&Settings { sysfs_root, procfs_root, psys, ..Settings::default() }, &mut out)
            }
        };
        match written.and_then(|()| io::Write::flush(&mut out)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot write the answer: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

fn read_trace(file: &Path) -> Result<replay::Trace, Refused> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file)
            .map_err(|error| Refused { file: name.clone(), mistakes: vec![format!("cannot be read: {error}")] })?;
        Box::new(BufReader::new(opened))
    };
    replay::read(&name, input)
}

fn psys(word: &str) -> Result<Psys, String> {
    let found = PSYS_WORDS.iter().find(|(known, _)| *known == word);
    found.map(|(_, psys)| *psys).ok_or_else(|| format!("must be {}", PSYS_WORDS.map(|(known, _)| known).join(" or ")))
}
