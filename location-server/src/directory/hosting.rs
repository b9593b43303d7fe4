//! Hosted stores: one store that the admin named for many mailboxes (SPEC A29).
//!
//! Which mailboxes those are stands in the configuration, so a hosted mailbox's entry in the directory is made from that, and
//! no row keeps it. Durable is only what the store itself said: the sealing key that it signed for the mailbox, which is at
//! the same time its word that it takes the mailbox on. Until then nobody hears of it.
//!
//! **Who is primary**: the store that a user enrolled, as soon as it is confirmed; else the hosted one. The user can say
//! otherwise ([`Directory::prefer`]). Since a further store is confirmed by the passing of time, this is asked, not kept.
//!
//! **Presence**: one number stands for all mailboxes of a hosted store; what is said of it is said of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;

use lighter_protocol::{Mailbox, PeerId, SealingKey, Signed, UnixTime};

use super::{Directory, Place, Refusal, Store, StoreId};
use crate::limits::STORES_MAX;
use crate::rows::{Change, Row, RowKey, StoreKey};

/// One hosted store.
#[derive(Debug)]
pub(super) struct Host {
    /// Its key.
    peer: PeerId,
    /// The store as it enrolled for a mailbox of its own: what it registers counts for all. None: it has not.
    pub(super) own: Option<StoreId>,
    members: BTreeMap<Mailbox, StoreId>,
    /// Grows with every change of what is said to the store of its mailboxes.
    version: u64,
    /// When stores that users enrolled are confirmed by the passing of time: that changes who is primary.
    confirmations: Vec<UnixTime>,
}

/// What became of a hosted store's mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehosted {
    /// How many are new.
    pub added: usize,
    /// Those that are not its any more, and had been taken on.
    pub removed: Vec<StoreKey>,
    /// How many were left out: another hosted store has them, or the store has enrolled for them itself.
    pub left_out: usize,
}

impl Directory {
    /// These mailboxes, and no others, are hosted by the store `peer` from now on. One that another hosted store has stays
    /// there; so does one that `peer` has enrolled for itself.
    pub fn set_hosted(
        &mut self,
        peer: PeerId,
        mailboxes: &BTreeSet<Mailbox>,
        changes: &mut Vec<Change>,
    ) -> Rehosted {
        let group = self.host_of(&peer).unwrap_or_else(|| self.new_host(peer));
        let members: Vec<_> =
            self.hosts.get(&group).into_iter().flat_map(|host| host.members.clone()).collect();
        let mut rehosted = Rehosted::default();
        for (mailbox, id) in members.into_iter().filter(|(mailbox, _)| !mailboxes.contains(mailbox)) {
            rehosted.removed.extend(self.unhost(group, &mailbox, id, changes));
        }
        for mailbox in mailboxes {
            let is_its = self.hosts.get(&group).is_some_and(|host| host.members.contains_key(mailbox));
            let is_taken = self.find(mailbox, &peer).is_some()
                || self.stores_of(mailbox).any(|(_, store)| store.hosted.is_some());
            match (is_its, is_taken || self.stores.len() >= STORES_MAX) {
                (true, _) => {}
                (false, true) => rehosted.left_out += 1,
                (false, false) => {
                    self.host(group, StoreKey { mailbox: mailbox.clone(), peer });
                    rehosted.added += 1;
                }
            }
        }
        rehosted
    }

    /// Sealing keys that were loaded and are nobody's: the configuration does not name the mailbox any more. Once, after
    /// all hosted stores are set.
    pub fn drop_unclaimed_keys(&mut self, changes: &mut Vec<Change>) {
        changes.extend(self.unclaimed_keys.drain().map(|(key, _)| Change::Remove(RowKey::SealingKey(key))));
    }

