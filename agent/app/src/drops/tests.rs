//! From the sender's store to the recipient's, by way of nothing but bytes.

use std::io::{Read, Write};

use lighter_protocol::wire::{NewDrop, Offer, OfferedBlob};
use lighter_protocol::{BlobId, DeliveryId, Receipt};
use lighter_store::{Admission, IncomingState, LeftDrop, Outgoing, OutgoingState, Settings, Store};
use tempfile::TempDir;

use super::leave::seal_to;
use super::*;

struct Side {
    identity: Identity,
    store: Store,
    _folder: TempDir,
}

fn side() -> Side {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store"), Settings::default()).unwrap();
    Side { identity: Identity::generate(), store, _folder: folder }
}

fn bob() -> Mailbox {
    "bob@b.example".parse().unwrap()
}

fn bytes_of(seed: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new_derive_key("test drops").update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

impl Side {
    fn keep(&self, bytes: &[u8], hold: &lighter_store::Hold) -> (BlobId, u64) {
        let mut import = self.store.import().unwrap();
        import.write_all(bytes).unwrap();
        import.finish(hold, UnixTime(1)).unwrap()
    }

    fn read(&self, blob: BlobId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.store.open_blob(blob).unwrap().reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// A message with attachments of these sizes, on record.
    fn outgoing(&self, sizes: &[usize]) -> Outgoing {
        let hold = self.store.hold();
        let mut parts = sizes.iter().zip(0_u8..).map(|(size, seed)| {
            let (id, size) = self.keep(&bytes_of(seed, *size), &hold);
            let (name, media_type) = (format!("{seed} secret.pdf"), "application/pdf".to_owned());
            OfferedBlob { id, size, name, media_type }
        });
        let manifest = parts.next().unwrap();
        let outgoing = Outgoing {
            delivery: DeliveryId([7; 16]),
            sender: "alice@a.example".parse().unwrap(),
            recipient: bob(),
            store: self.identity.peer(),
            manifest: OfferedBlob { name: String::new(), media_type: String::new(), ..manifest },
            blobs: parts.collect(),
            introduction: None,
            subject: String::new(),
            created: UnixTime(1),
            expires: UnixTime(u64::MAX),
            state: OutgoingState::Preparing,
        };
        self.store.put_outgoing(&outgoing).unwrap();
        outgoing
    }

    fn key(&self) -> SealingKey {
        sealing_key(&self.identity, &bob()).unwrap().verify(&self.identity.peer()).unwrap()
    }

    fn open(&self, delivery: DeliveryId) -> Result<OpenedDrop, NotOpened> {
        let secret = SealingSecret::derive(&self.identity.secret_bytes()).unwrap();
        open(&self.store, &[&secret], &self.store.incoming(delivery).unwrap().unwrap())
    }

    /// Takes a drop in as a relay offers it, all of it.
    fn take_in(&self, from: &Self, left: &LeftDrop) -> Offer {
        let offer = offer(left);
        let admitted = self.store.admit(&offer, from.identity.peer(), UnixTime(1)).unwrap();
        assert!(matches!(admitted, Admission::New(_)));
        let hold = self.store.hold();
        for part in left.parts() {
            self.keep(&from.read(part.id), &hold);
        }
        offer
    }
}

fn offer(left: &LeftDrop) -> Offer {
    Offer {
        delivery: DeliveryId([7; 16]),
        mailbox: bob(),
        manifest: OfferedBlob { media_type: NewDrop::MEDIA_TYPE.to_owned(), ..left.envelope.clone() },
        blobs: left.blobs.clone(),
        sources: Vec::new(),
        expires: UnixTime(u64::MAX),
        introduction: None,
    }
}

// SPEC: A7
#[test]
fn what_is_sealed_and_left_comes_out_in_the_store_with_its_names_and_nothing_sealed_stays() {
    let (alice, bob_, phone) = (side(), side(), side());
    let outgoing = alice.outgoing(&[500, 0, 1, 65_536, 65_537, 300_000, 1]);
    let left = seal_to(&alice.store, &outgoing, &[bob_.key(), phone.key()], alice.identity.peer()).unwrap();
    assert_eq!(alice.store.left(outgoing.delivery).unwrap(), Some(left.clone()));
    for part in left.parts() {
        let sealed = alice.read(part.id);
        assert!(part.name.is_empty() && part.media_type.is_empty());
        assert!(!sealed.windows(6).any(|window| window == b"secret"), "a name stands in the clear");
    }
    // Each store opens it by itself.
    for store in [&bob_, &phone] {
        let offer = store.take_in(&alice, &left);
        let opened = store.open(offer.delivery).unwrap();
        assert_eq!((&opened.manifest, &opened.blobs), (&outgoing.manifest, &outgoing.blobs));
        let durable = store.store.durable(offer.delivery).unwrap().unwrap();
        let receipt: Receipt = durable.receipt(store.identity.peer(), UnixTime(2));
        assert_eq!(receipt.manifest, left.envelope.id, "over what the relay has");
        let signed = Signed::sign(&receipt, store.identity.keypair()).unwrap();
        let OpenedDrop { manifest, blobs, hold } = opened;
        store.store.settle_opened(durable, manifest, blobs, &hold, signed.clone()).unwrap();
        drop(hold);
        for part in left.parts() {
            assert!(!store.store.holds(part.id).unwrap(), "something sealed stays");
        }
        for (part, seed) in outgoing.parts().zip(0_u8..) {
            assert_eq!(store.read(part.id), bytes_of(seed, usize::try_from(part.size).unwrap()));
        }
        // The relay may offer it again, as it knows it: it is the same delivery, and has its receipt.
        let again = store.store.admit(&offer, alice.identity.peer(), UnixTime(3)).unwrap();
        let Admission::Known(known) = again else { panic!("{again:?}") };
        assert_eq!(known.receipt(), Some(&signed));
        let other = Offer { blobs: offer.blobs[1..].to_vec(), ..offer };
        let conflict = store.store.admit(&other, alice.identity.peer(), UnixTime(3)).unwrap();
        assert!(matches!(conflict, Admission::Conflict));
    }
    // The relay has it: what was sealed goes, what was sent stays until the receipt.
    alice.store.put_left(outgoing.delivery, &LeftDrop { taken: Some(UnixTime(9)), ..left.clone() }).unwrap();
    assert!(left.parts().all(|part| !alice.store.holds(part.id).unwrap()));
    assert!(outgoing.parts().all(|part| alice.store.holds(part.id).unwrap()));
    alice.store.remove_outgoing(outgoing.delivery).unwrap();
    assert_eq!(alice.store.left(outgoing.delivery).unwrap(), None);
    assert!(outgoing.parts().all(|part| !alice.store.holds(part.id).unwrap()));
}

#[test]
fn bad_input_34_a_drop_for_others_changed_or_mixed_up_is_never_opened_and_leaves_nothing() {
    let (alice, bob_, carol) = (side(), side(), side());
    let outgoing = alice.outgoing(&[500, 70_000, 70_000]);
    let left = seal_to(&alice.store, &outgoing, &[bob_.key()], alice.identity.peer()).unwrap();
    let swapped = LeftDrop {
        blobs: vec![left.blobs[0].clone(), left.blobs[2].clone(), left.blobs[1].clone()],
        ..left.clone()
    };
    let fewer = LeftDrop { blobs: left.blobs[..2].to_vec(), ..left.clone() };
    let no_envelope = LeftDrop { envelope: left.blobs[0].clone(), ..left.clone() };
    for (store, drop) in
        [(&carol, &left), (&side(), &left), (&bob_, &swapped), (&side(), &fewer), (&side(), &no_envelope)]
    {
        let offer = store.take_in(&alice, drop);
        let error = store.open(offer.delivery).unwrap_err();
        assert!(matches!(error, NotOpened::Never(_)), "{error:?}");
        store.store.reject(offer.delivery, &error.to_string()).unwrap();
        let incoming = store.store.incoming(offer.delivery).unwrap().unwrap();
        assert!(matches!(incoming.state, IncomingState::Rejected { .. }));
        assert!(drop.parts().all(|part| !store.store.holds(part.id).unwrap()), "nothing of it is kept");
        assert!(outgoing.parts().all(|part| !store.store.holds(part.id).unwrap()));
    }
}

#[test]
fn a_restored_identity_opens_what_was_sealed_before() {
    let identity = Identity::generate();
    let again = Identity::from_secret_bytes(identity.secret_bytes()).unwrap();
    let key = |identity| sealing_key(identity, &bob()).unwrap().verify(&identity.peer()).unwrap().key;
    assert_eq!(key(&identity), key(&again));
}
