//! The store on a disk that fails: whatever happens, what was receipted is there, and the pull can go on.

mod crashes;
mod faults;
mod sharings;
mod small;

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync::Outboard;
use lighter_protocol::blob::{self, GROUP, GROUP_LEN};
use lighter_protocol::wire::{Offer, OfferedBlob};
use lighter_protocol::{BlobId, DeliveryId, Keypair, PeerId, Signed, UnixTime};

use super::*;
use crate::delivery::IncomingState;
use crate::disk::simulated::SimulatedDisk;

const NOW: UnixTime = UnixTime(1_800_000_000);

/// What a sender holds: the bytes, and the tree that a decoder would have verified.
#[derive(Debug)]
pub(super) struct Source {
    bytes: Vec<u8>,
    tree: PreOrderMemOutboard,
}

impl Source {
    pub(super) fn new(seed: u8, len: usize) -> Self {
        let bytes: Vec<u8> =
            (0..len).map(|at| (at as u64 * 31 + u64::from(seed) + at as u64 / 251) as u8).collect();
        let tree = PreOrderMemOutboard::create(&bytes, GROUP);
        Self { bytes, tree }
    }

    pub(super) fn id(&self) -> BlobId {
        BlobId(*self.tree.root.as_bytes())
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn offered(&self, name: &str) -> OfferedBlob {
        OfferedBlob { id: self.id(), size: self.size(), name: name.to_owned(), media_type: "x/y".to_owned() }
    }

    /// Gives a partial blob the groups that it misses, at most `max` of them, as a decoder would: parents first.
    /// Gives how many were sent.
    pub(super) fn feed(&self, partial: &Partial, max: u64) -> Result<u64, StoreError> {
        let mut sent = 0;
        for Range { start, end } in partial.here().missing(self.size()).iter() {
            let mut at = start;
            while at < end {
                if sent == max {
                    return Ok(sent);
                }
                let above = blob::tree(self.size()).pre_order_nodes_iter().filter(|node| {
                    let range = node.chunk_range();
                    range.start.to_bytes() <= at && at < range.end.to_bytes()
                });
                let pairs = above.filter_map(|node| Some((node, self.tree.load(node).unwrap()?)));
                partial.write_pairs(pairs)?;
                let until = (at + GROUP_LEN).min(self.size());
                partial.write_data(at, &self.bytes[at as usize..until as usize])?;
                sent += 1;
                at = until;
            }
        }
        Ok(sent)
    }
}

pub(super) fn offer(number: u8, manifest: &Source, blobs: &[&Source]) -> Offer {
    Offer {
        delivery: DeliveryId([number; 16]),
        mailbox: "alice@example.org".parse().unwrap(),
        manifest: manifest.offered(""),
        blobs: blobs.iter().map(|blob| blob.offered("report.pdf")).collect(),
        sources: Vec::new(),
        expires: NOW.plus(Duration::from_secs(86_400 * 30)),
        introduction: None,
    }
}

pub(super) fn open(disk: &SimulatedDisk) -> Store {
    Store::open_on(Arc::new(disk.clone()), Settings::default()).unwrap()
}

pub(super) fn pull(store: &Store, source: &Source, step: u64) -> Result<u64, StoreError> {
    let mut fetched = 0;
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW)? else { return Ok(0) };
    while !partial.is_complete() {
        fetched += source.feed(&partial, step)?;
        partial.checkpoint()?;
    }
    store.finish(&[partial], NOW)?;
    Ok(fetched)
}

/// Small ones come whole, others group by group.
pub(super) fn take(store: &Store, source: &Source) -> Result<u64, StoreError> {
    if !blob::is_small(source.size()) {
        return pull(store, source, 3);
    }
    if store.here(source.id(), source.size(), NOW)? == Here::Whole {
        return Ok(0);
    }
    store.keep(&[(source.id(), &source.bytes)])?;
    Ok(1)
}

/// All of a delivery, from offer to receipt, as the agent does it.
pub(super) fn deliver(
    store: &Store,
    key: &Keypair,
    offer: &Offer,
    sources: &[&Source],
) -> Result<u64, StoreError> {
    let from = PeerId::random();
    let fetched = match store.admit(offer, from, NOW)? {
        Admission::Known(known) if known.receipt().is_some() => return Ok(0),
        Admission::Conflict => unreachable!("one sender draws the numbers here"),
        _ => sources.iter().try_fold(0, |sum, source| Ok::<_, StoreError>(sum + take(store, source)?))?,
    };
    store.seal(NOW)?;
    let durable = store.durable(offer.delivery)?.expect("all parts were finished");
    let receipt = Signed::sign(&durable.receipt(key.public().to_peer_id(), NOW), key).unwrap();
    store.settle(durable, receipt)?;
    Ok(fetched)
}

