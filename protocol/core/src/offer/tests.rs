use super::*;
use crate::fixtures::{
    LOCATION, MALLORY, STORE, attestation, bob, carol, delivery, hours, key, now, peer, receipt, signed,
};
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX};
use crate::wire::LaterReason;

fn offering() -> Offering {
    Offering::new(delivery(), None, 42)
}

fn releaser(now: Now) -> Releaser {
    Releaser::attested(&signed(&attestation(), LOCATION), &peer(LOCATION), &bob(), now.wall).unwrap()
}

fn online(now: Now) -> Offering {
    let mut offering = offering();
    assert!(matches!(offering.handle_online(peer(STORE), now), Command::SendOffer { .. }));
    offering
}

fn pulling(now: Now) -> Offering {
    let mut offering = online(now);
    let answers = Response::Answer(vec![Answer::Pull, Answer::Pull]);
    assert!(matches!(offering.handle_response(&answers, now), Command::Wait(_)));
    offering
}

// SPEC: D4
#[test]
fn a_delivery_goes_from_offer_to_release_by_its_receipt() {
    let now = now();
    let mut offering = pulling(now);
    let Ok(Command::Record(verified)) =
        offering.handle_receipt(&signed(&receipt(), STORE), &releaser(now), now)
    else {
        panic!("not taken")
    };
    assert_eq!(verified.receipt(), &receipt());
    assert!(matches!(offering.state(), State::Receipted(_)));
    assert_eq!(offering.handle_recorded(), Command::Release);
    assert_eq!(offering.state(), &State::Released);
}

// SPEC: D5
#[test]
fn a_store_that_is_offline_costs_no_timer() {
    let now = now();
    let mut offering = offering();
    assert_eq!(offering.deadline(), None);
    assert_eq!(offering.handle_time(now), Command::WaitForPresence);
    for mut offering in [online(now), pulling(now)] {
        assert_eq!(offering.handle_offline(now), Command::WaitForPresence);
        assert_eq!(offering.deadline(), None);
        assert_eq!(
            offering.handle_lost(now),
            Command::Nothing,
            "what broke with the connection is no failure"
        );
    }
}

// SPEC: D5
#[test]
fn coming_online_makes_a_delivery_due_whatever_it_waited_for() {
    let now = now();
    let mut offering = online(now);
    assert!(matches!(offering.handle_lost(now), Command::Wait(_)));
    let Command::SendOffer { to, offer, until } = offering.handle_online(peer(STORE), now) else {
        panic!("not due")
    };
    assert_eq!((to, offer.delivery), (peer(STORE), delivery().id));
    assert_eq!(offering.deadline(), Some(until));
}

#[test]
fn a_store_that_answers_and_fails_is_tried_after_longer_and_longer_waits() {
    let mut now = now();
    let mut offering = online(now);
    let mut before = Duration::ZERO;
    for failure in [Response::Refused, Response::Pong, Response::Answer(Vec::new()), Response::Refused] {
        let Command::Wait(until) = offering.handle_response(&failure, now) else { panic!("no wait") };
        let wait = until - now.instant;
        assert!(wait >= BACKOFF_FIRST / 2 && wait >= before);
        assert_eq!(offering.handle_time(now), Command::Wait(until), "not before");
        before = wait;
        now = now.plus(wait);
        assert!(matches!(offering.handle_time(now), Command::SendOffer { .. }));
    }
}

#[test]
fn something_pulled_makes_the_waits_short_again() {
    let now = now();
    let mut offering = online(now);
    for _ in 0..10 {
        offering.handle_lost(now);
        offering.handle_online(peer(STORE), now);
    }
    offering.handle_progress(now);
    let Command::Wait(until) = offering.handle_lost(now) else { panic!("no wait") };
    assert!(until - now.instant <= BACKOFF_FIRST);
}

#[test]
fn bad_input_35_a_store_that_says_later_for_ever_waits_the_longest_wait() {
    let now = now();
    for (seconds, least) in [(0, Duration::ZERO), (600, Duration::from_mins(10)), (u32::MAX, BACKOFF_MAX)] {
        let Command::Wait(until) = online(now).handle_response(&Response::Later(seconds), now) else {
            panic!("no wait")
        };
        assert!(until - now.instant >= least && until - now.instant <= BACKOFF_MAX);
    }
}

#[test]
fn silence_is_a_failure_in_its_time() {
    let start = now();
    for mut offering in [online(start), pulling(start)] {
        let until = offering.deadline().unwrap();
        let now = start.plus(until - start.instant);
        assert!(matches!(offering.handle_time(now), Command::Wait(_)));
        assert!(matches!(offering.state(), State::Backoff { .. }));
    }
}

