-- What a host is for, as it said last: a JSON object of names and values.
ALTER TABLE agent ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
