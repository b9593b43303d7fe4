//! The catalog on a real PostgreSQL: the main job, the database killed and restarted under load, and two relays on one
//! database, of which one dies (SPEC D10).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lighter_e2e::{assert_restores, contains};
use lighter_harness::mail::{MailClient, TestMessage};
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::world::{Member, Options};
use lighter_harness::{Agent, World};
use lighter_test_postgres::Postgres;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than the threshold, less than a test minds.
const SIZE: u64 = 1_500_000;

fn on(postgres: &Postgres, relays: u32) -> Options {
    let url = postgres.create_database("mail");
    let catalog = json!({ "engine": "postgresql", "url": url, "lease_seconds": 5 });
    Options { relays, more: Some(json!({ "catalog": catalog })), ..Options::default() }
}

// SPEC: D10
#[tokio::test]
async fn the_main_job_with_the_catalog_in_a_database() -> Result<()> {
    let postgres = Postgres::start(&[]);
    let mut world = World::start_with(&on(&postgres, 1)).await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    lighter_harness::mail::send(world.smtp()?, &message, &[&alice.mailbox, "plain@lighter.test"]).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    let whole = wait_for_mail(&world, "plain@lighter.test", 1).await?;
    assert!(whole.ends_with(&message.to_bytes()));
    // Nothing of it is in a file of the relay's: it starts again with what the database says.
    world.relay.kill().await?;
    world.relay.start().await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 1).await?;
    wait_until_released(&world).await?;
    assert_restores(&alice, &stub, &message).await?;
    assert_eq!(
        postgres.sql("mail", "SELECT count(*) FROM lighter.deliveries WHERE receipt IS NOT NULL"),
        "1"
    );
    let sound = world.relay_command(&["catalog", "check", "--deep"]).await?;
    assert_eq!(sound["sound"], json!(true), "{sound}");
    Ok(())
}

// SPEC: D10
#[tokio::test]
async fn with_the_database_killed_under_load_every_message_that_was_taken_arrives_once() -> Result<()> {
    let mut postgres = Postgres::start(&[]);
    let world = World::start_with(&on(&postgres, 1)).await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let (smtp, mailbox) = (world.smtp()?, alice.mailbox.clone());
        senders.spawn(async move {
            let mut taken = BTreeMap::new();
            for number in 0..25 {
                let message = TestMessage::new(&mailbox, 300_000, sender * 1_000 + number);
                let reply = send_to(smtp, &message).await;
                // Or no answer at all, where it is not known.
                ensure!(matches!(reply, None | Some(250 | 421 | 450 | 451)), "answered {reply:?}");
                if reply == Some(250) {
                    taken.insert(message.seed, message);
                }
            }
            Ok(taken)
        });
    }
    let kills = tokio::task::spawn_blocking(move || {
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(700));
            if round % 2 == 0 {
                postgres.kill();
            } else {
                postgres.stop_immediately();
            }
            std::thread::sleep(Duration::from_millis(300));
            postgres.run();
        }
        postgres
    });
    let mut taken = BTreeMap::new();
    for sender in senders.join_all().await {
        taken.extend(sender?);
    }
    let _postgres = kills.await?;
    assert!(taken.len() > 50, "only {} of 100 were taken", taken.len());
    // It goes on by itself.
    let after = TestMessage::new(&alice.mailbox, 300_000, 9_999);
    world.send(&after).await?;
    taken.insert(after.seed, after);
    wait_until_released(&world).await?;
    wait_for_receipts(&alice, u64::try_from(taken.len())?).await?;
    let mut seen = BTreeSet::new();
    for path in world.maildir(&alice.mailbox)? {
        let stub = std::fs::read(&path)?;
        let seed = seed_of(&stub)?;
        assert!(seen.insert(seed), "message {seed} arrived twice");
        if let Some(message) = taken.get(&seed) {
            assert!(contains(&stub, b"Lighter-Message:"));
            assert!(contains(&stub, message.name.as_bytes()));
        }
    }
    let lost: Vec<_> = taken.keys().filter(|seed| !seen.contains(seed)).collect();
    assert!(lost.is_empty(), "taken and lost: {lost:?}");
    Ok(())
}

