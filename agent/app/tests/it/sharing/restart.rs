//! The taker starts again while the sender is away: what it was told is on record.

use lighter_agent::sharing::Share;
use lighter_protocol::BlobId;
use lighter_protocol::pull::Role;
use lighter_store::OutgoingState;

use super::{MIB, Office, SIZE, is_receipted, limit, verified, views};
use crate::support::{eventually, start};

// SPEC: D3, D4
#[tokio::test(flavor = "multi_thread")]
async fn a_taker_that_starts_again_while_the_sender_is_away_goes_on_with_a_colleague() {
    let office = Office::start().await;
    office.send().await;
    limit(&office.sam, "4 MiB/s");
    limit(&office.carol, "4 MiB/s");
    let dave = office.dave().await;
    eventually("some from both", async || {
        let views = views(&dave).await;
        let brings = |role| views.iter().any(|view| view.role == role && view.bytes > 2 * MIB);
        brings(Role::Recipient) && brings(Role::Holder)
    })
    .await;
    let Office { world, sink, sam_paths, sam, carol, dave_paths, content } = office;
    sam.stop().await;
    dave.stop().await;
    let given = carol.shared().guest.up.granted();
    let dave = start(&dave_paths).await;
    let before = verified(&dave, &content);
    assert!(!is_receipted(&dave) && before > 0 && before < SIZE as u64, "{before}");
    assert_eq!(dave.shared().store.shared_deliveries().unwrap().len(), 1);
    limit(&carol, "");
    eventually("all of it", async || is_receipted(&dave)).await;
    assert!(dave.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    let given = carol.shared().guest.up.granted() - given;
    assert!(given <= SIZE as u64 + MIB, "{given} given, {before} were here: some of it twice");
    assert!(dave.shared().store.shared_deliveries().unwrap().is_empty(), "over");
    eventually("the pull to end", async || dave.shared().pulls.count() == 0).await;

    // The sender is back: it hears of it, and nothing is pulled again.
    let sam = start(&sam_paths).await;
    eventually("the receipt", async || {
        let all = sam.shared().store.all_outgoing().unwrap();
        all.iter().all(|outgoing| matches!(outgoing.state, OutgoingState::Released(_)))
    })
    .await;
    assert!(sam.shared().guest.up.granted() < MIB);
    for agent in [sam, dave, carol] {
        agent.stop().await;
    }
    drop((world, sink));
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_comes_back_joins_a_pull_that_went_on_without_it() {
    let office = Office::start().await;
    office.send().await;
    limit(&office.sam, "4 MiB/s");
    limit(&office.carol, "2 MiB/s");
    let dave = office.dave().await;
    let from = async |agent: &lighter_agent::agent::Agent, role| {
        views(agent).await.iter().any(|view| view.role == role && view.bytes > MIB)
    };
    eventually("some from carol", async || from(&dave, Role::Recipient).await).await;
    let Office { world, sink, sam_paths, sam, carol, dave_paths, content } = office;
    sam.stop().await;
    dave.stop().await;
    let dave = start(&dave_paths).await;
    eventually("carol's bytes", async || from(&dave, Role::Recipient).await).await;
    assert!(views(&dave).await.iter().all(|view| view.role == Role::Recipient), "the sender is away");
    super::change(&sam_paths, |config| config.guest = toml::from_str("upload = '4 MiB/s'").unwrap());
    let sam = start(&sam_paths).await;
    eventually("some from the sender", async || from(&dave, Role::Holder).await).await;
    limit(&carol, "");
    limit(&sam, "");
    eventually("the receipt", async || {
        let all = sam.shared().store.all_outgoing().unwrap();
        all.iter().all(|outgoing| matches!(outgoing.state, OutgoingState::Released(_)))
    })
    .await;
    assert!(dave.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    for agent in [sam, dave, carol] {
        agent.stop().await;
    }
    drop((world, sink));
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_share_any_more_asks_nobody_for_what_is_on_record() {
    let office = Office::start().await;
    office.send().await;
    limit(&office.sam, "4 MiB/s");
    limit(&office.carol, "2 MiB/s");
    let dave = office.dave().await;
    let is_kept = async || !dave.shared().store.shared_deliveries().unwrap().is_empty();
    eventually("what dave was told to be kept", is_kept).await;
    let Office { world, sink, sam, carol, dave_paths, .. } = office;
    sam.stop().await;
    dave.stop().await;
    super::change(&dave_paths, |config| config.store.share = Share::Off);
    let given = carol.shared().guest.up.granted();
    let dave = start(&dave_paths).await;
    // He is registered: whoever was to be looked for had been by the time that somebody else's question is answered.
    crate::support::programs::json(&dave_paths, &["lookup", "carol@example.org"]).await;
    assert_eq!(dave.shared().pulls.count(), 0);
    assert_eq!(carol.shared().guest.up.granted(), given);
    for agent in [dave, carol] {
        agent.stop().await;
    }
    drop((world, sink));
}
