//! `peil-agent probe TARGET`: one run of one check for a person at a terminal (or a script, with `--json`).
//!
//! The run is the very function the scheduler calls; only the telling is here. With `--trace` it draws each
//! connection as a waterfall of its phases, with the address used and the certificate chain. Exit status:
//! 0 up, 1 not up (down or unknown), 2 the question made no sense.
//!
//! Text that comes from the target (names in certificates, redirects) is shown with its control characters
//! escaped: a server must not be able to write to somebody's terminal.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use peil_proto::ids::CheckNo;
use peil_proto::plan::{CheckDef, CheckKind, split_address};
use peil_proto::sample::{Outcome, PHASES, Phases, State};
use peil_proto::settings::{Document, Mistakes};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Micros;
use serde_json::{Value, json};

use super::certificate::{Certificate, TlsFacts};
use super::{AddressPolicy, Failure, Hop, KINDS, Observation, ProbeContext};
use crate::config::Config;

/// Columns of the waterfall.
const BAR_COLUMNS: u64 = 40;

/// What `peil-agent probe` takes.
#[derive(Debug, clap::Args)]
#[command(override_usage = "peil-agent probe [OPTIONS] [KIND] <TARGET>")]
pub struct ProbeArgs {
    /// Kind and target (`dns example.org`), or a target that tells its kind: http(s)://…, KIND://…, host:port (tcp)
    #[arg(required = true, num_args = 1..=2, value_name = "TARGET")]
    what: Vec<String>,
    /// Draw the phases, the address and the certificate chain
    #[arg(long)]
    trace: bool,
    /// Kind of check, when the target does not tell
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(CheckKind::WORDS))]
    kind: Option<String>,
    /// An option of the kind as it stands in a `check` table of the collector, such as 'method = "HEAD"'; may be given again
    #[arg(long = "option", short = 'o', value_name = "KEY = VALUE")]
    options: Vec<String>,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    /// Seconds after which the probe has failed
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// PEM bundle to trust instead of the public roots
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Take the policy of this settings file: networks, secrets, commands
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Probes once and tells.
pub fn main(args: &ProbeArgs) -> ExitCode {
    let clock = WallClock::System;
    let ctx = match &args.config {
        None => ProbeContext::new(clock.clone(), AddressPolicy::default()),
        Some(path) => match Config::load(path) {
            Ok(config) => config.policy.probe_context(clock.clone()),
            Err(refused) => return refuse(&[refused.to_string()]),
        },
    };
    let def = match asked(args) {
        Ok(def) => def,
        Err(why) => return refuse(&[why]),
    };
    let problems = super::problems(&def, &ctx);
    if !problems.is_empty() {
        return refuse(&problems);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&[format!("cannot start: {error}")]),
    };
    let seen = runtime.block_on(super::run(&def, &ctx));
    // A name lookup that nobody waits for any more must not hold up the answer.
    runtime.shutdown_timeout(Duration::ZERO);
    let text = match args {
        ProbeArgs { json: true, .. } => format!("{:#}\n", to_json(&def, &seen, clock.now())),
        ProbeArgs { trace: true, .. } => to_text(&def, &seen, clock.now()),
        _ => headline(&def, &seen),
    };
    // Whoever closed our output does not want to read it; the exit status still tells.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    match seen.outcome {
        Outcome::Up { .. } => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    }
}

fn refuse(reasons: &[String]) -> ExitCode {
    let mut out = std::io::stderr().lock();
    for reason in reasons {
        let _ = writeln!(out, "peil-agent probe: {reason}");
    }
    ExitCode::from(2)
}

/// The check that `args` ask for.
fn asked(args: &ProbeArgs) -> Result<CheckDef, String> {
    let (word, target) = match args.what.as_slice() {
        [word, target] => (Some(word.as_str()), target),
        [target] => (args.kind.as_deref(), target),
        _ => return Err("give a target, or a kind and a target".to_owned()),
    };
    let ca = args.ca.as_ref().map(|path| format!("ca_file = {}", Toml(path)));
    let options: Vec<String> = args.options.iter().cloned().chain(ca).collect();
    let kind = kind_of(target, word, &options).map_err(|why| match &args.ca {
        Some(_) if why.contains("unknown key \"ca_file\"") || why.contains("options of TLS mean nothing") => {
            "--ca means nothing to this kind of check".to_owned()
        }
        _ => why,
    })?;
    let timeout_ms = args.timeout.saturating_mul(1_000);
    Ok(CheckDef { no: CheckNo(0), name: "probe".to_owned(), interval_ms: 86_400_000, timeout_ms, kind })
}

