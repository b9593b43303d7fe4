//! What fails, fails without losing mail: a storage server away, a copy damaged, the view gone, the location server or
//! the next hop down.

use anyhow::Result;
use lighter_e2e::assert_restores;
use lighter_e2e::load::try_send;
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Dovecot, free_address};
use lighter_harness::watch::{files_below, wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::world::Options;

const SIZE: u64 = 2_000_000;

// SPEC: C1, C2, B12 — never an ack for fewer copies than promised.
#[tokio::test]
async fn with_a_storage_server_away_mail_is_refused_for_now_and_taken_when_it_is_back() -> Result<()> {
    let mut world = World::start().await?;
    let alice = world.agent("alice").await?;
    world.send(&TestMessage::new(&alice.mailbox, SIZE, 1)).await?;
    world.storage[1].kill().await?;
    let reply = try_send(world.smtp()?, &TestMessage::new(&alice.mailbox, SIZE, 2)).await;
    assert!(reply.is_none_or(|code| (400..500).contains(&code)), "{reply:?}");
    world.storage[1].start().await?;
    wait_for("the relay to take mail again", async || {
        let reply = try_send(world.smtp()?, &TestMessage::new(&alice.mailbox, SIZE, 3)).await;
        Ok((reply == Some(250)).then_some(()))
    })
    .await
}

// SPEC: C9, B17 — one copy lost still reads right from the other.
#[tokio::test]
async fn with_one_copy_deleted_or_damaged_the_other_serves() -> Result<()> {
    for damage in [delete as fn(&std::path::Path) -> Result<()>, flip_bytes] {
        let mut world = World::start().await?;
        let mut alice = world.agent("alice").await?;
        let message = TestMessage::new(&alice.mailbox, SIZE, 4);
        world.send(&message).await?;
        let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
        world.storage[0].kill().await?;
        for file in files_below(world.storage[0].data())? {
            if file.extension().is_some_and(|extension| extension == "seg") {
                damage(&file)?;
            }
        }
        world.storage[0].start().await?;
        alice.member.start().await?;
        wait_for_receipts(&alice, 1).await?;
        assert_restores(&alice, &stub, &message).await?;
    }
    Ok(())
}

// SPEC: C9, B17
#[tokio::test]
async fn with_one_storage_server_stopped_the_store_still_gets_its_delivery() -> Result<()> {
    let mut world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 5);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    world.storage[0].stop().await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    assert_restores(&alice, &stub, &message).await?;
    // The receipt is recorded on two copies, too: it waits for the second server.
    world.storage[0].start().await?;
    wait_until_released(&world).await
}

// The catalog is a view (DESIGN §8): delete the redb file, start again, and everything is there.
#[tokio::test]
async fn with_the_view_deleted_everything_is_still_there() -> Result<()> {
    let mut world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 6);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    world.relay.stop().await?;
    let mut deleted = 0;
    for file in files_below(world.relay.data())? {
        if file.extension().is_some_and(|extension| extension == "redb") {
            std::fs::remove_file(file)?;
            deleted += 1;
        }
    }
    assert!(deleted > 0, "no view to delete");
    world.relay.start().await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    assert_restores(&alice, &stub, &message).await?;
    assert_eq!(world.maildir(&alice.mailbox)?.len(), 1, "handed over twice");
    Ok(())
}

// SPEC: A9, A15; DESIGN §3 rule 5
#[tokio::test]
async fn with_the_location_server_down_mail_goes_whole() -> Result<()> {
    let mut world = World::start().await?;
    let alice = world.agent("alice").await?;
    world.location.kill().await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 7);
    world.send(&message).await?;
    let received = wait_for_mail(&world, &alice.mailbox, 1).await?;
    assert!(received.ends_with(&message.to_bytes()));
    Ok(())
}

// DESIGN §3 rule 5
#[tokio::test]
async fn with_the_next_hop_down_mail_waits_for_it() -> Result<()> {
    let lmtp = free_address()?;
    let next_hop = serde_json::json!({ "kind": "lmtp", "address": lmtp.to_string(), "tls": "off" });
    let world = World::start_with(&Options { next_hop: Some(next_hop), ..Options::default() }).await?;
    let message = TestMessage::new("plain@lighter.test", SIZE, 8);
    world.send(&message).await?;
    let dovecot = Dovecot::start_at(&world.folder().join("dovecot"), lmtp).await?;
    let mut imap =
        lighter_harness::imap::Imap::login(dovecot.imap, "plain@lighter.test", Dovecot::PASSWORD).await?;
    let received = imap.wait_for_message(1).await?;
    assert!(received.ends_with(&message.to_bytes()));
    Ok(())
}

fn delete(file: &std::path::Path) -> Result<()> {
    Ok(std::fs::remove_file(file)?)
}

/// Flips one bit in every 16 KiB: no record survives it.
fn flip_bytes(file: &std::path::Path) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    for chunk in bytes.chunks_mut(16 * 1024) {
        if let Some(byte) = chunk.last_mut() {
            *byte ^= 0x10;
        }
    }
    Ok(std::fs::write(file, bytes)?)
}
