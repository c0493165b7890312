-- Records that had numbers and never came, or came and are gone again: which, about when, and why.

CREATE TABLE lost_range (
  agent      BLOB    NOT NULL,
  epoch      INTEGER NOT NULL,
  after_seq  INTEGER NOT NULL,                  -- the newest record before the range
  before_seq INTEGER NOT NULL,                  -- the first after it
  lost       INTEGER NOT NULL,
  from_ms    INTEGER NOT NULL,                  -- what was lost speaks about this time
  to_ms      INTEGER NOT NULL,
  reason     TEXT    NOT NULL,
  noticed_at INTEGER NOT NULL,
  PRIMARY KEY (agent, epoch, after_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX lost_range_noticed ON lost_range (noticed_at);
