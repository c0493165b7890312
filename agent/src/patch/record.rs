//! A scan's report as it goes into the spool: what the collector judges, without what only people here need.

use peil_proto::record::{Archive, Finding, FindingState, PatchReport, ScanError};
use peil_proto::time::UtcTime;

use super::report::{Level, Report, State};

/// Findings sent at most. A host that lacks more is told so, and its level stays what it is.
const FINDINGS_MAX: usize = 20_000;

impl Report {
    /// The record of a scan made at `scanned_at`.
    pub fn to_record(&self, scanned_at: UtcTime) -> PatchReport {
        let moment = |text: &Option<String>| text.as_deref().and_then(|text| UtcTime::parse(text).ok());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let archive = |archive: &super::report::Archive| Archive {
            origin: text(&archive.origin),
            label: text(&archive.label),
            suite: text(&archive.suite),
            codename: text(&archive.codename),
            release_at: moment(&archive.release_date),
            valid_until: moment(&archive.valid_until),
            security: archive.security,
        };
        let finding = |finding: &super::report::Finding| Finding {
            source: finding.source.clone(),
            package: finding.package.clone(),
            arch: finding.arch.clone(),
            installed: finding.installed.clone(),
            security_version: finding.security_version.clone(),
            candidate: finding.candidate.clone(),
            state: match finding.state {
                State::Installable => FindingState::Installable,
                State::Held => FindingState::Held,
                State::BlockedPin => FindingState::BlockedPin,
            },
        };
        let mut errors: Vec<_> = self
            .errors
            .iter()
            .map(|problem| ScanError {
                kind: serde_json::to_value(problem.kind)
                    .ok()
                    .and_then(|kind| kind.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                file: text(&problem.file),
                detail: problem.detail.clone(),
            })
            .collect();
        if self.findings.len() > FINDINGS_MAX {
            let detail = format!("{} findings; the first {FINDINGS_MAX} were sent", self.findings.len());
            errors.push(ScanError { kind: "findings_cut".to_owned(), file: String::new(), detail });
        }
        PatchReport {
            scanned_at,
            os_id: text(&self.os.id),
            os_version: text(&self.os.version_id),
            os_codename: text(&self.os.codename),
            end_of_life: self.os.end_of_life.date.clone(),
            installed: u32::try_from(self.installed).unwrap_or(u32::MAX),
            pending: u32::try_from(self.pending.len()).unwrap_or(u32::MAX),
            findings: self.findings.iter().take(FINDINGS_MAX).map(finding).collect(),
            archives: self.archives.iter().map(archive).collect(),
            reboot_required: self.reboot.required,
            reboot_reasons: self.reboot.reasons.clone(),
            errors,
            known: self.level == Level::Known && self.findings.len() <= FINDINGS_MAX,
        }
    }
}
