//! The messages that peers exchange (ALPN `lighter/1`).
//!
//! Every request opens a bidirectional stream of its own: the asker writes one [`Request`] and finishes its side; the
//! other writes one [`Response`] and, after [`Response::Data`], the verified stream. Either side of a connection may
//! ask: a relay offers on the connection that the agent opened, and the agent pulls on it. Behind [`Request::Push`] the
//! asker's side goes on: verified streams, then its end.
//!
//! `codec` puts messages into bytes and takes them out again, in pieces of any size; `check` holds what a message
//! must be besides well-formed: counts, lengths and ranges within [`crate::limits`]. What [`Decoder`] and [`decode`]
//! give has been checked.

mod check;
mod codec;

pub use check::{Check, Invalid, InvalidKind};
pub use codec::{Decoder, Message, WireError, decode, encode};

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{
    Attestation, BlobId, DeliveryId, Introduction, Mailbox, Receipt, Sharing, Signed, Succession, UnixTime,
};

/// The protocol's name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"lighter/1";

/// What one side asks the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Are you there? Answered [`Response::Pong`]. Also the first thing on a new connection: its answer tells the
    /// client that the server accepted its certificate.
    Ping,
    /// Has your store got it? Answered to own relays and own devices only (DESIGN §4).
    Have(Have),
    /// I hold these blobs for you.
    Offer(Offer),
    /// Send me these ranges of this blob of this delivery.
    Get(Get),
    /// A whole delivery is durable here: let go of it.
    Receipt(Signed<Receipt>),
    /// From a store to its relay: I am online, is anything waiting? The connection becomes the store's session.
    Waiting(Waiting),
    /// From a sender to a relay of the recipient's domain: let the recipient's store and me find each other.
    Meet(Meet),
    /// From a relay to a store that has a session with it: somebody who may offer wants to meet you.
    Knock(Knock),
    /// The first thing on a connection that a store opened because of a [`Request::Knock`]: this is the connection that
    /// you asked for, with the introduction of this [`Introduction::number`].
    Here(u64),
    /// From a sender's agent to a relay of the recipient's domain: take this, sealed, for a store that is not there.
    /// Answered once it is durable, or will not be taken: the relay pulls it on the same connection meanwhile.
    Drop(NewDrop),
    /// What has become of what I dropped? Answered to its sender only.
    DropState(DeliveryId),
    /// I hold these blobs for you, and would push them. Answered by [`Response::PushAnswer`], or as an
    /// [`Request::Offer`] where the store pulls.
    PushOffer(Offer),
    /// Here are these ranges: the verified stream of each part follows at once, one behind the other.
    Push(Push),
    /// From who offered a delivery: these other recipients of the same message have it, and you may ask them for it.
    /// Answered [`Response::Noted`], whether they are asked or not.
    Sources(Sources),
    /// Send me these ranges of this blob of your delivery: who offered it to you says that I may. Answered as a
    /// [`Request::Get`].
    GetShared(GetShared),
    /// Send me these small blobs of this delivery, all of each. Answered as a [`Request::Get`], with the bytes of one behind
    /// the other as the stream: a blob of one group is its own proof.
    GetBlobs(GetBlobs),
    /// From a sender's agent to a relay: this peer's key took the place of others, by their word; what they left here is
    /// mine. Holds for this connection. At least one, at most [`crate::limits::SUCCESSIONS_MAX`]; answered
    /// [`Response::Noted`], or [`Response::Refused`] where none of them leads to this peer.
    Succession(Vec<Signed<Succession>>),
}

/// What the other side answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Ping`].
    Pong,
    /// To [`Request::Have`].
    Have(bool),
    /// To [`Request::Offer`]: one answer for each of its `blobs`, in the offer's order. The manifest has none: it is
    /// pulled where anything is.
    Answer(Vec<Answer>),
    /// To [`Request::Get`]: the blob's size, as claimed until its last chunk is verified; the verified stream follows.
    Data {
        /// Bytes in the whole blob; to [`Request::GetBlobs`], in all of them together.
        size: u64,
    },
    /// To [`Request::Receipt`]: the receipt is recorded durably.
    Released,
    /// To [`Request::Waiting`]: how many deliveries will be offered now, as far as known.
    Waiting(u64),
    /// The one answer for everything not allowed, not known, not accepted yet (DESIGN §3 rule 11).
    Refused,
    /// Try again after so many seconds: this side is busy or lacks something for a while.
    Later(u32),
    /// To [`Request::Meet`]: the store was told, and tries to connect to where the relay saw the sender. This is where
    /// the relay sees the store.
    Met(SocketAddr),
    /// To [`Request::Knock`]: the store connects now. To [`Request::Here`]: the connection is wanted, and will be used.
    Coming,
    /// To [`Request::Drop`].
    Dropped(DropAnswer),
    /// To [`Request::DropState`].
    DropState(DropState),
    /// To [`Request::PushOffer`]: the answers, and what is to be pushed.
    PushAnswer(PushAnswer),
    /// To [`Request::Push`]: all of it has come, verified. That it is durable only a receipt says.
    Pushed,
    /// To [`Request::Sources`] and [`Request::Succession`]: it is known now.
    Noted,
}

