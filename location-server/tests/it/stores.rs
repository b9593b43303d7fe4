//! What stores do: enrol, register, ping, go; and what others learn of it.

use std::time::Duration;

use lighter_location::AdminCommand;
use lighter_protocol::{Mailbox, RelayRecord, SealingKey, Signed, UnixTime};
use lighter_transport::Identity;
use lighter_transport::location::limits::RELAYS_TOLD_NAMES_MAX;
use lighter_transport::location::{LocationClient, LocationError, Presence, Scope, Secret};

use crate::presence::{change, snapshot};
use crate::world::{Store, World, mailbox};

#[tokio::test]
async fn a_registered_store_is_found_with_its_address_and_presence_in_one_answer() {
    // SPEC: A3, A12, A15
    let world = World::start().await;
    let (alice, _) = world.online("alice@example.org").await;
    let token = world.token(&[Scope::Lookup]).await;
    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!(found.peer, alice.identity.peer());
    assert_eq!(found.addresses, alice.registration(1).addresses);
    assert_eq!(found.presence, Presence::Online);
    assert!(found.primary);
    assert!(UnixTime::now().since(found.since) < Duration::from_secs(60));
}

#[tokio::test]
async fn enrolling_gives_an_attestation_that_verifies_names_the_relays_and_lasts_at_most_a_day() {
    let world = World::start().await;
    let relay = RelayRecord {
        peer: Identity::generate().peer(),
        addresses: vec!["127.0.0.1:7443".parse().unwrap()],
        retrieval_url: "http://127.0.0.1:7081".into(),
    };
    let token = world.token(&[Scope::Relay]).await;
    world.client.put_relay(&token, &relay).await.unwrap();
    let alice = Store::new("alice@example.org");
    let answer = alice.enrol(&world).await.unwrap();
    assert!(answer.primary && answer.pending_until.is_none());
    assert_eq!(answer.location, world.client.domain().await.unwrap().location);
    let attestation = answer.attestation.unwrap().verify(&answer.location).unwrap();
    assert_eq!((attestation.mailbox, attestation.peer), (alice.mailbox.clone(), alice.identity.peer()));
    assert_eq!(attestation.relays, [relay]);
    assert!(attestation.expires.since(attestation.issued) <= Duration::from_secs(24 * 3600));
}

#[tokio::test]
async fn a_ping_brings_a_new_attestation_when_the_relays_have_changed_and_only_then() {
    let world = World::start().await;
    let (_alice, session) = world.online("alice@example.org").await;
    assert!(world.client.ping(&session).await.unwrap().attestation.is_none());
    let token = world.token(&[Scope::Relay]).await;
    let peer = Identity::generate().peer();
    let relay = RelayRecord { peer, addresses: vec![], retrieval_url: "https://files.example.org".into() };
    world.client.put_relay(&token, &relay).await.unwrap();
    let attestation = world.client.ping(&session).await.unwrap().attestation.unwrap();
    assert_eq!(attestation.verify(&world.server.peer()).unwrap().relays, [relay]);
    assert!(world.client.ping(&session).await.unwrap().attestation.is_none());
    world.client.remove_relay(&token, peer).await.unwrap();
    let attestation = world.client.ping(&session).await.unwrap().attestation.unwrap();
    assert!(attestation.verify(&world.server.peer()).unwrap().relays.is_empty());
}

#[tokio::test]
async fn a_store_that_says_offline_is_offline_and_its_address_is_removed_for_good() {
    // SPEC: A13
    let world = World::start().await;
    let (alice, session) = world.online("alice@example.org").await;
    let token = world.token(&[Scope::Lookup]).await;
    world.client.offline(&session).await.unwrap();
    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!((found.presence, found.addresses.len()), (Presence::Offline, 0));
    assert!(matches!(world.client.ping(&session).await, Err(LocationError::Unauthorised)));

    let world = world.restart().await;
    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert!(found.addresses.is_empty());

    alice.register(&world, 2).await.unwrap();
    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!((found.presence, found.addresses.len()), (Presence::Online, 1));
}

