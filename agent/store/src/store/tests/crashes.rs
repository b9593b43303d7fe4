//! bad_input_32: the power fails, or the process is killed, between any two accesses of the disk.

use super::*;
use crate::disk::simulated::Fault;

/// A small generator (xorshift64*): what a crash keeps is drawn from the seed.
fn chance(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
}

/// The manifest, two large ones, two small ones.
fn sources() -> [Source; 5] {
    let group = GROUP_LEN as usize;
    [(1, 300), (2, 7 * group + 11), (3, 2 * group), (4, group), (5, 1)]
        .map(|(seed, len)| Source::new(seed, len))
}

/// What is on record of a partial blob proves true. Where the outboard went ahead to its final place it proves nothing
/// until it is taken back, which happens when the blob is wanted.
fn check_recorded(store: &Store, disk: &SimulatedDisk, part: &Source) {
    let recorded = store.0.index.partial(part.id(), part.size()).unwrap();
    let names = Pair::partial(part.id(), part.size());
    let outboard = disk.open(&names.tree, false).ok();
    if recorded.is_empty() || (outboard.is_none() && tree::outboard_len(part.size()) > 0) {
        return;
    }
    let Ok(data) = disk.open(&names.data, false) else { return };
    let files = tree::Files { data: &*data, outboard: outboard.as_deref() };
    assert_eq!(
        tree::verified(files, part.id(), part.size(), &recorded).unwrap(),
        recorded,
        "on record, not durable"
    );
}

/// Runs a delivery until `step`, crashes, and checks what the next start finds; then the delivery must come through.
fn crash_at(step: u64, power: bool, seed: u64) -> bool {
    let sources = sources();
    let parts = sources.each_ref();
    let (key, offer) = (key(), offer(1, parts[0], &parts[1..]));
    let disk = SimulatedDisk::default();
    drop(open(&disk));
    disk.plan(step, Fault::PowerLoss);
    let store = Store::open_on(Arc::new(disk.clone()), Settings::default());
    let came_through = store.is_ok_and(|store| deliver(&store, &key, &offer, &parts).is_ok());

    let disk = if power { disk.reboot(chance(seed)) } else { disk.restart() };
    let store = open(&disk);
    let receipted = store.incoming(offer.delivery).unwrap().is_some_and(|known| known.receipt().is_some());
    assert!(receipted || !came_through, "step {step} seed {seed}: a receipt was lost");
    for part in parts {
        assert!(
            !receipted || store.recheck(part.id()).unwrap(),
            "step {step} seed {seed}: receipted and not there"
        );
        check_recorded(&store, &disk, part);
        if store.holds(part.id()).unwrap() {
            assert_eq!(
                read_all(&store, part.id()),
                part.bytes,
                "step {step} seed {seed}: on record, not durable"
            );
        }
    }
    deliver(&store, &key, &offer, &parts).unwrap();
    for part in parts {
        assert_eq!(read_all(&store, part.id()), part.bytes);
    }
    let names = disk.names();
    let strays = names.iter().filter(|name| name.starts_with("partial/")).count();
    assert_eq!(strays, 0, "step {step} seed {seed}");
    let packs = names.iter().filter_map(|name| layout::pack_from_name(name.strip_prefix("packs/")?));
    assert!(packs.eq(store.0.index.packs().unwrap()), "step {step} seed {seed}: {names:?}");
    came_through
}

fn crash_everywhere(power: bool, seeds: Range<u64>) {
    for seed in seeds {
        let mut step = 0;
        while !crash_at(step, power, seed * 1_000_003 + step) {
            step += 1;
        }
        assert!(step > 50, "a delivery is more than {step} accesses");
    }
}

#[test]
fn bad_input_32_the_power_fails_between_any_two_steps() {
    crash_everywhere(true, 0..2);
}

#[test]
fn bad_input_32_the_process_is_killed_between_any_two_steps() {
    crash_everywhere(false, 0..1);
}

// SPEC: D3
#[test]
fn after_a_kill_nothing_is_fetched_again_that_is_on_disk() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let source = Source::new(2, 40 * GROUP_LEN as usize + 11);
    store.admit(&offer(1, &Source::new(1, 10), &[&source]), PeerId::random(), NOW).unwrap();
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW).unwrap() else {
        panic!("not held")
    };
    source.feed(&partial, 10).unwrap();
    partial.checkpoint().unwrap();
    source.feed(&partial, 7).unwrap();
    drop((partial, store));

    let powerless = disk.reboot(|| 0);
    let killed = open(&disk.restart());
    assert_eq!(pull(&killed, &source, 100).unwrap(), 41 - 17, "also what no checkpoint had recorded");

    let powerless = open(&powerless);
    assert_eq!(pull(&powerless, &source, 100).unwrap(), 41 - 10, "what was recorded is there");
    assert_eq!(read_all(&powerless, source.id()), source.bytes);
}

// SPEC: D3
#[test]
fn what_is_on_record_and_rotted_is_found_before_the_blob_gets_its_place() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let source = Source::new(2, 9 * GROUP_LEN as usize);
    store.admit(&offer(1, &Source::new(1, 10), &[&source]), PeerId::random(), NOW).unwrap();
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW).unwrap() else {
        panic!("not held")
    };
    source.feed(&partial, 5).unwrap();
    partial.checkpoint().unwrap();
    drop((partial, store));
    let disk = disk.restart();
    disk.rot(&Pair::partial(source.id(), source.size()).data, 3 * GROUP_LEN as usize + 1);
    let store = open(&disk);
    assert!(matches!(pull(&store, &source, 100), Err(StoreError::Incomplete(_))));
    assert_eq!(pull(&store, &source, 100).unwrap(), 1, "only the damaged group is fetched again");
    assert_eq!(read_all(&store, source.id()), source.bytes);
}
