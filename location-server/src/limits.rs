//! Every bound of the location server, with its unit and where it comes from; relations are asserted at compile time.

use std::time::Duration;

use lighter_transport::location::limits::{
    ACCEPTANCE_NAMES_MAX, FOUND_FRESH_MAX, HOSTED_KEYS_MAX, HOSTED_MAILBOXES_MAX, LOOKUP_NAMES_MAX,
};

/// Bytes of a configuration file: a thousand networks fit.
pub const CONFIG_LEN_MAX: u64 = 256 * 1024;

/// Stores of one mailbox: a person's devices, with room (an attested drop is sealed to at most 16, DESIGN §6).
pub const STORES_PER_MAILBOX_MAX: usize = 16;
/// Stores altogether: ten times what DESIGN §11 measures. Some 500 bytes of memory each.
pub const STORES_MAX: usize = 10_000_000;
/// Hosted stores (SPEC A29): those of a large mail service, each with up to
/// [`HOSTED_MAILBOXES_MAX`] mailboxes.
pub const HOSTED_STORES_MAX: usize = 256;
/// Files that name mailboxes, for each of them.
pub const HOSTED_FILES_MAX: usize = 16;
/// Bytes of such a file: as many lines as there can be mailboxes, with a hashed password in each.
pub const HOSTED_FILE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Such files are looked at so often; what was changed counts when it has stayed the same from one look to the next.
pub const HOSTED_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Changes of presence in one piece of the stream, where a hosted store comes or goes with all its mailboxes.
pub const PRESENCE_CHANGES_AT_ONCE: usize = 256;
/// API tokens that are kept, revoked and expired ones among them (those go first when it is full).
pub const TOKENS_MAX: usize = 1_000;
/// Keys that are no store's any more and that relays are told of: those of a day, of a large company that changes all.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Keys of a mailbox's stores that may be rotated in the time in which what was attested for a former one verifies, a day and
/// two hours; with those that the admin removed.
pub const ROTATIONS_A_DAY_MAX: usize = 16;
/// Enrolment tokens that wait to be used: a large company's first day.
pub const INVITATIONS_MAX: usize = 100_000;
/// Characters of a token's name.
pub const TOKEN_NAME_LEN_MAX: usize = 100;
/// Characters of a relay's retrieval URL.
pub const RETRIEVAL_URL_LEN_MAX: usize = 256;
/// How far ahead a registration may expire.
pub const REGISTRATION_LIFETIME_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// How far a store's clock may be ahead before its registration's expiry is refused.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(3600);
/// Longest life of an enrolment token.
pub const INVITATION_LIFETIME_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life of an enrolment token where nothing else is said.
pub const INVITATION_LIFETIME_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// DESIGN §4: attestations are good for at most 24 hours.
pub const ATTESTATION_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// DESIGN §4: introductions are good for ten minutes.
pub const INTRODUCTION_LIFETIME: Duration = Duration::from_secs(600);
/// DESIGN §4: a further store waits so long, unless an existing one confirms it.
pub const CONFIRMATION_DELAY: Duration = Duration::from_secs(24 * 3600);
/// Bytes that one introduction may cover: a message's worth of very large files.
pub const INTRODUCTION_BYTES_MAX: u64 = 1 << 40;

/// Changes that wait for the writer; more, and whoever asks waits, until its request times out.
pub const CHANGES_QUEUED_MAX: usize = 8_192;
/// Changes that are committed together: above some thousand rows a commit's cost is in the rows.
pub const CHANGES_PER_COMMIT_MAX: usize = 2_048;

