//! The directory against its rules; and the view rebuilt from the changes must be the view.

use lighter_protocol::{Keypair, Succession};
use proptest::prelude::*;

use super::*;
use crate::directory::former::Succeeded;
use crate::rows::Kind;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn key(mailbox: &str, seed: u8) -> StoreKey {
    StoreKey { mailbox: mailbox.parse().unwrap(), peer: peer(seed) }
}

fn invitation(mailbox: &str) -> InvitationRow {
    let expires = NOW.plus(std::time::Duration::from_secs(60));
    InvitationRow { mailbox: mailbox.parse().unwrap(), created: NOW, expires }
}

fn registration(mailbox: &str, seed: u8, sequence: u64) -> (Registration, Signed<Registration>) {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    let registration = Registration {
        mailbox: mailbox.parse().unwrap(),
        peer: peer(seed),
        addresses: vec!["192.0.2.1:1".parse().unwrap()],
        sequence,
        expires: NOW.plus(std::time::Duration::from_secs(3600)),
    };
    let signed = Signed::sign(&registration, &keypair).unwrap();
    (registration, signed)
}

/// Invites and enrols.
fn enrol(directory: &mut Directory, mailbox: &str, seed: u8, now: UnixTime) -> Enrolled {
    let mut changes = Vec::new();
    directory
        .invite(
            [seed; 32],
            InvitationRow { created: now, expires: now.plus(CONFIRMATION_DELAY), ..invitation(mailbox) },
            &mut changes,
        )
        .unwrap();
    directory.enrol(&[seed; 32], key(mailbox, seed), now, &mut changes).unwrap()
}

fn register(directory: &mut Directory, mailbox: &str, seed: u8, sequence: u64) -> Result<StoreId, Refusal> {
    let (registration, signed) = registration(mailbox, seed, sequence);
    directory.register(&registration, signed, None, &mut Vec::new())
}

#[test]
fn an_enrolment_token_is_good_once_in_time_and_for_its_mailbox_only() {
    // bad_input_34: the same refusal whatever is wrong.
    let mut directory = Directory::default();
    let mut changes = Vec::new();
    directory.invite([1; 32], invitation("a@x.org"), &mut changes).unwrap();
    let mut enrol = |token: u8, mailbox: &str, now: UnixTime| {
        directory.enrol(&[token; 32], key(mailbox, 1), now, &mut changes)
    };
    assert_eq!(enrol(2, "a@x.org", NOW), Err(Refusal::NotAllowed), "wrong");
    assert_eq!(enrol(1, "b@x.org", NOW), Err(Refusal::NotAllowed), "for somebody else");
    assert_eq!(enrol(1, "a@x.org", invitation("a@x.org").expires), Err(Refusal::NotAllowed), "expired");
    assert!(enrol(1, "a@x.org", NOW).is_ok());
    assert_eq!(enrol(1, "a@x.org", NOW), Err(Refusal::NotAllowed), "used");
}

