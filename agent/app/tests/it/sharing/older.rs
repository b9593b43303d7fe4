//! Stores and agents that know nothing of other recipients as sources, or do not take part: everything goes on without.

use lighter_protocol::limits::FRUITLESS_STREAMS_MAX;
use lighter_protocol::pull::{Role, SourceState};
use lighter_protocol::wire::Request;

use super::office::{MIB, are_released, away, brings, come, is_receipted, limit, send, sender, stop, views};
use crate::support::mail_sink::MailSink;
use crate::support::programs::json;
use crate::support::recorder::{Manner, Recorder};
use crate::support::{World, bytes, eventually, file, start};

// SPEC: D3, A25
#[tokio::test(flavor = "multi_thread")]
async fn a_taker_that_does_not_know_what_it_is_told_pulls_on_and_is_not_told_without_end() {
    for (manner, most) in [(Manner::Resets, 1), (Manner::Refuses, 2)] {
        let world = World::start().await;
        let sink = MailSink::start().await;
        let dave = Recorder::start(&world.set_up("dave", None).await, manner).await;
        let carol = Recorder::start(&world.set_up("carol", None).await, Manner::New).await;
        let eve = Recorder::start(&world.set_up("eve", None).await, Manner::New).await;
        let sam_paths = sender(&world, "sam@example.org", &sink, |_| {}).await;
        let sam = start(&sam_paths).await;
        let attached = file(world.folder.path(), "a.bin", &bytes(6, 12 * 1024 * 1024));
        let sources = || dave.count(|request| matches!(request, Request::Sources(_)));
        let sending = send(&sam_paths, &["carol", "dave", "eve"], &attached);
        let taking = async {
            tokio::join!(dave.offered(), eve.offered());
            carol.take().await;
            eventually("dave to be told", async || sources() > 0).await;
            // There is more to tell while dave pulls: as many times as there is something new, at most.
            limit(&sam, "6 MiB/s");
            tokio::join!(dave.take(), eve.take());
        };
        tokio::join!(sending, taking);
        eventually("all receipts", async || are_released(&sam, &["carol", "dave", "eve"])).await;
        assert!((1..=most).contains(&sources()), "{manner:?}: {}", sources());
        let status = json(&sam_paths, &["status"]).await;
        assert!(status["problem"].is_null(), "{status}");
        sam.stop().await;
    }
}

// SPEC: D3, A25
#[tokio::test(flavor = "multi_thread")]
async fn a_giver_that_does_not_know_what_it_is_asked_for_is_left_and_the_sender_brings_it() {
    for manner in [Manner::Resets, Manner::Refuses] {
        let world = World::start().await;
        let sink = MailSink::start().await;
        let dave_paths = away(&world, "dave").await;
        let carol = Recorder::start(&world.set_up("carol", None).await, manner).await;
        let sam_paths = sender(&world, "sam@example.org", &sink, |_| {}).await;
        let sam = start(&sam_paths).await;
        let attached = file(world.folder.path(), "a.bin", &bytes(7, 24 * 1024 * 1024));
        tokio::join!(send(&sam_paths, &["carol", "dave"], &attached), carol.take());
        eventually("carol's receipt", async || are_released(&sam, &["carol"])).await;
        limit(&sam, "3 MiB/s");
        let dave = come(&sam, &dave_paths).await;
        let asked = || carol.count(|request| matches!(request, Request::GetShared(_)));
        eventually("carol to be asked", async || asked() > 0).await;
        eventually("the sender to go on", async || brings(&dave, Role::Holder, 6 * MIB).await).await;
        let asked_then = asked();
        assert!(asked_then <= FRUITLESS_STREAMS_MAX as usize * 2, "{manner:?}: {asked_then}");
        let views = views(&dave).await;
        let sams = views.iter().find(|view| view.role == Role::Holder).unwrap();
        assert!(sams.state == SourceState::Asked && sams.bytes < 20 * MIB, "in the middle: {sams:?}");
        let carols = views.iter().find(|view| view.peer == carol.identity.peer()).unwrap();
        // One that said no to a blob is not asked for that again; one that says nothing is left.
        assert!(carols.state == SourceState::Gone || manner == Manner::Refuses, "{carols:?}");
        let status = json(&dave_paths, &["status"]).await;
        assert!(status["problem"].is_null() && status["pulls"].as_array().unwrap().len() == 1, "{status}");
        limit(&sam, "");
        eventually("dave's", async || is_receipted(&dave)).await;
        eventually("the receipt", async || are_released(&sam, &["carol", "dave"])).await;
        assert_eq!(asked(), asked_then, "{manner:?}: not asked again");
        stop([sam, dave]).await;
    }
}