/// Names a delivery or a blob that the store may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Have {
    /// Manifest and all blobs of this delivery.
    Delivery(DeliveryId),
    /// This blob.
    Blob(BlobId),
}

/// I hold these blobs for you (DESIGN §6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// The delivery that they belong to.
    pub delivery: DeliveryId,
    /// For whom.
    pub mailbox: Mailbox,
    /// The manifest: pulled first, outside quota.
    pub manifest: OfferedBlob,
    /// The attachments.
    pub blobs: Vec<OfferedBlob>,
    /// Who else has them. PeerIds only: a store dials addresses from its own location server's records, never ones
    /// that came in an offer.
    pub sources: Vec<PeerId>,
    /// The holder keeps them until then.
    pub expires: UnixTime,
    /// For an offer from a sender's agent: the recipient's location server's word that this sender may offer. A relay
    /// needs none: the store's own attestation names it.
    pub introduction: Option<Signed<Introduction>>,
}

/// One blob of an offer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OfferedBlob {
    /// Its hash.
    pub id: BlobId,
    /// Its size in bytes, as claimed: not to be trusted until its last chunk is verified.
    pub size: u64,
    /// The attachment's name, as the message gave it: hostile input. Empty for a manifest.
    pub name: String,
    /// The attachment's media type, as the message gave it: hostile input. Empty for a manifest.
    pub media_type: String,
}

/// The store's answer for one offered blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// It is durable here, re-read from disk.
    Have,
    /// It will be pulled.
    Pull,
    /// Not now.
    Later(LaterReason),
    /// Never.
    No(NoReason),
}

/// Why a blob is wanted later, not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaterReason {
    /// The store's quota is used up.
    Quota,
    /// The disk is full.
    Disk,
    /// As many pulls as allowed are under way.
    Busy,
    /// The user paused it, or a schedule or a metered network says so.
    Paused,
}

/// Why a blob is not wanted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoReason {
    /// Larger than this store takes.
    TooLarge,
    /// The mailbox is not this store's, the offering peer may not offer, or the introduction does not cover it.
    NotAccepted,
}

/// Send me these ranges of this blob of this delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The right to read comes from here: a delivery to the asker's mailbox.
    pub delivery: DeliveryId,
    /// One of the delivery's blobs, or its manifest.
    pub blob: BlobId,
    /// Byte ranges `[start, end)`, ascending, none overlapping; no range at all means the whole blob. Rounded out to
    /// chunk groups by both sides ([`crate::blob::chunk_ranges`]). At most [`crate::limits::GET_RANGES_MAX`].
    pub ranges: Vec<(u64, u64)>,
    /// For an asker that is not the one who was offered it (a user's further device): its attestation.
    pub attestation: Option<Signed<Attestation>>,
}

/// Send me these small blobs of this delivery, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBlobs {
    /// As in [`Get::delivery`].
    pub delivery: DeliveryId,
    /// Which, in this order: each of one to [`crate::blob::GROUP_LEN`] bytes. At least one, at most
    /// [`crate::limits::GET_BLOBS_MAX`].
    pub blobs: Vec<BlobId>,
    /// As in [`Get::attestation`].
    pub attestation: Option<Signed<Attestation>>,
}

/// What a store answers to a holder that would push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAnswer {
    /// As in [`Response::Answer`].
    pub answers: Vec<Answer>,
    /// What is missing, and to be pushed: the manifest first. At most
    /// [`crate::limits::PUSH_ANSWER_RANGES_MAX`] ranges in all; what is not named here the store asks for.
    pub wanted: Vec<PushPart>,
}

