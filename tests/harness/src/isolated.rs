//! A test in a world of its own, as far as the kernel is concerned: its own network, mounts and processes.
//!
//! The test program starts itself again, with the one test, by `unshare` (util-linux) as the first process of new
//! namespaces. So the test may make networks, give them any name, and mount what it likes; none of it can be seen from
//! outside, and all of it is gone when that first process ends, however it ends: nothing has to be cleaned up, also not
//! after a panic or `kill -9`. It dies with the test program that started it.
//!
//! Root may do that, and others where the kernel lets users be root in namespaces of their own. Where it is not
//! allowed, the test is not run, and says so.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::programs::run_ok;

/// Names the one test that runs inside.
const INSIDE: &str = "LIGHTER_ISOLATED";
/// Where Debian keeps what only root uses.
const ROOT_PATHS: &str = ":/usr/sbin:/sbin";
/// Dies with whoever started it, and takes everything inside with it.
const UNSHARE: [&str; 11] = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--net",
    "--mount",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// Runs `body`, which is all of the test function called `test`, in namespaces of its own.
///
/// # Errors
/// The test's own, with what it printed.
pub fn run<F: Future<Output = Result<()>>>(test: &str, body: impl FnOnce() -> F) -> Result<()> {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(async {
            prepare().await?;
            body().await
        });
    }
    if let Err(reason) = is_allowed() {
        // Not by the macros: those are silent in a test that passes.
        writeln!(std::io::stderr(), "{test}: NOT TESTED: {reason:#}")?;
        return Ok(());
    }
    let this = std::env::current_exe()?;
    let this = this.to_str().context("a program whose name is no UTF-8")?;
    let output = unshare(&[this, test, "--exact", "--nocapture"], test)?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        // All of it, and what counts once more at the end.
        println(&said);
        println(&errors);
        bail!("{test}, in namespaces of its own ({}): {}", output.status, cause(&errors));
    }
    ensure!(said.contains("1 passed"), "there is no test {test}:\n{said}");
    let of_the_test = said.lines().filter(|line| !line.starts_with("test result:"));
    of_the_test.for_each(println);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "by the macro, so that it is shown as the test's own output is")]
fn println(line: &str) {
    println!("{line}");
}

/// Why the test failed, by what it wrote: its own error or panic, or the last lines where there is none.
fn cause(errors: &str) -> String {
    const LINES: usize = 60;
    let lines: Vec<_> = errors.lines().collect();
    let starts = |line: &&str| line.starts_with("Error: ") || line.contains("panicked at ");
    let from = lines.iter().rposition(starts).unwrap_or(lines.len().saturating_sub(LINES));
    let traced = |line: &&&str| ["Stack backtrace:", "stack backtrace:"].contains(&line.trim());
    let cause: Vec<_> = lines[from..].iter().take_while(|line| !traced(line)).copied().collect();
    cause.join("\n").trim_end().to_owned()
}

/// Whether this machine lets us.
fn is_allowed() -> Result<()> {
    let output = unshare(&["mount", "-t", "tmpfs", "none", "/run"], "")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("no namespaces of our own: {}", said.trim().lines().last().unwrap_or("unshare failed"))
}

fn unshare(command: &[&str], test: &str) -> Result<Output> {
    let [program, arguments @ ..] = &UNSHARE;
    let as_root = if rustix::process::getuid().is_root() { &[][..] } else { &["--user", "--map-root-user"] };
    let path = std::env::var("PATH").unwrap_or_default() + ROOT_PATHS;
    let output = Command::new(program)
        .args(arguments)
        .args(as_root)
        .args(command)
        .env("PATH", path)
        .env(INSIDE, test)
        // A trace would bury what its error says.
        .env("RUST_LIB_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output();
    output.context("setpriv and unshare (Debian: util-linux)")
}

/// What a new network and mount table need before anything runs in them.
async fn prepare() -> Result<()> {
    let commands = ["mount -t tmpfs none /run".to_owned(), "ip link set lo up".to_owned()];
    for command in commands {
        self::command(&command).await?;
    }
    Ok(())
}

/// Runs one command of words without blanks.
///
/// # Errors
/// Where it fails.
pub(crate) async fn command(words: &str) -> Result<()> {
    let mut words = words.split(' ');
    let program = words.next().context("no command")?;
    run_ok(program.as_ref(), words, &[]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_tests_own_error_without_traces() {
        let errors = "starting\nError: no way\n\nCaused by:\n    0: told\n\nStack backtrace:\n   0: main\n";
        assert_eq!(cause(errors), "Error: no way\n\nCaused by:\n    0: told");
        let panic =
            "x\n\nthread 'one' (7) panicked at tests/one.rs:3:5:\nleft: 1\nstack backtrace:\n   0: main\n";
        assert_eq!(cause(panic), "thread 'one' (7) panicked at tests/one.rs:3:5:\nleft: 1");
        assert_eq!(cause("Killed\n"), "Killed");
    }
}
