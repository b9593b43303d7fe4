//! Pushing, with the real programs: the main job with the relay set to push, one agent that pushes to another, and
//! `kill -9` of either side in the middle of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::assert_restores;
use lighter_e2e::load::{Sent, try_send};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

async fn pushing() -> Result<World> {
    World::start_with(&Options { more: Some(json!({"queue": {"push": true}})), ..Options::default() }).await
}

// SPEC: A17, A19, C1, D1, D4, D5
#[tokio::test]
async fn the_main_job_with_a_relay_that_pushes() -> Result<()> {
    let world = pushing().await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, 30_000_000, 1);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    wait_until_released(&world).await?;
    assert_restores(&alice, &stub, &message).await
}

/// Rounds of messages with a kill each.
const ROUNDS: u64 = 12;
/// A kill falls anywhere in the life of a message.
const KILL_AFTER_MS_MAX: u64 = 400;

// SPEC: A19, D3, D4; bad_input_32
#[tokio::test]
async fn bad_input_32_kill_9_of_relay_or_store_while_it_is_pushed_loses_nothing_and_doubles_nothing()
-> Result<()> {
    let seed = std::env::var("LIGHTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("replay with LIGHTER_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut world = pushing().await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        let message =
            TestMessage::new(&alice.mailbox, chance.random_range(3_000_000..20_000_000), 1000 + round);
        let smtp = world.smtp()?;
        let code = try_send(smtp, &message).await;
        sent.push(Sent { message, code, took: Duration::ZERO });
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..KILL_AFTER_MS_MAX))).await;
        let member = if round % 2 == 0 { &mut alice.member } else { &mut world.relay };
        member.kill().await?;
        member.start().await?;
    }
    ensure!(sent.iter().all(|sent| sent.code == Some(250)), "all were taken");
    assert_delivered_once(&world, &mut alice, &sent).await
}

/// Bytes that are verified of what comes to this agent now, and whether somebody pushes it.
async fn coming(agent: &Agent) -> Result<(u64, bool)> {
    let status = agent.json(&["status"]).await?;
    let sources = status["pulls"][0]["sources"].as_array().cloned().unwrap_or_default();
    let bytes = sources.iter().filter_map(|source| source["bytes"].as_u64()).sum();
    Ok((bytes, sources.iter().any(|source| source["pushes"] == true)))
}

// SPEC: A6, D3, D4
#[tokio::test]
async fn an_agent_pushes_to_another_and_either_may_be_killed_in_the_middle() -> Result<()> {
    let world = World::start().await?;
    let (mut alice, mut bob) = (world.agent("alice").await?, world.agent("bob").await?);
    bob.configure(&json!({
        "send": {"push": true, "unreachable": "retry"},
        "guest": {"upload": "3 MiB/s"},
    }))?;
    alice.member.start().await?;
    bob.member.start().await?;
    let file = world.folder().join("report.bin");
    let message = TestMessage::new(&alice.mailbox, 24_000_000, 5);
    let attachment: Vec<u8> = message.attachment().flatten().collect();
    std::fs::write(&file, &attachment)?;
    let in_the_middle = async |alice: &Agent, least: u64| {
        wait_for("a push in the middle", async || {
            let (bytes, pushes) = coming(alice).await?;
            Ok((pushes && bytes >= least).then_some(()))
        })
        .await
    };
    let (_, sent) = {
        let mailbox = alice.mailbox.clone();
        let arguments = ["send", "--to", &mailbox, file.to_str().unwrap_or_default()];
        let sending = bob.try_command(&arguments);
        let kills = async {
            in_the_middle(&alice, 2_000_000).await?;
            alice.member.kill().await?;
            alice.member.start().await?;
            in_the_middle(&alice, 1_000_000).await?;
            // From here on it is on record.
            wait_for_mail(&world, &mailbox, 1).await
        };
        // The command says that the store went away, and leaves the rest to the agent.
        let (sent, mailed) = tokio::join!(sending, kills);
        (mailed?, sent?)
    };
    ensure!(sent.status.success(), "{sent:?}");
    bob.member.kill().await?;
    bob.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    let blobs = alice.json(&["list"]).await?.to_string();
    ensure!(blobs.contains(&blake3::hash(&attachment).to_hex().to_string()), "{blobs}");
    Ok(())
}
