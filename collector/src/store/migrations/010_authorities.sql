-- Which authority issued the certificate an agent came with last, as it says itself: SHA-256 in hex; empty while nobody
-- asked. Noted while the authority is being replaced. Which authority is in force and which comes next are facts of the
-- house.
ALTER TABLE agent ADD COLUMN authority TEXT NOT NULL DEFAULT '';
