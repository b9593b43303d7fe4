//! Other recipients of the same message as sources, with the real programs: `kill -9` of the sender in the middle, and of the
//! taker as well.

use anyhow::{Result, ensure};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts};
use lighter_harness::{Agent, World};
use serde_json::{Value, json};

/// Bytes that each kind of source has brought of what comes to this agent now.
async fn brought(agent: &Agent, kind: &str) -> Result<u64> {
    let status = agent.json(&["status"]).await?;
    let sources = status["pulls"][0]["sources"].as_array().cloned().unwrap_or_default();
    let of_kind = sources.iter().filter(|source| source["kind"] == kind);
    Ok(of_kind.filter_map(|source| source["bytes"].as_u64()).sum())
}

/// Sam has sent a file to carol, who has it, and to dave, who has some of it from both, slowly, at the moment when sam is killed.
struct HalfWay {
    sam: Agent,
    /// Runs until it is dropped.
    _carol: Agent,
    dave: Agent,
    attachment: Vec<u8>,
    /// Last, so that it is there as long as the agents are.
    _world: World,
}

impl HalfWay {
    async fn start() -> Result<Self> {
        let world = World::start().await?;
        let (mut sam, mut carol) = (world.agent("sam").await?, world.agent("carol").await?);
        let mut dave = world.agent("dave").await?;
        let slow = json!({"guest": {"upload": "3 MiB/s"}});
        sam.configure(&json!({"send": {"unreachable": "retry"}, "guest": {"upload": "3 MiB/s"}}))?;
        carol.configure(&slow)?;
        // Dave's store is known, and not there now.
        for agent in [&mut sam, &mut carol, &mut dave] {
            agent.member.start().await?;
        }
        dave.member.stop().await?;
        let file = world.folder().join("film.bin");
        let message = TestMessage::new(&dave.mailbox, 30_000_000, 7);
        let attachment: Vec<u8> = message.attachment().flatten().collect();
        std::fs::write(&file, &attachment)?;
        let arguments =
            ["send", "--to", &carol.mailbox, "--to", &dave.mailbox, file.to_str().unwrap_or_default()];
        let sent = sam.try_command(&arguments).await?;
        ensure!(sent.status.success(), "{sent:?}");
        wait_for_receipts(&carol, 1).await?;
        wait_for_mail(&world, &dave.mailbox, 1).await?;
        dave.member.start().await?;
        // It offers at once what it has on record.
        sam.member.kill().await?;
        sam.member.start().await?;
        wait_for("some from both", async || {
            let from_both = brought(&dave, "sender").await? >= 1_000_000
                && brought(&dave, "recipient").await? >= 1_000_000;
            Ok(from_both.then_some(()))
        })
        .await?;
        sam.member.kill().await?;
        ensure!(brought(&dave, "recipient").await? < 25_000_000, "in the middle");
        Ok(Self { sam, _carol: carol, dave, attachment, _world: world })
    }

    /// Dave gets the rest without sam, who hears of it when it is back.
    async fn end(mut self) -> Result<()> {
        wait_for_receipts(&self.dave, 1).await?;
        let blobs = self.dave.json(&["list"]).await?.to_string();
        ensure!(blobs.contains(&blake3::hash(&self.attachment).to_hex().to_string()), "{blobs}");
        self.sam.member.start().await?;
        wait_for("the receipt at the sender", async || {
            let status = self.sam.json(&["status"]).await?;
            let outgoing = status["outgoing"].as_array().cloned().unwrap_or_default();
            let is_released = |outgoing: &Value| outgoing["state"] == "released";
            Ok((outgoing.len() == 2 && outgoing.iter().all(is_released)).then_some(()))
        })
        .await
    }
}

// SPEC: D3, D4; bad_input_32
#[tokio::test]
async fn bad_input_32_with_the_sender_killed_half_way_a_colleague_brings_the_rest() -> Result<()> {
    HalfWay::start().await?.end().await
}

// SPEC: D3, D4; bad_input_32
#[tokio::test]
async fn bad_input_32_with_sender_and_taker_killed_half_way_the_taker_goes_on_with_a_colleague() -> Result<()>
{
    let mut half_way = HalfWay::start().await?;
    half_way.dave.member.kill().await?;
    half_way.dave.member.start().await?;
    half_way.end().await
}
