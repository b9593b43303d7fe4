//! The holder's side of a delivery: a relay, or a sending agent, has the blobs and wants to let go of them.
//!
//! ```text
//!             store online                answer                receipt checked        recorded
//!   Waiting ───────────────▶ Offered ───────────────▶ Pulling ───────────────▶ Receipted ───────▶ Released
//!     ▲ ▲                      │ failed, later          │ idle, lost                 │ not recorded
//!     │ └── Backoff ◀──────────┴────────────────────────┘ ◀─────────────────────────┘
//!     └──── store offline (from any of them: no timer runs)
//!   any of them, at the expiry or at a `No`: GivenUp. A receipt is taken in every state.
//! ```
//!
//! Sound because: `Released` is reached through `Receipted` only, `Receipted` with a [`VerifiedReceipt`] only, and that
//! one is made by [`Offering::handle_receipt`] against this very delivery and a [`Releaser`]. All memory of the machine
//! may be lost at any moment: what is durable (that the delivery exists, that its receipt was recorded) is the
//! caller's, and a machine made new from it starts in `Waiting` and ends the same.

use std::time::{Duration, Instant};

use crate::backoff::backoff;
use crate::blob;
use crate::limits::{ANSWER_TIME_MAX, PULL_IDLE_MAX};
use crate::receipt::{Expected, ReceiptError, Releaser, VerifiedReceipt};
use crate::wire::{Answer, Get, GetBlobs, NoReason, Offer, OfferedBlob, PushAnswer, Response};
use crate::{Attestation, BlobId, DeliveryId, Introduction, Mailbox, Now, PeerId, Receipt, Signed, UnixTime};

/// What is to be delivered: the facts that do not change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// Its number.
    pub id: DeliveryId,
    /// For whom.
    pub mailbox: Mailbox,
    /// The manifest.
    pub manifest: OfferedBlob,
    /// The attachments.
    pub blobs: Vec<OfferedBlob>,
    /// Who else has them.
    pub sources: Vec<PeerId>,
    /// The holder keeps them until then.
    pub expires: UnixTime,
}

impl Delivery {
    /// What a receipt must speak of.
    pub fn expected(&self) -> Expected {
        Expected { delivery: self.id, mailbox: self.mailbox.clone(), manifest: self.manifest.id }
    }

    /// The size of `blob` where it is one of the delivery's.
    pub fn size_of(&self, blob: &BlobId) -> Option<u64> {
        let mut all = std::iter::once(&self.manifest).chain(&self.blobs);
        all.find(|offered| offered.id == *blob).map(|offered| offered.size)
    }

    /// Whether `peer`, the other end of the connection, may read what `get` asks for, and the size of it. The right is
    /// the mailbox's, not a hash's or a number's: `peer` is the store that the delivery was offered to (`offered_to`),
    /// or it shows that it may act for the mailbox. `None` is answered [`Response::Refused`], whatever the reason was.
    pub fn admits(
        &self,
        get: &Get,
        peer: &PeerId,
        offered_to: Option<&PeerId>,
        location: &PeerId,
        now: UnixTime,
    ) -> Option<u64> {
        let size = self.size_of(&get.blob).filter(|_| get.delivery == self.id)?;
        let shown = get.attestation.as_ref();
        self.may_read(peer, offered_to, shown, location, now).then_some(size)
    }

    /// As [`Delivery::admits`], of all that `get` asks for: their sizes, in its order. `None` where one of them is not small, too.
    pub fn admits_blobs(
        &self,
        get: &GetBlobs,
        peer: &PeerId,
        offered_to: Option<&PeerId>,
        location: &PeerId,
        now: UnixTime,
    ) -> Option<Vec<u64>> {
        let sizes = (get.delivery == self.id).then(|| self.sizes_of(&get.blobs)).flatten()?;
        let shown = get.attestation.as_ref();
        self.may_read(peer, offered_to, shown, location, now).then_some(sizes)
    }

    /// The sizes of these small blobs, where all of them are the delivery's.
    fn sizes_of(&self, blobs: &[BlobId]) -> Option<Vec<u64>> {
        let all: Vec<_> = std::iter::once(&self.manifest).chain(&self.blobs).collect();
        let mut next = 0;
        let find = |blob: &BlobId| {
            // They are asked for in the offer's order.
            let (before, behind) = all.split_at(next);
            let at = behind.iter().chain(before).position(|offered| offered.id == *blob)?;
            next = (next + at) % all.len();
            let size = all[next].size;
            blob::is_small(size).then_some(size)
        };
        blobs.iter().map(find).collect()
    }

    fn may_read(
        &self,
        peer: &PeerId,
        offered_to: Option<&PeerId>,
        shown: Option<&Signed<Attestation>>,
        location: &PeerId,
        now: UnixTime,
    ) -> bool {
        let attested = |signed: &Signed<Attestation>| {
            Attestation::verify_of(signed, location, peer, now)
                .is_ok_and(|attested| attested.mailbox == self.mailbox)
        };
        offered_to == Some(peer) || shown.is_some_and(attested)
    }
}

