//! A recipient of another domain: whom the sender asks, and what the recipient decides. The two location servers know each
//! other by hand; that they are found by DNS is shown by tests/e2e.

use lighter_agent::config::Config;
use lighter_agent::{acceptance, finding, lookup};
use lighter_protocol::Mailbox;
use lighter_transport::location::api::{AcceptanceChange, AcceptancePolicy};

use crate::support::{World, start};

fn named(text: &str) -> Mailbox {
    text.parse().unwrap()
}

// SPEC: A2, A15
#[tokio::test]
async fn a_recipient_of_another_domain_is_found_once_they_accept_the_sender() {
    let a = World::start().await;
    let url = a.location.url();
    let b = World::start_with(|config| {
        config.finding.domains.insert("a.example".to_owned(), url);
    })
    .await;
    let (ann, bob) = (named("ann@a.example"), named("bob@b.example"));
    let paths = a.set_up_as("ann", ann.clone(), None).await;
    let mut config = Config::read(&paths.config).unwrap();
    config.finding.domains.insert("b.example".to_owned(), b.location.url());
    config.finding.domains.insert("c.example".to_owned(), "http://127.0.0.1:1".to_owned());
    config.write(&paths.config).unwrap();
    let ann_runs = start(&paths).await;
    let bob_runs = start(&b.set_up_as("bob", bob.clone(), None).await).await;

    let found = async || lookup::ask(ann_runs.shared(), bob.clone()).await.unwrap().store;
    let change = async |change| acceptance::change(bob_runs.shared(), change).await.unwrap().0;
    assert_eq!(found().await, None, "a stranger");
    acceptance::wrote_to(bob_runs.shared(), &bob, &[ann.clone(), named("colleague@b.example")]).await;
    let store = found().await.unwrap();
    assert!(store.answers && store.peer == bob_runs.shared().identity.peer(), "{store:?}");
    let chosen = change(AcceptanceChange { block: vec![ann.clone()], ..AcceptanceChange::default() }).await;
    assert_eq!(chosen.correspondents.len(), 1, "the own domain is known anyway: {chosen:?}");
    assert_eq!(found().await, None, "blocked");
    acceptance::wrote_to(bob_runs.shared(), &bob, std::slice::from_ref(&ann)).await;
    assert_eq!(found().await, None, "a block is not undone by writing");
    change(AcceptanceChange { forget: vec![ann.clone()], ..AcceptanceChange::default() }).await;
    let policy = Some(AcceptancePolicy::Open);
    change(AcceptanceChange { policy, ..AcceptanceChange::default() }).await;
    assert!(found().await.is_some(), "open");

    // A domain whose location server is away is told from one that has none.
    let names = [named("x@c.example"), named("y@d.invalid"), bob.clone()];
    let mut looked_up = finding::look_up(ann_runs.shared(), &ann, &names).await;
    looked_up.sort_by(|one, other| one.0.cmp(&other.0));
    let [(_, found), (_, away), (_, none)] = &looked_up[..] else { panic!("{looked_up:?}") };
    assert!(matches!(found, Ok(Some(_))) && *none == Ok(None));
    assert!(away.as_ref().unwrap_err().contains("cannot be found now"), "{away:?}");
    ann_runs.stop().await;
    bob_runs.stop().await;
}
