//! Stores and agents that know nothing of other recipients as sources, or do not take part: everything goes on without.

use std::path::Path;

use lighter_agent::agent::Agent;
use lighter_agent::config::Paths;
use lighter_protocol::limits::FRUITLESS_STREAMS_MAX;
use lighter_protocol::pull::{Role, SourceState};
use lighter_protocol::wire::Request;
use lighter_store::OutgoingState;

use super::{MIB, Unreachable, change, is_receipted, limit, views};
use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, json, run};
use crate::support::recorder::{Manner, Recorder};
use crate::support::{World, bytes, eventually, file, mailbox, start};

/// Sam's agent, who sends.
async fn sam(world: &World, sink: &MailSink) -> (Paths, Agent) {
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    change(&paths, |config| config.send.unreachable = Unreachable::Retry);
    let agent = start(&paths).await;
    (paths, agent)
}

async fn send(sam: &Paths, to: &[&str], attached: &Path) {
    let mut arguments = vec!["--json".to_owned(), "send".to_owned()];
    for to in to {
        arguments.extend(["--to".to_owned(), format!("{to}@example.org")]);
    }
    arguments.push(attached.to_str().unwrap().to_owned());
    let output = run(sam, &arguments, b"").await;
    assert!(output.status.success(), "{}", error_text(&output));
}

fn are_released(sam: &Agent, names: &[&str]) -> bool {
    let all = sam.shared().store.all_outgoing().unwrap();
    names.iter().all(|name| {
        let mut its = all.iter().filter(|outgoing| outgoing.recipient == mailbox(name));
        its.any(|outgoing| matches!(outgoing.state, OutgoingState::Released(_)))
    })
}

// SPEC: D3, A25
#[tokio::test(flavor = "multi_thread")]
async fn a_taker_that_does_not_know_what_it_is_told_pulls_on_and_is_not_told_without_end() {
    for (manner, most) in [(Manner::Resets, 1), (Manner::Refuses, 2)] {
        let world = World::start().await;
        let sink = MailSink::start().await;
        let dave = Recorder::start(&world.set_up("dave", None).await, manner).await;
        let carol = Recorder::start(&world.set_up("carol", None).await, Manner::New).await;
        let eve = Recorder::start(&world.set_up("eve", None).await, Manner::New).await;
        let (sam_paths, sam) = sam(&world, &sink).await;
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
        let dave_paths = world.set_up("dave", None).await;
        start(&dave_paths).await.stop().await;
        let carol = Recorder::start(&world.set_up("carol", None).await, manner).await;
        let (sam_paths, sam) = sam(&world, &sink).await;
        let attached = file(world.folder.path(), "a.bin", &bytes(7, 24 * 1024 * 1024));
        tokio::join!(send(&sam_paths, &["carol", "dave"], &attached), carol.take());
        eventually("carol's receipt", async || are_released(&sam, &["carol"])).await;
        limit(&sam, "3 MiB/s");
        let dave = start(&dave_paths).await;
        sam.shared().wakes.send_modify(|count| *count += 1);
        let asked = || carol.count(|request| matches!(request, Request::GetShared(_)));
        eventually("carol to be asked", async || asked() > 0).await;
        let from_sam = async || {
            let views = views(&dave).await;
            views.iter().any(|view| view.role == Role::Holder && view.bytes > 6 * MIB)
        };
        eventually("the sender to go on", from_sam).await;
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
        for agent in [sam, dave] {
            agent.stop().await;
        }
    }
}
