//! Every bound of the relay's shells, with its unit and where it comes from; the crates below keep their own.

use std::time::Duration;

/// How long a clean stop waits for what is under way: systemd's default `TimeoutStopSec` is 90 s.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes in a configuration file: far more than any real one, far less than a mistaken path to a mail spool.
pub const CONFIG_LEN_MAX: u64 = 1024 * 1024;

/// Connections to the control socket at a time: people and scripts of one machine.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;
/// Bytes of a question on the control socket: the longest names a hundred places of the mirroring table.
pub const CONTROL_LINE_LEN_MAX: u64 = 16 * 1024;
/// Bytes of an answer: the longest tells every server of the array.
pub const CONTROL_ANSWER_LEN_MAX: u64 = 16 * 1024 * 1024;
/// How long a conversation on the control socket may take; a change of the array waits for a server that does not
/// answer, and then for all that are to have it.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(120);

/// From the start to the first look for dead records to be given back, and between two where something else is under way.
pub const THIN_FIRST_PAUSE: Duration = Duration::from_mins(30);
/// Between two looks.
pub const THIN_INTERVAL: Duration = Duration::from_hours(24);
/// What a segment's copy must have less at least for it to be worth it: 16 MiB.
pub const THIN_GAIN_MIN: u64 = 16 << 20;
/// Segments whose alive records are held in memory at once.
pub const THIN_BATCH_LEN: usize = 4;
/// Segments thinned in one go: a thousand GiB at most are read for it.
pub const THIN_SEGMENTS_MAX: usize = 1024;

/// How often a command asks how far a task of the relay is.
pub const JOB_ASK_INTERVAL: Duration = Duration::from_millis(200);
/// Rows of the catalog that a walk over all of it takes at a time; a message's row may have a MiB.
pub const SURVEY_ROWS_LEN: usize = 64;
/// Blobs whose copies are verified at once.
pub const VERIFIED_AT_ONCE_MAX: usize = 8;
/// Faults of copies that are told one by one; beyond, they are counted.
pub const FAULTS_TOLD_MAX: usize = 1_000;

/// Until the array key's file is tried again where it could not be written.
pub const KEY_FILE_RETRY_PAUSE: Duration = Duration::from_secs(60);

/// Mail connections at a time, on all listeners of one kind.
pub const MAIL_CONNECTIONS_MAX: usize = 1_000;
/// Mail connections at a time from one address (IPv6: one /64). A Postfix opens 100 at most (`default_process_limit`).
pub const MAIL_CONNECTIONS_PER_PEER_MAX: usize = 250;
/// Connections of the maximum from which sessions get the short time-outs of a server under stress.
pub const MAIL_CONNECTIONS_STRESS: usize = MAIL_CONNECTIONS_MAX * 3 / 4;
/// New mail connections per second from one address, sustained; loopback is not counted.
pub const MAIL_CONNECTION_RATE: f64 = 100.0;
/// New mail connections from one address in a burst.
pub const MAIL_CONNECTION_BURST: f64 = 1_000.0;
/// Addresses whose connection rate is remembered; beyond that, those at rest are forgotten.
pub const MAIL_PEERS_REMEMBERED_MAX: usize = 10_000;
/// Bytes read from a mail connection at a time while content comes in.
pub const MAIL_CONTENT_READ_LEN: usize = 64 * 1024;
/// Bytes read from a mail connection at a time otherwise: a pipelined envelope.
pub const MAIL_COMMAND_READ_LEN: usize = 4 * 1024;
/// Bytes that all mail connections of one listener together may hold as input.
pub const MAIL_INPUT_BUDGET: usize = 64 * 1024 * 1024;
/// Refusals that one mail session writes into the log; the rest is more of the same.
pub const MAIL_REFUSALS_LOGGED_MAX: usize = 20;
/// How long accepting pauses after it failed (no file descriptor left).
pub const MAIL_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection to the next hop may take to come about.
pub const NEXT_HOP_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections to the next hop that are kept open while nothing is to be sent.
pub const NEXT_HOP_IDLE_MAX: usize = 8;
/// How long such a connection is kept: shorter than any server's time-out (Postfix: 100 s for LMTP clients' reuse).
pub const NEXT_HOP_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the reply of a next hop is waited for that has stopped taking content: it may say why.
pub const NEXT_HOP_LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes read from the next hop at a time: replies.
pub const NEXT_HOP_READ_LEN: usize = 4 * 1024;
/// Bytes in one name of a Maildir's path; longer ones are hashed. File systems take 255.
pub const MAILDIR_NAME_LEN_MAX: usize = 200;

