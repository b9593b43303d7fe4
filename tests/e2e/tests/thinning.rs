//! What nothing refers to any more gives its room back, days later, and what still waits is there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use lighter_e2e::assert_restores;
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::programs::{program, run_ok};
use lighter_harness::watch::{segments, wait_for, wait_for_mail, wait_for_receipts};
use serde_json::Value;

const MIB: u64 = 1 << 20;

// SPEC: D8 — the relay is stopped, and the command looks at it as if three days had gone by (Debian's faketime).
#[tokio::test]
async fn three_days_later_what_was_delivered_gives_its_room_back_and_what_waits_is_delivered() -> Result<()> {
    let mut world = World::start().await?;
    let (mut alice, mut bob) = (world.agent("alice").await?, world.agent("bob").await?);
    alice.member.start().await?;
    let large = TestMessage::new(&alice.mailbox, 30 * MIB, 1);
    let waiting = TestMessage::new(&bob.mailbox, 2 * MIB, 2);
    world.send(&waiting).await?;
    world.send(&large).await?;
    wait_for_receipts(&alice, 1).await?;
    wait_for("the delivered attachment to be let go of", async || {
        let orphans = world.relay_command(&["catalog", "orphans"]).await?;
        Ok((orphans["orphaned_bytes"].as_u64() > Some(30 * MIB)).then_some(()))
    })
    .await?;
    let today = world.relay_command(&["catalog", "thin"]).await?;
    assert_eq!(today["segments_thinned"], 0, "what was written today is left alone");

    world.relay.stop().await?;
    let put_off = three_days_later(&world, &["catalog", "thin"]).await.unwrap_err().to_string();
    assert!(put_off.contains("1 segment could not be thinned now"), "by the servers' clocks: {put_off}");
    let before = allocated(&world)?;
    for server in &mut world.storage {
        server.stop().await?;
        // `faketime` stays in front of the server, which is to end with it.
        let through = ["faketime", "-f", "+3d", "setpriv", "--pdeathsig", "KILL", "--"];
        server.through = through.map(str::to_owned).to_vec();
        server.start().await?;
    }
    let done = three_days_later(&world, &["catalog", "thin"]).await?;
    assert_eq!((&done["segments_thinned"], &done["segments_put_off"]), (&1.into(), &0.into()), "{done}");
    let given_back = done["bytes_given_back"].as_u64().context("no number")?;
    assert!((30 * MIB..32 * MIB).contains(&given_back), "{given_back}");
    let after = allocated(&world)?;
    assert!(before - after > 2 * 29 * MIB, "on both copies: {before} and then {after}");
    let again = three_days_later(&world, &["catalog", "thin"]).await?;
    assert_eq!(again["segments_thinned"], 0, "{again}");

    world.relay.start().await?;
    let checked = world.relay_command(&["catalog", "check", "--deep"]).await?;
    assert_eq!(checked["sound"], true, "{checked}");
    bob.member.start().await?;
    wait_for_receipts(&bob, 1).await?;
    let stub = wait_for_mail(&world, &bob.mailbox, 1).await?;
    assert_restores(&bob, &stub, &waiting).await
}

async fn three_days_later(world: &World, arguments: &[&str]) -> Result<Value> {
    let config = world.folder().join("relay.toml");
    let relay = program("lighter-relay")?;
    let relay = [relay.as_os_str(), "--config".as_ref(), config.as_os_str(), "--json".as_ref()];
    let later = ["-f", "+3d"].map(AsRef::as_ref);
    let arguments = later.into_iter().chain(relay).chain(arguments.iter().map(AsRef::as_ref));
    let printed = run_ok(Path::new("faketime"), arguments, b"").await?;
    Ok(serde_json::from_slice(&printed)?)
}

/// Bytes that all segments take on the storage servers' disks.
fn allocated(world: &World) -> Result<u64> {
    let mut bytes = 0;
    for server in &world.storage {
        for file in segments(server.data())? {
            bytes += std::fs::metadata(file)?.blocks() * 512;
        }
    }
    Ok(bytes)
}
