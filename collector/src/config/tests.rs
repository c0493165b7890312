//! A whole file, and every mistake in one answer.

use peil_proto::ids::AgentId;
use peil_proto::plan::CHECKS_MAX;

use super::*;

const GOOD: &str = r#"
data_dir = "/tmp/peil"
[[contract]]
name = "office"
target = "99.9"
window = [{ days = ["mon", "fri"], from = "08:00", to = "18:00" }]
[[check]]
name = "web"
kind = "http"
url = "https://localhost/"
status = "200-299,401"
interval_s = 15
timeout_s = 5
[[check]]
name = "db"
kind = "tcp"
address = "localhost:5432"
agents = ["db-hosts"]
[[service]]
name = "portal"
contract = "office"
expression = { all = ["web", "db"] }
[[channel]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:9999/hook"
"#;

#[test]
fn a_whole_file_is_understood() {
    let config = Config::parse("collector.toml", GOOD).expect("valid");
    assert_eq!(config.services["portal"].target, "99.9");
    let none = Labels::default();
    assert!(config.checks["web"].is_for(AgentId([1; 16]), "any", "", &none));
    assert!(
        config.checks["db"].is_for(AgentId([1; 16]), "h", "db-hosts", &none)
            && !config.checks["db"].is_for(AgentId([1; 16]), "h", "", &none)
    );
    assert_eq!(config.patch.term, Millis(14 * Millis::DAY.0));
    assert_eq!(config.listen.public_url, "https://localhost:7444");
}

#[test]
fn three_mistakes_are_answered_at_once_with_their_lines() {
    let text = GOOD
        .replace("expression = { all = [\"web\", \"db\"] }", "expression = { all = [\"web\", \"dbb\"] }")
        .replace("interval_s = 15", "intervall_s = 15")
        .replace("target = \"99.9\"", "target = \"101\"");
    let refused = Config::parse("collector.toml", &text).expect_err("mistakes");
    let all = refused.to_string();
    assert_eq!(refused.mistakes.len(), 3, "{all}");
    for part in
        ["target", "at line 5", "intervall_s\" at line 12 (did you mean", "\"dbb\", which is not defined at line 22"]
    {
        assert!(all.contains(part), "{part} is missing in {all}");
    }
}

#[test]
fn a_name_that_no_message_could_carry_is_a_mistake() {
    let text = GOOD.replace("name = \"portal\"", "name = \"por\\ntal\"");
    assert!(Config::parse("c", &text).expect_err("a line break").to_string().contains("control characters"));
}

#[test]
fn more_checks_than_an_agent_takes_are_refused_here_and_not_by_every_agent() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for n in 0..=CHECKS_MAX {
        let _ = write!(text, "[[check]]\nname='c{n}'\nkind='tcp'\naddress='h:1'\n");
    }
    let refused = Config::parse("c", &text).expect_err("one too many");
    assert_eq!(refused.mistakes.len(), 1, "{refused}");
}

#[test]
fn the_same_name_twice_is_a_mistake() {
    let text = format!("{GOOD}\n[[check]]\nname = 'web'\nkind = 'tcp'\naddress = 'h:1'\n");
    assert!(Config::parse("c", &text).expect_err("twice").to_string().contains("\"web\", which stands twice"));
}

#[test]
fn a_short_interval_is_enough_to_say() {
    for (interval_s, timeout_ms) in [(1, 500), (2, 1_000), (10, 5_000), (11, 10_000), (60, 10_000)] {
        let text = format!("[[check]]\nname = 'c'\nkind = 'tcp'\naddress = 'h:1'\ninterval_s = {interval_s}\n");
        let config = Config::parse("c", &text).expect("valid");
        assert_eq!(config.checks["c"].def.timeout_ms, timeout_ms, "every {interval_s} s");
    }
    let text = "[[check]]\nname = 'c'\nkind = 'tcp'\naddress = 'h:1'\ninterval_s = 1\ntimeout_s = 1\n";
    assert!(Config::parse("c", text).expect_err("too long").to_string().contains("below the interval"));
}

#[test]
fn labels_narrow_who_runs_a_check_and_a_bad_one_is_told() {
    let text = "[[check]]\nname='web'\nkind='tcp'\naddress='h:1'\nlabels={role='web'}\nagents=['db-hosts']\n";
    let check = Config::parse("c", text).expect("valid").checks["web"].clone();
    let of = |role: &str| Labels::from_pairs([("role".to_owned(), role.to_owned())]).expect("good");
    assert!(check.is_for(AgentId([1; 16]), "h", "db-hosts", &of("web")));
    assert!(
        !check.is_for(AgentId([1; 16]), "h", "", &of("web"))
            && !check.is_for(AgentId([1; 16]), "h", "db-hosts", &of("db"))
    );
    let refused = Config::parse("c", &text.replace("role=", "Role=")).expect_err("bad").to_string();
    assert!(refused.contains("label \"Role\""), "{refused}");
}

#[test]
fn one_agent_can_be_named_by_its_id_and_no_host_can_pass_for_it() {
    let id = AgentId([7; 16]);
    let text = format!("[[check]]\nname='web'\nkind='tcp'\naddress='h:1'\nagents=['agent:{id}']\n");
    let check = Config::parse("c", &text).expect("valid").checks["web"].clone();
    let none = Labels::default();
    assert!(check.is_for(id, "h", "", &none));
    assert!(!check.is_for(AgentId([8; 16]), &format!("agent:{id}"), &format!("agent:{id}"), &none));
}
