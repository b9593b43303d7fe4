//! Small blobs, which share files.

use super::*;
use crate::disk::simulated::Fault;
use crate::packs;

fn small(count: u8) -> Vec<Source> {
    (1..=count).map(|seed| Source::new(seed, 37 * usize::from(seed) + 1)).collect()
}

fn keep(store: &Store, sources: &[&Source]) -> Result<bool, StoreError> {
    let blobs: Vec<_> = sources.iter().map(|source| (source.id(), &source.bytes)).collect();
    store.keep(&blobs)
}

fn packs(disk: &SimulatedDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("packs/")).collect()
}

/// A delivery of these, under way.
fn admit(store: &Store, number: u8, sources: &[&Source]) -> DeliveryId {
    let offer = offer(number, sources[0], &sources[1..]);
    assert!(matches!(store.admit(&offer, PeerId::random(), NOW), Ok(Admission::New(_))));
    offer.delivery
}

// SPEC: D3
#[test]
fn small_blobs_share_a_file_and_are_there_once_they_are_sealed() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let sources = [Source::new(1, 1), Source::new(2, 5_000), Source::new(3, GROUP_LEN as usize)];
    let delivery = admit(&store, 1, &sources.each_ref());
    assert_eq!(store.0.index.format().unwrap(), 1, "older versions can read it");
    // One of them twice, in one go and after it.
    keep(&store, &[&sources[0], &sources[1], &sources[0]]).unwrap();
    keep(&store, &[&sources[1], &sources[2]]).unwrap();
    assert!(!store.holds(sources[0].id()).unwrap(), "not durable");
    assert_eq!(store.len_here(sources[1].id(), 5_000).unwrap(), 5_000);
    assert!(store.durable(delivery).unwrap().is_none());
    store.seal(NOW).unwrap();
    assert_eq!(packs(&disk).len(), 1);
    assert_eq!(store.0.index.format().unwrap(), 2, "older versions would miss what is here");
    assert!(store.durable(delivery).unwrap().is_some());
    drop(store);
    let store = open(&disk.reboot(|| 0));
    for source in &sources {
        assert_eq!(read_all(&store, source.id()), source.bytes);
        assert!(store.recheck(source.id()).unwrap());
    }
}

// SPEC: A6
#[test]
fn small_blobs_are_read_together_wherever_they_lie_and_all_or_none() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let (packed, other, alone) =
        (Source::new(1, 1), Source::new(2, 5_000), Source::new(3, GROUP_LEN as usize));
    let large = Source::new(4, GROUP_LEN as usize + 1);
    // Two packs, a file of its own, and one that is not small.
    admit(&store, 1, &[&packed, &other, &large]);
    for source in [&packed, &other] {
        keep(&store, &[source]).unwrap();
        store.seal(NOW).unwrap();
    }
    let hold = store.hold();
    for source in [&alone, &large] {
        let mut import = store.import().unwrap();
        import.write_all(&source.bytes).unwrap();
        import.finish(&hold, NOW).unwrap();
    }
    assert_eq!(packs(&disk).len(), 2);
    let ids = [&other, &alone, &packed, &other].map(|source| source.id());
    let read = store.read_small(&ids).unwrap();
    assert_eq!(read, [&other, &alone, &packed, &other].map(|source| &source.bytes[..]));
    for lacking in [large.id(), BlobId::of(b"never seen")] {
        let read = store.read_small(&[packed.id(), lacking, other.id()]);
        assert!(matches!(read, Err(StoreError::NoBlob(blob)) if blob == lacking), "{read:?}");
    }
}

#[test]
fn bad_input_35_what_is_not_small_or_not_what_its_id_says_is_not_kept() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let well = Source::new(1, 10);
    let large = Source::new(2, GROUP_LEN as usize + 1);
    for (id, bytes) in [(well.id(), &b"another"[..]), (large.id(), &large.bytes), (blob::empty_id(), b"")] {
        let kept = store.keep(&[(well.id(), &well.bytes[..]), (id, bytes)]);
        assert!(matches!(kept, Err(StoreError::OutOfPlace(blob)) if blob == id));
        assert_eq!(store.len_here(well.id(), 10).unwrap(), 0, "none of them");
    }
    assert_eq!(disk.names(), ["index.redb"]);
}

