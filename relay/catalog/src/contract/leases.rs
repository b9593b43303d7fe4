//! What every engine must say of claims, and what several relays on one database must (SPEC D10).

use std::time::Duration;

use super::*;

fn two_due(catalog: &dyn Catalog) {
    apply(catalog, 1, &[accepted(1, vec![whole("alice"), whole("carol")]), accepted(2, vec![whole("dave")])]);
}

fn claimed(catalog: &dyn Catalog, now: UnixTime) -> Vec<Claim> {
    catalog.claim_due(now, 100, &BTreeSet::new()).unwrap().claims
}

const LATER: UnixTime = UnixTime(NOW.0 + 500);

pub(super) fn what_is_due_is_claimed_in_order_and_again_by_whom_it_is_held(catalog: &dyn Catalog) {
    two_due(catalog);
    let due = catalog.due(LATER, 100, &BTreeSet::new()).unwrap();
    for _ in 0..2 {
        let claims = claimed(catalog, LATER);
        assert_eq!(claims.iter().map(|claim| claim.due).collect::<Vec<_>>(), due);
    }
    let except = BTreeSet::from([MessageId([1; 16])]);
    assert_eq!(catalog.claim_due(LATER, 100, &except).unwrap().claims.len(), 1);
    assert_eq!(catalog.claim_due(LATER, 2, &BTreeSet::new()).unwrap().claims.len(), 2);
    assert_eq!(claimed(catalog, UnixTime(NOW.0 - 1)), []);
    let next = catalog.claim_due(UnixTime(NOW.0 - 1), 100, &BTreeSet::new()).unwrap().next;
    assert_eq!(next, Some(UnixTime(NOW.0 + 1)));
}

pub(super) fn what_was_claimed_is_put_off_and_comes_back(catalog: &dyn Catalog) {
    two_due(catalog);
    let fences: Vec<Fence> = claimed(catalog, LATER).iter().map(|claim| claim.fence).collect();
    catalog.postpone_claimed(&fences[..2], 4, UnixTime(LATER.0 + 100)).unwrap();
    let claims = catalog.claim_due(LATER, 100, &BTreeSet::new()).unwrap();
    assert_eq!(claims.claims.len(), 1);
    assert_eq!(claims.next, Some(UnixTime(LATER.0 + 100)));
    let attempts: Vec<_> =
        claimed(catalog, UnixTime(LATER.0 + 100)).iter().map(|claim| claim.due.attempts).collect();
    assert_eq!(attempts, [0, 4, 4]);
}

