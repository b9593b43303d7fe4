//! Every bound of the location API's client side, with its unit and where it comes from.

use std::time::Duration;

use lighter_protocol::limits::{RELAYS_MAX, RETRIEVAL_URL_LEN_MAX, SEALING_KEYS_MAX};

/// Mailboxes in one `POST /v1/lookup` (DESIGN §7).
pub const LOOKUP_NAMES_MAX: usize = 1_000;
/// Mailboxes in one look-up up to which the relays of their domain, and what is sealed to, are told with each: as many as a message has
/// recipients.
pub const RELAYS_TOLD_NAMES_MAX: usize = 100;
/// Mailboxes in one question to another domain's location server: as many of the longest as a signed statement holds.
pub const FOREIGN_NAMES_MAX: usize = 20;
/// How far the time of such a question may be from the server's clock: what Kerberos allows (RFC 4120 §1.6).
pub const FOREIGN_TIME_DIFFERENCE_MAX: Duration = Duration::from_mins(5);
/// Changes of a location server's key that it tells of, and that are followed.
pub const KEY_CHANGES_MAX: usize = 16;
/// People of whom one mailbox can say something: all of them are one answer.
pub const CORRESPONDENTS_MAX: usize = 4_096;
/// Mailboxes in one `POST /v1/acceptance`.
pub const ACCEPTANCE_NAMES_MAX: usize = 1_000;

/// Mailboxes of one hosted store (SPEC A29): its agent keeps an attestation of each in memory, some 1 KiB, and shows each to
/// every relay. A service with more users runs several.
pub const HOSTED_MAILBOXES_MAX: usize = 16_384;
/// Mailboxes in one answer to a hosted store.
pub const HOSTED_PAGE_MAX: usize = 256;
/// Sealing keys that a hosted store says at once.
pub const HOSTED_KEYS_MAX: usize = 500;
/// Characters of [`super::api::PingAnswer::hosting`].
pub const HOSTING_STATE_LEN_MAX: usize = 64;

