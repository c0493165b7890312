-- What follows from blocks, and what blocks become when their day is over. Everything here but `day_block` can be
-- computed again.

-- Hours of an agent about which something came since they were last derived.
CREATE TABLE dirty_hour (
  lane    INTEGER NOT NULL,                     -- the agent's: whose lease it takes to derive it
  agent   BLOB    NOT NULL,
  hour_ms INTEGER NOT NULL,
  PRIMARY KEY (lane, agent, hour_ms)
) STRICT, WITHOUT ROWID;

-- Histograms are HdrHistogram V2; no bytes stand for no values.
CREATE TABLE latency_hour (
  agent    BLOB    NOT NULL,
  check_no INTEGER NOT NULL,
  hour_ms  INTEGER NOT NULL,
  up       INTEGER NOT NULL,
  failed   INTEGER NOT NULL,
  not_run  INTEGER NOT NULL,
  held     INTEGER NOT NULL,                    -- of `up`: beyond the range of the histogram
  total    BLOB    NOT NULL,
  PRIMARY KEY (agent, check_no, hour_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX latency_hour_by_time ON latency_hour (hour_ms);

CREATE TABLE latency_day (
  agent      BLOB    NOT NULL,
  check_no   INTEGER NOT NULL,
  day        INTEGER NOT NULL,                  -- days since 1970, UTC
  up         INTEGER NOT NULL,
  failed     INTEGER NOT NULL,
  not_run    INTEGER NOT NULL,
  held       INTEGER NOT NULL,
  total      BLOB    NOT NULL,
  resolve    BLOB    NOT NULL,
  connect    BLOB    NOT NULL,
  tls        BLOB    NOT NULL,
  first_byte BLOB    NOT NULL,
  transfer   BLOB    NOT NULL,
  PRIMARY KEY (agent, check_no, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX latency_day_by_time ON latency_day (day);

CREATE TABLE latency_month (
  agent      BLOB    NOT NULL,
  check_no   INTEGER NOT NULL,
  day        INTEGER NOT NULL,                  -- the first of the month
  up         INTEGER NOT NULL,
  failed     INTEGER NOT NULL,
  not_run    INTEGER NOT NULL,
  held       INTEGER NOT NULL,
  total      BLOB    NOT NULL,
  resolve    BLOB    NOT NULL,
  connect    BLOB    NOT NULL,
  tls        BLOB    NOT NULL,
  first_byte BLOB    NOT NULL,
  transfer   BLOB    NOT NULL,
  PRIMARY KEY (agent, check_no, day)
) STRICT, WITHOUT ROWID;

-- The states of a vantage, each day by itself (contract/track.rs).
CREATE TABLE state_piece (
  agent    BLOB    NOT NULL,
  check_no INTEGER NOT NULL,
  day      INTEGER NOT NULL,
  first_ms INTEGER NOT NULL,
  last_ms  INTEGER NOT NULL,
  state    TEXT    NOT NULL,
  hold_ms  INTEGER NOT NULL,                    -- how long a sample held when this was derived
  PRIMARY KEY (agent, check_no, day, first_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX state_piece_by_time ON state_piece (day);

-- only sqlite
-- A rowid table: rows of kilobytes in a tree of keys would leave most pages half empty.
CREATE TABLE day_block (
  agent    BLOB    NOT NULL,
  day      INTEGER NOT NULL,
  check_no INTEGER NOT NULL,                    -- -1: everything that is no sample, and the ledger
  version  INTEGER NOT NULL,                    -- rises whenever the day is compacted again
  records  INTEGER NOT NULL,
  bytes    BLOB    NOT NULL,
  PRIMARY KEY (agent, day, check_no)
) STRICT;

-- only postgres
CREATE TABLE day_block (
  agent    BLOB    NOT NULL,
  day      INTEGER NOT NULL,
  check_no INTEGER NOT NULL,
  version  INTEGER NOT NULL,
  records  INTEGER NOT NULL,
  bytes    BLOB    NOT NULL,
  PRIMARY KEY (agent, day, check_no)
);
ALTER TABLE day_block ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- both
CREATE INDEX day_block_by_time ON day_block (day);
