use std::time::Duration;

use super::*;
use crate::blob::RangeSet;
use crate::fixtures::{
    LOCATION, MALLORY, RELAY, SENDER, STORE, attestation, blob, bob, carol, hours, introduction, now, offer,
    peer, receipt, signed,
};
use crate::limits::{
    INTRODUCTION_DELIVERIES_MAX, INTRODUCTIONS_MAX, PULL_SMALL_STREAMS_MAX, PULL_STREAMS_MAX,
};
use crate::wire::{LaterReason, NoReason};
use crate::{
    Attestation, AttestationError, DeliveryId, Introduction, IntroductionError, SignedError, UnixTime,
};

const ROOMY: Room = Room {
    blob_size_max: 1 << 40,
    manifest_size_max: 1 << 20,
    quota_left: 1 << 40,
    disk_left: 1 << 40,
    closed: None,
};

fn nothing(_: &BlobId) -> Held {
    Held::Some(RangeSet::new())
}

fn admit(door: &mut Door, offer: &Offer, by: u8, now: UnixTime) -> Result<Standing, NotAdmitted> {
    let (attestation, location) = (attestation(), peer(LOCATION));
    door.admit(offer, &peer(by), Own { attestation: &attestation, location: &location }, now)
}

fn introduced(introduction: &Introduction, signer: u8) -> Offer {
    Offer { introduction: Some(signed(introduction, signer)), ..offer() }
}

fn begin(held: impl Fn(&BlobId) -> Held) -> (Pull, Vec<Command>) {
    Pull::begin(offer(), peer(RELAY), &Standing::OwnRelay, &ROOMY, held, now())
}

/// The streams that are to be opened, and what else is to be done.
fn gets(commands: Vec<Command>) -> (Vec<(StreamId, BlobId, RangeSet)>, Vec<Command>) {
    let mut gets = Vec::new();
    let mut others = Vec::new();
    for command in commands {
        match command {
            Command::Get { stream, blob, ranges, .. } => gets.push((stream, blob, ranges)),
            other => others.push(other),
        }
    }
    (gets, others)
}

/// Brings all of a stream, and its end.
fn bring(pull: &mut Pull, stream: StreamId, ranges: &RangeSet) -> Vec<Command> {
    let mut commands = Vec::new();
    for range in ranges.iter() {
        commands.extend(pull.handle_verified(stream, range, now()));
    }
    commands.extend(pull.handle_end(stream, StreamEnd::Over, now()));
    commands
}

/// The manifest is here; the first streams of the attachments are open.
fn after_manifest() -> (Pull, Vec<(StreamId, BlobId, RangeSet)>) {
    let (mut pull, commands) = begin(nothing);
    let (manifest, _) = gets(commands);
    let (streams, _) = gets(bring(&mut pull, manifest[0].0, &manifest[0].2));
    (pull, streams)
}

// ---- the door ----

#[test]
fn an_own_relay_and_an_introduced_sender_may_offer() {
    let now = now().wall;
    assert_eq!(admit(&mut Door::new(), &offer(), RELAY, now), Ok(Standing::OwnRelay));
    let shown = introduced(&introduction(), LOCATION);
    assert_eq!(admit(&mut Door::new(), &shown, SENDER, now), Ok(Standing::Introduced(introduction())));
}

#[test]
fn bad_input_34_an_offer_of_a_stranger_is_refused() {
    let start = now().wall;
    let refused = |offer: &Offer, by: u8, now: UnixTime| admit(&mut Door::new(), offer, by, now).unwrap_err();
    assert_eq!(refused(&offer(), MALLORY, start), NotAdmitted::Stranger);
    assert_eq!(refused(&Offer { mailbox: carol(), ..offer() }, RELAY, start), NotAdmitted::Mailbox);
    assert_eq!(refused(&Offer { expires: start, ..offer() }, RELAY, start), NotAdmitted::Expired);
    let stale = NotAdmitted::Attestation(AttestationError::Expired);
    assert_eq!(
        refused(&offer(), RELAY, start.plus(hours(25))),
        stale,
        "the own attestation is too old to know relays"
    );
}

