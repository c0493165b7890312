-- Alerts, and the outbox that carries them out at least once.

-- Numbers given last, by what they are for. Never reused.
CREATE TABLE counter (
  name TEXT    NOT NULL PRIMARY KEY,
  last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alert (
  id          INTEGER NOT NULL PRIMARY KEY,
  alert_key   TEXT    NOT NULL,
  kind        TEXT    NOT NULL,
  severity    TEXT    NOT NULL,
  subject     TEXT    NOT NULL,
  summary     TEXT    NOT NULL,
  action      TEXT    NOT NULL,
  opened_at   INTEGER NOT NULL,
  resolved_at INTEGER
) STRICT;

-- At most one open alert per key, whatever a program does.
CREATE UNIQUE INDEX alert_open ON alert (alert_key) WHERE resolved_at IS NULL;
CREATE INDEX alert_resolved ON alert (resolved_at);

CREATE TABLE delivery (
  id           INTEGER NOT NULL PRIMARY KEY,
  alert        INTEGER NOT NULL REFERENCES alert (id),
  alert_key    TEXT    NOT NULL,
  channel      TEXT    NOT NULL,
  event        TEXT    NOT NULL,                -- firing, resolved
  created_at   INTEGER NOT NULL,
  due_at       INTEGER NOT NULL,
  attempts     INTEGER NOT NULL,
  last_at      INTEGER,
  last_error   TEXT    NOT NULL,
  sent_at      INTEGER,
  abandoned_at INTEGER,
  UNIQUE (alert, channel, event)
) STRICT;

CREATE INDEX delivery_waiting ON delivery (alert_key, channel, id) WHERE sent_at IS NULL AND abandoned_at IS NULL;
