//! The location server's HTTP API as types: what each call sends and what comes back (DESIGN §7).
//!
//! JSON; binary values are base64url without padding, times are Unix seconds, PeerIds are libp2p's base58 text, and
//! addresses are `ip:port`. The server's OpenAPI document is made from these types, the client sends and reads them:
//! there is no second description to drift from.

use std::net::SocketAddr;

use lighter_protocol::{
    Attestation, Introduction, Mailbox, PeerId, Registration, RelayRecord, SealingKey, Signed, Statement,
    Succession, UnixTime,
};
use serde::{Deserialize, Serialize};

use super::encoding::{signed, signed_list, signed_option};
use super::foreign::{ForeignQuestion, Speaker};
use super::keys::KeyChange;

/// What a store signs to enrol: this key wants to act for this mailbox, on the strength of this token. Without it,
/// whoever has a token could enrol somebody else's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// BLAKE3 of the enrolment token's text: the statement is good for that one token only.
    pub token_hash: [u8; 32],
    /// For whom.
    pub mailbox: Mailbox,
    /// The store's key; the statement is signed with it.
    pub peer: PeerId,
}

impl Statement for Enrolment {
    const CONTEXT: &'static str = "lighter enrolment 1";
}

/// `GET /v1/domain`: who this server is, and for whom it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DomainAnswer {
    /// The key that signs attestations and introductions.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub location: PeerId,
    /// The domains whose mailboxes it knows; empty: any.
    pub domains: Vec<String>,
    /// Every change of its key, oldest first; the last one may be yet to come. At most
    /// [`super::limits::KEY_CHANGES_MAX`].
    #[serde(default, with = "signed_list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub key_changes: Vec<Signed<KeyChange>>,
}

/// `POST /v1/enrol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolRequest {
    /// The single-use token that the admin made for this mailbox.
    pub token: String,
    /// For whom.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mailbox: Mailbox,
    /// The store's key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
    /// An [`Enrolment`], signed with that key.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signed<Enrolment>,
}

/// The answer to [`EnrolRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolAnswer {
    /// The location server's key: the store keeps it, and believes attestations signed with it only.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub location: PeerId,
    /// Whether this store's receipts release: true for a mailbox's first.
    pub primary: bool,
    /// A further store is not attested until then, unless an existing one confirms it first (DESIGN §4).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub pending_until: Option<UnixTime>,
    /// The attestation; absent while pending.
    #[serde(with = "signed_option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attestation: Option<Signed<Attestation>>,
}

/// `POST /v1/succession`: a store's key is rotated. What the former key was enrolled as, the next one is from then on, at
/// once; the former one may do nothing any more. The answer is that of `POST /v1/enrol`; asked again, it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SuccessionRequest {
    /// The store's word, signed with the key that goes.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub succession: Signed<Succession>,
    /// The same, signed with the key that comes.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub agreed: Signed<Succession>,
    /// What drops for this store are sealed to from now on, signed with the key that comes. Absent: nothing can be left for it
    /// until it registers.
    #[serde(default, with = "signed_option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sealing_key: Option<Signed<SealingKey>>,
}

/// `POST /v1/register`: where the store is, signed by it. Registering is coming online (SPEC A13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterRequest {
    /// The registration, signed with the store's key. Its sequence number must be above every earlier one.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub registration: Signed<Registration>,
    /// What drops for this store are sealed to, signed with the store's key. Absent: what was said before stays.
    #[serde(default, with = "signed_option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sealing_key: Option<Signed<SealingKey>>,
}

/// The answer to [`RegisterRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterAnswer {
    /// The attestation; absent while the store is pending.
    #[serde(with = "signed_option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attestation: Option<Signed<Attestation>>,
    /// Bearer token for the calls that follow. It lives in the server's memory only: after a restart there, register
    /// again.
    pub session: Secret,
    /// Seconds between pings.
    pub ping_interval_s: u32,
    /// A store that has not pinged for so many seconds counts as unavailable (SPEC A14).
    pub ttl_s: u32,
}

/// The answer to `POST /v1/ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PingAnswer {
    /// A new attestation where the last one is half over, or no longer says what is true.
    #[serde(with = "signed_option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attestation: Option<Signed<Attestation>>,
    /// To a hosted store alone: which mailboxes it is the store of, and what is said of them, as an opaque text. Where it is
    /// another one than before, ask again (`POST /v1/hosting`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosting: Option<String>,
}

