//! `peil-collector apply`, `export`, `exclusion …` and `month …`: what people decide, on the command line.
//!
//! Whoever can run these reads the data directory and is the operator; `--by NAME` says for whom he acts, and both
//! names stand in the log. A running collector takes changes up within seconds.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use peil_proto::settings::read_file;
use peil_proto::time::UtcTime;

use super::{ConfigArg, open, operator, say};
use crate::agreement::InForce;
use crate::apply::Missing;
use crate::config::{Config, SealDay};
use crate::contract::approval::{Deed, ExclusionFile, Proposal};
use crate::contract::calendar::{Month, local_rfc3339};
use crate::contract::evaluate;
use crate::contract::exclusion::{ExclusionKind, Refusal};
use crate::contract::sealing::{Correction, Digest, Stage};
use crate::contract::span::Span;
use crate::evaluate::bundle::Bundle;
use crate::evaluate::sealed::BlocksSeen;
use crate::evaluate::whatif;
use crate::job::agree::Agree;
use crate::months::{self, MonthState, Wish};
use crate::refold::{self, Ground, Seen};
use crate::store::Store;
use crate::{apply, decisions};

#[derive(Subcommand)]
pub(super) enum ExclusionCommand {
    /// Ask for time to be left out of the figure; somebody else has to approve it
    Propose {
        #[command(flatten)]
        config: ConfigArg,
        /// What people call it, such as CHG-7; used once
        id: String,
        /// The service it is about
        #[arg(long)]
        service: String,
        /// maintenance, force_majeure, customer or dependency
        #[arg(long, value_parser = kind)]
        kind: ExclusionKind,
        /// First instant, such as 2026-04-12T00:00:00+02:00
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        from: UtcTime,
        /// First instant after
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        to: UtcTime,
        /// When the customer was told
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        announced: Option<UtcTime>,
        /// What is done or happened, and where the evidence is
        #[arg(long)]
        reason: String,
        /// For whom you act
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Approve what somebody else proposed
    Approve {
        #[command(flatten)]
        act: ActArg,
    },
    /// Refuse what somebody else proposed
    Refuse {
        #[command(flatten)]
        act: ActArg,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// The work was done earlier: the rest of the time counts again
    Close {
        #[command(flatten)]
        act: ActArg,
        /// When it was done
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        at: UtcTime,
    },
    /// All exclusions, how much of each counts, and why the rest does not
    List {
        #[command(flatten)]
        config: ConfigArg,
        /// Only those that end after this
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        since: Option<UtcTime>,
    },
}

#[derive(clap::Args)]
pub(super) struct ActArg {
    #[command(flatten)]
    config: ConfigArg,
    /// Its id
    id: String,
    /// For whom you act
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum MonthCommand {
    /// Months that are over: drafts, and editions with who sealed them
    List(ConfigArg),
    /// Make the draft of a month that is over and that no agent was enrolled in, because its records came later
    Draft {
        #[command(flatten)]
        which: MonthArg,
    },
    /// Seal a month: its figure will not change any more
    Seal {
        #[command(flatten)]
        which: MonthArg,
    },
    /// Make the next edition of a sealed month from what is known now; you approve what another person asks for
    Supersede {
        #[command(flatten)]
        which: MonthArg,
        /// What was wrong or came late
        #[arg(long)]
        reason: String,
        /// Who asks for it
        #[arg(long, value_name = "NAME")]
        author: String,
    },
    /// Write the report of an edition and the bundle with which anybody can verify it
    Export {
        #[command(flatten)]
        which: MonthArg,
        /// Which edition; the newest without it
        #[arg(long, value_name = "N")]
        edition: Option<u32>,
        /// Where to
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Compare a month with what it would be under other clauses, without storing anything
    WhatIf {
        #[command(flatten)]
        which: MonthArg,
        /// What changes, as for `sla evaluate --what-if`: JSON with `contract`, `exclusions` or both
        #[arg(value_name = "OTHER")]
        other: PathBuf,
        /// The moment at which it was known; now without it
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        as_known_at: Option<UtcTime>,
    },
    /// Print the bundle of a month that need not be sealed, as it was known at a moment
    Bundle {
        #[command(flatten)]
        which: MonthArg,
        /// The moment; now without it
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        as_known_at: Option<UtcTime>,
    },
}

#[derive(clap::Args)]
pub(super) struct MonthArg {
    #[command(flatten)]
    config: ConfigArg,
    /// Whose
    service: String,
    /// Which, such as 2026-04
    #[arg(value_parser = month)]
    month: Month,
    /// For whom you act
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

fn kind(word: &str) -> Result<ExclusionKind, String> {
    let known = ExclusionKind::WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind);
    known.ok_or_else(|| "it is maintenance, force_majeure, customer or dependency".to_owned())
}

fn month(text: &str) -> Result<Month, String> {
    Month::parse(text).ok_or_else(|| "it is a month such as 2026-04".to_owned())
}

/// Who acts, for the log.
fn acting(by: Option<String>) -> String {
    by.map_or_else(operator, |name| format!("{name} (by {})", operator()))
}

/// Applies the files of `dir`, or shows what that would do.
pub(super) async fn apply_dir(
    config: &Path,
    dir: &Path,
    dry_run: bool,
    missing: &Missing,
    now: UtcTime,
) -> anyhow::Result<()> {
    let (config, store) = open(config)?;
    let written = apply::read_dir(dir)?;
    let who = operator();
    let (plan, seen) = apply::prepare(&store, &config, &written, missing, &who, now).await?;
    if !dry_run {
        apply::commit(&store, &plan, seen, &who).await?;
    }
    store.close().await;
    say(plan.in_words().trim_end())?;
    if dry_run { say("nothing was written (--dry-run)") } else { Ok(()) }
}

/// Prints what was applied as a file that `apply` takes.
pub(super) async fn export(config: &Path, now: UtcTime) -> anyhow::Result<()> {
    let (_, store) = open(config)?;
    let (_, versions) = store.object_versions().await?;
    store.close().await;
    say(apply::export(&versions, now).trim_end())
}

pub(super) async fn exclusion(command: ExclusionCommand, now: UtcTime) -> anyhow::Result<()> {
    match command {
        ExclusionCommand::Propose { config, id, service, kind, from, to, announced, reason, by } => {
            let (config, store, in_force) = open_in_force(&config.config).await?;
            drop(config);
            anyhow::ensure!(
                in_force.agreement.service_names().any(|known| known == service),
                "there is no service {service:?}"
            );
            let span = Span::new(from, to);
            let proposal = Proposal { id: id.clone(), service, kind, span, announced_at: announced, reason };
            decisions::propose(&store, proposal, &acting(by), now).await?;
            store.close().await;
            say(&format!("{id} is proposed; it counts when somebody else approves it"))
        }
        ExclusionCommand::Approve { act } => decide(act, Deed::Approve, now).await,
        ExclusionCommand::Refuse { act, reason } => decide(act, Deed::Refuse(reason), now).await,
        ExclusionCommand::Close { act, at } => decide(act, Deed::Close(at), now).await,
        ExclusionCommand::List { config, since } => {
            let (_, store, in_force) = open_in_force(&config.config).await?;
            let files = decisions::exclusions(&store, since.unwrap_or(Span::ALWAYS.from)).await?;
            let agents = store.agents().await?;
            store.close().await;
            let ground = Ground { in_force: &in_force, agents: &agents, exclusions: &files };
            files.iter().try_for_each(|file| say(&in_words(file, &ground, now)))
        }
    }
}

async fn decide(act: ActArg, deed: Deed, now: UtcTime) -> anyhow::Result<()> {
    let ActArg { config, id, by } = act;
    let (_, store) = open(&config.config)?;
    let file = decisions::act(&store, &id, deed, &acting(by), now).await?;
    store.close().await;
    say(&format!("{id} is {}", file.progress().word()))
}

/// One line: what it is, where it stands, how much of it counts in the month in which it begins, and why not.
fn in_words(file: &ExclusionFile, ground: &Ground<'_>, now: UtcTime) -> String {
    let Proposal { id, service, span, reason, kind, .. } = &file.proposal;
    let agreed = ground.in_force.agreement.service_at(service, now);
    let zone = agreed.map_or(jiff::tz::TimeZone::UTC, |agreed| agreed.terms.timezone);
    // What counts does not depend on what was seen, so no evidence is needed.
    let nothing = Seen { tracks: Default::default(), blocks: BlocksSeen { count: 0, digest: Digest([0; 32]) } };
    let bundle = ground.bundle(service, Month::of(span.from, &zone), now, &nothing);
    let row = bundle.and_then(|bundle| evaluate(&bundle.dated).exclusions.into_iter().find(|row| row.id == *id));
    let counts = row.map_or("its service is not agreed".to_owned(), |row| {
        let why = row.refused.map_or(String::new(), |why| format!(", the rest not: {}", Refusal::word(why)));
        format!("{} ms count{why}", row.counted_ms)
    });
    let (from, to) = (local_rfc3339(span.from, &zone), local_rfc3339(span.to, &zone));
    let (kind, progress) = (crate::evaluate::written::kind(*kind), file.progress().word());
    format!("{id}  {progress}  {service}  {kind}  {from} to {to}  {counts}  ({reason})")
}

pub(super) async fn month_command(command: MonthCommand, now: UtcTime) -> anyhow::Result<()> {
    match command {
        MonthCommand::List(arg) => {
            let (_, store) = open(&arg.config)?;
            let states = months::list(&store).await?;
            store.close().await;
            states.iter().try_for_each(|state| say(&line(state)))
        }
        MonthCommand::Draft { which } => {
            let (_, store, in_force) = open_in_force(&which.config.config).await?;
            months::draft(&store, &in_force, (&which.service, which.month), now).await?;
            store.close().await;
            say(&format!("{} {} is a draft", which.service, which.month))
        }
        MonthCommand::Seal { which } => {
            let wish = Wish::Seal(acting(which.by.clone()));
            make_edition(which, wish, now).await
        }
        MonthCommand::Supersede { which, reason, author } => {
            let approver = acting(which.by.clone());
            // The same person under his two names is still one person.
            anyhow::ensure!(
                author != which.by.clone().unwrap_or_else(operator),
                "whoever asks for a correction cannot approve it; ask somebody else"
            );
            make_edition(which, Wish::Supersede(Correction { reason, author, approver }), now).await
        }
        MonthCommand::Export { which, edition, dir } => {
            let (_, store) = open(&which.config.config)?;
            let (version, texts) = months::texts(&store, &which.service, which.month, edition).await?;
            store.close().await;
            let stem = format!("{}-{}-{version}", file_name(&which.service), which.month);
            for (part, text) in [("report", texts.document), ("data", texts.data)] {
                let path = dir.join(format!("{stem}-{part}.json"));
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
                say(&path.display().to_string())?;
            }
            say("verify with: peil-collector sla verify REPORT --data DATA")
        }
        MonthCommand::WhatIf { which, other, as_known_at } => {
            let changes = read_file(&other)?;
            let bundle = bundle_of(&which, as_known_at.unwrap_or(now)).await?;
            let name = other.display().to_string();
            say(whatif::of_bundle(&bundle, &name, &changes)?.trim_end())
        }
        MonthCommand::Bundle { which, as_known_at } => {
            let bundle = bundle_of(&which, as_known_at.unwrap_or(now)).await?;
            say(bundle.to_text().trim_end())
        }
    }
}

/// A month from the store, as it was known then.
async fn bundle_of(which: &MonthArg, known_at: UtcTime) -> anyhow::Result<Bundle> {
    let (_, store, in_force) = open_in_force(&which.config.config).await?;
    let made = refold::month(&store, &in_force, &which.service, which.month, known_at).await?;
    store.close().await;
    let (bundle, _) = made.with_context(|| format!("there is no service {:?}", which.service))?;
    Ok(bundle)
}

async fn make_edition(which: MonthArg, wish: Wish, now: UtcTime) -> anyhow::Result<()> {
    let MonthArg { config, service, month, .. } = which;
    let (config, store, in_force) = open_in_force(&config.config).await?;
    let seal_day: Option<SealDay> = config.seal_day;
    let edition = months::fulfil(&store, &in_force, seal_day, (&service, month), wish, now).await?;
    store.close().await;
    say(&format!("{service} {month} is sealed as edition {}", edition.version))
}

async fn open_in_force(config: &Path) -> anyhow::Result<(Config, Store, InForce)> {
    let (config, store) = open(config)?;
    let (in_force, _) = Agree::read(&store, &config).await?;
    Ok((config, store, in_force))
}

fn line(state: &MonthState) -> String {
    let MonthState { service, month, stage, figure, editions, differs } = state;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let sealed = match (stage, editions.last()) {
        (Stage::Sealed(version), Some(edition)) => {
            let by = edition.sealed_by.as_deref().unwrap_or("the agreed day, approved by nobody");
            format!("edition {version}, {} by {by}", edition.sealed_at)
        }
        _ => stage.word().to_owned(),
    };
    let differs = if *differs { "  DIFFERS from what is known now" } else { "" };
    let (official, verdict) = (text(&figure["availability"]["official"]), text(&figure["verdict"]));
    format!("{month}  {service}  {official}  {verdict}  {sealed}{differs}")
}

/// A service's name as part of a file's.
fn file_name(service: &str) -> String {
    service.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}
