//! Many small attachments: few requests for all of them, from whoever gives them so, and nothing lost where one does not.

use lighter_agent::guest::decide::GuestConfig;
use lighter_protocol::BlobId;
use lighter_protocol::pull::{SourceState, SourceView};
use lighter_protocol::wire::Offer;
use lighter_store::OutgoingState;
use lighter_transport::limiter::{Allowance, Class, Hold, Limiter, Rate, Transfer};

use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, run};
use crate::support::relay::{Relay, Together};
use crate::support::{World, bytes, change, eventually, file, mailbox, start};

const COUNT: usize = 300;

fn contents() -> Vec<Vec<u8>> {
    (0..COUNT).map(|number| bytes(number as u64 + 1, 1 + number * 54)).collect()
}

fn is_here(agent: &lighter_agent::agent::Agent, offer: &Offer) {
    let store = &agent.shared().store;
    for blob in &offer.blobs {
        assert!(store.open_blob(blob.id).unwrap().is_intact().unwrap());
    }
}

/// How many requests there were for many, how many blobs these named, and how many requests there were for one.
fn asked(relay: &Relay) -> (usize, usize, usize) {
    let held = relay.held.lock().unwrap();
    (held.together.len(), held.together.iter().map(|get| get.blobs.len()).sum(), held.gets.len())
}

// SPEC: A6, A19
#[tokio::test(flavor = "multi_thread")]
async fn many_small_attachments_are_asked_for_by_few_requests() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &contents());
    let agent = world.agent("alice", None).await;
    relay.receipts(1).await;
    is_here(&agent, &offer);
    let (requests, blobs, alone) = asked(&relay);
    assert_eq!(blobs + alone, COUNT + 1, "each once, and the manifest");
    assert!(requests <= 12 && alone <= 4, "{requests} {alone}");
    agent.stop().await;
}

// SPEC: A6, A19
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_know_the_request_is_asked_one_by_one() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.held.lock().unwrap().gives = Together::Unknown;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &contents());
    let agent = world.agent("alice", None).await;
    relay.receipts(1).await;
    is_here(&agent, &offer);
    let (requests, _, alone) = asked(&relay);
    assert_eq!((requests, alone), (1, COUNT + 1), "it is tried once on a connection");
    assert_eq!(*relay.sessions.borrow(), 1, "and the connection is still the first");
    agent.stop().await;
}

// SPEC: A19, D3; rule 4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_31_one_that_is_damaged_at_the_source_keeps_none_of_the_others_away() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let contents = contents();
    let damaged = BlobId::of(&contents[0]);
    relay.held.lock().unwrap().damaged = Some(damaged);
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &contents);
    let agent = world.agent("alice", None).await;
    let shared = agent.shared();
    eventually("all to be tried", async || {
        !relay.held.lock().unwrap().gets.is_empty() && !shared.pulls.is_running(&offer.delivery)
    })
    .await;
    assert!(relay.held.lock().unwrap().receipts.is_empty());
    // It is mended, and offered again: nothing else is asked for.
    let before = {
        let mut held = relay.held.lock().unwrap();
        held.damaged = None;
        (held.together.len(), held.gets.len())
    };
    shared.links.get(&relay.endpoint.peer()).unwrap().close();
    relay.receipts(1).await;
    is_here(&agent, &offer);
    {
        let held = relay.held.lock().unwrap();
        assert_eq!(held.together.len(), before.0);
        assert!(held.gets[before.1..].iter().all(|get| get.blob == damaged));
    }
    agent.stop().await;
}

// SPEC: D3; rule 4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_a_source_that_lies_about_one_of_many_is_not_believed() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.held.lock().unwrap().gives = Together::Wrong;
    let contents = contents();
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &contents);
    let agent = world.agent("alice", None).await;
    let shared = agent.shared();
    eventually("the wrong bytes to be noticed", async || {
        !relay.held.lock().unwrap().together.is_empty() && !shared.pulls.is_running(&offer.delivery)
    })
    .await;
    let lied_about = relay.held.lock().unwrap().together[0].blobs[1];
    assert!(!shared.store.holds(lied_about).unwrap());
    assert!(relay.held.lock().unwrap().receipts.is_empty());
    relay.held.lock().unwrap().gives = Together::All;
    shared.links.get(&relay.endpoint.peer()).unwrap().close();
    relay.receipts(1).await;
    is_here(&agent, &offer);
    agent.stop().await;
}

// SPEC: A19
#[tokio::test(flavor = "multi_thread")]
async fn with_a_limit_each_takes_its_turn() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &contents()[200..]);
    let paths = world.set_up("alice", None).await;
    change(&paths, |config| {
        config.guest = toml::from_str::<GuestConfig>("download = '600 KiB/s'").unwrap();
    });
    let began = std::time::Instant::now();
    let agent = start(&paths).await;
    relay.receipts(1).await;
    let bytes: u64 = offer.blobs.iter().map(|blob| blob.size).sum();
    // What a limit lets go at once is not waited for.
    assert!(
        began.elapsed().as_secs_f64() >= (bytes as f64 / 600_000.0 - 1.0).max(0.5),
        "{:?}",
        began.elapsed()
    );
    is_here(&agent, &offer);
    assert_eq!(asked(&relay), (0, 0, offer.blobs.len() + 1));
    agent.stop().await;
}

