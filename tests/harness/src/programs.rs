//! Where the real programs are, and how one is run to its end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The path of one of the workspace's programs, `lighter-relay` for one.
///
/// Tests and the demo run from the same build folder as the programs: beside them, or in `deps` below. `tests/run`
/// builds the programs first; `LIGHTER_BIN_DIR` names another folder.
///
/// # Errors
/// Says how to build it where it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("LIGHTER_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let this = std::env::current_exe()?;
            let folder = this.parent().context("no folder")?;
            if folder.ends_with("deps") { folder.parent().context("no folder")? } else { folder }.to_owned()
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is not built: run `cargo build -p {name}`, or tests/run", path.display());
    }
    Ok(path)
}

/// A command that becomes `program`, and that the kernel kills when the thread that starts it has ended: with the test,
/// however that ends, `kill -9` included.
pub(crate) fn ending_with_this(program: &Path) -> Command {
    // Debian: util-linux. Its process is the program's.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs `program` to its end with `input` on its standard input, and returns what it printed, whatever its exit code.
///
/// # Errors
/// Where it cannot be started.
pub async fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Result<Output> {
    let mut child = ending_with_this(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feed = async move {
        // A program that does not want its input is not an error here: its exit code says what it thought.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    Ok(output?)
}

/// As [`run`], for a program that must succeed; returns its standard output.
///
/// # Errors
/// Where it cannot be started, or fails: with what it said.
pub async fn run_ok<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Result<Vec<u8>> {
    let output = run(program, arguments, input).await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {said}", program.display(), output.status);
    }
    Ok(output.stdout)
}
