//! What does not change: who there is, what is delivered, and the statements that everybody was given.

use std::time::{Duration, Instant};

use lighter_protocol::offer::Delivery;
use lighter_protocol::pull::Standing;
use lighter_protocol::wire::{Offer, OfferedBlob};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Introduction, Keypair, Mailbox, Now, PeerId, Receipt, RelayRecord,
    Releaser, Signed, UnixTime,
};

/// The people and things of the model.
pub(crate) struct Facts {
    pub(crate) start: Now,
    pub(crate) location: PeerId,
    pub(crate) store: PeerId,
    /// The first is a relay of the store's domain, the second a sender's agent.
    pub(crate) holders: Vec<PeerId>,
    pub(crate) delivery: Delivery,
    /// The first holder would push.
    pub(crate) pushes: bool,
    /// As every holder makes it.
    pub(crate) offer: Offer,
    pub(crate) introduction: Introduction,
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) releaser: Releaser,
    /// Receipts that must release nothing: another key's, another delivery's, another manifest's.
    pub(crate) forged: Vec<Signed<Receipt>>,
}

fn key(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).unwrap()
}

fn blob(number: u8, size: u64) -> OfferedBlob {
    OfferedBlob { id: BlobId([number; 32]), size, name: String::new(), media_type: String::new() }
}

impl Facts {
    /// One delivery of a manifest and blobs of these sizes, that so many hold.
    pub(crate) fn new(holders: u8, blobs: &[u64]) -> Self {
        let start = Now { wall: UnixTime(1_000_000), instant: Instant::now() };
        let mailbox: Mailbox = "bob@example.org".parse().unwrap();
        let (store_key, location) = (key(2), key(1).public().to_peer_id());
        let store = store_key.public().to_peer_id();
        let holders: Vec<_> = (0..holders).map(|at| key(10 + at).public().to_peer_id()).collect();
        let delivery = Delivery {
            id: DeliveryId([9; 16]),
            mailbox: mailbox.clone(),
            manifest: blob(1, 10),
            blobs: (2..).zip(blobs).map(|(number, size)| blob(number, *size)).collect(),
            sources: Vec::new(),
            expires: start.wall.plus(Duration::from_hours(24 * 365)),
        };
        let Delivery { id, manifest, blobs, sources, expires, .. } = delivery.clone();
        let offer = Offer {
            delivery: id,
            mailbox: mailbox.clone(),
            manifest,
            blobs,
            sources,
            expires,
            introduction: None,
        };
        let introduction = Introduction {
            sender: *holders.last().unwrap(),
            sender_mailbox: "alice@example.com".parse().unwrap(),
            recipient: mailbox.clone(),
            bytes_max: 1 << 30,
            expires,
            number: 1,
        };
        let said = Receipt {
            delivery: id,
            mailbox: mailbox.clone(),
            store,
            manifest: BlobId([1; 32]),
            time: start.wall,
        };
        let sign = |receipt: &Receipt, key: &Keypair| Signed::sign(receipt, key).unwrap();
        let forged = vec![
            sign(&said, &key(3)),
            sign(&Receipt { delivery: DeliveryId([8; 16]), ..said.clone() }, &store_key),
            sign(&Receipt { manifest: BlobId([2; 32]), ..said.clone() }, &store_key),
        ];
        Self {
            start,
            location,
            store,
            holders,
            pushes: false,
            offer,
            introduction,
            receipt: sign(&said, &store_key),
            releaser: Releaser::looked_up(mailbox, store, delivery.expires),
            forged,
            delivery,
        }
    }

    /// The manifest, and the blobs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &OfferedBlob> {
        std::iter::once(&self.delivery.manifest).chain(&self.delivery.blobs)
    }

    pub(crate) fn size_of(&self, blob: &BlobId) -> u64 {
        self.delivery.size_of(blob).unwrap()
    }

    /// Which of the holders it is.
    pub(crate) fn at(&self, peer: &PeerId) -> usize {
        self.holders.iter().position(|holder| holder == peer).unwrap()
    }

    /// The store's own attestation, which names the relay. (That it is signed is the business of other tests.)
    pub(crate) fn attestation(&self, now: UnixTime) -> Attestation {
        let relay =
            RelayRecord { peer: self.holders[0], addresses: Vec::new(), retrieval_url: String::new() };
        Attestation {
            mailbox: self.delivery.mailbox.clone(),
            peer: self.store,
            primary: true,
            relays: vec![relay],
            issued: now,
            expires: now.plus(Duration::from_hours(24)),
        }
    }

    /// What a further holder is to the store: the door let it in by its introduction.
    pub(crate) fn introduced(&self) -> Standing {
        Standing::Introduced(self.introduction.clone())
    }
}
