-- When an agent was last seen to run from a copy of its state, and how that showed; nothing when it never was, or when
-- somebody has seen to it.
ALTER TABLE agent ADD COLUMN copied_at INTEGER;
ALTER TABLE agent ADD COLUMN copied_how TEXT NOT NULL DEFAULT '';
