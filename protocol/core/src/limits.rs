//! Every bound of the protocol, with its unit and where it comes from; relations are asserted at compile time.

use std::time::Duration;

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
/// Stores that a drop is sealed to (DESIGN §6).
pub const SEALING_KEYS_MAX: usize = 16;
/// Ranges in one `Get`: an interrupted pull asks for what is missing; more gaps are asked for in a further `Get`.
pub const GET_RANGES_MAX: usize = 256;

/// Blobs in one `GetBlobs`: of so many a request costs next to nothing, and they are no more than a piece together.
pub const GET_BLOBS_MAX: usize = 64;
/// Parts of one `Push`: so many small attachments come on one stream, without a round trip for each.
pub const PUSH_PARTS_MAX: usize = 256;
/// Ranges in a `PushAnswer`, of all blobs together: one for each blob of the largest offer, and gaps of what was
/// interrupted. What does not fit the store asks for.
pub const PUSH_ANSWER_RANGES_MAX: usize = 4_096;

/// Bytes of one encoded message on the wire, its length prefix left out: an offer with the most blobs and names fits.
pub const WIRE_MESSAGE_LEN_MAX: usize = 1024 * 1024;

/// Bytes in a blob: 1 TiB. Larger files are not mail.
pub const BLOB_SIZE_MAX: u64 = 1 << 40;

/// Portions of the largest blob.
pub const PORTIONS_MAX: u64 = BLOB_SIZE_MAX / crate::blob::PORTION_LEN;
/// Ranges in a [`crate::blob::RangeSet`]: four range streams add about four gaps a session; far more means damage.
pub const RANGE_SET_RANGES_MAX: usize = 4_096;

/// Bytes of an encoded `Offer`: the largest message.
pub const OFFER_MESSAGE_LEN_MAX: usize = WIRE_MESSAGE_LEN_MAX;
/// Bytes of an encoded message that carries little else than a signed statement: `Receipt`, `Waiting`.
pub const STATEMENT_MESSAGE_LEN_MAX: usize = STATEMENT_LEN_MAX + SIGNATURE_LEN + 16;
/// Bytes of an encoded `Meet` or `Knock`: an introduction, and a PeerId or an address.
pub const MEETING_MESSAGE_LEN_MAX: usize = STATEMENT_MESSAGE_LEN_MAX + 64;
/// Bytes of an encoded `Get`: its ranges (two varints of up to 6 bytes each, as no blob is over 2^40), two ids and an
/// attestation.
pub const GET_MESSAGE_LEN_MAX: usize = GET_RANGES_MAX * 12 + STATEMENT_MESSAGE_LEN_MAX + 64;
/// Bytes of an encoded `GetBlobs`: its ids, the delivery and an attestation.
pub const GET_BLOBS_MESSAGE_LEN_MAX: usize = GET_BLOBS_MAX * 32 + STATEMENT_MESSAGE_LEN_MAX + 64;
/// Bytes of an encoded `Answer`: two for each blob.
pub const ANSWER_MESSAGE_LEN_MAX: usize = OFFER_BLOBS_MAX * 2 + 8;
/// Bytes of an encoded `Push`: its parts' ids and counts, its ranges, the delivery.
pub const PUSH_MESSAGE_LEN_MAX: usize = PUSH_PARTS_MAX * 34 + GET_RANGES_MAX * 12 + 64;
/// Bytes of an encoded `PushAnswer`: an `Answer`, and a part for each blob and the manifest.
pub const PUSH_ANSWER_MESSAGE_LEN_MAX: usize =
    ANSWER_MESSAGE_LEN_MAX + (OFFER_BLOBS_MAX + 1) * 34 + PUSH_ANSWER_RANGES_MAX * 12 + 8;
/// Bytes of an encoded `Drop`: an id and a size for each blob, the recipient and an introduction.
pub const DROP_MESSAGE_LEN_MAX: usize =
    (OFFER_BLOBS_MAX + 1) * 40 + STATEMENT_MESSAGE_LEN_MAX + LOCAL_PART_LEN_MAX + DOMAIN_LEN_MAX + 64;
