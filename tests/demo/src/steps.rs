//! The steps of the demonstration, each verified from outside: by files, by commands, by bytes.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_equal_copies, wait_for_mail, wait_until_released};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World};
use serde_json::Value;

use crate::table::Table;

/// The installation as the demonstration left it.
#[derive(Debug)]
pub(crate) struct Shown {
    world: World,
    alice: Agent,
    bob: Agent,
}

/// Runs all steps; each ends up in `table`.
pub(crate) async fn run(table: &mut Table, size: u64) -> Result<Shown> {
    let mut shown = start(table).await?;
    let message =
        TestMessage { name: "holiday.mov".to_owned(), ..TestMessage::new(&shown.alice.mailbox, size, 1) };
    let hash = message.attachment().blake3();

    take_in(table, &shown, &message).await?;
    let stub = show_stub(table, &shown, &message).await?;
    show_two_copies(table, &shown, size).await?;
    pull(table, &mut shown, size, hash).await?;
    release(table, &shown).await?;
    restore(table, &shown.alice, "the original, byte for byte", &stub, |restored| {
        restored.ends_with(&message.to_bytes())
    })
    .await?;
    agent_to_agent(table, &mut shown, size).await?;
    Ok(shown)
}

async fn start(table: &mut Table) -> Result<Shown> {
    table.begin("starting location server, two storage servers and relay; setting up two agents");
    let world = World::start_with(&Options { keep_after_receipt_days: 0, ..Options::default() }).await?;
    let (alice, bob) = (world.agent("alice").await?, world.agent("bob").await?);
    let detail = format!("relay on {}, location server on {}", world.smtp()?, world.location_url);
    table.end("everything runs; alice's agent is off", 0, true, detail);
    Ok(Shown { world, alice, bob })
}

async fn take_in(table: &mut Table, shown: &Shown, message: &TestMessage) -> Result<()> {
    table.begin("mailing an attachment to alice by SMTP");
    shown.world.send(message).await?;
    table.end(
        "taken in by SMTP, stored twice, then 250",
        message.size,
        true,
        format!("{} attached", message.name),
    );
    Ok(())
}

async fn show_stub(table: &mut Table, shown: &Shown, message: &TestMessage) -> Result<Vec<u8>> {
    table.begin("waiting for the stub in alice's mailbox");
    let stub = wait_for_mail(&shown.world, &shown.alice.mailbox, 1).await?;
    let text = String::from_utf8_lossy(&stub);
    let verified = text.contains("Lighter-Message:") && (stub.len() as u64) < message.size;
    table.end(
        "the stub is in alice's mailbox",
        stub.len() as u64,
        verified,
        "readable in any mail client".to_owned(),
    );
    Ok(stub)
}

async fn show_two_copies(table: &mut Table, shown: &Shown, size: u64) -> Result<()> {
    table.begin("comparing the two copies");
    let copies = wait_for_equal_copies(&shown.world).await?;
    let bytes = copies.iter().map(|segment| segment.len() as u64).sum();
    let segments =
        if copies.len() == 1 { "1 segment".to_owned() } else { format!("{} segments", copies.len()) };
    let detail = format!("{segments} on each server, equal to the byte, encrypted");
    table.end("two copies on two storage servers", bytes, bytes > size, detail);
    Ok(())
}

async fn pull(table: &mut Table, shown: &mut Shown, size: u64, hash: blake3::Hash) -> Result<()> {
    table.begin("starting alice's agent");
    shown.alice.member.start().await?;
    wait_for_receipts(&shown.alice, 1).await?;
    let found = find_blob(&shown.alice, hash).await?;
    let detail = format!("blake3 {}…", &hash.to_hex()[..16]);
    table.end("agent online: offered, pulled, verified, receipted", size, found == Some(size), detail);
    Ok(())
}

async fn release(table: &mut Table, shown: &Shown) -> Result<()> {
    table.begin("waiting for the relay to let go");
    wait_until_released(&shown.world).await?;
    table.end("released against the receipt", 0, true, "nothing waits at the relay".to_owned());
    Ok(())
}

async fn restore(
    table: &mut Table,
    agent: &Agent,
    step: &str,
    stub: &[u8],
    is_right: impl FnOnce(&[u8]) -> bool,
) -> Result<()> {
    table.begin("restoring the original from the stub");
    let restored = agent.command_with(&["restore"], stub).await?;
    table.end(step, restored.len() as u64, is_right(&restored), "lighter-agent restore < stub".to_owned());
    Ok(())
}

