//! Old agent with new collector, and the reverse: the bytes in `fixtures/protocol-1` were written by the programs of
//! 25 November 2026 (commit 5466855), before anything was added to the protocol. What is here today must read them, and what is
//! written today must still say the same to a program of that day: nothing is renumbered, and what was added has a default
//! that means "not told".

use peil_proto::block;
use peil_proto::convert;
use peil_proto::ids::{CheckNo, Seq};
use peil_proto::plan::CheckKind;
use peil_proto::record::Record;
use peil_proto::sample::Outcome;
use peil_proto::wire::agent_message::Kind as Say;
use peil_proto::wire::collector_message::Kind as Hear;
use peil_proto::wire::{AgentMessage, CollectorMessage};
use prost::Message;

fn bytes(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/protocol-1").join(name);
    std::fs::read(path).expect(name)
}

fn agent(name: &str) -> Say {
    AgentMessage::decode(&*bytes(name)).expect(name).kind.expect(name)
}

fn collector(name: &str) -> Hear {
    CollectorMessage::decode(&*bytes(name)).expect(name).kind.expect(name)
}

#[test]
fn f33_what_an_old_agent_says_is_understood() {
    let Say::Hello(hello) = agent("agent-hello") else { panic!("a greeting") };
    assert_eq!((hello.protocol, hello.epoch, hello.last, hello.hostname.as_str()), (1, 7, 3, "host"));
    assert_eq!(hello.run, 0, "it does not tell its run, and 0 means that");
    let Say::Batch(batch) = agent("agent-batch") else { panic!("a batch") };
    let block = block::decode(&batch.block).expect("a block");
    assert_eq!((block.first, block.items.len()), (Seq(1), 3));
    let records: Vec<Record> =
        block.items.iter().map(|item| convert::from_item(item).expect("readable").expect("known")).collect();
    assert!(matches!(&records[0], Record::Sample(sample) if sample.outcome == Outcome::Up { code: 200 }));
    assert!(
        matches!(&records[1], Record::Gap(gap) if (gap.check, gap.records_lost, gap.ok_lost) == (Some(CheckNo(1)), 4, 0))
    );
    assert!(matches!(&records[2], Record::Vitals(vitals) if (vitals.plan_version, vitals.stretch) == (3, 0)));
    let Say::PlanResult(result) = agent("agent-plan-result") else { panic!("an answer") };
    assert_eq!((result.version, result.refused), (5, vec!["no".to_owned()]));
}

#[test]
fn f33_what_an_old_collector_says_is_understood() {
    let Hear::Welcome(welcome) = collector("collector-welcome") else { panic!("a welcome") };
    assert_eq!((welcome.unacked_bytes_max, welcome.renew_epoch), (262_144, false));
    assert!(matches!(collector("collector-ack"), Hear::Ack(ack) if (ack.epoch, ack.through) == (7, 3)));
    assert!(matches!(collector("collector-refusal"), Hear::Refusal(refusal) if refusal.last_seq == 3));
    assert!(matches!(collector("collector-retry-after"), Hear::RetryAfter(wait) if wait.millis == 5_000));
    let Hear::Plan(plan) = collector("collector-plan") else { panic!("a plan") };
    let plan = convert::plan_from_wire(plan).expect("a good plan");
    let kinds: Vec<&str> = plan.checks.iter().map(|check| check.kind.name()).collect();
    assert_eq!(kinds, ["tcp", "http", "tls"]);
    assert!(matches!(&plan.checks[1].kind, CheckKind::Http(http) if http.tls.cert_days_min == Some(14)));
}

/// A message of today in which nothing new is told is, byte for byte, the message of that day. So a program of that day
/// reads it, and what is new it skips, for no field it knows was given another number or type.
#[test]
fn f33_what_is_written_today_is_what_a_program_of_that_day_wrote() {
    for name in ["agent-hello", "agent-batch", "agent-plan-result"] {
        let message = AgentMessage { kind: Some(agent(name)) };
        assert_eq!(message.encode_to_vec(), bytes(name), "{name}");
    }
    for name in ["collector-welcome", "collector-ack", "collector-refusal", "collector-retry-after", "collector-plan"] {
        let message = CollectorMessage { kind: Some(collector(name)) };
        assert_eq!(message.encode_to_vec(), bytes(name), "{name}");
    }
    let Hear::Plan(plan) = collector("collector-plan") else { panic!("a plan") };
    let again = convert::plan_to_wire(&convert::plan_from_wire(plan.clone()).expect("a good plan"));
    assert_eq!(again, plan, "a plan of the old kinds travels unchanged");
}
