//! What is judged now and was before: contracts, services and checks with all their versions, in one value.
//!
//! Two sources: `collector.toml`, whose objects hold since ever, and what was applied ([`crate::apply`]), whose
//! versions stand in the store. An object has one source; `apply` refuses a name that the settings file has. The
//! value is pure: it is made anew when either source changed, and whoever works with it keeps his copy until then.
//!
//! A service keeps its contract and a contract its zone through all versions: months are cut by it. What has ended is
//! still known: its months until then are judged, and what was seen until then is evidence.

mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::ids::CheckNo;
use peil_proto::plan::CheckDef;
use peil_proto::settings::Refused;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::config::{Check, Clauses, Config, Service};
use crate::contract::approval::ExclusionFile;
use crate::contract::dossier::{CheckFile, CheckRule, Dossier, Testimony};
use crate::contract::expr::Expr;
use crate::contract::hold;
use crate::contract::span::Span;
use crate::contract::version::{History, Standing, Version};
use crate::evaluate::bundle::VersionNote;
use crate::store::objects::ObjectVersion;

pub use read::{Kind, Written, read_files};

/// What is in force: the agreement with the numbers of its checks. Made anew when something was applied.
#[derive(Debug, Clone, Default)]
pub struct InForce {
    /// What was agreed.
    pub agreement: Agreement,
    /// Numbers of all checks there ever were.
    pub numbers: BTreeMap<String, CheckNo>,
}

impl InForce {
    /// The checks known at `now`, with their numbers; those that have ended are for nobody.
    pub fn numbered_checks_at(&self, now: UtcTime) -> BTreeMap<String, (CheckNo, Check)> {
        let numbered = |(name, check): (String, Check)| Some((name.clone(), (*self.numbers.get(&name)?, check)));
        self.agreement.checks_known_at(now).into_iter().filter_map(numbered).collect()
    }

    /// As [`Agreement::checks_to_fold`].
    pub fn checks_to_fold(&self) -> BTreeMap<CheckNo, CheckDef> {
        self.agreement.checks_to_fold(&self.numbers)
    }

    /// How long a sample of each of them holds.
    pub fn holds(&self) -> BTreeMap<CheckNo, Millis> {
        let held = |check: CheckDef| hold(Millis(check.interval_ms.into()), Millis(check.timeout_ms.into()));
        self.checks_to_fold().into_iter().map(|(no, check)| (no, held(check))).collect()
    }
}

/// A service through time.
#[derive(Debug, Clone)]
pub struct ServiceFile {
    /// The contract it is under.
    pub contract: String,
    /// What it is made of.
    pub expression: History<Expr>,
}

/// Everything agreed.
#[derive(Debug, Clone, Default)]
pub struct Agreement {
    contracts: BTreeMap<String, History<Clauses>>,
    services: BTreeMap<String, ServiceFile>,
    checks: BTreeMap<String, History<Check>>,
}

impl Agreement {
    /// What the settings file says, and what was applied.
    ///
    /// # Errors
    /// [`Refused`] with every mistake: an applied object that the settings file has as well, or one that this
    /// program cannot read.
    pub fn new(config: &Config, applied: &[ObjectVersion]) -> Result<Self, Refused> {
        let mut agreement = Self::of_settings(config);
        read::add_applied(&mut agreement, applied)?;
        Ok(agreement)
    }

    fn of_settings(config: &Config) -> Self {
        let mut agreement = Self::default();
        for (name, service) in &config.services {
            let Service { contract, expression, terms, target, timezone } = service.clone();
            let clauses = Clauses { terms, target, timezone };
            agreement.contracts.insert(contract.clone(), History::always(clauses));
            let expression = History::always(expression);
            agreement.services.insert(name.clone(), ServiceFile { contract, expression });
        }
        for (name, clauses) in &config.contracts {
            agreement.contracts.entry(name.clone()).or_insert_with(|| History::always(clauses.clone()));
        }
        let checks = config.checks.iter().map(|(name, check)| (name.clone(), History::always(check.clone())));
        agreement.checks = checks.collect();
        agreement
    }

    /// Names of the services, in order.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// The service as it is at `now`, or as it was when it ended, covered until then; `None` before its first version.
    pub fn service_at(&self, name: &str, now: UtcTime) -> Option<Service> {
        let file = self.services.get(name)?;
        let clauses = &self.contracts.get(&file.contract)?.in_force(now)?.value;
        let mut terms = clauses.terms.clone();
        if let Some(end) = self.ended_at(name, now) {
            terms.coverage = terms.coverage.until(end);
        }
        Some(Service {
            contract: file.contract.clone(),
            expression: file.expression.in_force(now)?.value.clone(),
            terms,
            target: clauses.target.clone(),
            timezone: clauses.timezone.clone(),
        })
    }

    /// When the service or its contract ended, if one has at `now`.
    pub fn ended_at(&self, name: &str, now: UtcTime) -> Option<UtcTime> {
        let file = self.services.get(name)?;
        let contract = self.contracts.get(&file.contract)?;
        file.expression.ended_at(now).into_iter().chain(contract.ended_at(now)).min()
    }

