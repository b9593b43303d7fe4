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
//!
//! A holder that would push is told in the answer what is missing ([`Pull::begin_pushed`]), and is not asked for that as
//! long as it pushes; whatever becomes of the pushing, the pull goes on with what has not come (SPEC A6, A19).

mod command;
mod door;
mod plan;
mod sharing;
mod sources;
mod space;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

pub use command::{Command, NotTaken, PushedStream, Stop, StreamEnd, StreamId};
pub use door::{Door, NotAdmitted, Own, Standing};
pub use sources::{Role, SourceState, SourceView};
pub use space::{Held, Room};

use crate::wire::{Answer, Offer, PushPart};
use crate::{BlobId, Now, PeerId, Receipt, Signed};
use plan::BlobPlan;
use sharing::Sharing;
use sources::Sources;

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
        Self::start(offer, from, standing, room, held, false, now)
    }

    /// As [`Pull::begin`], where the offer's holder would push, and may: it is told what is missing.
    pub fn begin_pushed(
        offer: Offer,
        from: PeerId,
        standing: &Standing,
        room: &Room,
        held: impl Fn(&BlobId) -> Held,
        now: Now,
    ) -> (Self, Vec<Command>) {
        Self::start(offer, from, standing, room, held, true, now)
    }

    fn start(
        offer: Offer,
        from: PeerId,
        standing: &Standing,
        room: &Room,
        held: impl Fn(&BlobId) -> Held,
        pushes: bool,
        now: Now,
    ) -> (Self, Vec<Command>) {
        let answers = space::answers(&offer, standing, room, &held);
        let mut pull = Self {
            sharing: Sharing::new(plans(&offer, &answers, held), Sources::of(from, Role::Holder)),
            answers: answers.clone(),
            offer,
            state: State::Pulling,
        };
        if pull.is_declined() {
            let stop = pull.stop(Stop::Declined);
            return (pull, vec![Command::Answer { to: from, answers }, stop]);
        }
        let mut commands = vec![pull.answer(from, answers, pushes, now)];
        commands.extend(pull.rereads());
        commands.extend(pull.advance(now));
        (pull, commands)
    }

    /// Goes on with a delivery that was offered, and let in, before: nobody who offers it is there, but `source` may have it,
    /// and can be asked ([`Pull::handle_source`] says who may). Who offers it meanwhile joins, as ever; where nobody does, the
    /// receipt is kept until somebody does ([`Stop::Unheard`]).
    pub fn resume(
        offer: Offer,
        (source, role): (PeerId, Role),
        room: &Room,
        held: impl Fn(&BlobId) -> Held,
        now: Now,
    ) -> (Self, Vec<Command>) {
        // Nobody hears these; who offers it hears what is right for them.
        let answers = space::answers(&offer, &Standing::OwnRelay, room, &held);
        let mut pull = Self {
            sharing: Sharing::new(plans(&offer, &answers, held), Sources::of(source, role)),
            answers,
            offer,
            state: State::Pulling,
        };
        if pull.is_declined() {
            let stop = pull.stop(Stop::Declined);
            return (pull, vec![stop]);
        }
        let mut commands = pull.rereads();
        commands.extend(pull.advance(now));
        (pull, commands)
    }

    /// Whether something of it is never taken, or no attachment now.
    fn is_declined(&self) -> bool {
        let no = self.answers.iter().any(|answer| matches!(answer, Answer::No(_)));
        no || (self.sharing.plans.len() == 1 && !self.offer.blobs.is_empty())
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
            sharing: Sharing::new(Vec::new(), Sources::of(from, Role::Holder)),
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
        self.join(offer, from, standing, false, now)
    }

    /// As [`Pull::handle_offer`], where this holder would push, and may: it is told what is missing, unless others can
    /// be asked for it.
    ///
    /// # Errors
    /// As [`Pull::handle_offer`].
    pub fn handle_push_offer(
        &mut self,
        offer: &Offer,
        from: PeerId,
        standing: &Standing,
        now: Now,
    ) -> Result<Vec<Command>, NotAdmitted> {
        self.join(offer, from, standing, true, now)
    }

    fn join(
        &mut self,
        offer: &Offer,
        from: PeerId,
        standing: &Standing,
        pushes: bool,
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
        self.sharing.sources.add(from, Role::Holder);
        let mut commands = vec![self.answer(from, answers, pushes, now)];
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

    /// The answer to who offers: with what is to be pushed, where it is to push.
    fn answer(&mut self, to: PeerId, answers: Vec<Answer>, pushes: bool, now: Now) -> Command {
        let pushes = pushes && self.state == State::Pulling;
        let wanted = if pushes { self.sharing.promise(to, now) } else { Vec::new() };
        if wanted.is_empty() {
            return Command::Answer { to, answers };
        }
        Command::PushAnswer { to, answers, wanted }
    }

    /// `from` opened a stream that pushes these parts. It is taken, with a name for each part, or refused; what is to be
    /// done follows either way.
    pub fn handle_push(
        &mut self,
        from: PeerId,
        parts: &[PushPart],
        now: Now,
    ) -> (Result<Vec<PushedStream>, NotTaken>, Vec<Command>) {
        if self.state != State::Pulling {
            return (Err(NotTaken::Over), Vec::new());
        }
        let taken = self.sharing.begin_pushed(from, parts, now).ok_or(NotTaken::NotPromised);
        (taken, self.advance(now))
    }

    /// Nothing may be pushed from now on, whatever was said before: limits of this side hold, that only who asks can
    /// keep to. What has not begun is asked for.
    pub fn handle_pull_only(&mut self, now: Now) -> Vec<Command> {
        self.sharing.pull_instead();
        self.advance(now)
    }

    /// Streams that the shell has ended, of a connection that `from` has left for another one: what they did not bring is
    /// missing again. To be told before the offer that came on the new connection, so that it is in the answer to that.
    pub fn handle_left(&mut self, streams: &[StreamId], now: Now) {
        for stream in streams {
            // Nobody is stopped by a stream that was left.
            self.sharing.ended(*stream, StreamEnd::Left, now);
        }
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
        self.sharing.sources.views(|peer| self.sharing.pushes(peer)).collect()
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
        let push = self.sharing.awaits_push();
        if self.sharing.is_idle() && !self.sharing.plans.iter().any(BlobPlan::is_rereading) {
            // Something is missing, and nobody can be asked for it now.
            let awake = self.sharing.sources.next_awake(now.instant);
            commands.push(match awake.into_iter().chain(push).min() {
                Some(until) => Command::Wait(until),
                None => self.stop(Stop::NoSource),
            });
        } else {
            commands.extend(push.map(Command::Wait));
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
