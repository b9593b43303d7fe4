//! One state of the whole: both sides' machines and disks, and what is on its way between them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use lighter_protocol::blob::RangeSet;
use lighter_protocol::offer::{Offering, State};
use lighter_protocol::pull::{Pull, StreamEnd, StreamId};
use lighter_protocol::push::Pushing;
use lighter_protocol::wire::{Answer, PushPart};
use lighter_protocol::{BlobId, Now};

use super::facts::Facts;

/// What a shell does wrong, on purpose: that the model finds it is a test of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The store signs a receipt for what it has not synced.
    ReceiptBeforeSync,
    /// The store keeps its receipt in memory only.
    ReceiptInMemory,
    /// The holder lets go of the blobs once it has sent them.
    ReleaseWhenServed,
    /// The holder lets go before the receipt is on its disk, and does not know of it after a crash.
    ReleaseBeforeRecord,
    /// The store does not say that nobody heard its receipt.
    LostReceiptIgnored,
    /// The holder does not look at the time.
    NoTimer,
}

/// A holder: its machine, and its disk.
#[derive(Clone, Hash)]
pub(crate) struct Holder {
    pub(crate) machine: Offering,
    pub(crate) recording: Option<Recording>,
    /// What it is told to push, and has not.
    pub(crate) pushing: Option<Pushing>,
    /// On its disk: the receipt was recorded.
    pub(crate) recorded: bool,
    /// The blobs are gone from its disk.
    pub(crate) let_go: bool,
}

impl Holder {
    pub(crate) fn has_more_to_push(&self) -> bool {
        self.pushing.clone().is_some_and(|mut pushing| pushing.poll().is_some())
    }
}

/// How far the recording of a receipt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Recording {
    Asked,
    /// It is on disk, and the machine does not know yet.
    Durable,
}

/// The recipient's store: its machine, and its disk.
#[derive(Clone, Hash)]
pub(crate) struct Store {
    pub(crate) pull: Option<Pull>,
    /// Verified and written.
    pub(crate) written: BTreeMap<BlobId, RangeSet>,
    /// What of it surely survives a crash.
    pub(crate) synced: BTreeMap<BlobId, RangeSet>,
    /// Its receipt is on disk.
    pub(crate) receipted: bool,
    pub(crate) open: BTreeMap<StreamId, Stream>,
    pub(crate) rereads: BTreeSet<BlobId>,
    pub(crate) syncing: bool,
    pub(crate) timer: Option<Instant>,
}

/// A range stream, from both sides.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Stream {
    pub(crate) from: usize,
    pub(crate) blob: BlobId,
    pub(crate) asked: RangeSet,
    pub(crate) phase: Phase,
    /// Bytes that it brought.
    pub(crate) brought: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The request is on its way.
    Asked,
    /// So many of the bytes that were asked for have come.
    Serving,
    /// Its end is on its way.
    Ending(StreamEnd),
}

/// On its way, in any order. The number is the holder's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Offer(usize),
    Answer(usize, Vec<Answer>),
    PushAnswer(usize, Vec<Answer>, Vec<PushPart>),
    /// A request for ranges by a pull that is over: nobody waits for the answer.
    LateGet(usize),
    Receipt(usize),
    Released(usize),
    /// The store's own end of the connection finds out: a receipt was not answered, or not as hoped.
    Unheard(usize),
    /// The same: the connection is gone.
    Gone(usize),
}

impl Message {
    /// Whether it crosses the network, and may be lost there or come twice.
    pub(crate) fn travels(&self) -> bool {
        !matches!(self, Self::Unheard(_) | Self::Gone(_))
    }

    pub(crate) fn holder(&self) -> usize {
        match self {
            Self::Offer(at)
            | Self::Answer(at, _)
            | Self::PushAnswer(at, ..)
            | Self::LateGet(at)
            | Self::Receipt(at)
            | Self::Released(at)
            | Self::Unheard(at)
            | Self::Gone(at) => *at,
        }
    }
}

