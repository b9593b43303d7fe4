//! The exact bytes of every message and every statement, a comment for each field; and one hash over many of them that
//! changes when a format changes by accident.
//!
//! What fails here breaks every other implementation and every statement that somebody keeps. A format that is to
//! change gets a new context or a new ALPN, and new bytes beside these.

#![expect(clippy::unwrap_used, reason = "a test: what fails here is a failed test")]

mod drawn;
mod samples;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use lighter_protocol::blob::RangeSet;
use lighter_protocol::wire::{Message, Request, Response, decode, encode};
use lighter_protocol::{Signed, Statement};
use samples::*;

/// PeerId: length; multihash code 0 and length 36; protobuf: tag 8, type 1 (Ed25519), tag 0x12, length 32; the key.
const STORE_PEER: &str = "26 0024 08011220 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
const RELAY_PEER: &str = "26 0024 08011220 ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1";
const SENDER_PEER: &str = "26 0024 08011220 ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c";
/// A mailbox: length, UTF-8 text: `bob@b.example`.
const BOB: &str = "0d 626f6240622e6578616d706c65";
const DELIVERY: &str = "dddddddddddddddddddddddddddddddd";
const MANIFEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BLOB: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

const REGISTRATION_SIGNATURE: &str = "819b6bbb1bb0e4577abe7f3458e99899166db1f91ef4c4b74ee4d87c594c3bb2\
    3539a8344b3ba0de23d483ffb4cc7f0cae38aabaf8f272a855e8ac2740828f05";
const ATTESTATION_SIGNATURE: &str = "047df229e435a7f22e06a6d8af0c55367e399a7344a1030d06641cb2e35169a2\
    2dd3e3043a3cf768f7116c3e2e83d66a2752872845e39b01ae4e375be0819707";
const INTRODUCTION_SIGNATURE: &str = "19a72059ad2497a34c5898e01d12cbb10c4daf6e85004bd4c6ce99c3935955c7\
    e699a8f11a0369f965ddaaf404edd042895122be81a402f20e5cfca5b2ff070e";
const SEALING_KEY_SIGNATURE: &str = "b12b96090bff75c2226f3f43a879073a9847bdb38e2c39d61b2cbe17fb5f5150\
    9bf5c68d20c2bfcc882a0980aa06b0ddf22ef203907c4eb3cf7659f1def79605";
const RECEIPT_SIGNATURE: &str = "734d2495f647cb3c5b8ff063a0e762cca723824f4f6e3e5a654731f76f80cc62\
    6197be672238610955abc7bbd888b69f72d526e0058a896c5880e67c72ae5002";

const SHARING_SIGNATURE: &str = "11ced64752f65ef4a92ac42b0aa2ee3e863ab91b880c211fccc0891112cd0ae5\
    2a5c86d6c2d9070cff24d9582fabc988090201bf3ac369406099cec5e282ea0f";

const SUCCESSION_SIGNATURE: &str = "57ea5531987d5aa5dbb7f5633140d3d364f63f618641752652785e0a93ded692\
    6220bf4bf5cd14fbdbf7b4a9133bd5bc35a557a627aa2abfc5f50f572ec45707";

/// The payloads of the statements, field by field. Numbers are varints: 7 bits a byte, lowest first.
fn registration_payload() -> Vec<u8> {
    bytes(&[
        BOB,                                        // mailbox
        STORE_PEER,                                 // peer
        "02",                                       // addresses: two
        "00 c0000201 d122",                         //   IPv4, 192.0.2.1, port 4433 (varint)
        "01 20010db8000000000000000000000001 d122", // IPv6, 2001:db8::1, port 4433
        "ac02",                                     // sequence: 300
        "90c0a7da06",                               // expires: 1,800,003,600
    ])
}

fn attestation_payload() -> Vec<u8> {
    bytes(&[
        BOB,                                     // mailbox
        STORE_PEER,                              // peer
        "01",                                    // primary: yes
        "01",                                    // relays: one
        RELAY_PEER,                              //   peer
        "01 00 c0000201 d122",                   //   addresses: one, IPv4, 192.0.2.1, port 4433
        "11 68747470733a2f2f622e6578616d706c65", // retrieval_url: 17 bytes, https://b.example
        "80a4a7da06",                            // issued: 1,800,000,000
        "80c7acda06",                            // expires: 1,800,086,400
    ])
}

fn introduction_payload() -> Vec<u8> {
    bytes(&[
        SENDER_PEER,                         // sender
        "0f 616c69636540612e6578616d706c65", // sender_mailbox: alice@a.example
        BOB,                                 // recipient
        "80b48913",                          // bytes_max: 40,000,000
        "d8a8a7da06",                        // expires: 1,800,000,600
        "ac02",                              // number: 300
    ])
}