#[test]
fn bad_input_34_an_introduction_forged_expired_or_for_somebody_else_is_refused() {
    use IntroductionError as E;
    let start = now().wall;
    let case = |change: &dyn Fn(&mut Introduction), signer: u8, by: u8, now: UnixTime| {
        let mut introduction = introduction();
        change(&mut introduction);
        match admit(&mut Door::new(), &introduced(&introduction, signer), by, now).unwrap_err() {
            NotAdmitted::Introduction(error) => error,
            other => panic!("{other}"),
        }
    };
    assert_eq!(case(&|_| {}, MALLORY, SENDER, start), E::Signed(SignedError::Signature), "forged");
    assert_eq!(case(&|_| {}, LOCATION, MALLORY, start), E::OtherSender, "overheard");
    assert_eq!(case(&|i| i.recipient = carol(), LOCATION, SENDER, start), E::OtherMailbox);
    assert_eq!(case(&|_| {}, LOCATION, SENDER, start.plus(Duration::from_mins(15))), E::Expired);
    assert_eq!(case(&|i| i.expires = i.expires.plus(hours(1)), LOCATION, SENDER, start), E::Life);
    assert_eq!(case(&|i| i.bytes_max = 1_000, LOCATION, SENDER, start), E::TooManyBytes);
}

#[test]
fn bad_input_34_a_statement_of_one_kind_is_none_of_another() {
    // The location server signs attestations and introductions with the same key: neither passes for the other.
    let attested = signed(&attestation(), LOCATION);
    let passed_off = Signed::<Introduction>::from_bytes(&attested.to_bytes()).unwrap();
    assert_eq!(passed_off.verify(&peer(LOCATION)), Err(SignedError::Signature));
    let introduced = signed(&introduction(), LOCATION);
    let passed_off = Signed::<Attestation>::from_bytes(&introduced.to_bytes()).unwrap();
    assert_eq!(passed_off.verify(&peer(LOCATION)), Err(SignedError::Signature));
}

#[test]
fn bad_input_34_a_replayed_introduction_is_good_for_its_bytes_once() {
    let start = now().wall;
    let mut door = Door::new();
    let first = introduced(&introduction(), LOCATION);
    assert!(admit(&mut door, &first, SENDER, start).is_ok());
    assert!(admit(&mut door, &first, SENDER, start).is_ok(), "the same delivery again is not counted again");
    let second = Offer { delivery: DeliveryId([8; 16]), ..first.clone() };
    let too_many = Err(NotAdmitted::Introduction(IntroductionError::TooManyBytes));
    assert_eq!(admit(&mut door, &second, SENDER, start), too_many);
    let small = Offer { blobs: Vec::new(), ..second };
    assert!(admit(&mut door, &small, SENDER, start).is_ok(), "what is left of it");
    let grown = Offer { blobs: vec![blob(101, 39_999_000)], ..first };
    assert_eq!(admit(&mut door, &grown, SENDER, start), too_many, "a delivery that grows");
}

#[test]
fn bad_input_35_what_the_door_remembers_is_bounded() {
    let start = now().wall;
    let mut door = Door::new();
    let small = |delivery: u8, introduction: &Introduction| Offer {
        delivery: DeliveryId([delivery; 16]),
        manifest: blob(1, 1),
        blobs: Vec::new(),
        ..introduced(introduction, LOCATION)
    };
    for delivery in 0..=u8::try_from(INTRODUCTION_DELIVERIES_MAX).unwrap() {
        let admitted = admit(&mut door, &small(delivery, &introduction()), SENDER, start);
        assert_eq!(admitted.is_ok(), usize::from(delivery) < INTRODUCTION_DELIVERIES_MAX);
    }
    let numbered = |number: u64| Introduction { bytes_max: number, ..introduction() };
    for number in 1..INTRODUCTIONS_MAX as u64 {
        assert!(admit(&mut door, &small(0, &numbered(number)), SENDER, start).is_ok());
    }
    assert_eq!(admit(&mut door, &small(0, &numbered(1 << 30)), SENDER, start), Err(NotAdmitted::Crowded));
    let later = start.plus(Duration::from_mins(16));
    let fresh = Introduction { expires: later.plus(Duration::from_mins(5)), ..introduction() };
    assert!(admit(&mut door, &small(0, &fresh), SENDER, later).is_ok(), "expired ones are forgotten");
}