#[test]
fn answers_decide_between_pulling_waiting_and_giving_up() {
    use Answer::{Have, Later, No, Pull};
    let now = now();
    let answer = |answers: &[Answer]| {
        let mut offering = online(now);
        offering.handle_response(&Response::Answer(answers.to_vec()), now);
        offering.state().clone()
    };
    assert!(matches!(answer(&[Have, Have]), State::Pulling { .. }));
    assert!(matches!(answer(&[Pull, Later(LaterReason::Quota)]), State::Pulling { .. }));
    assert!(matches!(answer(&[Later(LaterReason::Disk), Later(LaterReason::Quota)]), State::Backoff { .. }));
    assert_eq!(answer(&[Pull, No(NoReason::TooLarge)]), State::GivenUp(GiveUp::No(NoReason::TooLarge)));
    assert!(matches!(answer(&[Pull, Pull, Pull]), State::Backoff { .. }), "one answer too many");
    assert!(matches!(answer(&[Pull]), State::Backoff { .. }), "one answer too few");
}

#[test]
fn an_expired_delivery_is_given_up_and_not_offered() {
    let start = now();
    let late = start.plus(hours(24 * 30));
    let expired = Command::GiveUp(GiveUp::Expired);
    assert_eq!(offering().handle_online(peer(STORE), late), expired);
    assert_eq!(offering().handle_time(late), expired);
    assert_eq!(pulling(start).handle_time(late), expired);
    assert_eq!(pulling(start).handle_lost(late), expired);
    assert_eq!(pulling(start).handle_offline(late), expired);
    let mut over = offering();
    over.handle_time(late);
    assert_eq!(over.handle_online(peer(STORE), start), Command::Nothing, "once given up, it stays so");
}

// SPEC: D4
#[test]
fn a_receipt_releases_in_every_state() {
    let now = now();
    let mut given_up = offering();
    given_up.handle_time(now.plus(hours(24 * 30)));
    for mut offering in [offering(), online(now), pulling(now), given_up] {
        let command = offering.handle_receipt(&signed(&receipt(), STORE), &releaser(now), now);
        assert!(matches!(command, Ok(Command::Record(_))));
        assert_eq!(offering.handle_recorded(), Command::Release);
    }
}

// SPEC: D4
#[test]
fn bad_input_34_a_replayed_receipt_changes_nothing() {
    let now = now();
    let mut offering = pulling(now);
    let receipt = signed(&receipt(), STORE);
    assert!(matches!(offering.handle_receipt(&receipt, &releaser(now), now), Ok(Command::Record(_))));
    assert_eq!(
        offering.handle_receipt(&receipt, &releaser(now), now),
        Ok(Command::Nothing),
        "while it is recorded"
    );
    offering.handle_recorded();
    assert_eq!(
        offering.handle_receipt(&receipt, &releaser(now), now),
        Ok(Command::Release),
        "it is only said again"
    );
    let mut after_restart = Offering::released(delivery());
    assert_eq!(after_restart.handle_receipt(&receipt, &releaser(now), now), Ok(Command::Release));
    assert_eq!(after_restart.handle_online(peer(STORE), now), Command::Nothing);
}

// SPEC: D4
#[test]
fn bad_input_34_a_receipt_that_proves_nothing_releases_nothing() {
    let start = now();
    let case = |change: &dyn Fn(&mut Receipt), by: u8, now: Now| {
        let mut offering = pulling(start);
        let mut receipt = receipt();
        change(&mut receipt);
        let error = offering.handle_receipt(&signed(&receipt, by), &releaser(start), now).unwrap_err();
        assert!(matches!(offering.state(), State::Pulling { .. }), "{error}");
        assert_eq!(offering.handle_recorded(), Command::Nothing);
        error
    };
    use crate::SignedError::Signature;
    assert_eq!(case(&|_| {}, MALLORY, start), ReceiptError::Signed(Signature), "forged");
    assert_eq!(case(&|r| r.store = peer(MALLORY), STORE, start), ReceiptError::OtherStore);
    assert_eq!(case(&|r| r.mailbox = carol(), STORE, start), ReceiptError::OtherMailbox);
    assert_eq!(case(&|r| r.delivery.0[0] ^= 1, STORE, start), ReceiptError::OtherDelivery);
    assert_eq!(case(&|r| r.manifest.0[0] ^= 1, STORE, start), ReceiptError::OtherManifest);
    assert_eq!(case(&|r| r.time = r.time.plus(hours(2)), STORE, start), ReceiptError::Future);
    assert_eq!(case(&|_| {}, STORE, start.plus(hours(25))), ReceiptError::Expired);
}

