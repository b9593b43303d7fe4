//! What everything comes down to: each message that was taken is there, once, and as it was sent.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for_receipts, wait_until_released};
use lighter_harness::{Agent, World};

use crate::load::Sent;
use crate::{assert_restores, contains};

/// Waits until every message that was taken is delivered and let go of; then each is in the mailbox exactly once, its
/// attachment in the store once, and restores to what was sent. Starts the agent where it does not run.
///
/// # Errors
/// Says what is not so.
pub async fn assert_delivered_once(world: &World, agent: &mut Agent, sent: &[Sent]) -> Result<()> {
    if !agent.member.is_started() {
        agent.member.start().await?;
    }
    let taken: BTreeMap<u64, &TestMessage> = sent
        .iter()
        .filter(|sent| sent.code == Some(250))
        .map(|sent| (sent.message.seed, &sent.message))
        .collect();
    wait_until_released(world).await?;
    wait_for_receipts(agent, taken.len() as u64).await?;
    let mut seen = BTreeSet::new();
    for path in world.maildir(&agent.mailbox)? {
        let stub = std::fs::read(&path)?;
        let seed = seed_of(&stub).context("a message that nobody sent")?;
        // A message whose sender got no answer may be here or not: at most once all the same.
        ensure!(seen.insert(seed), "message {seed} is in the mailbox twice");
        match taken.get(&seed) {
            Some(message) => assert_restores(agent, &stub, message).await?,
            None => ensure!(contains(&stub, b"Lighter-Message:"), "message {seed} is no stub"),
        }
    }
    let lost: Vec<_> = taken.keys().filter(|seed| !seen.contains(seed)).collect();
    ensure!(lost.is_empty(), "taken and lost: {lost:?}");
    let list = agent.json(&["list"]).await?;
    let blobs = list.pointer("/blobs").and_then(serde_json::Value::as_array).context("no blobs")?;
    let ids: BTreeSet<_> = blobs.iter().map(|blob| blob.pointer("/id").map(ToString::to_string)).collect();
    ensure!(ids.len() == blobs.len(), "a blob is in the store twice");
    Ok(())
}

/// The seed in the Message-ID of a test message.
fn seed_of(message: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once("Message-ID: <")?;
    rest.split_once('.')?.0.parse().ok()
}