#[tokio::test]
async fn a_store_that_stops_pinging_goes_offline_and_keeps_its_address() {
    // SPEC: A14
    let world = World::start_with(|config| {
        config.ping_interval_s = 1;
        config.ttl_s = 2;
    })
    .await;
    let token = world.token(&[Scope::Lookup, Scope::Presence]).await;
    // Listened to before it comes: its time may be up before a snapshot is made.
    let mut events = world.client.presence(&token);
    assert!(snapshot(&mut events).await.is_empty());
    let (alice, _session) = world.online("alice@example.org").await;
    for presence in [Presence::Online, Presence::Offline] {
        assert_eq!(change(&mut events).await, ("alice@example.org".into(), presence));
    }
    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!((found.presence, found.addresses.len()), (Presence::Offline, 1));
}

#[tokio::test]
async fn after_a_restart_registrations_and_tokens_are_there_and_presence_is_unknown() {
    // SPEC: A12
    let world = World::start().await;
    let (alice, session) = world.online("alice@example.org").await;
    let token = world.token(&[Scope::Lookup]).await;
    let peer = world.server.peer();

    let world = world.restart().await;
    assert_eq!(world.server.peer(), peer, "the key is the same");
    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!((found.presence, found.addresses.len()), (Presence::Unknown, 1));
    assert!(matches!(world.client.ping(&session).await, Err(LocationError::Unauthorised)));
    let stale = alice.register(&world, 1).await;
    assert!(matches!(stale, Err(LocationError::Stale { sequence: 1 })), "{stale:?}");
    let session = alice.register(&world, 2).await.unwrap().session;
    world.client.ping(&session).await.unwrap();
}

#[tokio::test]
async fn a_thousand_names_are_answered_in_their_order() {
    let world = World::start().await;
    let (alice, _) = world.online("alice@example.org").await;
    let token = world.token(&[Scope::Lookup]).await;
    let mut names: Vec<_> = (0..2_500).map(|n| mailbox(&format!("nobody{n}@example.org"))).collect();
    names[7] = alice.mailbox.clone();
    names[2_400] = alice.mailbox.clone();
    let stores = world.client.lookup(&token, &names).await.unwrap();
    let found: Vec<_> =
        stores.iter().enumerate().filter(|(_, store)| store.is_some()).map(|(n, _)| n).collect();
    assert_eq!((stores.len(), found), (2_500, vec![7, 2_400]));
}

#[tokio::test]
async fn people_of_a_domain_look_each_other_up_and_are_introduced() {
    let world = World::start().await;
    let (alice, session) = world.online("alice@example.org").await;
    let (bob, _) = world.online("bob@example.org").await;
    assert!(world.client.lookup_one(&session, &bob.mailbox).await.unwrap().is_some());
    let introduction = world.client.introduction(&session, &bob.mailbox, 1 << 30).await.unwrap().unwrap();
    let another = world.client.introduction(&session, &bob.mailbox, 1 << 30).await.unwrap().unwrap();
    assert_ne!(introduction.to_bytes(), another.to_bytes(), "each is good for its own bytes");
    let introduction = introduction.verify(&world.server.peer()).unwrap();
    assert_eq!((introduction.sender, introduction.sender_mailbox), (alice.identity.peer(), alice.mailbox));
    assert_eq!((introduction.recipient, introduction.bytes_max), (bob.mailbox, 1 << 30));
    assert!(introduction.expires <= UnixTime::now().plus(Duration::from_secs(601)));
}