    /// The checks that agents run at `now`.
    pub fn checks_at(&self, now: UtcTime) -> BTreeMap<String, Check> {
        let mut checks = self.checks_known_at(now);
        checks.retain(|name, _| self.checks.get(name).is_some_and(|history| history.ended_at(now).is_none()));
        checks
    }

    /// The checks that there are or were at `now`; one that has ended is for no agent.
    pub fn checks_known_at(&self, now: UtcTime) -> BTreeMap<String, Check> {
        let known = |(name, history): (&String, &History<Check>)| {
            let mut check = history.in_force(now)?.value.clone();
            if history.ended_at(now).is_some() {
                check.agents.clear();
            }
            Some((name.clone(), check))
        };
        self.checks.iter().filter_map(known).collect()
    }

    /// Names of all checks there ever were.
    pub fn check_names(&self) -> Vec<String> {
        self.checks.keys().cloned().collect()
    }

    /// The checks as live state is to fold them: with the shortest hold of all their versions, so that samples folded
    /// once can be judged under each.
    pub fn checks_to_fold(&self, numbers: &BTreeMap<String, CheckNo>) -> BTreeMap<CheckNo, CheckDef> {
        let held = |def: &CheckDef| hold(Millis(def.interval_ms.into()), Millis(def.timeout_ms.into()));
        let narrowest = |history: &History<Check>| {
            let versions = history.versions().iter().map(|version| &version.value.def);
            versions.min_by_key(|def| held(def)).cloned()
        };
        let numbered = |(name, history): (&String, &History<Check>)| {
            let (no, mut def) = (*numbers.get(name)?, narrowest(history)?);
            def.no = no;
            Some((no, def))
        };
        self.checks.iter().filter_map(numbered).collect()
    }

    /// Everything about one service, with what its vantages say by `testimony` (name of the check → by vantage).
    pub fn dossier(
        &self,
        service: &str,
        testimony: impl Fn(&str) -> BTreeMap<String, Testimony>,
        exclusions: Vec<ExclusionFile>,
    ) -> Option<Dossier> {
        let file = self.services.get(service)?;
        let contract = self.contracts.get(&file.contract)?.map(|clauses| clauses.terms.clone());
        let check = |name: String| {
            let rules = self.checks.get(&name)?.map(rule);
            let vantages = testimony(&name);
            Some((name, CheckFile { rules, vantages }))
        };
        let checks = file.check_names().into_iter().filter_map(check).collect();
        Some(Dossier { contract, service: file.expression.clone(), checks, exclusions })
    }

    /// The checks a service ever named.
    pub fn checks_of(&self, service: &str) -> BTreeSet<String> {
        self.services.get(service).map(ServiceFile::check_names).unwrap_or_default()
    }

    /// The versions in force in `month` of everything the service depends on, as they were known at `known_at`.
    pub fn versions_in(&self, service: &str, month: Span, known_at: UtcTime) -> Vec<VersionNote> {
        let Some(file) = self.services.get(service) else { return Vec::new() };
        let mut notes = Vec::new();
        if let Some(contract) = self.contracts.get(&file.contract) {
            note(&mut notes, &format!("contract {}", file.contract), contract, month, known_at);
        }
        note(&mut notes, &format!("service {service}"), &file.expression, month, known_at);
        for name in file.check_names() {
            if let Some(check) = self.checks.get(&name) {
                note(&mut notes, &format!("check {name}"), check, month, known_at);
            }
        }
        notes
    }
}

impl ServiceFile {
    /// Of all versions.
    fn check_names(&self) -> BTreeSet<String> {
        let versions = self.expression.versions().iter();
        versions.flat_map(|version| version.value.names()).map(str::to_owned).collect()
    }
}

fn rule(check: &Check) -> CheckRule {
    CheckRule {
        interval: Millis(check.def.interval_ms.into()),
        timeout: Millis(check.def.timeout_ms.into()),
        quorum: check.quorum,
    }
}

/// Notes the versions of `history` that hold anywhere in `month`.
fn note<T: Clone>(notes: &mut Vec<VersionNote>, object: &str, history: &History<T>, month: Span, known_at: UtcTime) {
    let Some(known) = history.as_known_at(known_at) else { return };
    let at_first = known.in_force(month.from);
    let later = known.changes(month).filter_map(|at| known.in_force(at));
    let told = |at: UtcTime| (at != Span::ALWAYS.from).then_some(at);
    for Version { valid_from, recorded_at, author, reason, standing, .. } in at_first.into_iter().chain(later) {
        let object = match standing {
            Standing::InForce => object.to_owned(),
            Standing::Ended => format!("{object} (ends)"),
        };
        notes.push(VersionNote {
            object,
            valid_from: told(*valid_from),
            recorded_at: told(*recorded_at),
            author: author.clone(),
            reason: reason.clone(),
        });
    }
    notes.dedup();
}
