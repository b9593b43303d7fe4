//! Every bound of the catalog, with its unit and where it comes from; relations are asserted at compile time.

/// Bytes of one encoded change. A record of the log holds a portion of 1 MiB with room to spare; a message with the
/// most recipients and parts encodes to less.
pub const CHANGE_LEN_MAX: usize = 1024 * 1024;

/// Recipients of one message. RFC 5321 §4.5.3.1.8 asks for at least 100; senders split larger lists by themselves.
pub const RECIPIENTS_MAX: usize = 1_000;
/// Detached parts of one message: as many as an offer names.
pub const PARTS_MAX: usize = lighter_protocol::limits::OFFER_BLOBS_MAX;

/// Bytes in an envelope address with its source route and quotes (RFC 5321 §4.5.3.1.3 allows 256; UTF-8 doubles it).
pub const ADDRESS_LEN_MAX: usize = 512;
/// Bytes in ENVID or ORCPT as they came, still in xtext (RFC 3461 §4.4: 100 and 500 characters once decoded).
pub const DSN_TEXT_LEN_MAX: usize = 1_500;
/// Bytes in the Received field and what else the relay puts above a message.
pub const TRACE_LEN_MAX: usize = 4 * 1024;
/// Bytes kept of a subject or a sender's name, for notices.
pub const SUMMARY_LEN_MAX: usize = 256;
/// Bytes kept of an attachment's name or media type.
pub const NAME_LEN_MAX: usize = lighter_protocol::limits::NAME_LEN_MAX;

/// Days past a message's promise for which its records are still readable (DESIGN §8, filing): a delivery that
/// lapsed can still be pulled in them.
pub const GRACE_DAYS: u32 = 7;
/// Days before the promise ends at which the user is told (DESIGN §3 rule 3).
pub const NOTICE_DAYS_BEFORE: u32 = 3;
/// Days before the promise ends at which the message goes whole to the next hop (DESIGN §3 rule 3).
pub const WHOLE_DAYS_BEFORE: u32 = 1;

/// Rows that one query gives at most; more are asked for with a cursor.
pub const PAGE_LEN_MAX: usize = 1_000;

/// Copies of a blob that are looked at for one that can be referred to: there is one for each retention class and day,
/// and another where one was not whole just then.
pub const COPIES_LOOKED_AT_MAX: usize = 8;
/// How long reading a copy may take that a message is to refer to, in milliseconds; then it is written again.
pub const COPY_READ_TIME_MAX_MS: u64 = 2_000;

/// Disagreements between view and log that are told one by one; beyond, they are counted.
pub const DISAGREEMENTS_MAX: usize = 1_000;
/// How long changes are held up for a look at the view when nothing is under way, in milliseconds; and, where something
/// still is then, how long they go on before the next try.
pub const AUDIT_PAUSE_MAX_MS: u64 = 500;
/// Tries for that look.
pub const AUDIT_TRIES_MAX: usize = 60;

/// Changes that one write of the view takes together.
pub const BATCH_LEN_MAX: usize = 256;
/// Changes that wait for the view; a writer waits when there are more, so memory stays bounded.
pub const APPLY_QUEUE_LEN_MAX: usize = 4_096;
/// Changes applied since the view's last sync, after which it is synced: what a restart replays.
pub const CHECKPOINT_CHANGES_MAX: u64 = 4_096;
/// Milliseconds after which a view with changes in it is synced, however few they are.
pub const CHECKPOINT_INTERVAL_MS: u64 = 5_000;
/// Changes whose fate is not known that may be open at once; with more, no further change is begun.
pub const DOUBTS_MAX: usize = 1_000;
/// Milliseconds between two tries to settle a change whose fate is not known.
pub const DOUBT_RETRY_MS: u64 = 1_000;