async fn agent_to_agent(table: &mut Table, shown: &mut Shown, size: u64) -> Result<()> {
    table.begin("starting bob's agent, and sending from bob to alice");
    shown.bob.member.start().await?;
    let file = shown.world.folder().join("recording.wav");
    let message = TestMessage::new(&shown.alice.mailbox, size, 2);
    let mut writer = std::fs::File::create(&file)?;
    for piece in message.attachment() {
        writer.write_all(&piece)?;
    }
    let hash = message.attachment().blake3();
    let file = file.to_str().context("a folder whose name is no UTF-8")?;
    let arguments =
        ["send", "--to", &shown.alice.mailbox, "--subject", "Recording", "--body", "Listen to this.", file];
    shown.bob.command(&arguments).await?;
    wait_for_receipts(&shown.alice, 2).await?;
    let found = find_blob(&shown.alice, hash).await?;
    let detail = "bob's agent offered, alice's pulled and receipted".to_owned();
    table.end("the same, agent to agent", size, found == Some(size), detail);

    let stub = wait_for_mail(&shown.world, &shown.alice.mailbox, 2).await?;
    let attachment: Vec<u8> = message.attachment().flatten().collect();
    restore(table, &shown.alice, "its message, with the attachment in it", &stub, |restored| {
        restored_holds(restored, &attachment)
    })
    .await
}

/// Whether the base64 of `attachment` stands in the restored message.
fn restored_holds(restored: &[u8], attachment: &[u8]) -> bool {
    let encoded = lighter_harness::mail::base64_lines(attachment);
    let first_line = &encoded[..encoded.len().min(76)];
    let begin = restored.windows(first_line.len()).position(|window| window == first_line);
    begin.and_then(|begin| restored.get(begin..begin + encoded.len())) == Some(&encoded)
}

impl Shown {
    /// Commands to try while everything is left running.
    pub(crate) fn commands(&self) -> Result<String> {
        let folder = self.world.folder().display();
        let relay = format!("lighter-relay --config {folder}/relay.toml");
        let alice = format!("lighter-agent --config {folder}/alice.toml --data {folder}/alice");
        let bin = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        Ok(format!(
            "\nEverything is still running, in {folder}. To try (Ctrl-C here ends it):\n\n\
             export PATH={}:$PATH\n\
             {relay} queue\n{relay} array status\n{alice} list\n{alice} status\n{alice} lookup {}\n\
             ls {folder}/relay/maildir/lighter.test/alice/new\n\
             {alice} restore {folder}/relay/maildir/lighter.test/alice/new/* > original.eml\n\
             swaks --server {} --to {} --attach @/etc/services\n",
            bin.display(),
            self.bob.mailbox,
            self.world.smtp()?,
            self.alice.mailbox,
        ))
    }

    /// Stops everything cleanly.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Self { world, alice, bob } = self;
        let agents_and_relay = [&mut alice.member, &mut bob.member, &mut world.relay];
        for member in agents_and_relay.into_iter().chain(&mut world.storage).chain([&mut world.location]) {
            member.stop().await?;
        }
        Ok(())
    }
}

/// Waits until the agent has receipted `count` deliveries, with a line of progress on a terminal.
async fn wait_for_receipts(agent: &Agent, count: usize) -> Result<()> {
    let is_terminal = std::io::stderr().is_terminal();
    wait_for("the receipt", async || {
        let list = agent.json(&["list"]).await?;
        let deliveries = list.pointer("/deliveries").and_then(Value::as_array).context("no deliveries")?;
        let state = |delivery: &Value| delivery.pointer("/state").and_then(Value::as_str).map(str::to_owned);
        if is_terminal && let Some(delivery) = deliveries.last() {
            let number = |name| delivery.pointer(name).and_then(Value::as_u64).unwrap_or(0);
            let (have, size) = (number("/bytes_verified"), number("/bytes"));
            eprint!("\r  {have} of {size} bytes verified  ");
        }
        let receipted =
            deliveries.iter().filter(|delivery| state(delivery).as_deref() == Some("receipted")).count();
        if is_terminal && receipted >= count {
            eprintln!();
        }
        Ok((receipted >= count).then_some(()))
    })
    .await
}

/// The size of a blob in the agent's store.
async fn find_blob(agent: &Agent, hash: blake3::Hash) -> Result<Option<u64>> {
    let list = agent.json(&["list"]).await?;
    let id = hash.to_hex().to_string();
    let blobs = list.pointer("/blobs").and_then(Value::as_array).context("no blobs")?;
    let blob = blobs.iter().find(|blob| blob.pointer("/id").and_then(Value::as_str) == Some(&id));
    Ok(blob.and_then(|blob| blob.pointer("/size")).and_then(Value::as_u64))
}
