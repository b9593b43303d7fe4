//! Deliveries that were answered `Later`, and wait with whoever holds them: remembered to be shown, and to ask for them when
//! there is room. Nothing depends on it: the holder keeps them, and offers again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lighter_protocol::pull::{Command, Room};
use lighter_protocol::wire::{Answer, LaterReason, Offer};
use lighter_protocol::{DeliveryId, Mailbox, PeerId, UnixTime};

use crate::guest::view::GuestView;
use crate::limits::{WAIT_PARTS_MAX, WAITS_MAX};
use crate::views::{BlobRow, DeliveryRow, DeliveryState, WaitRow, size};

/// A delivery that waits.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Its number.
    pub delivery: DeliveryId,
    /// For whom.
    pub mailbox: Mailbox,
    /// Who holds it.
    pub from: PeerId,
    /// When it was offered.
    pub offered: UnixTime,
    /// The holder keeps it until then.
    pub expires: UnixTime,
    /// Bytes of its attachments.
    pub bytes: u64,
    /// Its attachments, or the first of them.
    pub parts: Vec<BlobRow>,
    /// Why it waits.
    pub reason: LaterReason,
    /// Bytes that there is no room for.
    pub lacking: u64,
}

impl Wait {
    /// An offer that was answered so.
    pub fn of(offer: &Offer, from: PeerId, reason: LaterReason, lacking: u64) -> Self {
        Self {
            delivery: offer.delivery,
            mailbox: offer.mailbox.clone(),
            from,
            offered: UnixTime::now(),
            expires: offer.expires,
            bytes: offer.blobs.iter().fold(0, |sum, part| sum.saturating_add(part.size)),
            parts: offer.blobs.iter().take(WAIT_PARTS_MAX).map(BlobRow::from).collect(),
            reason,
            lacking,
        }
    }

    /// Why it waits, in words; `guest`: what holds now.
    pub fn words(&self, guest: &GuestView) -> String {
        let lacking = size(self.lacking);
        match self.reason {
            LaterReason::Quota => format!(
                "waits: the store is full, {lacking} missing: raise `store.quota_mib`, or make room with `lighter-agent remove`"
            ),
            LaterReason::Disk => format!("waits: the disk is full, {lacking} missing"),
            LaterReason::Busy => "waits: as many deliveries come as may at a time".to_owned(),
            LaterReason::Paused => match &guest.reason {
                Some(reason) => format!("waits: {reason}"),
                None => "waits until its holder offers it again".to_owned(),
            },
        }
    }

    /// As a row of the list.
    pub fn row(&self, guest: &GuestView) -> DeliveryRow {
        DeliveryRow {
            delivery: self.delivery,
            mailbox: Some(self.mailbox.clone()),
            from: self.from,
            offered: self.offered,
            expires: self.expires,
            state: DeliveryState::Offered,
            reason: Some(self.words(guest)),
            bytes: self.bytes,
            bytes_verified: 0,
            parts: self.parts.clone(),
            sources: Vec::new(),
        }
    }

    /// As a line of `status`.
    pub fn line(&self, guest: &GuestView) -> WaitRow {
        WaitRow { delivery: self.delivery, bytes: self.bytes, reason: self.words(guest) }
    }
}

/// Those that wait; at most [`WAITS_MAX`].
#[derive(Debug, Default)]
pub struct Waits(Mutex<BTreeMap<DeliveryId, Wait>>);

impl Waits {
    /// Remembers one. One line in the log says so, once for each reason.
    pub fn add(&self, wait: Wait) {
        let mut waits = self.lock();
        let is_new = waits.get(&wait.delivery).is_none_or(|before| before.reason != wait.reason);
        if is_new {
            let words = wait.words(&GuestView::default());
            match wait.reason {
                LaterReason::Quota | LaterReason::Disk => {
                    tracing::warn!(delivery = %wait.delivery, from = %wait.from, "a delivery {words}");
                }
                LaterReason::Busy | LaterReason::Paused => {
                    tracing::info!(delivery = %wait.delivery, from = %wait.from, reason = ?wait.reason, "a delivery waits");
                }
            }
        }
        if waits.len() >= WAITS_MAX && !waits.contains_key(&wait.delivery) {
            let oldest = waits.values().min_by_key(|wait| wait.offered).map(|wait| wait.delivery);
            oldest.and_then(|oldest| waits.remove(&oldest));
        }
        waits.insert(wait.delivery, wait);
    }

    /// An offer was answered by these commands: it waits, or does not any more. `room`: what there was room for, and bytes
    /// that are missing.
    pub(super) fn answered(
        &self,
        offer: &Offer,
        from: PeerId,
        commands: &[Command],
        room: Option<(Room, u64)>,
    ) {
        let later = commands.iter().find_map(|command| match command {
            Command::Answer { answers, .. } | Command::PushAnswer { answers, .. } => {
                answers.iter().find_map(|answer| match answer {
                    Answer::Later(reason) => Some(*reason),
                    _ => None,
                })
            }
            _ => None,
        });
        match later {
            Some(reason) => {
                let lacking = room.map_or(0, |(room, missing)| match reason {
                    LaterReason::Quota => missing.saturating_sub(room.quota_left),
                    LaterReason::Disk => missing.saturating_sub(room.disk_left),
                    LaterReason::Busy | LaterReason::Paused => 0,
                });
                self.add(Wait::of(offer, from, reason, lacking));
            }
            None => {
                self.lock().remove(&offer.delivery);
            }
        }
    }

    /// Those that their holders still keep, oldest first.
    pub fn all(&self, now: UnixTime) -> Vec<Wait> {
        let mut waits = self.lock();
        waits.retain(|_, wait| now < wait.expires);
        let mut all: Vec<_> = waits.values().cloned().collect();
        all.sort_by_key(|wait| (wait.offered, wait.delivery));
        all
    }

    /// Who holds them.
    pub fn holders(&self) -> BTreeSet<PeerId> {
        self.lock().values().map(|wait| wait.from).collect()
    }

    /// For whom something waits with this holder.
    pub fn mailboxes_at(&self, holder: &PeerId) -> BTreeSet<Mailbox> {
        self.lock().values().filter(|wait| wait.from == *holder).map(|wait| wait.mailbox.clone()).collect()
    }

    /// Whether one waits for room on the disk.
    pub fn wait_for_disk(&self) -> bool {
        self.lock().values().any(|wait| wait.reason == LaterReason::Disk)
    }

    /// Whether one of these fits into what the disk has left.
    pub fn fits_disk(&self, left: u64) -> bool {
        self.lock().values().any(|wait| wait.reason == LaterReason::Disk && wait.bytes <= left)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeliveryId, Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