#[test]
fn a_further_store_waits_a_day_or_for_an_existing_one() {
    let mut directory = Directory::default();
    let first = enrol(&mut directory, "a@x.org", 1, NOW);
    let second = enrol(&mut directory, "a@x.org", 2, NOW);
    let third = enrol(&mut directory, "a@x.org", 3, NOW);
    assert!(first.primary && !second.primary && !third.primary);
    for (seed, sequence) in [(1, 1), (2, 1), (3, 1)] {
        register(&mut directory, "a@x.org", seed, sequence).unwrap();
    }
    let endowed = |directory: &Directory, now| {
        directory.endowed(&"a@x.org".parse().unwrap(), now).map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(endowed(&directory, NOW), [first.store]);
    let confirm =
        |directory: &mut Directory, by, seed| directory.confirm(by, &peer(seed), NOW, &mut Vec::new());
    assert_eq!(confirm(&mut directory, second.store, 3), Err(Refusal::NotAllowed), "itself pending");
    confirm(&mut directory, first.store, 2).unwrap();
    assert_eq!(endowed(&directory, NOW), [first.store, second.store]);
    assert_eq!(endowed(&directory, NOW.plus(CONFIRMATION_DELAY)).len(), 3);
}

#[test]
fn bad_input_34_a_registration_with_an_older_or_equal_sequence_changes_nothing() {
    let mut directory = Directory::default();
    enrol(&mut directory, "a@x.org", 1, NOW);
    register(&mut directory, "a@x.org", 1, 5).unwrap();
    for sequence in [0, 4, 5] {
        assert_eq!(register(&mut directory, "a@x.org", 1, sequence), Err(Refusal::Stale { sequence: 5 }));
    }
    register(&mut directory, "a@x.org", 1, 6).unwrap();
    assert_eq!(register(&mut directory, "a@x.org", 2, 9), Err(Refusal::NotAllowed), "not enrolled");
    assert_eq!(register(&mut directory, "b@x.org", 1, 9), Err(Refusal::NotAllowed), "for somebody else");
}

#[test]
fn going_offline_removes_the_addresses_and_keeps_the_sequence() {
    // SPEC: A13
    let mut directory = Directory::default();
    let store = enrol(&mut directory, "a@x.org", 1, NOW).store;
    register(&mut directory, "a@x.org", 1, 5).unwrap();
    assert_eq!(directory.store(store).unwrap().addresses(NOW).len(), 1);
    directory.withdraw(store, &mut Vec::new()).unwrap();
    assert!(directory.store(store).unwrap().addresses(NOW).is_empty());
    assert_eq!(directory.endowed(&"a@x.org".parse().unwrap(), NOW).count(), 1, "endowed, and offline");
    assert_eq!(register(&mut directory, "a@x.org", 1, 5), Err(Refusal::Stale { sequence: 5 }));
}

#[test]
fn addresses_are_good_until_the_registration_expires() {
    let mut directory = Directory::default();
    let store = enrol(&mut directory, "a@x.org", 1, NOW).store;
    register(&mut directory, "a@x.org", 1, 1).unwrap();
    let later = NOW.plus(std::time::Duration::from_secs(3600));
    assert!(directory.store(store).unwrap().addresses(later).is_empty());
    assert_eq!(directory.endowed(&"a@x.org".parse().unwrap(), later).count(), 1, "still endowed");
}

#[test]
fn when_the_primary_is_removed_the_oldest_left_takes_its_place() {
    let mut directory = Directory::default();
    enrol(&mut directory, "a@x.org", 1, NOW);
    let second = enrol(&mut directory, "a@x.org", 2, NOW).store;
    let third = enrol(&mut directory, "a@x.org", 3, NOW).store;
    let mailbox = "a@x.org".parse().unwrap();
    directory.remove_user(&mailbox, Some(&peer(1)), NOW, &mut Vec::new()).unwrap();
    assert!(directory.store(second).unwrap().primary && !directory.store(third).unwrap().primary);
    let removed = directory.remove_user(&mailbox, None, NOW, &mut Vec::new()).unwrap();
    assert_eq!(removed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [second, third]);
    assert_eq!(directory.store_count(), 0);
    assert_eq!(directory.remove_user(&mailbox, None, NOW, &mut Vec::new()), Err(Refusal::Unknown));
}

fn succession(mailbox: &str, former: u8, next: u8) -> (Succession, Signed<Succession>) {
    let said = Succession {
        mailbox: mailbox.parse().unwrap(),
        former: peer(former),
        next: peer(next),
        time: UnixTime(NOW.0 + u64::from(next)),
    };
    let signed = Signed::sign(&said, &Keypair::ed25519_from_bytes([former; 32]).unwrap()).unwrap();
    (said, signed)
}

/// Rotates a store's key, as its location server does once both keys have agreed.
fn succeed(directory: &mut Directory, mailbox: &str, former: u8, next: u8) -> Result<Succeeded, Refusal> {
    let (said, signed) = succession(mailbox, former, next);
    directory.succeed(&said, signed, None, said.time, &mut Vec::new())
}

#[test]
fn a_rotated_key_is_at_once_what_the_former_one_was_and_that_one_is_nothing() {
    // SPEC: A12; DESIGN §4
    let mut directory = Directory::default();
    let first = enrol(&mut directory, "a@x.org", 1, NOW);
    enrol(&mut directory, "a@x.org", 2, NOW);
    register(&mut directory, "a@x.org", 1, 5).unwrap();
    let mailbox: Mailbox = "a@x.org".parse().unwrap();

    let succeeded = succeed(&mut directory, "a@x.org", 1, 3).unwrap();
    assert_eq!(succeeded.removed, Some((first.store, key("a@x.org", 1))));
    assert_eq!((succeeded.enrolled.primary, succeeded.enrolled.confirmed), (true, NOW));
    let endowed: Vec<_> = directory.endowed(&mailbox, NOW).map(|(id, _)| id).collect();
    assert_eq!(endowed, [succeeded.enrolled.store], "what comes waits for it before it has registered");
    assert!(directory.find(&mailbox, &peer(1)).is_none());
    assert_eq!(register(&mut directory, "a@x.org", 1, 9), Err(Refusal::NotAllowed), "the former key");
    assert_eq!(register(&mut directory, "a@x.org", 3, 5), Err(Refusal::Stale { sequence: 5 }));
    register(&mut directory, "a@x.org", 3, 6).unwrap();
    let revoked: Vec<_> = directory.revocations(NOW).map(|(key, _)| key.clone()).collect();
    assert_eq!(revoked, [key("a@x.org", 1)]);

    let again = succeed(&mut directory, "a@x.org", 1, 3).unwrap();
    assert_eq!(again, Succeeded { enrolled: succeeded.enrolled, removed: None }, "said twice");
    let next = succeed(&mut directory, "a@x.org", 3, 4).unwrap();
    assert!(next.enrolled.primary);
    assert_eq!(succeed(&mut directory, "a@x.org", 1, 3), Err(Refusal::NotAllowed), "replayed later");
    let successions = directory.successions(&mailbox);
    assert_eq!(Succession::formers(successions, &peer(4)), [peer(3), peer(1)]);
}

#[test]
fn a_store_that_waits_to_be_confirmed_waits_as_long_with_another_key() {
    let mut directory = Directory::default();
    enrol(&mut directory, "a@x.org", 1, NOW);
    let second = enrol(&mut directory, "a@x.org", 2, NOW);
    let rotated = succeed(&mut directory, "a@x.org", 2, 3).unwrap().enrolled;
    assert_eq!((rotated.primary, rotated.confirmed), (false, second.confirmed));
}

#[test]
fn bad_input_34_no_key_takes_the_place_of_one_that_is_not_there_or_becomes_one_that_was() {
    let mut directory = Directory::default();
    for (mailbox, seed) in [("a@x.org", 1), ("a@x.org", 2), ("b@x.org", 5)] {
        enrol(&mut directory, mailbox, seed, NOW);
    }
    for (former, next, why) in
        [(9, 10, "never enrolled"), (5, 10, "enrolled for somebody else"), (1, 2, "another device of theirs")]
    {
        assert_eq!(succeed(&mut directory, "a@x.org", former, next), Err(Refusal::NotAllowed), "{why}");
    }
    succeed(&mut directory, "a@x.org", 1, 3).unwrap();
    assert_eq!(succeed(&mut directory, "a@x.org", 3, 1), Err(Refusal::NotAllowed), "one of before");
    let mailbox = "a@x.org".parse().unwrap();
    directory.remove_user(&mailbox, Some(&peer(3)), NOW, &mut Vec::new()).unwrap();
    assert_eq!(succeed(&mut directory, "a@x.org", 3, 8), Err(Refusal::NotAllowed), "revoked");
    assert_eq!(succeed(&mut directory, "a@x.org", 1, 3), Err(Refusal::NotAllowed), "replayed");
    assert!(directory.successions(&mailbox).is_empty(), "what led to it is forgotten");
}

#[test]
fn bad_input_38_the_last_rotations_are_remembered_and_revocations_as_long_as_they_matter() {
    let mut directory = Directory::default();
    enrol(&mut directory, "a@x.org", 1, NOW);
    let mut rotate = |seed: u8, now: UnixTime| {
        let (said, signed) = succession("a@x.org", seed, seed + 1);
        directory.succeed(&said, signed, None, now, &mut Vec::new()).map(drop)
    };
    let late = NOW.plus(CONFIRMATION_DELAY * 2);
    (1..=16).for_each(|seed| rotate(seed, NOW).unwrap());
    assert_eq!(rotate(17, NOW), Err(Refusal::Full), "so often in a day");
    (17..=20).for_each(|seed| rotate(seed, late).unwrap());
    let mailbox = "a@x.org".parse().unwrap();
    let formers = Succession::formers(directory.successions(&mailbox), &peer(21));
    assert_eq!(formers, (5..=20).rev().map(peer).collect::<Vec<_>>());
    assert_eq!(directory.revocations(late).count(), 4, "those of before are forgotten");
    let later = late.plus(CONFIRMATION_DELAY * 2);
    assert_eq!(directory.revocations(later).count(), 0);
    let mut changes = Vec::new();
    directory.remove_user(&mailbox, None, later, &mut changes).unwrap();
    let removed = |change: &&Change| matches!(change, Change::Remove(RowKey::Revocation(_)));
    assert_eq!(changes.iter().filter(removed).count(), 4, "they go when another one comes");
    assert_eq!(directory.revocations(later).count(), 1);
}

#[test]
fn a_mailbox_has_so_many_stores_and_no_more() {
    let mut directory = Directory::default();
    for seed in 0..16 {
        enrol(&mut directory, "a@x.org", seed, NOW);
    }
    directory.invite([99; 32], invitation("a@x.org"), &mut Vec::new()).unwrap();
    let refused = directory.enrol(&[99; 32], key("a@x.org", 99), NOW, &mut Vec::new());
    assert_eq!(refused, Err(Refusal::Full));
}

#[test]
fn a_revoked_expired_or_narrower_token_allows_nothing() {
    let mut directory = Directory::default();
    let row = TokenRow {
        id: "t1".into(),
        name: String::new(),
        scopes: vec![Scope::Lookup],
        created: NOW,
        expires: Some(UnixTime(NOW.0 + 10)),
        revoked: None,
    };
    directory.create_token([1; 32], row, &mut Vec::new()).unwrap();
    let allows = |directory: &Directory, scope, now| directory.token(&[1; 32]).unwrap().allows(scope, now);
    assert!(allows(&directory, Scope::Lookup, NOW));
    assert!(!allows(&directory, Scope::Presence, NOW));
    assert!(!allows(&directory, Scope::Lookup, UnixTime(NOW.0 + 10)));
    directory.revoke_token("t1", NOW, &mut Vec::new()).unwrap();
    assert!(!allows(&directory, Scope::Lookup, NOW));
    assert_eq!(directory.revoke_token("t2", NOW, &mut Vec::new()), Err(Refusal::Unknown));
}

/// Rows as an engine keeps them.
#[derive(Default)]
struct Rows(BTreeMap<(Kind, Vec<u8>), Vec<u8>>);

impl Rows {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(row) => {
                    self.0.insert((row.key().kind(), row.key().encode()), row.encode_value());
                }
                Change::Remove(key) => {
                    self.0.remove(&(key.kind(), key.encode()));
                }
            }
        }
    }

    fn rebuilt(&self) -> Directory {
        let mut directory = Directory::default();
        for ((kind, key), value) in &self.0 {
            directory.load(Row::decode(*kind, key, value).unwrap());
        }
        directory
    }
}

