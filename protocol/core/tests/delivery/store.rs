//! The store's shell: does what its machine says, on a disk that keeps what was synced, and some of the rest.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

use lighter_protocol::blob::RangeSet;
use lighter_protocol::limits::{GET_RANGES_MAX, PULL_SMALL_STREAMS_MAX};
use lighter_protocol::pull::{self, Door, Held, Own, Pull, Room, StreamEnd, StreamId};
use lighter_protocol::wire::{Get, LaterReason, Offer, Request, Response, decode, encode};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Keypair, Mailbox, PeerId, Receipt, Signed};
use rand::RngExt;

use super::{Message, Reply, World};

pub(crate) struct Store {
    pub(crate) key: Keypair,
    pub(crate) peer: PeerId,
    pub(crate) pull: Option<Pull>,
    pub(crate) door: Door,
    pub(crate) life: u32,
    /// Verified and written, by blob: truth, whatever the machine believes.
    pub(crate) written: HashMap<BlobId, RangeSet>,
    /// What of it survives a crash.
    pub(crate) synced: HashMap<BlobId, RangeSet>,
    pub(crate) receipt: Option<Signed<Receipt>>,
    pub(crate) open: BTreeMap<StreamId, usize>,
    pub(crate) timer: Option<Instant>,
}

impl World {
    pub(crate) fn store_does(&mut self, commands: Vec<pull::Command>) {
        for command in commands {
            match command {
                pull::Command::Answer { to, answers } => {
                    let payload = encode(&Response::Answer(answers)).unwrap()[4..].to_vec();
                    self.send(Message::ToHolder { to: self.holder(&to), payload, of: Reply::Offer });
                }
                pull::Command::PushAnswer { .. } => unreachable!("nobody would push here"),
                pull::Command::Reread { blob, size } => {
                    let whole = self.store.written.get(&blob).is_some_and(|ranges| ranges.is_whole(size))
                        || size == 0;
                    let well = whole && !(self.chaos && self.rng.random_bool(0.1));
                    if !well {
                        self.store.written.remove(&blob);
                        self.store.synced.remove(&blob);
                    }
                    let now = self.now;
                    let commands = self.store.pull.as_mut().map(|pull| pull.handle_reread(&blob, well, now));
                    self.store_does(commands.unwrap_or_default());
                }
                pull::Command::Get { stream, from, blob, size, ranges } => {
                    self.check_get(blob, size, &ranges);
                    let at = self.holder(&from);
                    self.store.open.insert(stream, at);
                    let get =
                        Get { delivery: self.delivery.id, blob, ranges: ranges.to_wire(), attestation: None };
                    let payload = encode(&Request::Get(get)).unwrap()[4..].to_vec();
                    let of = Reply::Get { stream, life: self.store.life };
                    self.send(Message::ToHolder { to: at, payload, of });
                }
                pull::Command::Leave { stream } | pull::Command::Enough { stream } => {
                    self.end(stream, StreamEnd::Left, self.store.life);
                }
                pull::Command::Wait(until) => self.store.timer = Some(until),
                pull::Command::SyncThenReceipt { delivery, mailbox, manifest } => {
                    self.sync_then_receipt(delivery, mailbox, manifest);
                }
                pull::Command::SendReceipt { to, receipt } => {
                    let payload = encode(&Request::Receipt(*receipt)).unwrap()[4..].to_vec();
                    self.send(Message::ToHolder { to: self.holder(&to), payload, of: Reply::Receipt });
                }
                pull::Command::Stop(_) => {
                    self.store.pull = None;
                    self.store.open.clear();
                    self.store.timer = None;
                }
            }
        }
    }

    pub(crate) fn check_get(&mut self, blob: BlobId, size: u64, ranges: &RangeSet) {
        assert!(!ranges.is_empty() && ranges.iter().len() <= GET_RANGES_MAX);
        assert!(ranges.iter().all(|range| range.end <= size));
        assert!(self.store.open.len() < PULL_SMALL_STREAMS_MAX);
        let manifest = self.delivery.manifest.clone();
        let written = |id| self.store.written.get(id).cloned().unwrap_or_default();
        assert!(
            blob == manifest.id || written(&manifest.id).is_whole(manifest.size),
            "the manifest comes first"
        );
        let mut new = ranges.clone();
        new.subtract(&written(&blob));
        assert_eq!(&new, ranges, "asks for what is on disk");
    }

    pub(crate) fn sync_then_receipt(&mut self, delivery: DeliveryId, mailbox: Mailbox, manifest: BlobId) {
        for offered in std::iter::once(&self.delivery.manifest).chain(&self.delivery.blobs) {
            let written = self.store.written.get(&offered.id).cloned().unwrap_or_default();
            assert!(written.is_whole(offered.size), "a receipt without all bytes");
        }
        if self.chaos && self.rng.random_bool(0.1) {
            self.store.written.clear();
            self.store.synced.clear();
            let commands = self.store.pull.as_mut().unwrap().handle_not_synced();
            return self.store_does(commands);
        }
        self.store.synced = self.store.written.clone();
        let time = self.now.wall;
        let receipt = Receipt { delivery, mailbox, store: self.store.peer, manifest, time };
        let signed = Signed::sign(&receipt, &self.store.key).unwrap();
        self.store.receipt = Some(signed.clone());
        if self.chaos && self.rng.random_bool(0.2) {
            return self.crash_store(); // between receipt and sending it
        }
        let commands = self.store.pull.as_mut().unwrap().handle_receipted(&signed);
        self.store_does(commands);
    }

