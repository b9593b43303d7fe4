//! `kill -9` of relay, storage servers and agent at random points, under load, over many rounds: nothing that was
//! acknowledged is lost, nothing is in the store twice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::load::{Sent, try_send};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::wait_for;
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
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        let message = TestMessage::new(&alice.mailbox, chance.random_range(300_000..3_000_000), 1000 + round);
        let after = Duration::from_millis(chance.random_range(0..KILL_AFTER_MS_MAX));
        let victim = chance.random_range(0..4);
        // One message is taken in peace: the kill falls into its hand-over, pull or release.
        sent.push(send(world.smtp()?, message).await);
        let during = TestMessage::new(&alice.mailbox, chance.random_range(300_000..3_000_000), 5000 + round);
        sent.push(send_and_kill(&mut world, &mut alice, victim, during, after).await?);
    }
    let taken = sent.iter().filter(|sent| sent.code == Some(250)).count();
    assert!(taken as u64 > ROUNDS, "only {taken} of {} were taken", 2 * ROUNDS);
    assert_delivered_once(&world, &mut alice, &sent).await
}

/// Sends one message and kills the victim `after` its beginning; then starts it again.
async fn send_and_kill(
    world: &mut World,
    alice: &mut Agent,
    victim: u32,
    message: TestMessage,
    after: Duration,
) -> Result<Sent> {
    let smtp = world.smtp()?;
    let sending = tokio::spawn(send(smtp, message));
    tokio::time::sleep(after).await;
    let member = match victim {
        0 => &mut world.relay,
        1 => &mut world.storage[0],
        2 => &mut world.storage[1],
        _ => &mut alice.member,
    };
    member.kill().await?;
    member.start().await?;
    let sent = sending.await?;
    // For somebody with no store.
    let probe = TestMessage::new("plain@lighter.test", 0, 0);
    wait_for("the relay to take mail again", async || {
        Ok((try_send(smtp, &probe).await == Some(250)).then_some(()))
    })
    .await?;
    Ok(sent)
}

async fn send(smtp: SocketAddr, message: TestMessage) -> Sent {
    let began = Instant::now();
    let code = try_send(smtp, &message).await;
    Sent { message, code, took: began.elapsed() }
}
