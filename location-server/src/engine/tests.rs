//! One suite for every engine, the memory one first.

use lighter_protocol::{Keypair, Mailbox, PeerId, RelayRecord, SealingKey, Signed, UnixTime};
use lighter_transport::location::Scope;
use lighter_transport::location::api::{AcceptancePolicy, Standing};
use lighter_transport::location::keys::KeyChange;

use super::*;
use crate::rows::{
    CorrespondentKey, CorrespondentRow, EnrolmentRow, InvitationRow, Kind, PinRow, RegistrationRow, RowKey,
    StoreKey, TokenRow,
};

fn peer() -> PeerId {
    Keypair::ed25519_from_bytes([1; 32]).unwrap().public().to_peer_id()
}

fn sealing_key(store: &StoreKey) -> Signed<SealingKey> {
    let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
    let sealing =
        SealingKey { mailbox: store.mailbox.clone(), peer: store.peer, key: [9; 32], issued: UnixTime(1) };
    Signed::sign(&sealing, &key).unwrap()
}

fn key_change() -> Signed<KeyChange> {
    let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
    let next = Keypair::ed25519_from_bytes([2; 32]).unwrap().public().to_peer_id();
    Signed::sign(&KeyChange { present: peer(), next, from: UnixTime(1_800_000_000) }, &key).unwrap()
}

/// One row of each kind, in loading order.
fn one_of_each() -> Vec<Row> {
    let mailbox: Mailbox = "alice@example.org".parse().unwrap();
    let key = StoreKey { mailbox: mailbox.clone(), peer: peer() };
    let time = UnixTime(1_800_000_000);
    vec![
        Row::Enrolment(key.clone(), EnrolmentRow { primary: true, enrolled: time, confirmed: time }),
        Row::Registration(key.clone(), RegistrationRow::Withdrawn { sequence: 7 }),
        Row::Token(
            [1; 32],
            TokenRow {
                id: "id".into(),
                name: "relay".into(),
                scopes: Scope::ALL.to_vec(),
                created: time,
                expires: None,
                revoked: Some(time),
            },
        ),
        Row::Invitation([2; 32], InvitationRow { mailbox, created: time, expires: time }),
        Row::Relay(RelayRecord { peer: peer(), addresses: vec![], retrieval_url: "http://localhost".into() }),
        Row::SealingKey(key.clone(), sealing_key(&key)),
        Row::Policy(key.mailbox.clone(), AcceptancePolicy::Closed),
        Row::Correspondent(
            CorrespondentKey { recipient: key.mailbox.clone(), sender: "bob@example.com".parse().unwrap() },
            CorrespondentRow { standing: Standing::Blocked, since: time },
        ),
        Row::Pin("example.com".into(), PinRow { key: peer(), seen: time, other: Some((peer(), time)) }),
        Row::KeyChange(peer(), key_change()),
    ]
}

fn rows(engine: &dyn Engine) -> Vec<Row> {
    let mut rows = Vec::new();
    let loaded = engine.load(&mut |row| rows.push(row)).unwrap();
    assert_eq!((loaded.rows, loaded.damaged), (rows.len() as u64, 0));
    rows
}

fn put(rows: &[Row]) -> Vec<Change> {
    rows.iter().cloned().map(Change::Put).collect()
}

fn keeps_puts_and_removes(engine: &mut dyn Engine) {
    assert!(rows(engine).is_empty());
    let each = one_of_each();
    let mut backwards = put(&each);
    backwards.reverse();
    engine.commit(&backwards).unwrap();
    assert_eq!(rows(engine), each, "loaded in the order of kinds");

    let keys: Vec<_> = each.iter().map(Row::key).collect();
    let both = [Change::Remove(keys[0].clone()), Change::Put(each[0].clone())];
    engine.commit(&both).unwrap();
    assert_eq!(rows(engine), each, "changes of one commit apply in their order");

    let removals: Vec<_> = keys.into_iter().map(Change::Remove).collect();
    engine.commit(&removals).unwrap();
    engine.commit(&removals).unwrap();
    assert!(rows(engine).is_empty());
}

#[test]
fn the_memory_engine_keeps_rows() {
    keeps_puts_and_removes(&mut MemoryEngine::default());
}

#[test]
fn the_redb_engine_keeps_rows() {
    let folder = tempfile::tempdir().unwrap();
    keeps_puts_and_removes(&mut RedbEngine::open(&folder.path().join("db")).unwrap());
}

#[test]
fn the_redb_engine_has_them_again_after_it_was_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    RedbEngine::open(&path).unwrap().commit(&put(&one_of_each())).unwrap();
    assert_eq!(rows(&RedbEngine::open(&path).unwrap()), one_of_each());
}

#[test]
fn a_database_that_is_open_elsewhere_is_told_from_one_that_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let _open = RedbEngine::open(&path).unwrap();
    assert!(matches!(RedbEngine::open(&path), Err(EngineError::InUse)));
    std::fs::write(folder.path().join("other"), "no database, surely").unwrap();
    assert!(matches!(RedbEngine::open(&folder.path().join("other")), Err(EngineError::Failed(_))));
}

#[test]
fn rows_are_written_as_they_always_were() {
    // Hashes over the encodings: they fail when a format changes by accident. A change on purpose raises the version; kinds
    // that are added come behind, and leave the hash of those before as it was.
    for (kinds, hash) in [
        (6, "efa40f93727cb8e7656673737118d2524bf23e7516605265562d5f0bdf2a93bc"),
        (10, "081a95f0a556527187762c787ddd7384763c55446e6e9bdbaa10c702061419ea"),
    ] {
        let mut hasher = blake3::Hasher::new();
        for row in one_of_each().iter().take(kinds) {
            hasher.update(&row.key().encode());
            hasher.update(&row.encode_value());
        }
        assert_eq!(hasher.finalize().to_hex().as_str(), hash, "{kinds} kinds");
    }
}

#[test]
fn a_row_with_bytes_changed_missing_or_left_over_is_damaged_or_another_never_a_panic() {
    for row in one_of_each() {
        let (kind, key, value) = (row.key().kind(), row.key().encode(), row.encode_value());
        assert_eq!(Row::decode(kind, &key, &value), Ok(row));
        for len in 0..value.len() {
            assert!(Row::decode(kind, &key, &value[..len]).is_err(), "{kind:?} cut to {len}");
        }
        let mut longer = value.clone();
        longer.push(0);
        assert!(Row::decode(kind, &key, &longer).is_err());
        let mut later = value;
        later[0] += 1;
        assert!(Row::decode(kind, &key, &later).is_err(), "a version that is not known");
    }
    assert!(Row::decode(Kind::Enrolment, b"no nul", &[1]).is_err());
    assert_eq!(RowKey::Token([0; 32]).encode().len(), 32);
}
