-- How far this database is filled from another one, or from a back-up; empty but while that goes on. As long as there
-- are rows no collector starts on it.

CREATE TABLE transfer (
  name  TEXT NOT NULL PRIMARY KEY,              -- from: what it is filled from; log: the block copied last
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
