//! The connection is lost at every message there is, before the server got it and after it was obeyed: the effect is
//! there whole or not at all, blocks are stored once, and `Uncertain` is told when, and only when, the commit was on its way.

use peil_proto::ids::{Epoch, Seq};
use peil_proto::time::UtcTime;
use peil_test_postgres::proxy::{Cut, Proxy};
use peil_test_postgres::shared;

use super::{agent, block, collector, counted, holder, lead, register, server_place};
use crate::store::blocks::{BlockId, Lane, Through};
use crate::store::judgement::Judgement;
use crate::store::leases::Duty;
use crate::store::migrate::MIGRATIONS;
use crate::store::{Store, StoreError};

/// A server's schema, with a way to it that breaks and one that does not.
struct Trial {
    proxy: Proxy,
    broken: Store,
    sound: Store,
}

/// How a piece of work ended that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its caller was told that it is done.
    Done,
    /// The commit was lost on its way to the server.
    NotCommitted,
    /// The answer to the commit was lost.
    Committed,
}

fn through(proxy: &Proxy, url: &str) -> String {
    let server = format!(":{}/", shared().port());
    assert!(url.contains(&server), "{url}");
    url.replace(&server, &format!(":{}/", proxy.port()))
}

impl Trial {
    fn new() -> Self {
        let (proxy, url) = (Proxy::start(shared().port()), shared().fresh_schema());
        let broken = Store::connect(&server_place(&through(&proxy, &url))).unwrap();
        Self { proxy, broken, sound: Store::connect(&server_place(&url)).unwrap() }
    }

