//! What every engine of the catalog must do: one suite, run for each (see the end).

use std::collections::BTreeSet;

use lighter_message::Totals;
use lighter_message::line_end::LineEnds;
use lighter_protocol::{
    BlobId, Day, DeliveryId, Keypair, Mailbox, MessageId, Receipt, Signed, TicketHash, TicketKey, UnixTime,
};
use lighter_storage::{BlobLocation, Class, Sequence, StoredBlob};
use proptest::prelude::*;

use crate::limits::{GRACE_DAYS, NOTICE_DAYS_BEFORE, WHOLE_DAYS_BEFORE};
use crate::*;

mod leases;
pub(crate) mod references;

use leases::*;
use references::*;

/// A time in the middle of a day.
pub(crate) const NOW: UnixTime = UnixTime(20_000 * 86_400 + 43_200);

pub(crate) fn mailbox(name: &str) -> Mailbox {
    format!("{name}@example.org").parse().unwrap()
}

pub(crate) fn delivery(number: u8) -> DeliveryId {
    DeliveryId([number; 16])
}

pub(crate) fn ticket(number: u8, generation: u32) -> TicketHash {
    TicketKey::derive(&[7; 32]).ticket(&delivery(number), generation).hash()
}

pub(crate) fn stub(name: &str, number: u8) -> Recipient {
    Recipient {
        address: format!("<{name}@Example.ORG>"),
        mailbox: Some(mailbox(name)),
        notify: Notify::Default,
        orcpt: None,
        form: Form::Stub { delivery: delivery(number), generation: 0, ticket: ticket(number, 0) },
    }
}

pub(crate) fn whole(name: &str) -> Recipient {
    Recipient { form: Form::Whole, ..stub(name, 0) }
}

/// A message that a sender's agent left here, as delivery `number` for `name`.
pub(crate) fn dropped(number: u8, name: &str) -> Change {
    let form = Form::Drop { delivery: delivery(number), from: key().public().to_peer_id() };
    let sealed = Part { blob: blob("sealed", 1_000), name: String::new(), media_type: String::new() };
    let new = message(number, vec![Recipient { form, ..stub(name, number) }]);
    Change::Accepted(Box::new(Message { parts: vec![sealed], ..new }))
}

pub(crate) fn blob(name: &str, size: u64) -> StoredBlob {
    StoredBlob { id: BlobId::of(name.as_bytes()), size, location: BlobLocation::default() }
}

/// Message `number`, accepted so many seconds after [`NOW`], with one part of 1,000 bytes.
pub(crate) fn message(number: u8, recipients: Vec<Recipient>) -> Message {
    Message {
        id: MessageId([number; 16]),
        accepted: NOW.plus(std::time::Duration::from_secs(u64::from(number))),
        envelope: Envelope { reverse_path: "bob@example.net".into(), ..Envelope::default() },
        original: Totals { length: 2_000, hash: [3; 32], parts: 1, line_ends: LineEnds::CrLf },
        summary: Summary { from: "Bob".into(), subject: "Plans".into() },
        trace: "Received: from a by b; c\r\n".into(),
        manifest: blob("manifest", 500),
        parts: vec![Part {
            blob: blob("part", 1_000),
            name: "a.pdf".into(),
            media_type: "application/pdf".into(),
        }],
        recipients,
        class: Class::Days30,
        expires: NOW.day().plus(30),
        cause: None,
    }
}

pub(crate) fn accepted(number: u8, recipients: Vec<Recipient>) -> Change {
    Change::Accepted(Box::new(message(number, recipients)))
}

pub(crate) fn handed_over(number: u8, hand_overs: &[HandOver]) -> Change {
    Change::HandedOver { message: MessageId([number; 16]), hand_overs: hand_overs.to_vec(), at: NOW }
}

pub(crate) fn key() -> Keypair {
    Keypair::ed25519_from_bytes([7; 32]).unwrap()
}

