use proptest::prelude::*;

use super::super::{
    Answer, Get, GetBlobs, GetShared, Have, NewDrop, Offer, OfferedBlob, SealedBlob, Sources,
};
use super::*;
use crate::limits::{
    BLOB_SIZE_MAX, GET_BLOBS_MAX, GET_RANGES_MAX, NAME_LEN_MAX, OFFER_BLOBS_MAX, SHARING_LEN_MAX,
    SHARINGS_MAX, SOURCES_MAX, STATEMENT_LEN_MAX, SUCCESSION_LEN_MAX, SUCCESSIONS_MAX,
};
use crate::wire::InvalidKind;
use crate::{BlobId, DeliveryId, Introduction, Keypair, PeerId, Sharing, Signed, UnixTime};

fn offered(size: u64) -> OfferedBlob {
    OfferedBlob {
        id: BlobId([size.to_le_bytes()[0]; 32]),
        size,
        name: String::new(),
        media_type: String::new(),
    }
}

fn offer() -> Offer {
    Offer {
        delivery: DeliveryId([1; 16]),
        mailbox: "bob@example.org".parse().unwrap(),
        manifest: offered(1),
        blobs: vec![offered(2), offered(3)],
        sources: Vec::new(),
        expires: UnixTime(0),
        introduction: None,
    }
}

fn get(ranges: Vec<(u64, u64)>) -> Get {
    Get { delivery: DeliveryId([1; 16]), blob: BlobId([2; 32]), ranges, attestation: None }
}

fn peer() -> PeerId {
    Keypair::ed25519_from_bytes([9; 32]).unwrap().public().to_peer_id()
}

/// The payload of a message that `encode` would not let out.
fn unchecked(message: &Request) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap()
}

fn refused(request: &Request) -> (InvalidKind, &'static str, usize) {
    let error = decode::<Request>(&unchecked(request)).unwrap_err();
    assert_eq!(encode(request).unwrap_err(), error, "what is refused is not sent either");
    match error {
        WireError::Invalid(invalid) => (invalid.kind, invalid.field, invalid.index),
        other => panic!("{other}"),
    }
}

#[test]
fn messages_come_out_whole_however_the_bytes_are_cut() {
    let messages =
        [Request::Ping, Request::Offer(offer()), Request::Get(get(vec![(0, 5), (5, 9)])), Request::Ping];
    let stream: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
    for piece in 1..stream.len() {
        let mut decoder = Decoder::<Request>::new();
        let mut got = Vec::new();
        for mut input in stream.chunks(piece) {
            while let Some(message) = decoder.feed(&mut input).unwrap() {
                got.push(message);
            }
            assert!(input.is_empty());
        }
        decoder.finish().unwrap();
        assert_eq!(got, messages);
    }
}

#[test]
fn what_follows_a_message_is_left_to_the_verified_stream() {
    let mut stream = encode(&Response::Data { size: 7 }).unwrap();
    stream.extend_from_slice(b"the blob");
    let mut input = stream.as_slice();
    assert_eq!(Decoder::new().feed(&mut input), Ok(Some(Response::Data { size: 7 })));
    assert_eq!(input, b"the blob");
}

#[test]
fn bad_input_35_a_length_that_lies_is_refused_as_soon_as_it_shows() {
    let feed = |mut bytes: &[u8]| Decoder::<Request>::new().feed(&mut bytes);
    let over = WIRE_MESSAGE_LEN_MAX + 1;
    assert_eq!(feed(&[0, 0, 0, 0]), Err(WireError::Length { len: 0, max: WIRE_MESSAGE_LEN_MAX }));
    assert_eq!(
        feed(&0x0010_0001_u32.to_le_bytes()),
        Err(WireError::Length { len: over, max: WIRE_MESSAGE_LEN_MAX })
    );
    assert_eq!(
        feed(&[65, 0, 0, 0, 0]),
        Err(WireError::Length { len: 65, max: SMALL_MESSAGE_LEN_MAX }),
        "a long ping"
    );
    assert_eq!(feed(&[1, 0, 0, 0, 127]), Err(WireError::UnknownKind(127)));
    assert_eq!(feed(&[2, 0, 0, 0, 0, 0]), Err(WireError::LeftOver(1)), "a ping and a byte");
    assert_eq!(feed(&[2, 0, 0, 0, 1, 9]), Err(WireError::Malformed));
    assert_eq!(decode::<Request>(&[]), Err(WireError::CutOff));
}

