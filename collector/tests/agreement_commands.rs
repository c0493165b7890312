//! `apply`, `exclusion` and `month` as programs: what they print, what they leave alone, and what they refuse.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const FILE: &str = r#"
[[contract]]
name = "office"
coverage = { from = "2026-01-01T00:00:00+01:00", to = "2026-03-01T00:00:00+01:00" }
unknown = "excluded"
maintenance = { notice_hours = 24 }
[[check]]
name = "web"
kind = "tcp"
address = "localhost:80"
[[service]]
name = "portal"
contract = "office"
expression = "web"
"#;

/// A data directory with settings, and a directory with files to apply.
struct House(TempDir);

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        std::fs::create_dir_all(path.join("data")).expect("made");
        std::fs::create_dir_all(path.join("files")).expect("made");
        let settings = format!("data_dir = {:?}\n", path.join("data").display().to_string());
        std::fs::write(path.join("collector.toml"), settings).expect("written");
        std::fs::write(path.join("files/all.toml"), FILE).expect("written");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = self.path("collector.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_peil-collector"));
        command.args(args).args(["--config", &config]).env("USER", "anna").env_remove("SUDO_USER");
        command.output().expect("the program starts")
    }

    /// What a command that must succeed prints.
    fn say(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What a command that must fail complains about.
    fn complain(&self, args: &[&str], status: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

#[test]
fn files_are_shown_applied_and_given_back() {
    let house = House::new();
    let files = house.path("files");
    let dry = house.say(&["apply", &files, "--dry-run"]);
    assert!(
        dry.contains("service \"portal\" since ever") && dry.ends_with("nothing was written (--dry-run)\n"),
        "{dry}"
    );
    assert!(house.say(&["apply", &files]).ends_with("3 new versions, 0 objects unchanged\n"));
    assert_eq!(house.say(&["apply", &files]), "0 new versions, 3 objects unchanged\n");
    let exported = house.say(&["export"]);
    std::fs::write(Path::new(&files).join("all.toml"), &exported).expect("written");
    assert_eq!(house.say(&["apply", &files]), "0 new versions, 3 objects unchanged\n", "{exported}");
    let wrong = FILE.replace("expression = \"web\"", "expression = \"wbe\"");
    std::fs::write(Path::new(&files).join("all.toml"), wrong).expect("written");
    let refused = house.complain(&["apply", &files], 2);
    assert!(refused.contains("names the check \"wbe\", which is not defined"), "{refused}");
    let log = house.say(&["audit", "tail"]);
    assert!(log.contains("agreement.apply contract \"office\" from ever"), "{log}");
}

#[test]
fn an_exclusion_is_listed_with_what_counts_and_why_the_rest_does_not() {
    let house = House::new();
    house.say(&["apply", &house.path("files")]);
    let propose = |id: &str, announced: &str| {
        let span =
            ["--from", "2026-02-10T00:00:00+01:00", "--to", "2026-02-10T02:00:00+01:00", "--announced", announced];
        let what =
            ["exclusion", "propose", id, "--service", "portal", "--kind", "maintenance", "--reason", "new disks"];
        house.say(&[&what[..], &span].concat());
    };
    propose("CHG-1", "2026-02-01T00:00:00+01:00");
    propose("CHG-2", "2026-02-09T23:00:00+01:00");
    let own = house.complain(&["exclusion", "approve", "CHG-1"], 1);
    assert!(own.contains("ask somebody else"), "{own}");
    for id in ["CHG-1", "CHG-2"] {
        assert_eq!(house.say(&["exclusion", "approve", id, "--by", "bert"]), format!("{id} is approved\n"));
    }
    let list = house.say(&["exclusion", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(
        lines[0].starts_with("CHG-1  approved  portal  maintenance") && lines[0].contains("7200000 ms count"),
        "{list}"
    );
    assert!(lines[1].contains("0 ms count, the rest not: late_notice"), "{list}");
    let closed = ["exclusion", "close", "CHG-1", "--at", "2026-02-10T01:00:00+01:00"];
    assert_eq!(house.say(&closed), "CHG-1 is closed\n");
    assert!(
        house.say(&["exclusion", "list"]).contains("CHG-1  closed  portal  maintenance  2026-02-10T00:00:00+01:00 to")
    );
    let log = house.say(&["audit", "tail"]);
    assert!(log.contains("bert (by anna (command line)) exclusion.approve CHG-1"), "{log}");
    assert!(house.say(&["audit", "verify"]).contains("is whole"));
}

#[test]
fn a_month_is_sealed_handed_out_verified_and_not_sealed_twice() {
    let house = House::new();
    house.say(&["apply", &house.path("files")]);
    let sealed = house.say(&["month", "seal", "portal", "2026-02"]);
    assert_eq!(sealed, "portal 2026-02 is sealed as edition 1\n");
    let twice = house.complain(&["month", "seal", "portal", "2026-02"], 1);
    assert!(twice.contains("it is sealed as edition 1"), "{twice}");
    let own = ["month", "supersede", "portal", "2026-02", "--reason", "x", "--author", "anna (command line)"];
    assert!(house.complain(&own, 1).contains("ask somebody else"));
    let same = ["month", "supersede", "portal", "2026-02", "--reason", "late", "--author", "bert"];
    assert!(house.complain(&same, 1).contains("there is nothing to correct"));
    let written = house.say(&["month", "export", "portal", "2026-02", "--dir", &house.path("files")]);
    let paths: Vec<&str> = written.lines().take(2).collect();
    let verify = Command::new(env!("CARGO_BIN_EXE_peil-collector"))
        .args(["sla", "verify", paths[0], "--data", paths[1]])
        .output()
        .expect("the program starts");
    assert_eq!(verify.status.code(), Some(0), "{verify:?}");
    let list = house.say(&["month", "list"]);
    assert!(list.starts_with("2026-02  portal  -  not_applicable  edition 1,"), "{list}");
    let bundle = house.say(&["month", "bundle", "portal", "2026-02"]);
    assert!(bundle.starts_with("{\"bundle\":1,"), "{bundle}");
    let other = house.path("other.json");
    std::fs::write(&other, "{\"contract\": {\"unknown\": \"down\"}}").expect("written");
    let compared = house.say(&["month", "what-if", "portal", "2026-02", &other]);
    // Nobody looked in February: out of the sum as agreed, loss when no evidence counts as down.
    assert!(compared.contains("\"verdict\":{\"base\":\"not_applicable\",\"what_if\":\"breached\"}"), "{compared}");
    std::fs::write(&other, "{\"contract\": {\"unknwn\": \"down\"}}").expect("written");
    assert!(house.complain(&["month", "what-if", "portal", "2026-02", &other], 2).contains("unknwn"));
    assert!(house.complain(&["month", "seal", "portl", "2026-02"], 1).contains("no service \"portl\""));
}

#[test]
fn people_are_added_with_a_role_listed_and_removed_and_the_log_names_them() {
    let house = House::new();
    let made = house.say(&["user", "add", "anna", "--role", "approver"]);
    assert!(made.starts_with("anna (approver) now signs in with  "), "{made}");
    assert!(house.complain(&["user", "add", "anna"], 1).contains("can sign in already"));
    assert!(house.complain(&["user", "add", "an na"], 2).contains("1 to 64 letters"));
    house.say(&["user", "add", "bert"]);
    let again = house.say(&["user", "password", "anna"]);
    assert!(again.starts_with("anna (approver) now signs in with  ") && again != made, "{again}");
    let list = house.say(&["user", "list"]);
    let names: Vec<_> = list.lines().filter_map(|line| line.split("  since").next()).collect();
    assert_eq!(names, ["anna  approver", "bert  viewer"]);
    assert_eq!(house.say(&["user", "remove", "bert"]), "bert cannot sign in any more\n");
    assert!(house.complain(&["user", "remove", "bert"], 1).contains("bert"));
    assert!(house.complain(&["user", "remove", "admin"], 1).contains("made anew at every start"));
    assert!(house.complain(&["user", "password", "carl"], 1).contains("no user \"carl\""));
    let log = house.say(&["audit", "tail"]);
    for entry in ["user.set_password anna role approver", "user.set_password bert role viewer", "user.remove bert"] {
        assert!(log.contains(entry), "{log}");
    }
}