fn receipt_payload() -> Vec<u8> {
    bytes(&[
        DELIVERY,     // delivery
        BOB,          // mailbox
        STORE_PEER,   // store
        MANIFEST,     // manifest
        "e4a4a7da06", // time: 1,800,000,100
    ])
}

fn sealing_key_payload() -> Vec<u8> {
    bytes(&[
        BOB,          // mailbox
        STORE_PEER,   // peer
        BLOB,         // key: 32 bytes, as they are
        "80a4a7da06", // issued: 1,800,000,000
    ])
}

fn sharing_payload() -> Vec<u8> {
    bytes(&[
        DELIVERY,                        // delivery
        BOB,                             // giver
        STORE_PEER,                      // giver_store
        "0d 616e6e40622e6578616d706c65", // taker: ann@b.example
        RELAY_PEER,                      // taker_store
        "80c7acda06",                    // expires: 1,800,086,400
    ])
}

fn succession_payload() -> Vec<u8> {
    bytes(&[
        BOB,          // mailbox
        STORE_PEER,   // former
        RELAY_PEER,   // next
        "80a4a7da06", // time: 1,800,000,000
    ])
}

/// The bytes that these lines of hexadecimal digits stand for.
fn bytes(lines: &[&str]) -> Vec<u8> {
    let digits: String = lines.concat().split_whitespace().collect();
    HEX.decode(digits.as_bytes()).unwrap()
}

/// How a statement is stored: `u16` length and signature, `u16` length and payload, both little endian.
fn stored(signature: &str, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_le_bytes();
    [bytes(&["4000", signature]), len.to_vec(), payload.to_vec()].concat()
}

/// How a statement stands in a message: length (varint) and payload, length (64) and signature.
fn within(signature: &str, payload: &[u8]) -> Vec<u8> {
    let len = postcard::to_stdvec(&payload.len()).unwrap();
    [len, payload.to_vec(), bytes(&["40", signature])].concat()
}

#[track_caller]
fn check_statement<T>(statement: &T, by: u8, signature: &str, payload: &[u8])
where
    T: Statement + PartialEq + std::fmt::Debug,
{
    let stored = stored(signature, payload);
    let signed = signed(statement, by);
    assert_eq!(HEX.encode(&signed.to_bytes()), HEX.encode(&stored));
    assert_eq!(Signed::<T>::from_bytes(&stored).unwrap().verify(&peer(by)).as_ref(), Ok(statement));
}

#[track_caller]
fn check_message<M: Message + PartialEq + std::fmt::Debug>(message: &M, payload: &[u8]) {
    let frame = [&u32::try_from(payload.len()).unwrap().to_le_bytes(), payload].concat();
    assert_eq!(HEX.encode(&encode(message).unwrap()), HEX.encode(&frame));
    assert_eq!(&decode::<M>(payload).unwrap(), message);
}

#[test]
fn golden_statements() {
    check_statement(&registration(), STORE, REGISTRATION_SIGNATURE, &registration_payload());
    check_statement(&attestation(), LOCATION, ATTESTATION_SIGNATURE, &attestation_payload());
    check_statement(&introduction(), LOCATION, INTRODUCTION_SIGNATURE, &introduction_payload());
    check_statement(&receipt(), STORE, RECEIPT_SIGNATURE, &receipt_payload());
    check_statement(&sealing_key(), STORE, SEALING_KEY_SIGNATURE, &sealing_key_payload());
    check_statement(&sharing(), SENDER, SHARING_SIGNATURE, &sharing_payload());
    check_statement(&succession(), STORE, SUCCESSION_SIGNATURE, &succession_payload());
}

#[test]
fn golden_contexts() {
    use lighter_protocol::{
        Attestation, Introduction, Receipt, Registration, SealingKey, Sharing, Succession,
    };
    let contexts = [
        Registration::CONTEXT,
        Attestation::CONTEXT,
        Introduction::CONTEXT,
        Receipt::CONTEXT,
        SealingKey::CONTEXT,
        Sharing::CONTEXT,
        Succession::CONTEXT,
    ];
    let expected = [
        "lighter registration 1",
        "lighter attestation 1",
        "lighter introduction 1",
        "lighter receipt 1",
        "lighter sealing key 1",
        "lighter sharing 1",
        "lighter succession 1",
    ];
    assert_eq!(contexts, expected);
    // What is signed: the context, a zero byte, the payload.
    let signed = [b"lighter receipt 1\0".to_vec(), receipt_payload()].concat();
    assert!(key(STORE).public().verify(&signed, &bytes(&[RECEIPT_SIGNATURE])));
}

#[test]
fn golden_ping() {
    check_message(&Request::Ping, &bytes(&["00"])); // kind 0
    check_message(&Response::Pong, &bytes(&["00"])); // kind 0
}

