//! Hosted stores (SPEC A29): one store of many mailboxes, as the configuration names them; over real HTTP.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lighter_location::config::HostedConfig;
use lighter_location::{AdminCommand, Config};
use lighter_protocol::{Attestation, Mailbox, SealingKey, Signed, UnixTime};
use lighter_transport::Identity;
use lighter_transport::location::api::{AcceptanceChange, AcceptancePolicy};
use lighter_transport::location::{LocationError, Presence, PresenceEvent, Scope, Secret, StoreRecord};

use crate::http::raw;
use crate::world::{Store, World, mailbox};

const SERVICE: &str = "store@a.example";

/// A hosted store's key, which the configuration can name before it enrols.
fn service() -> Store {
    Store { identity: Identity::generate(), mailbox: mailbox(SERVICE) }
}

fn names(config: &mut Config, store: &Store, mailboxes: &[&str], files: &[&Path]) {
    config.domains = vec!["a.example".to_owned()];
    config.hosted = vec![HostedConfig {
        peer: store.identity.peer(),
        mailboxes: mailboxes.iter().map(|name| mailbox(name)).collect(),
        files: files.iter().map(|path| path.to_path_buf()).collect(),
        domain: None,
    }];
}

fn sealing_key(store: &Store, of: &str) -> Signed<SealingKey> {
    let key = SealingKey {
        mailbox: mailbox(of),
        peer: store.identity.peer(),
        key: [7; 32],
        issued: UnixTime::now(),
    };
    Signed::sign(&key, store.identity.keypair()).unwrap()
}

/// Enrols and registers the service's store; its session.
async fn online(world: &World, store: &Store) -> Secret {
    store.enrol(world).await.unwrap();
    store.register(world, 1).await.unwrap().session
}

/// What it is told of its mailboxes.
async fn hosting(world: &World, store: &Store, session: &Secret) -> BTreeMap<Mailbox, Attestation> {
    let (location, peer) = (world.server.peer(), store.identity.peer());
    let (mut all, mut after) = (BTreeMap::new(), None);
    loop {
        let page = world.client.hosting(session, after.as_ref()).await.unwrap();
        for hosted in page.mailboxes {
            let said =
                Attestation::verify_of(&hosted.attestation, &location, &peer, UnixTime::now()).unwrap();
            after = Some(said.mailbox.clone());
            all.insert(said.mailbox.clone(), said);
        }
        if !page.more {
            return all;
        }
    }
}

/// Takes mailboxes on.
async fn take_on(world: &World, store: &Store, session: &Secret, of: &[&str]) {
    let keys = of.iter().map(|of| sealing_key(store, of)).collect();
    world.client.register_hosted(session, keys).await.unwrap();
}

async fn found(world: &World, token: &Secret, name: &str) -> Option<StoreRecord> {
    world.client.lookup_one(token, &mailbox(name)).await.unwrap()
}

fn refused<T: std::fmt::Debug>(answer: &Result<T, LocationError>) -> bool {
    matches!(answer, Err(LocationError::Refused))
}

// SPEC: A29, A12, A13, A15
#[tokio::test]
async fn one_ping_covers_all_mailboxes_of_a_hosted_store_from_when_it_takes_them_on_until_it_goes() {
    let store = service();
    let users = ["ann@a.example", "bob@a.example", "carl@a.example"];
    let world = World::start_with(|config| names(config, &store, &users, &[])).await;
    let token = world.token(&[Scope::Lookup, Scope::Presence]).await;
    let session = online(&world, &store).await;
    assert_eq!(found(&world, &token, users[0]).await, None, "it has not taken them on");

    let told = hosting(&world, &store, &session).await;
    assert_eq!(told.keys().map(ToString::to_string).collect::<Vec<_>>(), users);
    assert!(told.values().all(|attestation| attestation.primary));
    let mut events = world.client.presence(&token);
    while !matches!(events.next().await, PresenceEvent::Snapshot(page) if page.last) {}
    take_on(&world, &store, &session, &users[..2]).await;
    let mut changed = Vec::new();
    while changed.len() < 2 {
        if let PresenceEvent::Change(change) = events.next().await {
            changed.push((change.mailbox.to_string(), change.presence));
        }
    }
    changed.sort();
    assert_eq!(changed, [(users[0].to_owned(), Presence::Online), (users[1].to_owned(), Presence::Online)]);
    for name in &users[..2] {
        let record = found(&world, &token, name).await.unwrap();
        assert_eq!((record.peer, record.presence), (store.identity.peer(), Presence::Online));
        assert!(record.primary && record.addresses == ["127.0.0.1:4001".parse().unwrap()]);
    }
    assert_eq!(found(&world, &token, users[2]).await, None, "that one was not taken on");
    // What drops are sealed to is told to senders.
    let (_, sender) = world.online("sam@a.example").await;
    let record = world.client.lookup_one(&sender, &mailbox(users[0])).await.unwrap().unwrap();
    assert_eq!(record.sealing_keys.len(), 1);

    world.client.offline(&session).await.unwrap();
    let record = found(&world, &token, users[1]).await.unwrap();
    assert_eq!(record.presence, Presence::Offline);
    assert!(record.addresses.is_empty(), "its addresses are removed for all of them");
}