pub(crate) fn receipted(number: u8, name: &str) -> Change {
    let receipt = Receipt {
        delivery: delivery(number),
        mailbox: mailbox(name),
        store: key().public().to_peer_id(),
        manifest: BlobId::of(b"manifest"),
        time: NOW,
    };
    let receipt = Signed::sign(&receipt, &key()).unwrap();
    Change::Receipted { delivery: delivery(number), receipt, release: UnixTime(NOW.0 + 100) }
}

/// Applies changes as the log's next ones, one at a time, with the sequence numbers from `from` on.
fn apply(catalog: &dyn Catalog, from: u64, changes: &[Change]) {
    for (change, sequence) in changes.iter().zip(from..) {
        catalog.apply(&[(Sequence(sequence), change.clone())], None).unwrap();
    }
}

fn at(sequence: u64) -> Checkpoint {
    Checkpoint { last: Some((Sequence(sequence), Mark::of(b"x"))) }
}

/// Everything that can be asked, as text: two catalogs that say the same are the same.
pub(crate) fn everything(catalog: &dyn Catalog) -> String {
    let far = UnixTime(u64::MAX / 2);
    let mailboxes = catalog.waiting_mailboxes(None, 1_000).unwrap();
    let waiting: Vec<_> = mailboxes.iter().map(|of| catalog.waiting(of, None, 1_000).unwrap()).collect();
    let numbers = 0..=u8::MAX;
    let messages: Vec<_> =
        numbers.clone().filter_map(|n| catalog.message(&MessageId([n; 16])).unwrap()).collect();
    let hand_overs: Vec<_> =
        messages.iter().map(|message| catalog.hand_overs(&message.id).unwrap()).collect();
    let deliveries: Vec<_> =
        numbers.clone().filter_map(|n| catalog.delivery(&delivery(n)).unwrap()).collect();
    let tickets: Vec<_> = numbers
        .flat_map(|n| (0..4).map(move |generation| ticket(n, generation)))
        .filter_map(|ticket| catalog.by_ticket(&ticket).unwrap())
        .collect();
    let receipts: Vec<_> =
        (0..=u8::MAX).filter_map(|n| catalog.receipt_of_drop(&delivery(n)).unwrap()).collect();
    let due = catalog.due(far, 1_000, &BTreeSet::new()).unwrap();
    let deadlines = catalog.deadlines(far, 1_000).unwrap();
    let copies = catalog.copies(None, 1_000).unwrap();
    let counts = catalog.counts().unwrap();
    format!(
        "{waiting:#?}{messages:#?}{hand_overs:#?}{deliveries:#?}{tickets:#?}{receipts:#?}{due:#?}{deadlines:#?}{copies:#?}{counts:#?}"
    )
}

// The suite.

fn an_accepted_message_is_there_with_all_that_follows_from_it(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1), whole("carol")])]);
    let known = catalog.message(&MessageId([1; 16])).unwrap().unwrap();
    assert_eq!(known, message(1, vec![stub("alice", 1), whole("carol")]));
    let row = catalog.delivery(&delivery(1)).unwrap().unwrap();
    assert_eq!((row.state, row.size, row.mailbox.clone()), (DeliveryState::Waiting, 1_000, mailbox("alice")));
    assert_eq!(catalog.waiting(&mailbox("alice"), None, 10).unwrap(), std::slice::from_ref(&row));
    assert_eq!(catalog.waiting(&mailbox("carol"), None, 10).unwrap(), []);
    assert_eq!(catalog.by_ticket(&ticket(1, 0)).unwrap(), Some(row));
    assert_eq!(catalog.by_ticket(&ticket(2, 0)).unwrap(), None);
    let due = catalog.due(UnixTime(NOW.0 + 1), 10, &BTreeSet::new()).unwrap();
    assert_eq!(
        due.iter().map(|due| due.hand_over).collect::<Vec<_>>(),
        [HandOver::first(0), HandOver::first(1)]
    );
    let counts = Counts {
        messages: 1,
        hand_overs: 2,
        waiting: 1,
        waiting_bytes: 1_000,
        references: 1,
        references_bytes: 1_000,
        copies: 1,
        copies_bytes: 1_000,
        ..Counts::default()
    };
    assert_eq!(catalog.counts().unwrap(), counts);
}

