//! Disks that fill while mail comes in, and have room again: storage servers on small disks of their own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::load::{Load, Sent, assert_all_taken, send_until_taken, try_send};
use lighter_harness::mail::TestMessage;
use lighter_harness::small_disk::SmallDisk;
use lighter_harness::watch::{check_deep, wait_for, wait_until_healed};
use lighter_harness::world::{Options, StorageOptions};
use lighter_harness::{World, isolated};
use serde_json::Value;

/// A disk that takes a few messages: a segment is opened with 16 MiB free, and its room is written ahead.
const SMALL_MIB: u32 = 28;
const LARGE_MIB: u32 = 512;
const SENDERS: u64 = 4;
/// See `namespaces`.
const DELAY_MAX: Duration = Duration::from_secs(60);

// SPEC: B12, C2, C5, C6, C9; bad_input_31
#[test]
fn bad_input_31_when_one_disk_is_full_writing_goes_on_elsewhere_and_comes_back_when_there_is_room()
-> Result<()> {
    let test =
        "bad_input_31_when_one_disk_is_full_writing_goes_on_elsewhere_and_comes_back_when_there_is_room";
    isolated::run(test, async || {
        let folder = tempfile::tempdir()?;
        let disk = SmallDisk::mount(&folder.path().join("disk"), SMALL_MIB).await?;
        let mut world = World::start_with(&options(&[&disk])).await?;
        let mut alice = world.agent("alice").await?;
        let load = Load::start(world.smtp()?, &alice.mailbox, SENDERS, 0);
        let is_full = async || {
            let status = world.relay_command(&["array", "status"]).await?;
            Ok((server(&status, 0)?["has_room"] == false).then_some(status))
        };
        let status = wait_for("the disk to be full", is_full).await?;
        ensure!(status["writable"] == true, "{status:#}");
        let to_do = status["to_do"].to_string();
        ensure!(to_do.contains("is full") && to_do.contains("make room on its disks"), "{to_do}");
        load.wait_for_replies(16 * SENDERS).await?;
        let mut sent = load.stop().await;
        let slowest = assert_all_taken(&sent, DELAY_MAX)?;
        println!("one disk full: {} taken, the slowest in {slowest:.1?}", sent.len());

        // What is on the full disk is read: of each copy that there is, something is.
        check_deep(&world).await?;
        world.storage[1].kill().await?;
        // Two copies are promised, and only one server has room.
        let refused = TestMessage::new(&alice.mailbox, 300_000, 1);
        let code = try_send(world.smtp()?, &refused).await;
        ensure!(code.is_none_or(|code| code == 451 || code == 452), "{code:?}");
        world.storage[1].start().await?;

        disk.resize(LARGE_MIB).await?;
        let has_room = async || {
            let status = world.relay_command(&["array", "status"]).await?;
            Ok((server(&status, 0)?["has_room"] == true).then_some(()))
        };
        wait_for("room to be noticed", has_room).await?;
        wait_until_healed(&world).await?;
        // Now each write needs it.
        world.storage[2].kill().await?;
        let load = Load::start(world.smtp()?, &alice.mailbox, SENDERS, 1);
        load.wait_for_replies(2 * SENDERS).await?;
        let during = load.stop().await;
        let slowest = assert_all_taken(&during, DELAY_MAX)?;
        println!("room again, and needed: {} taken, the slowest in {slowest:.1?}", during.len());
        sent.extend(during);
        world.storage[2].start().await?;
        finish(world, &mut alice, &sent).await
    })
}

// SPEC: B12, C1; bad_input_31 — never an ack for fewer copies than promised.
#[test]
fn bad_input_31_when_all_disks_are_full_senders_are_told_to_try_again_and_nothing_is_lost() -> Result<()> {
    let test = "bad_input_31_when_all_disks_are_full_senders_are_told_to_try_again_and_nothing_is_lost";
    isolated::run(test, async || {
        let folder = tempfile::tempdir()?;
        let mut disks = Vec::new();
        for number in 1..=3 {
            disks.push(SmallDisk::mount(&folder.path().join(format!("disk-{number}")), SMALL_MIB).await?);
        }
        let world = World::start_with(&options(&disks.iter().collect::<Vec<_>>())).await?;
        let mut alice = world.agent("alice").await?;
        let load = Load::start(world.smtp()?, &alice.mailbox, SENDERS, 0);
        let is_full = async || {
            let status = world.relay_command(&["array", "status"]).await?;
            Ok((status["writable"] == false).then_some(status))
        };
        let status = wait_for("the disks to be full", is_full).await?;
        ensure!(status["to_do"].to_string().contains("senders are told to try again later"), "{status:#}");
        load.wait_for_replies(24 * SENDERS).await?;
        let mut sent = load.stop().await;
        let count = |of: fn(&Sent) -> bool| sent.iter().filter(|sent| of(sent)).count();
        let (taken, dropped) = (count(|sent| sent.code == Some(250)), count(|sent| sent.code.is_none()));
        let refused = count(|sent| matches!(sent.code, Some(451 | 452)));
        println!(
            "all disks full: {taken} taken, {refused} told to try again, {dropped} left without an answer"
        );
        ensure!(taken + refused + dropped == sent.len(), "another answer");
        ensure!(taken > 0 && refused > 0, "never full, or never taken");
        // Who comes now hears it, and at once.
        let now = TestMessage::new(&alice.mailbox, 300_000, 1);
        let code = try_send(world.smtp()?, &now).await;
        ensure!(matches!(code, Some(451 | 452)), "{code:?}");

        for disk in &disks {
            disk.resize(LARGE_MIB).await?;
        }
        sent.push(send_until_taken(world.smtp()?, &alice.mailbox, 2).await?);
        wait_until_healed(&world).await?;
        finish(world, &mut alice, &sent).await
    })
}

/// Three servers, the first of them on these disks.
fn options(disks: &[&SmallDisk]) -> Options {
    let on_disk = |disk: &&SmallDisk| StorageOptions {
        units: vec![disk.folder().join("unit")],
        ..StorageOptions::default()
    };
    Options { storage_servers: 3, storage: disks.iter().map(on_disk).collect(), ..Options::default() }
}

/// The status of the world's storage server number `index`: they are in the order in which they were named.
fn server(status: &Value, index: usize) -> Result<&Value> {
    status["servers"].get(index).context("no such server")
}

async fn finish(world: World, alice: &mut lighter_harness::Agent, sent: &[Sent]) -> Result<()> {
    wait_until_healed(&world).await?;
    assert_delivered_once(&world, alice, sent).await?;
    check_deep(&world).await
}
