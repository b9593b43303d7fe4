//! Who is enrolled, where their stores are, which tokens are good, which relays there are: a value with no I/O.
//!
//! It is the view, in memory, of what the engine keeps. Every method that changes something decides on the view,
//! changes it, and appends the same to `changes`, for the engine to commit; only then is the asker answered
//! (DESIGN §3 rule 1). The view may be ahead of the disk by one commit, some milliseconds; nothing is promised from it
//! in between, and where that commit fails, nothing is changed any more (see [`crate::writer`]).

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use lighter_protocol::limits::RELAYS_MAX;
use lighter_protocol::{Mailbox, PeerId, Registration, RelayRecord, SealingKey, Signed, UnixTime};
use lighter_transport::location::Scope;
use lighter_transport::location::keys::KeyChange;

use crate::limits::{CONFIRMATION_DELAY, INVITATIONS_MAX, STORES_MAX, STORES_PER_MAILBOX_MAX, TOKENS_MAX};
use crate::policy::{Choice, Step};
use crate::rate::Allowance;
use crate::rows::{
    Change, EnrolmentRow, InvitationRow, PinRow, RegistrationRow, Row, RowKey, StoreKey, TokenHash, TokenRow,
};

/// A store's number for as long as this process runs. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(u32);

impl StoreId {
    /// The store with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number, as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// One enrolled store.
#[derive(Debug)]
pub struct Store {
    /// Whose, and which.
    pub key: StoreKey,
    /// Its receipts release.
    pub primary: bool,
    /// When it enrolled.
    pub enrolled: UnixTime,
    /// From here on it is attested and looked up.
    pub confirmed: UnixTime,
    /// None: it never registered.
    pub place: Option<Place>,
    /// What drops for it are sealed to, as it signed it. None: it never said.
    pub sealing_key: Option<Box<Signed<SealingKey>>>,
    /// Where it is a hosted store's mailbox ([`hosting`]): which store's, by the number of all its mailboxes' presence. It is
    /// there because the configuration says so, not because it enrolled, and `primary`, `enrolled`, `confirmed` and `place`
    /// say nothing: see [`Directory::is_primary`], [`Directory::addresses`].
    pub hosted: Option<StoreId>,
}

/// Where a store said that it is.
#[derive(Debug)]
pub struct Place {
    /// Its last registration's sequence number.
    pub sequence: u64,
    /// Best first; empty once it said that it goes offline.
    pub addresses: Box<[SocketAddr]>,
    /// From here on the addresses say nothing any more.
    pub expires: UnixTime,
}

impl Store {
    /// Whether it may act for the mailbox, or still waits to be confirmed.
    pub fn is_confirmed(&self, now: UnixTime) -> bool {
        self.confirmed <= now
    }

    /// The addresses that are good now. (A hosted mailbox's: [`Directory::addresses`].)
    pub fn addresses(&self, now: UnixTime) -> &[SocketAddr] {
        match &self.place {
            Some(place) if now < place.expires => &place.addresses,
            _ => &[],
        }
    }
}

/// An API token that may be used.
#[derive(Debug)]
pub struct Token {
    /// What is kept of it.
    pub row: TokenRow,
    /// How much its holder did.
    pub allowance: Arc<Allowance>,
}

impl Token {
    /// Whether it is good for `scope` now.
    pub fn allows(&self, scope: Scope, now: UnixTime) -> bool {
        let expired = self.row.expires.is_some_and(|expires| expires <= now);
        !expired && self.row.revoked.is_none() && self.row.scopes.contains(&scope)
    }
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A token that is wrong, used, expired or for somebody else; a store that is not enrolled, or not confirmed:
    /// one answer for all of them (DESIGN §3 rule 11).
    #[error("refused")]
    NotAllowed,
    /// The sequence number is not above the last.
    #[error("an older registration; the last one's sequence number is {sequence}")]
    Stale {
        /// The last one's.
        sequence: u64,
    },
    /// As many as are kept.
    #[error("as many as are kept")]
    Full,
    /// There is nothing of that name.
    #[error("there is no such thing")]
    Unknown,
}

/// What became of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The store.
    pub store: StoreId,
    /// Its receipts release.
    pub primary: bool,
    /// From when on it is attested.
    pub confirmed: UnixTime,
}

