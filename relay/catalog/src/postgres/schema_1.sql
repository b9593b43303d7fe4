-- Version 1 of the catalog's tables.
-- Times are Unix seconds, days are days since 1970-01-01 (UTC), ids and hashes are bytes. Leases alone use the
-- database's clock (timestamptz).

-- One row for each relay that ever used this database: its peers read the segments that it wrote.
CREATE TABLE lighter.relays (
    peer bytea PRIMARY KEY,
    name text NOT NULL,
    -- A number for each start of a relay: what it holds is held by this number.
    incarnation bigint NOT NULL UNIQUE,
    -- Until when what it holds is its own.
    holds_until timestamptz NOT NULL,
    seen timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE lighter.incarnations;

-- One row for each relay: which of its transactions came in last, and what they count for together (sums over all
-- relays are the totals; a relay's own may be negative).
CREATE TABLE lighter.writers (
    peer bytea PRIMARY KEY REFERENCES lighter.relays ON DELETE RESTRICT,
    incarnation bigint NOT NULL,
    commits bigint NOT NULL DEFAULT 0,
    messages bigint NOT NULL DEFAULT 0,
    hand_overs bigint NOT NULL DEFAULT 0,
    waiting bigint NOT NULL DEFAULT 0,
    waiting_bytes bigint NOT NULL DEFAULT 0,
    receipted bigint NOT NULL DEFAULT 0,
    released bigint NOT NULL DEFAULT 0,
    named bigint NOT NULL DEFAULT 0,
    named_bytes bigint NOT NULL DEFAULT 0,
    copies bigint NOT NULL DEFAULT 0,
    copies_bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE lighter.meta (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

-- What was accepted, as it was accepted (a byte of format, then postcard), and how much of it is open.
CREATE TABLE lighter.messages (
    id bytea PRIMARY KEY,
    body bytea NOT NULL,
    -- The last day on which its records can be read.
    last_day bigint NOT NULL,
    due integer NOT NULL,
    deliveries integer NOT NULL,
    kept integer NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX messages_last_day ON lighter.messages (last_day, id);

-- state: 0 due at `at`, 1 handed over, 2 failed.
CREATE TABLE lighter.hand_overs (
    message bytea NOT NULL REFERENCES lighter.messages ON DELETE CASCADE,
    recipient bigint NOT NULL,
    lapsed boolean NOT NULL,
    state smallint NOT NULL,
    at bigint NOT NULL,
    attempts bigint NOT NULL,
    holder bigint,
    fence bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (message, recipient, lapsed)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX hand_overs_due ON lighter.hand_overs (at, message, recipient, lapsed) WHERE state = 0;

-- state: 0 waiting, 1 lapsing, 2 last chance, 3 lapsed, 4 withdrawn, 5 receipted, 6 released.
CREATE TABLE lighter.deliveries (
    id bytea PRIMARY KEY,
    message bytea NOT NULL REFERENCES lighter.messages ON DELETE CASCADE,
    recipient bigint NOT NULL,
    mailbox text COLLATE "C" NOT NULL,
    accepted bigint NOT NULL,
    expires bigint NOT NULL,
    size bigint NOT NULL,
    generation bigint NOT NULL,
    ticket bytea,
    noticed boolean NOT NULL,
    state smallint NOT NULL,
    store bytea,
    release bigint,
    -- When something is next to be done for it.
    deadline bigint,
    -- The store's word, as it came.
    receipt bytea,
    holder bigint,
    fence bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX deliveries_message ON lighter.deliveries (message);
CREATE INDEX deliveries_waiting ON lighter.deliveries (mailbox, accepted, id) WHERE state <= 2;
CREATE INDEX deliveries_ticket ON lighter.deliveries (ticket) WHERE ticket IS NOT NULL;
CREATE INDEX deliveries_deadline ON lighter.deliveries (deadline, id) WHERE deadline IS NOT NULL;

-- Copies of attachments that messages refer to. place: deletion day u32, segment, offset u64 of the first record.
CREATE TABLE lighter.copies (
    blob bytea NOT NULL,
    place bytea NOT NULL,
    located bytea NOT NULL,
    PRIMARY KEY (blob, place)
);

CREATE TABLE lighter.refs (
    blob bytea NOT NULL,
    place bytea NOT NULL,
    message bytea NOT NULL REFERENCES lighter.messages ON DELETE CASCADE,
    times bigint NOT NULL,
    PRIMARY KEY (blob, place, message),
    FOREIGN KEY (blob, place) REFERENCES lighter.copies
);
CREATE INDEX refs_message ON lighter.refs (message);
