//! At night: do the figures shown come out of the blocks?
//!
//! Once a day, after [`AT_HOUR`] UTC, the pipeline hands over a copy of its live state. This job reads the blocks it
//! was made from, folds them anew ([`crate::refold`]), judges every service's running month both ways, and publishes
//! each that differs; it becomes an alert, for a difference is a fault of this program. Nothing is mended: live state
//! is kept as it is, for whoever looks for the fault. The next night that finds none takes the alert back.
//!
//! Limits: samples older than the month before are not looked at, nor is live state that reaches further back.

use std::collections::BTreeMap;
use std::sync::Arc;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::time::UtcTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::agreement::InForce;
use crate::contract::approval::ExclusionFile;
use crate::contract::calendar::{Day, Month};
use crate::contract::figure::Figure;
use crate::contract::track::Track;
use crate::contract::{Dated, evaluate_to_date};
use crate::live::Live;
use crate::refold::{self, Ground, Sight};
use crate::snapshot::Notice;
use crate::store::blocks::Through;
use crate::store::{Store, StoreError};

/// Comparisons begin after this hour of the day, UTC: few people look then.
const AT_HOUR: i64 = 2;

/// Live state at one moment.
pub struct Frozen {
    /// Which.
    pub now: UtcTime,
    /// As it was.
    pub live: Live,
    /// The blocks it was made from.
    pub through: Through,
    /// What was agreed.
    pub in_force: Arc<InForce>,
    /// What was decided.
    pub exclusions: Vec<ExclusionFile>,
}

/// Whether it is time to compare: once after [`AT_HOUR`] of each day, and not in the first round after a start, when
/// live state was just made from the blocks.
pub fn is_time(done_on: &mut Option<Day>, now: UtcTime) -> bool {
    let today = Day((now.0 - AT_HOUR * 3_600_000).div_euclid(86_400_000));
    let before = done_on.replace(today);
    before.is_some_and(|before| before < today)
}

/// The job.
pub struct Recheck {
    /// Blocks.
    pub store: Store,
    /// Copies of live state.
    pub frozen: mpsc::Receiver<Frozen>,
    /// What differs.
    pub publish: watch::Sender<Arc<Vec<Notice>>>,
}

impl Recheck {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let frozen = tokio::select! {
                Some(frozen) = self.frozen.recv() => frozen,
                () = stop.cancelled() => return,
                else => return,
            };
            let compared = tokio::select! {
                compared = self.compare(&frozen) => compared,
                () = stop.cancelled() => return,
            };
            match compared {
                Ok(found) => {
                    let services = frozen.in_force.agreement.service_names().count();
                    info!(services, differing = found.len(), "figures were compared with the blocks");
                    found.iter().for_each(|notice| {
                        error!(service = notice.service, detail = notice.detail, "a figure differs");
                    });
                    self.publish.send_replace(Arc::new(found));
                }
                Err(cause) => warn!(cause = %crate::chain(&cause), "figures could not be compared with the blocks"),
            }
        }
    }

    /// Services whose running month differs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn compare(&self, frozen: &Frozen) -> Result<Vec<Notice>, StoreError> {
        let Frozen { now, live, through, in_force, exclusions } = frozen;
        let agents = self.store.agents().await?;
        let ground = Ground { in_force, agents: &agents, exclusions };
        let mut found = Vec::new();
        let mut by_evidence: BTreeMap<_, Vec<(&str, Month)>> = BTreeMap::new();
        for service in in_force.agreement.service_names() {
            let Some(agreed) = in_force.agreement.service_at(service, *now) else { continue };
            let month = Month::of(*now, &agreed.terms.timezone);
            let evidence = refold::evidence_of(month, &agreed.terms.timezone);
            by_evidence.entry(evidence).or_default().push((service, month));
        }
        for (evidence, services) in by_evidence {
            let checks: BTreeMap<_, _> = services.iter().flat_map(|(service, _)| ground.checks_of(service)).collect();
            let sight = Sight { evidence, known_at: UtcTime(i64::MAX), through: through.clone() };
            let seen = refold::tracks(&self.store, &checks, &sight).await?;
            let remembered = remembered(live, checks.keys());
            for (service, month) in services {
                let figure = |tracks| {
                    let dated = month_of(&ground, service, month, *now, tracks)?;
                    Some(evaluate_to_date(&dated, *now).figure)
                };
                if let (Some(shown), Some(again)) = (figure(&remembered), figure(&seen.tracks))
                    && shown != again
                {
                    let (month, [shown, again]) = (month.to_string(), [&shown, &again].map(in_short));
                    found.push(Notice::figure_differs(service, &month, &shown, &again, *now));
                }
            }
        }
        Ok(found)
    }
}

