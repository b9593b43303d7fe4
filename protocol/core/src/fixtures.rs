//! The people, keys and things that the unit tests are about.

use std::time::{Duration, Instant};

use crate::offer::Delivery;
use crate::wire::{Offer, OfferedBlob};
use crate::{
    Attestation, BlobId, DeliveryId, Introduction, Keypair, Mailbox, Now, PeerId, Receipt, Registration,
    RelayRecord, Signed, Statement, UnixTime,
};

/// Bob's location server, store and relay; Alice's agent; and somebody who is none of them.
pub(crate) const LOCATION: u8 = 1;
pub(crate) const STORE: u8 = 2;
pub(crate) const RELAY: u8 = 3;
pub(crate) const SENDER: u8 = 4;
pub(crate) const MALLORY: u8 = 5;

pub(crate) fn key(of: u8) -> Keypair {
    Keypair::ed25519_from_bytes([of; 32]).unwrap()
}

pub(crate) fn peer(of: u8) -> PeerId {
    key(of).public().to_peer_id()
}

pub(crate) fn bob() -> Mailbox {
    "bob@example.org".parse().unwrap()
}

pub(crate) fn carol() -> Mailbox {
    "carol@example.org".parse().unwrap()
}

pub(crate) fn now() -> Now {
    Now { wall: UnixTime(1_800_000_000), instant: Instant::now() }
}

pub(crate) fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

pub(crate) fn signed<T: Statement>(statement: &T, by: u8) -> Signed<T> {
    Signed::sign(statement, &key(by)).unwrap()
}

pub(crate) fn blob(number: u8, size: u64) -> OfferedBlob {
    OfferedBlob {
        id: BlobId([number; 32]),
        size,
        name: format!("{number}.bin"),
        media_type: "text/plain".to_owned(),
    }
}

pub(crate) fn delivery() -> Delivery {
    Delivery {
        id: DeliveryId([7; 16]),
        mailbox: bob(),
        manifest: blob(100, 5_000),
        blobs: vec![blob(101, 30_000_000), blob(102, 70_000)],
        sources: Vec::new(),
        expires: now().wall.plus(hours(24 * 30)),
    }
}

pub(crate) fn offer() -> Offer {
    let Delivery { id, mailbox, manifest, blobs, sources, expires } = delivery();
    Offer { delivery: id, mailbox, manifest, blobs, sources, expires, introduction: None }
}

pub(crate) fn attestation() -> Attestation {
    Attestation {
        mailbox: bob(),
        peer: peer(STORE),
        primary: true,
        relays: vec![RelayRecord {
            peer: peer(RELAY),
            addresses: vec!["192.0.2.1:4433".parse().unwrap()],
            retrieval_url: "https://mail.example.org".to_owned(),
        }],
        issued: now().wall,
        expires: now().wall.plus(hours(24)),
    }
}

pub(crate) fn introduction() -> Introduction {
    Introduction {
        sender: peer(SENDER),
        sender_mailbox: "alice@example.com".parse().unwrap(),
        recipient: bob(),
        bytes_max: 40_000_000,
        expires: now().wall.plus(Duration::from_mins(10)),
        number: 7,
    }
}

pub(crate) fn registration() -> Registration {
    Registration {
        mailbox: bob(),
        peer: peer(STORE),
        addresses: vec!["[2001:db8::1]:4433".parse().unwrap()],
        sequence: 5,
        expires: now().wall.plus(hours(1)),
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        delivery: delivery().id,
        mailbox: bob(),
        store: peer(STORE),
        manifest: delivery().manifest.id,
        time: now().wall,
    }
}