#[test]
fn bad_input_35_an_offer_that_lies_about_sizes_does_not_pass_the_door() {
    let start = now().wall;
    let empty = Offer { blobs: vec![blob(1, 0)], ..offer() };
    assert_eq!(admit(&mut Door::new(), &empty, RELAY, start), Err(NotAdmitted::EmptyBlob));
    let huge = Offer { blobs: vec![blob(1, u64::MAX)], ..offer() };
    assert!(matches!(admit(&mut Door::new(), &huge, RELAY, start), Err(NotAdmitted::Invalid(_))));
    let twice = Offer { blobs: vec![blob(1, 5), blob(1, 6)], ..offer() };
    assert!(matches!(admit(&mut Door::new(), &twice, RELAY, start), Err(NotAdmitted::Invalid(_))));
}

// ---- the answers ----

#[test]
fn answers_follow_what_is_there_and_what_has_room() {
    use Answer::{Have, Later, No, Pull as Yes};
    let case = |room: Room, held: fn(&BlobId) -> Held, standing: &Standing| {
        let (_, commands) = Pull::begin(offer(), peer(RELAY), standing, &room, held, now());
        match &commands[0] {
            Command::Answer { answers, .. } => answers.clone(),
            other => panic!("{other:?}"),
        }
    };
    let has_first = |id: &BlobId| if id.0[0] == 101 { Held::Whole } else { nothing(id) };
    let has_most =
        |id: &BlobId| if id.0[0] == 101 { Held::Some(RangeSet::whole(29_999_104)) } else { nothing(id) };
    let relay = Standing::OwnRelay;
    let stranger = Standing::Introduced(introduction());
    assert_eq!(case(ROOMY, nothing, &relay), [Yes, Yes]);
    assert_eq!(case(ROOMY, has_first, &relay), [Have, Yes]);
    assert_eq!(case(ROOMY, has_first, &stranger), [Yes, Yes], "strangers cannot ask what a user owns");
    assert_eq!(
        case(Room { blob_size_max: 100_000, ..ROOMY }, nothing, &relay),
        [No(NoReason::TooLarge), Yes]
    );
    assert_eq!(case(Room { manifest_size_max: 1, ..ROOMY }, nothing, &relay), [No(NoReason::TooLarge); 2]);
    assert_eq!(case(Room { quota_left: 70_000, ..ROOMY }, nothing, &relay), [Later(LaterReason::Quota), Yes]);
    assert_eq!(
        case(Room { quota_left: 70_000 + 896, ..ROOMY }, has_most, &relay),
        [Yes, Yes],
        "only what is missing counts"
    );
    assert_eq!(case(Room { disk_left: 80_000, ..ROOMY }, nothing, &relay), [Later(LaterReason::Disk), Yes]);
    assert_eq!(
        case(Room { disk_left: 1, ..ROOMY }, nothing, &relay),
        [Later(LaterReason::Disk); 2],
        "not even the manifest"
    );
    let paused = Room { closed: Some(LaterReason::Paused), ..ROOMY };
    assert_eq!(case(paused, has_first, &relay), [Have, Later(LaterReason::Paused)]);
}

#[test]
fn where_nothing_is_to_be_pulled_nothing_is_opened() {
    for room in [Room { closed: Some(LaterReason::Busy), ..ROOMY }, Room { blob_size_max: 1, ..ROOMY }] {
        let (_, commands) = Pull::begin(offer(), peer(RELAY), &Standing::OwnRelay, &room, nothing, now());
        assert!(
            matches!(commands[..], [Command::Answer { .. }, Command::Stop(Stop::Declined)]),
            "{commands:?}"
        );
    }
}

// ---- pulling ----

#[test]
fn the_manifest_comes_first_and_alone() {
    let (mut pull, commands) = begin(nothing);
    let (manifest, _) = gets(commands);
    assert_eq!(manifest.len(), 1);
    assert_eq!(manifest[0].1, offer().manifest.id);
    let (streams, _) = gets(bring(&mut pull, manifest[0].0, &manifest[0].2));
    assert_eq!(streams.len(), PULL_STREAMS_MAX);
    assert!(streams.iter().all(|(_, blob, _)| *blob != offer().manifest.id));
}

