CREATE TABLE node (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id       TEXT NOT NULL
) STRICT;

-- runtime_asked repeats a word of the spec, for people who look into the file.
CREATE TABLE sandboxes (
    internal_id    TEXT PRIMARY KEY,
    public_id      TEXT NOT NULL,
    owner          TEXT NOT NULL,
    node           TEXT NOT NULL,
    state          TEXT NOT NULL,
    spec           TEXT NOT NULL,
    runtime_asked  TEXT NOT NULL,
    runtime        TEXT NOT NULL,
    flavour        TEXT NOT NULL,
    image_digest   TEXT NOT NULL,
    cause          TEXT,
    reason         TEXT NOT NULL,
    exit_code      INTEGER,
    created_at     REAL NOT NULL,
    expires_at     REAL,
    last_active_at REAL NOT NULL,
    lease_until    REAL,
    fence          INTEGER NOT NULL,
    warnings       TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX sandboxes_names_taken ON sandboxes (owner, public_id) WHERE state <> 'destroyed';
CREATE INDEX sandboxes_by_owner ON sandboxes (owner, public_id);

CREATE TABLE snapshots (
    snapshot_id         TEXT PRIMARY KEY,
    sandbox_internal_id TEXT NOT NULL,
    owner               TEXT NOT NULL,
    runtime             TEXT NOT NULL,
    image_digest        TEXT NOT NULL,
    snapshot_path       TEXT NOT NULL,
    mem_file_path       TEXT NOT NULL,
    memory_captured     INTEGER NOT NULL,
    size_bytes          INTEGER NOT NULL,
    created_at          REAL NOT NULL,
    part_digests        TEXT NOT NULL
) STRICT;

CREATE INDEX snapshots_by_owner ON snapshots (owner, created_at);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    owner   TEXT NOT NULL,
    verb    TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL,
    surface TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);
