//! What is left, sealed, for a store that is not there: the real programs, the recipient's agent off; and all of them killed
//! in the middle.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lighter_e2e::contains;
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::{Agent, World};
use serde_json::Value;

/// What must not be seen by who keeps it.
const NAME: &str = "plan-to-be-seen-by-nobody.bin";
const MARKER: &[u8] = b"these words stand in the file and nowhere else, 64 bytes of them.";

fn write_file(world: &World, size: u64, seed: u64) -> Result<(PathBuf, Vec<u8>)> {
    let mut content: Vec<u8> = TestMessage::new("x@example.org", size, seed).attachment().flatten().collect();
    content.extend_from_slice(MARKER);
    let path = world.folder().join(NAME);
    std::fs::write(&path, &content)?;
    Ok((path, content))
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files_below(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// The states of what an agent sent.
async fn sent(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.json(&["status"]).await?;
    let all = status.pointer("/outgoing").and_then(Value::as_array).context("no outgoing in the status")?;
    let state = |sent: &Value| sent.pointer("/state").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(all.iter().map(state).collect())
}

/// Bytes in the blobs of an agent's store.
fn kept(agent: &Agent) -> Result<u64> {
    let blobs = files_below(&agent.member.data().join("store"))?;
    let blobs = blobs.iter().filter(|path| path.components().any(|part| part.as_os_str() == "blobs"));
    blobs.map(|path| Ok(std::fs::metadata(path)?.len())).sum()
}

/// Bytes that the files of these folders have on the disk.
fn allocated(folders: &[PathBuf]) -> Result<u64> {
    let mut sum = 0;
    for path in folders.iter().map(|folder| files_below(folder)).collect::<Result<Vec<_>>>()?.concat() {
        // Files get other names, and go.
        sum +=
            std::fs::metadata(path).map_or(0, |found| std::os::unix::fs::MetadataExt::blocks(&found) * 512);
    }
    Ok(sum)
}

async fn restored_file(agent: &Agent, stub: &[u8]) -> Result<Vec<u8>> {
    let restored = agent.command_with(&["restore"], stub).await?;
    ensure!(contains(&restored, NAME.as_bytes()), "its name is back");
    Ok(restored)
}

// SPEC: A7, D4
#[tokio::test]
async fn what_is_left_for_a_store_that_is_off_is_seen_by_nobody_comes_when_it_is_on_and_is_receipted()
-> Result<()> {
    let mut world = World::start().await?;
    let (mut alice, mut bob) = (world.agent("alice").await?, world.agent("bob").await?);
    bob.member.start().await?;
    let (path, content) = write_file(&world, 30_000_000, 7)?;
    let file = path.to_str().context("a path")?;
    let said = bob
        .command(&["--json", "send", "--to", &alice.mailbox, "--subject", "Plan", "--body", "Here.", file])
        .await?;
    let said = String::from_utf8(said)?;
    ensure!(said.contains(r#""event":"dropped""#), "not left:\n{said}");
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    ensure!(stub.len() < 50_000, "{} bytes by mail", stub.len());
    let queue = world.relay_command(&["queue"]).await?;
    ensure!(queue.pointer("/deliveries_waiting").and_then(Value::as_u64) == Some(1), "{queue}");
    ensure!(sent(&bob).await? == ["waiting"]);
    ensure!(kept(&bob)? > 30_000_000, "the sender keeps its own until the receipt");
    ensure!(kept(&bob)? < 45_000_000, "and nothing of what was sealed");

    // Neither name nor content stand anywhere at the relay and its storage servers, the catalog among it.
    let mut folders = vec![world.relay.data().to_owned()];
    folders.extend(world.storage.iter().map(|server| server.data().to_owned()));
    for path in
        folders.iter().map(|folder| files_below(folder)).collect::<Result<Vec<_>>>()?.into_iter().flatten()
    {
        // The stub, in the mail server's mailbox, has the name: it went by mail.
        if path.components().any(|part| part.as_os_str() == "maildir") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        for secret in [NAME.as_bytes(), MARKER, &content[1_000..1_064]] {
            ensure!(!contains(&bytes, secret), "in the clear in {}", path.display());
        }
    }

    // What was answered is there after a kill.
    world.relay.kill().await?;
    world.relay.start().await?;
    bob.member.stop().await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    wait_until_released(&world).await?;
    let blobs = alice.json(&["list"]).await?.to_string();
    ensure!(blobs.contains(&blake3::hash(&content).to_hex().to_string()), "{blobs}");
    ensure!(blobs.contains(NAME), "{blobs}");
    restored_file(&alice, &stub).await?;
    ensure!(kept(&alice)? < 45_000_000, "nothing sealed is kept");

    // The sender learns of it when it is back, and lets go.
    bob.member.start().await?;
    wait_for("the sender to learn of the receipt", async || {
        Ok((sent(&bob).await? == ["released"]).then_some(()))
    })
    .await?;
    ensure!(kept(&bob)? < 1_000_000, "{} bytes are kept", kept(&bob)?);
    alice.member.stop().await?;
    Ok(())
}

#[tokio::test]
async fn bad_input_32_a_relay_and_a_store_killed_in_the_middle_of_a_drop_lose_nothing() -> Result<()> {
    let mut world = World::start().await?;
    let (mut alice, mut bob) = (world.agent("alice").await?, world.agent("bob").await?);
    bob.member.start().await?;
    let (path, content) = write_file(&world, 60_000_000, 8)?;
    let file = path.to_str().context("a path")?.to_owned();
    let units: Vec<PathBuf> = world.storage.iter().map(|server| server.data().to_owned()).collect();
    let before = allocated(&units)?;
    let arguments = ["--json", "send", "--to", &alice.mailbox, "--subject", "Plan", "--body", "Here.", &file];
    let (said, killed) = tokio::join!(bob.command(&arguments), async {
        wait_for("the relay to pull", async || Ok((allocated(&units)? > before + 8_000_000).then_some(())))
            .await?;
        world.relay.kill().await?;
        world.relay.start().await
    });
    killed?;
    let said = String::from_utf8(said?)?;
    ensure!(said.contains(r#""event":"dropped""#), "not left:\n{said}");
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;

    // The store is killed again and again on the way: at the beginning, in the middle, near the end.
    let here = [alice.member.data().join("store")];
    let before = allocated(&here)?;
    for more in [1_000_000, 20_000_000, 50_000_000] {
        alice.member.start().await?;
        let came = async || Ok((allocated(&here)? >= before + more).then_some(()));
        wait_for(&format!("{more} bytes to come"), came).await?;
        alice.member.kill().await?;
    }
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    wait_until_released(&world).await?;
    let blobs = alice.json(&["list"]).await?.to_string();
    ensure!(blobs.contains(&blake3::hash(&content).to_hex().to_string()), "{blobs}");
    restored_file(&alice, &stub).await?;
    // And the sender: what it had on record it goes on with.
    bob.member.kill().await?;
    bob.member.start().await?;
    wait_for("the sender to learn of the receipt", async || {
        Ok((sent(&bob).await? == ["released"]).then_some(()))
    })
    .await?;
    alice.member.stop().await?;
    bob.member.stop().await
}
