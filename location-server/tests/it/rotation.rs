//! A store's key is rotated, or revoked: what the location server takes, and whom it tells.

use lighter_location::AdminCommand;
use lighter_protocol::{SealingKey, Signed, Succession, UnixTime};
use lighter_transport::Identity;
use lighter_transport::location::api::EnrolAnswer;
use lighter_transport::location::{LocationError, Presence, PresenceEvent, Revocation, Scope};

use crate::presence::{change, next, snapshot};
use crate::world::{Store, World};

impl Store {
    /// Rotates its key to that of `next`, which says its sealing key.
    async fn rotate(&self, world: &World, next: &Self) -> Result<EnrolAnswer, LocationError> {
        let sealing = next.sealing_key();
        let (former, next) = (self.identity.keypair(), next.identity.keypair());
        let rotated = world.client.succeed(former, next, &self.mailbox, Some(&sealing)).await;
        rotated.map(|(answer, _)| answer)
    }

    fn sealing_key(&self) -> Signed<SealingKey> {
        let (mailbox, peer) = (self.mailbox.clone(), self.identity.peer());
        let key = SealingKey { mailbox, peer, key: [7; 32], issued: UnixTime::now() };
        Signed::sign(&key, self.identity.keypair()).unwrap()
    }
}

/// What is told of keys that are no store's any more.
async fn revoked(events: &mut lighter_transport::location::PresenceEvents) -> Vec<Revocation> {
    match next(events).await {
        PresenceEvent::Revoked(revoked) => revoked,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_that_rotates_its_key_is_found_under_the_new_one_and_the_old_one_is_nobodys() {
    // SPEC: A12; DESIGN §4
    let world = World::start().await;
    let (alice, session) = world.online("alice@example.org").await;
    let bob = world.online("bob@example.org").await.1;
    let token = world.token(&[Scope::Lookup, Scope::Presence]).await;
    let mut events = world.client.presence(&token);
    assert_eq!(snapshot(&mut events).await, ["alice@example.org", "bob@example.org"]);

    let new = Store { identity: Identity::generate(), mailbox: alice.mailbox.clone() };
    let answer = alice.rotate(&world, &new).await.unwrap();
    assert!(answer.primary && answer.pending_until.is_none());
    let attestation = answer.attestation.unwrap().verify(&answer.location).unwrap();
    assert_eq!((attestation.peer, attestation.primary), (new.identity.peer(), true));
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Offline), "the former one");
    let told = revoked(&mut events).await;
    assert_eq!((&told[0].mailbox, told[0].peer), (&alice.mailbox, alice.identity.peer()));
    assert!(told[0].at < attestation.issued.plus(std::time::Duration::from_secs(60)));

    let found = world.client.lookup_one(&bob, &alice.mailbox).await.unwrap().unwrap();
    assert_eq!((found.peer, found.presence), (new.identity.peer(), Presence::Unknown), "it waits for it");
    assert_eq!(found.sealing_keys.len(), 1, "something can be left for it at once");
    let formers = Succession::formers(&found.successions, &found.peer);
    assert_eq!(formers, [alice.identity.peer()]);
    let by_token = world.client.lookup_one(&token, &alice.mailbox).await.unwrap().unwrap();
    assert!(by_token.successions.is_empty(), "as with sealing keys");

    assert!(matches!(world.client.ping(&session).await, Err(LocationError::Unauthorised)));
    assert!(matches!(alice.register(&world, 9).await, Err(LocationError::Refused)));
    assert!(matches!(new.register(&world, 1).await, Err(LocationError::Stale { sequence: 1 })));
    new.register(&world, 2).await.unwrap();
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Online));

    // Said again, by who did not hear the answer; and after a restart.
    assert!(alice.rotate(&world, &new).await.unwrap().primary);
    let world = world.restart().await;
    assert!(alice.rotate(&world, &new).await.unwrap().primary);
    let mut events = world.client.presence(&token);
    assert_eq!(revoked(&mut events).await, told, "whoever comes later is told as well");
    assert!(matches!(alice.register(&world, 10).await, Err(LocationError::Refused)));
    new.register(&world, 3).await.unwrap();
}

#[tokio::test]
async fn bad_input_34_a_key_is_rotated_by_itself_and_to_one_that_agrees_only() {
    let world = World::start().await;
    let alice = world.enrolled("alice@example.org").await;
    let mallory = world.enrolled("mallory@example.org").await;
    let new = Store { identity: Identity::generate(), mailbox: alice.mailbox.clone() };
    let refused = |answer: Result<_, LocationError>| assert!(matches!(answer, Err(LocationError::Refused)));
    // Mallory's own key is enrolled, for another mailbox.
    let sealing = new.sealing_key();
    let key = |store: &Store| store.identity.keypair().clone();
    refused(world.client.succeed(&key(&mallory), &key(&new), &alice.mailbox, None).await.map(drop));
    refused(world.client.succeed(&key(&new), &key(&mallory), &alice.mailbox, None).await.map(drop));
    let others = mallory.sealing_key();
    refused(world.client.succeed(&key(&alice), &key(&new), &alice.mailbox, Some(&others)).await.map(drop));
    // A second device of the user's cannot be made the first by the first alone.
    let second = Store::new("alice@example.org");
    second.enrol(&world).await.unwrap();
    refused(world.client.succeed(&key(&alice), &key(&second), &alice.mailbox, None).await.map(drop));
    assert!(alice.register(&world, 1).await.is_ok(), "nothing has changed");
    world.client.succeed(&key(&alice), &key(&new), &alice.mailbox, Some(&sealing)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_removed_is_told_to_relays_and_can_enrol_again() {
    let world = World::start().await;
    let (alice, _) = world.online("alice@example.org").await;
    let token = world.token(&[Scope::Presence]).await;
    let mut events = world.client.presence(&token);
    assert_eq!(snapshot(&mut events).await, ["alice@example.org"]);
    let (mailbox, peer) = (alice.mailbox.clone(), Some(alice.identity.peer()));
    world.server.administer(AdminCommand::UserRemove { mailbox, peer }).await.unwrap();
    assert_eq!(change(&mut events).await, ("alice@example.org".into(), Presence::Offline));
    let told = revoked(&mut events).await;
    assert_eq!(told[0].peer, alice.identity.peer());
    let again = alice.enrol(&world).await.unwrap();
    let attestation = again.attestation.unwrap().verify(&again.location).unwrap();
    assert!(attestation.issued > told[0].at, "made later, even within the same second");
}
