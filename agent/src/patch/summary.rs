//! A report for the person who typed `peil-agent patch scan`: the verdict first, then what to act on.

use std::fmt::{self, Display, Formatter};

use super::report::{Finding, Level, Phase, Report, State};

/// Prints a report as text.
pub(crate) struct Summary<'a>(pub(crate) &'a Report);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "{}", headline(report))?;
        writeln!(f, "{}", system(report))?;
        for problem in &report.errors {
            let file = problem.file.as_deref().map(|file| format!("{file}: ")).unwrap_or_default();
            writeln!(f, "! {file}{}", problem.detail)?;
        }
        for (state, title) in [
            (State::Installable, "Security fixes apt would install"),
            (State::Held, "Security fixes kept back by a hold (apt-mark showhold)"),
            (State::BlockedPin, "Security fixes kept back by preferences (apt-cache policy PACKAGE)"),
        ] {
            let found: Vec<&Finding> = report.findings.iter().filter(|finding| finding.state == state).collect();
            if !found.is_empty() {
                writeln!(f, "\n{title}:")?;
            }
            for finding in found {
                let Finding { package, arch, installed, security_version, source, .. } = finding;
                writeln!(f, "  {package}:{arch} {installed} -> {security_version} (source {source})")?;
            }
        }
        writeln!(f, "\nArchives:")?;
        for archive in &report.archives {
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let mark = if archive.security { ", security" } else { "" };
            let (label, suite, date) =
                (or_dash(&archive.label), or_dash(&archive.suite), or_dash(&archive.release_date));
            writeln!(f, "  {label} {suite} {}, of {date}{mark}", archive.components.join(" "))?;
        }
        Ok(())
    }
}

fn headline(report: &Report) -> String {
    let (fixes, pending) = (report.findings.len(), report.pending.len());
    let sources = report.findings.iter().map(|f| &f.source).collect::<std::collections::BTreeSet<_>>().len();
    let found = format!("Security fixes missing: {fixes} (source packages: {sources}), updates pending: {pending}");
    match report.level {
        Level::Known => format!("{found}, packages installed: {}", report.installed),
        Level::Unknown => format!("PATCH LEVEL UNKNOWN, see ! below. {found}, as far as can be seen"),
    }
}

fn system(report: &Report) -> String {
    let os = &report.os;
    let name: Vec<&str> = [&os.id, &os.version_id, &os.codename].into_iter().flatten().map(String::as_str).collect();
    let date = os.end_of_life.date.as_deref().unwrap_or("an unknown day");
    let life = match os.end_of_life.phase {
        Phase::Standard => format!("maintained until {date}"),
        Phase::Lts => format!("long-term support until {date}"),
        Phase::Elts | Phase::Esm => format!("extended support until {date}"),
        Phase::Ended => format!("END OF LIFE since {date}"),
        Phase::Unknown => "end of life not known".to_owned(),
    };
    let reboot = match report.reboot.required {
        Some(true) => "reboot REQUIRED",
        Some(false) => "no reboot required",
        None => "reboot not known",
    };
    let reasons = report.reboot.reasons.join("; ");
    let because = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
    format!("{}; {life}; {reboot}{because}", if name.is_empty() { "unnamed system".to_owned() } else { name.join(" ") })
}