/// Bytes of the view's pages kept in memory.
pub const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a view's file up to which every page's checksum is verified before it is used; a larger one would hold
/// up the start, and is set aside when a page turns out damaged.
pub const VERIFY_ON_OPEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Connections to a database, where nothing else is set: changes go out in one, questions in the others.
pub const DATABASE_CONNECTIONS: usize = 8;
/// Connections to a database at most: it has 100 by default, for all relays together.
pub const DATABASE_CONNECTIONS_MAX: usize = 64;
/// Milliseconds for a connection to one server of a database, with its handshake and log-in.
pub const CONNECT_TIME_MAX_MS: u64 = 2_500;
/// Milliseconds for one statement. The longest walks over one page of an index.
pub const STATEMENT_TIME_MAX_MS: u64 = 10_000;
/// Milliseconds after which a database that answers nothing at all is given up on.
pub const ANSWER_TIME_MAX_MS: u64 = 12_000;
/// Milliseconds that a statement waits for a row that another transaction has: those are short.
pub const LOCK_TIME_MAX_MS: u64 = 5_000;
/// Milliseconds after which the database ends a transaction whose relay went silent: its rows are free then.
pub const IDLE_IN_TRANSACTION_MAX_MS: u64 = 10_000;
/// Milliseconds for the answer to a commit, the standby's included; then whether it was made is asked. (Tests do not wait
/// as long.)
pub const COMMIT_ANSWER_TIME_MAX_MS: u64 = if cfg!(test) { 500 } else { 10_000 };
/// Milliseconds within which a question to a database is answered, tried again and again where it is away.
pub const QUESTION_TIME_MAX_MS: u64 = 8_000;
/// Milliseconds within which a change is in the database, or its caller is told that it is not, or that it is not known.
/// A primary that is restarted is back by then, and a sender waits for minutes (RFC 5321 §4.5.3.2.6).
pub const CHANGE_TIME_MAX_MS: u64 = if cfg!(test) { 20_000 } else { 30_000 };
/// Milliseconds between two tries: the first wait, doubled each time, and the longest.
pub const DATABASE_RETRY_MIN_MS: u64 = 20;
/// See [`DATABASE_RETRY_MIN_MS`].
pub const DATABASE_RETRY_MAX_MS: u64 = 1_000;
/// Blobs that the changes of one transaction name, but for the last of them: each is a lock of the database, which has
/// some thousands.
pub const BATCH_BLOBS_MAX: usize = 1_000;
/// Seconds that what a relay holds stays its own after it was heard of last, where nothing else is set.
pub const LEASE_DEFAULT_S: u64 = 60;
/// Seconds of a lease at least: three heartbeats that a busy database answers.
pub const LEASE_MIN_S: u64 = 5;
/// Seconds of a lease at most: as long a dead relay keeps others from its work.
pub const LEASE_MAX_S: u64 = 600;
/// Messages that an import moves in one transaction.
pub const IMPORT_PAGE_LEN: usize = 200;
/// News of other relays that wait to be read. What is beyond is found by the sweep of everything that waits.
pub const NEWS_LEN_MAX: usize = 4_096;

const _: () =
    assert!(DATABASE_RETRY_MIN_MS < DATABASE_RETRY_MAX_MS && DATABASE_RETRY_MAX_MS < QUESTION_TIME_MAX_MS);
const _: () =
    assert!(LOCK_TIME_MAX_MS < STATEMENT_TIME_MAX_MS && COMMIT_ANSWER_TIME_MAX_MS < CHANGE_TIME_MAX_MS);
const _: () = assert!(IMPORT_PAGE_LEN <= PAGE_LEN_MAX);
const _: () = assert!(LEASE_MIN_S <= LEASE_DEFAULT_S && LEASE_DEFAULT_S <= LEASE_MAX_S);

const _: () = assert!(WHOLE_DAYS_BEFORE < NOTICE_DAYS_BEFORE && NOTICE_DAYS_BEFORE < GRACE_DAYS);
// The shortest class is a week: its notice is still ahead when the message comes in.
const _: () = assert!(NOTICE_DAYS_BEFORE < 7);
const _: () = assert!(BATCH_LEN_MAX <= APPLY_QUEUE_LEN_MAX);