fn a_whole_message_is_forgotten_once_the_next_hop_has_it_for_all(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![whole("alice"), whole("carol")])]);
    apply(catalog, 2, &[handed_over(1, &[HandOver::first(0)])]);
    assert!(catalog.message(&MessageId([1; 16])).unwrap().is_some());
    apply(catalog, 3, &[handed_over(1, &[HandOver::first(1)])]);
    assert!(catalog.message(&MessageId([1; 16])).unwrap().is_none());
    assert_eq!(catalog.counts().unwrap(), Counts::default());
    assert_eq!(catalog.next_due(UnixTime(0)).unwrap(), None);
}

// SPEC: D4
fn a_delivery_goes_from_waiting_to_receipted_to_released(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1)]), handed_over(1, &[HandOver::first(0)])]);
    let state = || catalog.delivery(&delivery(1)).unwrap().unwrap().state;
    apply(catalog, 3, &[Change::Released { delivery: delivery(1) }]);
    assert_eq!(state(), DeliveryState::Waiting, "released without a receipt");
    apply(catalog, 4, &[receipted(1, "alice")]);
    let store = key().public().to_peer_id();
    assert_eq!(state(), DeliveryState::Receipted { store, release: UnixTime(NOW.0 + 100) });
    assert_eq!(catalog.waiting(&mailbox("alice"), None, 10).unwrap(), []);
    assert!(catalog.by_ticket(&ticket(1, 0)).unwrap().is_some(), "kept a while after the receipt");
    assert_eq!(catalog.deadlines(UnixTime(NOW.0 + 99), 10).unwrap(), []);
    assert_eq!(catalog.deadlines(UnixTime(NOW.0 + 100), 10).unwrap()[0].1, Deadline::Release);
    apply(catalog, 5, &[Change::Released { delivery: delivery(1) }]);
    assert_eq!(state(), DeliveryState::Released { store });
    assert!(!state().is_readable());
    assert_eq!(catalog.deadlines(UnixTime(u64::MAX), 10).unwrap(), []);
    let counts = Counts { messages: 1, released: 1, ..Counts::default() };
    assert_eq!(catalog.counts().unwrap(), counts);
}

fn what_nobody_fetches_is_told_then_goes_whole(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1)]), handed_over(1, &[HandOver::first(0)])]);
    let expires = NOW.day().plus(30);
    let begin = |days: u32| Day(expires.0 - days - 1).end();
    let due = |at: UnixTime| {
        catalog.deadlines(at, 10).unwrap().into_iter().map(|(_, what)| what).collect::<Vec<_>>()
    };
    assert_eq!(due(UnixTime(begin(NOTICE_DAYS_BEFORE).0 - 1)), []);
    assert_eq!(due(begin(NOTICE_DAYS_BEFORE)), [Deadline::Notice]);
    let notice =
        Message { cause: Some(Cause::Notice { delivery: delivery(1) }), ..message(2, vec![whole("alice")]) };
    apply(catalog, 3, &[Change::Accepted(Box::new(notice)), handed_over(2, &[HandOver::first(0)])]);
    assert_eq!(due(UnixTime(begin(WHOLE_DAYS_BEFORE).0 - 1)), []);
    assert_eq!(due(begin(WHOLE_DAYS_BEFORE)), [Deadline::Expire]);
    apply(catalog, 5, &[Change::Expired { delivery: delivery(1), at: NOW }]);
    let hand_over = catalog.due(NOW, 10, &BTreeSet::new()).unwrap()[0].hand_over;
    assert_eq!(hand_over, HandOver::lapsed(0));
    assert_eq!(due(UnixTime(u64::MAX)), []);
    apply(catalog, 6, &[handed_over(1, &[hand_over])]);
    assert_eq!(catalog.delivery(&delivery(1)).unwrap().unwrap().state, DeliveryState::Lapsed);
    assert_eq!(catalog.waiting_mailboxes(None, 10).unwrap(), []);
}

