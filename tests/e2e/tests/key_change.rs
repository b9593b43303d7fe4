//! The array key is changed: links that are in people's mail go on working, and are made the same again.

use anyhow::{Context, Result, ensure};
use lighter_e2e::head;
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_mail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SIZE: u64 = 2_345_678;

// SPEC: C9, D7
#[tokio::test]
async fn a_link_in_a_mail_goes_on_working_when_the_array_key_is_changed() -> Result<()> {
    let mut world = World::start().await?;
    let alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    let before = link(&world, &stub).await?;
    world.relay_command(&["keys", "rotate"]).await?;
    wait_for("the array key is changed", async || {
        let status = world.relay_command(&["keys", "status"]).await?;
        Ok((status["array_key"] == "settled").then_some(()))
    })
    .await?;
    for _ in 0..2 {
        let after = link(&world, &stub).await?;
        let path = |link: &str| link.split_once("/t/").map(|(_, path)| path.to_owned());
        ensure!(path(&after) == path(&before), "another link than in the mail: {before} {after}");
        let body = get(&world, &format!("/t/{}0/file", path(&before).context("no link")?)).await?;
        ensure!(blake3::hash(&body) == message.attachment().blake3(), "other bytes");
        world.relay.stop().await?;
        world.relay.start().await?;
    }
    Ok(())
}

/// The link of a stub's delivery.
async fn link(world: &World, stub: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(stub);
    let (_, delivery) =
        text.split_once("delivery=").with_context(|| format!("not a stub:\n{}", head(stub)))?;
    let shown = world.relay_command(&["ticket", "show", delivery.get(..32).context("no delivery")?]).await?;
    Ok(shown.pointer("/link").and_then(Value::as_str).context("no link")?.to_owned())
}

/// The body of the relay's answer.
async fn get(world: &World, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(world.relay.address("/web")?).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", head(&answer));
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no body")?;
    Ok(answer.split_off(end + 4))
}