/// `POST /v1/hosting`: a hosted store asks for the mailboxes that it is the store of (SPEC A29), a page at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostingRequest {
    /// The page begins behind this mailbox. Absent: at the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub after: Option<Mailbox>,
}

/// The answer to [`HostingRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostingAnswer {
    /// As in [`PingAnswer::hosting`]. Where it changes between two pages, begin again.
    pub state: String,
    /// By mailbox; at most [`super::limits::HOSTED_PAGE_MAX`].
    pub mailboxes: Vec<HostedMailbox>,
    /// Whether there are more behind.
    pub more: bool,
}

/// One mailbox of a hosted store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostedMailbox {
    /// That the store may act for it.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub attestation: Signed<Attestation>,
    /// Whether the store's present sealing key for it is known: until it has said one, nobody hears that it is the
    /// mailbox's store.
    pub registered: bool,
}

/// `POST /v1/hosting/registrations`: a hosted store takes its mailboxes on. From here on, and for as long as it pings,
/// those that it has said a sealing key for are online. No key at all says that all it has said before still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostingRegistrations {
    /// What drops for each are sealed to, signed with the store's key; at most [`super::limits::HOSTED_KEYS_MAX`].
    #[serde(with = "signed_list")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub sealing_keys: Vec<Signed<SealingKey>>,
}

/// `POST /v1/hosting/acceptance`: a hosted store asks what a user who has no store of their own has chosen. The answer is
/// that of `GET /v1/acceptance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostedAcceptanceRequest {
    /// Whose choice.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mailbox: Mailbox,
}

/// `POST /v1/primary`: the user says which of the mailbox's stores is the one whose receipts release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PrimaryRequest {
    /// Its key: an enrolled store's, or the hosted one's.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
}

/// `POST /v1/confirm`: an existing store of the mailbox confirms a further one, before its 24 hours are over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfirmRequest {
    /// The further store's key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
}

/// `POST /v1/lookup`: up to [`super::limits::LOOKUP_NAMES_MAX`] at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupRequest {
    /// Who is asked about.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub mailboxes: Vec<Mailbox>,
    /// For whom, where the session is that of an outgoing mail server. Absent: for the session's own mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sender: Option<Mailbox>,
}

/// The answer to [`LookupRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupAnswers {
    /// One for each mailbox, in the order of the request.
    pub answers: Vec<LookupAnswer>,
}

/// The answer about one mailbox: its store, or the `none` that is the same for a mailbox unknown, one without a
/// store, and an asker that is not accepted (SPEC A15, D9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupAnswer {
    /// The store, or `null`.
    pub store: Option<StoreRecord>,
}

/// Where a mailbox's store is, and whether it can be reached now (SPEC A3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreRecord {
    /// The store's key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
    /// UDP addresses of its bulk endpoint, best first; empty for a store that said it is offline, and for one that
    /// only dials out.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<SocketAddr>,
    /// Whether it can be reached now.
    pub presence: Presence,
    /// Since when that is known.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub since: UnixTime,
    /// Whether its receipts release.
    pub primary: bool,
    /// The relays of its domain, each of which introduces whoever may offer to the store, where neither has an address
    /// that can be dialled (`Meet`, PROTOCOL.md §8). Told to
    /// stores that ask about [`super::limits::RELAYS_TOLD_NAMES_MAX`] mailboxes or fewer. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<RelayRequest>))]
    pub relays: Vec<RelayRecord>,
    /// What a drop for the mailbox is sealed to: a key of each of its attested stores that has said one, this one's first.
    /// Told as `relays` are; at most [`lighter_protocol::limits::SEALING_KEYS_MAX`]. Absent: none.
    #[serde(default, with = "signed_list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub sealing_keys: Vec<Signed<SealingKey>>,
    /// Which keys took the place of which, of the mailbox's stores: a receipt may come of one that was not known when
    /// something was sealed. Told as `relays` are; at most [`lighter_protocol::limits::SUCCESSIONS_MAX`]. Absent: none.
    #[serde(default, with = "signed_list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub successions: Vec<Signed<Succession>>,
}

