//! The taker starts again while the sender is away: what it was told is on record. Whom it asks then, when, and for how many
//! deliveries.

use std::time::Duration;

use lighter_agent::access::Access;
use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, Paths};
use lighter_agent::key;
use lighter_agent::limits::RESUMED_PULLS_MAX;
use lighter_agent::sharing::Share;
use lighter_protocol::pull::Role;
use lighter_protocol::wire::{Offer, OfferedBlob};
use lighter_protocol::{BlobId, DeliveryId, Sharing, Signed, UnixTime};
use lighter_transport::Identity;

use super::office::{
    MIB, Office, SIZE, are_released, away, brings, change, holds, is_intact, is_receipted, limit, send, stop,
    the_sender_hears_of_it, views,
};
use crate::support::mail_sink::MailSink;
use crate::support::programs::json;
use crate::support::{World, bytes, eventually, file, mailbox, start};

// SPEC: D3, D4
#[tokio::test(flavor = "multi_thread")]
async fn a_taker_that_starts_again_while_the_sender_is_away_goes_on_with_a_colleague() {
    let office = Office::start().await;
    office.send().await;
    let dave = office.dave_pulls_from_both(["4 MiB/s", "4 MiB/s"]).await;
    let Office { world, sink, sam_paths, sam, carol, dave_paths, content, .. } = office;
    sam.stop().await;
    dave.stop().await;
    let given = carol.shared().guest.up.granted();
    let before = on_record(&dave_paths, &content).await;
    assert!(before > 4 * MIB && before < SIZE as u64, "{before}: what came from both is on record");
    let dave = start(&dave_paths).await;
    assert!(!is_receipted(&dave));
    assert_eq!(dave.shared().store.shared_deliveries().unwrap().len(), 1);
    limit(&carol, "");
    eventually("all of it", async || is_receipted(&dave)).await;
    assert!(is_intact(&dave, &content));
    let given = carol.shared().guest.up.granted() - given;
    assert!(given + before <= SIZE as u64 + MIB, "{given} given, {before} were here: some of it twice");
    assert!(dave.shared().store.shared_deliveries().unwrap().is_empty(), "over");
    eventually("the pull to end", async || dave.shared().pulls.count() == 0).await;
    let sam = the_sender_hears_of_it(&sam_paths).await;
    stop([sam, dave, carol]).await;
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
    eventually("some from carol", async || brings(&dave, Role::Recipient, MIB).await).await;
    let Office { world, sink, sam_paths, sam, carol, dave_paths, content, .. } = office;
    sam.stop().await;
    dave.stop().await;
    let dave = start(&dave_paths).await;
    eventually("carol's bytes", async || brings(&dave, Role::Recipient, MIB).await).await;
    assert!(views(&dave).await.iter().all(|view| view.role == Role::Recipient), "the sender is away");
    change(&sam_paths, |config| config.guest = toml::from_str("upload = '4 MiB/s'").unwrap());
    let sam = start(&sam_paths).await;
    eventually("some from the sender", async || brings(&dave, Role::Holder, MIB).await).await;
    limit(&carol, "");
    limit(&sam, "");
    eventually("the receipt", async || are_released(&sam, &["carol", "dave"])).await;
    assert!(is_intact(&dave, &content));
    stop([sam, dave, carol]).await;
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
    change(&dave_paths, |config| config.store.share = Share::Off);
    let given = carol.shared().guest.up.granted();
    let dave = start(&dave_paths).await;
    // He is registered: whoever was to be looked for had been by the time that somebody else's question is answered.
    json(&dave_paths, &["lookup", "carol@example.org"]).await;
    assert_eq!(dave.shared().pulls.count(), 0);
    assert_eq!(carol.shared().guest.up.granted(), given);
    stop([dave, carol]).await;
    drop((world, sink));
}

/// Sam and carol have gone when dave had some of it from each, and dave has started again: he asks nobody yet.
struct Interrupted {
    world: World,
    _sink: MailSink,
    carol_paths: Paths,
    dave: Agent,
    content: Vec<u8>,
}

impl Interrupted {
    /// He does not share when he starts, and does afterwards.
    async fn start() -> Self {
        let office = Office::start().await;
        office.send().await;
        let dave = office.dave_pulls_from_both(["4 MiB/s", "4 MiB/s"]).await;
        let Office { world, sink, sam, carol, carol_paths, dave_paths, content, .. } = office;
        stop([sam, carol, dave]).await;
        change(&dave_paths, |config| config.store.share = Share::Off);
        let dave = start(&dave_paths).await;
        // He is registered: whoever was to be looked for had been by the time that somebody else's question is answered.
        json(&dave_paths, &["lookup", "carol@example.org"]).await;
        dave.shared().change_share(Share::SameDomain);
        assert_eq!(dave.shared().pulls.count(), 0);
        Self { world, _sink: sink, carol_paths, dave, content }
    }

