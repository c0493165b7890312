-- What was made of the blocks. Every row is overwritten by whoever computes it again.

-- How far a job has come; written in the transaction of what it derived.
CREATE TABLE watermark (
  job     TEXT    NOT NULL,
  lane    INTEGER NOT NULL,
  through INTEGER NOT NULL,                     -- block.no
  PRIMARY KEY (job, lane)
) STRICT, WITHOUT ROWID;

CREATE TABLE outage (
  service    TEXT    NOT NULL,
  from_ms    INTEGER NOT NULL,
  to_ms      INTEGER,                           -- NULL while it lasts
  counted_ms INTEGER NOT NULL,
  because    TEXT    NOT NULL,                  -- JSON list of checks
  PRIMARY KEY (service, from_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE finding (
  agent            BLOB    NOT NULL,
  package          TEXT    NOT NULL,
  arch             TEXT    NOT NULL,
  security_version TEXT    NOT NULL,
  source           TEXT    NOT NULL,
  installed        TEXT    NOT NULL,
  candidate        TEXT    NOT NULL,
  state            TEXT    NOT NULL,
  first_seen       INTEGER NOT NULL,
  version_seen     INTEGER NOT NULL,
  due_at           INTEGER NOT NULL,
  last_seen        INTEGER NOT NULL,
  closed_at        INTEGER,
  PRIMARY KEY (agent, package, arch)
) STRICT, WITHOUT ROWID;

CREATE INDEX finding_open ON finding (agent) WHERE closed_at IS NULL;

CREATE TABLE energy_hour (
  agent      BLOB    NOT NULL,
  source     TEXT    NOT NULL,
  hour_ms    INTEGER NOT NULL,
  energy_uj  INTEGER NOT NULL,
  low_uj     INTEGER NOT NULL,
  high_uj    INTEGER NOT NULL,
  covered_ms INTEGER NOT NULL,
  active_ms  INTEGER NOT NULL,
  method     TEXT    NOT NULL,
  boundary   TEXT    NOT NULL,
  covers     TEXT    NOT NULL,
  PRIMARY KEY (agent, source, hour_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX energy_hour_by_time ON energy_hour (hour_ms);

-- What stands behind a changed outcome.
CREATE TABLE detail (
  agent        BLOB    NOT NULL,
  check_no     INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  record       BLOB    NOT NULL,                -- peil.v1.Record
  PRIMARY KEY (agent, check_no, scheduled_at)
) STRICT, WITHOUT ROWID;

-- The newest of each kind a host told about itself.
CREATE TABLE host_report (
  agent  BLOB    NOT NULL,
  kind   TEXT    NOT NULL,                      -- facts, vitals, patch, energy
  at     INTEGER NOT NULL,
  record BLOB    NOT NULL,                      -- peil.v1.Record
  PRIMARY KEY (agent, kind)
) STRICT, WITHOUT ROWID;