#[test]
fn golden_have() {
    let [delivery, blob] = haves();
    check_message(&Request::Have(delivery), &bytes(&["01", "00", DELIVERY])); // kind 1; 0: a delivery; its id
    check_message(&Request::Have(blob), &bytes(&["01", "01", BLOB])); // kind 1; 1: a blob; its id
    check_message(&Response::Have(true), &bytes(&["01", "01"])); // kind 1; yes
}

#[test]
fn golden_offer() {
    let offered = bytes(&[
        "02",                                // kind 2
        DELIVERY,                            // delivery
        BOB,                                 // mailbox
        MANIFEST,                            // manifest: id
        "8827 00 00",                        //   size 5,000, no name, no type
        "01",                                // blobs: one
        BLOB,                                //   id
        "c0f0f50b",                          //   size 25,000,000
        "05 612e706466",                     //   name: a.pdf
        "0f 6170706c69636174696f6e2f706466", //   media_type: application/pdf
        "01",                                // sources: one
        RELAY_PEER,                          //   the relay
        "80bec5db06",                        // expires: 1,802,592,000
        "01",                                // introduction: there is one
    ]);
    let introduction = within(INTRODUCTION_SIGNATURE, &introduction_payload());
    check_message(&Request::Offer(offer()), &[offered, introduction].concat());
}

#[test]
fn golden_answer() {
    let answers = bytes(&[
        "02",    // kind 2
        "08",    // eight answers
        "00",    // Have
        "01",    // Pull
        "02 00", // Later: Quota
        "02 01", // Later: Disk
        "02 02", // Later: Busy
        "02 03", // Later: Paused
        "03 00", // No: TooLarge
        "03 01", // No: NotAccepted
    ]);
    check_message(&Response::Answer(samples::answers()), &answers);
}

#[test]
fn golden_get() {
    let get = bytes(&[
        "03",              // kind 3
        DELIVERY,          // delivery
        BLOB,              // blob
        "02",              // ranges: two
        "00 808001",       //   from 0 to 16,384
        "808040 c0f0f50b", //   from 1,048,576 to 25,000,000
        "01",              // attestation: there is one
    ]);
    let attestation = within(ATTESTATION_SIGNATURE, &attestation_payload());
    check_message(&Request::Get(samples::get()), &[get, attestation].concat());
    check_message(&Response::Data { size: 25_000_000 }, &bytes(&["03", "c0f0f50b"])); // kind 3; size
}

#[test]
fn golden_get_blobs() {
    let get = bytes(&[
        "0f",                                                               // kind 15
        "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",                                 // delivery
        "02",                                                               // blobs: two
        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", //   one
        "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b", //   the other
        "01",                                                               // attestation: there is one
    ]);
    let attestation = within(ATTESTATION_SIGNATURE, &attestation_payload());
    check_message(&Request::GetBlobs(get_blobs()), &[get, attestation].concat());
}

#[test]
fn golden_receipt() {
    let receipt = within(RECEIPT_SIGNATURE, &receipt_payload());
    let message = Request::Receipt(signed(&samples::receipt(), STORE));
    check_message(&message, &[bytes(&["04"]), receipt].concat()); // kind 4; the statement
    check_message(&Response::Released, &bytes(&["04"])); // kind 4
}

#[test]
fn golden_waiting() {
    let attestation = within(ATTESTATION_SIGNATURE, &attestation_payload());
    check_message(&Request::Waiting(waiting()), &[bytes(&["05"]), attestation].concat()); // kind 5; the statement
    check_message(&Response::Waiting(300), &bytes(&["05", "ac02"])); // kind 5; how many
}

#[test]
fn golden_meeting() {
    let introduction = within(INTRODUCTION_SIGNATURE, &introduction_payload());
    let meet = [bytes(&["06"]), introduction.clone(), bytes(&[STORE_PEER])].concat(); // kind 6; the statement; store
    check_message(&Request::Meet(meet_request()), &meet);
    let address = bytes(&["00 c0000201 d122"]); // IPv4, 192.0.2.1, port 4433
    check_message(&Response::Met(address_of_store()), &[bytes(&["08"]), address.clone()].concat()); // kind 8; address
    let knock = [bytes(&["07"]), introduction, address].concat(); // kind 7; the statement; address
    check_message(&Request::Knock(samples::knock()), &knock);
    check_message(&Request::Here(300), &bytes(&["08", "ac02"])); // kind 8; the introduction's number
    check_message(&Response::Coming, &bytes(&["09"])); // kind 9
}

