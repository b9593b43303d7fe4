//! Keys that were stores' and are not any more: rotated (one of the store's own words says which key came in its place), or
//! revoked by the admin. What was attested for them before still verifies for hours, so relays are told of them; and who had
//! to do with a rotated one is told which key came.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lighter_protocol::limits::{ATTESTATION_LIFE_MAX, CLOCK_GRACE, SUCCESSIONS_MAX};
use lighter_protocol::{Mailbox, PeerId, SealingKey, Signed, Succession, UnixTime};

use super::{Directory, Enrolled, Place, Refusal, StoreId};
use crate::limits::{REVOCATIONS_MAX, ROTATIONS_A_DAY_MAX};
use crate::rows::{Change, EnrolmentRow, RegistrationRow, Row, RowKey, StoreKey};

/// Former keys. Invariant: `by_time` is `revoked`, the other way round.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// By mailbox, oldest first; at most [`SUCCESSIONS_MAX`] of each.
    successions: HashMap<Mailbox, Vec<Signed<Succession>>>,
    /// By mailbox: since when nothing that was attested for them counts.
    revoked: HashMap<Mailbox, BTreeMap<PeerId, UnixTime>>,
    by_time: BTreeSet<(UnixTime, StoreKey)>,
}

/// What became of a rotated key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succeeded {
    /// The store with its new key.
    pub enrolled: Enrolled,
    /// The one with the former key, which is no more; none where it was done before.
    pub removed: Option<(StoreId, StoreKey)>,
}

