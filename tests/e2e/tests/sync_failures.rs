//! Disks that fail while mail comes in: real storage servers whose system calls fail as strace makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::load::{Load, Sent, assert_all_taken, send_until_taken};
use lighter_harness::World;
use lighter_harness::strace::{Operation, Strace, Traced};
use lighter_harness::watch::{check_deep, segments, wait_for, wait_until_healed};
use lighter_harness::world::{Options, StorageOptions};

/// What fails, on which server, and what that says of it. Counts are of one thread: the unit's own has nearly all.
const FAULTS: [(&str, usize, &str); 4] = [
    ("fdatasync:error=EIO:when=20+11", 0, "sync failed: the segment takes no more records"),
    ("fdatasync,fsync:error=EIO:when=24+", 1, "the failure could not be written down"),
    (
        "pwrite64,pwritev:error=ENOSPC:when=30+13",
        2,
        "a write failed: the segment takes no more records for now",
    ),
    ("pwrite64,pwritev:error=EIO:when=35+", 0, "a write failed: the segment takes no more records for now"),
];
/// What a record begins with: the zeros that are written ahead do not count.
const MAGIC: &[u8] = b"LRC1";
const SENDERS: u64 = 4;
/// Messages that come in while a disk is as it is.
const MESSAGES: u64 = 24;
/// See `namespaces`.
const DELAY_MAX: Duration = Duration::from_secs(60);

