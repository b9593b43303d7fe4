//! One of each message and statement, with fields that are easy to find in the bytes.

use std::net::SocketAddr;

use lighter_protocol::wire::{
    Answer, DropAnswer, Get, GetBlobs, GetShared, Have, Knock, LaterReason, Meet, NewDrop, NoReason, Offer,
    OfferedBlob, Push, PushAnswer, PushPart, SealedBlob, Sources, Waiting,
};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Introduction, Keypair, Mailbox, PeerId, Receipt, Registration,
    RelayRecord, SealingKey, Sharing, Signed, Statement, Succession, UnixTime,
};

/// The keys are made of this byte, 32 times.
pub(crate) const LOCATION: u8 = 1;
pub(crate) const STORE: u8 = 2;
pub(crate) const RELAY: u8 = 3;
pub(crate) const SENDER: u8 = 4;

pub(crate) fn key(of: u8) -> Keypair {
    Keypair::ed25519_from_bytes([of; 32]).unwrap()
}

pub(crate) fn peer(of: u8) -> PeerId {
    key(of).public().to_peer_id()
}

pub(crate) fn bob() -> Mailbox {
    "bob@b.example".parse().unwrap()
}

pub(crate) fn signed<T: Statement>(statement: &T, by: u8) -> Signed<T> {
    Signed::sign(statement, &key(by)).unwrap()
}

pub(crate) fn registration() -> Registration {
    Registration {
        mailbox: bob(),
        peer: peer(STORE),
        addresses: vec!["192.0.2.1:4433".parse().unwrap(), "[2001:db8::1]:4433".parse().unwrap()],
        sequence: 300,
        expires: UnixTime(1_800_003_600),
    }
}

pub(crate) fn attestation() -> Attestation {
    Attestation {
        mailbox: bob(),
        peer: peer(STORE),
        primary: true,
        relays: vec![RelayRecord {
            peer: peer(RELAY),
            addresses: vec!["192.0.2.1:4433".parse().unwrap()],
            retrieval_url: "https://b.example".to_owned(),
        }],
        issued: UnixTime(1_800_000_000),
        expires: UnixTime(1_800_086_400),
    }
}

pub(crate) fn introduction() -> Introduction {
    Introduction {
        sender: peer(SENDER),
        sender_mailbox: "alice@a.example".parse().unwrap(),
        recipient: bob(),
        bytes_max: 40_000_000,
        expires: UnixTime(1_800_000_600),
        number: 300,
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        delivery: DeliveryId([0xdd; 16]),
        mailbox: bob(),
        store: peer(STORE),
        manifest: BlobId([0xaa; 32]),
        time: UnixTime(1_800_000_100),
    }
}

pub(crate) fn offer() -> Offer {
    let blob = |id: u8, size, name: &str, media_type: &str| OfferedBlob {
        id: BlobId([id; 32]),
        size,
        name: name.to_owned(),
        media_type: media_type.to_owned(),
    };
    Offer {
        delivery: DeliveryId([0xdd; 16]),
        mailbox: bob(),
        manifest: blob(0xaa, 5_000, "", ""),
        blobs: vec![blob(0xbb, 25_000_000, "a.pdf", "application/pdf")],
        sources: vec![peer(RELAY)],
        expires: UnixTime(1_802_592_000),
        introduction: Some(signed(&introduction(), LOCATION)),
    }
}

pub(crate) fn get() -> Get {
    Get {
        delivery: DeliveryId([0xdd; 16]),
        blob: BlobId([0xbb; 32]),
        ranges: vec![(0, 16_384), (1_048_576, 25_000_000)],
        attestation: Some(signed(&attestation(), LOCATION)),
    }
}

pub(crate) fn push() -> Push {
    let part = |id: u8, ranges: &[(u64, u64)]| PushPart { blob: BlobId([id; 32]), ranges: ranges.to_vec() };
    let parts = vec![part(0xaa, &[(0, 5_000)]), part(0xbb, &[(0, 16_384), (1_048_576, 25_000_000)])];
    Push { delivery: DeliveryId([0xdd; 16]), parts }
}

pub(crate) fn push_answer() -> PushAnswer {
    PushAnswer { answers: vec![Answer::Pull], wanted: push().parts }
}

/// Bob gives to Ann, whose store has the relay's key.
pub(crate) fn sharing() -> Sharing {
    Sharing {
        delivery: DeliveryId([0xdd; 16]),
        giver: bob(),
        giver_store: peer(STORE),
        taker: "ann@b.example".parse().unwrap(),
        taker_store: peer(RELAY),
        expires: UnixTime(1_800_086_400),
    }
}

/// The key of Bob's store goes; the one that comes is the relay's.
pub(crate) fn succession() -> Succession {
    Succession { mailbox: bob(), former: peer(STORE), next: peer(RELAY), time: UnixTime(1_800_000_000) }
}

pub(crate) fn sources() -> Sources {
    Sources { delivery: DeliveryId([0xee; 16]), sharings: vec![signed(&sharing(), SENDER)] }
}

pub(crate) fn get_blobs() -> GetBlobs {
    GetBlobs {
        delivery: DeliveryId([0xee; 16]),
        blobs: vec![BlobId([0x5a; 32]), BlobId([0x6b; 32])],
        attestation: Some(signed(&attestation(), LOCATION)),
    }
}

pub(crate) fn get_shared() -> GetShared {
    GetShared { get: get(), sharing: signed(&sharing(), SENDER) }
}

pub(crate) fn waiting() -> Waiting {
    Waiting { attestation: signed(&attestation(), LOCATION) }
}

pub(crate) fn meet_request() -> Meet {
    Meet { introduction: signed(&introduction(), LOCATION), store: peer(STORE) }
}

pub(crate) fn address_of_store() -> SocketAddr {
    "192.0.2.1:4433".parse().unwrap()
}

pub(crate) fn knock() -> Knock {
    Knock { introduction: signed(&introduction(), LOCATION), address: address_of_store() }
}

pub(crate) fn haves() -> [Have; 2] {
    [Have::Delivery(DeliveryId([0xdd; 16])), Have::Blob(BlobId([0xbb; 32]))]
}

pub(crate) fn answers() -> Vec<Answer> {
    vec![
        Answer::Have,
        Answer::Pull,
        Answer::Later(LaterReason::Quota),
        Answer::Later(LaterReason::Disk),
        Answer::Later(LaterReason::Busy),
        Answer::Later(LaterReason::Paused),
        Answer::No(NoReason::TooLarge),
        Answer::No(NoReason::NotAccepted),
    ]
}

pub(crate) fn sealing_key() -> SealingKey {
    SealingKey { mailbox: bob(), peer: peer(STORE), key: [0xbb; 32], issued: UnixTime(1_800_000_000) }
}

pub(crate) fn new_drop() -> NewDrop {
    let blob = |id: u8, size| SealedBlob { id: BlobId([id; 32]), size };
    NewDrop {
        delivery: DeliveryId([0xdd; 16]),
        recipient: bob(),
        envelope: blob(0xaa, 5_000),
        blobs: vec![blob(0xbb, 25_000_000)],
        expires: UnixTime(1_802_592_000),
        introduction: signed(&introduction(), LOCATION),
    }
}

pub(crate) fn drop_answers() -> [DropAnswer; 3] {
    [
        DropAnswer::Taken { until: UnixTime(1_802_592_000) },
        DropAnswer::Later(LaterReason::Quota),
        DropAnswer::No(NoReason::NotAccepted),
    ]
}