/// The view. See the module.
#[derive(Debug, Default)]
pub struct Directory {
    /// By [`StoreId`]; removed stores leave a gap.
    stores: Vec<Option<Store>>,
    by_mailbox: HashMap<Mailbox, Vec<StoreId>>,
    tokens: HashMap<TokenHash, Token>,
    invitations: HashMap<TokenHash, InvitationRow>,
    relays: Vec<RelayRecord>,
    /// Grows with every change of `relays`: attestations made before are out of date.
    relays_version: u64,
    /// How many `stores` are not gaps.
    store_count: usize,
    /// What recipients have chosen; absent: nothing was said.
    choices: HashMap<Mailbox, Choice>,
    /// Keys of other domains' location servers.
    pins: HashMap<String, PinRow>,
    /// Changes of the own key, oldest first.
    key_changes: Vec<Signed<KeyChange>>,
    /// Hosted stores, by the number of their mailboxes' presence.
    hosts: BTreeMap<StoreId, hosting::Host>,
    /// Sealing keys of stores that no enrolment was loaded for: those that hosted stores said for their mailboxes.
    unclaimed_keys: HashMap<StoreKey, Signed<SealingKey>>,
    /// Keys that were stores' and are not any more.
    former: former::Former,
}

impl Directory {
    /// Takes a row from the engine, when the server starts; rows come in the order of [`crate::rows::Kind`].
    pub fn load(&mut self, row: Row) {
        match row {
            Row::Enrolment(key, row) => {
                self.insert(key, &row);
            }
            Row::Registration(key, row) => {
                if let Some(store) = self.find(&key.mailbox, &key.peer) {
                    let place = Place::from_row(&row);
                    if let Some(store) = self.store_mut(store) {
                        store.place = place;
                    }
                }
            }
            Row::Token(hash, row) => {
                self.tokens.insert(hash, Token { row, allowance: Arc::default() });
            }
            Row::Invitation(hash, row) => {
                self.invitations.insert(hash, row);
            }
            Row::Relay(relay) => self.relays.push(relay),
            Row::Policy(mailbox, policy) => {
                self.choices.entry(mailbox).or_default().apply(&Step::Policy(policy));
            }
            Row::Correspondent(key, row) => {
                self.choices.entry(key.recipient).or_default().apply(&Step::Say(key.sender, row));
            }
            Row::Pin(domain, row) => {
                self.pins.insert(domain, row);
            }
            Row::KeyChange(_, signed) => self.load_key_change(signed),
            Row::Succession(key, signed) => self.former.load_succession(key.mailbox, signed),
            Row::Revocation(key, at) => self.former.note(key, at),
            Row::SealingKey(key, signed) => {
                match self.find(&key.mailbox, &key.peer).and_then(|id| self.store_mut(id)) {
                    Some(store) => store.sealing_key = Some(Box::new(signed)),
                    None => drop(self.unclaimed_keys.insert(key, signed)),
                }
            }
        }
    }

    // ---- Reading

    /// A store by its number.
    pub fn store(&self, id: StoreId) -> Option<&Store> {
        self.stores.get(id.index())?.as_ref()
    }

    /// A mailbox's store with this key.
    pub fn find(&self, mailbox: &Mailbox, peer: &PeerId) -> Option<StoreId> {
        let is_peer = |id: &&StoreId| self.store(**id).is_some_and(|store| store.key.peer == *peer);
        self.by_mailbox.get(mailbox)?.iter().find(is_peer).copied()
    }

    /// The stores of a mailbox that may be looked up: confirmed, and registered at least once. None: not endowed.
    pub fn endowed(&self, mailbox: &Mailbox, now: UnixTime) -> impl Iterator<Item = (StoreId, &Store)> {
        self.stores_of(mailbox).filter(move |(_, store)| self.is_endowed(store, now))
    }

