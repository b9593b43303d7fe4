//! Mail that is acknowledged after the first of two copies, as `array.acknowledge_after` says (SPEC B12).

use anyhow::{Context, Result};
use lighter_e2e::assert_restores;
use lighter_harness::World;
use lighter_harness::mail::{MailClient, TestMessage};
use lighter_harness::watch::{check_deep, wait_for, wait_for_mail, wait_for_receipts, wait_until_healed};
use lighter_harness::world::Options;
use serde_json::{Value, json};

const LEN: u64 = 400_000;

// SPEC: B12 — where so set, a mirror that stands still delays no `250`, and has everything when it goes on.
#[tokio::test]
async fn mail_is_taken_while_the_mirror_stands_still_and_lies_on_both_afterwards() -> Result<()> {
    let more = Some(json!({ "array": { "acknowledge_after": 1 } }));
    let world = World::start_with(&Options { more, ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    // Segments are open on both.
    let first = TestMessage::new(&alice.mailbox, LEN, 1);
    send(&world, &first).await?;
    wait_until_mirrored(&world).await?;

    let mirror = &world.storage[1];
    mirror.process()?.freeze()?;
    let second = TestMessage::new(&alice.mailbox, LEN, 2);
    send(&world, &second).await?;
    let status = world.relay_command(&["array", "status"]).await?;
    assert_eq!((&status["copies"], &status["acknowledge_after"]), (&json!(2), &json!(1)), "{status:#}");
    let behind = status["bytes_behind"].as_u64().context("bytes_behind")?;
    let unmirrored =
        behind > LEN || status["segments_under_replicated"] != 0 || status["segments_unsealed"] != 0;
    assert!(unmirrored, "the relay knows what the mirror lacks: {status:#}");
    let says = |text: &str| {
        status["to_do"]
            .as_array()
            .is_some_and(|all| all.iter().filter_map(Value::as_str).any(|line| line.contains(text)))
    };
    assert!(says("after 1 of 2 copies"), "it is said plainly: {status:#}");
    mirror.process()?.thaw()?;

    wait_until_mirrored(&world).await?;
    wait_until_healed(&world).await?;
    check_deep(&world).await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 2).await?;
    wait_for_mail(&world, &alice.mailbox, 2).await?;
    for (path, message) in world.maildir(&alice.mailbox)?.iter().zip([&first, &second]) {
        assert_restores(&alice, &std::fs::read(path)?, message).await?;
    }
    Ok(())
}

async fn send(world: &World, message: &TestMessage) -> Result<()> {
    let mut client = MailClient::connect(world.smtp()?, "EHLO").await?;
    let reply = client.send(&message.from, &[&message.to], message.pieces()).await?;
    reply.expect(250)?;
    Ok(())
}

async fn wait_until_mirrored(world: &World) -> Result<()> {
    wait_for("the mirror", async || {
        let status = world.relay_command(&["array", "status"]).await?;
        Ok((status["bytes_behind"] == 0).then_some(()))
    })
    .await
}
