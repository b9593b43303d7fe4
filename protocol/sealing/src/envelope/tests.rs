use data_encoding::HEXLOWER;
use libp2p_identity::Keypair;
use lighter_protocol::UnixTime;

use super::*;

const DELIVERY: DeliveryId = DeliveryId([3; 16]);

fn bob() -> Mailbox {
    "bob@b.example".parse().unwrap()
}

fn secret(of: u8) -> SealingSecret {
    SealingSecret::derive(&[of; 32]).unwrap()
}

fn store(of: u8) -> SealingKey {
    let peer = Keypair::ed25519_from_bytes([of; 32]).unwrap().public().to_peer_id();
    secret(of).statement(bob(), peer, UnixTime(1_800_000_000))
}

fn key() -> ContentKey {
    ContentKey::from_bytes(Zeroizing::new([5; 32]))
}

fn part(name: &str) -> Part {
    Part {
        id: BlobId([1; 32]),
        size: 70_000,
        name: name.to_owned(),
        media_type: "application/pdf".to_owned(),
        sealed: BlobId([2; 32]),
    }
}

fn table() -> Table {
    Table { sender: "alice@a.example".parse().unwrap(), parts: vec![part(""), part("Übersicht.pdf")] }
}

fn sealed(stores: &[u8]) -> Vec<u8> {
    let stores: Vec<_> = stores.iter().map(|of| store(*of)).collect();
    Envelope::seal(&table(), &key(), &DELIVERY, &bob(), &stores).unwrap().as_bytes().to_vec()
}

fn open(bytes: &[u8], of: u8) -> Result<Opened, OpenError> {
    Envelope::parse(bytes.to_vec())?.open(&secret(of), &DELIVERY, &bob())
}

#[test]
fn each_store_that_it_is_sealed_to_opens_it_by_itself_and_no_other_does() {
    let all: Vec<u8> = (1..=16).collect();
    let envelope = sealed(&all);
    for of in all {
        let opened = open(&envelope, of).unwrap();
        assert_eq!(opened.table, table());
        assert_eq!(opened.key.0, key().0);
    }
    assert_eq!(open(&envelope, 17).unwrap_err(), OpenError::NotForUs);
}

#[test]
fn neither_names_nor_mailboxes_stand_in_it() {
    let envelope = sealed(&[1]);
    for text in ["bersicht", "pdf", "alice", "bob"] {
        assert!(!envelope.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
    assert_ne!(envelope, sealed(&[1]), "and two of the same are not alike");
}

#[test]
fn bad_input_34_an_envelope_changed_in_any_byte_does_not_open() {
    let envelope = sealed(&[1, 2]);
    for at in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[at] ^= 0x80;
        assert!(open(&changed, 1).is_err(), "byte {at}");
    }
}

#[test]
fn bad_input_34_an_envelope_cut_off_extended_or_for_another_delivery_or_mailbox_does_not_open() {
    let envelope = sealed(&[1]);
    for len in 0..envelope.len() {
        assert!(open(&envelope[..len], 1).is_err(), "{len} bytes");
    }
    assert!(open(&[envelope.clone(), vec![0]].concat(), 1).is_err());
    let parsed = Envelope::parse(envelope).unwrap();
    let (other, carol) = (DeliveryId([4; 16]), "carol@b.example".parse().unwrap());
    assert_eq!(parsed.open(&secret(1), &other, &bob()).unwrap_err(), OpenError::Changed);
    assert_eq!(parsed.open(&secret(1), &DELIVERY, &carol).unwrap_err(), OpenError::Changed);
}

#[test]
fn bad_input_35_what_breaks_a_bound_is_not_sealed() {
    let seal = |table: &Table, stores: usize| {
        Envelope::seal(table, &key(), &DELIVERY, &bob(), &vec![store(1); stores]).map(|_| ())
    };
    assert_eq!(seal(&table(), 0), Err(SealError::Stores(0)));
    assert_eq!(seal(&table(), 17), Err(SealError::Stores(17)));
    let none = Table { parts: Vec::new(), ..table() };
    let long = Table { parts: vec![part(&"n".repeat(NAME_LEN_MAX + 1))], ..table() };
    let large = Table { parts: vec![Part { size: BLOB_SIZE_MAX, ..part("") }], ..table() };
    let many = Table { parts: vec![part(""); OFFER_BLOBS_MAX + 1], ..table() };
    for table in [none, long, large, many] {
        assert_eq!(seal(&table, 1), Err(SealError::Table));
    }
    let most = Part { media_type: "m".repeat(NAME_LEN_MAX), ..part(&"n".repeat(NAME_LEN_MAX)) };
    assert_eq!(seal(&Table { parts: vec![most; OFFER_BLOBS_MAX], ..table() }, 16), Ok(()));
}

/// Encapsulation draws a key of its own each time, so the golden bytes are ones that must open.
#[test]
fn golden_envelope() {
    let opened = open(&HEXLOWER.decode(GOLDEN.as_bytes()).unwrap(), 1).unwrap();
    assert_eq!((opened.table, opened.key.0), (table(), key().0));
}

const GOLDEN: &str = include_str!("golden.hex").trim_ascii();

/// RFC 9180 §7: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. That the library does what the RFC's vectors say is
/// its own test.
#[test]
fn the_suite_is_the_one_that_is_documented() {
    let suite = SUITE.suite();
    assert_eq!(
        (u16::from(suite.kem), u16::from(suite.sym.kdf_id), u16::from(suite.sym.aead_id)),
        (0x20, 1, 2)
    );
}
