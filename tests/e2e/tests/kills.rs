//! `kill -9` of relay, storage servers and agent at random points, under load, over many rounds: nothing that was
//! acknowledged is lost, nothing is in the store twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use lighter_e2e::{assert_restores, contains};
use lighter_harness::mail::{MailClient, TestMessage};
use lighter_harness::watch::{wait_for, wait_for_receipts, wait_until_released};
use lighter_harness::{Agent, World};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Rounds: in each, a message is on its way and one program is killed.
const ROUNDS: u64 = 50;
/// A kill falls anywhere in the life of a message: from its first byte to its release.
const KILL_AFTER_MS_MAX: u64 = 400;

// SPEC: B12, C1, C10, D4; bad_input_32
#[tokio::test]
async fn bad_input_32_kill_9_anywhere_loses_nothing_and_doubles_nothing() -> Result<()> {
    let seed = std::env::var("LIGHTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("replay with LIGHTER_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let message = TestMessage::new(&alice.mailbox, chance.random_range(300_000..3_000_000), 1000 + round);
        let after = Duration::from_millis(chance.random_range(0..KILL_AFTER_MS_MAX));
        let victim = chance.random_range(0..4);
        // One message is taken in peace: the kill falls into its hand-over, pull or release.
        if send(&world, &message).await == Some(250) {
            acknowledged.insert(message.seed, message.clone());
        }
        let during = TestMessage::new(&alice.mailbox, chance.random_range(300_000..3_000_000), 5000 + round);
        if send_and_kill(&mut world, &mut alice, victim, &during, after).await? == Some(250) {
            acknowledged.insert(during.seed, during);
        }
    }
    assert!(acknowledged.len() as u64 > ROUNDS, "only {} of {} were taken", acknowledged.len(), 2 * ROUNDS);
    check(&world, &alice, &acknowledged).await
}

/// Sends one message and kills the victim `after` its beginning; then starts it again.
async fn send_and_kill(
    world: &mut World,
    alice: &mut Agent,
    victim: u32,
    message: &TestMessage,
    after: Duration,
) -> Result<Option<u16>> {
    let smtp = world.smtp()?;
    let sending = tokio::spawn({
        let message = message.clone();
        async move { send_to(smtp, &message).await }
    });
    tokio::time::sleep(after).await;
    let member = match victim {
        0 => &mut world.relay,
        1 => &mut world.storage[0],
        2 => &mut world.storage[1],
        _ => &mut alice.member,
    };
    member.kill().await?;
    member.start().await?;
    let reply = sending.await?;
    wait_for("the relay to take mail again", async || Ok((probe(world).await == Some(250)).then_some(())))
        .await?;
    Ok(reply)
}

/// Whether the relay takes a small message for somebody with no store.
async fn probe(world: &World) -> Option<u16> {
    send(world, &TestMessage::new("plain@lighter.test", 0, 0)).await
}

async fn send(world: &World, message: &TestMessage) -> Option<u16> {
    send_to(world.smtp().ok()?, message).await
}

async fn send_to(smtp: std::net::SocketAddr, message: &TestMessage) -> Option<u16> {
    let mut client = MailClient::connect(smtp, "EHLO").await.ok()?;
    client.send(&message.from, &[&message.to], message.pieces()).await.ok().map(|reply| reply.code)
}

/// Every acknowledged message is in the mailbox exactly once, its attachment in the store, and restores.
async fn check(world: &World, alice: &Agent, acknowledged: &BTreeMap<u64, TestMessage>) -> Result<()> {
    wait_until_released(world).await?;
    wait_for_receipts(alice, acknowledged.len() as u64).await?;
    let mut seen = BTreeSet::new();
    for path in world.maildir(&alice.mailbox)? {
        let stub = std::fs::read(&path)?;
        let seed = message_id(&stub).context("no Message-ID")?;
        // A message whose sender got no answer may be here or not: at most once all the same.
        assert!(seen.insert(seed), "message {seed} is in the mailbox twice");
        if let Some(message) = acknowledged.get(&seed) {
            assert_restores(alice, &stub, message).await?;
        } else {
            assert!(contains(&stub, b"Lighter-Message:"));
        }
    }
    let lost: Vec<_> = acknowledged.keys().filter(|seed| !seen.contains(seed)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let list = alice.json(&["list"]).await?;
    let blobs = list.pointer("/blobs").and_then(serde_json::Value::as_array).context("no blobs")?;
    let ids: BTreeSet<_> = blobs.iter().map(|blob| blob.pointer("/id").map(ToString::to_string)).collect();
    assert_eq!(ids.len(), blobs.len(), "a blob is in the store twice");
    Ok(())
}

/// The seed in the Message-ID of a test message.
fn message_id(message: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once("Message-ID: <")?;
    rest.split_once('.')?.0.parse().ok()
}
