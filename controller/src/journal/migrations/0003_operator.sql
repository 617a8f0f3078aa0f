-- What the operator has asked for and not taken back. Instants are milliseconds since the epoch.
CREATE TABLE operator_drains (
    instance TEXT PRIMARY KEY NOT NULL,
    asked_at BIGINT NOT NULL
);

-- At most one row: launches are paused while it is there.
CREATE TABLE operator_pause (
    since BIGINT NOT NULL,
    reason TEXT
);
