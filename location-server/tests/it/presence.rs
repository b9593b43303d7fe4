//! The presence stream: snapshot first, then changes, and again after a break.

use std::time::Duration;

use lighter_transport::location::{LocationError, Presence, PresenceEvent, PresenceEvents, Scope};

use crate::world::World;

pub(crate) async fn next(events: &mut PresenceEvents) -> PresenceEvent {
    tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("an event in time")
}

/// The names of those online, from all pages of a snapshot.
pub(crate) async fn snapshot(events: &mut PresenceEvents) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match next(events).await {
            PresenceEvent::Snapshot(page) => {
                names.extend(page.stores.iter().map(|store| store.mailbox.to_string()));
                assert!(page.stores.iter().all(|store| store.presence == Presence::Online));
                if page.last {
                    names.sort();
                    return names;
                }
            }
            PresenceEvent::Lost(_) => names.clear(),
            PresenceEvent::Revoked(_) => {}
            PresenceEvent::Change(change) => panic!("{change:?} before the snapshot was over"),
        }
    }
}

pub(crate) async fn change(events: &mut PresenceEvents) -> (String, Presence) {
    match next(events).await {
        PresenceEvent::Change(change) => (change.mailbox.to_string(), change.presence),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_begins_with_who_is_online_and_goes_on_with_what_changes() {
    // SPEC: A13, D5
    let world = World::start().await;
    let (alice, session) = world.online("alice@example.org").await;
    world.enrolled("bob@example.org").await;
    let token = world.token(&[Scope::Presence]).await;
    let mut events = world.client.presence(&token);
    assert_eq!(snapshot(&mut events).await, ["alice@example.org"]);
    world.client.ping(&session).await.unwrap();
    world.client.offline(&session).await.unwrap();
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Offline));
    alice.register(&world, 2).await.unwrap();
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Online));
}

#[tokio::test]
async fn a_snapshot_of_many_comes_in_pages_and_names_everyone_once() {
    let world = World::start_with(|config| {
        config.rates.strangers_per_s = 100_000;
        config.rates.registrations_per_s = 100_000;
    })
    .await;
    let mut expected = Vec::new();
    for number in 0..1_200 {
        let name = format!("user{number:04}@example.org");
        world.online(&name).await;
        expected.push(name);
    }
    let token = world.token(&[Scope::Presence]).await;
    assert_eq!(snapshot(&mut world.client.presence(&token)).await, expected);
}

#[tokio::test]
async fn a_stream_opens_itself_again_when_the_server_is_back() {
    let world = World::start_with(|_| {}).await;
    let token = world.token(&[Scope::Presence]).await;
    let (alice, _) = world.online("alice@example.org").await;
    let mut events = world.client.presence(&token);
    assert_eq!(snapshot(&mut events).await, ["alice@example.org"]);
    let address = world.server.address();
    world.server.stop().await;
    match next(&mut events).await {
        PresenceEvent::Lost(LocationError::Unreachable(_)) => {}
        other => panic!("{other:?}"),
    }
    let mut config = crate::world::config(world.folder.path());
    config.listen = address;
    let stopping = tokio_util::sync::CancellationToken::new();
    let server = lighter_location::LocationServer::start(config, stopping).await.unwrap();
    assert!(snapshot(&mut events).await.is_empty(), "nobody has pinged since");
    let world = World { server, client: world.client, folder: world.folder };
    alice.register(&world, 2).await.unwrap();
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Online));
}

#[tokio::test]
async fn presence_is_for_those_whom_the_admin_allows() {
    let world = World::start().await;
    let (_, session) = world.online("alice@example.org").await;
    let lookup_only = world.token(&[Scope::Lookup]).await;
    for bearer in [session, lookup_only] {
        match next(&mut world.client.presence(&bearer)).await {
            PresenceEvent::Lost(LocationError::Unauthorised) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_removed_users_store_goes_offline_for_those_who_watch() {
    use lighter_location::{AdminAnswer, AdminCommand};
    let world = World::start().await;
    let (alice, session) = world.online("alice@example.org").await;
    let token = world.token(&[Scope::Presence, Scope::Lookup]).await;
    let mut events = world.client.presence(&token);
    snapshot(&mut events).await;
    let command = AdminCommand::UserRemove { mailbox: alice.mailbox.clone(), peer: None };
    assert_eq!(world.server.administer(command).await, Ok(AdminAnswer::Removed { stores: 1 }));
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Offline));
    assert!(matches!(world.client.ping(&session).await, Err(LocationError::Unauthorised)));
    assert!(matches!(alice.register(&world, 2).await, Err(LocationError::Refused)));
    assert!(world.client.lookup_one(&token, &alice.mailbox).await.unwrap().is_none());
}