// SPEC: A6, A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn two_relays_give_them_together_too_and_nothing_comes_twice() {
    let world = World::start().await;
    let (first, second) = (Relay::start(&world).await, Relay::start(&world).await);
    let contents = contents();
    first.held.lock().unwrap().sources = vec![second.endpoint.peer()];
    let agent = world.agent("alice", None).await;
    for relay in [&first, &second] {
        relay.sessions.clone().wait_for(|count| *count > 0).await.unwrap();
    }
    let offer = first.hold(1, &mailbox("alice"), b"manifest", &contents);
    second.keep(&[b"manifest"]);
    second.keep(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    // Offered on a new session, now that there is one with the other.
    agent.shared().links.get(&first.endpoint.peer()).unwrap().close();
    first.receipts(1).await;
    is_here(&agent, &offer);
    let asked = [asked(&first), asked(&second)];
    let sum = |of: fn(&(usize, usize, usize)) -> usize| asked.iter().map(of).sum::<usize>();
    assert_eq!(sum(|asked| asked.1 + asked.2), COUNT + 1, "{asked:?}");
    assert!(
        asked[0].1 > 0 && asked[1].1 > 0 && sum(|asked| asked.0) <= 24 && sum(|asked| asked.2) <= 12,
        "{asked:?}"
    );
    agent.stop().await;
}

// SPEC: A6, A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn what_a_faster_relay_takes_over_of_many_ends_neither_the_request_nor_the_slow_ones_turn() {
    let world = World::start().await;
    let (slow, fast) = (Relay::start(&world).await, Relay::start(&world).await);
    let contents: Vec<_> = (0..60).map(|number| bytes(number + 1, 12_000)).collect();
    slow.held.lock().unwrap().sources = vec![fast.endpoint.peer()];
    // One or two go at once, and the next one long after this test.
    let limiter = Limiter::new();
    limiter.allow(Allowance { rate: Rate::Limited(100.try_into().unwrap()), hold: Hold::Nothing });
    slow.held.lock().unwrap().turns = Some(limiter.transfer(Transfer { id: 1, class: Class::Bulk }));
    let agent = world.agent("alice", None).await;
    for relay in [&slow, &fast] {
        relay.sessions.clone().wait_for(|count| *count > 0).await.unwrap();
    }
    let offer = slow.hold(1, &mailbox("alice"), b"manifest", &contents);
    // The slow one alone has two of them, one behind the other: one at least is among those that it is asked for together.
    let only = [8, 9].map(|at: usize| BlobId::of(&contents[at]));
    fast.keep(&[b"manifest"]);
    let both = contents.iter().map(Vec::as_slice).filter(|bytes| !only.contains(&BlobId::of(bytes)));
    fast.keep(&both.collect::<Vec<_>>());
    agent.shared().links.get(&slow.endpoint.peer()).unwrap().close();

    // What the fast one turns out not to have comes from the slow one, which is not left alone for what was taken over.
    let mut has_rested = false;
    eventually("the receipt", async || {
        let views = agent.shared().pulls.sources().await;
        let mut views = views.values().flatten();
        let is_at_rest =
            |view: &SourceView| view.peer == slow.endpoint.peer() && view.state == SourceState::Resting;
        has_rested |= views.any(is_at_rest);
        has_rested || !slow.held.lock().unwrap().receipts.is_empty()
    })
    .await;
    assert!(!has_rested);
    is_here(&agent, &offer);
    let (together, gets) = {
        let held = slow.held.lock().unwrap();
        (held.together.clone(), held.gets.clone())
    };
    assert!(together.iter().any(|get| get.blobs.len() > 2), "it was asked for many");
    let all = together.iter().flat_map(|get| &get.blobs).chain(gets.iter().map(|get| &get.blob));
    let mut asked: Vec<_> = all.filter(|blob| !only.contains(blob)).collect();
    let count = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), count, "and for nothing twice that the fast one has");
    agent.stop().await;
}

// SPEC: A6, A19, D4
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gives_many_small_attachments_together_and_lets_go_of_them() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    change(&paths, |config| config.send.size_bytes_min = 1);
    let sam = start(&paths).await;
    let contents = contents();
    let named = |(number, content): (usize, &Vec<u8>)| {
        file(world.folder.path(), &format!("{number}.bin"), content).to_str().unwrap().to_owned()
    };
    let mut arguments: Vec<_> =
        ["--json", "send", "--subject", "many", "--to", "alice@example.org"].map(str::to_owned).into();
    arguments.extend(contents.iter().enumerate().map(named));
    let output = run(&paths, &arguments, b"").await;
    assert!(output.status.success(), "{}", error_text(&output));
    for content in &contents {
        assert!(alice.shared().store.open_blob(BlobId::of(content)).unwrap().is_intact().unwrap());
        assert!(!sam.shared().store.holds(BlobId::of(content)).unwrap(), "receipted: let go of");
    }
    let sent = sam.shared().store.all_outgoing().unwrap();
    assert!(sent.iter().all(|outgoing| matches!(outgoing.state, OutgoingState::Released(_))));
    sam.stop().await;
    alice.stop().await;
}
