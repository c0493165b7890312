//! `rebuild`: everything that follows from the stored results, derived again and compared.
//!
//! Day by day, the newest first, so that memory stays small and it can run beside the collector. Without `--write` it
//! only tells, and ends with status 1 when anything differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use peil_proto::ids::AgentId;
use peil_proto::time::{UtcDay, UtcTime};
use tokio::sync::watch;

use super::say;
use crate::config::Config;
use crate::derive::Difference;
use crate::job::agree::Agree;
use crate::job::verify::{Verify, every_day};
use crate::store::Store;

/// What was found.
#[derive(Default)]
struct Account {
    days: usize,
    unsettled: usize,
    differences: usize,
    mended: usize,
}

/// Compares every compacted day and month; with `write` overwrites what differs.
pub(super) async fn rebuild(config: &Config, store: Store, now: UtcTime, write: bool) -> anyhow::Result<()> {
    let (in_force, _) = Agree::read(&store, config).await?;
    let in_force = watch::channel(Arc::new(in_force)).1;
    let verify = Verify { store: store.clone(), in_force, kept: config.retention.clone() };
    let mut account = Account::default();
    // The newest day of each month stands for it.
    let mut months: BTreeMap<(AgentId, UtcDay), UtcDay> = BTreeMap::new();
    for (day, agent) in every_day(&store).await? {
        months.entry((agent, day.month_start())).or_insert(day);
        compare_day(&verify, (agent, day), now, write, &mut account).await?;
    }
    for ((agent, first), day) in months {
        let differences = verify.month(agent, first, now).await?;
        tell(&differences, &mut account)?;
        if write && !differences.is_empty() {
            mend(&verify, (agent, day), now, &mut account).await?;
        }
    }
    store.close().await;
    let Account { days, unsettled, differences, mended } = account;
    say(&format!("{days} days of agents were compared with their results: {differences} values differ"))?;
    if unsettled > 0 {
        say(&format!("{unsettled} days still change by themselves and were passed over; ask again in an hour"))?;
    }
    if write {
        return say(&format!("{mended} days were written again"));
    }
    anyhow::ensure!(differences == 0, "{differences} stored values do not follow from the results; --write mends them");
    Ok(())
}

async fn compare_day(
    verify: &Verify,
    (agent, day): (AgentId, UtcDay),
    now: UtcTime,
    write: bool,
    account: &mut Account,
) -> anyhow::Result<()> {
    let Some(checked) = verify.day(agent, day, now).await? else {
        account.unsettled += 1;
        return Ok(());
    };
    account.days += 1;
    tell(&checked.differences, account)?;
    if write && !checked.differences.is_empty() && verify.repair(agent, day, checked).await? {
        account.mended += 1;
    }
    Ok(())
}

/// Writes a day, and with it the month it lies in.
async fn mend(
    verify: &Verify,
    (agent, day): (AgentId, UtcDay),
    now: UtcTime,
    account: &mut Account,
) -> anyhow::Result<()> {
    if let Some(checked) = verify.day(agent, day, now).await?
        && verify.repair(agent, day, checked).await?
    {
        account.mended += 1;
    }
    Ok(())
}

fn tell(differences: &[Difference], account: &mut Account) -> anyhow::Result<()> {
    account.differences += differences.len();
    differences.iter().try_for_each(|difference| say(&difference.to_string()))
}
