//! The storage array with three servers, each a process: mail is taken whatever becomes of one of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use lighter_e2e::assert_restores;
use lighter_harness::mail::{MailClient, TestMessage};
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World};

/// What becomes of a storage server.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Killed,
    /// Its process stands still (`SIGSTOP`): it takes connections, and answers nothing.
    Hangs,
}

/// Messages that are on their way at once when it happens, and as many afterwards.
const MESSAGES: u64 = 6;
/// A sender waits at most this long for its `250`, also on a busy machine: far below any mail server's patience.
const DELAY_MAX: Duration = Duration::from_secs(60);

// SPEC: C5, B12, C9 — with two copies and one of three servers gone, every message is taken, and nothing is lost.
#[tokio::test]
async fn with_one_of_three_storage_servers_gone_every_message_is_taken() -> Result<()> {
    let mut world = World::start_with(&Options { storage_servers: 3, ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    let mut sent = Vec::new();
    for index in 0..3 {
        for fate in [Fate::Killed, Fate::Hangs] {
            let first = u64::try_from(sent.len())?;
            let during = send_many(&world, &alice, first);
            lose(&mut world, index, fate).await?;
            sent.extend(during.await??);
            sent.extend(send_many(&world, &alice, first + MESSAGES).await??);
            bring_back(&mut world, index, fate).await?;
            wait_for("all three servers", async || {
                let status = world.relay_command(&["array", "status"]).await?;
                Ok((live_servers(&status) == 3).then_some(()))
            })
            .await?;
        }
    }
    alice.member.start().await?;
    let count = u64::try_from(sent.len())?;
    wait_for_receipts(&alice, count).await?;
    wait_until_released(&world).await?;
    wait_for_mail(&world, &alice.mailbox, sent.len()).await?;
    let stubs = world.maildir(&alice.mailbox)?;
    assert_eq!(stubs.len(), sent.len(), "each once");
    for path in stubs {
        let stub = std::fs::read(path)?;
        let is_of = |message: &&TestMessage| {
            let id = format!("Message-ID: <{}.", message.seed);
            stub.windows(id.len()).any(|window| window == id.as_bytes())
        };
        let message = sent.iter().find(is_of).ok_or_else(|| anyhow::anyhow!("a message that nobody sent"))?;
        assert_restores(&alice, &stub, message).await?;
    }
    Ok(())
}

/// Sends some messages at once, each on a connection of its own; all of them must be taken.
fn send_many(world: &World, alice: &Agent, first: u64) -> tokio::task::JoinHandle<Result<Vec<TestMessage>>> {
    let (smtp, mailbox) = (world.smtp(), alice.mailbox.clone());
    tokio::spawn(async move {
        let smtp = smtp?;
        let mut sending = tokio::task::JoinSet::new();
        for number in first..first + MESSAGES {
            let message = TestMessage::new(&mailbox, 300_000 + 400_000 * (number % 3), number);
            sending.spawn(async move {
                let started = Instant::now();
                let mut client = MailClient::connect(smtp, "EHLO").await?;
                let reply = client.send(&message.from, &[&message.to], message.pieces()).await?;
                reply.expect(250)?;
                anyhow::ensure!(started.elapsed() < DELAY_MAX, "taken after {:?}", started.elapsed());
                Ok(message)
            });
        }
        sending.join_all().await.into_iter().collect()
    })
}

async fn lose(world: &mut World, index: usize, fate: Fate) -> Result<()> {
    match fate {
        Fate::Killed => world.storage[index].kill().await,
        Fate::Hangs => world.storage[index].process()?.freeze(),
    }
}

async fn bring_back(world: &mut World, index: usize, fate: Fate) -> Result<()> {
    match fate {
        Fate::Killed => world.storage[index].start().await,
        Fate::Hangs => world.storage[index].process()?.thaw(),
    }
}

fn live_servers(status: &serde_json::Value) -> usize {
    let servers = status.pointer("/servers").and_then(serde_json::Value::as_array);
    let is_live =
        |server: &&serde_json::Value| server.pointer("/available").and_then(serde_json::Value::as_bool);
    servers.map_or(0, |servers| servers.iter().filter(|server| is_live(server) == Some(true)).count())
}
