//! The store's side of a delivery: it decides whether to pull, fetches what it lacks, and receipts the whole.
//!
//! ```text
//!   offer ─▶ Door ─▶ answers ─▶ manifest ─▶ attachments ─▶ SyncThenReceipt ─▶ SendReceipt ─▶ Done
//!             │         │         (a few range streams, shared out among the sources)
//!           Refused   nothing to pull: Stop
//! ```
//!
//! One [`Pull`] is one delivery. The shell keeps a map of them, asks the [`Door`] about each offer, and drops a pull
//! after [`Command::Stop`]; what is on disk stays, and the next offer of the delivery goes on from there. Who holds
//! the blobs is the one who tries again: a store that lost its source needs no timer.
//!
//! Sound because a receipt is made for [`Command::SyncThenReceipt`] only; that comes when every blob is whole; a blob
//! is whole by ranges that [`Pull::handle_verified`] was told (verified against its BLAKE3 tree, and written), or by
//! [`Pull::handle_reread`] (read back from disk, and hashed). That the last group of a blob was verified proves its
//! size: a source that gives another size is dropped. Who is asked for what, where there are several sources, is
//! `sharing`'s.

mod door;
mod plan;
mod sharing;
mod sources;
mod space;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

pub use door::{Door, NotAdmitted, Own, Standing};
pub use sources::{Role, SourceState, SourceView};
pub use space::{Held, Room};

use crate::blob::RangeSet;
use crate::wire::{Answer, Offer};
use crate::{BlobId, DeliveryId, Mailbox, Now, PeerId, Receipt, Signed};
use plan::BlobPlan;
use sharing::Sharing;
use sources::Sources;

/// A range stream of this pull, numbered as they are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer the offer that `to` made.
    Answer {
        /// Who offered.
        to: PeerId,
        /// One for each of the offer's blobs.
        answers: Vec<Answer>,
    },
    /// Read this blob again from disk and hash it, then call [`Pull::handle_reread`].
    Reread {
        /// Which.
        blob: BlobId,
        /// Its size, as offered: another one on disk is a failure.
        size: u64,
    },
    /// Open a stream and ask for these ranges. Verify what comes against the blob's id and `size`, write it, and call
    /// [`Pull::handle_verified`]; at its end [`Pull::handle_end`].
    Get {
        /// The stream's name from here on.
        stream: StreamId,
        /// Whom to ask.
        from: PeerId,
        /// Which blob.
        blob: BlobId,
        /// Its size, as offered: a [`crate::wire::Response::Data`] that says another is [`StreamEnd::Wrong`].
        size: u64,
        /// What to ask for: at most [`crate::limits::GET_RANGES_MAX`] ranges, whole groups.
        ranges: RangeSet,
    },
    /// Stop this stream, and call [`Pull::handle_end`] with [`StreamEnd::Left`] once all that it brought was told.
    Leave {
        /// Which.
        stream: StreamId,
    },
    /// All that this stream is still wanted for is here: stop it, whatever is on its way, and call
    /// [`Pull::handle_end`] with [`StreamEnd::Left`].
    Enough {
        /// Which.
        stream: StreamId,
    },
    /// Call [`Pull::handle_time`] then.
    Wait(Instant),
    /// All blobs are whole: sync data, index and directories; then sign the receipt, keep it durably, and call
    /// [`Pull::handle_receipted`].
    SyncThenReceipt {
        /// For the receipt.
        delivery: DeliveryId,
        /// For the receipt.
        mailbox: Mailbox,
        /// For the receipt.
        manifest: BlobId,
    },
    /// Send the receipt to this holder, and hand its answer to [`Pull::handle_released`] or [`Pull::handle_lost`].
    SendReceipt {
        /// Who holds the blobs.
        to: PeerId,
        /// What to send.
        receipt: Box<Signed<Receipt>>,
    },
    /// The pull is over: forget it.
    Stop(Stop),
}

/// Why a pull is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Every holder has let go.
    #[error("receipted and released")]
    Done,
    /// Nothing of it is pulled: see the answers.
    #[error("nothing is pulled")]
    Declined,
    /// All sources are gone; the next offer goes on where this one stopped.
    #[error("no source is left")]
    NoSource,
    /// What was to be pulled is here; the rest was answered `Later`.
    #[error("a part is here, the rest is for later")]
    Part,
    /// The receipt is on disk; the holder did not hear of it, and will offer again.
    #[error("receipted, but the holder does not know")]
    Unheard,
}