/// One delivery on its way.
#[derive(Clone, Debug, Hash)]
pub struct Offering {
    delivery: Delivery,
    state: State,
    /// The store that can be reached now.
    store: Option<PeerId>,
    /// An introduction to show, where the holder is not a relay of the store's domain.
    introduction: Option<Signed<Introduction>>,
    /// Failures since something was last pulled.
    failures: u32,
    seed: u64,
}

/// Where a delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// For the store to come online. No timer runs.
    Waiting,
    /// The store is there, and failed.
    Backoff {
        /// When it is tried again.
        until: Instant,
    },
    /// For the store's answer.
    Offered {
        /// When none is taken for a failure.
        until: Instant,
    },
    /// For the store's receipt.
    Pulling {
        /// When the store has done nothing for too long.
        until: Instant,
    },
    /// The receipt was checked; it is being recorded.
    Receipted(VerifiedReceipt),
    /// The receipt is recorded: done.
    Released,
    /// Not to be offered any more. What happens to the blobs is the caller's policy (DESIGN §3 rules 3 and 5).
    GivenUp(GiveUp),
}

/// Why a delivery is not offered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Hash)]
pub enum GiveUp {
    /// Nobody took it in its time.
    #[error("the delivery has expired")]
    Expired,
    /// The store will never take it.
    #[error("the store does not take it: {0:?}")]
    No(NoReason),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing: what was told changes nothing. A timer that runs goes on.
    Nothing,
    /// Send this offer to this peer, and hand the response to [`Offering::handle_response`].
    SendOffer {
        /// The store.
        to: PeerId,
        /// What to say.
        offer: Box<Offer>,
        /// When no answer is one: call [`Offering::handle_time`] then.
        until: Instant,
    },
    /// Call [`Offering::handle_time`] then; this takes the place of an earlier wait ([`Offering::deadline`] is the same).
    Wait(Instant),
    /// No timer: call [`Offering::handle_online`] when the store is there.
    WaitForPresence,
    /// Record this receipt durably, then call [`Offering::handle_recorded`] or [`Offering::handle_not_recorded`].
    Record(Box<VerifiedReceipt>),
    /// Answer [`Response::Released`] to who sent the receipt. The first time, the blobs may go.
    Release,
    /// Stop offering.
    GiveUp(GiveUp),
}

impl Offering {
    /// A delivery that is not receipted yet, as it was found or made. `seed` is drawn once for each.
    pub fn new(delivery: Delivery, introduction: Option<Signed<Introduction>>, seed: u64) -> Self {
        Self { delivery, state: State::Waiting, store: None, introduction, failures: 0, seed }
    }

    /// A delivery whose receipt was recorded already: it only says so again.
    pub fn released(delivery: Delivery) -> Self {
        Self { state: State::Released, ..Self::new(delivery, None, 0) }
    }

