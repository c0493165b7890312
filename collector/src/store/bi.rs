//! `bi.*`: views for reports and dashboards of others, and a role that may read nothing else. PostgreSQL only: a file
//! has no roles.
//!
//! The tables change with the program; the views keep their columns. Times are `timestamptz`, amounts carry their unit in
//! the name, ids are hex. Secrets, sessions, the outbox and the audit log are not in them.
//!
//! They are laid out when a collector opens the database and finds some missing. That needs the right to make a schema
//! (owning the database is enough, being a superuser is not needed) and, for the role, `CREATEROLE`; whatever is
//! refused is left, and `peil-collector doctor` tells the statement for somebody who may. A view that is there is never
//! touched: a change of its columns has a new name.
//!
//! In another schema than `public` the views are in `SCHEMA_bi`, so that several stores may share a database.

use super::db::{self, Connection, Engine};

/// The role that reports log in as, or are granted.
pub const ROLE: &str = "peil_bi";

/// What is there of the views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Their schema.
    pub schema: String,
    /// Views that are not there.
    pub missing: Vec<&'static str>,
    /// Whether all are there, and the role exists and may read them.
    pub role: bool,
}

impl Standing {
    /// What somebody who may has to run; nothing when all is there.
    pub fn remedy(&self) -> Option<String> {
        let Self { schema, missing, role } = self;
        if !missing.is_empty() {
            return Some(format!(
                "CREATE SCHEMA {schema} AUTHORIZATION {{the collector's user}}, then restart a collector"
            ));
        }
        let grants = format!(
            "GRANT USAGE ON SCHEMA {schema} TO {ROLE}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {ROLE}"
        );
        (!role).then(|| format!("CREATE ROLE {ROLE} NOLOGIN; {grants}"))
    }
}

const AT: &str = "to_timestamp(CAST({} AS DOUBLE PRECISION) / 1000)";

/// Name and definition of each view; `[x]` is a time in ms.
const VIEWS: [(&str, &str); 7] = [
    (
        "agents",
        "SELECT encode(a.agent, 'hex') AS agent, a.hostname, a.host_group, [a.enrolled_at] AS enrolled_at,
           [a.revoked_at] AS revoked_at, [GREATEST(a.last_contact, s.last_at)] AS last_contact,
           CAST(COALESCE(s.records, 0) AS BIGINT) AS records, CAST(COALESCE(s.lost, 0) AS BIGINT) AS records_lost,
           [a.cert_not_after] AS certificate_until
         FROM agent a LEFT JOIN (SELECT agent, SUM(records) AS records, SUM(lost) AS lost, MAX(last_at) AS last_at
           FROM agent_stream GROUP BY agent) s ON s.agent = a.agent",
    ),
    (
        "outages",
        "SELECT service, [from_ms] AS began, [to_ms] AS ended, counted_ms, because AS because_json FROM outage",
    ),
    (
        "findings",
        "SELECT encode(f.agent, 'hex') AS agent, a.hostname, f.package, f.arch, f.security_version, f.source,
           f.installed, f.candidate, f.state, [f.first_seen] AS first_seen, [f.due_at] AS due, [f.last_seen] AS last_seen,
           [f.closed_at] AS closed
         FROM finding f JOIN agent a ON a.agent = f.agent",
    ),
    (
        "days",
        "SELECT encode(d.agent, 'hex') AS agent, a.hostname, c.name AS check_name, DATE '1970-01-01' + CAST(d.day AS INTEGER) AS day,
           d.up, d.failed, d.not_run
         FROM latency_day d JOIN agent a ON a.agent = d.agent JOIN check_name c ON c.no = d.check_no",
    ),
    (
        "months",
        "SELECT service, month, version, [sealed_at] AS sealed, sealed_by, CAST(document AS JSONB) -> 'figure' AS figure_json
           FROM edition
         UNION ALL SELECT service, month, NULL, NULL, NULL, CAST(figure AS JSONB) FROM month_figure",
    ),
    (
        "energy_hours",
        "SELECT encode(e.agent, 'hex') AS agent, a.hostname, e.source, [e.hour_ms] AS hour, e.energy_uj, e.low_uj,
           e.high_uj, e.covered_ms, e.active_ms, e.method, e.boundary, e.covers
         FROM energy_hour e JOIN agent a ON a.agent = e.agent",
    ),
    (
        "alerts",
        "SELECT id, alert_key, kind, severity, subject, summary, action, [opened_at] AS opened,
           [resolved_at] AS resolved FROM alert",
    ),
];

