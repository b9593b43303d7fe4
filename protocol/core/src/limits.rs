//! Every bound of the protocol, with its unit and where it comes from; relations are asserted at compile time.

/// Octets in a local part (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_LEN_MAX: usize = 64;
/// Octets in a domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_LEN_MAX: usize = 255;

/// Bytes in a signed statement's payload: the largest, an attestation with all its relays, is under 4 KiB.
pub const STATEMENT_LEN_MAX: usize = 8 * 1024;
/// Addresses in a registration or in a relay's record: two families, two interfaces, two ports, doubled.
pub const ADDRESSES_MAX: usize = 16;
/// Relays that an attestation names.
pub const RELAYS_MAX: usize = 8;

/// Blobs in one offer. A message with more attachments keeps the rest in its text (lighter-message's own bound is lower).
pub const OFFER_BLOBS_MAX: usize = 1_000;
/// Bytes in an attachment's name or type within an offer.
pub const NAME_LEN_MAX: usize = 255;
/// Peers named as sources in an offer.
pub const SOURCES_MAX: usize = 16;
/// Ranges in one `Get`: an interrupted pull asks for what is missing; more gaps are asked for in a further `Get`.
pub const GET_RANGES_MAX: usize = 256;

/// Bytes of one encoded message on the wire, its length prefix left out: an offer with the most blobs and names fits.
pub const WIRE_MESSAGE_LEN_MAX: usize = 1024 * 1024;

/// Bytes in a blob: 1 TiB. Larger files are not mail.
pub const BLOB_SIZE_MAX: u64 = 1 << 40;

const _: () = assert!(OFFER_BLOBS_MAX * (2 * NAME_LEN_MAX + 64) <= WIRE_MESSAGE_LEN_MAX);
const _: () = assert!(RELAYS_MAX * (ADDRESSES_MAX * 20 + 300) < STATEMENT_LEN_MAX);
