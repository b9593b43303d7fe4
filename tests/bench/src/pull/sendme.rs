//! sendme, iroh's program for sending files (`cargo install sendme`), as it comes; without its public relay servers, so
//! that everything stays on this machine.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cost::{Cost, Watch};

/// Where the program is, if not on the PATH.
const PROGRAM: &str = "LIGHTER_SENDME";

/// A sendme that sends the blob to whoever has the ticket.
#[derive(Debug)]
pub(crate) struct Sendme {
    program: OsString,
    sender: Child,
    ticket: String,
    /// Of the file or folder that is sent.
    name: OsString,
}

impl Sendme {
    /// Starts sending a file or a folder, on a host that commands reach which begin with `through`; none where there is no sendme, and that
    /// is said. Its own data goes into `folder`.
    pub(crate) fn start(through: &[String], folder: &Path, path: &Path) -> Result<Option<Self>> {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "sendme".into());
        let is_there = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
        if !is_there.is_ok_and(|status| status.success()) {
            eprintln!("sendme is not there and is left out: `cargo install sendme`, or {PROGRAM}=FILE");
            return Ok(None);
        }
        let mut command = command(through, &program);
        command.args(["send", "--relay", "disabled", "--ticket-type", "addresses", "--no-progress"]);
        command.arg(path).current_dir(folder);
        let mut sender = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = BufReader::new(sender.stdout.take().context("no output")?);
        let name = path.file_name().context("no file name")?.to_owned();
        let mut sendme = Self { program, sender, ticket: String::new(), name };
        let mut line = String::new();
        while sendme.ticket.is_empty() {
            line.clear();
            ensure!(output.read_line(&mut line)? > 0, "sendme ended without a ticket");
            if let Some(ticket) = line.trim().strip_prefix("sendme receive ") {
                sendme.ticket = ticket.to_owned();
            }
        }
        Ok(Some(sendme))
    }

    /// Receives what is `size` bytes in all into `folder`. What counts begins when it says that it is getting it: its start and its
    /// connecting are left out, as ours are.
    pub(crate) fn receive(
        &self,
        through: &[String],
        folder: &TempDir,
        size: u64,
    ) -> Result<(Duration, Cost)> {
        let mut command = command(through, &self.program);
        command.args(["receive", "--relay", "disabled", "--no-progress", &self.ticket]);
        command.current_dir(folder.path());
        let mut began = Instant::now();
        let mut receiver =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let watch = Watch::start(&[self.sender.id(), receiver.id()]);
        let mut output = BufReader::new(receiver.stderr.take().context("no output")?);
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if line.starts_with("getting ") {
                began = Instant::now();
            }
            line.clear();
        }
        // It has closed its output, and ends; what it cost is read before it is waited for.
        let time = began.elapsed();
        let cost = watch.end();
        let status = receiver.wait()?;
        ensure!(status.success(), "sendme receive: {status}");
        ensure!(bytes_in(&folder.path().join(&self.name))? == size, "not all of it arrived");
        Ok((time, cost))
    }
}

/// A program on a host.
pub(crate) fn command(through: &[String], program: &OsStr) -> Command {
    match through {
        [] => Command::new(program),
        [first, arguments @ ..] => {
            let mut command = Command::new(first);
            command.args(arguments).arg(program);
            command
        }
    }
}

/// Bytes of a file, or of all files in a folder.
fn bytes_in(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    let files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.len()));
    files.sum()
}

impl Drop for Sendme {
    fn drop(&mut self) {
        // It has ended already, then.
        let _ = self.sender.kill();
        let _ = self.sender.wait();
    }
}
