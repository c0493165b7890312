-- People, programs and what they did.

CREATE TABLE person (
  name       TEXT    NOT NULL PRIMARY KEY,
  password   TEXT    NOT NULL,                  -- PHC string, argon2id
  role       TEXT    NOT NULL,
  changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  hash       BLOB    NOT NULL PRIMARY KEY,      -- SHA-256 of what the cookie holds
  person     TEXT    NOT NULL REFERENCES person (name) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  last_used  INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX session_person ON session (person);

CREATE TABLE api_token (
  hash       BLOB    NOT NULL PRIMARY KEY,
  label      TEXT    NOT NULL,
  role       TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  last_used  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  seq      INTEGER NOT NULL PRIMARY KEY,        -- dense, from 1
  at       INTEGER NOT NULL,
  who      TEXT    NOT NULL,
  what     TEXT    NOT NULL,
  detail   TEXT    NOT NULL,
  previous BLOB    NOT NULL,
  hash     BLOB    NOT NULL
) STRICT;

-- only sqlite
CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;

-- only postgres
CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit log is only ever appended to'; END $$;
CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept();