/// The whole, as a value. What is the same in it is the same in all that can follow.
#[derive(Clone, Hash)]
pub(crate) struct World {
    /// Since the start.
    pub(crate) time: Duration,
    pub(crate) holders: Vec<Holder>,
    pub(crate) store: Store,
    /// In a defined order: it says nothing about which comes first.
    pub(crate) net: Vec<Message>,
}

impl World {
    /// Everybody has just started, and knows nothing of each other.
    pub(crate) fn new(facts: &Facts) -> Self {
        let holder = |(seed, _)| Holder {
            machine: Offering::new(facts.delivery.clone(), None, seed),
            recording: None,
            pushing: None,
            recorded: false,
            let_go: false,
        };
        let store = Store {
            pull: None,
            written: BTreeMap::new(),
            synced: BTreeMap::new(),
            receipted: false,
            open: BTreeMap::new(),
            rereads: BTreeSet::new(),
            syncing: false,
            timer: None,
        };
        Self {
            time: Duration::ZERO,
            holders: (0..).zip(&facts.holders).map(holder).collect(),
            store,
            net: Vec::new(),
        }
    }

    pub(crate) fn now(&self, facts: &Facts) -> Now {
        facts.start.plus(self.time)
    }

    /// A number for this state, and for no other one.
    pub(crate) fn key(&self) -> u128 {
        key(self)
    }

    pub(crate) fn send(&mut self, message: Message) {
        let order = |message: &Message| {
            let mut hasher = DefaultHasher::new();
            message.hash(&mut hasher);
            hasher.finish()
        };
        let at = self.net.partition_point(|known| order(known) <= order(&message));
        self.net.insert(at, message);
    }

    /// Whether nothing happens any more unless time passes.
    pub(crate) fn is_quiet(&self) -> bool {
        self.net.is_empty()
            && self.store.open.is_empty()
            && self.store.rereads.is_empty()
            && !self.store.syncing
            && self.holders.iter().all(|holder| holder.recording.is_none() && !holder.has_more_to_push())
    }

    /// Whether all is as it is to be in the end.
    pub(crate) fn is_done(&self) -> bool {
        let released = |holder: &Holder| *holder.machine.state() == State::Released && holder.let_go;
        self.is_quiet() && self.store.pull.is_none() && self.holders.iter().all(released)
    }

    /// When the next timer runs out.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.holders.iter().filter_map(|holder| holder.machine.deadline()).chain(self.store.timer).min()
    }

    pub(crate) fn has(&self, blob: &BlobId, size: u64) -> bool {
        size == 0 || self.store.written.get(blob).is_some_and(|ranges| ranges.is_whole(size))
    }

    /// What must hold in every state.
    pub(crate) fn check(&self, facts: &Facts) -> Result<(), String> {
        if self.store.receipted {
            let synced = |id| self.store.synced.get(id).cloned().unwrap_or_default();
            if let Some(blob) = facts.all().find(|blob| !synced(&blob.id).is_whole(blob.size)) {
                return Err(format!("receipted, and {} is not all on disk", blob.id));
            }
        }
        for (at, holder) in self.holders.iter().enumerate() {
            if holder.let_go && !self.store.receipted {
                return Err(format!("holder {at} let go, and the store has no receipt on disk"));
            }
            if holder.let_go && !holder.recorded {
                return Err(format!("holder {at} let go, and has no receipt on disk"));
            }
            if *holder.machine.state() == State::Released && !holder.recorded {
                return Err(format!("holder {at} says that it is released, and has no receipt on disk"));
            }
        }
        Ok(())
    }
}

/// A number for this value, and for no other one.
pub(crate) fn key(value: &impl Hash) -> u128 {
    struct Bytes(Vec<u8>);
    impl Hasher for Bytes {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn finish(&self) -> u64 {
            0 // nobody asks for it
        }
    }
    let mut bytes = Bytes(Vec::with_capacity(8 * 1024));
    value.hash(&mut bytes);
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&bytes.0).as_bytes()[..16]);
    u128::from_le_bytes(key)
}
