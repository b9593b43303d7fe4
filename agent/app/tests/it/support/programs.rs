//! The real program, as a process.

use std::process::{Output, Stdio};

use lighter_agent::config::Paths;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// `lighter-agent` with these folders, where no keyring can be reached.
pub(crate) fn program(paths: &Paths) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lighter-agent"));
    command.arg("--config").arg(&paths.config).arg("--data").arg(&paths.data);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent").env_remove("XDG_RUNTIME_DIR");
    command.kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run<A: AsRef<std::ffi::OsStr>>(paths: &Paths, arguments: &[A], input: &[u8]) -> Output {
    let mut command = program(paths);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        // A program that refuses does not read.
        let _ = stdin.write_all(input).await;
    };
    tokio::join!(feed, child.wait_with_output()).1.unwrap()
}

/// As [`run`], for what must succeed: its standard output.
pub(crate) async fn run_ok<A: AsRef<std::ffi::OsStr>>(
    paths: &Paths,
    arguments: &[A],
    input: &[u8],
) -> Vec<u8> {
    let output = run(paths, arguments, input).await;
    assert!(output.status.success(), "{}", error_text(&output));
    output.stdout
}

pub(crate) async fn json(paths: &Paths, arguments: &[&str]) -> serde_json::Value {
    let arguments: Vec<&str> = [&["--json"], arguments].concat();
    serde_json::from_slice(&run_ok(paths, &arguments, b"").await).unwrap()
}

pub(crate) fn error_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts `lighter-agent run`, and waits until it answers commands.
pub(crate) async fn start(paths: &Paths) -> Child {
    // A killed one leaves its socket; the new one's is another file.
    let _ = std::fs::remove_file(paths.control());
    let child = program(paths).arg("run").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    super::eventually("the agent to start", async || paths.control().exists()).await;
    child
}
