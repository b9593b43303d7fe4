//! The demo, as a script would run it.

use anyhow::{Context, Result};
use lighter_harness::programs::{program, run};
use serde_json::Value;

// SPEC: A5, A17, A18, A19, A21, C1
#[tokio::test]
async fn the_demo_verifies_every_step_and_says_so_to_scripts() -> Result<()> {
    let demo = program("lighter-demo")?;
    let folder = demo.parent().context("no folder")?;
    let mut command = tokio::process::Command::new(&demo);
    command.args(["--json", "--size", "5"]).env("LIGHTER_BIN_DIR", folder).kill_on_drop(true);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let steps: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    assert!(steps.len() >= 9, "{steps:?}");
    assert!(steps.iter().all(|step| step["verified"] == true), "{steps:?}");
    assert!(steps.iter().any(|step| step["bytes"] == 5_000_000), "{steps:?}");
    Ok(())
}

#[tokio::test]
async fn the_demo_refuses_what_it_cannot_do() -> Result<()> {
    let output = run(&program("lighter-demo")?, ["--size", "0"], b"").await?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--size"));
    Ok(())
}