fn a_receipt_in_the_last_moment_keeps_the_message_from_going_whole(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1)]), handed_over(1, &[HandOver::first(0)])]);
    apply(catalog, 3, &[Change::Expired { delivery: delivery(1), at: NOW }, receipted(1, "alice")]);
    assert_eq!(catalog.due(UnixTime(u64::MAX), 10, &BTreeSet::new()).unwrap(), []);
    assert!(matches!(
        catalog.delivery(&delivery(1)).unwrap().unwrap().state,
        DeliveryState::Receipted { .. }
    ));
}

fn a_refused_whole_message_goes_on_waiting_for_its_store(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1)]), handed_over(1, &[HandOver::first(0)])]);
    let failed = Change::HandOverFailed {
        message: MessageId([1; 16]),
        hand_overs: vec![HandOver::lapsed(0)],
        at: NOW,
    };
    apply(catalog, 3, &[Change::Expired { delivery: delivery(1), at: NOW }, failed]);
    assert_eq!(catalog.waiting(&mailbox("alice"), None, 10).unwrap()[0].state, DeliveryState::LastChance);
    apply(catalog, 5, &[receipted(1, "alice")]);
    assert_eq!(catalog.waiting(&mailbox("alice"), None, 10).unwrap(), []);
}

fn a_report_settles_what_it_is_about_by_being_accepted(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1), whole("carol"), whole("dave")])]);
    let about = MessageId([1; 16]);
    let cause = Cause::Report {
        message: about,
        handed_over: vec![HandOver::first(1)],
        failed: vec![HandOver::first(0), HandOver::first(2)],
    };
    let report = Message { cause: Some(cause), ..message(2, vec![whole("bob")]) };
    apply(catalog, 2, &[Change::Accepted(Box::new(report))]);
    let due = catalog.due(UnixTime(u64::MAX), 10, &BTreeSet::new()).unwrap();
    assert_eq!(due.iter().map(|due| due.message).collect::<Vec<_>>(), [MessageId([2; 16])]);
    assert_eq!(catalog.delivery(&delivery(1)).unwrap().unwrap().state, DeliveryState::Withdrawn);
    assert_eq!(catalog.waiting_mailboxes(None, 10).unwrap(), []);
}

// SPEC: A7
fn a_drop_waits_for_its_store_alone_and_its_receipt_is_kept_for_the_sender(catalog: &dyn Catalog) {
    apply(catalog, 1, &[dropped(1, "alice")]);
    let row = || catalog.delivery(&delivery(1)).unwrap().unwrap();
    assert_eq!((row().state, row().size, row().ticket), (DeliveryState::Dropped, 1_000, None));
    assert_eq!(catalog.waiting(&mailbox("alice"), None, 10).unwrap(), [row()]);
    assert_eq!(catalog.claim_waiting(&mailbox("alice"), None, 10).unwrap().rows, [row()]);
    assert_eq!(catalog.due(UnixTime(u64::MAX), 10, &BTreeSet::new()).unwrap(), [], "nothing to hand over");
    assert_eq!(catalog.receipt_of_drop(&delivery(1)).unwrap(), None);
    let counts = catalog.counts().unwrap();
    assert_eq!((counts.messages, counts.waiting, counts.hand_overs, counts.copies), (1, 1, 0, 1));

    let Change::Receipted { receipt, .. } = receipted(1, "alice") else { unreachable!() };
    apply(catalog, 2, &[receipted(1, "alice"), Change::Expired { delivery: delivery(1), at: NOW }]);
    assert!(matches!(row().state, DeliveryState::Receipted { .. }), "it does not expire any more");
    assert_eq!(catalog.receipt_of_drop(&delivery(1)).unwrap(), Some(receipt.clone()));
    apply(catalog, 4, &[Change::Released { delivery: delivery(1) }]);
    assert_eq!(
        catalog.receipt_of_drop(&delivery(1)).unwrap(),
        Some(receipt),
        "kept as long as the delivery is known"
    );
    assert_eq!(catalog.counts().unwrap().copies, 0);
    catalog.purge(Day(u32::MAX), 10).unwrap();
    assert_eq!(everything(catalog), everything(&MemoryCatalog::new()));
    apply(catalog, 9, &[accepted(2, vec![stub("alice", 2)]), receipted(2, "alice")]);
    assert_eq!(catalog.receipt_of_drop(&delivery(2)).unwrap(), None, "of mail, nobody asks");
}

