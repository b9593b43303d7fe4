//! bad_input_31: the disk is full at any write, and fails at any access; the store goes on, and promises nothing that
//! it does not hold.

use super::*;
use crate::disk::simulated::Fault;

/// Runs a delivery with a fault at `step`, again until it comes through, then cuts the power: what was receipted is
/// there. Gives whether the fault was met.
fn fault_at(step: u64, fault: Fault) -> bool {
    let (manifest, blob) = (Source::new(1, 300), Source::new(2, 5 * GROUP_LEN as usize + 11));
    let small = Source::new(3, 5_000);
    let (key, offer) = (key(), offer(1, &manifest, &[&blob, &small]));
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let before = disk.steps();
    disk.plan(step, fault);
    let mut errors = Vec::new();
    while let Err(error) = deliver(&store, &key, &offer, &[&manifest, &blob, &small]) {
        errors.push(error.to_string());
        assert!(errors.len() < 40, "step {step} {fault:?}: {errors:?}");
    }
    let met = disk.steps() - before > step;
    drop(store);
    let after = open(&disk.reboot(|| 0));
    let known = after.incoming(offer.delivery).unwrap().expect("the delivery is on record");
    assert!(known.receipt().is_some(), "step {step} {fault:?}: the receipt was lost; {errors:?}");
    assert_eq!(read_all(&after, blob.id()), blob.bytes, "step {step} {fault:?}");
    assert_eq!(read_all(&after, manifest.id()), manifest.bytes);
    assert_eq!(read_all(&after, small.id()), small.bytes);
    met
}

#[test]
fn bad_input_31_eio_at_every_access() {
    let mut step = 0;
    while fault_at(step, Fault::Eio) {
        step += 1;
    }
    assert!(step > 50);
}

#[test]
fn bad_input_31_enospc_at_every_write() {
    for steps in [1, 7] {
        let mut step = 0;
        while fault_at(step, Fault::Full(steps)) {
            step += 1;
        }
        assert!(step > 50);
    }
}

#[test]
fn bad_input_31_a_full_disk_is_told_from_a_broken_one() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let source = Source::new(2, 5 * GROUP_LEN as usize);
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW).unwrap() else {
        panic!("not held")
    };
    disk.plan(0, Fault::Full(1));
    assert!(matches!(partial.write_data(0, &source.bytes[..GROUP_LEN as usize]), Err(StoreError::Full)));
    disk.plan(0, Fault::Full(1_000));
    let error = store.next_number("sequence", 1).unwrap_err();
    assert!(error.is_full(), "{error}");
    disk.plan(0, Fault::Full(0));
    assert_eq!(store.next_number("sequence", 1).unwrap(), 1, "it goes on once there is room");
}

#[test]
fn a_sync_that_failed_is_never_retried_into_success() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let source = Source::new(2, 3 * GROUP_LEN as usize);
    store.admit(&offer(1, &Source::new(1, 10), &[&source]), PeerId::random(), NOW).unwrap();
    let Wanted::Partial(partial) = store.want(source.id(), source.size(), NOW).unwrap() else {
        panic!("not held")
    };
    source.feed(&partial, 9).unwrap();
    disk.plan(0, Fault::Eio);
    assert!(matches!(partial.checkpoint(), Err(StoreError::SyncFailed { .. })));
    assert!(matches!(store.finish(&[partial], NOW), Err(StoreError::Incomplete(_))));
    assert_eq!(pull(&store, &source, 9).unwrap(), 3, "all of it is fetched anew");
}