// SPEC: A29, A14
#[tokio::test]
async fn a_hosted_store_that_does_not_ping_is_offline_for_all_its_mailboxes_and_after_a_restart_it_takes_them_on_anew()
 {
    let store = service();
    let configure = |config: &mut Config| {
        names(config, &store, &["ann@a.example"], &[]);
        (config.ping_interval_s, config.ttl_s) = (2, 10);
    };
    let world = World::start_with(configure).await;
    let token = world.token(&[Scope::Lookup]).await;
    let session = online(&world, &store).await;
    take_on(&world, &store, &session, &["ann@a.example"]).await;
    let presence = async |world: &World| found(world, &token, "ann@a.example").await.unwrap().presence;
    assert_eq!(presence(&world).await, Presence::Online);
    let state = world.client.ping(&session).await.unwrap().hosting.unwrap();
    while presence(&world).await == Presence::Online {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.client.ping(&session).await.unwrap();
    assert_eq!(presence(&world).await, Presence::Online, "one ping is enough for all");

    let world = world.restart_with(configure).await;
    assert_eq!(
        presence(&world).await,
        Presence::Unknown,
        "the sealing key is durable: it is known whose store it is"
    );
    let session = store.register(&world, 2).await.unwrap().session;
    assert_eq!(presence(&world).await, Presence::Unknown, "it has not said that it serves it still");
    assert_ne!(world.client.ping(&session).await.unwrap().hosting, Some(state));
    world.client.register_hosted(&session, Vec::new()).await.unwrap();
    assert_eq!(presence(&world).await, Presence::Online);

    // Where the configuration names it no more, nothing is left of it.
    let world = world.restart_with(|config| config.domains = vec!["a.example".to_owned()]).await;
    assert_eq!(found(&world, &token, "ann@a.example").await, None);
    let session = store.register(&world, 3).await.unwrap().session;
    assert!(refused(&world.client.hosting(&session, None).await));
    assert_eq!(world.client.ping(&session).await.unwrap().hosting, None);
}

// SPEC: A29
#[tokio::test]
async fn users_come_and_go_with_the_file_that_names_them_while_the_server_runs() {
    let store = service();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    std::fs::write(&file, "ann@a.example:{PLAIN}x::::::\n").unwrap();
    let world = World::start_with(|config| names(config, &store, &[], &[&file])).await;
    let token = world.token(&[Scope::Lookup]).await;
    let session = online(&world, &store).await;
    take_on(&world, &store, &session, &["ann@a.example"]).await;
    let before = world.client.ping(&session).await.unwrap().hosting;
    let changed = async |before: &Option<String>| loop {
        let now = world.client.ping(&session).await.unwrap().hosting;
        if now != *before {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    std::fs::write(&file, "ann@a.example:{PLAIN}x::::::\nbob@a.example:{PLAIN}y::::::\n").unwrap();
    let with_bob = changed(&before).await;
    assert_eq!(hosting(&world, &store, &session).await.len(), 2);
    take_on(&world, &store, &session, &["bob@a.example"]).await;
    assert!(found(&world, &token, "bob@a.example").await.is_some());

    // A file that is none changes nothing; one without ann ends that she is served.
    std::fs::write(&file, "nobody\n").unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    while !raw(world.server.address(), request).await.contains("lighter_location_hosted_files_unusable 1") {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(found(&world, &token, "ann@a.example").await.is_some());
    std::fs::write(&file, "bob@a.example\n").unwrap();
    changed(&with_bob).await;
    assert_eq!(found(&world, &token, "ann@a.example").await, None);
    assert!(found(&world, &token, "bob@a.example").await.is_some());
    let key = vec![sealing_key(&store, "ann@a.example")];
    assert!(refused(&world.client.register_hosted(&session, key).await));
}

// SPEC: A29
#[tokio::test]
async fn bad_input_34_nobody_hosts_what_was_not_given_to_them() {
    let store = service();
    let world = World::start_with(|config| names(config, &store, &["ann@a.example"], &[])).await;
    let token = world.token(&[Scope::Lookup]).await;
    let session = online(&world, &store).await;
    let (eve, of_eve) = world.online("eve@a.example").await;
    assert!(refused(&world.client.hosting(&of_eve, None).await), "a peer that is not in the configuration");
    assert!(refused(&world.client.register_hosted(&of_eve, vec![sealing_key(&eve, "ann@a.example")]).await));
    for (why, keys) in [
        ("a mailbox that was not given", vec![sealing_key(&store, "bob@a.example")]),
        (
            "one that was, and one that was not",
            vec![sealing_key(&store, "ann@a.example"), sealing_key(&store, SERVICE)],
        ),
        ("another's key", vec![sealing_key(&eve, "ann@a.example")]),
    ] {
        assert!(refused(&world.client.register_hosted(&session, keys).await), "{why}");
    }
    assert_eq!(found(&world, &token, "ann@a.example").await, None, "nothing was changed");
    // Its own session registers no hosted mailbox as an own one, and cannot enrol for it.
    let as_ann = Store { identity: store.identity.clone(), mailbox: mailbox("ann@a.example") };
    assert!(matches!(as_ann.register(&world, 1).await, Err(LocationError::Refused)));
    assert!(refused(&as_ann.enrol(&world).await));
    let change = AcceptanceChange {
        policy: Some(AcceptancePolicy::Open),
        sender: Some(mailbox("bob@a.example")),
        ..AcceptanceChange::default()
    };
    assert!(refused(&world.client.change_acceptance(&session, &change).await), "not its user");
    assert!(refused(&world.client.acceptance_of(&session, &mailbox("bob@a.example")).await));
    assert!(refused(&world.client.acceptance_of(&of_eve, &mailbox("ann@a.example")).await));
}

// SPEC: A29
#[tokio::test]
async fn a_users_own_store_comes_first_once_it_is_confirmed_unless_the_user_says_otherwise() {
    let store = service();
    let world = World::start_with(|config| names(config, &store, &["ann@a.example"], &[])).await;
    let token = world.token(&[Scope::Lookup]).await;
    let session = online(&world, &store).await;
    take_on(&world, &store, &session, &["ann@a.example"]).await;
    // For a user who has no store of their own, the service says who may send to them.
    let open = AcceptanceChange {
        policy: Some(AcceptancePolicy::Open),
        sender: Some(mailbox("ann@a.example")),
        ..AcceptanceChange::default()
    };
    world.client.change_acceptance(&session, &open).await.unwrap();
    let chosen = world.client.acceptance_of(&session, &mailbox("ann@a.example")).await.unwrap();
    assert_eq!(chosen.policy, AcceptancePolicy::Open);

    let own = Store::new("ann@a.example");
    let enrolled = own.enrol(&world).await.unwrap();
    assert!(
        enrolled.primary && enrolled.pending_until.is_some(),
        "what the hosted store keeps is protected as any"
    );
    let is_primary = async || hosting(&world, &store, &session).await[&mailbox("ann@a.example")].primary;
    assert!(is_primary().await, "the own one is pending");
    let before = world.client.ping(&session).await.unwrap().hosting;
    let confirm = AdminCommand::UserConfirm { mailbox: mailbox("ann@a.example"), peer: own.identity.peer() };
    world.server.administer(confirm).await.unwrap();
    assert_ne!(
        world.client.ping(&session).await.unwrap().hosting,
        before,
        "it is told that something changed"
    );
    assert!(!is_primary().await);
    let of_ann = own.register(&world, 1).await.unwrap();
    assert_eq!(found(&world, &token, "ann@a.example").await.unwrap().peer, own.identity.peer());
    assert!(refused(&world.client.change_acceptance(&session, &open).await), "ann speaks for herself now");

    let hosted = store.identity.peer();
    assert!(refused(&world.client.prefer(&of_ann.session, world.server.peer()).await), "no store of hers");
    world.client.prefer(&of_ann.session, hosted).await.unwrap();
    assert!(is_primary().await);
    assert_eq!(found(&world, &token, "ann@a.example").await.unwrap().peer, hosted);
    world.client.offline(&session).await.unwrap();
    assert_eq!(
        found(&world, &token, "ann@a.example").await.unwrap().peer,
        own.identity.peer(),
        "the one that is online"
    );
}