fn a_drop_that_nobody_fetched_is_let_go_of_on_its_last_day_and_never_handed_over(catalog: &dyn Catalog) {
    apply(catalog, 1, &[dropped(1, "alice")]);
    let end = NOW.day().plus(30).end();
    assert_eq!(catalog.deadlines(UnixTime(end.0 - 1), 10).unwrap(), [], "no notice to anybody");
    assert_eq!(catalog.deadlines(end, 10).unwrap()[0].1, Deadline::Expire);
    apply(catalog, 2, &[Change::Expired { delivery: delivery(1), at: end }]);
    let state = || catalog.delivery(&delivery(1)).unwrap().unwrap().state;
    assert_eq!(state(), DeliveryState::Expired);
    assert!(!state().is_readable());
    assert_eq!(catalog.due(UnixTime(u64::MAX), 10, &BTreeSet::new()).unwrap(), []);
    assert_eq!(catalog.deadlines(UnixTime(u64::MAX), 10).unwrap(), []);
    assert_eq!(catalog.waiting_mailboxes(None, 10).unwrap(), []);
    assert_eq!(catalog.counts().unwrap(), Counts { messages: 1, ..Counts::default() });
    apply(catalog, 3, &[receipted(1, "alice")]);
    assert_eq!(state(), DeliveryState::Expired, "the blobs are not there any more");
    assert!(catalog.receipt_of_drop(&delivery(1)).unwrap().is_some(), "but the store has them");
}

fn a_drop_takes_no_other_deliverys_place(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 7)])]);
    let before = catalog.delivery(&delivery(7)).unwrap();
    let Change::Accepted(mut new) = dropped(7, "mallory") else { unreachable!() };
    new.id = MessageId([9; 16]);
    apply(catalog, 2, &[Change::Accepted(new)]);
    assert_eq!(catalog.delivery(&delivery(7)).unwrap(), before);
    assert_eq!(catalog.waiting_mailboxes(None, 10).unwrap(), [mailbox("alice")]);
    apply(catalog, 3, &[Change::Voided(MessageId([9; 16]))]);
    assert_eq!(catalog.delivery(&delivery(7)).unwrap(), before, "nor does its end touch it");
}

fn a_voided_message_leaves_nothing(catalog: &dyn Catalog) {
    apply(
        catalog,
        1,
        &[accepted(1, vec![stub("alice", 1), whole("carol")]), Change::Voided(MessageId([1; 16]))],
    );
    apply(catalog, 3, &[Change::Voided(MessageId([9; 16]))]);
    assert_eq!(everything(catalog), everything(&MemoryCatalog::new()));
    assert_eq!(catalog.purge(Day(u32::MAX), 10).unwrap(), Purged::default());
}

fn tickets_are_renewed_and_revoked_by_generation(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1)])]);
    let renewed = |generation| Change::TicketRenewed {
        delivery: delivery(1),
        generation,
        ticket: ticket(1, generation),
    };
    let revoked = |generation| Change::TicketRevoked { delivery: delivery(1), generation };
    let opens = |generation| catalog.by_ticket(&ticket(1, generation)).unwrap().is_some();
    apply(catalog, 2, &[renewed(1)]);
    assert_eq!((opens(0), opens(1)), (false, true));
    apply(catalog, 3, &[revoked(0), renewed(0)]);
    assert_eq!((opens(0), opens(1)), (false, true), "an older one changes nothing");
    apply(catalog, 5, &[revoked(1)]);
    assert_eq!((opens(0), opens(1)), (false, false));
}