// SPEC: D3
#[test]
fn range_streams_share_a_blob_and_never_ask_for_a_byte_twice() {
    let (_, streams) = after_manifest();
    let mut all = RangeSet::new();
    let mut bytes = 0;
    let large = streams.iter().filter(|(_, blob, _)| *blob == offer().blobs[0].id);
    for (_, _, ranges) in large {
        assert!(
            ranges.len() < 10_000_000 + crate::blob::GROUP_LEN,
            "about a third each: one stream is still the manifest's"
        );
        bytes += ranges.len();
        for range in ranges.iter() {
            all.insert(range);
        }
    }
    assert_eq!((all.len(), bytes), (30_000_000, 30_000_000));
}

#[test]
fn many_small_attachments_are_asked_for_together() {
    let blobs: Vec<_> = (0..200).map(|number| blob(number, 10_000)).collect();
    let offer = Offer { manifest: blob(200, 0), blobs, ..offer() };
    let (mut pull, commands) = Pull::begin(offer, peer(RELAY), &Standing::OwnRelay, &ROOMY, nothing, now());
    let (streams, _) = gets(commands);
    assert_eq!(streams.len(), PULL_SMALL_STREAMS_MAX);
    // When half of them are over, as many are asked for in one go: so that one request can.
    let mut asked = Vec::new();
    for (stream, _, ranges) in &streams[..PULL_SMALL_STREAMS_MAX / 2] {
        assert!(asked.is_empty(), "nothing is asked for one by one");
        asked = gets(bring(&mut pull, *stream, ranges)).0;
    }
    assert_eq!(asked.len(), PULL_SMALL_STREAMS_MAX / 2);
}

// SPEC: D3
#[test]
fn a_pull_goes_on_where_it_stopped() {
    let held = |id: &BlobId| match id.0[0] {
        100 => Held::Some(RangeSet::whole(5_000)),
        101 => Held::Some([0..16_384, 32_768..30_000_000].into_iter().collect()),
        _ => Held::Some(RangeSet::whole(65_536)),
    };
    let (pull, commands) = begin(held);
    let (streams, _) = gets(commands);
    let asked: Vec<_> = streams.iter().map(|(_, _, ranges)| ranges.to_wire()).collect();
    assert_eq!(asked, [vec![(16_384, 32_768)], vec![(65_536, 70_000)]]);
    assert_eq!(pull.progress(), (5_000 + 30_000_000 - 16_384 + 65_536, 5_000 + 30_000_000 + 70_000));
}

// SPEC: D4
#[test]
fn what_the_store_had_is_read_again_before_it_is_receipted() {
    let (mut pull, commands) = begin(|_| Held::Whole);
    let (streams, others) = gets(commands);
    assert!(streams.is_empty());
    let reread = others.iter().filter(|command| matches!(command, Command::Reread { .. })).count();
    assert_eq!(reread, 3);
    let ids = [100, 101, 102].map(|number| BlobId([number; 32]));
    assert!(pull.handle_reread(&ids[0], true, now()).is_empty());
    assert!(pull.handle_reread(&ids[1], true, now()).is_empty());
    let damaged = gets(pull.clone().handle_reread(&ids[2], false, now())).0;
    assert_eq!(damaged[0].2.to_wire(), [(0, 70_000)], "what is damaged is pulled");
    assert!(matches!(pull.handle_reread(&ids[2], true, now())[..], [Command::SyncThenReceipt { .. }]));
}

// SPEC: D4
#[test]
fn a_whole_delivery_is_synced_then_receipted_then_done() {
    let (mut pull, streams) = after_manifest();
    let mut queue = streams;
    let mut last = Vec::new();
    while let Some((stream, _, ranges)) = queue.pop() {
        let (more, others) = gets(bring(&mut pull, stream, &ranges));
        queue.extend(more);
        last.extend(others);
    }
    let expected = Command::SyncThenReceipt {
        delivery: offer().delivery,
        mailbox: bob(),
        manifest: offer().manifest.id,
    };
    assert_eq!(last, [expected], "once, at the end");
    assert_eq!(pull.progress(), (30_075_000, 30_075_000));
    let receipt = signed(&receipt(), STORE);
    let sent = pull.handle_receipted(&receipt);
    assert_eq!(sent, [Command::SendReceipt { to: peer(RELAY), receipt: Box::new(receipt.clone()) }]);
    assert!(pull.handle_receipted(&receipt).is_empty(), "it is not sent twice");
    assert_eq!(pull.handle_released(&peer(RELAY)), [Command::Stop(Stop::Done)]);
}