pub(super) fn what_waits_is_claimed_page_by_page(catalog: &dyn Catalog) {
    for number in 1..=5 {
        apply(catalog, number.into(), &[accepted(number, vec![stub("alice", number)])]);
    }
    let first = catalog.claim_waiting(&mailbox("alice"), None, 3).unwrap();
    assert_eq!(first.rows, catalog.waiting(&mailbox("alice"), None, 3).unwrap());
    let rest = catalog.claim_waiting(&mailbox("alice"), first.last, 3).unwrap();
    assert_eq!(rest.rows.iter().map(|row| row.id.0[0]).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(catalog.claim_waiting(&mailbox("alice"), rest.last, 3).unwrap(), ClaimedDeliveries::default());
    catalog.give_back(&mailbox("alice")).unwrap();
    catalog.give_back_all().unwrap();
    assert_eq!(catalog.claim_waiting(&mailbox("alice"), None, 10).unwrap().rows.len(), 5);
}

/// Two relays on one database.
fn two(lease: Duration) -> (PostgresCatalog, PostgresCatalog, PostgresConfig) {
    let config = PostgresConfig { lease, ..a_relay(lighter_test_postgres::database()) };
    let other = PostgresConfig { lease, ..a_relay(config.url.clone()) };
    (opened(&config), opened(&other), config)
}

const LONG: Duration = Duration::from_secs(600);

fn finish(claim: &Claim) -> Proposal {
    let DueHandOver { message, hand_over, .. } = claim.due;
    let change = Change::HandedOver { message, hand_overs: vec![hand_over], at: NOW };
    Proposal { fences: vec![claim.fence], ..Proposal::alone(change) }
}

fn commit(catalog: &PostgresCatalog, proposal: Proposal) -> Outcome {
    catalog.commit(&[proposal]).unwrap().pop().unwrap()
}

// SPEC: D10
#[test]
fn what_one_relay_has_claimed_no_other_gets() {
    let (one, two, _) = two(LONG);
    two_due(&one);
    let first = one.claim_due(LATER, 1, &BTreeSet::new()).unwrap().claims;
    let rest = two.claim_due(LATER, 100, &BTreeSet::new()).unwrap();
    assert_eq!((first.len(), rest.claims.len()), (1, 2));
    assert!(rest.claims.iter().all(|claim| claim.due != first[0].due));
    assert_eq!(rest.next, Some(LATER.plus(LONG)), "when the other's may be free");
    assert_eq!(claimed(&one, LATER).iter().map(|claim| claim.due).collect::<Vec<_>>(), [first[0].due]);
}

// SPEC: D10
#[test]
fn many_claimers_at_once_get_each_thing_once() {
    let (one, two, _) = two(LONG);
    for number in 0..200_u8 {
        apply(&one, u64::from(number) + 1, &[accepted(number, vec![whole("alice")])]);
    }
    let all = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for catalog in [&one, &two] {
            scope.spawn(|| {
                loop {
                    // What it has is left out, as the queue does.
                    let own: BTreeSet<_> = {
                        let all = all.lock().unwrap();
                        all.iter().map(|(_, message)| *message).collect()
                    };
                    let claims = catalog.claim_due(LATER, 7, &own).unwrap().claims;
                    if claims.is_empty() {
                        break;
                    }
                    let who = std::ptr::from_ref(catalog) as usize;
                    all.lock().unwrap().extend(claims.iter().map(|claim| (who, claim.due.message)));
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let messages: BTreeSet<_> = all.iter().map(|(_, message)| *message).collect();
    assert_eq!((all.len(), messages.len()), (200, 200), "claimed twice");
}

// SPEC: D10
#[test]
fn a_dead_relays_work_is_taken_over_and_its_late_end_changes_nothing() {
    let (one, two, _) = two(Duration::from_millis(300));
    two_due(&one);
    let old = claimed(&one, LATER);
    // Not renewed: as if it had died. (Its catalog goes, its claims stay.)
    one.forget_lease();
    let mut new = Vec::new();
    while new.is_empty() {
        new = claimed(&two, LATER);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(new.len(), old.len());
    assert!(new.iter().zip(&old).all(|(new, old)| new.fence.number > old.fence.number));
    // It was not dead.
    assert_eq!(commit(&one, finish(&old[0])), Outcome::Stale);
    one.postpone_claimed(&[old[1].fence], 9, UnixTime(LATER.0 + 999)).unwrap();
    assert_eq!(two.due(LATER, 10, &BTreeSet::new()).unwrap().len(), 3, "changed by an old claim");
    assert!(matches!(commit(&two, finish(&new[0])), Outcome::Made(_)));
    assert_eq!(commit(&two, finish(&new[0])), Outcome::Stale, "its end was written down before");
    assert_eq!(two.due(LATER, 10, &BTreeSet::new()).unwrap().len(), 2);
}

// SPEC: D10
#[test]
fn a_relay_that_lives_keeps_what_it_holds_and_one_that_stops_gives_it_back() {
    let (one, two, _) = two(Duration::from_millis(300));
    two_due(&one);
    assert_eq!(claimed(&one, LATER).len(), 3);
    while one.counters().renewals < 9 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(claimed(&two, LATER), [], "three leases later, renewed all the time");
    assert_eq!(one.counters().failed_renewals, 0);
    one.give_back_all().unwrap();
    assert_eq!(claimed(&two, LATER).len(), 3);
}

#[test]
fn a_relay_that_starts_again_does_not_wait_for_its_own_lease() {
    let (one, two, config) = two(LONG);
    two_due(&one);
    assert_eq!(claimed(&one, LATER).len(), 3);
    let again = opened(&config);
    assert_eq!(claimed(&two, LATER).len(), 3, "its former self is dead");
    assert_eq!(claimed(&again, LATER), []);
}

// SPEC: D4, D10
#[test]
fn a_delivery_is_offered_by_one_relay_and_receipted_through_any() {
    let (one, two, _) = two(LONG);
    for number in 1..=5 {
        apply(&one, number.into(), &[accepted(number, vec![stub("alice", number)])]);
    }
    let first = one.claim_waiting(&mailbox("alice"), None, 2).unwrap();
    let rest = two.claim_waiting(&mailbox("alice"), None, 10).unwrap();
    assert_eq!(
        first.rows.iter().chain(&rest.rows).map(|row| row.id.0[0]).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(rest.free_in, Some(LONG));
    // The other relay's claim does not keep a receipt from releasing.
    assert!(matches!(commit(&two, Proposal::alone(receipted(1, "alice"))), Outcome::Made(_)));
    let state = one.delivery(&delivery(1)).unwrap().unwrap().state;
    assert!(matches!(state, DeliveryState::Receipted { .. }));
    one.give_back(&mailbox("alice")).unwrap();
    let freed = two.claim_waiting(&mailbox("alice"), None, 10).unwrap();
    assert_eq!((freed.rows.len(), freed.free_in), (4, None));
}

#[test]
fn a_user_is_told_once_whichever_relays_see_that_it_is_time() {
    let (one, two, _) = two(LONG);
    apply(&one, 1, &[accepted(1, vec![stub("alice", 1)])]);
    let notice = |number| {
        let cause = Some(Cause::Notice { delivery: delivery(1) });
        let notice = Message { cause, ..message(number, vec![whole("alice")]) };
        Proposal::alone(Change::Accepted(Box::new(notice)))
    };
    assert!(matches!(commit(&one, notice(8)), Outcome::Made(_)));
    assert_eq!(commit(&two, notice(9)), Outcome::Stale);
    assert_eq!(two.counts().unwrap().messages, 2);
}

#[test]
fn relays_know_of_each_other_and_hear_what_waits() {
    let (one, two, config) = two(LONG);
    let mut news = two.news();
    assert_eq!(news.blocking_recv(), Some(News::Missed), "what was before it listened");
    let known: Vec<_> = one.relays().unwrap().into_iter().map(|relay| (relay.peer, relay.is_alive)).collect();
    assert_eq!(known.len(), 2);
    assert!(known.contains(&(config.relay, true)));
    commit(&one, Proposal::alone(accepted(1, vec![stub("alice", 1), whole("carol")])));
    assert_eq!(news.blocking_recv(), Some(News::Waiting(mailbox("alice"))));
    commit(&one, Proposal::alone(receipted(1, "alice")));
    assert_eq!(news.blocking_recv(), Some(News::Ended(delivery(1))));
    let _third = opened(&a_relay(config.url));
    assert_eq!(news.blocking_recv(), Some(News::Relays));
}

// SPEC: D10
#[test]
fn a_catalog_from_a_file_is_moved_as_it_stands_and_once() {
    let memory = MemoryCatalog::new();
    for number in 0..30_u8 {
        let plans = copy("plans", 1, 37);
        let parts = if number % 3 == 0 { vec![plans.clone(), plans] } else { vec![plans] };
        let message = with_parts(number, &parts);
        apply(&memory, u64::from(number) + 1, &[Change::Accepted(Box::new(message))]);
        if number % 2 == 0 {
            apply(&memory, 100, &[handed_over(number, &[HandOver::first(0)])]);
        } else {
            memory.postpone(&MessageId([number; 16]), &[HandOver::first(0)], 3, LATER).unwrap();
        }
        if number % 4 == 0 {
            apply(&memory, 101, &[receipted(number, "alice")]);
        }
        if number % 8 == 0 {
            apply(&memory, 102, &[Change::Released { delivery: delivery(number) }]);
        }
    }
    memory.apply(&[], Some(&at(200))).unwrap();
    let postgres = in_postgres();
    let imported = postgres.import(&memory, &|_| {}).unwrap();
    assert_eq!(imported, Imported { messages: 30, deliveries: 30, moved: 30, verified: 30 });
    assert_eq!(everything(&postgres), everything(&memory));
    assert_eq!(postgres.checkpoint().unwrap(), at(200));
    // What went on since stays as it is.
    apply(&postgres, 300, &[Change::Voided(MessageId([1; 16]))]);
    let again = postgres.import(&memory, &|_| {}).unwrap();
    assert_eq!((again.moved, again.verified), (0, 29));
    assert!(postgres.message(&MessageId([1; 16])).unwrap().is_none());
}
