//! Sealed segments in a real S3 server, the real programs around it: read by ticket and pulled as before, whatever is
//! restarted, and from the other copy while the store is away (SPEC D10).

use anyhow::{Context, Result, ensure};
use lighter_e2e::{assert_restores, head};
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::Garage;
use lighter_harness::watch::{files_below, wait_for, wait_for_mail, wait_for_receipts};
use lighter_harness::world::{Member, Options, StorageOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than one part of an upload, and more than one portion.
const SIZE: u64 = 9_500_000;

// SPEC: D10, C9
#[tokio::test]
async fn moved_segments_are_served_after_restarts_and_from_the_other_copy_while_the_store_is_away()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut garage = Garage::start(folder.path()).await?;
    // The second server keeps its own on its disk.
    let storage = vec![moving_to(&garage)];
    let mut world = World::start_with(&Options { storage, ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    let ticket = ticket(&world, &stub).await?;
    seal(&mut world).await?;
    wait_until_moved(&world, 0).await?;
    ensure!(seal_files(&world.storage[1], ".obj")? == 0 && seal_files(&world.storage[1], ".seg")? > 0);

    // From the object alone.
    world.storage[1].kill().await?;
    ensure!(get(&world, &ticket).await? == message.attachment().blake3(), "other bytes from the object");
    world.storage[1].start().await?;
    wait_for_servers(&world, 2).await?;

    // From the other copy alone: the one in the store is away, neither missing nor damaged.
    garage.stop();
    for _ in 0..4 {
        ensure!(get(&world, &ticket).await? == message.attachment().blake3(), "other bytes from the mirror");
    }
    wait_for("the status to say that the store is away", async || {
        let status = world.relay_command(&["array", "status"]).await?;
        Ok(status["to_do"].to_string().contains("object store").then_some(()))
    })
    .await?;
    let status = world.relay_command(&["array", "status"]).await?;
    ensure!(status["bad_copies"] == 0, "{status:#}");

    // All of it again from the object, after everything was killed.
    garage.go_on().await?;
    world.storage[0].kill().await?;
    world.storage[0].start().await?;
    wait_for_servers(&world, 2).await?;
    world.storage[1].kill().await?;
    ensure!(get(&world, &ticket).await? == message.attachment().blake3(), "other bytes after a restart");
    world.storage[1].start().await?;
    wait_for_servers(&world, 2).await?;

    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    assert_restores(&alice, &stub, &message).await
}

// SPEC: D10
#[tokio::test]
async fn with_both_copies_in_the_store_a_relay_starts_and_an_agent_pulls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let garage = Garage::start(folder.path()).await?;
    let storage = vec![moving_to(&garage), moving_to(&garage)];
    let mut world = World::start_with(&Options { storage, ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 2);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    seal(&mut world).await?;
    wait_until_moved(&world, 0).await?;
    wait_until_moved(&world, 1).await?;
    // The view of the catalog is made anew from the objects.
    world.relay.stop().await?;
    std::fs::remove_file(world.relay.data().join("catalog"))
        .or_else(|_| std::fs::remove_dir_all(world.relay.data().join("catalog")))?;
    world.relay.start().await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    assert_restores(&alice, &stub, &message).await
}

fn moving_to(garage: &Garage) -> StorageOptions {
    StorageOptions { object_store: Some(garage.as_object_store()), ..StorageOptions::default() }
}

/// A relay that starts seals what its predecessor wrote.
async fn seal(world: &mut World) -> Result<()> {
    world.relay.stop().await?;
    world.relay.start().await
}

/// Waits until all that a storage server has sealed, and something is, lies in the store.
async fn wait_until_moved(world: &World, index: usize) -> Result<()> {
    wait_for("segments to be moved", async || {
        let status = world.relay_command(&["array", "status"]).await?;
        let objects = &status["servers"][index]["object_store"];
        let is_moved = objects["segments"].as_u64() > Some(0)
            && objects["local_sealed_bytes"] == 0
            && objects["objects_to_remove"] == 0
            && objects["reached"] == true;
        Ok((is_moved && seal_files(&world.storage[index], ".obj")? > 0).then_some(()))
    })
    .await
}

fn seal_files(server: &Member, end: &str) -> Result<usize> {
    let files = files_below(server.data())?;
    Ok(files.iter().filter(|path| path.to_str().is_some_and(|path| path.ends_with(end))).count())
}

async fn wait_for_servers(world: &World, count: usize) -> Result<()> {
    wait_for("all storage servers", async || {
        let status = world.relay_command(&["array", "status"]).await?;
        let servers = status["servers"].as_array().context("no servers")?;
        Ok((servers.iter().filter(|server| server["available"] == true).count() == count).then_some(()))
    })
    .await
}

/// The path under which the message's attachment is.
async fn ticket(world: &World, stub: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(stub);
    let (_, delivery) =
        text.split_once("delivery=").with_context(|| format!("not a stub:\n{}", head(stub)))?;
    let shown = world.relay_command(&["ticket", "show", delivery.get(..32).context("no delivery")?]).await?;
    let link = shown.pointer("/link").and_then(Value::as_str).context("no link")?;
    let (_, path) = link.split_once("/t/").context("no link")?;
    Ok(format!("/t/{path}0/file"))
}

/// The hash of the body of the relay's answer.
async fn get(world: &World, path: &str) -> Result<blake3::Hash> {
    let mut stream = TcpStream::connect(world.relay.address("/web")?).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", head(&answer));
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no body")?;
    Ok(blake3::hash(&answer[end + 4..]))
}