pub(super) fn read_all(store: &Store, blob: BlobId) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open_blob(blob).unwrap().reader().read_to_end(&mut bytes).unwrap();
    bytes
}

pub(super) fn key() -> Keypair {
    Keypair::ed25519_from_bytes([7; 32]).unwrap()
}

#[test]
fn blobs_of_every_shape_come_in_and_are_read_back() {
    let group = GROUP_LEN as usize;
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    for len in [0, 1, group - 1, group, group + 1, 2 * group, 5 * group + 7, 16 * group, 33 * group - 1] {
        let source = Source::new(len as u8, len);
        let offer = offer(1, &source, &[]);
        let fetched = pull(&store, &source, 2).unwrap();
        assert_eq!(fetched, (len as u64).div_ceil(GROUP_LEN), "{len}");
        assert_eq!(read_all(&store, source.id()), source.bytes, "{len}");
        assert_eq!(pull(&store, &source, 2).unwrap(), 0, "{len}: held, so nothing is fetched");
        assert_eq!(offer.manifest.size, len as u64);
    }
}

#[test]
fn the_outboard_on_disk_is_the_one_that_bao_tree_makes() {
    let source = Source::new(3, 37 * GROUP_LEN as usize + 5);
    let store = open(&SimulatedDisk::default());
    let mut import = store.import().unwrap();
    import.write_all(&source.bytes).unwrap();
    let hold = store.hold();
    let (id, size) = import.finish(&hold, NOW).unwrap();
    assert_eq!((id, size), (source.id(), source.size()));
    let stored = store.open_blob(id).unwrap();
    for node in blob::tree(size).pre_order_nodes_iter() {
        assert_eq!(stored.pair(node).unwrap(), source.tree.load(node).unwrap(), "{node:?}");
    }
}

// SPEC: D8
#[test]
fn bad_input_38_one_blob_for_many_deliveries_is_fetched_once_and_goes_with_the_last() {
    let (disk, key) = (SimulatedDisk::default(), key());
    let store = open(&disk);
    let (manifest, blob) = (Source::new(1, 100), Source::new(2, 50_000));
    for number in 1..=5 {
        let fetched =
            deliver(&store, &key, &offer(number, &manifest, &[&blob]), &[&manifest, &blob]).unwrap();
        assert_eq!(fetched > 0, number == 1);
    }
    assert_eq!(store.used().unwrap(), 50_000, "counted once");
    for number in 1..=4 {
        store.remove(DeliveryId([number; 16])).unwrap();
        assert!(store.holds(blob.id()).unwrap());
    }
    store.remove(DeliveryId([5; 16])).unwrap();
    assert!(!store.holds(blob.id()).unwrap());
    assert_eq!(store.used().unwrap(), 0);
    assert_eq!(disk.names(), ["index.redb"], "no file is left");
}

#[test]
fn bad_input_38_two_pulls_that_finish_one_blob_at_once_both_succeed() {
    let store = open(&SimulatedDisk::default());
    let source = Source::new(4, 3 * GROUP_LEN as usize + 9);
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW).unwrap() else {
        panic!("not held")
    };
    source.feed(&partial, 9).unwrap();
    partial.prove().unwrap();
    partial.files().for_each(|file| file.sync().unwrap());
    // Both have looked, and seen that it is not placed yet.
    let ready = [(source.id(), source.size(), Pair::partial(source.id(), source.size()))];
    for _ in 0..2 {
        store.0.place(&ready, None, NOW).unwrap();
    }
    assert_eq!(read_all(&store, source.id()), source.bytes);
}

