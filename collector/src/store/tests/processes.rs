//! More than one process: one that is killed, and one beside another. The other process is this test
//! program started again with a directory in its environment.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use peil_proto::ids::{Epoch, Seq};
use peil_proto::time::UtcTime;
use tokio::task::JoinSet;

use super::{agent, block, counted, new_agent, register};
use crate::store::Store;
use crate::store::tokens::NewToken;

const DIR: &str = "PEIL_TEST_STORE_DIR";
const RECORDS: u64 = 6_000;

/// Starts this test program again for one test, with `dir`.
fn start(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("store::tests::processes::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_was_acked_survives_a_killed_process_and_is_not_stored_twice() {
    if let Some(dir) = std::env::var_os(DIR) {
        return send_until_killed(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    register(&store, agent(1)).await;
    store.close().await;
    let mut acked = 0;
    for kill_after in [1, 25, 60] {
        let mut child = start("what_was_acked_survives_a_killed_process_and_is_not_stored_twice", dir.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // What the harness prints may stand before the word on the same line.
        let acks = lines.filter_map(|line| line.split_once("acked ")?.1.parse::<u64>().ok());
        let seen = acks.take(kill_after).last();
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mark = store.acked(agent(1), Epoch(1)).await.unwrap().0;
        assert!(seen.is_some_and(|seen| mark >= seen), "acked {seen:?}, but the mark is {mark}");
        assert!(mark > acked, "each run got further");
        acked = mark;
        store.close().await;
    }
    let store = Store::open(dir.path()).unwrap();
    // The agent knows only of acks that reached it: it sends everything again, cut differently.
    for first in (1..=RECORDS).step_by(60) {
        store.append(block(agent(1), 1, first, 60)).await.unwrap();
    }
    let counts = counted(&store).await;
    assert_eq!(counts.len() as u64, RECORDS, "nothing is missing");
    assert!(counts.values().all(|count| *count == 1), "nothing is there twice");
}

/// An agent's stream with several blocks on the way, as a process that does not know when it ends.
async fn send_until_killed(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let mut first = store.acked(agent(1), Epoch(1)).await.unwrap().0 + 1;
    let mut sent = JoinSet::new();
    while first + 6 < RECORDS {
        for _ in 0..4 {
            let (store, block) = (store.clone(), block(agent(1), 1, first, 6));
            sent.spawn(async move { store.append(block).await.unwrap() });
            first += 6;
        }
        while sent.join_next().await.is_some() {}
        println!("acked {}", first - 1);
        std::io::stdout().flush().unwrap();
    }
    // The parent kills us long before; without it there is nothing more to say.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_command_line_makes_a_token_while_the_collector_writes() {
    let token = |label: &str| NewToken {
        hash: [9; 32],
        label: label.to_owned(),
        group: "web".to_owned(),
        created_at: UtcTime(1_000),
        expires_at: UtcTime(2_000),
    };
    if let Some(dir) = std::env::var_os(DIR) {
        let store = Store::open(Path::new(&dir)).unwrap();
        store.create_token(token("from another process"), "root").await.unwrap();
        return store.close().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    register(&store, agent(1)).await;
    let mut child = start("the_command_line_makes_a_token_while_the_collector_writes", dir.path());
    let mut first = 1;
    let ended = loop {
        store.append(block(agent(1), 1, first, 1)).await.unwrap();
        first += 1;
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
    };
    assert!(ended.success());
    store.redeem_token([9; 32], UtcTime(1_500), new_agent(agent(2))).await.unwrap();
    let agents = store.agents().await.unwrap();
    assert_eq!(agents.iter().find(|row| row.agent == agent(2)).unwrap().group, "web");
    assert_eq!(store.acked(agent(1), Epoch(1)).await.unwrap(), Seq(first - 1));
}