    fn new_host(&mut self, peer: PeerId) -> StoreId {
        let group = StoreId(u32::try_from(self.stores.len()).unwrap_or(u32::MAX));
        // Its number is nobody's else: a gap among the stores.
        self.stores.push(None);
        let enrolled = |(number, store): (usize, &Option<Store>)| {
            let store = store.as_ref()?;
            let is_own = store.key.peer == peer && store.hosted.is_none() && store.place.is_some();
            is_own.then_some(StoreId(u32::try_from(number).ok()?))
        };
        let own = self.stores.iter().enumerate().find_map(enrolled);
        let (members, confirmations) = (BTreeMap::new(), Vec::new());
        self.hosts.insert(group, Host { peer, own, members, version: 0, confirmations });
        group
    }

    fn host(&mut self, group: StoreId, key: StoreKey) {
        let id = StoreId(u32::try_from(self.stores.len()).unwrap_or(u32::MAX));
        let confirmations: Vec<_> = self.enrolled(&key.mailbox).map(|(_, store)| store.confirmed).collect();
        let sealing_key = self.unclaimed_keys.remove(&key).map(Box::new);
        self.by_mailbox.entry(key.mailbox.clone()).or_default().push(id);
        if let Some(host) = self.hosts.get_mut(&group) {
            host.members.insert(key.mailbox.clone(), id);
            host.confirmations.extend(confirmations);
            host.version += 1;
        }
        let (primary, start, place) = (false, UnixTime(0), None);
        let hosted = Some(group);
        self.stores.push(Some(Store {
            key,
            primary,
            enrolled: start,
            confirmed: start,
            place,
            sealing_key,
            hosted,
        }));
        self.store_count += 1;
    }

    fn unhost(
        &mut self,
        group: StoreId,
        mailbox: &Mailbox,
        id: StoreId,
        changes: &mut Vec<Change>,
    ) -> Option<StoreKey> {
        if let Some(host) = self.hosts.get_mut(&group) {
            host.members.remove(mailbox);
            host.version += 1;
        }
        let store = self.stores.get_mut(id.index()).and_then(Option::take)?;
        self.store_count -= 1;
        let left: Vec<_> = self.enrolled(mailbox).map(|(id, _)| id).collect();
        self.appoint_primary(&left, changes);
        // What the user has chosen stays: the mailbox may only have moved to another hosted store.
        if left.is_empty() {
            self.by_mailbox.remove(mailbox);
        } else {
            self.by_mailbox.insert(mailbox.clone(), left);
        }
        store.sealing_key?;
        changes.push(Change::Remove(RowKey::SealingKey(store.key.clone())));
        Some(store.key)
    }

    /// A hosted store takes mailboxes on, by the sealing keys that it signed for each; all of them are its own, or nothing is
    /// changed. Gives those that it had not taken on before.
    pub fn register_hosted(
        &mut self,
        group: StoreId,
        sealing_keys: Vec<(SealingKey, Signed<SealingKey>)>,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<StoreKey>, Refusal> {
        let host = self.hosts.get(&group).ok_or(Refusal::NotAllowed)?;
        let member = |(key, signed): (SealingKey, Signed<SealingKey>)| {
            let id = host.members.get(&key.mailbox).filter(|_| key.peer == host.peer);
            id.map(|id| (*id, signed)).ok_or(Refusal::NotAllowed)
        };
        let members = sealing_keys.into_iter().map(member).collect::<Result<Vec<_>, _>>()?;
        let mut taken_on = Vec::new();
        for (id, signed) in members {
            let Some(store) = self.store_mut(id).filter(|store| store.is_later_sealing_key(&signed)) else {
                continue;
            };
            if store.sealing_key.is_none() {
                taken_on.push(store.key.clone());
            }
            changes.push(Change::Put(Row::SealingKey(store.key.clone(), signed.clone())));
            store.sealing_key = Some(Box::new(signed));
        }
        Ok(taken_on)
    }

    // ---- Reading

    /// The hosted store with this key, by the number of its mailboxes' presence.
    pub fn host_of(&self, peer: &PeerId) -> Option<StoreId> {
        self.hosts.iter().find(|(_, host)| host.peer == *peer).map(|(group, _)| *group)
    }

    /// Its mailboxes behind `after`, in order.
    pub fn members<'a>(
        &'a self,
        group: StoreId,
        after: Option<&'a Mailbox>,
    ) -> impl Iterator<Item = &'a Store> + 'a {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let host = self.hosts.get(&group).into_iter();
        host.flat_map(move |host| host.members.range::<Mailbox, _>((start, Bound::Unbounded)))
            .filter_map(|(_, id)| self.store(*id))
    }

