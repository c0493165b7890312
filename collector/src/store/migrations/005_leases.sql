-- Who drives what, when several collectors share a database.

CREATE TABLE collector (
  holder     TEXT    NOT NULL PRIMARY KEY,      -- made once in the collector's data directory
  name       TEXT    NOT NULL,
  version    TEXT    NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at    INTEGER NOT NULL                   -- the database's clock
) STRICT, WITHOUT ROWID;

-- Facts about the database as a whole: whose authority its agents trust.
CREATE TABLE house (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which collector an agent is connected to; only kept where several share a database.
CREATE TABLE connection (
  agent  BLOB NOT NULL PRIMARY KEY,
  holder TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A lease is held by one collector until its time is over; `epoch` rises whenever the holder changes or starts anew,
-- and whoever writes under an older one is refused.
CREATE TABLE lease (
  name    TEXT    NOT NULL PRIMARY KEY,
  holder  TEXT    NOT NULL,
  epoch   INTEGER NOT NULL,
  until   INTEGER NOT NULL                      -- the database's clock
) STRICT, WITHOUT ROWID;