#[test]
fn a_broken_stream_is_asked_for_again_but_for_what_it_brought() {
    let (mut pull, streams) = after_manifest();
    let (stream, blob, ranges) = streams[0].clone();
    let range = ranges.iter().next().unwrap();
    let half = range.start..range.start + GROUP_STEP;
    assert!(pull.handle_verified(stream, half.clone(), now()).is_empty());
    let (again, _) = gets(pull.handle_end(stream, StreamEnd::Over, now()));
    assert_eq!((again.len(), again[0].1), (1, blob));
    let mut rest = ranges;
    rest.subtract(&std::iter::once(half).collect());
    assert_eq!(again[0].2, rest.take(u64::MAX >> 1, 256).take(again[0].2.len(), 256));
    assert!(pull.handle_verified(stream, 0..1, now()).is_empty(), "a stream that is over says nothing");
}

#[test]
fn streams_that_a_holder_left_on_an_older_connection_are_asked_for_again_and_do_not_count_against_it() {
    let (mut pull, mut streams) = after_manifest();
    for _ in 0..10 {
        assert!(!streams.is_empty());
        let left = std::mem::take(&mut streams);
        for (stream, _, _) in left {
            let (more, others) = gets(pull.handle_end(stream, StreamEnd::Left, now()));
            assert!(others.iter().all(|command| !matches!(command, Command::Stop(_))), "{others:?}");
            streams.extend(more);
        }
    }
}

/// A whole number of groups.
const GROUP_STEP: u64 = 10 * crate::blob::GROUP_LEN;

#[test]
fn bad_input_35_a_source_that_sends_too_few_is_given_up_after_a_few_streams() {
    let (mut pull, commands) = begin(nothing);
    let mut stream = gets(commands).0[0].0;
    let mut opened = 1;
    loop {
        let (more, others) = gets(pull.handle_end(stream, StreamEnd::Over, now()));
        if let Some((next, _, _)) = more.first() {
            stream = *next;
            opened += 1;
        } else {
            assert_eq!(others, [Command::Stop(Stop::NoSource)]);
            break;
        }
    }
    assert_eq!(opened, crate::limits::FRUITLESS_STREAMS_MAX);
}

#[test]
fn bad_input_35_a_source_that_sends_wrong_bytes_is_not_asked_again() {
    let (mut pull, streams) = after_manifest();
    let (first, ..) = streams[0];
    let left: Vec<_> = streams[1..].iter().map(|(stream, ..)| Command::Leave { stream: *stream }).collect();
    assert_eq!(
        pull.handle_end(first, StreamEnd::Wrong, now()),
        left,
        "its other streams are stopped at once"
    );
    assert!(
        gets(pull.handle_offer(&offer(), peer(RELAY), &Standing::OwnRelay, now()).unwrap()).0.is_empty(),
        "nor when it offers again"
    );
    // Another holder takes over all that is missing.
    let (more, _) = gets(pull.handle_offer(&offer(), peer(SENDER), &Standing::OwnRelay, now()).unwrap());
    assert!(!more.is_empty());
    assert!(pull.sources().iter().any(|source| source.state == SourceState::Wrong));
    let mut open: Vec<_> = more.into_iter().map(|(stream, ..)| stream).collect();
    for (stream, ..) in &streams[1..] {
        let more = gets(pull.handle_end(*stream, StreamEnd::Left, now())).0;
        open.extend(more.into_iter().map(|(stream, ..)| stream));
    }
    assert_eq!(open.len(), PULL_STREAMS_MAX, "it is the only one");
    assert!(pull.handle_lost(&peer(SENDER), now()).is_empty(), "its streams have not ended");
    let mut last = Vec::new();
    for stream in open {
        last = pull.handle_end(stream, StreamEnd::Over, now());
    }
    assert_eq!(last, [Command::Stop(Stop::NoSource)]);
}

