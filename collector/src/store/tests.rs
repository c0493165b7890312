//! The store's promises. Each file one family; here is what they share: a store in a directory of its own
//! and the things to put into it.

mod exactly_once;
mod processes;
mod opening;
mod groups;
mod disk_full;
mod admission;
mod authorities;
mod judgement;
mod days;
mod alerts;
mod access;
mod audit;
mod agreement;
mod leases;
mod losses;
mod clocks;
mod lost_connections;
mod conflicts;
mod servers;
mod layers;
mod tables;
mod transfer;
mod readers;
mod survey;

use std::collections::BTreeMap;

use bytes::Bytes;
use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::time::UtcTime;
use tempfile::TempDir;

use super::agents::NewAgent;
use super::blocks::{BlockLimit, NewBlock, Through};
use super::leases::{CollectorRow, Held, Holder};
use super::place::Beside;
use super::{Place, Store};

/// A promise that both engines keep: the function named, once over each.
macro_rules! on_both {
    ($($promise:ident),* $(,)?) => {$(
        mod $promise {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                let (store, _dir) = crate::store::tests::fresh();
                super::$promise(store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                super::$promise(crate::store::tests::fresh_on_server()).await;
            }
        }
    )*};
}
pub(crate) use on_both;

/// A store in a schema of its own, on the server that all tests share. That server is quick, not careful, which the
/// store would refuse if it were not told.
pub(crate) fn fresh_on_server() -> Store {
    Store::connect(&server_place(&peil_test_postgres::shared().fresh_schema())).unwrap()
}

fn server_place(url: &str) -> Place {
    let accepts = ["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned).into();
    Place::parse(url, Beside { accepts, ..Beside::default() }).unwrap()
}

/// A store in a new directory, which goes when the second value does.
fn fresh() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(dir.path()).unwrap(), dir)
}

/// The only collector there is, holding everything.
async fn lead(store: &Store) -> Held {
    store.tend_leases(holder("only", 1), collector("only")).await.unwrap().held
}

fn holder(id: &str, start: u32) -> Holder {
    Holder { id: id.to_owned(), start: start.to_string() }
}

fn collector(id: &str) -> CollectorRow {
    let (id, name, version) = (id.to_owned(), format!("host of {id}"), "0.1.0".to_owned());
    CollectorRow { id, name, version, started_at: UtcTime(1), seen_at: UtcTime(0) }
}

fn agent(no: u8) -> AgentId {
    AgentId([no; 16])
}

fn new_agent(agent: AgentId) -> NewAgent {
    NewAgent {
        agent,
        hostname: format!("host-{}", agent.0[0]),
        cert_serial: "01".to_owned(),
        cert_not_after: UtcTime(90_000),
    }
}

async fn register(store: &Store, agent: AgentId) {
    store.register(new_agent(agent), "all", UtcTime(1), "test").await.unwrap();
}

/// A block of `records` records; its bytes tell its sequence, nothing more.
fn block(agent: AgentId, epoch: u64, first: u64, records: u32) -> NewBlock {
    let moment = UtcTime(i64::try_from(first).unwrap() * 1_000);
    NewBlock {
        agent,
        epoch: Epoch(epoch),
        first: Seq(first),
        records,
        received_at: moment,
        from: moment,
        to: moment,
        told: Seq(0),
        bytes: Bytes::from(format!("{first}+{records}")),
    }
}

/// How often each (agent, epoch, sequence) stands in the stored blocks once `skip` is passed over.
async fn counted(store: &Store) -> BTreeMap<(AgentId, Epoch, u64), u32> {
    let mut counts = BTreeMap::new();
    let mut after = Through::default();
    loop {
        let page = store.blocks_after(after.clone(), BlockLimit { blocks: 7, bytes: usize::MAX }).await.unwrap();
        if page.is_empty() {
            return counts;
        }
        for block in page {
            after.pass(block.id);
            let first = block.first.0 + u64::from(block.skip);
            let end = block.first.0 + u64::from(block.records);
            assert!(first < end, "a stored block has something new in it");
            for seq in first..end {
                *counts.entry((block.agent, block.epoch, seq)).or_default() += 1;
            }
        }
    }
}