/// What can be told apart from outside, in a defined order.
fn shown(directory: &Directory) -> Vec<String> {
    let store = |(_, store): (StoreId, &Store)| {
        let Store { key, primary, enrolled, confirmed, place, sealing_key: _, hosted: _ } = store;
        let place = place.as_ref().map(|place| (place.sequence, &place.addresses));
        format!("{key:?} {primary} {enrolled} {confirmed} {place:?}")
    };
    let mut shown: Vec<_> = directory.stores_from(0).map(store).collect();
    shown.extend(directory.tokens().iter().map(|row| format!("{row:?}")));
    shown.extend(directory.invitations().iter().map(|row| format!("{row:?}")));
    for mailbox in ["a@x.org", "b@x.org", "c@y.org"] {
        let mut said: Vec<_> = directory.successions(&mailbox.parse().unwrap()).iter().collect();
        said.sort_by_key(|signed| signed.to_bytes());
        shown.push(format!("{said:?}"));
    }
    shown.extend(directory.revocations(NOW).map(|revoked| format!("{revoked:?}")));
    let mut relays: Vec<_> = directory.relays().0.iter().map(|relay| format!("{relay:?}")).collect();
    relays.sort();
    shown.extend(relays);
    shown.sort();
    shown
}

proptest! {
    #[test]
    fn the_view_is_what_can_be_rebuilt_from_the_changes(
        steps in prop::collection::vec((0_u8..10, 0_u8..4, 0_u8..3, 0_u64..6), 1..80),
    ) {
        let mut directory = Directory::default();
        let mut rows = Rows::default();
        for (time, (action, seed, name, sequence)) in steps.into_iter().enumerate() {
            let now = UnixTime(NOW.0 + time as u64);
            let mailbox = ["a@x.org", "b@x.org", "c@y.org"][name as usize];
            let parsed: Mailbox = mailbox.parse().unwrap();
            let mut changes = Vec::new();
            // A refusal changes nothing: that, too, shows below.
            let _ = match action {
                0 | 1 => directory.invite([seed; 32], InvitationRow { created: now, ..invitation(mailbox) }, &mut changes),
                2 | 3 => directory.enrol(&[seed; 32], key(mailbox, seed), now, &mut changes).map(|_| ()),
                4 => {
                    let (registration, signed) = registration(mailbox, seed, sequence);
                    directory.register(&registration, signed, None, &mut changes).map(|_| ())
                }
                5 => match directory.find(&parsed, &peer(seed)) {
                    Some(store) => directory.withdraw(store, &mut changes),
                    None => Ok(()),
                },
                6 => directory.remove_user(&parsed, (sequence > 2).then(|| peer(seed)).as_ref(), now, &mut changes).map(|_| ()),
                7 => {
                    let relay = RelayRecord { peer: peer(seed), addresses: vec![], retrieval_url: format!("http://{sequence}") };
                    directory.put_relay(relay, &mut changes)
                }
                8 => {
                    let next = u8::try_from(time).unwrap_or(0) + 100;
                    let (said, signed) = succession(mailbox, seed, next);
                    directory.succeed(&said, signed, None, now, &mut changes).map(|_| ())
                }
                _ => directory.remove_relay(&peer(seed), &mut changes),
            };
            rows.apply(changes);
        }
        prop_assert_eq!(shown(&rows.rebuilt()), shown(&directory));
    }
}