impl Directory {
    /// Takes the enrolment of a store over to its next key, at its own word, which has been checked: what it was, the next one
    /// is, at once. Asked again, it says the same.
    ///
    /// A store that hosts others' mailboxes is named by the configuration, so its key is changed there.
    pub fn succeed(
        &mut self,
        succession: &Succession,
        signed: Signed<Succession>,
        sealing_key: Option<Signed<SealingKey>>,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<Succeeded, Refusal> {
        let Succession { mailbox, former, next, .. } = succession;
        let hosts = |peer| self.host_of(peer).is_some();
        if hosts(former) || hosts(next) {
            return Err(Refusal::NotAllowed);
        }
        let key = StoreKey { mailbox: mailbox.clone(), peer: *next };
        let Some(id) = self.find(mailbox, former) else {
            let is_known = Succession::formers(self.successions(mailbox), next).contains(former);
            let store =
                self.find(mailbox, next).filter(|_| is_known).and_then(|id| Some((id, self.store(id)?)));
            let (id, store) = store.ok_or(Refusal::NotAllowed)?;
            let enrolled = Enrolled { store: id, primary: store.primary, confirmed: store.confirmed };
            return Ok(Succeeded { enrolled, removed: None });
        };
        // A key of another device of the user's cannot be made this one's.
        let is_taken = self.find(mailbox, next).is_some() || self.revoked(&key).is_some();
        if is_taken || self.store(id).is_none_or(|store| store.hosted.is_some()) {
            return Err(Refusal::NotAllowed);
        }
        // Whoever rotates without end does not have what is remembered of others' keys forgotten.
        if self.former.revoked_lately(mailbox, now) >= ROTATIONS_A_DAY_MAX {
            return Err(Refusal::Full);
        }
        let removed = self.take_out(id, now, changes).ok_or(Refusal::NotAllowed)?;
        let row = EnrolmentRow {
            primary: removed.primary,
            enrolled: removed.enrolled,
            confirmed: removed.confirmed,
        };
        let store = self.insert(key.clone(), &row);
        changes.push(Change::Put(Row::Enrolment(key.clone(), row)));
        // It was looked up, so it is; where it is, it says itself.
        let sequence = removed.place.as_ref().map(|place| place.sequence);
        if let Some(sequence) = sequence {
            changes
                .push(Change::Put(Row::Registration(key.clone(), RegistrationRow::Withdrawn { sequence })));
        }
        if let Some(signed) = &sealing_key {
            changes.push(Change::Put(Row::SealingKey(key, signed.clone())));
        }
        if let Some(store) = self.store_mut(store) {
            store.place =
                sequence.map(|sequence| Place { sequence, addresses: Box::default(), expires: UnixTime(0) });
            store.sealing_key = sealing_key.map(Box::new);
        }
        self.put_succession(mailbox, *former, signed, changes);
        self.primary_may_change(mailbox, None);
        let enrolled = Enrolled { store, primary: removed.primary, confirmed: removed.confirmed };
        Ok(Succeeded { enrolled, removed: Some((id, removed.key)) })
    }

    /// The successions of a mailbox's stores, oldest first.
    pub fn successions(&self, mailbox: &Mailbox) -> &[Signed<Succession>] {
        self.former.successions.get(mailbox).map_or(&[], Vec::as_slice)
    }

    /// Keys that are no store's any more, and since when, as long as something that was attested for them can verify.
    pub fn revocations(&self, now: UnixTime) -> impl Iterator<Item = (&StoreKey, UnixTime)> {
        let live = move |(at, _): &&(UnixTime, StoreKey)| !is_over(*at, now);
        self.former.by_time.iter().filter(live).map(|(at, key)| (key, *at))
    }

    /// Since when what was attested for this key does not count.
    pub fn revoked(&self, key: &StoreKey) -> Option<UnixTime> {
        self.former.revoked.get(&key.mailbox)?.get(&key.peer).copied()
    }

    /// From `now` on nothing counts that was attested for this key.
    pub(super) fn revoke(&mut self, key: &StoreKey, now: UnixTime, changes: &mut Vec<Change>) {
        let former = &mut self.former;
        while let Some((at, oldest)) = former.by_time.first()
            && (is_over(*at, now) || former.by_time.len() >= REVOCATIONS_MAX)
        {
            changes.push(Change::Remove(RowKey::Revocation(oldest.clone())));
            former.forget_oldest();
        }
        changes.push(Change::Put(Row::Revocation(key.clone(), now)));
        former.note(key.clone(), now);
    }

    /// What was said of the keys that lead to `peer`, which is no store any more; of all of the mailbox's where none is named.
    pub(super) fn forget_successions(
        &mut self,
        mailbox: &Mailbox,
        peer: Option<&PeerId>,
        changes: &mut Vec<Change>,
    ) {
        let Some(known) = self.former.successions.get_mut(mailbox) else { return };
        let gone = peer.map(|peer| {
            let mut gone = Succession::formers(known, peer);
            gone.push(*peer);
            gone
        });
        known.retain(|signed| {
            let Ok(claim) = signed.claim() else { return false };
            let stays = gone.as_ref().is_some_and(|gone| !gone.contains(&claim.next));
            if !stays {
                let key = StoreKey { mailbox: mailbox.clone(), peer: claim.former };
                changes.push(Change::Remove(RowKey::Succession(key)));
            }
            stays
        });
        if known.is_empty() {
            self.former.successions.remove(mailbox);
        }
    }

    fn put_succession(
        &mut self,
        mailbox: &Mailbox,
        former: PeerId,
        signed: Signed<Succession>,
        changes: &mut Vec<Change>,
    ) {
        let key = StoreKey { mailbox: mailbox.clone(), peer: former };
        changes.push(Change::Put(Row::Succession(key, signed.clone())));
        let known = self.former.successions.entry(mailbox.clone()).or_default();
        // Of a key that was enrolled again, and rotated again, the last word counts.
        known.retain(|known| known.claim().is_ok_and(|claim| claim.former != former));
        if known.len() >= SUCCESSIONS_MAX
            && let Ok(oldest) = known.remove(0).claim()
        {
            let key = StoreKey { mailbox: mailbox.clone(), peer: oldest.former };
            changes.push(Change::Remove(RowKey::Succession(key)));
        }
        known.push(signed);
    }
}

impl Former {
    pub(super) fn load_succession(&mut self, mailbox: Mailbox, signed: Signed<Succession>) {
        let known = self.successions.entry(mailbox).or_default();
        known.push(signed);
        known.sort_by_key(|signed| signed.claim().map_or(UnixTime(0), |claim| claim.time));
    }

    pub(super) fn note(&mut self, key: StoreKey, at: UnixTime) {
        let of_mailbox = self.revoked.entry(key.mailbox.clone()).or_default();
        if let Some(before) = of_mailbox.insert(key.peer, at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.by_time.pop_first() else { return };
        if let Some(of_mailbox) = self.revoked.get_mut(&key.mailbox) {
            of_mailbox.remove(&key.peer);
            if of_mailbox.is_empty() {
                self.revoked.remove(&key.mailbox);
            }
        }
    }

    /// How many keys of a mailbox's stores are revoked whose attestations may still verify.
    fn revoked_lately(&self, mailbox: &Mailbox, now: UnixTime) -> usize {
        let of_mailbox = self.revoked.get(mailbox).into_iter().flatten();
        of_mailbox.filter(|(_, at)| !is_over(**at, now)).count()
    }
}

/// Whether nothing that was attested until then can verify any more, by anybody's clock.
fn is_over(at: UnixTime, now: UnixTime) -> bool {
    at.plus(ATTESTATION_LIFE_MAX + 2 * CLOCK_GRACE) < now
}
