-- The embedded ledger. Times are milliseconds since 1970, UTC.

CREATE TABLE campaign (
    key          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    named        INTEGER NOT NULL,      -- the job gave the id itself
    name         TEXT,
    account      TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,         -- of the job
    job          TEXT NOT NULL,         -- the job, JSON
    columns      TEXT NOT NULL,         -- of the audience, a JSON list
    audience     TEXT NOT NULL,         -- digest of the audience's bytes
    rows         INTEGER NOT NULL,
    batch_size   INTEGER NOT NULL,
    rehearsal    INTEGER NOT NULL,
    created_by   TEXT,                  -- who submitted it
    announced    INTEGER NOT NULL DEFAULT 0, -- how many states were published as events
    doubt_below  INTEGER NOT NULL DEFAULT 0, -- untouched messages of batches below it may have been sent
    state        TEXT NOT NULL,
    reason       TEXT,
    reason_data  TEXT,                  -- the same as JSON, with its code and parameters
    suspended_by TEXT,                  -- 'account' or 'flow ID': the breaker that suspends it
    forgiven_rejected INTEGER NOT NULL DEFAULT 0, -- how many were rejected, ...
    forgiven_settled  INTEGER NOT NULL DEFAULT 0, -- ... of how many, when it last began to run
    published    TEXT,                  -- the state that was last published as an event
    -- the plan's checkpoint
    plan_batches INTEGER NOT NULL DEFAULT 0,
    plan_rows    INTEGER NOT NULL DEFAULT 0,
    plan_digest  TEXT NOT NULL DEFAULT '',
    planned      INTEGER NOT NULL DEFAULT 0,
    -- messages by state; the total is their sum
    pending      INTEGER NOT NULL DEFAULT 0,
    sending      INTEGER NOT NULL DEFAULT 0,
    accepted     INTEGER NOT NULL DEFAULT 0,
    rejected     INTEGER NOT NULL DEFAULT 0,
    in_doubt     INTEGER NOT NULL DEFAULT 0,
    skipped      INTEGER NOT NULL DEFAULT 0,
    changed      INTEGER NOT NULL,      -- later than all others when workers must look at it
    submitted_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER
);

CREATE INDEX campaign_changed ON campaign (changed);

-- One row a batch. Its key is campaign.key * 2^32 + number.
CREATE TABLE batch (
    key        INTEGER PRIMARY KEY,
    plan       BLOB NOT NULL,           -- whom it goes to: a digest (8), then postcard of steps of rows, and digits
    record     BLOB,                    -- what became of its messages (record.rs); null: nobody has touched it
    sids       BLOB,                    -- postcard of the SIDs of its accepted messages, by place
    request    TEXT,                    -- what the provider calls the last request of it that it answered
    claims     BLOB,                    -- the tokens of the claims that hold messages, 8 bytes each
    session    INTEGER,                 -- who claimed them
    open       INTEGER NOT NULL DEFAULT 1, -- some are pending or being sent
    failed     INTEGER NOT NULL DEFAULT 0, -- some are rejected or in doubt
    replay     INTEGER NOT NULL DEFAULT 0, -- when it was decided that it is queued again
    updated_at INTEGER                  -- the last record
);
CREATE INDEX batch_recent ON batch (updated_at) WHERE updated_at IS NOT NULL;
CREATE INDEX batch_replay ON batch (key) WHERE replay > 0;
CREATE INDEX batch_failed ON batch (key) WHERE failed > 0;

-- What is needed to send a message again when the audience is gone; only for messages that failed.
CREATE TABLE payload (
    batch   INTEGER NOT NULL,           -- batch.key
    message INTEGER NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (batch, message)
) WITHOUT ROWID;