/// The check that a target and options stand for. `word` is its kind; without it the way the target is written tells.
pub(super) fn kind_of(target: &str, word: Option<&str>, options: &[String]) -> Result<CheckKind, String> {
    let (word, target) = match (word, target.split_once("://")) {
        (None, Some(("http" | "https", _))) => ("http", target),
        (None, Some(("ws" | "wss", _))) => ("websocket", target),
        (None, Some((scheme, rest))) => (scheme, rest),
        (None, None) if split_address(target).is_some() => ("tcp", target),
        (None, None) => return Err(not_written_like(target)),
        (Some(word), Some((scheme, rest))) if scheme == word && word != "http" => (word, rest),
        (Some(word), _) => (word, target),
    };
    let key = CheckKind::target_key(word).ok_or_else(|| not_written_like(target))?;
    let mut text = format!("kind = {}\n{key} = {}\n", Toml(word), Toml(target));
    for option in options {
        text.push_str(option);
        text.push('\n');
    }
    let mistakes = Mistakes::new("probe");
    let mut fields = Document::toml(&text, &mistakes).fields(&mistakes);
    let kind = CheckKind::read(&mut fields);
    fields.finish();
    let kind = mistakes.into_result(kind).map_err(|refused| refused.to_string())?;
    let kind = kind.ok_or_else(|| not_written_like(target))?;
    match kind.problems().as_slice() {
        [] => Ok(kind),
        problems if word == "tcp" || word == "tls" || word == "http" && !target.contains("://") => {
            Err(format!("{}; {}", problems.join("; "), not_written_like(target)))
        }
        problems => Err(problems.join("; ")),
    }
}

fn not_written_like(target: &str) -> String {
    let known: Vec<_> = KINDS.iter().map(|kind| format!("{} ({})", kind.example, kind.about)).collect();
    format!("target {target:?} is not written like {}", known.join(" or "))
}

/// A text as TOML writes it.
struct Toml<'a>(&'a str);

impl fmt::Display for Toml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// One line: target, state, why, and how long it took.
fn headline(def: &CheckDef, seen: &Observation) -> String {
    let took = Ms(seen.phases.total());
    format!("{}: {} in {took}\n", Safe(def.kind.target()), Safe(&words(seen)))
}

/// The outcome in words.
fn words(seen: &Observation) -> String {
    let state = seen.outcome.state();
    match (seen.outcome, &seen.detail.failure) {
        (Outcome::Up { code: 0 }, _) => state.to_string(),
        (Outcome::Up { code }, _) => format!("{state}, status {code}"),
        (_, Some(Failure { kind, phase, text })) => {
            let place = phase.map(|phase| format!(" in phase {}", phase.name())).unwrap_or_default();
            let whose = if state == State::Unknown { " (says nothing about the target)" } else { "" };
            format!("{state}, {kind}{place}: {text}{whose}")
        }
        (outcome, None) => format!("{state}, {}", outcome.word()),
    }
}

fn to_text(def: &CheckDef, seen: &Observation, now: UtcTime) -> String {
    let mut out = headline(def, seen);
    // Writing to a String cannot fail.
    let _ = seen.detail.hops.iter().try_for_each(|hop| write_hop(&mut out, hop, now));
    if let Some(body) = seen.detail.body {
        let cut = if body.truncated { ", reading stopped at the limit" } else { "" };
        let _ = writeln!(out, "  body        {} bytes{cut}", body.bytes);
    }
    for fact in &seen.detail.facts {
        let _ = writeln!(out, "  {:<11} {}", Safe(&fact.name).to_string(), Safe(&fact.value));
    }
    out
}

