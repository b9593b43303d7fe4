//! What a test has started ends with it, however the test ends: nothing is left on the machine.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use lighter_harness::World;
use lighter_harness::strace::Strace;
use lighter_harness::watch::wait_for;
use lighter_harness::world::{Options, StorageOptions};
use tokio::process::Command;

/// Set where this test is the one that ends: how, and the file that it writes the process ids to.
const HOW: &str = "LIGHTER_TEST_ENDS_HOW";
const FILE: &str = "LIGHTER_TEST_ENDS_FILE";
const NAME: &str = "what_a_test_has_started_ends_with_it_though_it_fails_or_is_killed";
/// A failed test's exit code.
const FAILED: i32 = 101;
const SIGKILL: i32 = 9;

#[tokio::test]
async fn what_a_test_has_started_ends_with_it_though_it_fails_or_is_killed() -> Result<()> {
    if let (Ok(how), Ok(file)) = (std::env::var(HOW), std::env::var(FILE)) {
        return start_and_end(&how, Path::new(&file)).await;
    }
    for how in ["fails", "is killed"] {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("pids");
        let mut test = Command::new(std::env::current_exe()?)
            .args(["--exact", NAME])
            .env(HOW, how)
            .env(FILE, &file)
            // What it leaves there goes with this one's folder.
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pids = wait_for("its programs to run", async || Ok(std::fs::read_to_string(&file).ok())).await?;
        let pids: Vec<&str> = pids.split(' ').collect();
        ensure!(pids.len() == 5, "location server, relay, two storage servers, strace: {pids:?}");
        if how == "is killed" {
            test.start_kill()?;
        }
        let status = test.wait().await?;
        let as_expected =
            if how == "fails" { status.code() == Some(FAILED) } else { status.signal() == Some(SIGKILL) };
        ensure!(as_expected, "it {how}: {status}");
        wait_for(&format!("all to end with a test that {how}"), async || {
            Ok(pids.iter().all(|pid| has_ended(pid)).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Starts an installation, one server of it traced, and ends without stopping anything.
async fn start_and_end(how: &str, file: &Path) -> Result<()> {
    let folder = file.parent().context("no folder")?;
    let strace = Strace { record: folder.join("record"), inject: Vec::new(), data_len_max: 0 };
    let traced = StorageOptions { through: strace.through(), ..StorageOptions::default() };
    let options = Options { storage: vec![traced], ..Options::default() };
    let world = World::start_with(&options).await?;
    let members = [&world.location, &world.relay].into_iter().chain(&world.storage);
    let mut pids =
        members.map(|member| Ok(member.process()?.pid()?.to_string())).collect::<Result<Vec<_>>>()?;
    pids.push(tracer_of(&world.storage[0].process()?.pid()?.to_string())?);
    // Whole, or not there.
    let writing = file.with_extension("new");
    std::fs::write(&writing, pids.join(" "))?;
    std::fs::rename(&writing, file)?;
    match how {
        "fails" => ensure!(world.storage.is_empty(), "an assertion that fails"),
        _ => std::future::pending().await,
    }
    Ok(())
}

/// Who traces a process (proc(5), `TracerPid`).
fn tracer_of(pid: &str) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).context("no TracerPid")?;
    Ok(line.trim().to_owned())
}

/// Whether there is no such process any more, or only its exit code, which nobody has asked for yet.
fn has_ended(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| status.contains("\nState:\tZ")) || !Path::new("/proc").join(pid).exists()
}
