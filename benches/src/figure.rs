//! What a figure costs: the month to date of many services.
//!
//! `cargo run --release -p peil-benches --bin figure`
//!
//! Evidence is as the running collector keeps it: one track per (check, vantage), every sample of the month
//! pushed into it. Outages are the target's, so all vantages of a check see them: the case with the most
//! changes to work through. Making a month anew from what is stored is another program's (`refold`).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Parser;
use peil_benches::load::Noise;
use peil_collector::contract::calendar::Month;
use peil_collector::contract::dossier::{CheckFile, CheckRule, Dossier, Testimony};
use peil_collector::contract::expr::Expr;
use peil_collector::contract::terms::Terms;
use peil_collector::contract::track::Track;
use peil_collector::contract::version::History;
use peil_collector::contract::{evaluate_and_forecast, hold};
use peil_proto::sample::State;
use peil_proto::settings::{Document, Mistakes};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

/// One in so many good samples begins an outage, one in so many bad ones ends it: as in `load.rs`.
const OUTAGE_EVERY: u64 = 808;
const OUTAGE_LASTS: u64 = 20;
const TIMEOUT: Millis = Millis(5_000);

/// Measures the month to date of many services
#[derive(Parser)]
struct Args {
    /// Services
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// Checks of each service; all must be up
    #[arg(long, default_value_t = 2)]
    checks: usize,
    /// Vantages of each check; two must agree
    #[arg(long, default_value_t = 3)]
    vantages: usize,
    /// Time between samples, s
    #[arg(long, default_value_t = 15)]
    interval_s: i64,
    /// Only how the cost of all figures grows: 100, 1000 and 10 000 services at 60 s
    #[arg(long)]
    scaling: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let month = Month { year: 2026, month: 10 };
    if args.scaling {
        return scaling(args, month);
    }
    let whole = month.span(&Terms::default().timezone);
    let samples = (args.services * args.checks * args.vantages) as u64 * samples_of(whole.length(), args.interval_s);
    println!(
        "{} services × {} checks × {} vantages at {} s: {} results in {:04}-{:02}",
        args.services, args.checks, args.vantages, args.interval_s, samples, month.year, month.month
    );
    for (name, terms) in [("around the clock", Terms::default()), ("office hours, Dutch holidays", office()?)] {
        let cost = figures(&args, &terms, month);
        println!("{name}:\n{cost}");
    }
    Ok(())
}

/// The same figures for more and more services: what each costs should stay what it is.
fn scaling(mut args: Args, month: Month) -> anyhow::Result<()> {
    args.interval_s = 60;
    let terms = office()?;
    println!("services   all figures   each");
    for services in [100, 1_000, 10_000] {
        args.services = services;
        let cost = figures(&args, &terms, month);
        let all = cost.gather + cost.evaluate;
        println!("{services:>8} {:>10.1} ms {:>6.4} ms", all.as_secs_f64() * 1e3, nanos_each(all, cost.services) / 1e6);
    }
    Ok(())
}

/// Totals over all services.
#[derive(Default)]
struct Cost {
    services: u64,
    samples: u64,
    fold: Duration,
    /// Laying out the month from its dossier, as the running collector does at each snapshot.
    gather: Duration,
    evaluate: Duration,
    slowest: Duration,
    outages: usize,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |time: Duration| nanos_each(time, self.services) / 1e6;
        writeln!(f, "  push of a sample      {:>9.1} ns", nanos_each(self.fold, self.samples))?;
        writeln!(f, "  gather evidence       {:>9.4} ms per service", each(self.gather))?;
        writeln!(
            f,
            "  figure and forecast   {:>9.4} ms per service ({:.4} ms at most), {:.1} outages each",
            each(self.evaluate),
            self.slowest.as_secs_f64() * 1e3,
            count(self.outages as u64) / count(self.services)
        )?;
        write!(f, "  all services          {:>9.1} ms", (self.gather + self.evaluate).as_secs_f64() * 1e3)
    }
}

