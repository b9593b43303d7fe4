//! The storage array changed by an operator's commands while mail goes on: the real relay, real storage servers.

use anyhow::{Context, Result, ensure};
use lighter_e2e::assert_restores;
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts};
use lighter_harness::world::Member;
use serde_json::Value;

const SIZE: u64 = 600_000;

/// A storage server's key and address, as `array add` takes them.
fn name_of(server: &Member) -> Result<(String, String)> {
    let addresses = server.addresses()?;
    let text = |field: &str| {
        let found = addresses.pointer(&format!("/storage/0/{field}")).and_then(Value::as_str);
        found.map(ToOwned::to_owned).with_context(|| format!("no {field} in {addresses}"))
    };
    Ok((text("peer")?, text("address")?))
}

/// What a command was refused with.
async fn refusal(world: &World, arguments: &[&str]) -> Result<String> {
    match world.relay_command(arguments).await {
        Ok(answer) => anyhow::bail!("{arguments:?} was not refused: {answer}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

// SPEC: B14, C5
#[tokio::test]
async fn with_a_third_server_added_mail_goes_on_while_one_is_dead_and_that_one_is_replaced() -> Result<()> {
    let mut world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    let mailbox = alice.mailbox.clone();
    let mut sent = Vec::new();
    let mut send = async |world: &World| {
        let message = TestMessage::new(&mailbox, SIZE, sent.len() as u64 + 1);
        world.send(&message).await?;
        let stub = wait_for_mail(world, &mailbox, sent.len() + 1).await?;
        sent.push((message, stub));
        anyhow::Ok(())
    };
    send(&world).await?;

    let third = world.more_storage(3).await?;
    let (peer, address) = name_of(&third)?;
    let answer = world.relay_command(&["array", "add", &peer, &address, "--zone", "room-3"]).await?;
    ensure!(answer["changed"] == true && answer["servers"] == 3, "{answer}");
    ensure!(
        world.relay_command(&["array", "add", &peer, &address, "--zone", "room-3"]).await?["changed"]
            == false
    );

    // Two copies, and one of three servers dead: every message is taken at the first try.
    let (dead, _) = name_of(&world.storage[0])?;
    world.storage[0].kill().await?;
    for _ in 0..5 {
        send(&world).await?;
    }
    let status = world.relay_command(&["array", "status"]).await?;
    let servers = status["servers"].as_array().context("no servers")?;
    let of = |peer: &str| servers.iter().find(|server| server["peer"] == peer).context("not in the status");
    ensure!(status["writable"] == true && servers.len() == 3, "{status:#}");
    ensure!(of(&dead)?["available"] == false && of(&peer)?["zone"] == "room-3", "{status:#}");
    ensure!(status["to_do"].to_string().contains("is away"), "{status:#}");

    // The configuration names the dead one and one other; the relay finds the third.
    world.relay.kill().await?;
    world.relay.start().await?;
    send(&world).await?;

    // What cannot be done says what to do.
    let (other, _) = name_of(&world.storage[1])?;
    let text = refusal(&world, &["array", "remove", &other]).await?;
    ensure!(text.contains("`array drain` it first"), "{text}");
    let text = refusal(
        &world,
        &["array", "add", "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X", "127.0.0.1:1"],
    )
    .await?;
    ensure!(text.contains("Is it running"), "{text}");

    let fourth = world.more_storage(4).await?;
    let (new, address) = name_of(&fourth)?;
    world.relay_command(&["array", "replace", &dead, &new, &address, "--lost"]).await?;
    send(&world).await?;
    let text = refusal(&world, &["array", "add", &dead, "127.0.0.1:9"]).await?;
    ensure!(text.contains("must not come back"), "{text}");

    alice.member.start().await?;
    wait_for_receipts(&alice, sent.len() as u64).await?;
    for (message, stub) in &sent {
        assert_restores(&alice, stub, message).await?;
    }
    wait_for("the new servers to be in use", async || {
        let status = world.relay_command(&["array", "status"]).await?;
        let servers = status["servers"].as_array().context("no servers")?;
        Ok(servers.iter().all(|server| server["available"] == true).then_some(()))
    })
    .await
}
