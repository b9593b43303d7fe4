//! A delivery comes from several sources at once: whoever offered it, other relays of the own domain, another device of
//! the same user; and goes on from the others when one dies, stalls, lies or is slow.

use std::time::{Duration, Instant};

use lighter_agent::agent::Agent;
use lighter_protocol::pull::{Role, SourceState, SourceView};
use lighter_protocol::{BlobId, DeliveryId};

use crate::support::relay::Relay;
use crate::support::{World, bytes, eventually, mailbox, registered, start};

const MIB: u64 = 1024 * 1024;
const SIZE: usize = 48 * 1024 * 1024;
/// What may be on its way from a source that is not asked any more: QUIC's windows, and what waits in the sender.
const ON_ITS_WAY: u64 = 20 * MIB;

/// Two relays with the same delivery: the first one offers it and names the second. An agent that has sessions with both.
struct Pair {
    first: Relay,
    second: Relay,
    content: Vec<u8>,
    agent: Agent,
    world: World,
}

impl Pair {
    /// The agent is started when `prepare` is done; before that, nothing is offered.
    async fn start(prepare: impl FnOnce(&Relay, &Relay)) -> Self {
        let world = World::start().await;
        let (first, second) = (Relay::start(&world).await, Relay::start(&world).await);
        let content = bytes(1, SIZE);
        first.held.lock().unwrap().sources = vec![second.endpoint.peer()];
        prepare(&first, &second);
        let agent = world.agent("alice", None).await;
        let mut sessions = [first.sessions.clone(), second.sessions.clone()];
        for sessions in &mut sessions {
            sessions.wait_for(|count| *count > 0).await.unwrap();
        }
        // Offered on a new session, now that there is one with the other.
        first.hold(1, &mailbox("alice"), b"manifest", std::slice::from_ref(&content));
        second.keep(&[b"manifest", &content]);
        agent.shared().links.get(&first.endpoint.peer()).unwrap().close();
        Self { first, second, content, agent, world }
    }

    async fn views(&self) -> Vec<SourceView> {
        let mut all = self.agent.shared().pulls.sources().await;
        all.remove(&DeliveryId([1; 16])).unwrap_or_default()
    }

    /// Bytes of the attachment that are verified and on disk.
    fn verified(&self) -> u64 {
        self.agent.shared().store.len_here(BlobId::of(&self.content), SIZE as u64).unwrap()
    }

    async fn half(&self) {
        eventually("half of it", async || self.verified() >= SIZE as u64 / 2).await;
    }

    fn is_here(&self) {
        let stored = self.agent.shared().store.open_blob(BlobId::of(&self.content)).unwrap();
        assert!(stored.is_intact().unwrap());
    }

    fn served(&self) -> [u64; 2] {
        [&self.first, &self.second].map(|relay| relay.held.lock().unwrap().served)
    }

    async fn end(self) {
        let Self { agent, world, .. } = self;
        agent.stop().await;
        drop(world);
    }
}

fn rates(first: u64, second: u64) -> impl FnOnce(&Relay, &Relay) {
    move |one, other| {
        one.held.lock().unwrap().rate = Some(first);
        other.held.lock().unwrap().rate = Some(second);
    }
}

/// Bytes that were asked for by the `gets` from number `from` on.
fn asked(relay: &Relay, from: usize) -> u64 {
    let held = relay.held.lock().unwrap();
    let gets = held.gets.iter().skip(from);
    gets.flat_map(|get| &get.ranges).map(|(start, end)| end - start).sum()
}

