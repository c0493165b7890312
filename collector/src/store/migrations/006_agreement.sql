-- What was agreed, decided and sealed. Rows are only ever added; but for month_figure, which is overwritten by
-- whoever computes it again.

CREATE TABLE object_version (
  kind        TEXT    NOT NULL,                 -- contract, service, check
  name        TEXT    NOT NULL,
  valid_from  INTEGER NOT NULL,                 -- the lowest integer: since ever
  recorded_at INTEGER NOT NULL,
  author      TEXT    NOT NULL,
  reason      TEXT    NOT NULL,
  body        TEXT    NOT NULL,                 -- the table of the file, as JSON
  PRIMARY KEY (kind, name, valid_from, recorded_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE exclusion (
  id           TEXT    NOT NULL PRIMARY KEY,
  service      TEXT    NOT NULL,
  kind         TEXT    NOT NULL,
  from_ms      INTEGER NOT NULL,
  to_ms        INTEGER NOT NULL,
  announced_at INTEGER,
  reason       TEXT    NOT NULL,
  proposed_at  INTEGER NOT NULL,
  proposed_by  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX exclusion_by_end ON exclusion (to_ms);

-- What people did about it, in order.
CREATE TABLE exclusion_act (
  exclusion TEXT    NOT NULL,
  seq       INTEGER NOT NULL,                   -- dense, from 0
  at        INTEGER NOT NULL,
  who       TEXT    NOT NULL,
  deed      TEXT    NOT NULL,                   -- approve, refuse, close
  detail    TEXT    NOT NULL,
  end_ms    INTEGER,
  PRIMARY KEY (exclusion, seq)
) STRICT, WITHOUT ROWID;

-- A sealed edition of a service's month, with the data it was made from.
CREATE TABLE edition (
  service   TEXT    NOT NULL,
  month     TEXT    NOT NULL,
  version   INTEGER NOT NULL,
  sealed_at INTEGER NOT NULL,
  sealed_by TEXT,                               -- NULL: the agreed day
  reason    TEXT    NOT NULL,
  author    TEXT    NOT NULL,
  inputs    BLOB    NOT NULL,
  document  TEXT    NOT NULL,
  data      TEXT    NOT NULL,
  PRIMARY KEY (service, month, version)
) STRICT, WITHOUT ROWID;

-- The figure of a month that is over, as far as it is known.
CREATE TABLE month_figure (
  service     TEXT    NOT NULL,
  month       TEXT    NOT NULL,
  computed_at INTEGER NOT NULL,
  inputs      BLOB    NOT NULL,
  figure      TEXT    NOT NULL,
  PRIMARY KEY (service, month)
) STRICT, WITHOUT ROWID;