    /// All stores of a mailbox, the hosted one among them.
    fn stores_of(&self, mailbox: &Mailbox) -> impl Iterator<Item = (StoreId, &Store)> {
        let ids = self.by_mailbox.get(mailbox).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|&id| Some((id, self.store(id)?)))
    }

    /// Those that the mailbox's user enrolled.
    fn enrolled(&self, mailbox: &Mailbox) -> impl Iterator<Item = (StoreId, &Store)> {
        self.stores_of(mailbox).filter(|(_, store)| store.hosted.is_none())
    }

    /// An API token by its hash.
    pub fn token(&self, hash: &TokenHash) -> Option<&Token> {
        self.tokens.get(hash)
    }

    /// All API tokens, by when they were made.
    pub fn tokens(&self) -> Vec<&TokenRow> {
        let mut rows: Vec<_> = self.tokens.values().map(|token| &token.row).collect();
        rows.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        rows
    }

    /// Enrolment tokens that wait to be used, by when they were made.
    pub fn invitations(&self) -> Vec<&InvitationRow> {
        let mut rows: Vec<_> = self.invitations.values().collect();
        rows.sort_by(|a, b| (a.created, &a.mailbox).cmp(&(b.created, &b.mailbox)));
        rows
    }

    /// The domain's relays, and the version of that list.
    pub fn relays(&self) -> (&[RelayRecord], u64) {
        (&self.relays, self.relays_version)
    }

    /// Stores by their number, from `from` on.
    pub fn stores_from(&self, from: u32) -> impl Iterator<Item = (StoreId, &Store)> {
        let numbered = (from..).zip(self.stores.iter().skip(from as usize));
        numbered.filter_map(|(number, store)| Some((StoreId(number), store.as_ref()?)))
    }

    /// How many stores are enrolled.
    pub fn store_count(&self) -> usize {
        self.store_count
    }

    // ---- Stores

    /// Enrols a store on the strength of an enrolment token, which is used up.
    pub fn enrol(
        &mut self,
        token: &TokenHash,
        key: StoreKey,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<Enrolled, Refusal> {
        let good = self
            .invitations
            .get(token)
            .is_some_and(|invitation| invitation.mailbox == key.mailbox && now < invitation.expires);
        if !good {
            return Err(Refusal::NotAllowed);
        }
        // A hosted store that has not taken the mailbox on keeps nothing for it.
        let counts = |store: &Store| store.hosted.is_none() || store.sealing_key.is_some();
        let existing = self.stores_of(&key.mailbox).filter(|(_, store)| counts(store)).count();
        let known = self.find(&key.mailbox, &key.peer);
        if known.and_then(|id| self.store(id)).is_some_and(|store| store.hosted.is_some()) {
            // The admin has named it: there is nothing to enrol.
            return Err(Refusal::NotAllowed);
        }
        if known.is_none() && (existing >= STORES_PER_MAILBOX_MAX || self.stores.len() >= STORES_MAX) {
            return Err(Refusal::Full);
        }
        self.invitations.remove(token);
        changes.push(Change::Remove(RowKey::Invitation(*token)));
        if let Some((id, store)) = known.and_then(|id| Some((id, self.store(id)?))) {
            return Ok(Enrolled { store: id, primary: store.primary, confirmed: store.confirmed });
        }
        // A token that came into wrong hands opens nothing that is there: what a hosted store keeps is the user's, too.
        let confirmed = if existing == 0 { now } else { now.plus(CONFIRMATION_DELAY) };
        // The user's own store comes before the hosted one, once it is confirmed.
        let primary = self.enrolled(&key.mailbox).next().is_none();
        let row = EnrolmentRow { primary, enrolled: now, confirmed };
        let store = self.insert(key.clone(), &row);
        self.primary_may_change(&key.mailbox, Some(confirmed).filter(|confirmed| *confirmed > now));
        changes.push(Change::Put(Row::Enrolment(key, row)));
        Ok(Enrolled { store, primary, confirmed })
    }

    /// Takes a registration whose signature and addresses have been checked; and the store's sealing key, checked
    /// likewise, where it is a later one than the one that is known.
    pub fn register(
        &mut self,
        registration: &Registration,
        signed: Signed<Registration>,
        sealing_key: Option<Signed<SealingKey>>,
        changes: &mut Vec<Change>,
    ) -> Result<StoreId, Refusal> {
        let id = self.find(&registration.mailbox, &registration.peer).ok_or(Refusal::NotAllowed)?;
        let store = self.store_mut(id).filter(|store| store.hosted.is_none()).ok_or(Refusal::NotAllowed)?;
        if let Some(place) = &store.place
            && registration.sequence <= place.sequence
        {
            return Err(Refusal::Stale { sequence: place.sequence });
        }
        store.place = Some(Place::from(registration));
        let row = RegistrationRow::Registered(signed);
        changes.push(Change::Put(Row::Registration(store.key.clone(), row)));
        if let Some(signed) = sealing_key.filter(|new| store.is_later_sealing_key(new)) {
            changes.push(Change::Put(Row::SealingKey(store.key.clone(), signed.clone())));
            store.sealing_key = Some(Box::new(signed));
        }
        self.place_host(&registration.peer, id);
        Ok(id)
    }

    /// The store goes offline: its addresses are removed (SPEC A13).
    pub fn withdraw(&mut self, id: StoreId, changes: &mut Vec<Change>) -> Result<(), Refusal> {
        let store = self.store_mut(id).ok_or(Refusal::NotAllowed)?;
        if let Some(place) = &mut store.place {
            place.addresses = Box::default();
            let row = RegistrationRow::Withdrawn { sequence: place.sequence };
            changes.push(Change::Put(Row::Registration(store.key.clone(), row)));
        }
        Ok(())
    }

    /// A confirmed store of the mailbox vouches for a further one.
    pub fn confirm(
        &mut self,
        by: StoreId,
        peer: &PeerId,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let voucher = self.store(by).ok_or(Refusal::NotAllowed)?;
        if !voucher.is_confirmed(now) {
            return Err(Refusal::NotAllowed);
        }
        let mailbox = voucher.key.mailbox.clone();
        self.confirm_store(&mailbox, peer, now, changes)
    }

    /// The same at the admin's word.
    pub fn confirm_store(
        &mut self,
        mailbox: &Mailbox,
        peer: &PeerId,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let id = self.find(mailbox, peer).ok_or(Refusal::NotAllowed)?;
        let store = self.store_mut(id).filter(|store| store.hosted.is_none()).ok_or(Refusal::NotAllowed)?;
        if !store.is_confirmed(now) {
            store.confirmed = now;
            changes.push(store.enrolment_change());
            self.primary_may_change(mailbox, None);
        }
        Ok(())
    }

    /// The user of the store `by` says which of the mailbox's stores is primary: one that is confirmed.
    pub fn prefer(
        &mut self,
        by: StoreId,
        peer: &PeerId,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let is_confirmed = |id| self.store(id).is_some_and(|store: &Store| store.is_confirmed(now));
        let mailbox = self.store(by).map(|store| store.key.mailbox.clone()).ok_or(Refusal::NotAllowed)?;
        let chosen = self.find(&mailbox, peer).ok_or(Refusal::NotAllowed)?;
        if !is_confirmed(by) || !is_confirmed(chosen) {
            return Err(Refusal::NotAllowed);
        }
        let enrolled: Vec<_> = self.enrolled(&mailbox).map(|(id, _)| id).collect();
        for id in enrolled {
            if let Some(store) = self.store_mut(id).filter(|store| store.primary != (id == chosen)) {
                store.primary = id == chosen;
                changes.push(store.enrolment_change());
            }
        }
        self.primary_may_change(&mailbox, None);
        Ok(())
    }

    /// Removes a mailbox's store, or all of them, and enrolment tokens that wait for it: revoking a lost device needs
    /// no key of it. Where the primary goes, the oldest that is left takes its place. Gives the removed stores.
    pub fn remove_user(
        &mut self,
        mailbox: &Mailbox,
        peer: Option<&PeerId>,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<(StoreId, StoreKey)>, Refusal> {
        let all: Vec<_> = self.enrolled(mailbox).map(|(id, _)| id).collect();
        let hosted: Vec<_> =
            self.stores_of(mailbox).map(|(id, _)| id).filter(|id| !all.contains(id)).collect();
        let is_meant = |id: &StoreId| match (peer, self.store(*id)) {
            (Some(peer), Some(store)) => store.key.peer == *peer,
            (None, _) => true,
            (_, None) => false,
        };
        let (removed, left): (Vec<_>, Vec<_>) = all.into_iter().partition(is_meant);
        let invitations = if peer.is_none() { self.remove_invitations(mailbox, changes) } else { 0 };
        if removed.is_empty() && invitations == 0 {
            return Err(Refusal::Unknown);
        }
        let mut keys = Vec::with_capacity(removed.len());
        let mut was_primary = false;
        for id in removed {
            if let Some(store) = self.take_out(id, now, changes) {
                was_primary |= store.primary;
                self.forget_successions(mailbox, Some(&store.key.peer), changes);
                keys.push((id, store.key));
            }
        }
        for host in self.hosts.values_mut() {
            host.own = host.own.filter(|own| keys.iter().all(|(removed, _)| removed != own));
        }
        // Where the user said that the hosted store is the primary one, none of their own is.
        if hosted.is_empty() || was_primary {
            self.appoint_primary(&left, changes);
        }
        let left: Vec<_> = left.into_iter().chain(hosted).collect();
        if left.is_empty() {
            self.forget_choice(mailbox, changes);
            self.forget_successions(mailbox, None, changes);
            self.by_mailbox.remove(mailbox);
        } else {
            self.by_mailbox.insert(mailbox.clone(), left);
            self.primary_may_change(mailbox, None);
        }
        Ok(keys)
    }

    /// Takes an enrolled store out; nothing that was attested for its key counts any more.
    fn take_out(&mut self, id: StoreId, now: UnixTime, changes: &mut Vec<Change>) -> Option<Store> {
        let store = self.stores.get_mut(id.index()).and_then(Option::take)?;
        self.store_count -= 1;
        if let Some(ids) = self.by_mailbox.get_mut(&store.key.mailbox) {
            ids.retain(|known| *known != id);
        }
        changes.push(Change::Remove(RowKey::Registration(store.key.clone())));
        if store.sealing_key.is_some() {
            changes.push(Change::Remove(RowKey::SealingKey(store.key.clone())));
        }
        changes.push(Change::Remove(RowKey::Enrolment(store.key.clone())));
        self.revoke(&store.key, now, changes);
        Some(store)
    }

    fn remove_invitations(&mut self, mailbox: &Mailbox, changes: &mut Vec<Change>) -> usize {
        let is_theirs =
            |(hash, row): (&TokenHash, &InvitationRow)| (row.mailbox == *mailbox).then_some(*hash);
        let hashes: Vec<_> = self.invitations.iter().filter_map(is_theirs).collect();
        for hash in &hashes {
            self.invitations.remove(hash);
            changes.push(Change::Remove(RowKey::Invitation(*hash)));
        }
        hashes.len()
    }

    fn appoint_primary(&mut self, left: &[StoreId], changes: &mut Vec<Change>) {
        let stores = || left.iter().filter_map(|&id| Some((id, self.store(id)?)));
        if stores().any(|(_, store)| store.primary) {
            return;
        }
        let oldest = stores().min_by_key(|(id, store)| (store.enrolled, *id)).map(|(id, _)| id);
        if let Some(store) = oldest.and_then(|id| self.store_mut(id)) {
            store.primary = true;
            changes.push(store.enrolment_change());
        }
    }

    // ---- Tokens and relays

    /// Makes an enrolment token known.
    pub fn invite(
        &mut self,
        hash: TokenHash,
        row: InvitationRow,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        if self.invitations.len() >= INVITATIONS_MAX {
            let now = row.created;
            let expired = |(hash, row): (&TokenHash, &InvitationRow)| (row.expires <= now).then_some(*hash);
            for hash in self.invitations.iter().filter_map(expired).collect::<Vec<_>>() {
                self.invitations.remove(&hash);
                changes.push(Change::Remove(RowKey::Invitation(hash)));
            }
        }
        if self.invitations.len() >= INVITATIONS_MAX {
            return Err(Refusal::Full);
        }
        self.invitations.insert(hash, row.clone());
        changes.push(Change::Put(Row::Invitation(hash, row)));
        Ok(())
    }

    /// Makes an API token known.
    pub fn create_token(
        &mut self,
        hash: TokenHash,
        row: TokenRow,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        if self.tokens.len() >= TOKENS_MAX {
            let now = row.created;
            let dead = |row: &TokenRow| row.revoked.is_some() || row.expires.is_some_and(|end| end <= now);
            let hashes = self.tokens.iter().filter(|(_, token)| dead(&token.row)).map(|(hash, _)| *hash);
            for hash in hashes.collect::<Vec<_>>() {
                self.tokens.remove(&hash);
                changes.push(Change::Remove(RowKey::Token(hash)));
            }
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refusal::Full);
        }
        self.tokens.insert(hash, Token { row: row.clone(), allowance: Arc::default() });
        changes.push(Change::Put(Row::Token(hash, row)));
        Ok(())
    }

    /// Ends an API token.
    pub fn revoke_token(
        &mut self,
        id: &str,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let named = self.tokens.iter_mut().find(|(_, token)| token.row.id == id);
        let (hash, token) = named.ok_or(Refusal::Unknown)?;
        if token.row.revoked.is_none() {
            token.row.revoked = Some(now);
            changes.push(Change::Put(Row::Token(*hash, token.row.clone())));
        }
        Ok(())
    }

    /// Makes a relay known, or changes what is known of it.
    pub fn put_relay(&mut self, relay: RelayRecord, changes: &mut Vec<Change>) -> Result<(), Refusal> {
        match self.relays.iter().position(|known| known.peer == relay.peer) {
            Some(position) if self.relays[position] == relay => return Ok(()),
            Some(position) => self.relays[position] = relay.clone(),
            None if self.relays.len() >= RELAYS_MAX => return Err(Refusal::Full),
            None => self.relays.push(relay.clone()),
        }
        self.relays_version += 1;
        changes.push(Change::Put(Row::Relay(relay)));
        Ok(())
    }

    /// Takes a relay out.
    pub fn remove_relay(&mut self, peer: &PeerId, changes: &mut Vec<Change>) -> Result<(), Refusal> {
        let position = self.relays.iter().position(|known| known.peer == *peer).ok_or(Refusal::Unknown)?;
        self.relays.remove(position);
        self.relays_version += 1;
        changes.push(Change::Remove(RowKey::Relay(*peer)));
        Ok(())
    }

    fn store_mut(&mut self, id: StoreId) -> Option<&mut Store> {
        self.stores.get_mut(id.index())?.as_mut()
    }

    fn insert(&mut self, key: StoreKey, row: &EnrolmentRow) -> StoreId {
        // `STORES_MAX` fits a u32; a database with more than 2^32 rows does not fit memory long before.
        let id = StoreId(u32::try_from(self.stores.len()).unwrap_or(u32::MAX));
        self.by_mailbox.entry(key.mailbox.clone()).or_default().push(id);
        let EnrolmentRow { primary, enrolled, confirmed } = *row;
        let (place, sealing_key, hosted) = (None, None, None);
        self.stores.push(Some(Store { key, primary, enrolled, confirmed, place, sealing_key, hosted }));
        self.store_count += 1;
        id
    }
}

