//! `ca`: which authority agents trust, and replacing it without a visit to the hosts ([`crate::rotation`]).

use std::collections::BTreeSet;

use anyhow::Context as _;
use clap::Subcommand;
use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::{ConfigArg, open, operator, say};
use crate::config::Config;
use crate::pki::authorities;
use crate::rotation::{self, Begun, Behind};
use crate::store::agents::AgentRow;
use crate::store::authorities::Named;
use crate::store::{Place, Store};

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// The authorities that count, and which agents have moved
    Show(ConfigArg),
    /// Make another authority and move the agents to it
    ///
    /// Collectors believe both from then on; agents renew under the new one, within minutes, and trust both. `ca retire`
    /// ends it. On a PostgreSQL store the new files have to be copied to every other collector first: the command says
    /// which, and is run again with --copied.
    Rotate {
        #[command(flatten)]
        config: ConfigArg,
        /// Every collector of this database has the files of the new authority
        #[arg(long)]
        copied: bool,
    },
    /// Give up the old authority, when no agent needs it any more
    ///
    /// Refuses while agents would be cut off. These have to be enrolled again with `peil-agent enroll --again`.
    Retire {
        #[command(flatten)]
        config: ConfigArg,
        /// Also cut off agents that were not heard for so many days
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=3_650))]
        heard_within_days: Option<i64>,
        /// Also cut off this agent (32 hex digits, from `ca show`); may be repeated
        #[arg(long, value_name = "AGENT", value_parser = agent_id)]
        cut_off: Vec<AgentId>,
    },
    /// After the key was lost or the authority expired: start over with a new one
    ///
    /// For when nothing is left that agents would believe. Stop every collector and move the files in pki/ away first;
    /// the next start makes another authority.
    Forget {
        #[command(flatten)]
        config: ConfigArg,
        /// What follows from it; it has to be said
        #[arg(long, required = true)]
        every_host_enrols_again: bool,
    },
}

pub(super) async fn run(command: CaCommand, now: UtcTime) -> anyhow::Result<()> {
    match command {
        CaCommand::Show(arg) => {
            let (config, store) = open(&arg.config)?;
            let shown = show(&config, &store, now).await;
            store.close().await;
            shown
        }
        CaCommand::Rotate { config, copied } => {
            let (config, store) = open(&config.config)?;
            let shared = matches!(config.store, Place::Server(_));
            let begun = rotation::begin(&store, &config.data_dir.join("pki"), shared, copied, now, &operator()).await;
            store.close().await;
            match begun? {
                Begun::Moving => say("agents are being moved to the new authority; `ca show` tells how far they are"),
                Begun::CopyFirst(file) => say(&format!(
                    "made {} and its .key beside it: copy both to pki/ of every other collector of this database, and to \
                     the back-up, then run this again with --copied",
                    file.display()
                )),
            }
        }
        CaCommand::Retire { config, heard_within_days, cut_off } => {
            let (config, store) = open(&config.config)?;
            let patience = heard_within_days.map(|days| Millis(days * Millis::DAY.0));
            let retired = retire(&config, &store, &cut_off.into_iter().collect(), patience, now).await;
            store.close().await;
            retired
        }
        CaCommand::Forget { config, every_host_enrols_again: _ } => {
            let (_, store) = open(&config.config)?;
            store.forget_authorities(now, &operator()).await?;
            store.close().await;
            say("forgotten; the next start of a collector makes a new authority, and every host enrols again")
        }
    }
}

fn agent_id(hex: &str) -> Result<AgentId, String> {
    AgentId::parse(hex).ok_or_else(|| "it has 32 hex digits; `ca show` lists them".to_owned())
}

async fn show(config: &Config, store: &Store, now: UtcTime) -> anyhow::Result<()> {
    let pki = config.data_dir.join("pki");
    let authorities = rotation::open(store, &pki, now).await?;
    let named = authorities.named();
    for (word, fingerprint) in [("in force", Some(named.in_force)), ("next", named.next)] {
        let Some(fingerprint) = fingerprint else { continue };
        let file = authorities::file_of(&pki, fingerprint)?;
        let file = file.map_or("not in this directory".to_owned(), |file| file.display().to_string());
        say(&format!("{word:8}  {fingerprint}  {file}"))?;
    }
    say(&format!("the one in force ends {}", authorities.in_force().not_after()))?;
    if named.next.is_none() {
        return Ok(());
    }
    let agents = store.agents().await?;
    let admitted = agents.iter().filter(|row| row.revoked_at.is_none()).count();
    let Behind { in_the_way, .. } = rotation::behind(agents, named, &BTreeSet::new(), None, now);
    say(&format!("{} of {admitted} agents have moved", admitted - in_the_way.len()))?;
    in_the_way.iter().try_for_each(|row| say(&line(row)))
}

async fn retire(
    config: &Config,
    store: &Store,
    cut_off: &BTreeSet<AgentId>,
    patience: Option<Millis>,
    now: UtcTime,
) -> anyhow::Result<()> {
    let authorities = rotation::open(store, &config.data_dir.join("pki"), now).await?;
    let named = authorities.named();
    anyhow::ensure!(named.next.is_some(), "there is one authority only; `ca rotate` makes another to move to");
    anyhow::ensure!(authorities.lacks().is_none(), "the next authority is not in this collector's directory");
    let Behind { in_the_way, given_up } = rotation::behind(store.agents().await?, named, cut_off, patience, now);
    if !in_the_way.is_empty() {
        in_the_way.iter().try_for_each(|row| say(&line(row)))?;
        anyhow::bail!(
            "{} agents would be cut off: wait for them, upgrade those that never move, or name them with --cut-off",
            in_the_way.len()
        );
    }
    let open_tokens = open_tokens(store, now).await?;
    let cut_off = given_up.len();
    let retired = store.retire_authority(named, given_up, now, &operator()).await;
    retired.context("nothing was retired; look again with `ca show`")?;
    say(&told(named, cut_off, open_tokens))
}

/// Tokens that name the authority which goes, and cannot be used after it.
async fn open_tokens(store: &Store, now: UtcTime) -> anyhow::Result<usize> {
    let tokens = store.tokens().await?;
    Ok(tokens.iter().filter(|row| row.used.is_none() && row.revoked_at.is_none() && row.expires_at > now).count())
}

fn told(named: Named, cut_off: usize, open_tokens: usize) -> String {
    let mut text = format!(
        "{} is retired: running collectors take it up within five seconds. Keep its files until the next back-up, then \
         remove them; people whose browsers trust it need the new certificate",
        named.in_force
    );
    if cut_off > 0 {
        text.push_str(&format!(
            "\n{cut_off} agents are cut off: on each, `peil-agent enroll --again` with a new token"
        ));
    }
    if open_tokens > 0 {
        text.push_str(&format!("\n{open_tokens} tokens that were not used yet name the old authority: make new ones"));
    }
    text
}

fn line(row: &AgentRow) -> String {
    let heard = row.last_contact.map_or("never heard".to_owned(), |at| format!("last heard {at}"));
    format!("has not moved  {}  {}  {heard}", row.agent, row.hostname)
}