#[test]
fn bad_input_34_a_store_that_may_not_release_is_no_releaser() {
    let start = now().wall;
    let case = |change: &dyn Fn(&mut Attestation), by: u8, now: UnixTime| {
        let mut attestation = attestation();
        change(&mut attestation);
        Releaser::attested(&signed(&attestation, by), &peer(LOCATION), &bob(), now).unwrap_err()
    };
    use crate::AttestationError as E;
    assert_eq!(case(&|_| {}, MALLORY, start), E::Signed(crate::SignedError::Signature));
    assert_eq!(case(&|a| a.primary = false, LOCATION, start), E::NotPrimary);
    assert_eq!(case(&|a| a.mailbox = carol(), LOCATION, start), E::OtherMailbox);
    assert_eq!(case(&|_| {}, LOCATION, start.plus(hours(25))), E::Expired);
    assert!(
        Releaser::attested(&signed(&attestation(), LOCATION), &peer(LOCATION), &bob(), start.plus(hours(24)))
            .is_ok()
    );
    assert_eq!(case(&|a| a.expires = a.expires.plus(hours(1)), LOCATION, start), E::Life);
    assert_eq!(case(&|a| a.issued = a.issued.plus(hours(2)), LOCATION, start), E::NotYet);
    let other = Releaser::looked_up(carol(), peer(STORE), start.plus(hours(1)));
    let error = pulling(now()).handle_receipt(&signed(&receipt(), STORE), &other, now()).unwrap_err();
    assert_eq!(error, ReceiptError::OtherMailbox, "carol's store releases nothing of bob's");
}

#[test]
fn a_receipt_that_could_not_be_recorded_is_asked_for_again() {
    let now = now();
    let mut offering = pulling(now);
    let receipt = signed(&receipt(), STORE);
    offering.handle_receipt(&receipt, &releaser(now), now).unwrap();
    assert!(matches!(offering.handle_not_recorded(now), Command::Wait(_)));
    assert_eq!(offering.handle_recorded(), Command::Nothing, "nothing is being recorded");
    assert!(matches!(offering.handle_receipt(&receipt, &releaser(now), now), Ok(Command::Record(_))));
}

#[test]
fn bad_input_34_a_pull_for_somebody_elses_blob_is_refused() {
    let now = now();
    let offering = online(now);
    let get = |blob: BlobId| Get { delivery: delivery().id, blob, ranges: Vec::new(), attestation: None };
    let manifest = get(delivery().manifest.id);
    let size = |get: &Get, by: u8| offering.admits(get, &peer(by), &peer(LOCATION), now.wall);
    assert_eq!(size(&manifest, STORE), Some(5_000));
    assert_eq!(size(&get(delivery().blobs[1].id), STORE), Some(70_000));
    assert_eq!(size(&get(BlobId([1; 32])), STORE), None, "another delivery's blob");
    assert_eq!(
        size(&Get { delivery: DeliveryId([1; 16]), ..manifest.clone() }, STORE),
        None,
        "another delivery"
    );
    assert_eq!(size(&manifest, MALLORY), None, "a stranger who knows the hash");
    // A further device of bob's shows its attestation; mallory shows bob's, her own, and one that she made.
    let with = |attestation: &Attestation, signer: u8| Get {
        attestation: Some(signed(attestation, signer)),
        ..manifest.clone()
    };
    let device = Attestation { peer: peer(9), primary: false, ..attestation() };
    assert_eq!(size(&with(&device, LOCATION), 9), Some(5_000));
    assert_eq!(size(&with(&attestation(), LOCATION), MALLORY), None, "an attestation of another store");
    let hers = Attestation { peer: peer(MALLORY), mailbox: carol(), ..attestation() };
    assert_eq!(size(&with(&hers, LOCATION), MALLORY), None, "an attestation for another mailbox");
    let forged = Attestation { peer: peer(MALLORY), ..attestation() };
    assert_eq!(size(&with(&forged, MALLORY), MALLORY), None, "an attestation that she signed herself");
    // The same of several small ones at once.
    let blobs = |blobs: Vec<BlobId>| GetBlobs { delivery: delivery().id, blobs, attestation: None };
    let sizes = |get: &GetBlobs, by: u8| {
        let admitted = delivery().admits_blobs(get, &peer(by), Some(&peer(STORE)), &peer(LOCATION), now.wall);
        admitted.map(|sizes| sizes.len())
    };
    let own = delivery().manifest.id;
    assert_eq!(sizes(&blobs(vec![own]), STORE), Some(1));
    assert_eq!(sizes(&blobs(vec![own, own]), STORE), Some(2));
    assert_eq!(sizes(&blobs(vec![own, BlobId([1; 32])]), STORE), None, "another delivery's blob among them");
    assert_eq!(sizes(&blobs(vec![own, delivery().blobs[1].id]), STORE), None, "one that is not small");
    assert_eq!(sizes(&blobs(vec![own]), MALLORY), None, "a stranger who knows the hash");
    let other = GetBlobs { delivery: DeliveryId([1; 16]), ..blobs(vec![own]) };
    assert_eq!(sizes(&other, STORE), None, "another delivery");
    let shown = |attestation: &Attestation, signer: u8| GetBlobs {
        attestation: Some(signed(attestation, signer)),
        ..blobs(vec![own])
    };
    assert_eq!(sizes(&shown(&device, LOCATION), 9), Some(1));
    assert_eq!(sizes(&shown(&forged, MALLORY), MALLORY), None, "an attestation that she signed herself");
    let late = now.wall.plus(hours(25));
    assert_eq!(offering.admits(&with(&device, LOCATION), &peer(9), &peer(LOCATION), late), None, "expired");
    assert!(key(9).public().to_peer_id() == peer(9));
}