// SPEC: D3
#[test]
fn bad_input_34_what_was_here_already_or_came_for_another_one_too_was_not_brought_by_a_delivery() {
    let (disk, key) = (SimulatedDisk::default(), key());
    let store = open(&disk);
    let sources: Vec<_> = (1..=6).map(|seed| Source::new(seed, 40_000)).collect();
    let [m1, m2, m3, m4, film, plan] = &sources[..] else { unreachable!() };
    let offers =
        [offer(1, m1, &[film]), offer(2, m2, &[film, plan]), offer(3, m3, &[plan]), offer(4, m4, &[film])];
    let brought =
        |number: usize, source: &Source| store.is_brought(offers[number - 1].delivery, source.id()).unwrap();
    deliver(&store, &key, &offers[0], &[m1, film]).unwrap();
    assert!(brought(1, m1) && brought(1, film) && !brought(1, plan));
    // The second one names what the first one brought: that stays the first one's.
    store.admit(&offers[1], PeerId::random(), NOW).unwrap();
    assert!(brought(1, film) && !brought(2, film) && brought(2, plan));
    // The third one comes while the second one is under way: whoever brings it, it is neither's.
    store.admit(&offers[2], PeerId::random(), NOW).unwrap();
    assert!(!brought(2, plan) && !brought(3, plan) && brought(2, m2));
    deliver(&store, &key, &offers[1], &[m2, film, plan]).unwrap();
    store.remove(offers[2].delivery).unwrap();
    assert!(!brought(2, plan) && brought(2, m2), "nor afterwards");
    // What the first one let go of is not the second one's, though nobody else has it any more.
    store.remove(offers[0].delivery).unwrap();
    assert!(store.holds(film.id()).unwrap() && !brought(1, film) && !brought(2, film));
    store.remove(offers[1].delivery).unwrap();
    assert!(!store.holds(film.id()).unwrap());
    // Once nothing of it is here it may be brought again; not where the user puts it here meanwhile.
    store.admit(&offers[3], PeerId::random(), NOW).unwrap();
    assert!(brought(4, film));
    let hold = store.hold();
    let mut import = store.import().unwrap();
    import.write_all(&film.bytes).unwrap();
    import.finish(&hold, NOW).unwrap();
    drop(hold);
    assert!(!brought(4, film) && brought(4, m4));
    // And it is on disk.
    drop(store);
    let store = open(&disk);
    assert!(store.is_brought(offers[3].delivery, m4.id()).unwrap());
    assert!(!store.is_brought(offers[3].delivery, film.id()).unwrap());
}

// SPEC: D3
#[test]
fn the_shown_recipients_of_a_message_are_found_by_its_manifest_until_they_are_removed() {
    let store = open(&SimulatedDisk::default());
    let outgoing = |number: u8, manifest: &Source| crate::Outgoing {
        delivery: DeliveryId([number; 16]),
        sender: "sam@example.org".parse().unwrap(),
        recipient: format!("r{number}@example.org").parse().unwrap(),
        store: PeerId::random(),
        manifest: manifest.offered(""),
        blobs: Vec::new(),
        introduction: None,
        subject: String::new(),
        created: NOW,
        expires: NOW,
        state: crate::OutgoingState::Waiting,
    };
    let (one, other) = (Source::new(1, 100), Source::new(2, 100));
    for number in [1, 2] {
        store.put_outgoing_shown(&outgoing(number, &one)).unwrap();
    }
    store.put_outgoing(&outgoing(3, &one)).unwrap();
    store.put_outgoing_shown(&outgoing(4, &other)).unwrap();
    let shown = |manifest: &Source| -> Vec<u8> {
        store.shown(manifest.id()).unwrap().iter().map(|outgoing| outgoing.delivery.0[0]).collect()
    };
    assert_eq!((shown(&one), shown(&other)), (vec![1, 2], vec![4]));
    let mailed = crate::OutgoingState::MailedWhole(NOW);
    store.change_outgoing(DeliveryId([1; 16]), |outgoing| outgoing.state = mailed).unwrap();
    assert_eq!(shown(&one), [1, 2], "whatever becomes of it");
    store.remove_outgoing(DeliveryId([1; 16])).unwrap();
    assert_eq!(shown(&one), [2]);
}

#[test]
fn a_blob_that_is_given_twice_in_one_go_gets_its_place_once() {
    let store = open(&SimulatedDisk::default());
    let source = Source::new(4, 3 * GROUP_LEN as usize + 9);
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW).unwrap() else {
        panic!("not held")
    };
    source.feed(&partial, 9).unwrap();
    store.finish(&[Arc::clone(&partial), partial], NOW).unwrap();
    assert_eq!(read_all(&store, source.id()), source.bytes);
}

