//! What is durable: rows of twelve kinds, each with a key, and the changes that make them.
//!
//! # Format
//! A value is one version byte (now 1) and the row's postcard encoding. Keys: of enrolments, registrations,
//! sealing keys, successions (the key that goes) and revocations `MAILBOX NUL PEER` (a mailbox holds no NUL; the peer in its binary form), of API tokens and invitations the BLAKE3
//! hash of the token's text, of relays the peer; of policies the mailbox, of correspondents `RECIPIENT NUL SENDER`, of other
//! domains' keys the domain, of changes of the own key the peer whose key goes.

use lighter_protocol::{
    Mailbox, PeerId, Registration, RelayRecord, SealingKey, Signed, Succession, UnixTime,
};
use lighter_transport::location::Scope;
use lighter_transport::location::api::{AcceptancePolicy, Standing};
use lighter_transport::location::keys::KeyChange;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// BLAKE3 of a token's text. A token has 256 random bits, so a plain hash is enough.
pub type TokenHash = [u8; 32];

/// A store's name: whose, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey {
    /// Whose store.
    pub mailbox: Mailbox,
    /// Its key.
    pub peer: PeerId,
}

/// A peer may act for a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentRow {
    /// Its receipts release; true for one store of a mailbox.
    pub primary: bool,
    /// When it enrolled.
    pub enrolled: UnixTime,
    /// From here on it is attested: at once for a mailbox's first store, for a further one 24 hours later, or when an
    /// existing one confirmed it (DESIGN §4).
    pub confirmed: UnixTime,
}

/// Where a store said last that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistrationRow {
    /// Its registration, as it signed it.
    Registered(Signed<Registration>),
    /// It said that it goes offline: the addresses are removed, the sequence number stays (SPEC A13).
    Withdrawn {
        /// The last registration's.
        sequence: u64,
    },
}

/// What a mail server or a relay shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Short, public: to name it when it is to be revoked.
    pub id: String,
    /// What the admin calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created: UnixTime,
    /// None: never.
    pub expires: Option<UnixTime>,
    /// None: it is good.
    pub revoked: Option<UnixTime>,
}

/// An enrolment token that waits to be used, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRow {
    /// For whom.
    pub mailbox: Mailbox,
    /// When it was made.
    pub created: UnixTime,
    /// From here on it is good for nothing.
    pub expires: UnixTime,
}

/// What a recipient said of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorrespondentRow {
    /// How they stand.
    pub standing: Standing,
    /// Since when.
    pub since: UnixTime,
}

/// Who said something of whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CorrespondentKey {
    /// Whose choice it is.
    pub recipient: Mailbox,
    /// Of whom.
    pub sender: Mailbox,
}

/// The key of another domain's location server, as it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRow {
    /// The key.
    pub key: PeerId,
    /// When it was looked at last; to the day.
    pub seen: UnixTime,
    /// Another one that the domain says is its own, which nothing announced, and since when.
    pub other: Option<(PeerId, UnixTime)>,
}

/// One row with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// See [`EnrolmentRow`].
    Enrolment(StoreKey, EnrolmentRow),
    /// See [`RegistrationRow`].
    Registration(StoreKey, RegistrationRow),
    /// See [`TokenRow`].
    Token(TokenHash, TokenRow),
    /// See [`InvitationRow`].
    Invitation(TokenHash, InvitationRow),
    /// A relay, named in attestations.
    Relay(RelayRecord),
    /// What drops for a store are sealed to, as it signed it.
    SealingKey(StoreKey, Signed<SealingKey>),
    /// Who learns of a mailbox's stores.
    Policy(Mailbox, AcceptancePolicy),
    /// See [`CorrespondentRow`].
    Correspondent(CorrespondentKey, CorrespondentRow),
    /// See [`PinRow`]; by the domain.
    Pin(String, PinRow),
    /// A change of this server's key, signed with the one that goes.
    KeyChange(PeerId, Signed<KeyChange>),
    /// A store's word that another key took the place of this one.
    Succession(StoreKey, Signed<Succession>),
    /// This key is no store of the mailbox any more: nothing counts that was attested for it until then.
    Revocation(StoreKey, UnixTime),
}

