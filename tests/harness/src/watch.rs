//! Waiting for what a program shows from outside: a file in a Maildir, a line in a command's answer.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Agent, World};

/// How long something may take that normally takes a second: for a busy machine with two cores.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(90);
/// Between two looks at something that shows itself only when looked at (a Maildir, a command's answer).
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `look` finds what it looks for.
///
/// # Errors
/// Where it does not come in [`EVENT_TIMEOUT`], or looking fails.
pub async fn wait_for<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::time::timeout(EVENT_TIMEOUT, found).await.with_context(|| format!("waited too long: {what}"))?
}

/// Waits until a mailbox has `count` messages, and returns the last one.
///
/// # Errors
/// Where they do not come in time.
pub async fn wait_for_mail(world: &World, mailbox: &str, count: usize) -> Result<Vec<u8>> {
    wait_for(&format!("message {count} in the Maildir of {mailbox}"), async || {
        let messages = world.maildir(mailbox)?;
        Ok(if messages.len() >= count { Some(std::fs::read(&messages[count - 1])?) } else { None })
    })
    .await
}

/// Waits until the agent's store has receipted `count` deliveries.
///
/// # Errors
/// Where it does not in time.
pub async fn wait_for_receipts(agent: &Agent, count: u64) -> Result<()> {
    wait_for(&format!("{count} receipts of {}", agent.mailbox), async || {
        let list = agent.json(&["list"]).await?;
        let receipted = list
            .pointer("/deliveries")
            .and_then(Value::as_array)
            .context("no deliveries in the answer")?
            .iter()
            .filter(|delivery| delivery.pointer("/state").and_then(Value::as_str) == Some("receipted"))
            .count() as u64;
        Ok((receipted >= count).then_some(()))
    })
    .await
}

/// Waits until nothing waits at the relay: every delivery receipted and, with nothing kept, released.
///
/// # Errors
/// Where that takes too long.
pub async fn wait_until_released(world: &World) -> Result<()> {
    wait_for("the relay's queue to empty", async || {
        let queue = world.relay_command(&["queue"]).await?;
        let waiting = queue.pointer("/deliveries_waiting").and_then(Value::as_u64).context("no count")?;
        let hand_overs = queue.pointer("/hand_overs_waiting").and_then(Value::as_u64).context("no count")?;
        Ok((waiting == 0 && hand_overs == 0).then_some(()))
    })
    .await
}

/// Waits until the array is as it should be: each server there, each segment that is not written any more sealed, and on
/// as many copies as promised. Returns the array's status.
///
/// # Errors
/// Where that takes too long: with the status.
pub async fn wait_until_healed(world: &World) -> Result<Value> {
    let last = Cell::new(Value::Null);
    let waited = wait_for("the array to heal", async || {
        let status = world.relay_command(&["array", "status"]).await?;
        let servers = status.pointer("/servers").and_then(Value::as_array).context("no servers")?;
        let is_none = |figure: &str| status[figure] == 0;
        let is_well = servers.iter().all(|server| server["available"] == true)
            && ["segments_unsealed", "segments_under_replicated", "copies_to_make"].into_iter().all(is_none);
        last.set(status.clone());
        Ok(is_well.then_some(status))
    })
    .await;
    waited.with_context(|| format!("the array's last status: {:#}", last.take()))
}

/// Looks at everything that the catalog refers to, on each copy (`catalog check --deep`); again where that says that it
/// could not look at everything now.
///
/// # Errors
/// Where it finds something, or that takes too long.
pub async fn check_deep(world: &World) -> Result<()> {
    wait_for("catalog check --deep", async || {
        match world.relay_command(&["catalog", "check", "--deep"]).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.to_string().contains("exit status: 75") => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Waits until both storage servers hold the same segments, equal to the byte, and returns what is in them. Only a
/// record that is on its way (a hand-over just noted) can make them differ for a moment. Zeros behind the last record of
/// an unsealed segment are room written ahead, and none of it: each server has its own.
///
/// # Errors
/// Where they stay different, or a folder cannot be read.
pub async fn wait_for_equal_copies(world: &World) -> Result<Vec<Vec<u8>>> {
    wait_for("two copies, equal to the byte", async || {
        let [first, second] = &world.storage[..] else { anyhow::bail!("not two storage servers") };
        let (first, second) = (read_segments(first.data())?, read_segments(second.data())?);
        Ok((!first.is_empty() && first == second).then_some(first))
    })
    .await
}

fn read_segments(data: &Path) -> Result<Vec<Vec<u8>>> {
    let without_room = |mut segment: Vec<u8>| {
        let end = segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        segment.truncate(end);
        segment
    };
    segments(data)?.into_iter().map(|file| Ok(without_room(std::fs::read(file)?))).collect()
}

/// All files below `folder`.
///
/// # Errors
/// Where a folder cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// A storage server's segment files, in the order of their names.
///
/// # Errors
/// Where a folder cannot be read.
pub fn segments(data: &Path) -> Result<Vec<PathBuf>> {
    let files = files_below(data)?;
    Ok(files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "seg"))
        .collect())
}
