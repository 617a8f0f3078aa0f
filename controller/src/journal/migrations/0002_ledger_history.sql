-- What instances cost: one row for each stretch of an instance's life at one price. Instants are milliseconds
-- since the epoch. until_at is null while the stretch goes on; price, its source and its date are null where no
-- price is known. ended_by says who told the end: ec2, seen (found ended), last_seen (nobody knows: it was
-- there then), price (it went on at another one).
CREATE TABLE ledger (
    instance TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT,
    ended_by TEXT,
    resource TEXT NOT NULL,
    queue TEXT NOT NULL,
    instance_type TEXT NOT NULL,
    zone TEXT,
    market TEXT NOT NULL,
    launched_at BIGINT NOT NULL,
    price DOUBLE PRECISION,
    price_source TEXT,
    price_date TEXT,
    PRIMARY KEY (instance, from_at)
);
CREATE INDEX ledger_until ON ledger (until_at);

-- What was done to the fleet, and why; instances is a JSON list. Ids rise.
CREATE TABLE history (
    id BIGINT PRIMARY KEY NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    instances TEXT NOT NULL,
    resource TEXT,
    queue TEXT,
    task TEXT,
    reason TEXT NOT NULL
);
CREATE INDEX history_at ON history (at);

-- New facts in meta: runs (JSON list of the lease's runs that may still be listed), ledger_seen (when the ledger
-- last looked at the fleet), ledger_dropped (JSON, the sum of what was dropped from it).