#[tokio::test]
async fn a_further_store_is_neither_attested_nor_found_until_an_existing_one_confirms_it() {
    let world = World::start().await;
    let (first, first_session) = world.online("alice@example.org").await;
    let second = Store::new("alice@example.org");
    let answer = second.enrol(&world).await.unwrap();
    assert!(!answer.primary && answer.pending_until.is_some() && answer.attestation.is_none());
    let registered = second.register(&world, 1).await.unwrap();
    assert!(registered.attestation.is_none());
    assert!(world.client.ping(&registered.session).await.unwrap().attestation.is_none());
    world.online("bob@example.org").await;
    let bob = mailbox("bob@example.org");
    assert!(world.client.lookup_one(&registered.session, &bob).await.unwrap().is_none(), "nor does it learn");
    let refused = world.client.confirm(&registered.session, second.identity.peer()).await;
    assert!(matches!(refused, Err(LocationError::Refused)), "it does not confirm itself");

    world.client.confirm(&first_session, second.identity.peer()).await.unwrap();
    let attestation = world.client.ping(&registered.session).await.unwrap().attestation.unwrap();
    let attestation = attestation.verify(&world.server.peer()).unwrap();
    assert_eq!((attestation.peer, attestation.primary), (second.identity.peer(), false));
    assert!(world.client.lookup_one(&registered.session, &bob).await.unwrap().is_some());

    let token = world.token(&[Scope::Lookup]).await;
    let found = world.client.lookup_one(&token, &first.mailbox).await.unwrap().unwrap();
    assert_eq!(found.peer, first.identity.peer(), "of two that are online, the primary");
    world.client.offline(&first_session).await.unwrap();
    let found = world.client.lookup_one(&token, &first.mailbox).await.unwrap().unwrap();
    assert_eq!(found.peer, second.identity.peer(), "rather one that is online than the primary");
}

#[tokio::test]
async fn bad_input_34_registrations_that_are_forged_replayed_expired_or_for_somebody_else_are_refused() {
    let world = World::start().await;
    let (alice, _) = world.online("alice@example.org").await;
    let mallory = world.enrolled("mallory@example.org").await;
    let token = world.token(&[Scope::Lookup]).await;
    let register = async |registration: Signed<_>| world.client.register(&registration).await.map(|_| ());

    let forged = mallory.sign(&alice.registration(9));
    assert!(matches!(register(forged).await, Err(LocationError::Refused)), "signed by somebody else");
    let mut for_alice = mallory.registration(9);
    for_alice.mailbox = alice.mailbox.clone();
    assert!(
        matches!(register(mallory.sign(&for_alice)).await, Err(LocationError::Refused)),
        "for somebody else"
    );
    let replayed = alice.sign(&alice.registration(1));
    assert!(matches!(register(replayed).await, Err(LocationError::Stale { sequence: 1 })), "replayed");
    let older = alice.sign(&alice.registration(0));
    assert!(matches!(register(older).await, Err(LocationError::Stale { sequence: 1 })), "older");
    let mut expired = alice.registration(9);
    expired.expires = UnixTime::now();
    assert!(matches!(register(alice.sign(&expired)).await, Err(LocationError::Refused)), "expired");
    let mut endless = alice.registration(9);
    endless.expires = UnixTime(u64::MAX);
    assert!(matches!(register(alice.sign(&endless)).await, Err(LocationError::NotUnderstood)), "endless");
    let stranger = Store::new("alice@example.org");
    let not_enrolled = stranger.sign(&stranger.registration(9));
    assert!(matches!(register(not_enrolled).await, Err(LocationError::Refused)), "not enrolled");

    let found = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!((found.peer, found.addresses), (alice.identity.peer(), alice.registration(1).addresses));
}

#[tokio::test]
async fn bad_input_34_enrolment_needs_the_token_the_mailbox_and_the_key_to_go_together() {
    let world = World::start().await;
    let alice = Store::new("alice@example.org");
    let token = world.server.invite(&alice.mailbox).await.unwrap();
    let enrol = async |store: &Store, token: &Secret, name: &str| {
        world.client.enrol(store.identity.keypair(), token, &mailbox(name)).await.map(|_| ())
    };
    for (token, name) in [(&Secret::new("linv_wrong"), "alice@example.org"), (&token, "bob@example.org")] {
        assert!(matches!(enrol(&alice, token, name).await, Err(LocationError::Refused)));
    }
    enrol(&alice, &token, "alice@example.org").await.unwrap();
    assert!(matches!(enrol(&alice, &token, "alice@example.org").await, Err(LocationError::Refused)), "used");
}

