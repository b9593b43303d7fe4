//! What the end-to-end tests share: waiting for what a program shows from outside, and comparing what came back.
//!
//! The tests themselves are in `tests/`: each file is one side of the main job.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lighter_harness::mail::TestMessage;
use lighter_harness::{Agent, World};
use serde_json::Value;

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

/// Restores `stub` by `lighter-agent restore`, and checks that what was sent stands in it, byte for byte, below the
/// fields that mail servers on the way put on top.
///
/// # Errors
/// Where it does not restore, or to something else.
pub async fn assert_restores(agent: &Agent, stub: &[u8], message: &TestMessage) -> Result<()> {
    ensure!(contains(stub, b"Lighter-Message:"), "not a stub:\n{}", head(stub));
    let restored = agent.command_with(&["restore"], stub).await?;
    let original = message.to_bytes();
    ensure!(restored.ends_with(&original), "restored to something else:\n{}", head(&restored));
    Ok(())
}

/// Whether `bytes` has `part` in it.
pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The beginning of a message, for a person to read.
pub fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// All files below `folder`.
///
/// # Errors
/// Where a folder cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
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