fn hand_overs_are_put_off_and_come_in_order(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![whole("alice"), whole("carol")]), accepted(2, vec![whole("dave")])]);
    let later = UnixTime(NOW.0 + 500);
    catalog.postpone(&MessageId([1; 16]), &[HandOver::first(0)], 3, later).unwrap();
    catalog.postpone(&MessageId([9; 16]), &[HandOver::first(0)], 3, later).unwrap();
    let due = catalog.due(later, 10, &BTreeSet::new()).unwrap();
    let order: Vec<_> =
        due.iter().map(|due| (due.message.0[0], due.hand_over.recipient, due.attempts)).collect();
    assert_eq!(order, [(1, 1, 0), (2, 0, 0), (1, 0, 3)]);
    assert_eq!(catalog.due(UnixTime(later.0 - 1), 10, &BTreeSet::new()).unwrap().len(), 2);
    assert_eq!(catalog.due(later, 1, &BTreeSet::new()).unwrap().len(), 1);
    assert_eq!(catalog.due(later, 10, &BTreeSet::from([MessageId([1; 16])])).unwrap().len(), 1);
    assert_eq!(catalog.next_due(UnixTime(0)).unwrap(), Some(UnixTime(NOW.0 + 1)));
    assert_eq!(catalog.next_due(UnixTime(NOW.0 + 2)).unwrap(), Some(later));
    assert_eq!(catalog.counts().unwrap().hand_overs, 3);
}

fn what_waits_comes_in_pages_oldest_first(catalog: &dyn Catalog) {
    let names = ["alice", "alicia", "bob"];
    for number in 0..30_u8 {
        let name = names[usize::from(number) % 3];
        apply(catalog, u64::from(number) + 1, &[accepted(number, vec![stub(name, number)])]);
    }
    let mut found = Vec::new();
    loop {
        let page = catalog.waiting(&mailbox("alice"), found.last().map(Delivery::position), 3).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let numbers: Vec<_> = found.iter().map(|row| row.id.0[0]).collect();
    assert_eq!(numbers, (0..30).step_by(3).collect::<Vec<_>>());
    let first = catalog.waiting_mailboxes(None, 2).unwrap();
    assert_eq!(first, [mailbox("alice"), mailbox("alicia")]);
    assert_eq!(catalog.waiting_mailboxes(first.last(), 2).unwrap(), [mailbox("bob")]);
    assert_eq!(catalog.waiting(&mailbox("alice"), None, 0).unwrap(), []);
}

fn purging_forgets_what_the_servers_have_dropped_and_names_what_was_open(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![stub("alice", 1)]), handed_over(1, &[HandOver::first(0)])]);
    apply(catalog, 3, &[accepted(2, vec![whole("carol")])]);
    let gone = NOW.day().plus(30 + GRACE_DAYS);
    assert_eq!(catalog.purge(gone, 10).unwrap(), Purged::default(), "readable until the end of that day");
    let purged = catalog.purge(gone.plus(1), 10).unwrap();
    assert_eq!(purged, Purged { count: 2, open: vec![MessageId([2; 16])] });
    assert_eq!(everything(catalog), everything(&MemoryCatalog::new()));
}

fn changes_up_to_the_checkpoint_are_ignored(catalog: &dyn Catalog) {
    catalog.apply(&[(Sequence(5), accepted(1, vec![whole("alice")]))], Some(&at(5))).unwrap();
    assert_eq!(catalog.checkpoint().unwrap(), at(5));
    catalog.apply(&[(Sequence(5), Change::Voided(MessageId([1; 16])))], None).unwrap();
    catalog.apply(&[(Sequence(4), accepted(2, vec![whole("alice")]))], None).unwrap();
    assert_eq!(catalog.counts().unwrap().messages, 1);
    catalog.apply(&[(Sequence(6), accepted(2, vec![whole("alice")]))], None).unwrap();
    assert_eq!(catalog.counts().unwrap().messages, 2);
    assert_eq!(catalog.checkpoint().unwrap(), at(5), "applying alone does not move it");
}

fn clearing_forgets_everything(catalog: &dyn Catalog) {
    catalog.apply(&[(Sequence(5), accepted(1, vec![stub("alice", 1)]))], Some(&at(5))).unwrap();
    catalog.clear().unwrap();
    assert_eq!(catalog.checkpoint().unwrap(), Checkpoint::BEGIN);
    assert_eq!(everything(catalog), everything(&MemoryCatalog::new()));
}