#[test]
fn memory_follows_the_bytes_that_came_not_the_length_that_was_promised() {
    let mut decoder = Decoder::<Request>::new();
    let mut promise: &[u8] = &[0, 0, 0x10, 0, 2];
    assert_eq!(decoder.feed(&mut promise), Ok(None));
    assert!(decoder.frame.capacity() < 64);
    assert_eq!(decoder.finish(), Err(WireError::CutOff));
}

#[test]
fn a_decoder_that_failed_stays_failed() {
    let mut decoder = Decoder::<Request>::new();
    assert!(decoder.feed(&mut [0_u8; 4].as_slice()).is_err());
    assert!(decoder.feed(&mut encode(&Request::Ping).unwrap().as_slice()).is_err());
    assert!(decoder.finish().is_err());
}

#[test]
fn bad_input_35_an_offer_beyond_its_bounds_is_refused_with_kind_and_place() {
    let case = |change: &dyn Fn(&mut Offer)| {
        let mut offer = offer();
        change(&mut offer);
        refused(&Request::Offer(offer))
    };
    let many = case(&|offer| offer.blobs = vec![offered(2); OFFER_BLOBS_MAX + 1]);
    assert_eq!(many, (InvalidKind::TooMany, "offer.blobs", OFFER_BLOBS_MAX));
    let name = case(&|offer| offer.blobs[1].name = "n".repeat(NAME_LEN_MAX + 1));
    assert_eq!(name, (InvalidKind::TooLong, "offer.blobs", 1));
    let media_type = case(&|offer| offer.blobs[0].media_type = "n".repeat(NAME_LEN_MAX + 1));
    assert_eq!(media_type, (InvalidKind::TooLong, "offer.blobs", 0));
    let size = case(&|offer| offer.blobs[1].size = BLOB_SIZE_MAX + 1);
    assert_eq!(size, (InvalidKind::TooLarge, "offer.blobs", 1));
    let manifest = case(&|offer| offer.manifest.size = u64::MAX);
    assert_eq!(manifest, (InvalidKind::TooLarge, "offer.manifest", 0));
    let twice = case(&|offer| offer.blobs[1] = OfferedBlob { size: 9, ..offered(2) });
    assert_eq!(twice, (InvalidKind::SizeConflict, "offer.blobs", 1));
    let sources = case(&|offer| offer.sources = vec![peer(); SOURCES_MAX + 1]);
    assert_eq!(sources, (InvalidKind::TooMany, "offer.sources", SOURCES_MAX));
}

/// The longest that there is.
fn sharing() -> Signed<Sharing> {
    let of = |key: u8| Keypair::ed25519_from_bytes([key; 32]).unwrap();
    let domain = format!("{0}.{0}.{0}.{1}", "d".repeat(63), "d".repeat(61));
    let mailbox = |letter: &str| format!("{}@{domain}", letter.repeat(64)).parse().unwrap();
    let sharing = Sharing {
        delivery: DeliveryId([1; 16]),
        giver: mailbox("g"),
        giver_store: of(1).public().to_peer_id(),
        taker: mailbox("t"),
        taker_store: of(2).public().to_peer_id(),
        expires: UnixTime(u64::MAX),
    };
    Signed::sign(&sharing, &of(3)).unwrap()
}