/// Whether a store can be reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It pinged within the set time.
    Online,
    /// It said that it goes, or has not pinged for the set time (SPEC A14).
    Offline,
    /// The server was started and has not heard of it since. It means 'ping the store', never 'send whole'.
    Unknown,
}

/// `POST /v1/introductions`: let me offer to this mailbox's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntroductionRequest {
    /// To whose store.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub recipient: Mailbox,
    /// Bytes that will be offered, all blobs together.
    pub bytes: u64,
    /// Who sends, where the session is that of an outgoing mail server. Absent: the session's own mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sender: Option<Mailbox>,
}

/// The answer to [`IntroductionRequest`]; `null` is the `none` of [`LookupAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntroductionAnswer {
    /// Signed by the location server: goes into the offer.
    #[serde(with = "signed_option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub introduction: Option<Signed<Introduction>>,
}

/// `POST /v1/foreign/lookup` and `POST /v1/foreign/introductions`: a store of another domain asks. The answers are those of
/// `POST /v1/lookup` and `POST /v1/introductions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForeignRequest {
    /// The asker's own domain's word for it.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub attestation: Signed<Attestation>,
    /// What is asked, signed with the key that the attestation names.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub question: Signed<ForeignQuestion>,
    /// Where the question is asked for somebody else: the word of that user's domain that the asker speaks for its users.
    #[serde(default, with = "signed_option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub speaker: Option<Signed<Speaker>>,
}

/// `POST /v1/speaker`: the domain's word, for other domains, that the session's store sends for all users of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpeakerRequest {
    /// The domain.
    pub domain: String,
}

/// The answer to [`SpeakerRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpeakerAnswer {
    /// Signed by the location server: goes into questions to other domains'.
    #[serde(with = "signed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub speaker: Signed<Speaker>,
}

/// Who learns of a mailbox's store, and may offer to it (DESIGN §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AcceptancePolicy {
    /// Every sender whose own domain attests them.
    Open,
    /// People of the own domain, and those whom the recipient accepted or wrote to.
    #[default]
    Known,
    /// Nobody. Own mail servers and relays, who show an API token, go on as before.
    Closed,
}

impl AcceptancePolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Known, Self::Closed];
}

impl std::fmt::Display for AcceptancePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Known => "known",
            Self::Closed => "closed",
        })
    }
}

/// A text that names no [`AcceptancePolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy is one of: open, known, closed")]
pub struct ParsePolicyError;

impl std::str::FromStr for AcceptancePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        Self::ALL.into_iter().find(|policy| policy.to_string() == text).ok_or(ParsePolicyError)
    }
}

/// How somebody stands with a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The recipient accepted them.
    Accepted,
    /// The recipient wrote to them: accepted by that, until said otherwise.
    WrittenTo,
    /// The recipient wants nothing from them, whatever the policy.
    Blocked,
}

/// Somebody of whom a recipient said something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Correspondent {
    /// Who.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mailbox: Mailbox,
    /// How they stand.
    pub standing: Standing,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub since: UnixTime,
}

/// The answer to `GET /v1/acceptance`: what the session's mailbox has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Acceptance {
    /// Who learns of its stores.
    pub policy: AcceptancePolicy,
    /// Those of whom something was said, by their mailbox.
    pub correspondents: Vec<Correspondent>,
}

/// `POST /v1/acceptance`: changes what the session's mailbox has chosen. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AcceptanceChange {
    /// Who learns of its stores.
    pub policy: Option<AcceptancePolicy>,
    /// To be accepted from now on.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub accept: Vec<Mailbox>,
    /// To be blocked from now on.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub block: Vec<Mailbox>,
    /// Nothing is said of them any more.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub forget: Vec<Mailbox>,
    /// The user wrote to them: accepted, unless something was said of them before.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub wrote_to: Vec<Mailbox>,
    /// Whose choice it is, where the session is that of an outgoing mail server, which says nothing but `wrote_to` for
    /// others, or of a hosted store, for users who have no store of their own. Absent: that of the session's own mailbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sender: Option<Mailbox>,
}

impl AcceptanceChange {
    /// How many mailboxes it names.
    pub fn names(&self) -> usize {
        self.accept.len() + self.block.len() + self.forget.len() + self.wrote_to.len()
    }
}

