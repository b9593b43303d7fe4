use lighter_protocol::UnixTime;
use proptest::prelude::*;

use super::*;
use crate::contract::{accepted, delivery, dropped, handed_over, receipted, stub, ticket, whole};
use crate::{HandOver, Notify};

/// Golden bytes: variant by variant, with a word for each field. A test that fails here means that logs on disk can
/// no longer be read.
fn check(change: &Change, golden: &[&[u8]]) {
    let bytes = change.encode().unwrap();
    assert_eq!(bytes, golden.concat(), "{change:?}");
    assert_eq!(Change::decode(&bytes).as_ref(), Ok(change));
}

const VERSION_1: &[u8] = &[1];

#[test]
fn golden_bytes_of_small_changes() {
    let id = MessageId([0x11; 16]);
    check(&Change::Voided(id), &[VERSION_1, &[1], &[0x11; 16]]);
    let which = vec![HandOver::first(2), HandOver::lapsed(300)];
    check(
        &Change::HandedOver { message: id, hand_overs: which.clone(), at: UnixTime(1_000) },
        &[
            VERSION_1,
            &[2],          // variant
            &[0x11; 16],   // message
            &[2],          // two hand-overs
            &[2, 0],       // recipient 2, the first
            &[0xac, 2, 1], // recipient 300, lapsed
            &[0xe8, 7],    // at 1,000 s
        ],
    );
    check(
        &Change::HandOverFailed { message: id, hand_overs: which, at: UnixTime(1_000) },
        &[VERSION_1, &[3], &[0x11; 16], &[2], &[2, 0], &[0xac, 2, 1], &[0xe8, 7]],
    );
    check(&Change::Released { delivery: delivery(0x22) }, &[VERSION_1, &[5], &[0x22; 16]]);
    check(
        &Change::Expired { delivery: delivery(0x22), at: UnixTime(1_000) },
        &[VERSION_1, &[6], &[0x22; 16], &[0xe8, 7]],
    );
    check(
        &Change::TicketRevoked { delivery: delivery(0x22), generation: 1 },
        &[VERSION_1, &[7], &[0x22; 16], &[1]],
    );
    check(
        &Change::TicketRenewed { delivery: delivery(0x22), generation: 1, ticket: ticket(1, 1) },
        &[VERSION_1, &[8], &[0x22; 16], &[1], &ticket(1, 1).0],
    );
}

/// The large ones by their hash: a change of any field of theirs, or of what they are made of, shows.
#[test]
fn golden_hash_of_large_changes() {
    let mut recipients = vec![stub("alice", 1), whole("carol")];
    recipients[1].notify = Notify::On { success: true, failure: false, delay: true };
    recipients[1].orcpt = Some("rfc822;carol+40example.org".into());
    let all = [accepted(1, recipients), receipted(1, "alice"), handed_over(1, &[HandOver::first(0)])];
    let bytes: Vec<u8> = all.iter().flat_map(|change| change.encode().unwrap()).collect();
    let hash = blake3::hash(&bytes).to_hex();
    assert_eq!(hash.as_str(), GOLDEN_HASH, "{} bytes", bytes.len());
}

#[test]
fn golden_hash_of_a_drop() {
    let bytes = dropped(1, "alice").encode().unwrap();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), GOLDEN_DROP, "{} bytes", bytes.len());
    assert_eq!(Change::decode(&bytes), Ok(dropped(1, "alice")));
}

const GOLDEN_DROP: &str = "13d94589e0f126d5f86cdb0021616985d3aafc24f6205b180d0bfb529f7fede2";
const GOLDEN_HASH: &str = "abf6220bbe841b9950e09454f3c4cee2b6bb616de78873dedbe50c6b93c39d18";

#[test]
fn a_change_over_a_bound_is_neither_written_nor_read() {
    let many = Change::HandedOver {
        message: MessageId([1; 16]),
        hand_overs: vec![HandOver::first(0); RECIPIENTS_MAX + 1],
        at: UnixTime(0),
    };
    assert_eq!(many.encode(), Err(ChangeError::OutOfBounds(OutOfBounds("hand-overs"))));
    let bytes = postcard::to_extend(&many, vec![VERSION]).unwrap();
    assert_eq!(Change::decode(&bytes), Err(ChangeError::OutOfBounds(OutOfBounds("hand-overs"))));
    let mut no_mailbox = stub("alice", 1);
    no_mailbox.mailbox = None;
    assert!(matches!(accepted(1, vec![no_mailbox]).encode(), Err(ChangeError::OutOfBounds(_))));
    assert_eq!(Change::decode(&vec![VERSION; CHANGE_LEN_MAX + 1]), Err(ChangeError::TooLong));
}

#[test]
fn bytes_that_are_no_change_are_told_apart() {
    assert_eq!(Change::decode(&[]), Err(ChangeError::Malformed));
    assert_eq!(Change::decode(&[2, 1]), Err(ChangeError::Version(2)));
    let mut bytes = Change::Voided(MessageId([1; 16])).encode().unwrap();
    assert_eq!(Change::decode(&bytes[..bytes.len() - 1]), Err(ChangeError::Malformed));
    bytes.push(0);
    assert_eq!(Change::decode(&bytes), Err(ChangeError::Malformed), "bytes left over");
}

proptest! {
    #[test]
    fn bad_input_34_any_bytes_decode_or_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(change) = Change::decode(&bytes) {
            prop_assert!(change.encode().is_ok());
        }
    }
}