/// A history that a relay could write: each message's changes in an order that can happen, with everything else of
/// the others between them.
fn history() -> impl Strategy<Value = Vec<Change>> {
    let of_one = |number: u8| {
        let id = MessageId([number; 16]);
        let recipients = vec![stub("alice", number), whole("carol")];
        let first = Just(accepted(number, recipients));
        let failed = |which| Change::HandOverFailed { message: id, hand_overs: vec![which], at: NOW };
        let report = Message {
            cause: Some(Cause::Report { message: id, handed_over: vec![], failed: vec![HandOver::first(1)] }),
            ..message(100 + number, vec![whole("bob")])
        };
        let of = delivery(number);
        let then = prop::sample::subsequence(
            vec![
                handed_over(number, &[HandOver::first(0)]),
                failed(HandOver::first(0)),
                Change::Accepted(Box::new(report)),
                handed_over(100 + number, &[HandOver::first(0)]),
                handed_over(number, &[HandOver::first(1)]),
                Change::TicketRenewed { delivery: of, generation: 1, ticket: ticket(number, 1) },
                Change::TicketRevoked { delivery: of, generation: 1 },
                Change::TicketRenewed { delivery: of, generation: 2, ticket: ticket(number, 2) },
                Change::Expired { delivery: of, at: NOW },
                failed(HandOver::lapsed(0)),
                handed_over(number, &[HandOver::lapsed(0)]),
                receipted(number, "alice"),
                Change::Released { delivery: of },
                Change::Voided(id),
            ],
            0..=13,
        );
        (first, then).prop_map(|(first, mut then)| {
            then.insert(0, first);
            then
        })
    };
    let of_drop = |number: u8| {
        let of = delivery(number);
        let then = prop::sample::subsequence(
            vec![
                Change::Expired { delivery: of, at: NOW },
                receipted(number, "alice"),
                Change::Expired { delivery: of, at: NOW },
                Change::Released { delivery: of },
                Change::Voided(MessageId([number; 16])),
            ],
            0..=5,
        );
        then.prop_map(move |mut then| {
            then.insert(0, dropped(number, "alice"));
            then
        })
    };
    let each: Vec<_> = (1..4_u8).map(of_one).collect();
    (each, of_drop(4), any::<u64>()).prop_map(|(mut each, drop, seed)| {
        each.push(drop);
        let mut merged = Vec::new();
        let mut turn = seed;
        while each.iter().any(|changes| !changes.is_empty()) {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let open: Vec<usize> = (0..each.len()).filter(|at| !each[*at].is_empty()).collect();
            let pick = open[usize::try_from(turn >> 33).unwrap() % open.len()];
            merged.push(each[pick].remove(0));
        }
        merged
    })
}

