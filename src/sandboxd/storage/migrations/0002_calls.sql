-- What was begun under an idempotency key. The output of commands lies in files beside the database.
CREATE TABLE calls (
    owner        TEXT NOT NULL,
    key          TEXT NOT NULL,
    digest       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    created_at   REAL NOT NULL,
    process_id   INTEGER,
    pid          INTEGER NOT NULL,
    sandbox      TEXT,
    output_bytes INTEGER,
    PRIMARY KEY (owner, key)
) STRICT;

CREATE INDEX calls_by_time ON calls (created_at);