/// How a range stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// As it should, or broken: what it brought counts.
    Over,
    /// Given up here: its rest is asked for elsewhere, or on another connection where the source offers now. What it
    /// brought counts, and that it brought nothing does not.
    Left,
    /// The source said [`crate::wire::Response::Refused`].
    Refused,
    /// The source said [`crate::wire::Response::Later`], after so many seconds.
    Later(u32),
    /// Next to nothing came for too long: other sources are asked, and this one again only when nobody else is left.
    Slow,
    /// Bytes that do not verify, a size that is not the offer's, too many bytes: the source is not asked again.
    Wrong,
}

/// One delivery being pulled.
#[derive(Clone, Debug, Hash)]
pub struct Pull {
    offer: Offer,
    answers: Vec<Answer>,
    sharing: Sharing,
    state: State,
}

/// Where a pull is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Pulling,
    Syncing,
    Receipted {
        receipt: Signed<Receipt>,
        /// Who was sent it, and has not answered.
        told: BTreeSet<PeerId>,
    },
    Over,
}

impl Pull {
    /// Starts on an offer that the [`Door`] let in. `held` says what is on disk of each of its blobs.
    pub fn begin(
        offer: Offer,
        from: PeerId,
        standing: &Standing,
        room: &Room,
        held: impl Fn(&BlobId) -> Held,
        now: Now,
    ) -> (Self, Vec<Command>) {
        let answers = space::answers(&offer, standing, room, &held);
        let mut commands = vec![Command::Answer { to: from, answers: answers.clone() }];
        let mut pull = Self {
            sharing: Sharing::new(plans(&offer, &answers, held), Sources::of(from)),
            answers,
            offer,
            state: State::Pulling,
        };
        let no = pull.answers.iter().any(|answer| matches!(answer, Answer::No(_)));
        if no || (pull.sharing.plans.len() == 1 && !pull.offer.blobs.is_empty()) {
            commands.push(pull.stop(Stop::Declined));
            return (pull, commands);
        }
        commands.extend(pull.rereads());
        commands.extend(pull.advance(now));
        (pull, commands)
    }

    /// An offer of a delivery that is receipted already: the same answer, and the same receipt again.
    ///
    /// # Errors
    /// [`NotAdmitted::OtherContents`] where the receipt was for something else under the same number.
    pub fn again(
        offer: Offer,
        from: PeerId,
        standing: &Standing,
        receipt: &Signed<Receipt>,
    ) -> Result<(Self, Vec<Command>), NotAdmitted> {
        let claim = receipt.claim().map_err(|_| NotAdmitted::OtherContents)?;
        if (claim.delivery, &claim.mailbox, claim.manifest)
            != (offer.delivery, &offer.mailbox, offer.manifest.id)
        {
            return Err(NotAdmitted::OtherContents);
        }
        let answers = vec![standing.had(); offer.blobs.len()];
        let mut pull = Self {
            offer,
            answers: answers.clone(),
            sharing: Sharing::new(Vec::new(), Sources::of(from)),
            state: State::Syncing,
        };
        let mut commands = vec![Command::Answer { to: from, answers }];
        commands.extend(pull.handle_receipted(receipt));
        Ok((pull, commands))
    }

    /// A further offer of this delivery, let in by the [`Door`]: from the same holder again, or from another one, who
    /// becomes a source.
    ///
    /// # Errors
    /// [`NotAdmitted::OtherContents`] where it is not the same delivery: nothing of it is used.
    pub fn handle_offer(
        &mut self,
        offer: &Offer,
        from: PeerId,
        standing: &Standing,
        now: Now,
    ) -> Result<Vec<Command>, NotAdmitted> {
        let known = &self.offer;
        let ids =
            |offer: &Offer| offer.blobs.iter().map(|offered| (offered.id, offered.size)).collect::<Vec<_>>();
        let same = (known.delivery, &known.mailbox, known.manifest.id, known.manifest.size)
            == (offer.delivery, &offer.mailbox, offer.manifest.id, offer.manifest.size)
            && ids(known) == ids(offer);
        if !same {
            return Err(NotAdmitted::OtherContents);
        }
        let answers = self.answers.iter().map(|answer| standing.hears(*answer)).collect();
        let mut commands = vec![Command::Answer { to: from, answers }];
        self.sharing.sources.add(from, Role::Holder);
        match &mut self.state {
            State::Pulling => commands.extend(self.advance(now)),
            State::Syncing | State::Over => {}
            State::Receipted { receipt, told } => {
                told.insert(from);
                commands.push(Command::SendReceipt { to: from, receipt: Box::new(receipt.clone()) });
            }
        }
        Ok(commands)
    }