-- What suspends campaigns together.
CREATE TABLE breaker (
    account  TEXT NOT NULL,
    word     TEXT NOT NULL,             -- 'account' or 'flow ID'
    reason   TEXT NOT NULL,
    since    INTEGER NOT NULL,
    probe_at INTEGER,                   -- when it is tried again; null: never by itself
    wait     INTEGER NOT NULL,          -- how long until the try after that
    PRIMARY KEY (account, word)
) WITHOUT ROWID;

-- What providers say of templates and sender numbers, until they say better. It holds nothing.
CREATE TABLE notice (
    account TEXT NOT NULL,
    subject TEXT NOT NULL,              -- 'template NAME' or 'number DIGITS'
    event   TEXT,                       -- null: detail is the text that an earlier version kept
    detail  TEXT NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (account, subject)
) WITHOUT ROWID;

-- Rows that were never messages.
CREATE TABLE skipped (
    campaign  INTEGER NOT NULL,
    row       INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (campaign, row)
) WITHOUT ROWID;

-- Rejected messages by code, skipped ones by reason, deliveries by state, those that failed by code, how many
-- took how long for a step, and how many were settled in each of the last seconds. The text to a code is kept
-- once; beside the count of a second stands which it is.
CREATE TABLE tally (
    campaign INTEGER NOT NULL,
    kind     TEXT NOT NULL,             -- 'rejected', 'skipped', 'in_doubt', 'delivery', 'undelivered', 'took', 'tick'
    word     TEXT NOT NULL,
    count    INTEGER NOT NULL,
    detail   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (campaign, kind, word)
) WITHOUT ROWID;

-- What reports say of a batch's messages.
CREATE TABLE delivery (
    batch INTEGER PRIMARY KEY,          -- batch.key
    kept  BLOB NOT NULL                 -- postcard of each message's progress
);

-- What people answered, JSON, by the provider's id of the answer, or a digest of a form.
CREATE TABLE response (
    batch    INTEGER NOT NULL,          -- batch.key
    id       TEXT NOT NULL,
    response TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, -- others were told of it
    PRIMARY KEY (batch, id)
) WITHOUT ROWID;

-- How a campaign went over time: what was settled up to a moment.
CREATE TABLE point (
    campaign INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    in_doubt INTEGER NOT NULL,
    PRIMARY KEY (campaign, at)
) WITHOUT ROWID;

-- To whom messages went lately, where an account wants answers found by their number.
CREATE TABLE sent (
    number   INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    batch    INTEGER NOT NULL,          -- its number
    message  INTEGER NOT NULL,          -- its place in the batch
    at       INTEGER NOT NULL,
    PRIMARY KEY (number, campaign)
) WITHOUT ROWID;
CREATE INDEX sent_at ON sent (at);

-- Campaigns that somebody still works on, JSON.
CREATE TABLE campaign_draft (
    name  TEXT PRIMARY KEY,
    draft TEXT NOT NULL
) WITHOUT ROWID;

-- Sessions of the dashboard that were ended before their time, until they would have ended.
CREATE TABLE ended_session (
    digest TEXT PRIMARY KEY,
    ends   INTEGER NOT NULL
) WITHOUT ROWID;

-- What people did. It outlives its campaign.
CREATE TABLE act (
    key      INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    what     TEXT NOT NULL,
    campaign TEXT,                      -- its id
    detail   TEXT NOT NULL,
    file     TEXT                       -- the path of the audience file that was uploaded or deleted
);
CREATE INDEX act_campaign ON act (campaign);

-- Numbers that must never be messaged: their digits.
CREATE TABLE suppressed (
    number INTEGER PRIMARY KEY,
    added  TEXT                         -- '<milliseconds since 1970> reply' or '… operator <name>', where that is known
);
-- The changes of late, each a version of the list.
CREATE TABLE suppression (
    version   INTEGER PRIMARY KEY AUTOINCREMENT,
    number    INTEGER NOT NULL,
    is_listed INTEGER NOT NULL
);

-- The key that seals the addresses of reports where none is configured.
CREATE TABLE callback_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key TEXT NOT NULL
);