// SPEC: D3
#[test]
fn bad_input_35_sources_and_shared_gets_beyond_their_bounds_are_refused_with_kind_and_place() {
    let delivery = DeliveryId([1; 16]);
    let sources = |sharings| Request::Sources(Sources { delivery, sharings });
    let most = sources(vec![sharing(); SHARINGS_MAX]);
    assert_eq!(
        decode::<Request>(&encode(&most).unwrap()[4..]),
        Ok(most),
        "as many as may be fit, however long"
    );
    assert!(sharing().lens().0 <= SHARING_LEN_MAX);
    let none = refused(&sources(Vec::new()));
    assert_eq!(none, (InvalidKind::TooFew, "sources.sharings", 0));
    let short = || Signed::from_bytes(&[1, 0, 9, 1, 0, 9]).unwrap();
    let many = refused(&sources(vec![short(); SHARINGS_MAX + 1]));
    assert_eq!(many, (InvalidKind::TooMany, "sources.sharings", SHARINGS_MAX));
    let len = u16::try_from(SHARING_LEN_MAX + 1).unwrap().to_le_bytes();
    let long = [&[1, 0, 9][..], &len, &vec![0; SHARING_LEN_MAX + 1]].concat();
    let long = || Signed::from_bytes(&long).unwrap();
    let too_long = refused(&sources(vec![short(), long()]));
    assert_eq!(too_long, (InvalidKind::TooLong, "sources.sharings", 1));
    let shared = |get, sharing| Request::GetShared(GetShared { get, sharing });
    let most: Vec<_> =
        (0..GET_RANGES_MAX as u64).map(|at| (BLOB_SIZE_MAX - 2 * at - 1, BLOB_SIZE_MAX - 2 * at)).collect();
    let most = shared(get(most.into_iter().rev().collect()), sharing());
    assert_eq!(decode::<Request>(&encode(&most).unwrap()[4..]), Ok(most));
    let too_long = refused(&shared(get(Vec::new()), long()));
    assert_eq!(too_long, (InvalidKind::TooLong, "get-shared.sharing", 0));
    let backwards = refused(&shared(get(vec![(5, 5)]), short()));
    assert_eq!(backwards, (InvalidKind::EmptyRange, "get.ranges", 0));
}

#[test]
fn bad_input_35_successions_beyond_their_bounds_are_refused_with_kind_and_place() {
    let statement = |len: usize| {
        let bytes =
            [&64_u16.to_le_bytes()[..], &[9; 64], &u16::try_from(len).unwrap().to_le_bytes(), &vec![0; len]];
        Signed::from_bytes(&bytes.concat()).unwrap()
    };
    let many = |count, len| Request::Succession(vec![statement(len); count]);
    assert_eq!(refused(&many(0, 0)), (InvalidKind::TooFew, "successions", 0));
    let too_many = refused(&many(SUCCESSIONS_MAX + 1, 9));
    assert_eq!(too_many, (InvalidKind::TooMany, "successions", SUCCESSIONS_MAX));
    assert_eq!(refused(&many(2, SUCCESSION_LEN_MAX + 1)), (InvalidKind::TooLong, "successions", 0));
    assert!(encode(&many(SUCCESSIONS_MAX, SUCCESSION_LEN_MAX)).is_ok(), "the largest that is allowed fits");
}

#[test]
fn bad_input_35_blobs_asked_for_together_beyond_their_bounds_are_refused_with_kind_and_place() {
    let get = |count: usize, attestation| {
        Request::GetBlobs(GetBlobs {
            delivery: DeliveryId([1; 16]),
            blobs: vec![BlobId([2; 32]); count],
            attestation,
        })
    };
    assert_eq!(refused(&get(0, None)), (InvalidKind::TooFew, "get-blobs.blobs", 0));
    let many = refused(&get(GET_BLOBS_MAX + 1, None));
    assert_eq!(many, (InvalidKind::TooMany, "get-blobs.blobs", GET_BLOBS_MAX));
    let statement = |len: usize| {
        let bytes =
            [&64_u16.to_le_bytes()[..], &[9; 64], &u16::try_from(len).unwrap().to_le_bytes(), &vec![0; len]];
        Some(Signed::from_bytes(&bytes.concat()).unwrap())
    };
    let most = get(GET_BLOBS_MAX, statement(STATEMENT_LEN_MAX));
    assert_eq!(
        decode::<Request>(&encode(&most).unwrap()[4..]),
        Ok(most),
        "as many as may be fit, however long"
    );
}