#[tokio::test]
async fn bad_input_36_a_store_registers_no_address_that_others_must_not_dial() {
    // A server for others: only what is globally routable.
    let world = World::start_with(|config| config.allowed_networks = Some(vec![])).await;
    let alice = world.enrolled("alice@example.org").await;
    for address in ["127.0.0.1:4001", "10.0.0.1:4001", "169.254.169.254:80", "[fe80::1]:4001", "[::1]:4001"] {
        let mut registration = alice.registration(1);
        registration.addresses = vec!["8.8.8.8:4001".parse().unwrap(), address.parse().unwrap()];
        let refused = world.client.register(&alice.sign(&registration)).await;
        assert!(matches!(refused, Err(LocationError::Address)), "{address}");
    }
    let mut registration = alice.registration(1);
    registration.addresses = vec!["8.8.8.8:4001".parse().unwrap()];
    world.client.register(&alice.sign(&registration)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_looks_another_up_learns_who_helps_to_reach_it_and_a_mail_server_does_not_need_to() {
    let world = World::start().await;
    let token = world.token(&[Scope::Relay, Scope::Lookup]).await;
    let relay = RelayRecord {
        peer: Identity::generate().peer(),
        addresses: vec!["127.0.0.1:7443".parse().unwrap()],
        retrieval_url: "http://127.0.0.1:7081".into(),
    };
    world.client.put_relay(&token, &relay).await.unwrap();
    let (alice, _) = world.online("alice@example.org").await;
    let (_, session) = world.online("bob@example.org").await;
    let asked = world.client.lookup_one(&session, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!(asked.relays, [relay]);
    let asked = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert!(asked.relays.is_empty());
    let many = vec![alice.mailbox.clone(); RELAYS_TOLD_NAMES_MAX + 1];
    let asked = world.client.lookup(&session, &many).await.unwrap();
    assert!(asked.iter().flatten().all(|store| store.relays.is_empty()), "an answer stays small");
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say_until_it_is_revoked() {
    let world = World::start().await;
    let relay_token = world.token(&[Scope::Relay]).await;
    let someone = mailbox("alice@example.org");
    let refused = world.client.lookup_one(&relay_token, &someone).await;
    assert!(matches!(refused, Err(LocationError::Unauthorised)));
    let lookup_token = world.token(&[Scope::Lookup]).await;
    world.client.lookup_one(&lookup_token, &someone).await.unwrap();
    let record = RelayRecord {
        peer: Identity::generate().peer(),
        addresses: vec![],
        retrieval_url: "http://h".into(),
    };
    assert!(matches!(world.client.put_relay(&lookup_token, &record).await, Err(LocationError::Unauthorised)));
    let (_, session) = world.online("bob@example.org").await;
    assert!(matches!(world.client.put_relay(&session, &record).await, Err(LocationError::Unauthorised)));
}

#[tokio::test]
async fn rates_hold_and_say_when_to_come_again() {
    let world = World::start_with(|config| {
        config.rates.session_names_per_s = 1;
        config.rates.session_calls_per_s = 1;
    })
    .await;
    let (_, session) = world.online("alice@example.org").await;
    let names: Vec<_> = (0..11).map(|n| mailbox(&format!("n{n}@example.org"))).collect();
    let refused = world.client.lookup(&session, &names).await;
    assert!(matches!(refused, Err(LocationError::TooMany { .. })), "a batch counts by its names");
    world.client.lookup(&session, &names[..10]).await.unwrap();
    let mut pinged = 0;
    let refused = loop {
        match world.client.ping(&session).await {
            Ok(_) => pinged += 1,
            Err(error) => break error,
        }
        assert!(pinged < 1_000);
    };
    assert!(
        matches!(refused, LocationError::TooMany { retry_after } if retry_after >= Duration::from_secs(1))
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_refuses() {
    // SPEC: A16
    let world = World::start().await;
    let token = world.token(&[Scope::Lookup]).await;
    let url = world.server.url();
    world.server.stop().await;
    let client = LocationClient::new(&url, None).unwrap();
    let error = client.lookup_one(&token, &mailbox("alice@example.org")).await.unwrap_err();
    assert!(matches!(error, LocationError::Unreachable(_)) && error.is_temporary());
}

// SPEC: A3
#[tokio::test]
async fn who_leaves_something_is_told_a_key_of_each_attested_store_the_latest_one_and_none_of_a_revoked_one()
{
    let world = World::start().await;
    let (_, session) = world.online("bob@example.org").await;
    let first = world.enrolled("alice@example.org").await;
    let second = Store { mailbox: first.mailbox.clone(), ..Store::new("alice@example.org") };
    second.enrol(&world).await.unwrap();
    let say = async |store: &Store, number: u64, key: u8, issued: u64| {
        let (mailbox, peer) = (store.mailbox.clone(), store.identity.peer());
        let sealing = SealingKey { mailbox, peer, key: [key; 32], issued: UnixTime(issued) };
        let sealing = Signed::sign(&sealing, store.identity.keypair()).unwrap();
        world.client.register_sealed(&store.sign(&store.registration(number)), Some(&sealing)).await.unwrap();
        sealing
    };
    let told = async || {
        let found = world.client.lookup_one(&session, &first.mailbox).await.unwrap();
        found.map(|store| store.sealing_keys).unwrap_or_default()
    };
    first.register(&world, 1).await.unwrap();
    assert!(told().await.is_empty(), "it has said none");
    let old = say(&first, 2, 1, 1_000).await;
    assert_eq!(told().await, std::slice::from_ref(&old));
    let of_second = say(&second, 1, 9, 5_000).await;
    assert_eq!(told().await, std::slice::from_ref(&old), "the second is not confirmed");
    let primary = first.register(&world, 3).await.unwrap().session;
    world.client.confirm(&primary, second.identity.peer()).await.unwrap();
    assert_eq!(told().await, [old.clone(), of_second.clone()]);

    say(&first, 4, 2, 999).await;
    assert_eq!(told().await, [old, of_second.clone()], "an older one changes nothing");
    let new = say(&first, 5, 2, 1_001).await;
    assert_eq!(told().await, [new.clone(), of_second.clone()]);
    let world = world.restart().await;
    let session = world.online("carol@example.org").await.1;
    let told = async || {
        let found = world.client.lookup_one(&session, &first.mailbox).await.unwrap();
        found.map(|store| store.sealing_keys).unwrap_or_default()
    };
    assert_eq!(told().await, [new.clone(), of_second], "kept");
    let (mailbox, peer) = (first.mailbox.clone(), Some(second.identity.peer()));
    world.server.administer(AdminCommand::UserRemove { mailbox, peer }).await.unwrap();
    assert_eq!(told().await, [new], "revoked");
}

#[tokio::test]
async fn bad_input_34_a_sealing_key_of_somebody_else_is_refused() {
    let world = World::start().await;
    let alice = world.enrolled("alice@example.org").await;
    let mallory = world.enrolled("mallory@example.org").await;
    let key = |mailbox: &Mailbox, peer| SealingKey {
        mailbox: mailbox.clone(),
        peer,
        key: [1; 32],
        issued: UnixTime::now(),
    };
    let forged = [
        Signed::sign(&key(&alice.mailbox, alice.identity.peer()), mallory.identity.keypair()).unwrap(),
        Signed::sign(&key(&mallory.mailbox, alice.identity.peer()), alice.identity.keypair()).unwrap(),
        Signed::sign(&key(&alice.mailbox, mallory.identity.peer()), mallory.identity.keypair()).unwrap(),
    ];
    for sealing in forged {
        let registered =
            world.client.register_sealed(&alice.sign(&alice.registration(1)), Some(&sealing)).await;
        assert!(matches!(registered, Err(LocationError::Refused)), "{registered:?}");
    }
}
