//! Wire message ↔ domain value. Refuses what is malformed, and says where.
//!
//! Three forms of the same records: [`to_spool`]/[`from_spool`] (one record, in the agent's spool),
//! [`to_item`]/[`from_item`] (in a block), and the plan messages. Unknown record kinds from a newer agent
//! are kept in the block and skipped by the reader; unknown codes are refused.

mod plan;
mod summary;
#[cfg(test)]
mod tests;

use prost::Message as _;

use crate::block::Item;
use crate::ids::CheckNo;
use crate::record::{
    Archive, Boundary, Certificate, EnergyReading, Finding, FindingState, Gap, HostFacts, Method, PatchReport,
    ProbeDetail, Record, ScanError, Vitals,
};
use crate::sample::{FailureKind, GapReason, NotRun, Outcome, Phases, Sample};
use crate::time::UtcTime;
use crate::units::{Microjoules, Micros, Millis};
use crate::wire;
use crate::wire::record::Kind;

pub use plan::{plan_from_wire, plan_to_wire};

/// Why a message is not a value. Sending the same bytes again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not protobuf at all.
    #[error("record is not readable")]
    Unreadable(#[source] prost::DecodeError),
    /// A field has a value that means nothing.
    #[error("record has no meaning: {0}")]
    Field(&'static str),
}

/// The bytes of one record as they stand in the spool.
pub fn to_spool(record: &Record) -> Vec<u8> {
    to_wire(record).encode_to_vec()
}

/// A record from the spool; `None` for a kind this program does not know.
///
/// # Errors
/// [`Malformed`] when the bytes are not a record.
pub fn from_spool(bytes: &[u8]) -> Result<Option<Record>, Malformed> {
    from_wire(wire::Record::decode(bytes).map_err(Malformed::Unreadable)?)
}

/// A spooled record as it goes into a block.
///
/// # Errors
/// [`Malformed`] when the bytes are not a record.
pub fn to_item(spooled: &[u8]) -> Result<Item, Malformed> {
    let record = wire::Record::decode(spooled).map_err(Malformed::Unreadable)?;
    Ok(match record.kind {
        Some(Kind::Sample(sample)) => Item::Sample(sample_from(sample)?),
        _ => Item::Other(spooled.to_vec()),
    })
}

/// A record out of a block; `None` for a kind this program does not know.
///
/// # Errors
/// [`Malformed`] when the embedded bytes are not a record.
pub fn from_item(item: &Item) -> Result<Option<Record>, Malformed> {
    match item {
        Item::Sample(sample) => Ok(Some(Record::Sample(*sample))),
        Item::Other(bytes) => from_spool(bytes),
    }
}

fn to_wire(record: &Record) -> wire::Record {
    let kind = match record {
        Record::Sample(sample) => Kind::Sample(sample_to(sample)),
        Record::Gap(gap) => Kind::Gap(wire::Gap {
            from_ms: gap.from.0,
            to_ms: gap.to.0,
            reason: gap.reason.code().into(),
            check: gap.check.map_or(0, |check| check.0),
            records_lost: gap.records_lost,
            ok_lost: gap.ok_lost,
            not_ok_lost: gap.not_ok_lost,
        }),
        Record::Detail(detail) => Kind::Detail(wire::ProbeDetail {
            check: detail.check.0,
            scheduled_ms: detail.scheduled_at.0,
            peer: detail.peer.clone(),
            text: detail.text.clone(),
            certificate: detail.certificate.as_ref().map(|certificate| wire::Certificate {
                subject: certificate.subject.clone(),
                issuer: certificate.issuer.clone(),
                not_before_ms: certificate.not_before.0,
                not_after_ms: certificate.not_after.0,
                sha256: certificate.sha256.to_vec(),
            }),
        }),
        Record::Patch(report) => Kind::Patch(patch_to(report)),
        Record::Energy(reading) => Kind::Energy(energy_to(reading)),
        Record::Facts(facts) => Kind::Facts(wire::HostFacts {
            hostname: facts.hostname.clone(),
            os: facts.os.clone(),
            kernel: facts.kernel.clone(),
            arch: facts.arch.clone(),
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            agent_version: facts.agent_version.clone(),
            boot_id: facts.boot_id.clone(),
        }),
        Record::Vitals(vitals) => Kind::Vitals(wire::Vitals {
            at_ms: vitals.at.0,
            rss_bytes: vitals.rss_bytes,
            cpu_us: vitals.cpu.0.into(),
            spool_records: vitals.spool_records,
            spool_bytes: vitals.spool_bytes,
            ticks_due: vitals.ticks_due,
            ticks_late: vitals.ticks_late,
            ticks_not_run: vitals.ticks_not_run,
            spool_degraded: vitals.spool_degraded,
            plan_version: vitals.plan_version,
            ticks_tainted: vitals.ticks_tainted,
            stretch: vitals.stretch,
        }),
        Record::Summary(told) => Kind::Summary(summary::to_wire(told)),
    };
    wire::Record { kind: Some(kind) }
}

fn from_wire(record: wire::Record) -> Result<Option<Record>, Malformed> {
    let Some(kind) = record.kind else { return Ok(None) };
    Ok(Some(match kind {
        Kind::Sample(sample) => Record::Sample(sample_from(sample)?),
        Kind::Gap(gap) => Record::Gap(Gap {
            from: UtcTime(gap.from_ms),
            to: UtcTime(gap.to_ms),
            reason: code(gap.reason, GapReason::from_code, "gap.reason")?,
            check: (gap.check != 0).then_some(CheckNo(gap.check)),
            records_lost: gap.records_lost,
            ok_lost: gap.ok_lost,
            not_ok_lost: gap.not_ok_lost,
        }),
        Kind::Detail(detail) => Record::Detail(ProbeDetail {
            check: CheckNo(detail.check),
            scheduled_at: UtcTime(detail.scheduled_ms),
            peer: detail.peer,
            text: detail.text,
            certificate: detail.certificate.map(certificate_from).transpose()?,
        }),
        Kind::Patch(report) => Record::Patch(patch_from(report)?),
        Kind::Energy(reading) => Record::Energy(energy_from(reading)?),
        Kind::Facts(facts) => Record::Facts(HostFacts {
            hostname: facts.hostname,
            os: facts.os,
            kernel: facts.kernel,
            arch: facts.arch,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            agent_version: facts.agent_version,
            boot_id: facts.boot_id,
        }),
        Kind::Vitals(vitals) => Record::Vitals(Vitals {
            at: UtcTime(vitals.at_ms),
            rss_bytes: vitals.rss_bytes,
            cpu: Micros(u32::try_from(vitals.cpu_us).unwrap_or(u32::MAX)),
            spool_records: vitals.spool_records,
            spool_bytes: vitals.spool_bytes,
            ticks_due: vitals.ticks_due,
            ticks_late: vitals.ticks_late,
            ticks_not_run: vitals.ticks_not_run,
            spool_degraded: vitals.spool_degraded,
            plan_version: vitals.plan_version,
            ticks_tainted: vitals.ticks_tainted,
            stretch: vitals.stretch,
        }),
        Kind::Summary(told) => Record::Summary(summary::from_wire(told)?),
    }))
}

/// A small code into its meaning, or the field's name as the complaint.
fn code<T>(value: u32, read: impl Fn(u8) -> Option<T>, field: &'static str) -> Result<T, Malformed> {
    u8::try_from(value).ok().and_then(read).ok_or(Malformed::Field(field))
}

fn sample_to(sample: &Sample) -> wire::Sample {
    let (outcome, reason, code) = match sample.outcome {
        Outcome::Up { code } => (0, 0, code),
        Outcome::Failed { kind, code } => (1, kind.code(), code),
        Outcome::NotRun(why) => (2, why.code(), 0),
    };
    let phases = sample.phases.to_array();
    wire::Sample {
        check: sample.check.0,
        scheduled_ms: sample.scheduled_at.0,
        delay_ms: sample.delay.0,
        outcome,
        reason: reason.into(),
        code: code.into(),
        phase_mask: (0..5).zip(phases).fold(0, |mask, (at, phase)| mask | (u32::from(phase.is_some()) << at)),
        phases_us: phases.into_iter().flatten().map(|phase| phase.0).collect(),
    }
}

fn sample_from(sample: wire::Sample) -> Result<Sample, Malformed> {
    let http = u16::try_from(sample.code).map_err(|_| Malformed::Field("sample.code"))?;
    let outcome = match sample.outcome {
        0 => Outcome::Up { code: http },
        1 => Outcome::Failed { kind: code(sample.reason, FailureKind::from_code, "sample.reason")?, code: http },
        2 => Outcome::NotRun(code(sample.reason, NotRun::from_code, "sample.reason")?),
        _ => return Err(Malformed::Field("sample.outcome")),
    };
    if sample.phase_mask >= 32 || sample.phase_mask.count_ones() as usize != sample.phases_us.len() {
        return Err(Malformed::Field("sample.phases_us"));
    }
    let mut times = sample.phases_us.into_iter().map(Micros);
    let phases = std::array::from_fn(|at| if sample.phase_mask & (1 << at) == 0 { None } else { times.next() });
    Ok(Sample {
        check: CheckNo(sample.check),
        scheduled_at: UtcTime(sample.scheduled_ms),
        delay: Millis(sample.delay_ms),
        outcome,
        phases: Phases::from_array(phases),
    })
}

fn certificate_from(certificate: wire::Certificate) -> Result<Certificate, Malformed> {
    Ok(Certificate {
        subject: certificate.subject,
        issuer: certificate.issuer,
        not_before: UtcTime(certificate.not_before_ms),
        not_after: UtcTime(certificate.not_after_ms),
        sha256: certificate.sha256.try_into().map_err(|_| Malformed::Field("certificate.sha256"))?,
    })
}

fn patch_to(report: &PatchReport) -> wire::PatchReport {
    let finding = |finding: &Finding| wire::Finding {
        source: finding.source.clone(),
        package: finding.package.clone(),
        arch: finding.arch.clone(),
        installed: finding.installed.clone(),
        security_version: finding.security_version.clone(),
        candidate: finding.candidate.clone(),
        state: match finding.state {
            FindingState::Installable => 0,
            FindingState::Held => 1,
            FindingState::BlockedPin => 2,
        },
    };
    let archive = |archive: &Archive| wire::Archive {
        origin: archive.origin.clone(),
        label: archive.label.clone(),
        suite: archive.suite.clone(),
        codename: archive.codename.clone(),
        release_ms: archive.release_at.map_or(0, |at| at.0),
        valid_until_ms: archive.valid_until.map_or(0, |at| at.0),
        security: archive.security,
    };
    let error = |error: &ScanError| wire::ScanError {
        kind: error.kind.clone(),
        file: error.file.clone(),
        detail: error.detail.clone(),
    };
    wire::PatchReport {
        scanned_ms: report.scanned_at.0,
        os_id: report.os_id.clone(),
        os_version: report.os_version.clone(),
        os_codename: report.os_codename.clone(),
        end_of_life: report.end_of_life.clone().unwrap_or_default(),
        installed: report.installed,
        pending: report.pending,
        findings: report.findings.iter().map(finding).collect(),
        archives: report.archives.iter().map(archive).collect(),
        reboot: report.reboot_required.map_or(0, |required| 1 + u32::from(required)),
        reboot_reasons: report.reboot_reasons.clone(),
        errors: report.errors.iter().map(error).collect(),
        known: report.known,
    }
}

fn patch_from(report: wire::PatchReport) -> Result<PatchReport, Malformed> {
    let moment = |ms: i64| (ms != 0).then_some(UtcTime(ms));
    let finding = |finding: wire::Finding| {
        let state = match finding.state {
            0 => FindingState::Installable,
            1 => FindingState::Held,
            2 => FindingState::BlockedPin,
            _ => return Err(Malformed::Field("finding.state")),
        };
        let wire::Finding { source, package, arch, installed, security_version, candidate, .. } = finding;
        Ok(Finding { source, package, arch, installed, security_version, candidate, state })
    };
    let archive = |archive: wire::Archive| Archive {
        release_at: moment(archive.release_ms),
        valid_until: moment(archive.valid_until_ms),
        origin: archive.origin,
        label: archive.label,
        suite: archive.suite,
        codename: archive.codename,
        security: archive.security,
    };
    let error = |wire::ScanError { kind, file, detail }| ScanError { kind, file, detail };
    Ok(PatchReport {
        scanned_at: UtcTime(report.scanned_ms),
        os_id: report.os_id,
        os_version: report.os_version,
        os_codename: report.os_codename,
        end_of_life: (!report.end_of_life.is_empty()).then_some(report.end_of_life),
        installed: report.installed,
        pending: report.pending,
        findings: report.findings.into_iter().map(finding).collect::<Result<_, _>>()?,
        archives: report.archives.into_iter().map(archive).collect(),
        reboot_required: match report.reboot {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            _ => return Err(Malformed::Field("patch.reboot")),
        },
        reboot_reasons: report.reboot_reasons,
        errors: report.errors.into_iter().map(error).collect(),
        known: report.known,
    })
}

fn energy_to(reading: &EnergyReading) -> wire::EnergyReading {
    wire::EnergyReading {
        source: reading.source.clone(),
        start_ms: reading.start.0,
        end_ms: reading.end.0,
        energy_uj: reading.energy.0,
        low_uj: reading.low.0,
        high_uj: reading.high.0,
        active_ms: reading.active.0.max(0).unsigned_abs(),
        method: match reading.method {
            Method::Measured => 0,
            Method::Estimated => 1,
            Method::Modelled => 2,
        },
        boundary: match reading.boundary {
            Boundary::Component => 0,
            Boundary::Platform => 1,
            Boundary::Wall => 2,
        },
        covers: reading.covers.clone(),
        flags: reading.flags.clone(),
        detail: reading.detail.clone(),
    }
}

fn energy_from(reading: wire::EnergyReading) -> Result<EnergyReading, Malformed> {
    let bounds_hold = reading.low_uj <= reading.energy_uj && reading.energy_uj <= reading.high_uj;
    if !bounds_hold {
        return Err(Malformed::Field("energy bounds"));
    }
    if reading.end_ms <= reading.start_ms {
        return Err(Malformed::Field("energy interval"));
    }
    Ok(EnergyReading {
        source: reading.source,
        start: UtcTime(reading.start_ms),
        end: UtcTime(reading.end_ms),
        energy: Microjoules(reading.energy_uj),
        low: Microjoules(reading.low_uj),
        high: Microjoules(reading.high_uj),
        active: Millis(i64::try_from(reading.active_ms).map_err(|_| Malformed::Field("energy.active_ms"))?),
        method: match reading.method {
            0 => Method::Measured,
            1 => Method::Estimated,
            2 => Method::Modelled,
            _ => return Err(Malformed::Field("energy.method")),
        },
        boundary: match reading.boundary {
            0 => Boundary::Component,
            1 => Boundary::Platform,
            2 => Boundary::Wall,
            _ => return Err(Malformed::Field("energy.boundary")),
        },
        covers: reading.covers,
        flags: reading.flags,
        detail: reading.detail,
    })
}