// SPEC: B1, D8, D10
#[tokio::test]
async fn of_two_relays_on_one_database_one_dies_and_the_other_goes_on() -> Result<()> {
    let postgres = Postgres::start(&[]);
    let mut world = World::start_with(&on(&postgres, 2)).await?;
    let mut alice = world.agent("alice").await?;
    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    // Its attachment is fetched by the same ticket from either.
    let attachment: Vec<u8> = message.attachment().flatten().collect();
    let ticket = ticket_of(&world, &stub).await?;
    for relay in [&world.relay, &world.fellows[0]] {
        let path = format!("/t/{ticket}/0/{}", message.name);
        let body = wait_for("the attachment over HTTP", async || {
            Ok(get(relay, &path).await.ok().filter(|body| !body.is_empty()))
        })
        .await?;
        assert!(body == attachment, "{} bytes", body.len());
    }
    // The same again through the other relay, for two: one copy for all three.
    let bob = world.agent("bob").await?;
    let again = TestMessage { to: alice.mailbox.clone(), ..message.clone() };
    let fellow = world.fellows[0].address("/smtp/0")?;
    lighter_harness::mail::send(fellow, &again, &[&alice.mailbox, &bob.mailbox]).await?;
    wait_for("the second message in the other relay's Maildir", async || {
        Ok((maildir(&world.fellows[0], &alice.mailbox)?.len() == 1).then_some(()))
    })
    .await?;
    assert_eq!(postgres.sql("mail", "SELECT count(*) FROM lighter.copies"), "1");
    // The relay that took the first message in is gone; its delivery comes from the other.
    world.relay.kill().await?;
    alice.member.start().await?;
    wait_for_receipts(&alice, 2).await?;
    assert_restores(&alice, &stub, &message).await?;
    // And back: what came meanwhile is the first one's to hand over, too.
    world.relay.start().await?;
    world.fellows[0].stop().await?;
    let third = TestMessage::new(&alice.mailbox, SIZE, 2);
    world.send(&third).await?;
    wait_for_receipts(&alice, 3).await?;
    check_once(&alice).await
}

/// Every delivery is in the store once.
async fn check_once(agent: &Agent) -> Result<()> {
    let list = agent.json(&["list"]).await?;
    let deliveries = list["deliveries"].as_array().context("no deliveries")?;
    let ids: BTreeSet<_> = deliveries.iter().map(|delivery| delivery["delivery"].to_string()).collect();
    ensure!(ids.len() == deliveries.len() && ids.len() == 3, "{list}");
    Ok(())
}

async fn send_to(smtp: std::net::SocketAddr, message: &TestMessage) -> Option<u16> {
    let mut client = MailClient::connect(smtp, "EHLO").await.ok()?;
    client.send(&message.from, &[&message.to], message.pieces()).await.ok().map(|reply| reply.code)
}

/// The seed in the Message-ID of a test message.
fn seed_of(message: &[u8]) -> Result<u64> {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once("Message-ID: <").context("no Message-ID")?;
    Ok(rest.split_once('.').context("no seed")?.0.parse()?)
}

/// The ticket of a stub's delivery.
async fn ticket_of(world: &World, stub: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(stub);
    let (_, delivery) = text.split_once("delivery=").context("not a stub")?;
    let shown = world.relay_command(&["ticket", "show", delivery.get(..32).context("no delivery")?]).await?;
    let link = shown["link"].as_str().context("no link")?;
    let (_, ticket) = link.split_once("/t/").context("no ticket")?;
    Ok(ticket.trim_end_matches('/').to_owned())
}

fn maildir(relay: &Member, mailbox: &str) -> Result<Vec<std::path::PathBuf>> {
    let (local, domain) = mailbox.split_once('@').context("no mailbox")?;
    match std::fs::read_dir(relay.data().join("maildir").join(domain).join(local).join("new")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// The body of what a relay's web listener answers to a GET; an error where that is not 200.
async fn get(relay: &Member, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(relay.address("/web")?).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", lighter_e2e::head(&answer));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no header")?;
    Ok(answer.split_off(end + 4))
}
