//! The disk of the database is full: records are refused and kept by the agent, whoever is on call hears of it from the same
//! collector, and once there is room everything arrives without anybody's help.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use peil_tests::{Agent, Collector, ONLY_CHECKS, Receiver, Target, eventually, records};

const KEY: &str = "store_full/database";

/// A file system of 48 MiB that goes away with the test; only root may make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> anyhow::Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "peil-test"]).arg(dir.path()).output();
        Ok(mount.is_ok_and(|mount| mount.status.success()).then_some(Self(dir)))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Somebody else takes all that is left.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut ballast = std::fs::File::create(file)?;
    for piece in [1 << 20, 4 << 10, 512] {
        while ballast.write_all(&vec![0; piece]).is_ok() {}
    }
    Ok(())
}

fn settings(target: &Target, receiver: &Receiver) -> String {
    format!(
        "[[check]]\nname = \"port\"\nkind = \"tcp\"\naddress = {:?}\ninterval_s = 1\n[[channel]]\n\
         name = \"hook\"\nkind = \"webhook\"\nurl = {:?}\n",
        target.address(),
        receiver.url()
    )
}

#[tokio::test]
async fn a_full_disk_alerts_and_recovers_alone() -> anyhow::Result<()> {
    let Some(disk) = SmallDisk::mount()? else {
        eprintln!("[test] not root: a full disk is tested by the store alone");
        return Ok(());
    };
    let data = disk.path().join("data");
    let (target, receiver) = (Target::start()?, Receiver::start()?);
    let head = format!("store = \"sqlite://{}\"", data.display());
    let mut collector = Collector::start_at(&head, &settings(&target, &receiver)).await?;
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    let stored = async |collector: &Collector| {
        collector.api().host(agent.id()).await?["records"].as_u64().context("no count of records")
    };
    eventually("records arrive", async || {
        let now = stored(&collector).await?;
        ensure!(now > 3, "{now}");
        Ok(())
    })
    .await?;

    let ballast = disk.path().join("ballast");
    fill(&ballast)?;
    receiver.has_taken(KEY, &["firing"]).await?;
    ensure!(!data.join("reserve").exists(), "the reserve is still there");
    let full = stored(&collector).await?;
    eventually("its receipt is noted", async || {
        let alert = collector.api().alert(KEY).await?;
        ensure!(alert["deliveries"][0]["sent_at"].is_i64() && alert["severity"] == "critical", "{alert:#}");
        Ok(())
    })
    .await?;
    ensure!(stored(&collector).await? == full, "records are taken on what is kept for alerts");

    std::fs::remove_file(&ballast)?;
    receiver.has_taken(KEY, &["firing", "resolved"]).await?;
    eventually("records arrive again", async || {
        let now = stored(&collector).await?;
        ensure!(now > full + 3, "still {now}");
        Ok(())
    })
    .await?;
    ensure!(data.join("reserve").exists(), "no reserve was made again");
    agent.stop().await?;
    collector.stop().await?;
    let streams = records::streams(&data.join("peil.db"))?;
    streams.iter().try_for_each(|stream| stream.check(0))
}