/// `PUT /v1/relays`: the relay makes itself known, and is named in attestations from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelayRequest {
    /// The relay's key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
    /// UDP addresses of its QUIC endpoint, best first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<SocketAddr>,
    /// Where it hands out attachments by ticket: `https://host` or `http://host:port`, no path.
    pub retrieval_url: String,
}

impl From<RelayRequest> for RelayRecord {
    fn from(request: RelayRequest) -> Self {
        let RelayRequest { peer, addresses, retrieval_url } = request;
        Self { peer, addresses, retrieval_url }
    }
}

impl From<RelayRecord> for RelayRequest {
    fn from(record: RelayRecord) -> Self {
        let RelayRecord { peer, addresses, retrieval_url } = record;
        Self { peer, addresses, retrieval_url }
    }
}

/// One store's presence, in the events of `GET /v1/presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StorePresence {
    /// Whose store.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mailbox: Mailbox,
    /// The store.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
    /// Whether it can be reached.
    pub presence: Presence,
}

/// One page of the snapshot that a presence stream begins with (event `snapshot`). Stores that are online are named;
/// one that is not in any page is not known to be online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotPage {
    /// The stores that are online.
    pub stores: Vec<StorePresence>,
    /// The snapshot is complete; changes follow (event `change`, each a [`StorePresence`]).
    pub last: bool,
}

/// One key that is no store of a mailbox any more, in the events of `GET /v1/presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocation {
    /// Whose store it was.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mailbox: Mailbox,
    /// Which.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: PeerId,
    /// Nothing counts that was attested for it until then, the second itself among them.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub at: UnixTime,
}

/// Keys that are no store's any more (event `revoked`): all of those whose attestations may still verify stand before the
/// snapshot, at most [`super::limits::SNAPSHOT_PAGE_MAX`] in an event; later ones come as they happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocations {
    /// Which.
    pub revoked: Vec<Revocation>,
}

/// Name of the event that carries [`Revocations`].
pub const EVENT_REVOKED: &str = "revoked";
/// Name of the event that carries a [`SnapshotPage`].
pub const EVENT_SNAPSHOT: &str = "snapshot";
/// Name of the event that carries a changed [`StorePresence`].
pub const EVENT_CHANGE: &str = "change";
/// Name of the event that ends a stream whose reader was too slow, or whose server stops: come again.
pub const EVENT_AGAIN: &str = "again";

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorAnswer {
    /// What went wrong, for programs.
    pub error: ErrorCode,
    /// What went wrong, for people: chosen text, never an inner error's words.
    pub message: String,
    /// With [`ErrorCode::Stale`]: the sequence number that the next registration must exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not what the API takes (400, 411, 415).
    Malformed,
    /// No token, one that is not known (any more), or one without the scope (401).
    Unauthorised,
    /// Understood and refused (403): one answer for a wrong, used, expired or foreign token or signature.
    Refused,
    /// No such route (404) or method (405).
    NotFound,
    /// A registration whose sequence number is not above the last (409).
    Stale,
    /// The body is over its limit (413).
    TooLarge,
    /// An address that nobody may be told to dial (422): loopback, private, link-local, multicast and the like.
    Address,
    /// Too many requests: `Retry-After` says when to come again (429).
    TooMany,
    /// As many as can be kept (507): stores of a mailbox, relays, tokens.
    Full,
    /// The server cannot do it now: its disk failed, or it is stopping (503).
    Unavailable,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

/// A token in the open: shown never in a log, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a token's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token's text: to send it, or to show it to the one whom it was made for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What servers keep of it: BLAKE3 of the text. A token has 256 random bits, so a plain hash is enough.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(self.0.as_bytes()).as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text.trim()))
    }
}

/// What an API token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look up stores: mail servers and relays.
    Lookup,
    /// Read the presence stream: relays.
    Presence,
    /// Make a relay known.
    Relay,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lookup, Self::Presence, Self::Relay];
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lookup => "lookup",
            Self::Presence => "presence",
            Self::Relay => "relay",
        })
    }
}

/// A text that names no [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of: lookup, presence, relay")]
pub struct ParseScopeError;

impl std::str::FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        Self::ALL.into_iter().find(|scope| scope.to_string() == text).ok_or(ParseScopeError)
    }
}

#[cfg(test)]
mod tests;