/// The definition with its times written out.
fn definition(short: &str) -> String {
    let mut sql = String::with_capacity(short.len() * 2);
    for part in short.split('[') {
        match part.split_once(']') {
            Some((time, rest)) => {
                sql.push_str(&AT.replace("{}", time));
                sql.push_str(rest);
            }
            None => sql.push_str(part),
        }
    }
    sql
}

/// What is there; nothing on an engine without roles.
pub(super) fn standing(db: &Connection) -> db::Result<Option<Standing>> {
    if db.engine() == Engine::Sqlite {
        return Ok(None);
    }
    let ours: String = db.query_row("SELECT CAST(CURRENT_SCHEMA AS TEXT)", (), |row| row.get(0))?;
    let schema = if ours == "public" { "bi".to_owned() } else { format!("{ours}_bi") };
    let mut ask = db.prepare_cached("SELECT CAST(viewname AS TEXT) FROM pg_views WHERE schemaname = ?1")?;
    let there: Vec<String> = ask.query_map([&schema], |row| row.get(0))?.collect::<db::Result<_>>()?;
    let missing: Vec<&str> =
        VIEWS.iter().map(|(name, _)| *name).filter(|name| !there.iter().any(|view| view == name)).collect();
    let known: i64 = db.query_row("SELECT COUNT(*) FROM pg_roles WHERE rolname = ?1", [ROLE], |row| row.get(0))?;
    let mut role = known > 0 && missing.is_empty();
    for (name, _) in &VIEWS {
        if !role {
            break;
        }
        let ask = "SELECT has_schema_privilege(CAST(?1 AS TEXT), CAST(?2 AS TEXT), 'USAGE')
                     AND has_table_privilege(CAST(?1 AS TEXT), CAST(?3 AS TEXT), 'SELECT')";
        let view = format!("{schema}.{name}");
        role &= db.query_row(ask, (ROLE, schema.as_str(), view.as_str()), |row| row.get::<i64>(0))? == 1;
    }
    Ok(Some(Standing { schema, missing, role }))
}

/// Makes what is missing, as far as this user may. What is refused, or made by another collector at the same moment, is
/// passed over: the next start looks again.
pub(super) fn lay_out(db: &Connection) -> db::Result<()> {
    let Some(found) = standing(db)? else { return Ok(()) };
    if found.missing.is_empty() && found.role {
        return Ok(());
    }
    let schema = &found.schema;
    // Each by itself: without a role there are still views, and who may not make a schema may have been given one.
    attempt(db, &format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    for (name, short) in VIEWS.iter().filter(|(name, _)| found.missing.contains(name)) {
        attempt(db, &format!("CREATE VIEW {schema}.{name} AS {}", definition(short)));
    }
    if !found.role {
        attempt(db, &format!("CREATE ROLE {ROLE} NOLOGIN"));
        attempt(db, &format!("GRANT USAGE ON SCHEMA {schema} TO {ROLE}"));
        attempt(db, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {ROLE}"));
    }
    Ok(())
}

fn attempt(db: &Connection, sql: &str) {
    if let Err(error) = db.execute_batch(sql) {
        tracing::debug!(%error, sql, "the views for reports are not all there; `doctor` tells what to do");
    }
}