fn write_hop(out: &mut String, hop: &Hop, now: UtcTime) -> fmt::Result {
    writeln!(out, "\n{}", Safe(&hop.target))?;
    if let Some(peer) = hop.peer {
        writeln!(out, "  address     {}", super::peer_text(peer))?;
    }
    if let Some(status) = hop.status {
        writeln!(out, "  status      {status}")?;
    }
    write_waterfall(out, hop.phases)?;
    match &hop.tls {
        Some(tls) => write_tls(out, tls, now),
        None => Ok(()),
    }
}

fn write_waterfall(out: &mut String, phases: Phases) -> fmt::Result {
    let total = u64::from(phases.total().0).max(1);
    let mut before = 0;
    for (name, took) in PHASES.iter().zip(phases.to_array()) {
        let Some(took) = took else { continue };
        let from = (before * BAR_COLUMNS / total).min(BAR_COLUMNS - 1);
        before += u64::from(took.0);
        let until = (before * BAR_COLUMNS / total).clamp(from + 1, BAR_COLUMNS);
        let bar: String =
            (0..BAR_COLUMNS).map(|column| if (from..until).contains(&column) { '#' } else { ' ' }).collect();
        writeln!(out, "  {name:<10} {:>12}  |{bar}|", Ms(took).to_string())?;
    }
    Ok(())
}

fn write_tls(out: &mut String, tls: &TlsFacts, now: UtcTime) -> fmt::Result {
    match &tls.agreed {
        Some(agreed) => {
            let alpn = agreed.alpn.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
            let name = Safe(&tls.server_name);
            writeln!(out, "  tls         {}, {}{} for {name}", agreed.version, agreed.cipher, Safe(&alpn))?;
        }
        None => writeln!(out, "  tls         not agreed for {}", Safe(&tls.server_name))?,
    }
    for (place, certificate) in tls.certificates().iter().enumerate() {
        write_certificate(out, place, certificate, now)?;
    }
    Ok(())
}

fn write_certificate(out: &mut String, place: usize, certificate: &Certificate, now: UtcTime) -> fmt::Result {
    let Some(facts) = &certificate.facts else {
        writeln!(out, "  certificate {place}: cannot be read")?;
        return writeln!(out, "    sha256    {}", certificate.sha256);
    };
    writeln!(out, "  certificate {place}: {}", Safe(&facts.subject))?;
    writeln!(out, "    issuer    {}", Safe(&facts.issuer))?;
    if !facts.names.is_empty() {
        let more = match facts.names_left_out {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        writeln!(out, "    names     {}{more}", Safe(&facts.names.join(", ")))?;
    }
    let (from, until, days) = (facts.not_before, facts.not_after, facts.days_left(now));
    writeln!(out, "    valid     {from} to {until}, {days} days left")?;
    writeln!(out, "    serial    {}", facts.serial)?;
    writeln!(out, "    sha256    {}", certificate.sha256)
}

/// The observation as JSON. Times are RFC 3339, durations whole microseconds, absent is `null`.
pub fn to_json(def: &CheckDef, seen: &Observation, now: UtcTime) -> Value {
    let failure = seen.detail.failure.as_ref().map(|failure| {
        let phase = failure.phase.map(super::Phase::name);
        json!({"kind": failure.kind.word(), "phase": phase, "text": failure.text})
    });
    let (Outcome::Up { code } | Outcome::Failed { code, .. }) = seen.outcome else {
        return json!({"outcome": seen.outcome.word()});
    };
    json!({
        "target": def.kind.target(),
        "kind": def.kind.name(),
        "state": seen.outcome.state().word(),
        "outcome": seen.outcome.word(),
        "status": (code != 0).then_some(code),
        "failure": failure,
        "total_us": seen.phases.total().0,
        "phases_us": phases_json(seen.phases),
        "body": seen.detail.body.map(|body| json!({"bytes": body.bytes, "truncated": body.truncated})),
        "facts": seen.detail.facts.iter().map(|fact| json!({"name": fact.name, "value": fact.value})).collect::<Vec<_>>(),
        "hops": seen.detail.hops.iter().map(|hop| hop_json(hop, now)).collect::<Vec<_>>(),
    })
}

fn hop_json(hop: &Hop, now: UtcTime) -> Value {
    json!({
        "target": hop.target,
        "address": hop.peer.map(super::peer_text),
        "status": hop.status,
        "phases_us": phases_json(hop.phases),
        "tls": hop.tls.as_ref().map(|tls| tls_json(tls, now)),
    })
}

fn phases_json(phases: Phases) -> Value {
    PHASES.iter().zip(phases.to_array()).map(|(name, took)| ((*name).to_owned(), json!(took.map(|us| us.0)))).collect()
}

fn tls_json(tls: &TlsFacts, now: UtcTime) -> Value {
    json!({
        "server_name": tls.server_name,
        "version": tls.agreed.as_ref().map(|agreed| agreed.version),
        "cipher": tls.agreed.as_ref().map(|agreed| agreed.cipher),
        "alpn": tls.agreed.as_ref().and_then(|agreed| agreed.alpn.as_deref()),
        "certificates": tls.certificates().iter().map(|one| certificate_json(one, now)).collect::<Vec<_>>(),
    })
}

fn certificate_json(certificate: &Certificate, now: UtcTime) -> Value {
    let mut value = json!({"sha256": certificate.sha256});
    if let Some(facts) = &certificate.facts {
        value["subject"] = json!(facts.subject);
        value["issuer"] = json!(facts.issuer);
        value["names"] = json!(facts.names);
        value["names_left_out"] = json!(facts.names_left_out);
        value["not_before"] = json!(facts.not_before.to_string());
        value["not_after"] = json!(facts.not_after.to_string());
        value["days_left"] = json!(facts.days_left(now));
        value["serial"] = json!(facts.serial);
    }
    value
}

/// Microseconds as milliseconds with three decimals, from integers.
struct Ms(Micros);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Micros(us) = self.0;
        write!(f, "{}.{:03} ms", us / 1_000, us % 1_000)
    }
}