// SPEC: D4
#[test]
fn a_replayed_offer_gets_the_receipt_that_was_given_even_after_it_was_let_go() {
    let (store, key) = (open(&SimulatedDisk::default()), key());
    let (manifest, blob) = (Source::new(1, 100), Source::new(2, 50_000));
    let offer = offer(1, &manifest, &[&blob]);
    deliver(&store, &key, &offer, &[&manifest, &blob]).unwrap();
    let given = store.incoming(offer.delivery).unwrap().unwrap().receipt().cloned().unwrap();
    store.remove(offer.delivery).unwrap();
    let Admission::Known(known) = store.admit(&offer, PeerId::random(), NOW).unwrap() else {
        panic!("known")
    };
    assert_eq!(known.state, IncomingState::LetGo(given));
}

#[test]
fn bad_input_34_a_delivery_number_that_is_taken_is_a_conflict() {
    let store = open(&SimulatedDisk::default());
    let (manifest, blob, other) = (Source::new(1, 100), Source::new(2, 500), Source::new(3, 500));
    assert!(matches!(
        store.admit(&offer(1, &manifest, &[&blob]), PeerId::random(), NOW),
        Ok(Admission::New(_))
    ));
    let conflict = store.admit(&offer(1, &manifest, &[&other]), PeerId::random(), NOW).unwrap();
    assert_eq!(conflict, Admission::Conflict);
}

#[test]
fn quota_counts_attachments_and_not_manifests() {
    let disk = SimulatedDisk::default();
    let settings = Settings { quota: Some(60_000), ..Settings::default() };
    let store = Store::open_on(Arc::new(disk), settings).unwrap();
    let (manifest, first, second) = (Source::new(1, 90_000), Source::new(2, 50_000), Source::new(3, 20_000));
    let left = |number: u8| store.space(DeliveryId([number; 16])).unwrap().quota_left;
    assert_eq!(left(1), 60_000);
    deliver(&store, &key(), &offer(1, &manifest, &[&first]), &[&manifest, &first]).unwrap();
    assert_eq!(left(2), 10_000, "the manifest is not counted");
    store.admit(&offer(2, &manifest, &[&second]), PeerId::random(), NOW).unwrap();
    assert_eq!(left(3), 0, "what was promised counts");
    assert_eq!(left(2), 10_000, "but not against whom it was promised to");
}

#[test]
fn bad_input_35_a_size_that_was_lied_about_does_not_stand_in_the_way_of_the_true_one() {
    let store = open(&SimulatedDisk::default());
    let source = Source::new(4, 3 * GROUP_LEN as usize + 9);
    let Wanted::Partial(lie) = store.want(source.id(), source.size() + 1, NOW).unwrap() else {
        panic!("not held")
    };
    lie.write_data(0, &source.bytes[..GROUP_LEN as usize]).unwrap();
    assert_eq!(pull(&store, &source, 9).unwrap(), 4);
    assert!(matches!(store.finish(&[lie], NOW), Ok(())), "the blob is held: there is nothing to do");
    assert_eq!(read_all(&store, source.id()), source.bytes);
}

#[test]
fn data_that_is_no_group_of_the_blob_is_refused() {
    let store = open(&SimulatedDisk::default());
    let size = 3 * GROUP_LEN + 9;
    let Wanted::Partial(partial) = store.want(BlobId([9; 32]), size, NOW).unwrap() else {
        panic!("not held")
    };
    let group = vec![0; GROUP_LEN as usize];
    for (offset, len) in
        [(1, 100), (0, 100), (GROUP_LEN, 10), (3 * GROUP_LEN, 10), (4 * GROUP_LEN, 1), (u64::MAX, 1)]
    {
        assert!(
            matches!(partial.write_data(offset, &group[..len]), Err(StoreError::OutOfPlace(_))),
            "{offset} {len}"
        );
    }
}

// SPEC: D4
#[test]
fn a_blob_that_rotted_is_found_before_a_receipt_and_fetched_again() {
    let (disk, key) = (SimulatedDisk::default(), key());
    let store = open(&disk);
    let (manifest, blob) = (Source::new(1, 100), Source::new(2, 50_000));
    deliver(&store, &key, &offer(1, &manifest, &[&blob]), &[&manifest, &blob]).unwrap();
    disk.rot(&Pair::complete(blob.id()).data, 20_000);
    assert!(store.open_blob(blob.id()).unwrap().reader().read_to_end(&mut Vec::new()).is_err());
    assert!(!store.recheck(blob.id()).unwrap(), "a receipt is not given on hope");
    assert!(!store.holds(blob.id()).unwrap());
    assert!(disk.names().contains(&Pair::damaged(blob.id()).data), "set aside, not thrown away");
    assert_eq!(pull(&store, &blob, 9).unwrap(), 4);
    assert!(store.recheck(blob.id()).unwrap());
}

