//! Ours in processes of their own, as the peers are: on another host of a bad line, and so that each costs what it costs.
//!
//! A worker is this program started again with a [`Job`] in its environment. It speaks in lines on its standard output, is spoken to
//! on its standard input, and ends with that.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{presence, pull};

/// Holds a worker's job.
const JOB: &str = "LIGHTER_BENCH_JOB";

/// What a worker does.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Job {
    /// Holds blobs, and offers them: [`pull::process`].
    Hold {
        /// For its store.
        folder: PathBuf,
        /// Blobs.
        count: u32,
        /// Bytes of each.
        size: u64,
        /// Where it listens.
        address: IpAddr,
        /// Where a copy of each blob goes as a file; none is made.
        copies: Option<PathBuf>,
    },
    /// An agent that is offered them.
    Agent {
        /// For its store.
        folder: PathBuf,
        /// PeerId and address of each holder.
        holders: Vec<(String, SocketAddr)>,
        /// Where it listens.
        address: IpAddr,
        /// A blob and its size, of which it says how it goes.
        watched: Option<(String, u64)>,
    },
    /// A location server.
    Location {
        /// For its database, and the key of the stores.
        folder: PathBuf,
        /// That are registered.
        stores: u32,
    },
}

/// Does what this process was started for, if it is a worker.
pub(crate) fn run_if_started_as_one() -> Option<Result<()>> {
    let job = std::env::var(JOB).ok()?;
    Some(run(&job))
}

fn run(job: &str) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match serde_json::from_str(job)? {
        Job::Hold { folder, count, size, address, copies } => {
            pull::process::hold(&folder, count, size, address, copies.as_deref())
        }
        Job::Agent { folder, holders, address, watched } => {
            pull::process::agent(&folder, &holders, address, watched)
        }
        Job::Location { folder, stores } => presence::serve(&folder, stores),
    }
}

/// Says a line to whoever started this worker.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    // A test's own output may be before it on the same line.
    writeln!(output, "\n{MARK}{line}")?;
    Ok(output.flush()?)
}

/// Lines with it are a worker's.
const MARK: &str = "worker: ";

/// A worker; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one; `through` is what its command begins with.
    pub(crate) fn start(through: &[String], job: &Job) -> Result<Self> {
        let this = std::env::current_exe()?;
        let mut command = match through {
            [] => Command::new(this),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(this);
                command
            }
        };
        if cfg!(test) {
            command.args(["tests::a_worker", "--exact", "--nocapture"]);
        }
        command.env(JOB, serde_json::to_string(job)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("no output")?);
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says next.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.output.read_line(&mut line)? > 0, "a worker ended");
            if let Some(said) = line.trim_end().strip_prefix(MARK) {
                return Ok(said.to_owned());
            }
        }
    }

    /// Says something to it.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("it was ended")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    /// Without a word, as a machine that loses its power.
    pub(crate) fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None;
        self.kill();
        let _ = self.child.wait();
    }
}