/// Bytes of a request body: 1,000 of the longest mailboxes.
pub const BODY_LEN_MAX: usize = 512 * 1024;
/// Bytes of one of [`BODY_LEN_MAX`]'s mailboxes in JSON: 64 + `@` + 255, quotes, comma.
const MAILBOX_JSON_LEN: usize = 324;
const _: () = assert!(LOOKUP_NAMES_MAX * MAILBOX_JSON_LEN < BODY_LEN_MAX);
const _: () = assert!(ACCEPTANCE_NAMES_MAX * MAILBOX_JSON_LEN < BODY_LEN_MAX);
/// A sealing key in JSON: a signature of 64, a mailbox of 320, a PeerId of 38, a key of 32, lengths and a time, in base64.
const SEALING_KEY_JSON_LEN: usize = (64 + 320 + 38 + 32 + 20) * 4 / 3 + 8;
const _: () = assert!(HOSTED_KEYS_MAX * SEALING_KEY_JSON_LEN + 64 < BODY_LEN_MAX);

/// A request's body must have come, and its answer be made, in so long.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);

/// A question of another domain's store is answered so long after its proof was verified, whatever the answer: the time
/// tells nothing. Many times what looking up and signing take.
pub const FOREIGN_ANSWER_TIME: Duration = Duration::from_millis(20);
/// Registrable domains that are counted one by one; beyond, all others share one allowance. Some 100 bytes each.
pub const RATE_DOMAINS_MAX: usize = 65_536;
/// Other domains whose keys are remembered; the one that was not seen for longest makes room. Some 150 bytes each.
pub const PINS_MAX: usize = 100_000;
/// A domain's key that nothing announced counts when the domain has said the same for so long: who held its name or its
/// web server for an hour gains nothing, and a domain that lost its key is back after a week.
pub const KEY_SURPRISE_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// That a remembered key was seen is written down so often.
pub const PIN_SEEN_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// A change of the own key is announced so long before: longer than anybody remembers what was said before
/// ([`FOUND_FRESH_MAX`]), and than a laptop sleeps over a holiday.
pub const KEY_OVERLAP_DEFAULT: Duration = Duration::from_secs(14 * 24 * 3600);
/// The shortest time that may be said.
pub const KEY_OVERLAP_MIN: Duration = Duration::from_secs(2 * 24 * 3600);
/// The longest one.
pub const KEY_OVERLAP_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const _: () = assert!(KEY_OVERLAP_MIN.as_secs() > FOUND_FRESH_MAX.as_secs());

/// Networks (addresses of IPv4, /64s of IPv6) that are counted one by one by each rate limiter; beyond, all others
/// share one allowance. Some 60 bytes each.
pub const RATE_KEYS_MAX: usize = 65_536;

/// Presence streams at once: one for each relay, doubled while they reconnect.
pub const PRESENCE_STREAMS_MAX: usize = 64;
/// Changes that a presence stream's reader may be behind before it is dropped and told to come again. Some 250 bytes
/// each, shared by all streams.
pub const PRESENCE_BACKLOG_MAX: usize = 16_384;
/// A presence stream says something at least so often (the client gives up after 45 s of silence).
pub const PRESENCE_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Stores whose time is up that are handled in one go, so that no lock is held for long.
pub const TIMEOUTS_PER_STEP_MAX: usize = 1_024;

/// Bytes of one command on the control socket.
pub const CONTROL_COMMAND_LEN_MAX: u64 = 64 * 1024;
/// Bytes of one answer on the control socket: a page of [`USERS_PER_PAGE`] users with all their stores.
pub const CONTROL_ANSWER_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Stores in one page of the list of users.
pub const USERS_PER_PAGE: usize = 1_000;
/// Mailboxes that one connection to the helper may be a store of: those of a hosted store, and its own. Each is attested.
pub const HELPER_MAILBOXES_MAX: usize = HOSTED_MAILBOXES_MAX + 16;
/// After so long the helper refuses, whatever the reason.
pub const HELPER_REFUSAL_TIME: Duration = Duration::from_millis(25);
/// Connections to the control socket at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 8;
/// A command on the control socket must be said, and its answer read, in so long.
pub const CONTROL_TIME_MAX: Duration = Duration::from_secs(30);
