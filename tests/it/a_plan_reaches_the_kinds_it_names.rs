//! What is written in the collector's settings is what the agent asks, for kinds and options that the first version of
//! the plan could not say; and what the host's policy forbids is not asked.

use peil_tests::{Agent, Collector, ONLY_CHECKS, Target, eventually};

fn settings(target: &Target) -> String {
    let (url, address) = (target.url(), target.address());
    let contract = "[[contract]]\nname = \"all-day\"\n";
    let check = |name: &str, rest: &str| format!("[[check]]\nname = {name:?}\ninterval_s = 2\ntimeout_s = 1\n{rest}\n");
    let service = |name: &str| format!("[[service]]\nname = {name:?}\ncontract = \"all-day\"\nexpression = {name:?}\n");
    let parts = [
        contract.to_owned(),
        check(
            "asked",
            &format!("kind = \"http\"\nurl = {url:?}\nmethod = \"OPTIONS\"\nversion = \"1.1\"\nstatus = \"200-599\""),
        ),
        check(
            "missed",
            &format!("kind = \"http\"\nurl = {url:?}\nstatus = \"200-599\"\nheader_matches = {{ X-None = \"x\" }}"),
        ),
        check("listening", &format!("kind = \"listen\"\nsocket = \"tcp/{address}\"")),
        check("mounted", "kind = \"mount\"\nmount = \"/\"\nused_max = 100\ninodes_max = 100"),
        check("silent-job", "kind = \"heartbeat\"\nreport = \"nobody\""),
        check("forbidden", "kind = \"memory\"\nof = \"memory\"\nmax = 100"),
        ["asked", "missed", "listening", "mounted", "silent-job", "forbidden"].map(service).concat(),
    ];
    parts.concat()
}

#[tokio::test]
async fn kinds_and_options_of_today_travel_from_the_settings_to_the_host_and_back() -> anyhow::Result<()> {
    let target = Target::start()?;
    let collector = Collector::start(&settings(&target)).await?;
    let policy = "\n[policy]\nkinds = [\"http\", \"listen\", \"mount\", \"heartbeat\"]\n";
    let _agent = Agent::start(&collector, &format!("{ONLY_CHECKS}{policy}"))?;
    let api = collector.api();
    for (service, state) in [
        ("asked", "up"),
        ("listening", "up"),
        ("mounted", "up"),
        ("missed", "down"),
        ("silent-job", "down"),
        ("forbidden", "unknown"),
    ] {
        eventually(&format!("{service} is {state}"), async || api.service_in(service, state).await).await?;
    }
    Ok(())
}
