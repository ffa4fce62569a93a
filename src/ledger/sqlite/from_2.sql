-- From layout 2 to 3.
ALTER TABLE campaign ADD COLUMN held_by TEXT;
ALTER TABLE campaign ADD COLUMN forgiven_rejected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE campaign ADD COLUMN forgiven_settled INTEGER NOT NULL DEFAULT 0;
CREATE TABLE barrier (
    account  TEXT NOT NULL,
    word     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    since    INTEGER NOT NULL,
    probe_at INTEGER,
    wait     INTEGER NOT NULL,
    PRIMARY KEY (account, word)
) WITHOUT ROWID;
