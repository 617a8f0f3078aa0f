-- Single facts by name: born_at, epoch, intent_block, fleet, key (PKCS #8, base64).
CREATE TABLE meta (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);

-- Launches. Instants are milliseconds since the epoch; intent and answered are JSON.
-- A closed launch keeps its secret alone: intent and request are null then.
CREATE TABLE intents (
    id TEXT PRIMARY KEY NOT NULL,
    created_at BIGINT NOT NULL,
    secret BLOB NOT NULL,
    intent TEXT,
    request TEXT,
    retry_at BIGINT NOT NULL,
    answered TEXT
);

CREATE TABLE tokens (
    instance TEXT PRIMARY KEY NOT NULL,
    sha256 BLOB NOT NULL,
    boot_id TEXT NOT NULL,
    used BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE ready (
    instance TEXT PRIMARY KEY NOT NULL,
    ready_at BIGINT NOT NULL
);