/// Builds one service after the other, so that memory stays small, and adds up what each costs.
fn figures(args: &Args, terms: &Terms, month: Month) -> Cost {
    let whole = month.span(&terms.timezone);
    let now = whole.to.plus(Millis(-1));
    let names: Vec<_> = (0..args.checks).map(|check| format!("check{check}")).collect();
    let expression = Expr::All(names.iter().cloned().map(Expr::Check).collect());
    let mut cost = Cost::default();
    for service in 0..args.services {
        let started = Instant::now();
        let tracks: Vec<Vec<Track>> = (0..args.checks)
            .map(|check| tracks(args, (service * args.checks + check) as u64, whole.from, now))
            .collect();
        cost.fold += started.elapsed();
        let started = Instant::now();
        let dossier = dossier(args, terms, &expression, &names, &tracks);
        let Some(dated) = dossier.as_known_at(month, now) else { continue };
        cost.gather += started.elapsed();
        let started = Instant::now();
        let figure = black_box(evaluate_and_forecast(&dated, now)).0.figure;
        let spent = started.elapsed();
        cost.evaluate += spent;
        cost.slowest = cost.slowest.max(spent);
        cost.outages += figure.outages.len();
        cost.services += 1;
        cost.samples += (args.checks * args.vantages) as u64 * samples_of(whole.length(), args.interval_s);
    }
    cost
}

/// A month of one check as its vantages see it, a few seconds apart from each other.
fn tracks(args: &Args, seed: u64, from: UtcTime, now: UtcTime) -> Vec<Track> {
    let interval = Millis(args.interval_s * 1_000);
    let apart = Millis(interval.0 / i64::try_from(args.vantages.max(1)).unwrap_or(1));
    let mut tracks = vec![Track::new(hold(interval, TIMEOUT)); args.vantages];
    let (mut noise, mut state, mut at) = (Noise::new(seed), State::Up, from);
    while at < now {
        state = match state {
            State::Up if noise.once_in(OUTAGE_EVERY) => State::Down,
            State::Down if noise.once_in(OUTAGE_LASTS) => State::Up,
            unchanged => unchanged,
        };
        let mut due = at;
        for track in &mut tracks {
            track.push(due, state);
            due = due.plus(apart);
        }
        at = at.plus(interval);
    }
    tracks
}

fn dossier(args: &Args, terms: &Terms, service: &Expr, names: &[String], tracks: &[Vec<Track>]) -> Dossier {
    let interval = Millis(args.interval_s * 1_000);
    let rule = CheckRule { interval, timeout: TIMEOUT, quorum: args.vantages.min(2) };
    let file = |tracks: &Vec<Track>| CheckFile {
        rules: History::always(rule),
        vantages: tracks
            .iter()
            .enumerate()
            .map(|(at, track)| (at.to_string(), Testimony::Track(track.clone())))
            .collect(),
    };
    let checks: BTreeMap<_, _> = names.iter().cloned().zip(tracks.iter().map(file)).collect();
    let (contract, service) = (History::always(terms.clone()), History::always(service.clone()));
    Dossier { contract, service, checks, exclusions: Vec::new() }
}

/// A contract as it stands in a settings file.
const OFFICE: &str = r#"
window = [{ days = ["mon", "tue", "wed", "thu", "fri"], from = "08:00", to = "18:00" }]
holidays = { country = "nl", good_friday = true, liberation_day = "lustrum", also = ["2026-10-05"] }
"#;

fn office() -> anyhow::Result<Terms> {
    let mistakes = Mistakes::new("office");
    let mut fields = Document::toml(OFFICE, &mistakes).fields(&mistakes);
    let terms = Terms::read(&mut fields);
    fields.finish();
    Ok(mistakes.into_result(terms)?)
}

fn samples_of(span: Millis, interval_s: i64) -> u64 {
    u64::try_from(span.0 / (interval_s.max(1) * 1_000)).unwrap_or(0)
}

fn nanos_each(time: Duration, of: u64) -> f64 {
    time.as_secs_f64() * 1e9 / count(of)
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn count(of: u64) -> f64 {
    of.max(1) as f64
}