fn gets(relay: &Relay) -> usize {
    relay.held.lock().unwrap().gets.len()
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn two_relays_with_the_same_delivery_bring_it_together_and_nothing_comes_twice() {
    let pair = Pair::start(rates(8 * MIB, 8 * MIB)).await;
    pair.half().await;
    let views = pair.views().await;
    let roles: Vec<_> = views.iter().map(|view| (view.peer, view.role)).collect();
    assert_eq!(
        roles,
        [(pair.first.endpoint.peer(), Role::Holder), (pair.second.endpoint.peer(), Role::Relay)]
    );
    assert!(views.iter().all(|view| view.state == SourceState::Asked && view.speed.is_some()));
    pair.first.receipts(1).await;
    pair.is_here();
    let served = pair.served();
    assert!(served.iter().all(|bytes| *bytes >= SIZE as u64 / 4), "shared out: {served:?}");
    assert!(served.iter().sum::<u64>() <= SIZE as u64 + ON_ITS_WAY, "{served:?}");
    assert!(pair.second.held.lock().unwrap().receipts.is_empty(), "who offered hears of the receipt");
    pair.end().await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_when_the_relay_that_offered_is_gone_half_way_the_other_brings_the_rest_and_no_more() {
    let pair = Pair::start(rates(8 * MIB, 8 * MIB)).await;
    pair.half().await;
    eventually("both to be asked", async || gets(&pair.second) > 0).await;
    pair.first.endpoint.close().await;
    let lost = pair.first.endpoint.peer();
    eventually("its end to be noticed", async || {
        pair.views().await.iter().any(|view| view.peer == lost && view.state == SourceState::Gone)
            || pair.second.held.lock().unwrap().receipts.len() == 1
    })
    .await;
    let (before, verified) = (gets(&pair.second), pair.verified());
    // Where no holder is left, the relay that helped hears of the receipt.
    pair.second.receipts(1).await;
    pair.is_here();
    let again = asked(&pair.second, before);
    assert!(again <= SIZE as u64 - verified, "{again} bytes asked for, with {verified} on disk");
    pair.end().await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_a_source_that_stalls_is_left_and_not_asked_again_while_another_is_there() {
    let pair = Pair::start(|first, second| {
        rates(8 * MIB, 8 * MIB)(first, second);
        first.held.lock().unwrap().stall_at = Some(4 * MIB);
    })
    .await;
    let began = Instant::now();
    let silent = pair.first.endpoint.peer();
    eventually("it to be left", async || {
        pair.views().await.iter().any(|view| view.peer == silent && view.state == SourceState::Stalled)
            || pair.first.held.lock().unwrap().receipts.len() == 1
    })
    .await;
    let before = gets(&pair.first);
    pair.first.receipts(1).await;
    pair.is_here();
    assert_eq!(gets(&pair.first), before);
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "QUIC alone would have waited 30 s: {:?}",
        began.elapsed()
    );
    pair.end().await;
}

// SPEC: D3; rule 4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_a_source_that_lies_is_dropped_at_once_and_the_other_brings_all_of_it() {
    let pair = Pair::start(|first, second| {
        rates(8 * MIB, 8 * MIB)(first, second);
        second.held.lock().unwrap().is_wrong = true;
    })
    .await;
    let liar = pair.second.endpoint.peer();
    eventually("it to be found out", async || {
        pair.views().await.iter().any(|view| view.peer == liar && view.state == SourceState::Wrong)
    })
    .await;
    let before = gets(&pair.second);
    assert!(pair.views().await.iter().all(|view| view.peer != liar || view.bytes == 0));
    // Not even on a new session.
    let count = *pair.second.sessions.borrow();
    pair.agent.shared().links.get(&liar).unwrap().close();
    pair.second.sessions.clone().wait_for(|now| *now > count).await.unwrap();
    pair.first.receipts(1).await;
    pair.is_here();
    assert_eq!(gets(&pair.second), before);
    pair.end().await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_is_overtaken_by_a_fast_one() {
    let began = Instant::now();
    let pair = Pair::start(rates(MIB / 4, 16 * MIB)).await;
    pair.first.receipts(1).await;
    pair.is_here();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}: alone, the slow one would have taken 192 s");
    let served = pair.served();
    assert!(served.iter().sum::<u64>() <= SIZE as u64 + ON_ITS_WAY, "{served:?}");
    pair.end().await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn another_device_of_the_same_user_is_a_source_and_reads_by_its_attestation_only() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    // From so much on, the user's other devices are asked.
    let content = bytes(2, 70 * 1024 * 1024);
    relay.hold(1, &mailbox("alice"), b"manifest", std::slice::from_ref(&content));
    let home = world.agent("alice", None).await;
    relay.receipts(1).await;
    let laptop = world.set_up_as("laptop", mailbox("alice"), None).await;
    relay.held.lock().unwrap().rate = Some(MIB);
    let offers = std::mem::take(&mut relay.held.lock().unwrap().offers);
    let agent = start(&laptop).await;
    let session = home.shared().session().unwrap();
    world.client().confirm(&session, agent.shared().identity.peer()).await.unwrap();
    agent.stop().await;
    relay.held.lock().unwrap().offers = offers;
    let agent = start(&laptop).await;
    registered(agent.shared()).await;
    let began = Instant::now();
    let mut brought = 0;
    eventually("the second receipt", async || {
        let views = agent.shared().pulls.sources().await;
        let device = views.values().flatten().find(|view| view.role == Role::Device).copied();
        if let Some(view) = device {
            assert_eq!(view.peer, home.shared().identity.peer());
            brought = brought.max(view.bytes);
        }
        relay.held.lock().unwrap().receipts.len() == 2
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}: the relay alone takes 70 s", began.elapsed());
    assert!(brought > 20 * MIB, "{brought} from the other device");
    assert!(agent.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    agent.stop().await;
    home.stop().await;
}