const _: () = assert!(STORES_MAX < u32::MAX as usize);

pub mod former;
pub mod hosting;
mod others;

impl Store {
    /// Whether `new` takes the place of the key that is known: it is another one, and of a later time.
    fn is_later_sealing_key(&self, new: &Signed<SealingKey>) -> bool {
        let claim = |signed: &Signed<SealingKey>| signed.claim().map(|claim| (claim.issued, claim.key));
        match (self.sealing_key.as_ref().map(|known| claim(known)), claim(new)) {
            (_, Err(_)) => false,
            (Some(Ok((issued, key))), Ok(new)) => new.0 > issued && new.1 != key,
            (Some(Err(_)) | None, Ok(_)) => true,
        }
    }

    fn enrolment_change(&self) -> Change {
        let row = EnrolmentRow { primary: self.primary, enrolled: self.enrolled, confirmed: self.confirmed };
        Change::Put(Row::Enrolment(self.key.clone(), row))
    }
}

impl Place {
    fn from_row(row: &RegistrationRow) -> Option<Self> {
        match row {
            // It was verified before it was written; what was damaged since does not parse.
            RegistrationRow::Registered(signed) => signed.claim().ok().map(|claim| Self::from(&claim)),
            RegistrationRow::Withdrawn { sequence } => {
                Some(Self { sequence: *sequence, addresses: Box::default(), expires: UnixTime(0) })
            }
        }
    }
}

impl From<&Registration> for Place {
    fn from(registration: &Registration) -> Self {
        Self {
            sequence: registration.sequence,
            addresses: registration.addresses.as_slice().into(),
            expires: registration.expires,
        }
    }
}

#[cfg(test)]
mod tests;
