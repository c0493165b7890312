//! Every table there is, and what becomes of its rows when a database is copied: the one list that back-up, restore and
//! migration walk.
//!
//! A migration that adds a table adds its line here; `tests/tables.rs` compares the list with the schema of both engines
//! and fails until it does. Columns are not listed: they are asked of the schema.
//!
//! The order is the order of copying: what another table refers to comes first.

/// A table of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: &'static str,
    /// Its primary key: rows are copied in this order, which is the same on both engines.
    pub(super) key: &'static [&'static str],
    /// What becomes of its rows.
    pub(super) how: How,
}

/// What becomes of the rows of a table in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// They stand there as they are, cell by cell.
    Copied,
    /// The log of blocks: cell by cell, but for the place in it, which is given anew.
    Log,
    /// Rows of agents, each under the lane of its agent, which is given anew; `key` is without the lane.
    ByLane,
    /// Tells places in the log: written anew along with it.
    Places,
    /// Says what runs on this database now: never leaves it.
    Local,
}

const fn copied(name: &'static str, key: &'static [&'static str]) -> Table {
    Table { name, key, how: How::Copied }
}

/// All of them. `lane` is only there on PostgreSQL, whose `block` has the key (lane, no).
pub(super) const TABLES: &[Table] = &[
    copied("house", &["name"]),
    copied("agent", &["agent"]),
    copied("agent_stream", &["agent", "epoch"]),
    copied("check_name", &["no"]),
    copied("token", &["hash"]),
    Table { name: "block", key: &["no"], how: How::Log },
    Table { name: "block_reach", key: &["lane", "segment"], how: How::Places },
    Table { name: "lane", key: &["lane"], how: How::Places },
    Table { name: "watermark", key: &["job", "lane"], how: How::Places },
    copied("lost_range", &["agent", "epoch", "after_seq"]),
    copied("clock_error", &["agent", "day"]),
    copied("day_block", &["agent", "day", "check_no"]),
    Table { name: "dirty_hour", key: &["agent", "hour_ms"], how: How::ByLane },
    copied("latency_hour", &["agent", "check_no", "hour_ms"]),
    copied("latency_day", &["agent", "check_no", "day"]),
    copied("latency_month", &["agent", "check_no", "day"]),
    copied("state_piece", &["agent", "check_no", "day", "first_ms"]),
    copied("object_version", &["kind", "name", "valid_from", "recorded_at"]),
    copied("exclusion", &["id"]),
    copied("exclusion_act", &["exclusion", "seq"]),
    copied("edition", &["service", "month", "version"]),
    copied("month_figure", &["service", "month"]),
    copied("outage", &["service", "from_ms"]),
    copied("finding", &["agent", "package", "arch"]),
    copied("energy_hour", &["agent", "source", "hour_ms"]),
    copied("detail", &["agent", "check_no", "scheduled_at"]),
    copied("host_report", &["agent", "kind"]),
    copied("counter", &["name"]),
    copied("alert", &["id"]),
    copied("delivery", &["id"]),
    copied("person", &["name"]),
    copied("session", &["hash"]),
    copied("api_token", &["hash"]),
    copied("audit", &["seq"]),
    Table { name: "schema_version", key: &["number"], how: How::Local },
    Table { name: "collector", key: &["holder"], how: How::Local },
    Table { name: "connection", key: &["agent"], how: How::Local },
    Table { name: "lease", key: &["name"], how: How::Local },
    Table { name: "transfer", key: &["name"], how: How::Local },
];

/// The tables whose rows are what a database is kept for.
pub(super) fn kept() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(|table| matches!(table.how, How::Copied | How::Log | How::ByLane))
}