// SPEC: D3
#[test]
fn after_a_kill_no_small_blob_is_fetched_again_and_after_a_power_failure_none_is_missed() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let sources = small(9);
    let sources: Vec<_> = sources.iter().collect();
    admit(&store, 1, &sources);
    keep(&store, &sources[..4]).unwrap();
    store.seal(NOW).unwrap();
    keep(&store, &sources[4..]).unwrap();
    drop(store);
    let powerless = disk.reboot(|| 0);
    let killed = open(&disk.restart());
    for source in &sources {
        assert_eq!(killed.here(source.id(), source.size(), NOW).unwrap(), Here::Whole);
        assert_eq!(read_all(&killed, source.id()), source.bytes);
    }
    let store = open(&powerless);
    let held = sources.iter().filter(|source| store.holds(source.id()).unwrap()).count();
    assert_eq!((held, packs(&powerless).len()), (4, 1), "what was sealed");
    keep(&store, &sources[4..]).unwrap();
    store.seal(NOW).unwrap();
    assert_eq!(packs(&powerless).len(), 2, "a number is not given twice");
    for source in &sources {
        assert_eq!(read_all(&store, source.id()), source.bytes);
    }
}

// SPEC: D8
#[test]
fn what_others_in_its_file_still_need_stays_and_the_file_goes_with_the_last() {
    for seed in 1..40_u64 {
        let mut state = seed;
        let mut chance = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let disk = SimulatedDisk::default();
        let mut store = open(&disk);
        let sources = small(12);
        let mut deliveries = Vec::new();
        for number in 1..=6 {
            let parts: Vec<_> = (0..1 + chance(5)).map(|_| &sources[chance(12)]).collect();
            deliver(&store, &key(), &offer(number, parts[0], &parts[1..]), &parts).unwrap();
            deliveries.push((DeliveryId([number; 16]), parts));
        }
        while !deliveries.is_empty() {
            let (delivery, _) = deliveries.swap_remove(chance(deliveries.len()));
            store.remove(delivery).unwrap();
            if chance(3) == 0 {
                drop(store);
                store = open(&disk);
            }
            for source in deliveries.iter().flat_map(|(_, parts)| parts) {
                assert_eq!(read_all(&store, source.id()), source.bytes, "seed {seed}");
            }
        }
        assert_eq!(disk.names(), ["index.redb"], "seed {seed}");
    }
}

// Rule 1.
#[test]
fn a_pack_whose_sync_failed_is_given_up_and_one_that_the_index_did_not_take_is_not() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let sources = small(3);
    let sources: Vec<_> = sources.iter().collect();
    admit(&store, 1, &sources);
    keep(&store, &sources).unwrap();
    disk.plan(0, Fault::Eio);
    assert!(matches!(store.seal(NOW), Err(StoreError::SyncFailed { .. })));
    assert_eq!(packs(&disk), [""; 0]);
    store.seal(NOW).unwrap();
    assert!(!store.holds(sources[0].id()).unwrap(), "a second sync would lie");
    assert_eq!(store.here(sources[0].id(), sources[0].size(), NOW).unwrap(), Here::Part(RangeSet::new()));
    keep(&store, &sources).unwrap();
    // The two syncs go well.
    disk.plan(2, Fault::Full(1_000));
    assert!(store.seal(NOW).unwrap_err().is_full());
    assert!(store.want(sources[0].id(), sources[0].size(), NOW).is_err(), "still not there");
    disk.plan(0, Fault::Full(0));
    for source in &sources {
        assert_eq!(store.here(source.id(), source.size(), NOW).unwrap(), Here::Whole);
        assert_eq!(read_all(&store, source.id()), source.bytes);
    }
    assert_eq!(packs(&disk).len(), 1);
}

// SPEC: D3
#[test]
fn bad_input_34_what_was_let_go_of_before_it_was_sealed_was_not_brought_by_the_next_one() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let sources = small(4);
    let [m1, m2, secret, other] = &sources[..] else { unreachable!() };
    let first = admit(&store, 1, &[m1, secret]);
    keep(&store, &[m1, secret]).unwrap();
    store.remove(first).unwrap();
    let second = admit(&store, 2, &[m2, secret, other]);
    assert!(store.is_brought(second, secret.id()).unwrap());
    let here = store.here(secret.id(), secret.size(), NOW).unwrap();
    assert_eq!(here, Here::Part(RangeSet::new()), "whose sender has to have it");
    assert_eq!(packs(&disk), [""; 0]);
    // Where the first one still wants it, it is the first one's.
    keep(&store, &[m2, secret]).unwrap();
    let third = admit(&store, 3, &[m1, secret]);
    assert!(!store.is_brought(third, secret.id()).unwrap());
    assert!(store.holds(secret.id()).unwrap());
}

