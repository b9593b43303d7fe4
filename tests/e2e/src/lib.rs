//! What the end-to-end tests share: a load of messages, and comparing what came back.
//!
//! The tests themselves are in `tests/`: each file is one side of the main job.

pub mod arrived;
pub mod load;
pub mod power_loss;

use anyhow::{Result, ensure};
use lighter_harness::Agent;
use lighter_harness::mail::TestMessage;

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
