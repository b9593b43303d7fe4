//! What the directory knows of people and servers elsewhere: recipients' choices, other domains' keys; and the changes of
//! the own key, which others are told of.

use lighter_protocol::{Mailbox, PeerId, Signed, UnixTime};
use lighter_transport::location::api::AcceptanceChange;
use lighter_transport::location::keys::KeyChange;
use lighter_transport::location::limits::KEY_CHANGES_MAX;

use super::{Directory, Refusal, StoreId};
use crate::limits::PINS_MAX;
use crate::policy::{Choice, Step};
use crate::rows::{Change, CorrespondentKey, PinRow, Row, RowKey};

impl Directory {
    /// What a recipient has chosen; none where nothing was said.
    pub fn choice(&self, recipient: &Mailbox) -> Option<&Choice> {
        self.choices.get(recipient)
    }

    /// The key of another domain's location server, as it is remembered.
    pub fn pin(&self, domain: &str) -> Option<&PinRow> {
        self.pins.get(domain)
    }

    /// Changes of the own key, oldest first.
    pub fn key_changes(&self) -> &[Signed<KeyChange>] {
        &self.key_changes
    }

    /// A confirmed store's user changes who learns of its mailbox's stores.
    pub fn change_acceptance(
        &mut self,
        by: StoreId,
        change: &AcceptanceChange,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let store = self.store(by).filter(|store| store.is_confirmed(now)).ok_or(Refusal::NotAllowed)?;
        let recipient = store.key.mailbox.clone();
        let choice = self.choices.entry(recipient.clone()).or_default();
        let planned = choice.plan(change, now);
        for step in planned.as_deref().unwrap_or_default() {
            choice.apply(step);
            let key =
                |sender: &Mailbox| CorrespondentKey { recipient: recipient.clone(), sender: sender.clone() };
            changes.push(match step {
                Step::Policy(policy) => Change::Put(Row::Policy(recipient.clone(), *policy)),
                Step::Say(sender, row) => Change::Put(Row::Correspondent(key(sender), *row)),
                Step::Forget(sender) => Change::Remove(RowKey::Correspondent(key(sender))),
            });
        }
        if choice.is_default() {
            self.choices.remove(&recipient);
        }
        planned.map(drop).map_err(|_| Refusal::Full)
    }

    /// A mailbox whose stores are all gone has chosen nothing.
    pub(super) fn forget_choice(&mut self, recipient: &Mailbox, changes: &mut Vec<Change>) {
        let Some(choice) = self.choices.remove(recipient) else { return };
        changes.push(Change::Remove(RowKey::Policy(recipient.clone())));
        for sender in choice.correspondents() {
            let key = CorrespondentKey { recipient: recipient.clone(), sender: sender.clone() };
            changes.push(Change::Remove(RowKey::Correspondent(key)));
        }
    }

    /// Remembers another domain's key.
    pub fn pin_domain(&mut self, domain: &str, row: PinRow, changes: &mut Vec<Change>) {
        if self.pins.len() >= PINS_MAX && !self.pins.contains_key(domain) {
            let oldest = self.pins.iter().min_by_key(|(domain, row)| (row.seen, *domain));
            if let Some(oldest) = oldest.map(|(domain, _)| domain.clone()) {
                self.pins.remove(&oldest);
                changes.push(Change::Remove(RowKey::Pin(oldest)));
            }
        }
        self.pins.insert(domain.to_owned(), row);
        changes.push(Change::Put(Row::Pin(domain.to_owned(), row)));
    }

    /// Announces a change of the own key; one that was announced and has not come yet is taken back by it.
    pub fn announce_key(
        &mut self,
        signed: Signed<KeyChange>,
        present: PeerId,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        self.key_changes.retain(|known| known.claim().is_ok_and(|claim| claim.present != present));
        if self.key_changes.len() >= KEY_CHANGES_MAX {
            // Who has not looked for so many changes finds a new server.
            if let Ok(oldest) = self.key_changes.remove(0).claim() {
                changes.push(Change::Remove(RowKey::KeyChange(oldest.present)));
            }
        }
        changes.push(Change::Put(Row::KeyChange(present, signed.clone())));
        self.load_key_change(signed);
        Ok(())
    }

    pub(super) fn load_key_change(&mut self, signed: Signed<KeyChange>) {
        self.key_changes.push(signed);
        self.key_changes.sort_by_key(|signed| signed.claim().map_or(UnixTime(u64::MAX), |claim| claim.from));
    }
}
