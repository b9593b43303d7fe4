//! Memory does not grow with the size of an attachment: the kernel's own peak of relay and agent with one of 1 GiB.

use anyhow::Result;
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for_mail, wait_for_receipts};

/// The attachment, in bytes.
const SIZE: u64 = 1 << 30;
/// What each may have resident at its peak (DESIGN §11).
const PEAK_MAX: u64 = 64 << 20;

// SPEC: A19, D3 — DESIGN §3 rule 7
#[tokio::test]
async fn a_gigabyte_goes_through_relay_and_agent_in_64_mib_each() -> Result<()> {
    let world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    world.send(&message).await?;
    wait_for_mail(&world, &alice.mailbox, 1).await?;
    wait_for_receipts(&alice, 1).await?;
    let (relay, agent) = (world.relay.process()?.memory_peak()?, alice.member.process()?.memory_peak()?);
    println!("peak: relay {} MiB, agent {} MiB", relay >> 20, agent >> 20);
    assert!(relay <= PEAK_MAX, "relay: {relay} bytes");
    assert!(agent <= PEAK_MAX, "agent: {agent} bytes");
    for server in &world.storage {
        let peak = server.process()?.memory_peak()?;
        println!("peak: storage server {} MiB", peak >> 20);
        assert!(peak <= PEAK_MAX, "storage server: {peak} bytes");
    }
    Ok(())
}