#[test]
fn bad_input_35_a_drop_beyond_its_bounds_is_refused_with_kind_and_place() {
    let case = |change: &dyn Fn(&mut NewDrop)| {
        let sealed = |number: u8| SealedBlob { id: BlobId([number; 32]), size: 5 };
        let key = Keypair::ed25519_from_bytes([9; 32]).unwrap();
        let introduction = Introduction {
            sender: peer(),
            sender_mailbox: "alice@example.org".parse().unwrap(),
            recipient: "bob@example.org".parse().unwrap(),
            bytes_max: 1,
            expires: UnixTime(0),
            number: 0,
        };
        let mut new = NewDrop {
            delivery: DeliveryId([1; 16]),
            recipient: "bob@example.org".parse().unwrap(),
            envelope: sealed(1),
            blobs: vec![sealed(2), sealed(3)],
            expires: UnixTime(0),
            introduction: Signed::sign(&introduction, &key).unwrap(),
        };
        change(&mut new);
        refused(&Request::Drop(new))
    };
    let many = case(&|new| new.blobs = vec![new.blobs[0]; OFFER_BLOBS_MAX + 1]);
    assert_eq!(many, (InvalidKind::TooMany, "drop.blobs", OFFER_BLOBS_MAX));
    let size = case(&|new| new.blobs[1].size = BLOB_SIZE_MAX + 1);
    assert_eq!(size, (InvalidKind::TooLarge, "drop.blobs", 1));
    let envelope = case(&|new| new.envelope.size = u64::MAX);
    assert_eq!(envelope, (InvalidKind::TooLarge, "drop.envelope", 0));
    let twice = case(&|new| new.blobs[1] = SealedBlob { size: 9, ..new.blobs[0] });
    assert_eq!(twice, (InvalidKind::SizeConflict, "drop.blobs", 1));
}

#[test]
fn bad_input_35_ranges_that_are_none_are_refused_with_kind_and_place() {
    let case = |ranges: &[(u64, u64)]| refused(&Request::Get(get(ranges.to_vec())));
    assert_eq!(case(&[(5, 5)]), (InvalidKind::EmptyRange, "get.ranges", 0));
    assert_eq!(case(&[(0, 5), (9, 6)]), (InvalidKind::EmptyRange, "get.ranges", 1));
    assert_eq!(case(&[(0, 5), (4, 9)]), (InvalidKind::RangeOrder, "get.ranges", 1));
    assert_eq!(case(&[(8, 9), (0, 2)]), (InvalidKind::RangeOrder, "get.ranges", 1));
    assert_eq!(case(&[(0, BLOB_SIZE_MAX + 1)]), (InvalidKind::RangeBeyond, "get.ranges", 0));
    let many: Vec<_> = (0..GET_RANGES_MAX as u64 + 1).map(|at| (2 * at, 2 * at + 1)).collect();
    assert_eq!(case(&many), (InvalidKind::TooMany, "get.ranges", GET_RANGES_MAX));
}

#[test]
fn the_largest_of_each_message_fits() {
    let long = "ü".repeat(NAME_LEN_MAX / 2);
    let blob = |at: usize| OfferedBlob {
        id: BlobId(*blake3::hash(&at.to_le_bytes()).as_bytes()),
        size: BLOB_SIZE_MAX,
        name: long.clone(),
        media_type: long.clone(),
    };
    let offer = Offer {
        mailbox: format!("{}@{}", "l".repeat(64), "d".repeat(255)).parse().unwrap(),
        blobs: (0..OFFER_BLOBS_MAX).map(blob).collect(),
        sources: vec![peer(); SOURCES_MAX],
        expires: UnixTime(u64::MAX),
        ..offer()
    };
    assert!(encode(&Request::Offer(offer)).is_ok());
    let start = BLOB_SIZE_MAX - 4 * GET_RANGES_MAX as u64;
    let ranges = (0..GET_RANGES_MAX as u64).map(|at| (start + 2 * at, start + 2 * at + 1)).collect();
    assert!(encode(&Request::Get(get(ranges))).is_ok());
    assert!(encode(&Response::Answer(vec![Answer::Pull; OFFER_BLOBS_MAX])).is_ok());
    assert!(encode(&Request::Have(Have::Blob(BlobId([255; 32])))).is_ok());
    assert!(encode(&Response::Waiting(u64::MAX)).is_ok());
}

proptest! {
    #[test]
    fn bytes_of_any_kind_give_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = decode::<Request>(&bytes) {
            prop_assert!(encode(&message).is_ok());
        }
        if let Ok(message) = decode::<Response>(&bytes) {
            prop_assert!(encode(&message).is_ok());
        }
        let mut input = bytes.as_slice();
        let mut decoder = Decoder::<Request>::new();
        while let Ok(Some(_)) = decoder.feed(&mut input) {}
    }
}
