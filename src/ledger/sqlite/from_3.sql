-- From layout 3 to 4.
CREATE TABLE delivery (
    batch INTEGER PRIMARY KEY,
    kept  BLOB NOT NULL
);
CREATE TABLE response (
    batch    INTEGER NOT NULL,
    id       TEXT NOT NULL,
    response TEXT NOT NULL,
    told     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, id)
) WITHOUT ROWID;
CREATE TABLE decision (
    campaign INTEGER NOT NULL,
    line     TEXT NOT NULL
);
CREATE TABLE suppressed (
    number INTEGER PRIMARY KEY
);
CREATE TABLE suppressed_version (
    version INTEGER NOT NULL
);
INSERT INTO suppressed_version VALUES (0);
DROP INDEX batch_recent;
CREATE INDEX batch_recent ON batch (updated_at) WHERE updated_at IS NOT NULL;
CREATE TABLE callback_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key TEXT NOT NULL
);