    /// Runs `work` with the cut at every message, of connecting too where there is no connection yet; `check` is told how the
    /// n-th time ended. Returns how many cuts there were.
    async fn at_every_message<T: std::fmt::Debug>(
        &self,
        work: impl AsyncFn(&Store, usize) -> Result<T, StoreError>,
        check: impl AsyncFn(&Store, usize, Ended),
    ) -> usize {
        let mut times = 0;
        for cut in [Cut::Before, Cut::After] {
            for at in 0.. {
                let cut = cut(at);
                self.proxy.arm(cut);
                let ended = work(&self.broken, times).await;
                let heard = self.proxy.disarm();
                let was_commit = heard.as_deref() == Some("Q COMMIT");
                let how = match (&ended, cut) {
                    (Ok(_), _) => Ended::Done,
                    (Err(StoreError::Uncertain { .. }), Cut::Before(_)) if was_commit => Ended::NotCommitted,
                    (Err(StoreError::Uncertain { .. }), Cut::After(_)) if was_commit => Ended::Committed,
                    (Err(error), _) => panic!("{cut:?} {heard:?}: {error:?}"),
                };
                check(&self.sound, times, how).await;
                times += 1;
                if heard.is_none() {
                    break;
                }
            }
        }
        times
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_stored_once_wherever_the_connection_is_lost() {
    let trial = Trial::new();
    for n in 1..=3 {
        register(&trial.sound, agent(n)).await;
    }
    let first = |time: usize| u64::try_from(time).unwrap() * 3 + 1;
    let group = async |store: &Store, time: usize| {
        let append = |n| store.append(block(agent(n), 1, first(time), 3));
        let (one, two, three) = tokio::join!(append(1), append(2), append(3));
        Ok([one?, two?, three?])
    };
    let times = trial
        .at_every_message(group, async |sound, time, ended| {
            assert_eq!(ended, Ended::Done, "a lost connection is not the agent's matter");
            assert_eq!(sound.acked(agent(2), Epoch(1)).await.unwrap(), Seq(first(time) + 2));
        })
        .await;
    assert!(times > 40, "BEGIN, seven statements, COMMIT, twice: {times}");
    let counts = counted(&trial.sound).await;
    assert_eq!(counts.len(), 3 * 3 * times);
    assert!(counts.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_repeated_is_done_once_or_said_to_be_uncertain() {
    let trial = Trial::new();
    let note = async |store: &Store, time: usize| store.audit(UtcTime(1), "test", "try", &format!("{time}")).await;
    let seen = std::cell::Cell::new([0_usize; 3]);
    trial
        .at_every_message(note, async |sound, time, ended| {
            let entries = sound.audit_tail(10_000).await.unwrap();
            let there = entries.iter().filter(|entry| entry.detail == format!("{time}")).count();
            assert_eq!(there, usize::from(ended != Ended::NotCommitted), "{ended:?}");
            let mut so_far = seen.get();
            so_far[ended as usize] += 1;
            seen.set(so_far);
        })
        .await;
    let [done, not_committed, committed] = seen.get();
    assert_eq!((not_committed, committed), (1, 1), "one commit, lost each way");
    assert!(done > 6, "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judgement_and_its_watermark_are_there_together_or_not_at_all() {
    let trial = Trial::new();
    let held = lead(&trial.sound).await;
    let no = |time: usize| i64::try_from(time).unwrap() + 1;
    let judge = async |store: &Store, time: usize| {
        let through = Through::from_iter([3, 4].map(|lane| BlockId { lane: Lane(lane), no: no(time) }));
        store.commit_judgement(Judgement { through, ..Judgement::default() }, held.clone()).await
    };
    let times = trial
        .at_every_message(judge, async |sound, time, ended| {
            let judged = sound.judged_through().await.unwrap();
            let wanted = if ended == Ended::NotCommitted { no(time) - 1 } else { no(time) };
            assert_eq!((judged.of(Lane(3)), judged.of(Lane(4))), (wanted, wanted), "{ended:?}");
        })
        .await;
    assert!(times > 8, "{times}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_tended_whole_wherever_the_connection_is_lost() {
    let trial = Trial::new();
    lead(&trial.sound).await;
    let tend = async |store: &Store, _| store.tend_leases(holder("only", 1), collector("only")).await;
    trial
        .at_every_message(tend, async |sound, _, _| {
            let (leases, here) = sound.leases().await.unwrap();
            assert_eq!((leases.len(), here.len()), (257, 1));
            assert!(leases.iter().all(|lease| lease.holder == "only" && lease.epoch == 1 && !lease.over));
        })
        .await;
    let held = lead(&trial.sound).await;
    assert_eq!(held.epoch(Duty::Alerts), Some(1), "nobody else had it in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_wherever_the_connection_is_lost() {
    let trial = Trial::new();
    register(&trial.sound, agent(7)).await;
    let ask = async |store: &Store, _| {
        let agents = store.agents().await?;
        assert_eq!(agents.len(), 1, "the whole answer");
        Ok(agents)
    };
    let times = trial.at_every_message(ask, async |_, _, ended| assert_eq!(ended, Ended::Done)).await;
    assert!(times > 8, "{times}");
}

fn columns(url: &str) -> String {
    let (_, schema) = url.split_once("search_path%3D").unwrap();
    shared().sql(
        "peil",
        &format!(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = '{schema}'
             ORDER BY 1, 2"
        ),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_loses_its_connection_anywhere_is_taken_up_by_the_next_start() {
    let proxy = Proxy::start(shared().port());
    let whole = shared().fresh_schema();
    Store::connect(&server_place(&whole)).unwrap().close().await;
    let whole = columns(&whole);
    let mut failed = 0;
    // Before a message the database is what it is after the one before it.
    for at in 0.. {
        let url = shared().fresh_schema();
        proxy.arm(Cut::After(at));
        let opened = Store::connect(&server_place(&through(&proxy, &url)));
        let heard = proxy.disarm();
        assert_eq!(opened.is_err(), heard.is_some(), "{heard:?} {opened:?}");
        if let Ok(store) = opened {
            store.close().await;
            break;
        }
        failed += 1;
        Store::connect(&server_place(&url)).unwrap().close().await;
        assert_eq!(columns(&url), whole, "{heard:?}");
    }
    assert!(failed > MIGRATIONS.len() * 3, "{failed} cuts");
}