// SPEC: D4
#[test]
fn a_small_blob_that_rotted_is_set_aside_and_the_others_of_its_file_stay() {
    let (disk, key) = (SimulatedDisk::default(), key());
    let store = open(&disk);
    let sources = small(3);
    let sources: Vec<_> = sources.iter().collect();
    deliver(&store, &key, &offer(1, sources[0], &sources[1..]), &sources).unwrap();
    let place = store.0.index.blob(sources[1].id()).unwrap().unwrap().1.unwrap();
    disk.rot(&packs(&disk)[0], usize::try_from(place.offset).unwrap() + 3);
    assert!(!store.recheck(sources[1].id()).unwrap());
    assert!(!store.holds(sources[1].id()).unwrap());
    assert!(disk.names().contains(&Pair::damaged(sources[1].id()).data), "set aside, not thrown away");
    assert_eq!(take(&store, sources[1]).unwrap(), 1);
    store.seal(NOW).unwrap();
    for source in sources {
        assert_eq!(read_all(&store, source.id()), source.bytes);
    }
}

#[test]
fn a_small_blob_that_the_user_puts_here_as_well_leaves_its_pack() {
    let (disk, key) = (SimulatedDisk::default(), key());
    let store = open(&disk);
    let sources = small(2);
    let sources: Vec<_> = sources.iter().collect();
    deliver(&store, &key, &offer(1, sources[0], &sources[1..]), &sources).unwrap();
    let hold = store.hold();
    for source in &sources {
        let mut import = store.import().unwrap();
        import.write_all(&source.bytes).unwrap();
        import.finish(&hold, NOW).unwrap();
        assert_eq!(read_all(&store, source.id()), source.bytes);
    }
    assert_eq!(packs(&disk), [""; 0]);
    drop(hold);
    assert_eq!(read_all(&store, sources[1].id()), sources[1].bytes);
    store.remove(DeliveryId([1; 16])).unwrap();
    assert_eq!(disk.names(), ["index.redb"]);
}

#[test]
fn bad_input_38_small_blobs_that_many_bring_and_seal_at_once_are_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Settings::default()).unwrap();
    let sources: Vec<_> = (0..64).map(|seed| Source::new(seed, 900)).collect();
    let sources: Vec<_> = sources.iter().collect();
    admit(&store, 1, &sources);
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (store, sources) = (&store, &sources);
            scope.spawn(move || {
                for index in 0..sources.len() {
                    let source = sources[(index + turn * 8) % sources.len()];
                    keep(store, &[source]).unwrap();
                    let wanted = store.want(source.id(), source.size(), NOW).unwrap();
                    assert!(matches!(wanted, Wanted::Held));
                }
            });
        }
    });
    for source in &sources {
        assert_eq!(read_all(&store, source.id()), source.bytes);
    }
    store.remove(DeliveryId([1; 16])).unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("packs")).unwrap().count(), 0);
}

#[test]
fn bad_input_31_a_pack_that_is_cut_off_or_damaged_gives_what_proves_true_and_no_more() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let sources = small(5);
    let sources: Vec<_> = sources.iter().collect();
    keep(&store, &sources).unwrap();
    let file = disk.open(&packs(&disk)[0], false).unwrap();
    let len = file.len().unwrap();
    let mut whole = vec![0; usize::try_from(len).unwrap()];
    file.read_at(&mut whole, 0).unwrap();
    let read = |bytes: &[u8]| {
        let copy = disk.open("packs/copy", true).unwrap();
        copy.set_len(0).unwrap();
        copy.write_at(bytes, 0).unwrap();
        packs::read(&*copy).unwrap()
    };
    assert_eq!(read(&whole).len(), 5);
    let ends: Vec<_> = read(&whole).iter().map(|packed| packed.offset + packed.size).collect();
    for at in 0..whole.len() {
        let before = ends.iter().filter(|end| **end <= at as u64).count();
        assert_eq!(read(&whole[..at]).len(), before, "cut off at {at}");
        let mut rotten = whole.clone();
        rotten[at] ^= 0x40;
        assert_eq!(read(&rotten).len(), before, "rotten at {at}");
    }
}

#[test]
fn the_space_of_what_is_let_go_of_comes_back() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Settings::default()).unwrap();
    let sources: Vec<_> = (0..32).map(|seed| Source::new(seed, GROUP_LEN as usize)).collect();
    let sources: Vec<_> = sources.iter().collect();
    let (stay, go) = sources.split_at(1);
    deliver(&store, &key(), &offer(1, stay[0], &[]), stay).unwrap();
    store.remove(DeliveryId([1; 16])).unwrap();
    admit(&store, 2, stay);
    admit(&store, 3, go);
    keep(&store, &sources).unwrap();
    store.seal(NOW).unwrap();
    let pack = std::fs::read_dir(folder.path().join("packs")).unwrap().next().unwrap().unwrap().path();
    let taken = || std::fs::metadata(&pack).unwrap().blocks() * 512;
    let before = taken();
    store.remove(DeliveryId([3; 16])).unwrap();
    // A block at the edge of each stays. Where the file system has no holes, this says nothing.
    assert!(taken() <= before / 3 || taken() == before, "{before} {}", taken());
    assert_eq!(read_all(&store, stay[0].id()), stay[0].bytes);
}