/// Sharings in one `Sources`, and that a store uses for one delivery: more sources than are asked at a time.
pub const SHARINGS_MAX: usize = SOURCES_MAX;
/// Bytes of a sharing's payload: two mailboxes with their `@` and lengths, two PeerIds, the delivery, the time.
pub const SHARING_LEN_MAX: usize = 2 * (LOCAL_PART_LEN_MAX + 1 + DOMAIN_LEN_MAX + 2) + 2 * 39 + 16 + 10;
/// Bytes of an encoded `Sources`: its sharings, the delivery.
pub const SOURCES_MESSAGE_LEN_MAX: usize = SHARINGS_MAX * (SHARING_LEN_MAX + SIGNATURE_LEN + 4) + 64;
/// Bytes of an encoded `GetShared`: a `Get` and a sharing.
pub const GET_SHARED_MESSAGE_LEN_MAX: usize = GET_MESSAGE_LEN_MAX + SHARING_LEN_MAX + SIGNATURE_LEN + 4;
/// Successions of a store's key that are kept, given out and looked at: the last ones.
pub const SUCCESSIONS_MAX: usize = 16;
/// Bytes of a succession's payload: the mailbox with its `@` and length, two PeerIds, the time.
pub const SUCCESSION_LEN_MAX: usize = LOCAL_PART_LEN_MAX + 1 + DOMAIN_LEN_MAX + 2 + 2 * 39 + 10;
/// Bytes of an encoded `Succession`: its statements.
pub const SUCCESSION_MESSAGE_LEN_MAX: usize = SUCCESSIONS_MAX * (SUCCESSION_LEN_MAX + SIGNATURE_LEN + 4) + 8;
/// Bytes of any other encoded message: a tag and a number, or an id.
pub const SMALL_MESSAGE_LEN_MAX: usize = 64;
/// Bytes of an Ed25519 signature (RFC 8032 §5.1.6).
pub const SIGNATURE_LEN: usize = 64;
/// Bytes of a relay's retrieval URL: `https://`, a domain of 255, a port.
pub const RETRIEVAL_URL_LEN_MAX: usize = 270;

/// An attestation lives at most this long (DESIGN §4).
pub const ATTESTATION_LIFE_MAX: Duration = Duration::from_hours(24);
/// An introduction lives at most this long (DESIGN §4).
pub const INTRODUCTION_LIFE_MAX: Duration = Duration::from_mins(10);
/// A sharing lives at most this long: as an attestation does. The sender makes another one as long as it offers.
pub const SHARING_LIFE_MAX: Duration = Duration::from_hours(24);
/// How far the clocks of a domain's servers and stores may be apart where an attestation is judged (DESIGN §3 rule 9
/// stands still beyond the same hour).
pub const CLOCK_GRACE: Duration = Duration::from_hours(1);
/// The same for an introduction, whose whole life is shorter than that hour: what Kerberos allows (RFC 4120 §1.6).
pub const INTRODUCTION_CLOCK_GRACE: Duration = Duration::from_mins(5);

/// The wait after the first failure of a store that answered; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// No wait is longer, whatever a store asks for with `Later`.
pub const BACKOFF_MAX: Duration = Duration::from_hours(1);
/// How long a store may take to answer an offer: it looks into its index, no more.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a store that is pulling may do nothing at all before the holder takes the pull for dead. Long enough for
/// the store to read a large blob again that it had, and to sync one.
pub const PULL_IDLE_MAX: Duration = Duration::from_mins(10);

