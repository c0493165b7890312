-- How far the clocks of agents were off.

CREATE TABLE clock_error (
  agent    BLOB    NOT NULL,
  day      INTEGER NOT NULL,                    -- UTC, by the clock of the collector
  ahead_ms INTEGER NOT NULL,                    -- the largest by size: the host's clock minus the collector's
  PRIMARY KEY (agent, day)
) STRICT, WITHOUT ROWID;