    /// One of them.
    pub fn member(&self, group: StoreId, mailbox: &Mailbox) -> Option<StoreId> {
        self.hosts.get(&group)?.members.get(mailbox).copied()
    }

    /// Another number whenever something else is to be said of its mailboxes than before.
    pub fn hosting_version(&self, group: StoreId, now: UnixTime) -> u64 {
        let host = self.hosts.get(&group);
        host.map_or(0, |host| {
            let passed = host.confirmations.iter().filter(|confirmed| **confirmed <= now).count();
            host.version + u64::try_from(passed).unwrap_or(u64::MAX)
        })
    }

    /// Whether the mailbox's user has a store of their own, confirmed or not.
    pub fn has_enrolled(&self, mailbox: &Mailbox) -> bool {
        self.enrolled(mailbox).next().is_some()
    }

    /// Whether the store's receipts release: see the module.
    pub fn is_primary(&self, store: &Store, now: UnixTime) -> bool {
        let mut enrolled = self.enrolled(&store.key.mailbox);
        match store.hosted {
            None => store.primary,
            Some(_) => !enrolled.any(|(_, own)| own.primary && own.is_confirmed(now)),
        }
    }

    /// The store's addresses that are good now.
    pub fn addresses<'a>(&'a self, store: &'a Store, now: UnixTime) -> &'a [SocketAddr] {
        match self.registered(store) {
            Some(place) if now < place.expires => &place.addresses,
            _ => &[],
        }
    }

    /// The store whose presence is this one's.
    pub fn presence_of(&self, id: StoreId) -> StoreId {
        self.store(id).and_then(|store| store.hosted).unwrap_or(id)
    }

    /// Whether the store may be looked up: confirmed and registered; a hosted mailbox's, taken on.
    pub(super) fn is_endowed(&self, store: &Store, now: UnixTime) -> bool {
        let enrolled = match store.hosted {
            None => Some(store),
            Some(group) => self.own_store(group).filter(|_| store.sealing_key.is_some()),
        };
        enrolled.is_some_and(|store| store.is_confirmed(now) && store.place.is_some())
    }

    fn registered<'a>(&'a self, store: &'a Store) -> Option<&'a Place> {
        match store.hosted {
            None => store.place.as_ref(),
            Some(group) => self.own_store(group)?.place.as_ref(),
        }
    }

    fn own_store(&self, group: StoreId) -> Option<&Store> {
        self.store(self.hosts.get(&group)?.own?)
    }

    // ---- What changes with enrolled stores

    /// A store registered: where it is a hosted one, that is where all its mailboxes' store is.
    pub(super) fn place_host(&mut self, peer: &PeerId, own: StoreId) {
        if let Some(host) = self.hosts.values_mut().find(|host| host.peer == *peer) {
            host.own = Some(own);
        }
    }

    /// Who is the mailbox's primary store may be another now, and from `confirmed` on.
    pub(super) fn primary_may_change(&mut self, mailbox: &Mailbox, confirmed: Option<UnixTime>) {
        let group = self.stores_of(mailbox).find_map(|(_, store)| store.hosted);
        if let Some(host) = group.and_then(|group| self.hosts.get_mut(&group)) {
            host.confirmations.extend(confirmed);
            host.version += 1;
        }
    }
}