proptest! {
    /// A restart replays from a checkpoint below what the view has: from any place of the log, over any view that is
    /// further, the same catalog comes out.
    #[test]
    fn a_stretch_applied_again_changes_nothing(
        log in history(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
    ) {
        let straight = MemoryCatalog::new();
        apply(&straight, 1, &log);
        let twice = MemoryCatalog::new();
        let to = to.index(log.len() + 1);
        let from = from.index(to + 1);
        apply(&twice, 1, &log[..to]);
        apply(&twice, 1 + u64::try_from(from).unwrap(), &log[from..]);
        prop_assert_eq!(everything(&twice), everything(&straight));
    }

    /// Whatever was applied, what is counted is what is there.
    #[test]
    fn counts_are_what_is_there(log in history()) {
        let catalog = MemoryCatalog::new();
        apply(&catalog, 1, &log);
        let counts = catalog.counts().unwrap();
        let waiting: Vec<_> = catalog.waiting_mailboxes(None, 100).unwrap().iter()
            .flat_map(|of| catalog.waiting(of, None, 100).unwrap()).collect();
        prop_assert_eq!(counts.waiting, u64::try_from(waiting.len()).unwrap());
        prop_assert_eq!(counts.waiting_bytes, waiting.iter().map(|row| row.size).sum::<u64>());
        let expected = expected(&catalog);
        prop_assert_eq!(counts.references, expected.values().map(|(_, times)| times).sum::<u64>());
        prop_assert_eq!(counts.copies, u64::try_from(expected.len()).unwrap());
        let copies = catalog.copies(None, 1_000).unwrap().into_iter().map(|copy| (copy.blob, copy.references));
        prop_assert_eq!(copies.collect::<Vec<_>>(), expected.into_values().collect::<Vec<_>>());
        prop_assert_eq!(counts.hand_overs, u64::try_from(catalog.due(UnixTime(u64::MAX), 1_000, &BTreeSet::new()).unwrap().len()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Changes that come one by one, or several at once, some of them again: in the database there is what there is in
    /// memory.
    // SPEC: D10
    #[test]
    fn a_database_says_what_memory_says(log in history(), cuts in prop::collection::vec(1..6_usize, 40)) {
        let (memory, postgres) = (MemoryCatalog::new(), in_postgres());
        let (mut at, mut sequence) = (0, 1);
        for cut in cuts {
            let to = log.len().min(at + cut);
            let batch: Vec<_> = log[at.saturating_sub(1)..to].iter().cloned().zip(sequence..)
                .map(|(change, sequence)| (Sequence(sequence), change)).collect();
            memory.apply(&batch, None).unwrap();
            postgres.apply(&batch, None).unwrap();
            (at, sequence) = (to, sequence + 10);
        }
        prop_assert_eq!(everything(&postgres), everything(&memory));
    }
}

macro_rules! contract {
    ($engine:ident, $make:expr, [$($test:ident),* $(,)?]) => {
        mod $engine {
            $(#[test]
            fn $test() {
                let (catalog, _keep) = $make;
                super::$test(&catalog);
            })*
        }
    };
}

macro_rules! contract_of {
    ($engine:ident, $make:expr) => {
        contract!(
            $engine,
            $make,
            [
                an_accepted_message_is_there_with_all_that_follows_from_it,
                a_whole_message_is_forgotten_once_the_next_hop_has_it_for_all,
                a_delivery_goes_from_waiting_to_receipted_to_released,
                what_nobody_fetches_is_told_then_goes_whole,
                a_receipt_in_the_last_moment_keeps_the_message_from_going_whole,
                a_refused_whole_message_goes_on_waiting_for_its_store,
                a_report_settles_what_it_is_about_by_being_accepted,
                a_drop_waits_for_its_store_alone_and_its_receipt_is_kept_for_the_sender,
                a_drop_that_nobody_fetched_is_let_go_of_on_its_last_day_and_never_handed_over,
                a_drop_takes_no_other_deliverys_place,
                a_voided_message_leaves_nothing,
                tickets_are_renewed_and_revoked_by_generation,
                hand_overs_are_put_off_and_come_in_order,
                what_waits_comes_in_pages_oldest_first,
                purging_forgets_what_the_servers_have_dropped_and_names_what_was_open,
                changes_up_to_the_checkpoint_are_ignored,
                clearing_forgets_everything,
                a_copy_is_found_until_the_last_message_has_given_it_up,
                a_message_that_waits_for_anything_refers_to_its_blobs,
                copies_come_in_order_each_once_those_that_go_first_first,
                the_same_attachment_twice_in_a_message_counts_twice,
                a_message_that_names_what_another_brought_stands_alone,
                what_is_due_is_claimed_in_order_and_again_by_whom_it_is_held,
                what_was_claimed_is_put_off_and_comes_back,
                what_waits_is_claimed_page_by_page,
            ]
        );
    };
}

contract_of!(memory, (crate::MemoryCatalog::new(), ()));
/// A catalog in a new database of a real server.
pub(crate) fn in_postgres() -> PostgresCatalog {
    opened(&a_relay(lighter_test_postgres::database()))
}

/// The catalog; its tasks go on to the end of the tests.
fn opened(config: &PostgresConfig) -> PostgresCatalog {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap());
    runtime.block_on(PostgresCatalog::open(config)).unwrap()
}

/// Another relay on the database.
pub(crate) fn a_relay(url: String) -> PostgresConfig {
    PostgresConfig::new(url, Keypair::generate_ed25519().public().to_peer_id(), "relay")
}

contract_of!(postgres, (super::in_postgres(), ()));
contract_of!(embedded, {
    let folder = tempfile::tempdir().unwrap();
    (crate::EmbeddedCatalog::open(folder.path()).unwrap(), folder)
});