// SPEC: B12, C2, C5, C10; bad_input_31 — DESIGN §3 rule 1
#[tokio::test]
async fn bad_input_31_nothing_is_acknowledged_whose_write_or_sync_failed_and_writing_goes_on() -> Result<()> {
    let mut world = World::start_with(&Options { storage_servers: 3, ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    let mut sent = Vec::new();
    for (round, (fault, victim, says)) in (0..).zip(FAULTS) {
        let record = world.folder().join(format!("record-{round}"));
        let strace = Strace { record, inject: vec![fault.to_owned()], data_len_max: MAGIC.len() };
        sent.push(restart(&mut world, victim, strace.through(), &alice.mailbox, 1000 * round).await?);
        let before = gone_on(&world).await?;
        let load = Load::start(world.smtp()?, &alice.mailbox, SENDERS, round);
        load.wait_for_replies(MESSAGES).await?;
        // A server that failed is left alone for a while; then it gets its chance.
        wait_for("the failure to be met", async || Ok((gone_on(&world).await? > before).then_some(())))
            .await?;
        let during = load.stop().await;
        let slowest = assert_all_taken(&during, DELAY_MAX)?;
        println!("{fault}: {} taken, the slowest in {slowest:.1?}", during.len());
        let log = world.storage[victim].process()?.log();
        ensure!(log.contains(says), "the log does not say {says:?}:\n{log}");
        world.storage[victim].kill().await?;
        let traced = strace.read().await?;
        ensure!(traced.iter().any(|one| one.is_injected), "nothing failed");
        assert_only_synced_bytes_count(&world, victim, &traced).await?;
        world.storage[victim].through.clear();
        world.storage[victim].start().await?;
        wait_until_healed(&world).await?;
        sent.extend(during);
    }
    assert_delivered_once(&world, &mut alice, &sent).await?;
    check_deep(&world).await
}

// SPEC: C2; bad_input_31
#[tokio::test]
async fn bad_input_31_a_server_whose_first_start_fails_at_any_sync_says_so_and_starts_when_the_disk_is_well()
-> Result<()> {
    let mut world = World::start().await?;
    let mut number = 100;
    for call in ["fsync", "fdatasync", "pwrite64"] {
        for when in 1.. {
            number += 1;
            let record = world.folder().join(format!("record-{number}"));
            let inject = vec![format!("{call}:error=EIO:when={when}")];
            let strace = Strace { record, inject, data_len_max: 0 };
            let how = StorageOptions { through: strace.through(), ..StorageOptions::default() };
            let started = world.more_storage_with(number, how).await;
            let refused = started.as_ref().err().map(|error| format!("{error:#}"));
            drop(started);
            let traced = strace.read().await?;
            if !traced.iter().any(|one| one.is_injected) || is_the_scrubs(&traced) {
                ensure!(refused.is_none(), "nothing failed, and it did not start: {refused:?}");
                ensure!(when > 1, "{call} is not used");
                break;
            }
            let said = refused.with_context(|| format!("it started although {call} {when} failed"))?;
            ensure!(said.contains("ended before it was ready") && said.contains("os error 5"), "{said}");
            let well = world.more_storage(number).await.with_context(|| format!("after {call} {when}"))?;
            world.storage.push(well);
        }
    }
    // One of those that failed is as good as any.
    let late = world.storage.last().context("none")?.addresses()?;
    let text = |field: &str| late.pointer(&format!("/storage/0/{field}")).and_then(serde_json::Value::as_str);
    let (peer, address) = (text("peer").context("no peer")?, text("address").context("no address")?);
    world.relay_command(&["array", "add", peer, address]).await?;
    wait_until_healed(&world).await?;
    Ok(())
}

/// Whether what failed was to write down how far the scrub is: it comes after the start, as soon as it may, and stops nothing.
fn is_the_scrubs(traced: &[Traced]) -> bool {
    let failed = traced.iter().position(|one| one.is_injected).unwrap_or(0);
    let Some(Operation::Write { fd, .. } | Operation::Sync { fd }) =
        traced.get(failed).map(|one| &one.operation)
    else {
        return false;
    };
    // By what it was done to: other threads open files meanwhile. (A folder's sync makes the new name durable.)
    let opened = || {
        traced[..failed].iter().rev().filter_map(|one| match &one.operation {
            Operation::Open { path, .. } => Some((path, one.result)),
            _ => None,
        })
    };
    let is_its =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("unit.scrub"));
    match opened().find(|(_, result)| result == fd) {
        Some((path, _)) if path.is_dir() => {
            opened().any(|(file, _)| is_its(file) && file.parent() == Some(path))
        }
        Some((path, _)) => is_its(path),
        None => false,
    }
}

/// Starts a server anew, and sees to it that it is written to: another one is away for a moment.
async fn restart(
    world: &mut World,
    victim: usize,
    through: Vec<String>,
    mailbox: &str,
    seed: u64,
) -> Result<Sent> {
    let other = (victim + 1) % world.storage.len();
    world.storage[other].kill().await?;
    world.storage[victim].stop().await?;
    world.storage[victim].through = through;
    world.storage[victim].start().await?;
    let first = send_until_taken(world.smtp()?, mailbox, seed).await?;
    world.storage[other].start().await?;
    wait_until_healed(world).await?;
    Ok(first)
}

async fn gone_on(world: &World) -> Result<u64> {
    let status = world.relay_command(&["array", "status"]).await?;
    status["segments_gone_on"].as_u64().context("no segments_gone_on")
}

/// What counts of a segment, all of its members have acknowledged. So no copy may be sealed, anywhere, beyond what a
/// member had on its disk by a sync that went well.
async fn assert_only_synced_bytes_count(world: &World, victim: usize, traced: &[Traced]) -> Result<()> {
    let failed = synced_before_the_failure(traced);
    ensure!(!failed.is_empty(), "no segment met the failure");
    for (segment, synced) in failed {
        let name = segment.file_name().context("no name")?;
        let mut others = Vec::new();
        for (index, server) in world.storage.iter().enumerate() {
            let there = segments(server.data())?;
            others.extend(there.into_iter().filter(|path| index != victim && path.file_name() == Some(name)));
        }
        // It was not opened, or had no record: nothing of it is anywhere.
        let Some(other) = others.first() else { continue };
        let sealed = wait_for("the other copy to be sealed", async || sealed_length(other)).await?;
        ensure!(sealed <= synced, "{}: {sealed} bytes count, {synced} were synced", other.display());
    }
    Ok(())
}

/// Of each segment of which a write or a sync failed: up to where records were written and then synced. After a sync
/// that failed, no other counts.
fn synced_before_the_failure(traced: &[Traced]) -> BTreeMap<PathBuf, u64> {
    let (mut open, mut written, mut synced) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut failed, mut unsynced) = (BTreeSet::new(), BTreeSet::new());
    for one in traced {
        match &one.operation {
            Operation::Open { path, .. } => {
                open.insert(one.result, path.clone());
            }
            Operation::Write { fd, offset, bytes } => {
                let Some(path) = open.get(fd) else { continue };
                match u64::try_from(one.result) {
                    Ok(len) if bytes.starts_with(MAGIC) => _ = written.insert(path.clone(), offset + len),
                    Ok(_) => {}
                    Err(_) => _ = failed.insert(path.clone()),
                }
            }
            Operation::Sync { fd } => {
                let Some(path) = open.get(fd) else { continue };
                if one.result != 0 {
                    failed.insert(path.clone());
                    unsynced.insert(path.clone());
                } else if !unsynced.contains(path) {
                    synced.insert(path.clone(), written.get(path).copied().unwrap_or(0));
                }
            }
            Operation::Truncate { .. } | Operation::Rename { .. } | Operation::Remove { .. } => {}
        }
    }
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "seg");
    let of = |path: PathBuf| {
        let upto = synced.get(&path).copied().unwrap_or(0);
        (path, upto)
    };
    failed.into_iter().filter(is_segment).map(of).collect()
}

/// Where the records of a sealed copy end, as its last 128 bytes say (`docs/STORAGE.md`, Footer); `None`: not sealed.
fn sealed_length(file: &Path) -> Result<Option<u64>> {
    let bytes = std::fs::read(file)?;
    let Some(summary) = bytes.last_chunk::<128>().filter(|bytes| bytes.starts_with(b"LTRSEAL1")) else {
        return Ok(None);
    };
    let length = summary[24..].first_chunk().context("no length")?;
    Ok(Some(u64::from_le_bytes(*length)))
}