#[test]
fn golden_drop() {
    let new = bytes(&[
        "09",         // kind 9
        DELIVERY,     // delivery
        BOB,          // recipient
        MANIFEST,     // envelope: id
        "8827",       //   size 5,000
        "01",         // blobs: one
        BLOB,         //   id
        "c0f0f50b",   //   size 25,000,000
        "80bec5db06", // expires: 1,802,592,000
    ]);
    let introduction = within(INTRODUCTION_SIGNATURE, &introduction_payload());
    check_message(&Request::Drop(new_drop()), &[new, introduction].concat());
    let answers = drop_answers();
    check_message(&Response::Dropped(answers[0]), &bytes(&["0a", "00", "80bec5db06"])); // kind 10; taken; until
    check_message(&Response::Dropped(answers[1]), &bytes(&["0a", "01", "00"])); // kind 10; later: quota
    check_message(&Response::Dropped(answers[2]), &bytes(&["0a", "02", "01"])); // kind 10; no: not accepted
}

#[test]
fn golden_drop_state() {
    use lighter_protocol::wire::DropState;
    check_message(&Request::DropState(offer().delivery), &bytes(&["0a", DELIVERY])); // kind 10; delivery
    check_message(&Response::DropState(DropState::Waiting), &bytes(&["0b", "00"])); // kind 11; waiting
    let receipt = within(RECEIPT_SIGNATURE, &receipt_payload());
    let receipted = DropState::Receipted(signed(&samples::receipt(), STORE));
    check_message(&Response::DropState(receipted), &[bytes(&["0b", "01"]), receipt].concat()); // kind 11; the receipt
    check_message(&Response::DropState(DropState::Expired), &bytes(&["0b", "02"])); // kind 11; expired
}

#[test]
fn golden_push() {
    let introduction = within(INTRODUCTION_SIGNATURE, &introduction_payload());
    let message = encode(&Request::PushOffer(offer())).unwrap();
    let mut as_offer = encode(&Request::Offer(offer())).unwrap();
    as_offer[4] = 0x0b; // kind 11; the rest is an offer's
    assert_eq!(message, as_offer);
    assert!(message.ends_with(&introduction));
    let parts = bytes(&[
        "02",              // parts: two
        MANIFEST,          //   blob
        "01 00 8827",      //   ranges: one, from 0 to 5,000
        BLOB,              //   blob
        "02",              //   ranges: two
        "00 808001",       //     from 0 to 16,384
        "808040 c0f0f50b", // from 1,048,576 to 25,000,000
    ]);
    let answer = [bytes(&["0c", "01 01"]), parts.clone()].concat(); // kind 12; answers: one, Pull; what is wanted
    check_message(&Response::PushAnswer(push_answer()), &answer);
    let push = [bytes(&["0c", DELIVERY]), parts].concat(); // kind 12; delivery; parts
    check_message(&Request::Push(samples::push()), &push);
    check_message(&Response::Pushed, &bytes(&["0d"])); // kind 13
}

#[test]
fn golden_sharing() {
    let sharing = within(SHARING_SIGNATURE, &sharing_payload());
    let sources = bytes(&[
        "0d",                               // kind 13
        "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", // delivery
        "01",                               // sharings: one
    ]);
    check_message(&Request::Sources(samples::sources()), &[sources, sharing.clone()].concat());
    check_message(&Response::Noted, &bytes(&["0e"])); // kind 14
    let mut get = encode(&Request::Get(get())).unwrap().split_off(4);
    get[0] = 0x0e; // kind 14; a get's fields; then the sharing
    check_message(&Request::GetShared(get_shared()), &[get, sharing].concat());
}

#[test]
fn golden_succession() {
    let one = within(SUCCESSION_SIGNATURE, &succession_payload());
    let message = Request::Succession(vec![signed(&succession(), STORE)]);
    check_message(&message, &[bytes(&["10", "01"]), one].concat()); // kind 16; successions: one
}

#[test]
fn golden_refusals() {
    check_message(&Response::Refused, &bytes(&["06"])); // kind 6
    check_message(&Response::Later(300), &bytes(&["07", "ac02"])); // kind 7; seconds
}

#[test]
fn golden_range_set() {
    let set: RangeSet = [0..16_384, 32_768..65_536].into_iter().collect();
    let expected = bytes(&[
        "02",            // ranges: two
        "00 808001",     //   gap 0, length 16,384
        "808001 808002", //   gap 16,384, length 32,768
    ]);
    assert_eq!(set.to_bytes(), expected);
    assert_eq!(RangeSet::from_bytes(&expected), Ok(set));
}

/// Five hundred of everything, drawn from a fixed source.
#[test]
fn no_format_changed_by_accident() {
    assert_eq!(
        drawn::hash_of_encodings(500),
        "230e7610c595b160403e641f308249717f162ea65835d929758c6a5422689e62"
    );
}