fn remembered<'c>(live: &Live, checks: impl Iterator<Item = &'c CheckNo>) -> BTreeMap<(CheckNo, AgentId), Track> {
    let of_check =
        |no: &'c CheckNo| live.vantages_of(*no).map(|(agent, vantage)| ((*no, agent), vantage.track.clone()));
    checks.flat_map(of_check).collect()
}

fn month_of(
    ground: &Ground<'_>,
    service: &str,
    month: Month,
    now: UtcTime,
    tracks: &BTreeMap<(CheckNo, AgentId), Track>,
) -> Option<Dated> {
    let own = ground.exclusions.iter().filter(|file| file.proposal.service == service).cloned().collect();
    let dossier = ground.in_force.agreement.dossier(service, |check| ground.testimony(check, tracks, now), own)?;
    dossier.as_known_at(month, now)
}

fn in_short(figure: &Figure) -> String {
    format!("up {} ms, down {} ms, unknown {} ms", figure.up_ms, figure.down_ms, figure.unknown_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agreement::Agreement;
    use crate::config::Config;
    use crate::job::judge::Judge;
    use crate::job::trial::{CHECK, NOON, Trial, agent, down, up};
    use peil_proto::sample::State;
    use peil_proto::units::Millis;

    fn in_force() -> Arc<InForce> {
        let text = "[[contract]]\nname='c'\n[[check]]\nname='web'\nkind='tcp'\naddress='h:1'\ninterval_s=10\ntimeout_s=1\n\
                    [[service]]\nname='portal'\ncontract='c'\nexpression='web'\n";
        let agreement = Agreement::new(&Config::parse("c", text).expect("valid"), &[]).expect("makes sense");
        Arc::new(InForce { agreement, numbers: BTreeMap::from([("web".to_owned(), CHECK)]) })
    }

    #[test]
    fn it_is_time_once_a_day_and_never_right_after_a_start() {
        let hour = |n: i64| UtcTime(n * 3_600_000);
        let mut done_on = None;
        let times = [5, 20, 25, 26, 27, 49, 50].map(|n| is_time(&mut done_on, hour(n)));
        assert_eq!(times, [false, false, false, true, false, false, true]);
    }

    #[tokio::test]
    async fn live_state_that_is_not_what_the_blocks_say_is_found_and_right_state_is_not() {
        let mut trial = Trial::new().await;
        trial.send(agent(1), &[up(0), up(10), down(20), up(30)]).await;
        trial.send_in(agent(1), 2, &[down(5)]).await;
        let now = NOON.plus(Millis::from_secs(40));
        trial.clock.set(now);
        let judge = Judge::start(
            trial.store.clone(),
            trial.clock.clone(),
            in_force().checks_to_fold(),
            Millis::DAY,
            trial.leading.clone(),
        )
        .await;
        let judge = judge.expect("starts");
        let frozen =
            |live| Frozen { now, live, through: judge.through().clone(), in_force: in_force(), exclusions: Vec::new() };
        let (_keep, frozen_states) = mpsc::channel(1);
        let job =
            Recheck { store: trial.store.clone(), frozen: frozen_states, publish: watch::channel(Arc::default()).0 };
        assert_eq!(job.compare(&frozen(judge.live().clone())).await.expect("compared"), Vec::new());
        let mut wrong = judge.live().clone();
        wrong.replace_track(CHECK, agent(1), &[(NOON, State::Up), (NOON.plus(Millis::from_secs(30)), State::Up)]);
        let found = job.compare(&frozen(wrong)).await.expect("compared");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].detail.contains("down 0 ms") && found[0].detail.contains("down 15000 ms"),
            "{}",
            found[0].detail
        );
    }
}