/// A row's key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKey {
    /// See [`EnrolmentRow`].
    Enrolment(StoreKey),
    /// See [`RegistrationRow`].
    Registration(StoreKey),
    /// See [`TokenRow`].
    Token(TokenHash),
    /// See [`InvitationRow`].
    Invitation(TokenHash),
    /// A relay.
    Relay(PeerId),
    /// What drops for a store are sealed to.
    SealingKey(StoreKey),
    /// Who learns of a mailbox's stores.
    Policy(Mailbox),
    /// See [`CorrespondentRow`].
    Correspondent(CorrespondentKey),
    /// See [`PinRow`].
    Pin(String),
    /// A change of this server's key.
    KeyChange(PeerId),
    /// A store's key that was changed for another.
    Succession(StoreKey),
    /// A key that is no store's any more.
    Revocation(StoreKey),
}

/// One change of what is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write this row, over the one with its key.
    Put(Row),
    /// Remove the row with this key, if there is one.
    Remove(RowKey),
}

/// The kinds of rows, in the order in which they are loaded: a registration comes after its enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// See [`EnrolmentRow`].
    Enrolment,
    /// See [`RegistrationRow`].
    Registration,
    /// See [`TokenRow`].
    Token,
    /// See [`InvitationRow`].
    Invitation,
    /// A relay.
    Relay,
    /// What drops for a store are sealed to.
    SealingKey,
    /// Who learns of a mailbox's stores.
    Policy,
    /// See [`CorrespondentRow`].
    Correspondent,
    /// See [`PinRow`].
    Pin,
    /// A change of this server's key.
    KeyChange,
    /// A change of a store's key.
    Succession,
    /// A key that is no store's any more.
    Revocation,
}

impl Kind {
    /// All of them, in loading order.
    pub const ALL: [Self; 12] = [
        Self::Enrolment,
        Self::Registration,
        Self::Token,
        Self::Invitation,
        Self::Relay,
        Self::SealingKey,
        Self::Policy,
        Self::Correspondent,
        Self::Pin,
        Self::KeyChange,
        Self::Succession,
        Self::Revocation,
    ];
}

/// A row that does not read as one: damaged, or from a version that this one does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a row of this version")]
pub struct DamagedRow;

const VERSION: u8 = 1;

impl Row {
    /// The row's key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Enrolment(key, _) => RowKey::Enrolment(key.clone()),
            Self::Registration(key, _) => RowKey::Registration(key.clone()),
            Self::Token(hash, _) => RowKey::Token(*hash),
            Self::Invitation(hash, _) => RowKey::Invitation(*hash),
            Self::Relay(relay) => RowKey::Relay(relay.peer),
            Self::SealingKey(key, _) => RowKey::SealingKey(key.clone()),
            Self::Policy(mailbox, _) => RowKey::Policy(mailbox.clone()),
            Self::Correspondent(key, _) => RowKey::Correspondent(key.clone()),
            Self::Pin(domain, _) => RowKey::Pin(domain.clone()),
            Self::KeyChange(present, _) => RowKey::KeyChange(*present),
            Self::Succession(key, _) => RowKey::Succession(key.clone()),
            Self::Revocation(key, _) => RowKey::Revocation(key.clone()),
        }
    }

    /// Of which kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Enrolment(..) => Kind::Enrolment,
            Self::Registration(..) => Kind::Registration,
            Self::Token(..) => Kind::Token,
            Self::Invitation(..) => Kind::Invitation,
            Self::Relay(_) => Kind::Relay,
            Self::SealingKey(..) => Kind::SealingKey,
            Self::Policy(..) => Kind::Policy,
            Self::Correspondent(..) => Kind::Correspondent,
            Self::Pin(..) => Kind::Pin,
            Self::KeyChange(..) => Kind::KeyChange,
            Self::Succession(..) => Kind::Succession,
            Self::Revocation(..) => Kind::Revocation,
        }
    }

    /// The row's value as bytes.
    pub fn encode_value(&self) -> Vec<u8> {
        match self {
            Self::Enrolment(_, row) => encode(row),
            Self::Registration(_, row) => encode(row),
            Self::Token(_, row) => encode(row),
            Self::Invitation(_, row) => encode(row),
            Self::Relay(relay) => encode(relay),
            Self::SealingKey(_, signed) => encode(signed),
            Self::Policy(_, policy) => encode(policy),
            Self::Correspondent(_, row) => encode(row),
            Self::Pin(_, row) => encode(row),
            Self::KeyChange(_, signed) => encode(signed),
            Self::Succession(_, signed) => encode(signed),
            Self::Revocation(_, at) => encode(at),
        }
    }

    /// The row that key and value are, of this kind.
    ///
    /// # Errors
    /// [`DamagedRow`].
    pub fn decode(kind: Kind, key: &[u8], value: &[u8]) -> Result<Self, DamagedRow> {
        let hash = || TokenHash::try_from(key).map_err(|_| DamagedRow);
        Ok(match kind {
            Kind::Enrolment => Self::Enrolment(StoreKey::decode(key)?, decode(value)?),
            Kind::Registration => Self::Registration(StoreKey::decode(key)?, decode(value)?),
            Kind::Token => Self::Token(hash()?, decode(value)?),
            Kind::Invitation => Self::Invitation(hash()?, decode(value)?),
            Kind::Relay => Self::Relay(decode(value)?),
            Kind::SealingKey => Self::SealingKey(StoreKey::decode(key)?, decode(value)?),
            Kind::Policy => Self::Policy(decode_mailbox(key)?, decode(value)?),
            Kind::Correspondent => Self::Correspondent(CorrespondentKey::decode(key)?, decode(value)?),
            Kind::Pin => {
                let domain = std::str::from_utf8(key).map_err(|_| DamagedRow)?;
                Self::Pin(domain.to_owned(), decode(value)?)
            }
            Kind::Succession => Self::Succession(StoreKey::decode(key)?, decode(value)?),
            Kind::Revocation => Self::Revocation(StoreKey::decode(key)?, decode(value)?),
            Kind::KeyChange => {
                Self::KeyChange(PeerId::from_bytes(key).map_err(|_| DamagedRow)?, decode(value)?)
            }
        })
    }
}

