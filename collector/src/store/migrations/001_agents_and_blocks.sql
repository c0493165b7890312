-- Who may send, what they sent, and how far each of them is.

CREATE TABLE agent (
  agent          BLOB    NOT NULL PRIMARY KEY,  -- 16 bytes
  hostname       TEXT    NOT NULL,
  host_group     TEXT    NOT NULL,
  enrolled_at    INTEGER NOT NULL,              -- every time is ms since 1970 UTC
  revoked_at     INTEGER,
  last_contact   INTEGER,                       -- hello and keep-alive; blocks count through agent_stream.last_at
  cert_serial    TEXT    NOT NULL,
  cert_not_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The high-water mark: the only thing that decides whether a record is new.
CREATE TABLE agent_stream (
  agent      BLOB    NOT NULL,
  epoch      INTEGER NOT NULL,                  -- the 64 bits of the epoch
  acked      INTEGER NOT NULL,
  records    INTEGER NOT NULL,                  -- stored
  lost       INTEGER NOT NULL,                  -- numbered, never came: acked = records + lost
  blocks     INTEGER NOT NULL,
  bytes      INTEGER NOT NULL,
  last_at    INTEGER NOT NULL,
  PRIMARY KEY (agent, epoch)
) STRICT, WITHOUT ROWID;

-- Blocks: only ever appended to. A lane is a part of the log in which numbers are dense and rise in the order of commits.

-- only sqlite
-- One lane. AUTOINCREMENT: a number is never used twice, so a watermark stays right after rows were removed by
-- retention.
CREATE TABLE block (
  no          INTEGER PRIMARY KEY AUTOINCREMENT,
  agent       BLOB    NOT NULL,
  epoch       INTEGER NOT NULL,
  first_seq   INTEGER NOT NULL,
  records     INTEGER NOT NULL,
  skip        INTEGER NOT NULL,                 -- leading records an earlier block already holds
  received_at INTEGER NOT NULL,
  from_ms     INTEGER NOT NULL,
  to_ms       INTEGER NOT NULL,
  bytes       BLOB    NOT NULL
) STRICT;

-- only postgres
CREATE TABLE block (
  lane        INTEGER NOT NULL,
  no          INTEGER NOT NULL,
  agent       BLOB    NOT NULL,
  epoch       INTEGER NOT NULL,
  first_seq   INTEGER NOT NULL,
  records     INTEGER NOT NULL,
  skip        INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  from_ms     INTEGER NOT NULL,
  to_ms       INTEGER NOT NULL,
  bytes       BLOB    NOT NULL,
  PRIMARY KEY (lane, no)
);
-- Bit-packed: the server's own compression would find nothing in it.
ALTER TABLE block ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- The number given last in each lane. Its row is locked while a block is stored.
CREATE TABLE lane (
  lane INTEGER NOT NULL PRIMARY KEY,
  head INTEGER NOT NULL
) WITH (fillfactor = 50);
INSERT INTO lane (lane, head) SELECT n, 0 FROM generate_series(0, 255) AS n;

-- both
-- One row per 1024 blocks of a lane: the latest moment any of them reaches. Finds the blocks of a month without an
-- index entry per block (see README.md).
CREATE TABLE block_reach (
  lane    INTEGER NOT NULL,
  segment INTEGER NOT NULL,                     -- block.no / 1024
  to_ms   INTEGER NOT NULL,
  PRIMARY KEY (lane, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE check_name (
  no   INTEGER NOT NULL PRIMARY KEY,            -- never reused: rows are never removed
  name TEXT    NOT NULL UNIQUE
) STRICT;

-- One-use enrolment tokens. Only the SHA-256 of the secret is kept.
CREATE TABLE token (
  hash       BLOB    NOT NULL PRIMARY KEY,
  label      TEXT    NOT NULL,
  host_group TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  created_by TEXT    NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at    INTEGER,
  used_by    BLOB,
  revoked_at INTEGER
) STRICT, WITHOUT ROWID;