    async fn finish_with(self, carol: Agent) {
        eventually("all of it", async || holds(&self.dave, &self.content)).await;
        stop([carol, self.dave]).await;
    }
}

// SPEC: D3, D4
#[tokio::test(flavor = "multi_thread")]
async fn a_colleague_who_is_heard_of_is_asked_at_once_for_what_is_missing() {
    let interrupted = Interrupted::start().await;
    let carol = start(&interrupted.carol_paths).await;
    assert_eq!(interrupted.dave.shared().pulls.count(), 0, "nobody has said that she is there");
    // Her agent connects to his, for something else.
    let note = file(interrupted.world.folder.path(), "note.bin", &bytes(9, 500_000));
    send(&interrupted.carol_paths, &["dave"], &note).await;
    interrupted.finish_with(carol).await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn on_another_network_it_is_looked_at_once_who_has_what_is_missing() {
    let interrupted = Interrupted::start().await;
    let carol = start(&interrupted.carol_paths).await;
    interrupted.dave.shared().wakes.send_modify(|count| *count += 1);
    interrupted.finish_with(carol).await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn when_there_is_room_again_it_is_looked_at_once_who_has_what_is_missing() {
    let interrupted = Interrupted::start().await;
    let carol = start(&interrupted.carol_paths).await;
    interrupted.dave.shared().guest.there_is_room();
    interrupted.finish_with(carol).await;
}

/// Bytes of it that a store has on record whose agent has stopped.
async fn on_record(paths: &Paths, content: &[u8]) -> u64 {
    let store = Access::take(&Config::read(&paths.config).unwrap(), paths).await.unwrap();
    store.len_here(BlobId::of(content), content.len() as u64).unwrap()
}

/// A delivery for dave of 10 MiB that sam's store has begun to bring, and whom else sam's says to ask.
fn begun(number: u8, sam: &Identity, dave: &Identity) -> (Offer, Signed<Sharing>) {
    let now = UnixTime::now();
    let part = |kind: u8, size| OfferedBlob {
        id: BlobId::of(&[number, kind]),
        size,
        name: "film.bin".to_owned(),
        media_type: "application/octet-stream".to_owned(),
    };
    let offer = Offer {
        delivery: DeliveryId([number; 16]),
        mailbox: mailbox("dave"),
        manifest: part(0, 1_000),
        blobs: vec![part(1, 10 * MIB)],
        sources: Vec::new(),
        expires: now.plus(Duration::from_hours(24)),
        introduction: None,
    };
    let sharing = Sharing {
        delivery: DeliveryId([200; 16]),
        giver: mailbox("carol"),
        giver_store: Identity::generate().peer(),
        taker: mailbox("dave"),
        taker_store: dave.peer(),
        expires: now.plus(Duration::from_hours(1)),
    };
    (offer, Signed::sign(&sharing, sam.keypair()).unwrap())
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_however_many_deliveries_are_on_record_so_many_are_gone_on_with_that_nobody_offers() {
    let world = World::start().await;
    let dave_paths = away(&world, "dave").await;
    let config = Config::read(&dave_paths.config).unwrap();
    let (sam, dave) = (Identity::generate(), key::load(&config.key, &dave_paths).await.unwrap());
    let store = Access::take(&config, &dave_paths).await.unwrap();
    let many = u8::try_from(RESUMED_PULLS_MAX).unwrap() * 3;
    for number in 0..many {
        let (offer, sharing) = begun(number, &sam, &dave);
        store.admit(&offer, sam.peer(), UnixTime::now()).unwrap();
        assert_eq!(store.put_sharings(offer.delivery, &[sharing]).unwrap(), 1);
    }
    assert_eq!(store.shared_deliveries().unwrap().len(), usize::from(many));
    drop(store);
    let dave = start(&dave_paths).await;
    let count = || dave.shared().pulls.count();
    eventually("them to be gone on with", async || count() >= RESUMED_PULLS_MAX).await;
    // By the time that another process is answered, whatever is begun at once has begun.
    json(&dave_paths, &["status"]).await;
    assert_eq!(count(), RESUMED_PULLS_MAX);
    dave.stop().await;
}
