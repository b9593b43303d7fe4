//! What can happen next in a state: what would happen anyway, in any order, and what goes wrong, each of which counts.

use lighter_protocol::blob::{PORTION_LEN, RangeSet};
use lighter_protocol::offer::State;
use lighter_protocol::pull::{StreamEnd, StreamId};

use super::world::{Flaw, Message, Phase, Recording, World};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The holder hears that the store can be reached, or cannot.
    Online(usize),
    Offline(usize),
    /// Of what is on its way, this: comes, is lost, comes and is still on its way, or comes to a store that is paused,
    /// or has room for little.
    Deliver(usize),
    Lose(usize),
    Double(usize),
    DeliverPaused(usize),
    DeliverTight(usize),
    /// A stream's request comes; the next portion; its end.
    Asked(StreamId),
    Brings(StreamId),
    Ends(StreamId),
    /// A holder opens the next stream of what it pushes, and it comes; or never does.
    Push(usize),
    LosePush(usize),
    /// It breaks; brings a wrong byte; stands still; its holder says `Later`.
    Breaks(StreamId),
    Lies(StreamId),
    Stalls(StreamId),
    Rests(StreamId),
    /// A blob was read again, well or not.
    Reread(bool),
    /// The disk's sync is done, and the receipt on it; or failed.
    Synced,
    NotSynced,
    /// The holder's disk has the receipt; its machine hears so; the disk failed.
    Recorded(usize),
    RecordTold(usize),
    NotRecorded(usize),
    /// The store dies and starts again; what was not synced is there, or not.
    StoreCrash {
        kept: bool,
    },
    HolderCrash(usize),
    /// The connection between the two breaks.
    Cut(usize),
    /// The next timer runs out.
    Time,
    /// It is looked how fast the sources are.
    Look,
}

impl World {
    /// All that may come next; what is a fault is marked so. Time passes by itself only where all else has happened.
    pub(crate) fn actions(&self, flaw: Option<Flaw>) -> Vec<(Action, bool)> {
        let mut all: Vec<_> = self.due().into_iter().map(|action| (action, false)).collect();
        let faults =
            |all: &mut Vec<_>, some: &[Action]| all.extend(some.iter().map(|action| (*action, true)));
        for (at, message) in self.net.iter().enumerate().filter(|(_, message)| message.travels()) {
            faults(&mut all, &[Action::Lose(at), Action::Double(at)]);
            if matches!(message, Message::Offer(_)) && self.store.pull.is_none() {
                faults(&mut all, &[Action::DeliverPaused(at), Action::DeliverTight(at)]);
            }
        }
        for (id, stream) in &self.store.open {
            match stream.phase {
                Phase::Asked => faults(&mut all, &[Action::Breaks(*id), Action::Rests(*id)]),
                Phase::Serving => {
                    faults(&mut all, &[Action::Breaks(*id), Action::Lies(*id), Action::Stalls(*id)]);
                }
                Phase::Ending(_) => {}
            }
        }
        if !self.store.rereads.is_empty() {
            faults(&mut all, &[Action::Reread(false)]);
        }
        if self.store.syncing {
            faults(&mut all, &[Action::NotSynced]);
        }
        let is_new = self.store.pull.is_none() && self.store.written.is_empty();
        if !is_new {
            faults(&mut all, &[Action::StoreCrash { kept: true }]);
        }
        if self.store.written != self.store.synced {
            faults(&mut all, &[Action::StoreCrash { kept: false }]);
        }
        for (at, holder) in self.holders.iter().enumerate() {
            if holder.recording == Some(Recording::Asked) {
                faults(&mut all, &[Action::NotRecorded(at)]);
            }
            if holder.has_more_to_push() {
                faults(&mut all, &[Action::LosePush(at)]);
            }
            if *holder.machine.state() != State::Waiting {
                faults(&mut all, &[Action::HolderCrash(at), Action::Offline(at), Action::Cut(at)]);
            }
        }
        if self.store.pull.as_ref().is_some_and(|pull| pull.next_look().is_some()) {
            faults(&mut all, &[Action::Look]);
        }
        if self.has_timer(flaw) && !self.is_quiet() {
            faults(&mut all, &[Action::Time]);
        }
        if self.is_quiet() && self.has_timer(flaw) {
            all.push((Action::Time, false));
        }
        all
    }

    /// What comes next where nothing goes wrong, in one order that leaves nobody out. None where nothing does.
    pub(crate) fn next_fair(&self, flaw: Option<Flaw>) -> Option<Action> {
        self.due().first().copied().or_else(|| self.has_timer(flaw).then_some(Action::Time))
    }

    /// What will happen in any case, sooner or later.
    fn due(&self) -> Vec<Action> {
        let streams = self.store.open.iter().map(|(id, stream)| match stream.phase {
            Phase::Asked => Action::Asked(*id),
            Phase::Serving if !stream.rest().is_empty() => Action::Brings(*id),
            Phase::Serving | Phase::Ending(_) => Action::Ends(*id),
        });
        let mut all: Vec<_> = streams.collect();
        all.extend((!self.store.rereads.is_empty()).then_some(Action::Reread(true)));
        all.extend(self.store.syncing.then_some(Action::Synced));
        for (at, holder) in self.holders.iter().enumerate() {
            all.extend(holder.recording.map(|recording| match recording {
                Recording::Asked => Action::Recorded(at),
                Recording::Durable => Action::RecordTold(at),
            }));
            all.extend(holder.has_more_to_push().then_some(Action::Push(at)));
            // Presence is said again until it was heard.
            all.extend((*holder.machine.state() == State::Waiting).then_some(Action::Online(at)));
        }
        let mut last = None;
        for (at, message) in self.net.iter().enumerate() {
            if last != Some(message) {
                all.push(Action::Deliver(at));
            }
            last = Some(message);
        }
        all
    }

    fn has_timer(&self, flaw: Option<Flaw>) -> bool {
        if flaw == Some(Flaw::NoTimer) { self.store.timer.is_some() } else { self.next_timer().is_some() }
    }
}

impl super::world::Stream {
    /// What it has still to bring.
    pub(crate) fn rest(&self) -> RangeSet {
        let mut rest = self.asked.clone();
        let mut left = self.brought;
        for range in self.asked.iter() {
            let end = range.end.min(range.start + left);
            left -= end - range.start;
            let mut brought = RangeSet::new();
            brought.insert(range.start..end);
            rest.subtract(&brought);
        }
        rest
    }

    /// The next portion, up to a portion's edge.
    pub(crate) fn next_portion(&self) -> Option<std::ops::Range<u64>> {
        let range = self.rest().iter().next()?;
        Some(range.start..range.end.min((range.start / PORTION_LEN + 1) * PORTION_LEN))
    }

    pub(crate) fn ends(&self) -> StreamEnd {
        match self.phase {
            Phase::Ending(end) => end,
            Phase::Asked | Phase::Serving => StreamEnd::Over,
        }
    }
}