    pub(crate) fn store_takes(&mut self, from: usize, payload: &[u8], of: Reply) {
        let (peer, now) = (self.holders[from].peer, self.now);
        match of {
            Reply::Offer => {
                let Request::Offer(offer) = decode::<Request>(payload).unwrap() else {
                    panic!("not an offer")
                };
                let commands = self.take_offer(offer, peer);
                self.store_does(commands);
            }
            Reply::Receipt => {
                let commands = self.store.pull.as_mut().map(|pull| pull.handle_released(&peer));
                self.store_does(commands.unwrap_or_default());
            }
            Reply::Get { .. } => unreachable!("{now:?}"),
        }
    }

    pub(crate) fn take_offer(&mut self, offer: Offer, from: PeerId) -> Vec<pull::Command> {
        let location = self.location.public().to_peer_id();
        let attestation = Attestation::verify(&self.attestation, &location, self.now.wall).unwrap();
        let own = Own { attestation: &attestation, location: &location };
        let standing = match self.store.door.admit(&offer, &from, own, self.now.wall) {
            Ok(standing) => standing,
            Err(error) => {
                // Only an introduction that waited too long on the way is refused.
                assert!(matches!(error, pull::NotAdmitted::Introduction(_)), "{error}");
                let payload = encode(&Response::Refused).unwrap()[4..].to_vec();
                self.send(Message::ToHolder { to: self.holder(&from), payload, of: Reply::Offer });
                return Vec::new();
            }
        };
        if let Some(pull) = &mut self.store.pull {
            return pull.handle_offer(&offer, from, &standing, self.now).unwrap();
        }
        let (pull, commands) = if let Some(receipt) = &self.store.receipt {
            Pull::again(offer, from, &standing, receipt).unwrap()
        } else {
            let tight = self.chaos && self.rng.random_bool(0.2);
            let room = Room {
                blob_size_max: u64::MAX,
                manifest_size_max: u64::MAX,
                quota_left: if tight { self.rng.random_range(0..20_000_000) } else { u64::MAX },
                disk_left: if tight { self.rng.random_range(0..20_000_000) } else { u64::MAX },
                closed: (self.chaos && self.rng.random_bool(0.1)).then_some(LaterReason::Paused),
            };
            let sizes = self.delivery.clone();
            let held = |id: &BlobId| match self.store.written.get(id) {
                Some(ranges) if ranges.is_whole(sizes.size_of(id).unwrap()) => Held::Whole,
                Some(ranges) => Held::Some(ranges.clone()),
                None => Held::Some(RangeSet::new()),
            };
            Pull::begin(offer, from, &standing, &room, held, self.now)
        };
        self.store.pull = Some(pull);
        self.store.life += 1; // streams are numbered within a pull
        commands
    }

    pub(crate) fn data(&mut self, stream: StreamId, range: Range<u64>, life: u32) {
        if life != self.store.life || !self.store.open.contains_key(&stream) {
            return;
        }
        let Some(pull) = &mut self.store.pull else { return };
        let Some(blob) = pull.blob_of(stream) else { return };
        self.store.written.entry(blob).or_default().insert(range.clone());
        let commands = pull.handle_verified(stream, range, self.now);
        self.store_does(commands);
    }

    pub(crate) fn end(&mut self, stream: StreamId, end: StreamEnd, life: u32) {
        if life != self.store.life || self.store.open.remove(&stream).is_none() {
            return;
        }
        let now = self.now;
        let commands = self.store.pull.as_mut().map(|pull| pull.handle_end(stream, end, now));
        self.store_does(commands.unwrap_or_default());
    }

    pub(crate) fn store_lost(&mut self, peer: PeerId) {
        let at = self.holder(&peer);
        let now = self.now;
        let commands = self.store.pull.as_mut().map(|pull| pull.handle_lost(&peer, now));
        self.store_does(commands.unwrap_or_default());
        let lost: Vec<_> =
            self.store.open.iter().filter(|(_, from)| **from == at).map(|(stream, _)| *stream).collect();
        for stream in lost {
            self.end(stream, StreamEnd::Over, self.store.life);
        }
    }

    /// Some streams have brought something on the wire, others nothing.
    pub(crate) fn store_looks(&mut self) {
        let open: Vec<_> = self.store.open.keys().copied().collect();
        let received: Vec<_> =
            open.into_iter().map(|stream| (stream, self.rng.random_range(0..20_000_000))).collect();
        let now = self.now;
        let commands = self.store.pull.as_mut().map(|pull| pull.handle_look(&received, now));
        self.store_does(commands.unwrap_or_default());
    }

    pub(crate) fn crash_store(&mut self) {
        // What was written and not synced may be gone, or not.
        for (id, ranges) in self.store.written.clone() {
            let mut kept = self.store.synced.get(&id).cloned().unwrap_or_default();
            for range in ranges.iter() {
                if self.rng.random_bool(0.5) {
                    kept.insert(range);
                }
            }
            self.store.written.insert(id, kept.clone());
            self.store.synced.insert(id, kept);
        }
        self.store.pull = None;
        self.store.door = Door::new();
        self.store.open.clear();
        self.store.timer = None;
        self.go_offline();
    }

    pub(crate) fn go_offline(&mut self) {
        self.online = false;
        for at in 0..self.holders.len() {
            let command = self.holders[at].machine.handle_offline(self.now);
            self.holder_does(at, command);
        }
    }

    pub(crate) fn holder(&self, peer: &PeerId) -> usize {
        self.holders.iter().position(|holder| holder.peer == *peer).unwrap()
    }
}