    /// A peer that did not offer the delivery may have it, too, and can be asked from now on. Who it is, and that it may
    /// be asked, the shell knows from its own attestation or from its location server.
    pub fn handle_source(&mut self, peer: PeerId, role: Role, now: Now) -> Vec<Command> {
        if self.state != State::Pulling {
            return Vec::new();
        }
        self.sharing.sources.add(peer, role);
        self.advance(now)
    }

    /// The sources, in the order in which they came.
    pub fn sources(&self) -> Vec<SourceView> {
        self.sharing.sources.views().collect()
    }

    /// When [`Pull::handle_look`] is to be called; none while there is only one source.
    pub fn next_look(&self) -> Option<Instant> {
        self.sharing.next_look()
    }

    /// How many bytes have come so far on each stream that is open: by that the sources are measured.
    pub fn handle_look(&mut self, received: &[(StreamId, u64)], now: Now) -> Vec<Command> {
        if self.state != State::Pulling {
            return Vec::new();
        }
        let mut commands = self.sharing.look(received, now);
        commands.extend(self.advance(now));
        commands
    }

    /// These streams wait on this side, for their turn: until the next look, that little comes on them says nothing of their
    /// sources.
    pub fn handle_held(&mut self, streams: &[StreamId]) {
        self.sharing.hold(streams);
    }

    /// What is pulled.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Which blob a stream that is open is for.
    pub fn blob_of(&self, stream: StreamId) -> Option<BlobId> {
        self.sharing.blob_of(stream)
    }

    /// Bytes on disk, verified, and bytes in all: for a progress bar. What was answered `Later` does not count.
    pub fn progress(&self) -> (u64, u64) {
        self.sharing.plans.iter().fold((0, 0), |(have, all), plan| (have + plan.have(), all + plan.size))
    }

    /// These bytes of the stream's blob are verified and written (not yet synced).
    pub fn handle_verified(&mut self, stream: StreamId, range: Range<u64>, now: Now) -> Vec<Command> {
        let Some((mut commands, is_done)) = self.sharing.verified(stream, range) else { return Vec::new() };
        if is_done {
            commands.extend(self.advance(now));
        }
        commands
    }

    /// The stream is over.
    pub fn handle_end(&mut self, stream: StreamId, end: StreamEnd, now: Now) -> Vec<Command> {
        if self.sharing.blob_of(stream).is_none() {
            return Vec::new();
        }
        let mut commands = self.sharing.ended(stream, end, now);
        commands.extend(self.advance(now));
        commands
    }

    /// The connection to this peer is gone: it is asked no more. Streams on it end by themselves, and are told of by
    /// [`Pull::handle_end`] after what they brought.
    pub fn handle_lost(&mut self, peer: &PeerId, now: Now) -> Vec<Command> {
        self.sharing.sources.drop(peer);
        self.unheard_by(peer).unwrap_or_else(|| self.advance(now))
    }

    /// The blob was read again from disk: it is what it is to be, or not.
    pub fn handle_reread(&mut self, blob: &BlobId, well: bool, now: Now) -> Vec<Command> {
        for plan in self.sharing.plans.iter_mut().filter(|plan| plan.id == *blob) {
            plan.reread(well);
        }
        self.advance(now)
    }

    /// A source that was to be left alone for a while may be asked again.
    pub fn handle_time(&mut self, now: Now) -> Vec<Command> {
        self.advance(now)
    }

