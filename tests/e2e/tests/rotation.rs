//! Stores get other keys while things are on their way: the real programs, with what was sealed for, left by and sent to the
//! keys of before.

use anyhow::{Context, Result, ensure};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::{Agent, World};
use serde_json::Value;

async fn rotate(agent: &Agent) -> Result<Value> {
    let rotated = agent.json(&["key", "rotate"]).await?;
    ensure!(rotated["rotated"] == true, "{rotated}");
    Ok(rotated)
}

/// The states of what an agent sent.
async fn sent(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.json(&["status"]).await?;
    let all = status.pointer("/outgoing").and_then(Value::as_array).context("no outgoing in the status")?;
    Ok(all.iter().map(|sent| sent["state"].as_str().unwrap_or_default().to_owned()).collect())
}

// SPEC: A7, A12, D4, D5
#[tokio::test]
async fn what_is_on_its_way_when_both_keys_are_rotated_comes_and_is_released() -> Result<()> {
    let world = World::start().await?;
    let (mut alice, mut bob) = (world.agent("alice").await?, world.agent("bob").await?);
    bob.member.start().await?;
    let path = world.folder().join("plan.bin");
    let content: Vec<u8> = TestMessage::new("x@example.org", 3_000_000, 7).attachment().flatten().collect();
    std::fs::write(&path, &content)?;
    let file = path.to_str().context("a path")?;
    // Sealed to alice's key, left under bob's; and another by mail, which waits at the relay.
    let said = bob.command(&["--json", "send", "--to", &alice.mailbox, "--subject", "Plan", file]).await?;
    ensure!(String::from_utf8_lossy(&said).contains(r#""event":"dropped""#), "not left");
    let mailed = TestMessage::new(&alice.mailbox, 1_000_000, 8);
    world.send(&mailed).await?;
    wait_for_mail(&world, &alice.mailbox, 2).await?;

    // Bob's agent runs meanwhile, alice's does not; and each does it twice.
    for _ in 0..2 {
        rotate(&bob).await?;
        rotate(&alice).await?;
    }
    alice.member.start().await?;
    wait_for_receipts(&alice, 2).await?;
    wait_until_released(&world).await?;
    let blobs = alice.json(&["list"]).await?.to_string();
    for hash in [blake3::hash(&content), mailed.attachment().blake3()] {
        ensure!(blobs.contains(&hash.to_hex().to_string()), "{blobs}");
    }
    wait_for("the sender to learn of the receipt", async || {
        Ok((sent(&bob).await? == ["released"]).then_some(()))
    })
    .await?;
    // What comes from now on is for the new keys.
    let said = bob.command(&["--json", "send", "--to", &alice.mailbox, "--subject", "More", file]).await?;
    ensure!(String::from_utf8_lossy(&said).contains(r#""event":"receipted""#), "not taken by the store");
    alice.member.stop().await?;
    bob.member.stop().await
}

// SPEC: D9; DESIGN §4
#[tokio::test]
async fn a_device_that_is_revoked_gets_nothing_more_from_that_moment_on() -> Result<()> {
    let world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    wait_for("a session with the relay", async || {
        let status = alice.json(&["status"]).await?;
        Ok(status.pointer("/relays/0/connected").is_some_and(|connected| connected == true).then_some(()))
    })
    .await?;
    let peer = alice.json(&["key", "show"]).await?["peer"].as_str().context("no key")?.to_owned();
    // Its attestation is good for 24 hours, and it is connected.
    world.location_command(&["user", "remove", &alice.mailbox, "--peer", &peer]).await?;
    wait_for("the relay to be told", async || {
        let log = world.relay.process()?.log();
        Ok(log.contains("a store's key was revoked").then_some(()))
    })
    .await?;
    world.send(&TestMessage::new(&alice.mailbox, 1_000_000, 8)).await?;
    wait_for_mail(&world, &alice.mailbox, 1).await?;
    let list = alice.json(&["list"]).await?;
    ensure!(list["deliveries"].as_array().is_some_and(Vec::is_empty), "{list}");
    alice.member.stop().await
}