#[test]
fn retention_lets_go_of_what_is_old_and_forgets_what_nobody_can_offer_again() {
    let settings = Settings { retention: Some(Duration::from_secs(86_400)), ..Settings::default() };
    let store = Store::open_on(Arc::new(SimulatedDisk::default()), settings).unwrap();
    let (manifest, blob) = (Source::new(1, 100), Source::new(2, 50_000));
    let offer = offer(1, &manifest, &[&blob]);
    deliver(&store, &key(), &offer, &[&manifest, &blob]).unwrap();
    assert_eq!(store.expire(NOW.plus(Duration::from_secs(86_000))).unwrap(), 0);
    assert_eq!(store.expire(NOW.plus(Duration::from_secs(86_402))).unwrap(), 1);
    assert!(!store.holds(blob.id()).unwrap());
    assert!(store.incoming(offer.delivery).unwrap().unwrap().receipt().is_some());
    assert_eq!(store.expire(offer.expires.plus(Duration::from_secs(1))).unwrap(), 1);
    assert_eq!(store.incoming(offer.delivery).unwrap(), None);
}

#[test]
fn an_import_that_is_not_referred_to_goes_with_its_hold_or_at_the_next_start() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let import = |hold: &Hold| {
        let mut import = store.import().unwrap();
        import.write_all(&[5; 40_000]).unwrap();
        import.finish(hold, NOW).unwrap().0
    };
    let hold = store.hold();
    let id = import(&hold);
    assert!(store.holds(id).unwrap());
    drop(hold);
    assert!(!store.holds(id).unwrap());
    let hold = store.hold();
    import(&hold);
    // The process is killed: nothing is dropped.
    let store = open(&disk.restart());
    assert!(!store.holds(id).unwrap());
}

#[test]
fn a_held_blob_stays_when_everybody_else_lets_go_of_it() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let bytes = vec![5; 40_000];
    let import = |hold: &Hold| {
        let mut import = store.import().unwrap();
        import.write_all(&bytes).unwrap();
        import.finish(hold, NOW).unwrap().0
    };
    let (first, second) = (store.hold(), store.hold());
    let id = import(&first);
    assert_eq!(import(&second), id);
    drop(first);
    assert_eq!(read_all(&store, id), bytes, "the second one still holds it");
    assert_eq!(store.used().unwrap(), 0, "outside quota");
    drop(second);
    assert!(!store.holds(id).unwrap());
    assert_eq!(disk.names(), ["index.redb"], "no file is left");
}

// Rule 4: between the proof and the receipt, a blob may turn out to be damaged.
#[test]
fn a_receipt_is_not_kept_for_what_is_no_longer_held() {
    let (disk, key) = (SimulatedDisk::default(), key());
    let store = open(&disk);
    let (manifest, blob) = (Source::new(1, 100), Source::new(2, 50_000));
    let offer = offer(1, &manifest, &[&blob]);
    store.admit(&offer, PeerId::random(), NOW).unwrap();
    pull(&store, &manifest, 9).unwrap();
    pull(&store, &blob, 9).unwrap();
    let durable = store.durable(offer.delivery).unwrap().unwrap();
    disk.rot(&Pair::complete(blob.id()).data, 20_000);
    assert!(!store.recheck(blob.id()).unwrap());
    let receipt = Signed::sign(&durable.receipt(key.public().to_peer_id(), NOW), &key).unwrap();
    assert!(matches!(store.settle(durable, receipt), Err(StoreError::NoBlob(_))));
    assert!(store.incoming(offer.delivery).unwrap().unwrap().receipt().is_none());
}

#[test]
fn who_waits_for_the_lock_finds_the_index_closed() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Source::new(1, 100);
    let mut store = Store::open(folder.path(), Settings::default()).unwrap();
    for number in 0..60 {
        store.admit(&offer(number, &manifest, &[]), key().public().to_peer_id(), NOW).unwrap();
        let next = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                loop {
                    match Store::open(folder.path(), Settings::default()) {
                        Err(OpenError::InUse) => std::hint::spin_loop(),
                        opened => return opened,
                    }
                }
            });
            drop(store);
            waiting.join().unwrap()
        });
        store = next.unwrap();
        assert_eq!(store.all_incoming().unwrap().len(), usize::from(number) + 1);
    }
}
