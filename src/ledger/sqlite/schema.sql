-- The embedded ledger. Times are milliseconds since 1970, UTC.

CREATE TABLE campaign (
    key          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    named        INTEGER NOT NULL,      -- the job contains the id
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
    announced    INTEGER NOT NULL DEFAULT 0, -- number of states published as events
    doubt_below  INTEGER NOT NULL DEFAULT 0, -- unclaimed messages of batches below it may have been sent
    state        TEXT NOT NULL,
    reason       TEXT,
    reason_data  TEXT,                  -- the same as JSON, with its code and parameters
    suspended_by TEXT,                  -- 'account', 'sender NUMBER', 'flows NUMBER' or 'flow ID': the breaker that suspends it
    forgiven_rejected INTEGER NOT NULL DEFAULT 0, -- messages rejected before it last started to run
    forgiven_settled  INTEGER NOT NULL DEFAULT 0, -- messages settled before it last started to run
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
    changed      INTEGER NOT NULL,      -- version of its last change; workers read the campaigns with a later one
    submitted_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER
);

CREATE INDEX campaign_changed ON campaign (changed);

-- One row per batch. Its key is campaign.key * 2^32 + number.
CREATE TABLE batch (
    key        INTEGER PRIMARY KEY,
    plan       BLOB NOT NULL,           -- recipients: a digest (8), then postcard of differences of rows, and digits
    record     BLOB,                    -- states of its messages (record.rs); null: never changed
    sids       BLOB,                    -- postcard of the SIDs of its accepted messages, by position
    request    TEXT,                    -- the provider's id of its last answered request
    claims     BLOB,                    -- the tokens of the claims that hold messages, 8 bytes each
    session    INTEGER,                 -- the process that claimed them
    open       INTEGER NOT NULL DEFAULT 1, -- some are pending or sending
    failed     INTEGER NOT NULL DEFAULT 0, -- some are rejected or in doubt
    replay     INTEGER NOT NULL DEFAULT 0, -- time of the decision to requeue it
    updated_at INTEGER                  -- time of the last outcome
);
CREATE INDEX batch_recent ON batch (updated_at) WHERE updated_at IS NOT NULL;
CREATE INDEX batch_replay ON batch (key) WHERE replay > 0;
CREATE INDEX batch_failed ON batch (key) WHERE failed > 0;

-- Values to send a message again without the audience; only for messages that failed.
CREATE TABLE payload (
    batch   INTEGER NOT NULL,           -- batch.key
    message INTEGER NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (batch, message)
) WITHOUT ROWID;

-- Open breakers, which suspend campaigns together.
CREATE TABLE breaker (
    account  TEXT NOT NULL,
    word     TEXT NOT NULL,             -- 'account', 'sender NUMBER', 'flows NUMBER' or 'flow ID'
    reason   TEXT NOT NULL,
    since    INTEGER NOT NULL,
    probe_at INTEGER,                   -- time of the next probe; null: never
    wait     INTEGER NOT NULL,          -- delay of the probe after that
    PRIMARY KEY (account, word)
) WITHOUT ROWID;

-- What providers report about templates and sender numbers, until they report that it has cleared. It holds no campaign.
CREATE TABLE notice (
    account TEXT NOT NULL,
    subject TEXT NOT NULL,              -- 'template NAME' or 'number DIGITS'
    event   TEXT,                       -- null: detail is the text that an earlier version stored
    detail  TEXT NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (account, subject)
) WITHOUT ROWID;

-- Rows that the plan skipped.
CREATE TABLE skipped (
    campaign  INTEGER NOT NULL,
    row       INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (campaign, row)
) WITHOUT ROWID;

-- Counters with a code: rejected messages by code, skipped ones by reason, deliveries by state, failed ones by code, messages by
-- step and duration, and messages settled in each of the last seconds. `detail` is the text of the code, or the second.
CREATE TABLE tally (
    campaign INTEGER NOT NULL,
    kind     TEXT NOT NULL,             -- 'rejected', 'skipped', 'in_doubt', 'delivery', 'undelivered', 'took', 'tick'
    word     TEXT NOT NULL,
    count    INTEGER NOT NULL,
    detail   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (campaign, kind, word)
) WITHOUT ROWID;

-- Delivery progress of a batch's messages.
CREATE TABLE delivery (
    batch INTEGER PRIMARY KEY,          -- batch.key
    kept  BLOB NOT NULL                 -- postcard of each message's progress
);

-- Replies, JSON, by the provider's id of the reply, or a digest of a form.
CREATE TABLE response (
    batch    INTEGER NOT NULL,          -- batch.key
    id       TEXT NOT NULL,
    response TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, -- whether it was published as an event
    PRIMARY KEY (batch, id)
) WITHOUT ROWID;

-- Points of a campaign's chart: the messages settled up to a time.
CREATE TABLE point (
    campaign INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    in_doubt INTEGER NOT NULL,
    PRIMARY KEY (campaign, at)
) WITHOUT ROWID;

-- Index of recent messages by recipient, for accounts that match replies by number.
CREATE TABLE sent (
    number   INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    batch    INTEGER NOT NULL,          -- its number
    message  INTEGER NOT NULL,          -- its position in the batch
    at       INTEGER NOT NULL,
    PRIMARY KEY (number, campaign)
) WITHOUT ROWID;
CREATE INDEX sent_at ON sent (at);

-- Campaign drafts of the dashboard, JSON.
CREATE TABLE campaign_draft (
    name  TEXT PRIMARY KEY,
    draft TEXT NOT NULL
) WITHOUT ROWID;

-- Dashboard sessions that were ended before they expired, until they would have expired.
CREATE TABLE ended_session (
    digest TEXT PRIMARY KEY,
    ends   INTEGER NOT NULL
) WITHOUT ROWID;

-- The audit log. Entries outlive their campaign.
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
-- The recent changes, each a version of the list.
CREATE TABLE suppression (
    version   INTEGER PRIMARY KEY AUTOINCREMENT,
    number    INTEGER NOT NULL,
    is_listed INTEGER NOT NULL
);

-- The callback key that is used if none is configured.
CREATE TABLE callback_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    key TEXT NOT NULL
);
