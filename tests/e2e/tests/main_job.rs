//! The main job: a message comes in by SMTP, its attachment waits on two copies, goes to the store the moment that it
//! is online, is receipted and released, and the original comes back byte for byte.

use anyhow::Result;
use lighter_e2e::{assert_restores, contains};
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for_equal_copies, wait_for_mail, wait_for_receipts, wait_until_released};

/// More than the threshold, less than a test minds.
const SIZE: u64 = 3_000_000;

// SPEC: A17, A18, A19, A20, A21, C1, D1, D3, D4, D5
#[tokio::test]
async fn an_attachment_waits_for_its_store_and_comes_back_byte_for_byte() -> Result<()> {
    let world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    world.send(&message).await?;

    // The mail server's mailbox holds a stub, while the agent has never run.
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    assert!(stub.len() < 50_000, "{} bytes", stub.len());

    // Two copies, equal to the byte, and neither shows what it holds.
    let copies = wait_for_equal_copies(&world).await?;
    let attachment: Vec<u8> = message.attachment().flatten().collect();
    for segment in &copies {
        assert!(!contains(segment, &attachment[..64]), "the attachment stands in the clear");
        assert!(!contains(segment, message.name.as_bytes()), "its name stands in the clear");
    }

    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    wait_until_released(&world).await?;
    assert_restores(&alice, &stub, &message).await?;

    alice.member.stop().await?;
    // The store alone is enough, with no agent running.
    assert_restores(&alice, &stub, &message).await
}

// SPEC: A9, A15
#[tokio::test]
async fn who_has_no_store_gets_the_message_whole() -> Result<()> {
    let world = World::start().await?;
    let message = TestMessage::new("plain@lighter.test", SIZE, 2);
    world.send(&message).await?;
    let received = wait_for_mail(&world, "plain@lighter.test", 1).await?;
    assert!(received.ends_with(&message.to_bytes()));
    Ok(())
}

// SPEC: A10
#[tokio::test]
async fn each_recipient_is_decided_on_their_own() -> Result<()> {
    let world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 3);
    lighter_harness::mail::send(world.smtp()?, &message, &[&alice.mailbox, "plain@lighter.test"]).await?;
    let whole = wait_for_mail(&world, "plain@lighter.test", 1).await?;
    assert!(whole.ends_with(&message.to_bytes()));
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    wait_for_receipts(&alice, 1).await?;
    assert_restores(&alice, &stub, &message).await
}

// SPEC: A1
#[tokio::test]
async fn a_message_with_no_attachment_goes_the_usual_way() -> Result<()> {
    let world = World::start().await?;
    let alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, 0, 4);
    world.send(&message).await?;
    let received = wait_for_mail(&world, &alice.mailbox, 1).await?;
    assert!(received.ends_with(&message.to_bytes()));
    assert!(!contains(&received, b"Lighter-Message"));
    Ok(())
}

// SPEC: A2, A3, A4, A5, A6, A23
#[tokio::test]
async fn one_agent_sends_to_another_while_both_are_online() -> Result<()> {
    let world = World::start().await?;
    let (mut alice, mut bob) = (world.agent("alice").await?, world.agent("bob").await?);
    alice.member.start().await?;
    bob.member.start().await?;
    let file = world.folder().join("report.bin");
    let message = TestMessage::new(&alice.mailbox, SIZE, 5);
    let attachment: Vec<u8> = message.attachment().flatten().collect();
    std::fs::write(&file, &attachment)?;
    let file = file.to_str().unwrap_or_default();
    bob.command(&["send", "--to", &alice.mailbox, "--subject", "Report", "--body", "Here it is.", file])
        .await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    wait_for_receipts(&alice, 1).await?;
    let blobs = alice.json(&["list"]).await?.to_string();
    assert!(blobs.contains(&blake3::hash(&attachment).to_hex().to_string()), "{blobs}");
    let restored = alice.command_with(&["restore"], &stub).await?;
    assert!(contains(&restored, b"report.bin"));
    // The bytes did not go through the mail server.
    assert!(stub.len() < 50_000);
    Ok(())
}