/// Text from outside, with control characters escaped.
pub(crate) struct Safe<'a>(pub(crate) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(target: &str) -> ProbeArgs {
        ProbeArgs {
            what: vec![target.to_owned()],
            trace: false,
            kind: None,
            options: Vec::new(),
            json: false,
            timeout: 10,
            ca: None,
            config: None,
        }
    }

    #[test]
    fn the_kind_follows_from_how_the_target_is_written() {
        for (target, kind) in [
            ("https://a.test/", "http"),
            ("http://a.test", "http"),
            ("tls://a.test:443", "tls"),
            ("tcp://a.test:22", "tcp"),
            ("a.test:22", "tcp"),
            ("[::1]:22", "tcp"),
        ] {
            assert_eq!(asked(&args(target)).expect(target).kind.name(), kind, "{target}");
        }
        for target in ["a.test", "ftp://a.test/", "tls://a.test", ""] {
            let why = asked(&args(target)).expect_err(target);
            assert!(why.contains("is not written like"), "{why}");
        }
    }

    #[test]
    fn a_kind_that_does_not_fit_is_refused_and_so_is_a_ca_without_tls() {
        let wrong = ProbeArgs { kind: Some("tls".to_owned()), ..args("https://a.test/") };
        assert!(asked(&wrong).expect_err("another kind").contains("tls://mail.example.org:465"));
        let ca = ProbeArgs { ca: Some("ca.pem".to_owned()), ..args("a.test:22") };
        assert!(asked(&ca).expect_err("no TLS").contains("--ca"));
    }

    #[test]
    fn the_waterfall_shows_each_phase_after_the_one_before() {
        let phases = Phases {
            resolve: Some(Micros(1_000)),
            connect: Some(Micros(0)),
            tls: None,
            first_byte: Some(Micros(2_500)),
            transfer: Some(Micros(500)),
        };
        let mut drawn = String::new();
        write_waterfall(&mut drawn, phases).expect("draws");
        let expected = "  resolve        1.000 ms  |##########                              |
  connect        0.000 ms  |          #                             |
  first_byte     2.500 ms  |          #########################     |
  transfer       0.500 ms  |                                   #####|
";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_server_cannot_write_to_the_terminal() {
        assert_eq!(Safe("a\u{1b}[2Jb\n").to_string(), "a\\u{1b}[2Jb\\n");
        assert_eq!(Safe("Café").to_string(), "Café");
    }
}
