//! Who else has what is being pulled: on record as long as it is of use, and no longer.

use lighter_protocol::limits::{CLOCK_GRACE, SHARINGS_MAX};
use lighter_protocol::{DeliveryId, Keypair, PeerId, Sharing, Signed};

use super::*;
use crate::limits::SHARINGS_KEPT_MAX;

fn sharing(giver: u8, expires: UnixTime) -> Signed<Sharing> {
    let of = |seed| Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    let sharing = Sharing {
        delivery: DeliveryId([giver; 16]),
        giver: format!("giver{giver}@example.org").parse().unwrap(),
        giver_store: of(giver).public().to_peer_id(),
        taker: "alice@example.org".parse().unwrap(),
        taker_store: of(200).public().to_peer_id(),
        expires,
    };
    Signed::sign(&sharing, &of(201)).unwrap()
}

fn later(seconds: u64) -> UnixTime {
    NOW.plus(Duration::from_secs(seconds))
}

/// A store with deliveries 1 and 2 under way, of one blob each.
fn begun(disk: &SimulatedDisk) -> (Store, [(Source, Source); 2]) {
    let store = open(disk);
    let parts = [(Source::new(1, 100), Source::new(2, 40_000)), (Source::new(3, 100), Source::new(4, 9_000))];
    for (number, (manifest, blob)) in (1..).zip(&parts) {
        store.admit(&offer(number, manifest, &[blob]), PeerId::random(), NOW).unwrap();
    }
    (store, parts)
}

// SPEC: D3, D4
#[test]
fn what_a_sender_said_of_others_survives_a_crash_and_goes_with_the_receipt() {
    let disk = SimulatedDisk::default();
    let (store, [(manifest, blob), _]) = begun(&disk);
    let (one, other) = (DeliveryId([1; 16]), DeliveryId([2; 16]));
    let told = [sharing(5, later(60)), sharing(6, later(60))];
    assert_eq!(store.put_sharings(one, &told).unwrap(), 2);
    assert_eq!(store.put_sharings(other, &told[..1]).unwrap(), 1);
    drop(store);
    let store = open(&disk.reboot(|| 0));
    let mut kept = store.sharings(one).unwrap();
    kept.sort_by_key(|signed| signed.claim().unwrap().delivery);
    assert_eq!(kept, told);
    assert_eq!(store.shared_deliveries().unwrap(), [one, other]);
    deliver(&store, &key(), &offer(1, &manifest, &[&blob]), &[&manifest, &blob]).unwrap();
    assert_eq!(store.sharings(one).unwrap(), [], "receipted, nobody is asked any more");
    assert_eq!(store.sharings(other).unwrap(), told[..1], "and the other one's stay");
    store.remove(other).unwrap();
    assert_eq!(store.shared_deliveries().unwrap(), []);
    for over in [one, other, DeliveryId([9; 16])] {
        assert_eq!(store.put_sharings(over, &told).unwrap(), 0, "nothing is pulled under that number");
    }
    assert_eq!(store.shared_deliveries().unwrap(), []);
}

// SPEC: D3
#[test]
fn of_each_giver_there_is_one_statement_the_one_that_is_good_for_longest() {
    let (store, _) = begun(&SimulatedDisk::default());
    let delivery = DeliveryId([1; 16]);
    for (told, put) in [(60, 1), (60, 0), (30, 0), (90, 1)] {
        assert_eq!(store.put_sharings(delivery, &[sharing(5, later(told))]).unwrap(), put, "{told}");
    }
    assert_eq!(store.sharings(delivery).unwrap(), [sharing(5, later(90))]);
}

// SPEC: D3
#[test]
fn a_statement_that_has_expired_goes_by_itself() {
    let (store, _) = begun(&SimulatedDisk::default());
    let delivery = DeliveryId([1; 16]);
    store.put_sharings(delivery, &[sharing(5, later(60)), sharing(6, later(90))]).unwrap();
    let over = later(60).plus(CLOCK_GRACE);
    store.expire(UnixTime(over.0 - 1)).unwrap();
    assert_eq!(store.sharings(delivery).unwrap().len(), 2, "clocks may differ");
    store.expire(over).unwrap();
    assert_eq!(store.sharings(delivery).unwrap(), [sharing(6, later(90))]);
}

#[test]
fn bad_input_35_however_much_a_sender_says_so_much_of_a_delivery_is_kept() {
    let (store, _) = begun(&SimulatedDisk::default());
    let delivery = DeliveryId([1; 16]);
    let many: Vec<_> = (10..60).map(|giver| sharing(giver, later(60))).collect();
    assert_eq!(store.put_sharings(delivery, &many).unwrap(), SHARINGS_MAX);
    assert_eq!(store.put_sharings(delivery, &many).unwrap(), 0);
    let known = store.sharings(delivery).unwrap()[0].claim().unwrap().delivery.0[0];
    assert_eq!(store.put_sharings(delivery, &[sharing(known, later(90))]).unwrap(), 1, "who is known counts");
    assert_eq!(store.sharings(delivery).unwrap().len(), SHARINGS_MAX);
}

// SPEC: D3
#[test]
fn bad_input_35_however_many_deliveries_senders_speak_of_so_much_of_all_is_kept() {
    let store = open(&SimulatedDisk::default());
    let (manifest, blob) = (Source::new(1, 100), Source::new(2, 40_000));
    let numbered = |number: u64| DeliveryId([number.to_be_bytes(), [7; 8]].concat().try_into().unwrap());
    let offered = |number| Offer { delivery: numbered(number), ..offer(0, &manifest, &[&blob]) };
    let told: Vec<_> = (10..).take(SHARINGS_MAX).map(|giver| sharing(giver, later(60))).collect();
    let full = SHARINGS_KEPT_MAX / SHARINGS_MAX as u64;
    for number in 0..=full + 1 {
        store.admit(&offered(number), PeerId::random(), NOW).unwrap();
    }
    for number in 0..full {
        assert_eq!(store.put_sharings(numbered(number), &told).unwrap(), SHARINGS_MAX, "{number}");
    }
    assert_eq!(store.put_sharings(numbered(full), &told).unwrap(), 0, "beyond, nothing is kept");
    let longer = [sharing(10, later(90))];
    assert_eq!(store.put_sharings(numbered(0), &longer).unwrap(), 1, "what is there is replaced");
    assert_eq!(store.shared_deliveries().unwrap().len() as u64, full);
    // What is over makes room, and no more of it than there was.
    store.remove(numbered(1)).unwrap();
    assert_eq!(store.put_sharings(numbered(full), &told).unwrap(), SHARINGS_MAX);
    assert_eq!(store.put_sharings(numbered(full + 1), &told).unwrap(), 0);
}