    /// The receipt is signed and on disk.
    pub fn handle_receipted(&mut self, receipt: &Signed<Receipt>) -> Vec<Command> {
        if self.state != State::Syncing {
            return Vec::new();
        }
        self.tell(receipt.clone())
    }

    /// Sends the receipt to who is to hear of it.
    fn tell(&mut self, receipt: Signed<Receipt>) -> Vec<Command> {
        let told = self.sharing.sources.told();
        if told.is_empty() {
            return vec![self.stop(Stop::Unheard)];
        }
        let send = |to: &PeerId| Command::SendReceipt { to: *to, receipt: Box::new(receipt.clone()) };
        let commands = told.iter().map(send).collect();
        self.state = State::Receipted { receipt, told };
        commands
    }

    /// Somebody who was sent the receipt did not hear it. None where it is not about a receipt.
    fn unheard_by(&mut self, peer: &PeerId) -> Option<Vec<Command>> {
        let State::Receipted { receipt, told } = &mut self.state else { return None };
        told.remove(peer);
        let receipt = told.is_empty().then(|| receipt.clone());
        Some(receipt.map(|receipt| self.tell(receipt)).unwrap_or_default())
    }

    /// The sync failed: nothing is receipted. The pull is over; what a failed sync left behind is not to be trusted,
    /// so the shell forgets what it held of these blobs (DESIGN §3 rule 1).
    pub fn handle_not_synced(&mut self) -> Vec<Command> {
        if self.state == State::Syncing { vec![self.stop(Stop::NoSource)] } else { Vec::new() }
    }

    /// This holder has recorded the receipt.
    pub fn handle_released(&mut self, by: &PeerId) -> Vec<Command> {
        let State::Receipted { told, .. } = &mut self.state else { return Vec::new() };
        told.remove(by);
        let is_last = told.is_empty();
        self.sharing.sources.drop(by);
        if is_last { vec![self.stop(Stop::Done)] } else { Vec::new() }
    }

    /// Opens as many streams as may be, or says what comes after the last one.
    fn advance(&mut self, now: Now) -> Vec<Command> {
        if self.state != State::Pulling {
            return Vec::new();
        }
        if self.sharing.is_done() {
            return vec![self.whole()];
        }
        let mut commands = self.sharing.fill(now);
        if self.sharing.is_idle() && !self.sharing.plans.iter().any(BlobPlan::is_rereading) {
            // Something is missing, and nobody can be asked for it now.
            commands.push(match self.sharing.sources.next_awake(now.instant) {
                Some(until) => Command::Wait(until),
                None => self.stop(Stop::NoSource),
            });
        }
        commands
    }

    /// Everything that was to be pulled is here.
    fn whole(&mut self) -> Command {
        if self.answers.iter().any(|answer| matches!(answer, Answer::Later(_))) {
            return self.stop(Stop::Part);
        }
        self.state = State::Syncing;
        let Offer { delivery, mailbox, manifest, .. } = &self.offer;
        Command::SyncThenReceipt { delivery: *delivery, mailbox: mailbox.clone(), manifest: manifest.id }
    }

    fn rereads(&self) -> Vec<Command> {
        let rereading = self.sharing.plans.iter().filter(|plan| plan.is_rereading());
        rereading.map(|plan| Command::Reread { blob: plan.id, size: plan.size }).collect()
    }

    fn stop(&mut self, stop: Stop) -> Command {
        self.state = State::Over;
        self.sharing.clear();
        Command::Stop(stop)
    }
}

/// What there is to do for each blob that is not left for later, the manifest first.
fn plans(offer: &Offer, answers: &[Answer], held: impl Fn(&BlobId) -> Held) -> Vec<BlobPlan> {
    let wanted =
        offer.blobs.iter().zip(answers).filter(|(_, answer)| matches!(answer, Answer::Have | Answer::Pull));
    let all = std::iter::once(&offer.manifest).chain(wanted.map(|(offered, _)| offered));
    let mut plans: Vec<BlobPlan> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for offered in all.filter(|offered| seen.insert(offered.id)) {
        plans.push(match held(&offered.id) {
            Held::Whole => BlobPlan::rereading(offered.id, offered.size),
            Held::Some(ranges) => BlobPlan::new(offered.id, offered.size, ranges),
        });
    }
    plans
}

#[cfg(test)]
mod tests;