#[test]
fn a_stranger_who_joins_a_delivery_does_not_hear_what_is_here() {
    let held = |id: &BlobId| if id.0[0] == 101 { Held::Whole } else { nothing(id) };
    let (mut pull, commands) = begin(held);
    assert!(matches!(&commands[0], Command::Answer { answers, .. } if answers.contains(&Answer::Have)));
    let stranger = Standing::Introduced(introduction());
    let commands = pull.handle_offer(&offer(), peer(SENDER), &stranger, now()).unwrap();
    let [Command::Answer { answers, .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(answers, &[Answer::Pull, Answer::Pull]);
}

#[test]
fn a_relay_that_helped_hears_of_the_receipt_where_no_holder_is_left_and_a_device_or_another_recipient_never_does()
 {
    let (mut pull, streams) = after_manifest();
    pull.handle_source(peer(SENDER), Role::Relay, now());
    pull.handle_source(peer(MALLORY), Role::Device, now());
    pull.handle_source(peer(LOCATION), Role::Recipient, now());
    let mut queue = streams;
    let mut synced = false;
    while let Some((stream, _, ranges)) = queue.pop() {
        let (more, others) = gets(bring(&mut pull, stream, &ranges));
        queue.extend(more);
        synced |= others.iter().any(|command| matches!(command, Command::SyncThenReceipt { .. }));
    }
    assert!(synced);
    let receipt = signed(&receipt(), STORE);
    let send = |to| Command::SendReceipt { to, receipt: Box::new(receipt.clone()) };
    assert_eq!(pull.handle_receipted(&receipt), [send(peer(RELAY))]);
    assert_eq!(pull.handle_lost(&peer(RELAY), now()), [send(peer(SENDER))]);
    assert_eq!(pull.clone().handle_released(&peer(SENDER)), [Command::Stop(Stop::Done)]);
    assert_eq!(pull.handle_lost(&peer(SENDER), now()), [Command::Stop(Stop::Unheard)]);
}

// SPEC: D3
#[test]
fn another_recipient_that_says_no_to_everything_is_left() {
    let blobs = (1..=20).map(|number| blob(number, 5_000)).collect();
    let offer = Offer { blobs, ..offer() };
    let (mut pull, commands) = Pull::begin(offer, peer(RELAY), &Standing::OwnRelay, &ROOMY, nothing, now());
    let mut asked = commands;
    asked.extend(pull.handle_source(peer(SENDER), Role::Recipient, now()));
    let mut refused = 0;
    while let Some(command) = asked.pop() {
        let Command::Get { stream, from, ranges, .. } = command else { continue };
        asked.extend(if from == peer(SENDER) {
            refused += 1;
            pull.handle_end(stream, StreamEnd::Refused, now())
        } else {
            bring(&mut pull, stream, &ranges)
        });
    }
    assert!((1..=16).contains(&refused), "{refused}: it is not asked for each of them");
    assert_eq!(pull.sources()[1].state, SourceState::Gone);
    assert_eq!(pull.state, State::Syncing);
}

#[test]
fn a_source_that_lacks_one_blob_is_asked_for_the_others() {
    let (mut pull, streams) = after_manifest();
    pull.handle_source(peer(SENDER), Role::Device, now());
    let commands = pull.handle_lost(&peer(RELAY), now());
    assert!(commands.is_empty(), "{commands:?}");
    let mut asked = Vec::new();
    for (stream, ..) in streams {
        asked.extend(gets(pull.handle_end(stream, StreamEnd::Over, now())).0);
    }
    // It has not the first one: the rest of what was asked for is asked for nowhere, and the other comes from it.
    let first = asked[0].1;
    let mut ends = asked;
    let mut had = false;
    let mut last = Vec::new();
    while let Some((stream, blob, ranges)) = ends.pop() {
        last = if blob == first {
            pull.handle_end(stream, StreamEnd::Refused, now())
        } else {
            had = true;
            bring(&mut pull, stream, &ranges)
        };
        ends.extend(gets(last.clone()).0);
    }
    assert!(had);
    assert_eq!(last, [Command::Stop(Stop::NoSource)]);
}

#[test]
fn bad_input_35_ranges_beyond_the_blob_count_for_nothing() {
    let (mut pull, commands) = begin(nothing);
    let (manifest, _) = gets(commands);
    pull.handle_verified(manifest[0].0, 5_000..u64::MAX, now());
    assert_eq!(pull.progress().0, 0);
    pull.handle_verified(manifest[0].0, 0..u64::MAX, now());
    assert_eq!(pull.progress().0, 5_000);
}

#[test]
fn a_source_that_says_later_is_asked_later_and_no_later_than_the_longest_wait() {
    let start = now();
    let (mut pull, commands) = begin(nothing);
    let stream = gets(commands).0[0].0;
    let commands = pull.handle_end(stream, StreamEnd::Later(u32::MAX), start);
    let [Command::Wait(until)] = commands[..] else { panic!("{commands:?}") };
    assert!(until - start.instant <= crate::limits::BACKOFF_MAX);
    assert!(matches!(pull.handle_time(start)[..], [Command::Wait(_)]));
    assert_eq!(gets(pull.handle_time(start.plus(until - start.instant))).0.len(), 1);
}

#[test]
fn a_second_holder_of_the_same_delivery_becomes_a_source() {
    let (mut pull, streams) = after_manifest();
    let commands = pull.handle_offer(&offer(), peer(SENDER), &Standing::OwnRelay, now()).unwrap();
    assert!(matches!(&commands[..], [Command::Answer { to, .. }] if *to == peer(SENDER)));
    let commands = pull.handle_end(streams[0].0, StreamEnd::Refused, now());
    let asked = commands.iter().map(|command| match command {
        Command::Get { from, .. } => *from,
        other => panic!("{other:?}"),
    });
    assert_eq!(asked.collect::<Vec<_>>(), [peer(SENDER)]);
}

#[test]
fn bad_input_34_a_delivery_with_other_contents_under_the_same_number_is_refused() {
    let (mut pull, _) = after_manifest();
    let others = [
        Offer { manifest: blob(100, 5_001), ..offer() },
        Offer { manifest: blob(99, 5_000), ..offer() },
        Offer { blobs: vec![offer().blobs[0].clone()], ..offer() },
        Offer { mailbox: carol(), ..offer() },
    ];
    for other in others {
        assert_eq!(
            pull.handle_offer(&other, peer(SENDER), &Standing::OwnRelay, now()),
            Err(NotAdmitted::OtherContents)
        );
        if other.manifest.id != offer().manifest.id || other.mailbox != bob() {
            let receipted = Pull::again(other, peer(RELAY), &Standing::OwnRelay, &signed(&receipt(), STORE));
            assert_eq!(receipted.unwrap_err(), NotAdmitted::OtherContents);
        }
    }
}

// SPEC: D4
#[test]
fn bad_input_34_a_replayed_offer_of_a_receipted_delivery_gets_the_same_receipt() {
    let receipt = signed(&receipt(), STORE);
    let (mut pull, commands) = Pull::again(offer(), peer(RELAY), &Standing::OwnRelay, &receipt).unwrap();
    let send = |to| Command::SendReceipt { to, receipt: Box::new(receipt.clone()) };
    assert_eq!(
        commands,
        [Command::Answer { to: peer(RELAY), answers: vec![Answer::Have; 2] }, send(peer(RELAY))]
    );
    let commands = pull.handle_offer(&offer(), peer(SENDER), &Standing::OwnRelay, now()).unwrap();
    assert_eq!(commands[1], send(peer(SENDER)));
    assert!(pull.handle_released(&peer(RELAY)).is_empty(), "the other holder has not answered");
    assert_eq!(pull.handle_lost(&peer(SENDER), now()), [Command::Stop(Stop::Unheard)]);
}

#[test]
fn what_is_for_later_is_not_receipted() {
    let room = Room { quota_left: 100_000, ..ROOMY };
    let (mut pull, commands) = Pull::begin(offer(), peer(RELAY), &Standing::OwnRelay, &room, nothing, now());
    let (manifest, _) = gets(commands);
    let (small, _) = gets(bring(&mut pull, manifest[0].0, &manifest[0].2));
    assert_eq!(small.len(), 1);
    let commands = bring(&mut pull, small[0].0, &small[0].2);
    assert_eq!(commands, [Command::Stop(Stop::Part)]);
}

#[test]
fn a_failed_sync_receipts_nothing() {
    let (mut pull, _) = begin(|_| Held::Whole);
    for number in [100, 101, 102] {
        pull.handle_reread(&BlobId([number; 32]), true, now());
    }
    assert_eq!(pull.handle_not_synced(), [Command::Stop(Stop::NoSource)]);
    assert!(pull.handle_receipted(&signed(&receipt(), STORE)).is_empty());
}

// ---- turns on this side ----

/// Two sources with streams open on each; for ten seconds bytes come on all streams but one source's, which are held up or not.
/// The streams that are left for it.
fn left_after_ten_quiet_seconds(is_held: bool) -> Vec<StreamId> {
    let big = Offer { blobs: vec![crate::wire::OfferedBlob { size: 1 << 30, ..blob(7, 1) }], ..offer() };
    let (mut pull, commands) = Pull::begin(big, peer(RELAY), &Standing::OwnRelay, &ROOMY, nothing, now());
    let (manifest, _) = gets(commands);
    bring(&mut pull, manifest[0].0, &manifest[0].2);
    let mut open: Vec<StreamId> = Vec::new();
    let mut quiet: Vec<StreamId> = Vec::new();
    for command in pull.handle_source(peer(SENDER), Role::Relay, now()) {
        if let Command::Get { stream, .. } = command {
            quiet.push(stream);
        }
    }
    open.extend(
        (0..64).map(StreamId).filter(|stream| pull.blob_of(*stream).is_some() && !quiet.contains(stream)),
    );
    assert!(!open.is_empty() && !quiet.is_empty());
    let (mut left, mut received) = (Vec::new(), 0);
    for look in 1..=20 {
        received += 100_000;
        let at = now().plus(Duration::from_millis(500 * look));
        let seen: Vec<_> = open
            .iter()
            .map(|stream| (*stream, received))
            .chain(quiet.iter().map(|stream| (*stream, 0)))
            .collect();
        if is_held {
            pull.handle_held(&quiet);
        }
        for command in pull.handle_look(&seen, at) {
            if let Command::Leave { stream } = command {
                left.push(stream);
            }
        }
    }
    left.retain(|stream| quiet.contains(stream));
    left
}

#[test]
fn a_source_whose_streams_wait_for_their_turn_here_has_not_stalled() {
    assert!(!left_after_ten_quiet_seconds(false).is_empty(), "one that brings nothing by itself has");
    assert!(left_after_ten_quiet_seconds(true).is_empty());
}

// ---- without a holder ----

// SPEC: D3, D4
#[test]
fn a_delivery_that_was_let_in_goes_on_without_who_offered_it_and_keeps_its_receipt_for_them() {
    let source = (peer(SENDER), Role::Recipient);
    let half = |id: &BlobId| match id {
        id if *id == offer().manifest.id => Held::Whole,
        _ => Held::Some(RangeSet::whole(crate::blob::GROUP_LEN)),
    };
    let (mut pull, commands) = Pull::resume(offer(), source, &ROOMY, half, now());
    assert!(!commands.iter().any(|command| matches!(command, Command::Answer { .. })), "nobody asked");
    assert!(commands.iter().any(|command| matches!(command, Command::Reread { .. })));
    let (mut open, _) = gets(commands);
    open.extend(gets(pull.handle_reread(&offer().manifest.id, true, now())).0);
    assert!(open.iter().all(|(.., ranges)| ranges.iter().all(|range| range.start >= crate::blob::GROUP_LEN)));
    let mut last = Vec::new();
    while let Some((stream, _, ranges)) = open.pop() {
        let (more, others) = gets(bring(&mut pull, stream, &ranges));
        open.extend(more);
        last.extend(others);
    }
    assert!(matches!(last[..], [Command::SyncThenReceipt { .. }]), "{last:?}");
    let receipt = signed(&receipt(), STORE);
    assert_eq!(pull.handle_receipted(&receipt), [Command::Stop(Stop::Unheard)], "a recipient hears of none");
}

// SPEC: D3
#[test]
fn who_offers_it_again_joins_a_pull_that_went_on_without_them() {
    let (mut pull, _) = Pull::resume(offer(), (peer(SENDER), Role::Recipient), &ROOMY, nothing, now());
    let commands = pull.handle_offer(&offer(), peer(RELAY), &Standing::OwnRelay, now()).unwrap();
    assert_eq!(commands[0], Command::Answer { to: peer(RELAY), answers: vec![Answer::Pull; 2] });
    assert!(
        pull.handle_lost(&peer(SENDER), now()).iter().all(|command| !matches!(command, Command::Stop(_)))
    );
}

#[test]
fn what_there_is_no_room_for_any_more_does_not_go_on() {
    let room = Room { disk_left: 0, ..ROOMY };
    let (_, commands) = Pull::resume(offer(), (peer(SENDER), Role::Recipient), &room, nothing, now());
    assert_eq!(commands, [Command::Stop(Stop::Declined)]);
}
