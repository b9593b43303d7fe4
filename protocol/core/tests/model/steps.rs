//! The shells of both sides: what a thing that happens tells the machines, and what they say is done.

use lighter_protocol::blob::RangeSet;
use lighter_protocol::limits::{GET_RANGES_MAX, LOOK_INTERVAL};
use lighter_protocol::offer::{self, Offering, State};
use lighter_protocol::pull::{
    self, Door, Held, NotTaken, Own, Pull, PushedStream, Room, StreamEnd, StreamId,
};
use lighter_protocol::push::Pushing;
use lighter_protocol::wire::{Get, LaterReason, PushAnswer, Response};

use super::actions::Action;
use super::facts::Facts;
use super::world::{Flaw, Message, Phase, Recording, Stream, World};

type Done = Result<(), String>;

/// Room for everything.
const ROOMY: Room = Room {
    blob_size_max: u64::MAX,
    manifest_size_max: u64::MAX,
    quota_left: u64::MAX,
    disk_left: u64::MAX,
    closed: None,
};

/// A world, and those whom something happens to.
pub(crate) struct Step<'a> {
    pub(crate) world: World,
    pub(crate) facts: &'a Facts,
    pub(crate) flaw: Option<Flaw>,
}

impl Step<'_> {
    /// # Errors
    /// What must never happen, and did.
    pub(crate) fn run(&mut self, action: Action) -> Done {
        let now = self.world.now(self.facts);
        match action {
            Action::Online(at) => {
                let store = self.facts.store;
                self.holder(at, |machine| machine.handle_online(store, now))
            }
            Action::Offline(at) => self.holder(at, |machine| machine.handle_offline(now)),
            Action::Deliver(at) => {
                let message = self.world.net.remove(at);
                self.deliver(message, &ROOMY)
            }
            Action::DeliverPaused(at) => {
                let message = self.world.net.remove(at);
                self.deliver(message, &Room { closed: Some(LaterReason::Paused), ..ROOMY })
            }
            Action::DeliverTight(at) => {
                let message = self.world.net.remove(at);
                self.deliver(message, &Room { quota_left: 150, ..ROOMY })
            }
            Action::Double(at) => {
                let message = self.world.net[at].clone();
                self.deliver(message, &ROOMY)
            }
            Action::Lose(at) => {
                match self.world.net.remove(at) {
                    Message::Receipt(at) | Message::Released(at) => self.world.send(Message::Unheard(at)),
                    _ => {}
                }
                Ok(())
            }
            Action::Asked(id) => self.asked(id),
            Action::Push(at) => self.push(at),
            Action::LosePush(at) => {
                if let Some(pushing) = &mut self.world.holders[at].pushing {
                    pushing.poll();
                    pushing.handle_end(true);
                }
                Ok(())
            }
            Action::Brings(id) => self.brings(id),
            Action::Ends(id) => self.ends(id),
            Action::Breaks(id) => self.ending(id, StreamEnd::Over),
            Action::Lies(id) => self.ending(id, StreamEnd::Wrong),
            Action::Stalls(id) => self.ending(id, StreamEnd::Slow),
            Action::Rests(id) => self.ending(id, StreamEnd::Later(5)),
            Action::Reread(well) => {
                let Some(blob) = self.world.store.rereads.pop_first() else { return Ok(()) };
                if !well {
                    self.world.store.written.remove(&blob);
                    self.world.store.synced.remove(&blob);
                }
                self.store(|pull| pull.handle_reread(&blob, well, now))
            }
            Action::Synced => self.synced(),
            Action::NotSynced => {
                self.world.store.syncing = false;
                self.world.store.written.clear();
                self.world.store.synced.clear();
                self.store(Pull::handle_not_synced)
            }
            Action::Recorded(at) => {
                let holder = &mut self.world.holders[at];
                (holder.recording, holder.recorded) = (Some(Recording::Durable), true);
                Ok(())
            }
            Action::RecordTold(at) => {
                self.world.holders[at].recording = None;
                self.holder(at, Offering::handle_recorded)
            }
            Action::NotRecorded(at) => {
                self.world.holders[at].recording = None;
                self.world.send(Message::Unheard(at)); // it answers `Later`
                self.holder(at, |machine| machine.handle_not_recorded(now))
            }
            Action::StoreCrash { kept } => self.store_crash(kept),
            Action::HolderCrash(at) => self.holder_crash(at),
            Action::Cut(at) => {
                self.cut(at);
                self.holder(at, |machine| machine.handle_lost(now))
            }
            Action::Time => self.time(),
            Action::Look => {
                self.world.time += LOOK_INTERVAL;
                let received: Vec<_> =
                    self.world.store.open.iter().map(|(id, stream)| (*id, stream.brought)).collect();
                let now = self.world.now(self.facts);
                self.store(|pull| pull.handle_look(&received, now))
            }
        }
    }

    fn deliver(&mut self, message: Message, room: &Room) -> Done {
        let now = self.world.now(self.facts);
        match message {
            Message::Offer(at) => self.offered(at, room),
            Message::Answer(at, answers) => {
                self.holder(at, |machine| machine.handle_response(&Response::Answer(answers), now))
            }
            Message::PushAnswer(at, answers, wanted) => {
                let answer = Response::PushAnswer(PushAnswer { answers, wanted: wanted.clone() });
                let is_waiting = matches!(self.world.holders[at].machine.state(), State::Offered { .. });
                self.holder(at, |machine| machine.handle_response(&answer, now))?;
                let holder = &mut self.world.holders[at];
                if is_waiting && matches!(holder.machine.state(), State::Pulling { .. }) {
                    holder.pushing = Some(Pushing::new(&self.facts.delivery, &wanted));
                }
                Ok(())
            }
            Message::LateGet(at) if self.world.holders[at].let_go => Ok(()),
            Message::LateGet(at) => self.holder(at, |machine| machine.handle_progress(now)),
            Message::Receipt(at) => self.receipt(at),
            Message::Released(at) => {
                let peer = self.facts.holders[at];
                self.store(|pull| pull.handle_released(&peer))
            }
            Message::Unheard(_) if self.flaw == Some(Flaw::LostReceiptIgnored) => Ok(()),
            Message::Unheard(at) | Message::Gone(at) => {
                let peer = self.facts.holders[at];
                self.store(|pull| pull.handle_lost(&peer, now))
            }
        }
    }

    /// The timers that run out first.
    fn time(&mut self) -> Done {
        let Some(until) = self.world.next_timer() else { return Ok(()) };
        self.world.time = self.world.time.max(until.saturating_duration_since(self.facts.start.instant));
        let now = self.world.now(self.facts);
        if self.world.store.timer.is_some_and(|until| until <= now.instant) {
            self.world.store.timer = None;
            self.store(|pull| pull.handle_time(now))?;
        }
        for at in 0..self.world.holders.len() {
            let is_due = self.world.holders[at].machine.deadline().is_some_and(|until| until <= now.instant);
            if is_due && self.flaw != Some(Flaw::NoTimer) {
                self.holder(at, |machine| machine.handle_time(now))?;
            }
        }
        Ok(())
    }

    // The holder's shell.

    fn holder(&mut self, at: usize, tell: impl FnOnce(&mut Offering) -> offer::Command) -> Done {
        let command = tell(&mut self.world.holders[at].machine);
        self.holder_does(at, command)
    }

    fn holder_does(&mut self, at: usize, command: offer::Command) -> Done {
        match command {
            offer::Command::Nothing | offer::Command::WaitForPresence => {}
            offer::Command::Wait(until) => {
                if self.world.holders[at].machine.deadline() != Some(until) {
                    return Err(format!("holder {at} waits for another time than it says"));
                }
            }
            offer::Command::SendOffer { to, offer, .. } => {
                if to != self.facts.store || *offer != self.facts.offer {
                    return Err(format!("holder {at} offers something else, or to somebody else"));
                }
                self.world.send(Message::Offer(at));
            }
            offer::Command::Record(_) => {
                if self.flaw == Some(Flaw::ReleaseBeforeRecord) {
                    self.world.holders[at].let_go = true;
                }
                self.world.holders[at].recording = Some(Recording::Asked);
            }
            offer::Command::Release => {
                self.world.holders[at].let_go = true;
                self.world.send(Message::Released(at));
            }
            offer::Command::GiveUp(reason) => return Err(format!("holder {at} gave up: {reason}")),
        }
        Ok(())
    }

    fn receipt(&mut self, at: usize) -> Done {
        let now = self.world.now(self.facts);
        let machine = &mut self.world.holders[at].machine;
        let command = machine
            .handle_receipt(&self.facts.receipt, &self.facts.releaser, now)
            .map_err(|error| format!("holder {at} refused the receipt: {error}"))?;
        self.holder_does(at, command)
    }

    /// It starts again from what is on its disk.
    fn holder_crash(&mut self, at: usize) -> Done {
        let holder = &mut self.world.holders[at];
        let delivery = self.facts.delivery.clone();
        holder.machine = if holder.recorded {
            holder.let_go = true; // whoever finds the record lets go
            Offering::released(delivery)
        } else {
            Offering::new(delivery, None, at as u64)
        };
        (holder.recording, holder.pushing) = (None, None);
        self.cut(at);
        Ok(())
    }

    /// Streams end, and whoever waits for an answer hears that none comes.
    fn cut(&mut self, at: usize) {
        self.world.holders[at].pushing = None;
        for stream in self.world.store.open.values_mut().filter(|stream| stream.from == at) {
            if !matches!(stream.phase, Phase::Ending(_)) {
                stream.phase = Phase::Ending(StreamEnd::Over);
            }
        }
        self.world.net.retain(|message| message.holder() != at || matches!(message, Message::Unheard(_)));
        self.world.send(Message::Gone(at));
    }

    // The store's shell.

    fn store(&mut self, tell: impl FnOnce(&mut Pull) -> Vec<pull::Command>) -> Done {
        let Some(pull) = &mut self.world.store.pull else { return Ok(()) };
        let commands = tell(pull);
        self.store_does(commands)
    }

    fn store_does(&mut self, commands: Vec<pull::Command>) -> Done {
        for command in commands {
            match command {
                pull::Command::Answer { to, answers } => {
                    self.world.send(Message::Answer(self.facts.at(&to), answers));
                }
                pull::Command::PushAnswer { to, answers, wanted } => {
                    self.world.send(Message::PushAnswer(self.facts.at(&to), answers, wanted));
                }
                pull::Command::Reread { blob, .. } => {
                    self.world.store.rereads.insert(blob);
                }
                pull::Command::Get { stream, from, blob, size, ranges } => {
                    self.get(stream, self.facts.at(&from), blob, size, ranges)?;
                }
                pull::Command::Leave { stream } | pull::Command::Enough { stream } => {
                    self.ending(stream, StreamEnd::Left)?;
                }
                pull::Command::Wait(until) => self.world.store.timer = Some(until),
                pull::Command::SyncThenReceipt { .. } => self.sync()?,
                pull::Command::SendReceipt { to, .. } => {
                    if !self.world.store.receipted && self.flaw != Some(Flaw::ReceiptInMemory) {
                        return Err("a receipt is sent that is not on disk".to_owned());
                    }
                    self.world.send(Message::Receipt(self.facts.at(&to)));
                }
                pull::Command::Stop(_) => self.forget(),
            }
        }
        Ok(())
    }

    /// The pull is over: its streams are nobody's any more.
    fn forget(&mut self) {
        let store = &mut self.world.store;
        (store.pull, store.timer, store.syncing) = (None, None, false);
        store.rereads.clear();
        for stream in std::mem::take(&mut store.open).into_values() {
            if stream.phase == Phase::Asked {
                self.world.send(Message::LateGet(stream.from));
            }
        }
    }

    fn get(
        &mut self,
        id: StreamId,
        from: usize,
        blob: lighter_protocol::BlobId,
        size: u64,
        ranges: RangeSet,
    ) -> Done {
        let manifest = &self.facts.delivery.manifest;
        if blob != manifest.id && !self.world.has(&manifest.id, manifest.size) {
            return Err("attachments before the manifest".to_owned());
        }
        self.open(id, from, blob, size, ranges, Phase::Asked)
    }

    /// A stream, asked for or pushed.
    fn open(
        &mut self,
        id: StreamId,
        from: usize,
        blob: lighter_protocol::BlobId,
        size: u64,
        ranges: RangeSet,
        phase: Phase,
    ) -> Done {
        if self.world.store.receipted {
            return Err("a receipted delivery is received once more".to_owned());
        }
        let written = self.world.store.written.get(&blob).cloned().unwrap_or_default();
        let mut new = ranges.clone();
        new.subtract(&written);
        if new != ranges || ranges.is_empty() {
            return Err(format!("asks for what of {blob} is on disk, or for nothing"));
        }
        for stream in self.world.store.open.values().filter(|stream| stream.blob == blob) {
            let mut apart = ranges.clone();
            apart.subtract(&stream.rest());
            // What was given to another is not brought by who had it: it is stopped there.
            if apart != ranges && matches!(stream.phase, Phase::Asked | Phase::Serving) && stream.from == from
            {
                return Err(format!("asks holder {from} twice for the same of {blob}"));
            }
        }
        if size != self.facts.size_of(&blob) || ranges.iter().len() > GET_RANGES_MAX {
            return Err("a request that is not in order".to_owned());
        }
        let stream = Stream { from, blob, asked: ranges, phase, brought: 0 };
        self.world.store.open.insert(id, stream);
        Ok(())
    }

    /// A holder opens a stream with the next of what it was told to push. It does not wait for what becomes of the one
    /// before.
    fn push(&mut self, at: usize) -> Done {
        let now = self.world.now(self.facts);
        let Some(pushing) = &mut self.world.holders[at].pushing else { return Ok(()) };
        let Some(push) = pushing.poll() else { return Ok(()) };
        let from = self.facts.holders[at];
        let taken = match &mut self.world.store.pull {
            Some(pull) if !self.world.holders[at].let_go => Some(pull.handle_push(from, &push.parts, now)),
            _ => None,
        };
        let (taken, commands) = taken.unwrap_or((Err(NotTaken::Over), Vec::new()));
        if let Some(pushing) = &mut self.world.holders[at].pushing {
            pushing.handle_end(taken.is_ok());
        }
        for PushedStream { stream, blob, size, ranges } in taken.unwrap_or_default() {
            self.open(stream, at, blob, size, ranges, Phase::Serving)?;
        }
        self.store_does(commands)?;
        self.holder(at, |machine| machine.handle_progress(now))
    }

    /// A request has come to its holder.
    fn asked(&mut self, id: StreamId) -> Done {
        let now = self.world.now(self.facts);
        let Some(stream) = self.world.store.open.get_mut(&id) else { return Ok(()) };
        let at = stream.from;
        let get = Get {
            delivery: self.facts.delivery.id,
            blob: stream.blob,
            ranges: stream.asked.to_wire(),
            attestation: None,
        };
        let holder = &self.world.holders[at];
        let admitted =
            holder.machine.admits(&get, &self.facts.store, &self.facts.location, now.wall).is_some();
        if !admitted || holder.let_go {
            stream.phase = Phase::Ending(StreamEnd::Refused);
            return Ok(());
        }
        stream.phase = Phase::Serving;
        if self.flaw == Some(Flaw::ReleaseWhenServed) {
            self.world.holders[at].let_go = true;
        }
        self.holder(at, |machine| machine.handle_progress(now))
    }

    fn brings(&mut self, id: StreamId) -> Done {
        let now = self.world.now(self.facts);
        let Some(stream) = self.world.store.open.get_mut(&id) else { return Ok(()) };
        let Some(range) = stream.next_portion() else { return Ok(()) };
        stream.brought += range.end - range.start;
        self.world.store.written.entry(stream.blob).or_default().insert(range.clone());
        self.store(|pull| pull.handle_verified(id, range, now))?;
        // The end comes with the last byte.
        let is_over = self.world.store.open.get(&id).is_some_and(|stream| stream.rest().is_empty());
        if is_over { self.ends(id) } else { Ok(()) }
    }

    fn ending(&mut self, id: StreamId, end: StreamEnd) -> Done {
        if let Some(stream) = self.world.store.open.get_mut(&id) {
            stream.phase = Phase::Ending(end);
        }
        Ok(())
    }

    fn ends(&mut self, id: StreamId) -> Done {
        let now = self.world.now(self.facts);
        let Some(stream) = self.world.store.open.remove(&id) else { return Ok(()) };
        self.store(|pull| pull.handle_end(id, stream.ends(), now))
    }

    fn sync(&mut self) -> Done {
        if self.world.store.receipted {
            return Err("a delivery is receipted twice".to_owned());
        }
        if let Some(blob) = self.facts.all().find(|blob| !self.world.has(&blob.id, blob.size)) {
            return Err(format!("all is said to be there, and {} is not", blob.id));
        }
        self.world.store.syncing = true;
        Ok(())
    }

    fn synced(&mut self) -> Done {
        let store = &mut self.world.store;
        store.syncing = false;
        if self.flaw != Some(Flaw::ReceiptBeforeSync) {
            store.synced = store.written.clone();
        }
        store.receipted = self.flaw != Some(Flaw::ReceiptInMemory);
        let receipt = &self.facts.receipt;
        self.store(|pull| pull.handle_receipted(receipt))
    }

    fn offered(&mut self, at: usize, room: &Room) -> Done {
        let (facts, now) = (self.facts, self.world.now(self.facts));
        let (offer, from) = (facts.offer.clone(), facts.holders[at]);
        let standing = if at == 0 {
            let attestation = facts.attestation(now.wall);
            let own = Own { attestation: &attestation, location: &facts.location };
            Door::new().admit(&offer, &from, own, now.wall).map_err(|error| error.to_string())?
        } else {
            facts.introduced()
        };
        let pushes = facts.pushes && at == 0;
        if let Some(pull) = &mut self.world.store.pull {
            let join = if pushes { Pull::handle_push_offer } else { Pull::handle_offer };
            let commands = join(pull, &offer, from, &standing, now).map_err(|error| error.to_string())?;
            return self.store_does(commands);
        }
        let (pull, commands) = if self.world.store.receipted {
            Pull::again(offer, from, &standing, &facts.receipt).map_err(|error| error.to_string())?
        } else {
            let held = |id: &_| match self.world.store.written.get(id) {
                Some(ranges) if ranges.is_whole(facts.size_of(id)) => Held::Whole,
                Some(ranges) => Held::Some(ranges.clone()),
                None => Held::Some(RangeSet::new()),
            };
            let begin = if pushes { Pull::begin_pushed } else { Pull::begin };
            begin(offer, from, &standing, room, held, now)
        };
        self.world.store.pull = Some(pull);
        self.store_does(commands)
    }

    fn store_crash(&mut self, kept: bool) -> Done {
        let store = &mut self.world.store;
        if kept {
            store.synced = store.written.clone();
        } else {
            store.written = store.synced.clone();
        }
        self.forget();
        self.world.net.retain(Message::travels);
        // Its holders hear of it as soon as they would of any lost connection: see `Action::Cut` and `Action::Time`.
        Ok(())
    }
}