    /// What is delivered.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Offering::handle_time`] is to be called; `None` where no timer runs.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Backoff { until } | State::Offered { until } | State::Pulling { until } => Some(until),
            State::Waiting | State::Receipted(_) | State::Released | State::GivenUp(_) => None,
        }
    }

    /// Whether `peer` may read what `get` asks for, and its size: see [`Delivery::admits`].
    pub fn admits(&self, get: &Get, peer: &PeerId, location: &PeerId, now: UnixTime) -> Option<u64> {
        self.delivery.admits(get, peer, self.store.as_ref(), location, now)
    }

    /// A newer introduction, for the next offer.
    pub fn introduce(&mut self, introduction: Signed<Introduction>) {
        self.introduction = Some(introduction);
    }

    /// `store` can be reached: the delivery is due now, whatever it waited for. That it is a store of the delivery's
    /// mailbox is known to the caller, from its attestation or from the location server.
    pub fn handle_online(&mut self, store: PeerId, now: Now) -> Command {
        if self.is_over() {
            return Command::Nothing;
        }
        self.store = Some(store);
        self.offer(now)
    }

    /// The store cannot be reached any more.
    pub fn handle_offline(&mut self, now: Now) -> Command {
        if self.is_over() {
            return Command::Nothing;
        }
        self.store = None;
        if self.expired(now) {
            return self.give_up(GiveUp::Expired);
        }
        self.state = State::Waiting;
        Command::WaitForPresence
    }

    /// The store answered the offer.
    pub fn handle_response(&mut self, response: &Response, now: Now) -> Command {
        if !matches!(self.state, State::Offered { .. }) {
            return Command::Nothing; // late: the offer it answers was given up, or answered before
        }
        match response {
            // Who pushes does so beside this machine ([`crate::push`]); what counts here is that the store takes it.
            Response::Answer(answers) | Response::PushAnswer(PushAnswer { answers, .. })
                if answers.len() == self.delivery.blobs.len() =>
            {
                self.answered(answers, now)
            }
            Response::Later(seconds) => self.fail(Duration::from_secs(u64::from(*seconds)), now),
            _ => self.fail(Duration::ZERO, now),
        }
    }

    /// The offer or a stream of the pull broke, while the store may still be there.
    pub fn handle_lost(&mut self, now: Now) -> Command {
        match self.state {
            State::Offered { .. } | State::Pulling { .. } => self.fail(Duration::ZERO, now),
            _ => Command::Nothing,
        }
    }

    /// The store pulls something of the delivery, or is being pushed it: to be told for each [`Get`] that is served and
    /// each push, and now and then while a long one is.
    pub fn handle_progress(&mut self, now: Now) -> Command {
        match self.state {
            State::Waiting | State::Backoff { .. } | State::Offered { .. } | State::Pulling { .. } => {
                self.failures = 0;
                self.pulling(now)
            }
            State::Receipted(_) | State::Released | State::GivenUp(_) => Command::Nothing,
        }
    }

    /// A receipt came, from whomever: what counts is who signed it. It is taken in every state.
    ///
    /// # Errors
    /// Says why it releases nothing; the answer is [`Response::Refused`] and the delivery stays as it was.
    pub fn handle_receipt(
        &mut self,
        receipt: &Signed<Receipt>,
        releaser: &Releaser,
        now: Now,
    ) -> Result<Command, ReceiptError> {
        let verified = VerifiedReceipt::verify(receipt, releaser, &self.delivery.expected(), now.wall)?;
        Ok(match self.state {
            State::Released => Command::Release,
            State::Receipted(_) => Command::Nothing, // recording: its answer answers this one, too
            _ => {
                self.state = State::Receipted(verified.clone());
                Command::Record(Box::new(verified))
            }
        })
    }

    /// The receipt is durable.
    pub fn handle_recorded(&mut self) -> Command {
        if matches!(self.state, State::Receipted(_)) {
            self.state = State::Released;
        }
        if self.state == State::Released { Command::Release } else { Command::Nothing }
    }

    /// The receipt could not be recorded: the answer is [`Response::Later`], and the store will send it again.
    pub fn handle_not_recorded(&mut self, now: Now) -> Command {
        if !matches!(self.state, State::Receipted(_)) {
            return Command::Nothing;
        }
        self.fail(Duration::ZERO, now)
    }

    /// Time has passed: the end of a [`Command::Wait`], or a sweep.
    pub fn handle_time(&mut self, now: Now) -> Command {
        if self.is_over() {
            return Command::Nothing;
        }
        if self.expired(now) {
            return self.give_up(GiveUp::Expired);
        }
        match self.state {
            State::Backoff { until } if until <= now.instant => self.offer(now),
            State::Offered { until } | State::Pulling { until } if until <= now.instant => {
                self.fail(Duration::ZERO, now)
            }
            State::Backoff { until } | State::Offered { until } | State::Pulling { until } => {
                Command::Wait(until)
            }
            _ => Command::WaitForPresence,
        }
    }

    fn offer(&mut self, now: Now) -> Command {
        if self.expired(now) {
            return self.give_up(GiveUp::Expired);
        }
        let Some(to) = self.store else {
            self.state = State::Waiting;
            return Command::WaitForPresence;
        };
        let until = now.instant + ANSWER_TIME_MAX;
        self.state = State::Offered { until };
        let Delivery { id, mailbox, manifest, blobs, sources, expires } = self.delivery.clone();
        let introduction = self.introduction.clone();
        let offer = Offer { delivery: id, mailbox, manifest, blobs, sources, expires, introduction };
        Command::SendOffer { to, offer: Box::new(offer), until }
    }

    fn answered(&mut self, answers: &[Answer], now: Now) -> Command {
        let no = answers.iter().find_map(|answer| match answer {
            Answer::No(reason) => Some(*reason),
            _ => None,
        });
        if let Some(reason) = no {
            return self.give_up(GiveUp::No(reason));
        }
        let later = |answer: &Answer| matches!(answer, Answer::Later(_));
        if !answers.is_empty() && answers.iter().all(later) {
            return self.fail(Duration::ZERO, now);
        }
        self.pulling(now)
    }

    fn pulling(&mut self, now: Now) -> Command {
        let until = now.instant + PULL_IDLE_MAX;
        self.state = State::Pulling { until };
        Command::Wait(until)
    }

    /// The store answered, or could have, and it came to nothing: not again before a while.
    fn fail(&mut self, at_least: Duration, now: Now) -> Command {
        if self.expired(now) {
            return self.give_up(GiveUp::Expired);
        }
        if self.store.is_none() {
            self.state = State::Waiting;
            return Command::WaitForPresence;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = backoff(self.failures, self.seed).max(at_least.min(crate::limits::BACKOFF_MAX));
        let until = now.instant + wait;
        self.state = State::Backoff { until };
        Command::Wait(until)
    }

    fn give_up(&mut self, reason: GiveUp) -> Command {
        self.state = State::GivenUp(reason);
        Command::GiveUp(reason)
    }

    fn expired(&self, now: Now) -> bool {
        now.wall >= self.delivery.expires
    }

    /// Whether nothing but a receipt changes it any more.
    fn is_over(&self) -> bool {
        matches!(self.state, State::Receipted(_) | State::Released | State::GivenUp(_))
    }
}

#[cfg(test)]
mod tests;