impl RowKey {
    /// Of which kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Enrolment(_) => Kind::Enrolment,
            Self::Registration(_) => Kind::Registration,
            Self::Token(_) => Kind::Token,
            Self::Invitation(_) => Kind::Invitation,
            Self::Relay(_) => Kind::Relay,
            Self::SealingKey(_) => Kind::SealingKey,
            Self::Policy(_) => Kind::Policy,
            Self::Correspondent(_) => Kind::Correspondent,
            Self::Pin(_) => Kind::Pin,
            Self::KeyChange(_) => Kind::KeyChange,
            Self::Succession(_) => Kind::Succession,
            Self::Revocation(_) => Kind::Revocation,
        }
    }

    /// The key as bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Enrolment(key)
            | Self::Registration(key)
            | Self::SealingKey(key)
            | Self::Succession(key)
            | Self::Revocation(key) => key.encode(),
            Self::Token(hash) | Self::Invitation(hash) => hash.to_vec(),
            Self::Relay(peer) | Self::KeyChange(peer) => peer.to_bytes(),
            Self::Policy(mailbox) => mailbox.as_str().as_bytes().to_vec(),
            Self::Correspondent(key) => key.encode(),
            Self::Pin(domain) => domain.as_bytes().to_vec(),
        }
    }
}

impl Change {
    /// Of which kind of row.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Put(row) => row.kind(),
            Self::Remove(key) => key.kind(),
        }
    }
}

impl StoreKey {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.mailbox.as_str().as_bytes().to_vec();
        bytes.push(0);
        bytes.extend_from_slice(&self.peer.to_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, DamagedRow> {
        let end = bytes.iter().position(|&byte| byte == 0).ok_or(DamagedRow)?;
        let mailbox = std::str::from_utf8(&bytes[..end]).map_err(|_| DamagedRow)?;
        let mailbox = mailbox.parse().map_err(|_| DamagedRow)?;
        let peer = PeerId::from_bytes(&bytes[end + 1..]).map_err(|_| DamagedRow)?;
        Ok(Self { mailbox, peer })
    }
}

impl CorrespondentKey {
    fn encode(&self) -> Vec<u8> {
        [self.recipient.as_str().as_bytes(), &[0], self.sender.as_str().as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DamagedRow> {
        let end = bytes.iter().position(|&byte| byte == 0).ok_or(DamagedRow)?;
        Ok(Self { recipient: decode_mailbox(&bytes[..end])?, sender: decode_mailbox(&bytes[end + 1..])? })
    }
}

fn decode_mailbox(bytes: &[u8]) -> Result<Mailbox, DamagedRow> {
    std::str::from_utf8(bytes).map_err(|_| DamagedRow)?.parse().map_err(|_| DamagedRow)
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let version = vec![VERSION];
    // Serialising to memory fails only where a type says so itself, and none of these does; what would come out then
    // is a row that reads as damaged, never as another.
    postcard::to_extend(row, version).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, DamagedRow> {
    match value.split_first() {
        Some((&VERSION, encoded)) => match postcard::take_from_bytes(encoded) {
            Ok((row, [])) => Ok(row),
            _ => Err(DamagedRow),
        },
        _ => Err(DamagedRow),
    }
}