/// Domains whose location servers are remembered, those that have none among them. Some 2 KiB each, connections apart.
pub const FOUND_DOMAINS_MAX: usize = 1_024;
/// Domains that are looked for at a time; more wait.
pub const FINDING_AT_ONCE_MAX: usize = 32;
/// Finding a domain's location server: all questions together. A sender waits for it.
pub const FINDING_TIME_MAX: Duration = Duration::from_secs(8);
/// One question to a name server, all tries together.
pub const DNS_TIME_MAX: Duration = Duration::from_secs(4);
/// What was found is not asked for again so soon, however small its time to live in DNS …
pub const FOUND_FRESH_MIN: Duration = Duration::from_mins(1);
/// … and again after so long, however large that is.
pub const FOUND_FRESH_MAX: Duration = Duration::from_hours(24);
/// How long what `.well-known` or the configuration says counts.
pub const WELL_KNOWN_FRESH: Duration = Duration::from_hours(1);
/// A domain that has none is asked again after so long at most.
pub const NONE_FRESH_MAX: Duration = Duration::from_hours(1);
/// A domain whose question got no answer is not asked again so soon.
pub const FAILED_FRESH: Duration = Duration::from_mins(1);
/// While a domain cannot be asked, what was found counts on for so long (RFC 8767 §5 lets a resolver do so for days).
pub const FOUND_STALE_MAX: Duration = Duration::from_hours(72);
/// Bytes of `.well-known/lighter`.
pub const WELL_KNOWN_LEN_MAX: usize = 4 * 1024;
/// SRV records of one domain that are looked at.
pub const SRV_RECORDS_MAX: usize = 8;
/// Of these, servers that are tried.
pub const SRV_TRIED_MAX: usize = 3;
/// Bytes of an answer that the client reads: 1,000 store records with 16 addresses each stay under it, and 100 with all
/// that can be told of each.
pub const ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one event of the presence stream: a snapshot's page of 500 stores stays under it.
pub const EVENT_LEN_MAX: usize = 512 * 1024;
/// Stores in one page of a presence snapshot.
pub const SNAPSHOT_PAGE_MAX: usize = 500;
/// Connect, send and read an answer: longer than this, the server counts as unreachable.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP connect alone.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A presence stream that says nothing for so long is broken: the server sends a comment every 15 s.
pub const STREAM_SILENCE_MAX: Duration = Duration::from_secs(45);
/// First wait before a broken presence stream is opened again; doubled up to [`RECONNECT_MAX`], with jitter.
pub const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a broken presence stream is opened again.
pub const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a CA file.
pub const CA_FILE_LEN_MAX: u64 = 1024 * 1024;
/// Idle connections that are kept to the server.
pub const IDLE_CONNECTIONS_MAX: usize = 8;
/// How often a request is sent that may come twice: a connection that was kept may be one that the server has just closed.
pub const STALE_TRIES_MAX: usize = 3;
/// How long an idle connection is kept: a ping a minute goes over the same one.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A JSON store record with all its addresses: 16 × `"[v6]:port",` (50) and some 200 for the rest.
const STORE_RECORD_JSON_LEN: usize = 16 * 50 + 200;
const _: () = assert!(LOOKUP_NAMES_MAX * STORE_RECORD_JSON_LEN < ANSWER_LEN_MAX);
/// A domain's relays in JSON: of each all addresses, the URL (JSON may escape each of its octets with another), a PeerId
/// of 52, field names.
const RELAYS_JSON_LEN: usize = RELAYS_MAX * (16 * 50 + 2 * RETRIEVAL_URL_LEN_MAX + 52 + 100);
/// A mailbox's sealing keys in JSON: of each a signature of 64, a mailbox of 320, a PeerId of 38, a key of 32, lengths and
/// a time, in base64, and quotes.
const SEALING_KEYS_JSON_LEN: usize = SEALING_KEYS_MAX * ((64 + 320 + 38 + 32 + 20) * 4 / 3 + 8) + 20;
const _: () = assert!(
    RELAYS_TOLD_NAMES_MAX
        * (STORE_RECORD_JSON_LEN + RELAYS_JSON_LEN + SEALING_KEYS_JSON_LEN + SUCCESSIONS_JSON_LEN)
        < ANSWER_LEN_MAX
);
/// A mailbox's successions in JSON: statements in base64, with their lengths and signatures.
const SUCCESSIONS_JSON_LEN: usize = lighter_protocol::limits::SUCCESSIONS_MAX
    * ((lighter_protocol::limits::SUCCESSION_LEN_MAX + 70) * 4 / 3 + 3)
    + 20;
/// A hosted mailbox in JSON: a statement in base64, with its lengths and signature, and field names.
const HOSTED_MAILBOX_JSON_LEN: usize = (lighter_protocol::limits::STATEMENT_LEN_MAX + 70) * 4 / 3 + 60;
const _: () = assert!(HOSTED_PAGE_MAX * HOSTED_MAILBOX_JSON_LEN + 200 < ANSWER_LEN_MAX);
/// A JSON store presence: a mailbox of 320 octets (none of which JSON escapes), a PeerId of 52, field names.
const STORE_PRESENCE_JSON_LEN: usize = 320 + 52 + 100;
const _: () = assert!(SNAPSHOT_PAGE_MAX * STORE_PRESENCE_JSON_LEN < EVENT_LEN_MAX);
/// A question with the longest mailboxes: 64 + `@` + 255 and a length of two; server, time and tags in front.
const _: () = assert!(FOREIGN_NAMES_MAX * 322 + 64 < lighter_protocol::limits::STATEMENT_LEN_MAX);
const _: () = assert!(FOREIGN_NAMES_MAX <= RELAYS_TOLD_NAMES_MAX);
/// A correspondent in JSON: a mailbox of 320, field names, a time.
const _: () = assert!(CORRESPONDENTS_MAX * (320 + 80) < ANSWER_LEN_MAX);