const _: () = assert!(MAIL_CONNECTIONS_MAX * MAIL_CONTENT_READ_LEN <= MAIL_INPUT_BUDGET);
const _: () = assert!(MAIL_CONNECTIONS_PER_PEER_MAX < MAIL_CONNECTIONS_STRESS);
/// Bytes free on a disk below which `check` complains: one segment (DESIGN §8: 1 GiB) must fit.
pub const DISK_FREE_BYTES_MIN: u64 = 1 << 30;
/// How long `check` waits for a server to answer.
pub const CHECK_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Events that wait for the loop around the deliveries; who tells one waits when there are more.
pub const DELIVERY_EVENTS_MAX: usize = 4096;
/// How long the location server may take to answer.
pub const LOCATION_ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the location server's key counts, once it said it: a new one is known soon after it was set up anew.
pub const LOCATION_KEY_COUNTS: Duration = Duration::from_secs(300);
/// How long it counts on while the location server does not answer.
pub const LOCATION_KEY_RETRY: Duration = Duration::from_secs(30);
/// How long what the location server said of a store counts for a receipt.
pub const LOOKED_UP_COUNTS: Duration = Duration::from_secs(3600);
/// Stores that are looked for at once.
pub const PROBES_AT_ONCE_MAX: usize = 64;
/// Until a store that is looked for has answered.
pub const STORE_CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Pushes that are sent at once, to all stores together; each has a portion or two in memory. Beyond, stores ask.
pub const PUSHES_AT_ONCE_MAX: usize = 64;
/// Mailboxes that the location server is asked about at once: as many as one look-up takes.
pub const SURVEY_PAGE_LEN: usize = lighter_transport::location::limits::LOOKUP_NAMES_MAX;
/// Mailboxes that one connection acts for: those of a hosted store (SPEC A29), and its own. The domain's location server has
/// attested each, so that nobody else has more than a few. Some 300 bytes each.
pub const CONNECTION_MAILBOXES_MAX: usize = lighter_transport::location::limits::HOSTED_MAILBOXES_MAX + 16;
/// Keys that are no store's any more, which are remembered: as many as a location server tells of. Some 500 bytes each.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Waiting deliveries that are counted for the answer to `Waiting?`; more are not told apart.
pub const WAITING_COUNT_MAX: usize = lighter_catalog::limits::PAGE_LEN_MAX;
/// Seconds after which a peer may come again where something is missing for a while.
pub const LATER_SECONDS: u32 = 10;
/// A refusal is given this long after its question: what the relay had to look at before does not show in it.
pub const REFUSAL_TIME: Duration = Duration::from_millis(25);
/// Small blobs of one request that are read from the storage servers at a time.
pub const SMALL_READS_MAX: usize = 8;
/// How often the loop is told that a store pulls: well within what counts as idle.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// How often the keeper looks at what is due.
pub const KEEPER_INTERVAL: Duration = Duration::from_secs(300);
/// What is due, as the keeper takes it at once.
pub const KEEPER_PAGE_LEN: usize = 100;
/// How often what is over is forgotten.
pub const PURGE_INTERVAL: Duration = Duration::from_secs(3600);

/// Drops that are pulled at once; each has a portion or two in memory.
pub const DROPS_AT_ONCE_MAX: usize = 16;
/// Drops that have begun, and of which something may be here.
pub const DROPS_OPEN_MAX: usize = 256;
/// Of those, drops of one sender's agent.
pub const DROPS_OF_PEER_MAX: usize = 8;
/// How long a drop that broke off waits for its sender.
pub const DROPS_OPEN_TIME: Duration = Duration::from_mins(15);
/// Drops that one sending domain may begin in [`DROPS_PER_DOMAIN_TIME`].
pub const DROPS_PER_DOMAIN_MAX: u32 = 120;
/// See [`DROPS_PER_DOMAIN_MAX`].
pub const DROPS_PER_DOMAIN_TIME: Duration = Duration::from_mins(1);
/// Drops that are held altogether: each is counted in memory, some hundred bytes.
pub const DROPS_HELD_MAX: usize = 200_000;
/// Deliveries that are looked at in one go to count what is held.
pub const DROP_FILL_PAGE_LEN: usize = 256;

const _: () = assert!(DROPS_OF_PEER_MAX < DROPS_AT_ONCE_MAX && DROPS_AT_ONCE_MAX < DROPS_OPEN_MAX);
const _: () = assert!(DROP_FILL_PAGE_LEN <= lighter_catalog::limits::PAGE_LEN_MAX);
const _: () = assert!(PROGRESS_INTERVAL.as_secs() * 2 < lighter_protocol::limits::PULL_IDLE_MAX.as_secs());

/// Downloads at once; more are told to come again. Each holds some pieces of 1 MiB, the array's reading ahead included:
/// within 512 MiB for all.
pub const DOWNLOADS_MAX: usize = 64;
/// Seconds after which who got no download may come again.
pub const RETRIEVAL_LATER_SECONDS: u32 = 30;
/// Wrong tickets from one network a second, with a burst of ten seconds' worth: people mistype, guessers go on.
pub const WRONG_TICKETS_PER_S: u32 = 5;

/// How long a start waits for a database that does not answer: it may be starting itself.
pub const DATABASE_START_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two tries to reach it.
pub const DATABASE_START_PAUSE: Duration = Duration::from_secs(1);
/// How often the other relays on a database are asked after, besides when one of them tells.
pub const FELLOWS_INTERVAL: Duration = Duration::from_secs(60);
/// When they are asked after again where that failed.
pub const FELLOWS_RETRY: Duration = Duration::from_secs(5);
/// How long a stop waits for the database to take back what the relay had claimed.
pub const GIVE_BACK_TIME_MAX: Duration = Duration::from_secs(5);
