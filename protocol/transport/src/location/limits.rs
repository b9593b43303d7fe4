//! Every bound of the location API's client side, with its unit and where it comes from.

use std::time::Duration;

use lighter_protocol::limits::{RELAYS_MAX, RETRIEVAL_URL_LEN_MAX, SEALING_KEYS_MAX};

/// Mailboxes in one `POST /v1/lookup` (DESIGN §7).
pub const LOOKUP_NAMES_MAX: usize = 1_000;
/// Mailboxes in one look-up up to which the relays of their domain, and what is sealed to, are told with each: as many as a message has
/// recipients.
pub const RELAYS_TOLD_NAMES_MAX: usize = 100;
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
    RELAYS_TOLD_NAMES_MAX * (STORE_RECORD_JSON_LEN + RELAYS_JSON_LEN + SEALING_KEYS_JSON_LEN)
        < ANSWER_LEN_MAX
);
/// A JSON store presence: a mailbox of 320 octets (none of which JSON escapes), a PeerId of 52, field names.
const STORE_PRESENCE_JSON_LEN: usize = 320 + 52 + 100;
const _: () = assert!(SNAPSHOT_PAGE_MAX * STORE_PRESENCE_JSON_LEN < EVENT_LEN_MAX);
