//! What every engine must say of copies and of the messages that refer to them (SPEC D8).

use std::collections::BTreeMap;

use lighter_storage::SegmentId;

use super::*;
use crate::CopyKey;

/// A copy of blob `name`, which has one record, at the beginning of segment `segment`, kept until `day`.
pub(crate) fn copy(name: &str, segment: u8, day: u32) -> StoredBlob {
    // As it stands in a record: the segments with their days, and the runs of records (segment, offset, length, count).
    let location = (vec![(SegmentId([segment; 16]), Day(day))], vec![(0_u16, 4096_u64, 1_184_u32, 1_u32)]);
    let location = postcard::from_bytes(&postcard::to_stdvec(&location).unwrap()).unwrap();
    StoredBlob { location, ..blob(name, 1_000) }
}

/// [`message`] with these parts, for Alice, who has a store.
pub(crate) fn with_parts(number: u8, parts: &[StoredBlob]) -> Message {
    let part = |blob: &StoredBlob| Part {
        blob: blob.clone(),
        name: "a.pdf".into(),
        media_type: "application/pdf".into(),
    };
    Message { parts: parts.iter().map(part).collect(), ..message(number, vec![stub("alice", number)]) }
}

fn bring(catalog: &dyn Catalog, sequence: u64, number: u8, parts: &[StoredBlob]) {
    apply(catalog, sequence, &[Change::Accepted(Box::new(with_parts(number, parts)))]);
}

fn let_go(catalog: &dyn Catalog, sequence: u64, number: u8) {
    let done = [
        handed_over(number, &[HandOver::first(0)]),
        receipted(number, "alice"),
        Change::Released { delivery: delivery(number) },
    ];
    apply(catalog, sequence, &done);
}

fn found(catalog: &dyn Catalog, name: &str, until: u32) -> Vec<StoredBlob> {
    catalog.copies_of(&BlobId::of(name.as_bytes()), Day(until), 10).unwrap()
}

fn totals(catalog: &dyn Catalog) -> (u64, u64, u64, u64) {
    let Counts { references, references_bytes, copies, copies_bytes, .. } = catalog.counts().unwrap();
    (references, references_bytes, copies, copies_bytes)
}

/// What must be there, made from the messages alone.
pub(super) fn expected(catalog: &dyn Catalog) -> BTreeMap<CopyKey, (StoredBlob, u64)> {
    let mut expected = BTreeMap::new();
    for (message, refers) in catalog.messages(None, 1_000).unwrap() {
        for part in message.parts.into_iter().filter(|_| refers) {
            expected.entry(CopyKey::of(&part.blob)).or_insert((part.blob, 0)).1 += 1;
        }
    }
    expected
}

// SPEC: D8
pub(super) fn a_copy_is_found_until_the_last_message_has_given_it_up(catalog: &dyn Catalog) {
    let plans = copy("plans", 1, 37);
    for number in 1..=3 {
        bring(catalog, number.into(), number, std::slice::from_ref(&plans));
    }
    assert_eq!(totals(catalog), (3, 3_000, 1, 1_000));
    assert_eq!(found(catalog, "plans", 37), std::slice::from_ref(&plans));
    assert_eq!(found(catalog, "plans", 38), [], "gone before");
    assert_eq!(found(catalog, "others", 0), []);
    let_go(catalog, 10, 1);
    let_go(catalog, 20, 2);
    assert_eq!(catalog.copies(None, 10).unwrap(), [KeptCopy { blob: plans.clone(), references: 1 }]);
    assert_eq!(found(catalog, "plans", 37), [plans]);
    let_go(catalog, 30, 3);
    assert_eq!(found(catalog, "plans", 0), []);
    assert_eq!(totals(catalog), (0, 0, 0, 0));
    let refers: Vec<_> = catalog.messages(None, 10).unwrap().into_iter().map(|(_, refers)| refers).collect();
    assert_eq!(refers, [false; 3], "known to the end of their time, and in need of nothing");
}

pub(super) fn a_message_that_waits_for_anything_refers_to_its_blobs(catalog: &dyn Catalog) {
    bring(catalog, 1, 1, &[copy("plans", 1, 37)]);
    apply(catalog, 2, &[receipted(1, "alice"), Change::Released { delivery: delivery(1) }]);
    assert_eq!(totals(catalog).0, 1, "the stub is not handed over yet, and is made from them");
    apply(catalog, 4, &[handed_over(1, &[HandOver::first(0)])]);
    assert_eq!(totals(catalog).0, 0);
    // Refused by the next hop, and pulled all the same: let go of with its time, like one that lapsed.
    bring(catalog, 5, 2, &[copy("plans", 1, 37)]);
    let failed =
        Change::HandOverFailed { message: MessageId([2; 16]), hand_overs: vec![HandOver::first(0)], at: NOW };
    apply(catalog, 6, &[failed]);
    assert_eq!(catalog.delivery(&delivery(2)).unwrap().unwrap().state, DeliveryState::Withdrawn);
    assert_eq!(totals(catalog).0, 1);
    assert_eq!(catalog.purge(NOW.day().plus(38), 10).unwrap().count, 2);
    assert_eq!(totals(catalog), (0, 0, 0, 0));
}

pub(super) fn copies_come_in_order_each_once_those_that_go_first_first(catalog: &dyn Catalog) {
    let (week, year) = (copy("plans", 9, 14), copy("plans", 1, 372));
    let again = copy("plans", 2, 14);
    for (number, blob) in [(1, &year), (2, &week), (3, &week), (4, &again), (5, &year), (6, &year)] {
        bring(catalog, number.into(), number, std::slice::from_ref(blob));
    }
    assert_eq!(found(catalog, "plans", 0), [again.clone(), week.clone(), year.clone()]);
    assert_eq!(found(catalog, "plans", 15), std::slice::from_ref(&year));
    assert_eq!(catalog.copies_of(&BlobId::of(b"plans"), Day(0), 1).unwrap(), std::slice::from_ref(&again));
    let mut all: Vec<KeptCopy> = Vec::new();
    loop {
        let after = all.last().map(|copy| CopyKey::of(&copy.blob));
        let page = catalog.copies(after.as_ref(), 2).unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    let all: Vec<_> = all.into_iter().map(|copy| (copy.blob, copy.references)).collect();
    assert_eq!(all, [(again, 1), (week, 2), (year, 3)]);
}

pub(super) fn the_same_attachment_twice_in_a_message_counts_twice(catalog: &dyn Catalog) {
    let (plans, photo) = (copy("plans", 1, 37), copy("photo", 2, 37));
    bring(catalog, 1, 1, &[plans.clone(), photo, plans]);
    assert_eq!(totals(catalog), (3, 3_000, 2, 2_000));
    apply(catalog, 2, &[Change::Voided(MessageId([1; 16]))]);
    assert_eq!(totals(catalog), (0, 0, 0, 0));
    assert_eq!(catalog.copies(None, 10).unwrap(), []);
}

pub(super) fn a_message_that_names_what_another_brought_stands_alone(catalog: &dyn Catalog) {
    let plans = copy("plans", 1, 37);
    bring(catalog, 1, 1, std::slice::from_ref(&plans));
    bring(catalog, 2, 2, std::slice::from_ref(&plans));
    apply(catalog, 3, &[Change::Voided(MessageId([1; 16]))]);
    assert_eq!(catalog.message(&MessageId([2; 16])).unwrap().unwrap().parts[0].blob, plans);
    assert_eq!(found(catalog, "plans", 37), [plans]);
}