/// Ranges of one blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PushPart {
    /// Which.
    pub blob: BlobId,
    /// Byte ranges `[start, end)` as in [`Get::ranges`], but at least one, and whole groups.
    pub ranges: Vec<(u64, u64)>,
}

/// Here are these ranges: what a holder says in front of the verified streams that nobody asked for one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The delivery that was offered, by this peer, with [`Request::PushOffer`].
    pub delivery: DeliveryId,
    /// What follows, in this order. At least one part, at most [`crate::limits::PUSH_PARTS_MAX`], and at most
    /// [`crate::limits::GET_RANGES_MAX`] ranges in all.
    pub parts: Vec<PushPart>,
}

/// Other recipients of the same message have it, and may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The delivery that was offered to the one who is told this.
    pub delivery: DeliveryId,
    /// Who may be asked: the statements that they are to be shown. At least one, at most
    /// [`crate::limits::SHARINGS_MAX`].
    pub sharings: Vec<Signed<Sharing>>,
}

/// Send me what another one's delivery holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetShared {
    /// Of the delivery that the sharing names: the giver's. Its attestation is the asker's own, for the taker's mailbox.
    pub get: Get,
    /// The right to read.
    pub sharing: Signed<Sharing>,
}

/// I am online; is anything waiting? (DESIGN §6)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Proves for which mailbox this peer acts.
    pub attestation: Signed<Attestation>,
}

/// Let the recipient's store and me find each other: both of us are behind routers that let in only what answers
/// (PROTOCOL.md §8).
///
/// It says no address: what counts is the one that the relay sees, since nobody can be made to knock at another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meet {
    /// The recipient's location server's word that this sender may offer to that mailbox's store.
    pub introduction: Signed<Introduction>,
    /// Which of the mailbox's stores.
    pub store: PeerId,
}

/// Somebody who may offer wants to meet you.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// Says who, and that they may. The store judges it by itself.
    pub introduction: Signed<Introduction>,
    /// Where the relay sees the sender: the other end of the connection that its [`Meet`] came on.
    pub address: SocketAddr,
}

/// A delivery that is left with the recipient's domain, sealed to the recipient's stores (DESIGN §6, "drop"). Names and
/// media types are inside; there is no room for them here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDrop {
    /// Drawn by the sender. On the relay it is this sender's alone: nobody else learns of it, or changes it.
    pub delivery: DeliveryId,
    /// For whom.
    pub recipient: Mailbox,
    /// What opens the rest, sealed to each store: the delivery's manifest, as far as the relay is concerned.
    pub envelope: SealedBlob,
    /// The message's own manifest and its attachments, sealed, in the envelope's order.
    pub blobs: Vec<SealedBlob>,
    /// The sender wants it kept until then; the relay may keep it for less.
    pub expires: UnixTime,
    /// The location server's word that this sender may offer so many (sealed) bytes to this mailbox.
    pub introduction: Signed<Introduction>,
}

/// One sealed blob of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBlob {
    /// The hash of the sealed bytes.
    pub id: BlobId,
    /// How many they are.
    pub size: u64,
}

impl NewDrop {
    /// The media type that a relay offers an envelope with: the store knows by it that the delivery is a drop. What the
    /// envelope is is proved by opening it.
    pub const MEDIA_TYPE: &str = "application/vnd.lighter.drop";

    /// Bytes of all blobs, the envelope's too.
    pub fn bytes(&self) -> u64 {
        self.parts().fold(0, |sum: u64, blob| sum.saturating_add(blob.size))
    }

    /// The envelope, then the blobs.
    pub fn parts(&self) -> impl Iterator<Item = &SealedBlob> {
        std::iter::once(&self.envelope).chain(&self.blobs)
    }
}

/// What a relay says to a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropAnswer {
    /// All of it is durable here, on all promised copies, until this day is over; the same answer whenever the same
    /// sender asks again.
    Taken {
        /// It is kept until then.
        until: UnixTime,
    },
    /// Not now.
    Later(LaterReason),
    /// Never.
    No(NoReason),
}

/// What has become of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropState {
    /// It waits for the store.
    Waiting,
    /// A store of the recipient's has it: its word, to be verified like any receipt. It names the envelope as the manifest.
    Receipted(Signed<Receipt>),
    /// Nobody fetched it in time; it is gone.
    Expired,
}