/// Range streams of one delivery at a time from its only source: more gain nothing (2 to 4 were measured best).
pub const PULL_STREAMS_MAX: usize = 4;
/// The same from each of several sources.
pub const PULL_SHARED_STREAMS_MAX: usize = 2;
/// Sources of one delivery that are asked at a time; further ones stand by. Each has a connection's window.
pub const PULL_SOURCES_ASKED_MAX: usize = 4;
/// The same where they ask for less than [`PULL_SMALL_LEN_MAX`] together: many small attachments are not fetched one round
/// trip after the other. When half of them are over, as many are asked for in one go ([`GET_BLOBS_MAX`]).
pub const PULL_SMALL_STREAMS_MAX: usize = 2 * GET_BLOBS_MAX;
/// Bytes that such streams ask for together.
pub const PULL_SMALL_LEN_MAX: u64 = PULL_SMALL_STREAMS_MAX as u64 * crate::blob::GROUP_LEN;
/// Bytes that one range stream asks for at least, where there are so many: below, a stream costs more than it gains.
pub const PIECE_LEN_MIN: u64 = 1024 * 1024;
/// Bytes that one range stream asks for at most: what a broken stream leaves to others, and how soon a stream that
/// ended early takes its share of the rest.
pub const PIECE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Range streams of a source that may end without a single new byte, one after the other, before it is given up.
pub const FRUITLESS_STREAMS_MAX: u32 = 3;
/// Bytes that a source among several is first asked for with a stream: its speed is not known yet.
pub const PIECE_LEN_FIRST: u64 = 4 * 1024 * 1024;
/// Then, what it brings in so long: so that a change of speed shows soon, and requests are few.
pub const PIECE_TIME: Duration = Duration::from_secs(4);
/// How often it is looked how fast each of several sources is.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A source that brings less than this …
pub const STALL_LEN: u64 = crate::blob::GROUP_LEN;
/// … in so long has stalled, where others could bring it: longer than a lost packet or a busy disk takes.
pub const STALL_TIME: Duration = Duration::from_secs(5);
/// What a stream will have brought by itself in so long is left to it: taking it away would bring it no sooner.
pub const OVERTAKE_TIME_MIN: Duration = Duration::from_millis(500);
/// How long a stream is given to begin, before all that it was asked for goes to somebody else.
pub const OVERTAKE_OPEN_MIN: Duration = Duration::from_secs(2);
/// How long a store waits for the next push of what it told a holder to push, before it asks for it: longer than a lost
/// packet, a few round trips or a busy disk take.
pub const PUSH_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pushes of one delivery that a holder has open at a time, as a store that pulls has streams.
pub const PUSH_STREAMS_MAX: usize = PULL_STREAMS_MAX;
/// Peers that one delivery is pulled from.
pub const PULL_SOURCES_MAX: usize = SOURCES_MAX + 1;
/// Introductions that a store remembers until they expire, to count what was offered with each.
pub const INTRODUCTIONS_MAX: usize = 1_024;
/// The same for a store of many mailboxes (SPEC A29): a mail service's ten minutes. Some 200 bytes each.
pub const HOSTED_INTRODUCTIONS_MAX: usize = 65_536;
/// Deliveries that one introduction is good for.
pub const INTRODUCTION_DELIVERIES_MAX: usize = 64;

const _: () = assert!(PIECE_LEN_MIN.is_multiple_of(crate::blob::GROUP_LEN) && PIECE_LEN_MIN <= PIECE_LEN_MAX);
const _: () = assert!(PIECE_LEN_MIN <= PIECE_LEN_FIRST && PIECE_LEN_FIRST <= PIECE_LEN_MAX);
const _: () = assert!(PULL_SOURCES_ASKED_MAX * PULL_SHARED_STREAMS_MAX <= PULL_SMALL_STREAMS_MAX);
const _: () =
    assert!(PULL_SHARED_STREAMS_MAX <= PULL_STREAMS_MAX && PULL_SOURCES_ASKED_MAX <= PULL_SOURCES_MAX);
const _: () = assert!(LOOK_INTERVAL.as_millis() < STALL_TIME.as_millis());
const _: () = assert!(OFFER_BLOBS_MAX * (2 * NAME_LEN_MAX + 64) <= WIRE_MESSAGE_LEN_MAX);
const _: () = assert!(RELAYS_MAX * (ADDRESSES_MAX * 20 + RETRIEVAL_URL_LEN_MAX + 48) < STATEMENT_LEN_MAX);
const _: () =
    assert!(GET_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX && ANSWER_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX);
const _: () = assert!(DROP_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX);
const _: () = assert!(
    PUSH_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX && PUSH_ANSWER_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX
);
const _: () = assert!(SHARING_LEN_MAX <= STATEMENT_LEN_MAX && SHARINGS_MAX < PULL_SOURCES_MAX);
const _: () = assert!(
    SOURCES_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX && GET_SHARED_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX
);
const _: () = assert!(GET_BLOBS_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX);
const _: () =
    assert!(SUCCESSION_LEN_MAX <= STATEMENT_LEN_MAX && SUCCESSION_MESSAGE_LEN_MAX <= WIRE_MESSAGE_LEN_MAX);
const _: () = assert!(GET_BLOBS_MAX as u64 * crate::blob::GROUP_LEN <= PIECE_LEN_MIN);
const _: () = assert!(OFFER_BLOBS_MAX < PUSH_ANSWER_RANGES_MAX && PUSH_PARTS_MAX <= GET_RANGES_MAX);
const _: () = assert!(INTRODUCTION_CLOCK_GRACE.as_secs() < INTRODUCTION_LIFE_MAX.as_secs());
const _: () = assert!(PORTIONS_MAX * crate::blob::PORTION_LEN == BLOB_SIZE_MAX);
