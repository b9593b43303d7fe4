//! One real program as a child process: started, waited for until it is ready, stopped or killed, measured.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::Child;

use crate::programs::ending_with_this;

/// How long a program may take until it says that it is ready: recovery of a large log on a busy machine included.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a program may take to stop after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a readiness message (systemd's own limit for one is a page).
const NOTIFY_LEN_MAX: usize = 4096;

/// A running program. Dropped, it is killed; so it is when the test's thread ends without that.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments`, its output appended to `FOLDER/NAME.log`, and returns when it has said
    /// `READY=1` on its `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// Where it cannot be started, ends before it is ready, or is not ready in time: with the end of its log.
    pub async fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Result<Self> {
        Self::start_with(name, program, arguments, &[], folder).await
    }

    /// As [`Process::start`], with variables added to the program's environment.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn start_with<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        variables: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Self> {
        let socket_path = folder.join(format!("{name}.ready"));
        let _ = std::fs::remove_file(&socket_path);
        let socket =
            UnixDatagram::bind(&socket_path).with_context(|| format!("bind {}", socket_path.display()))?;
        let log = folder.join(format!("{name}.log"));
        let output = std::fs::File::options().create(true).append(true).open(&log)?;
        let child = ending_with_this(program)
            .args(arguments)
            .envs(variables.iter().copied())
            .env("NOTIFY_SOCKET", &socket_path)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut process = Self { name: name.to_owned(), child, log };
        process.wait_ready(&socket).await?;
        Ok(process)
    }

    async fn wait_ready(&mut self, socket: &UnixDatagram) -> Result<()> {
        let mut message = [0; NOTIFY_LEN_MAX];
        let ready = async {
            loop {
                let len = socket.recv(&mut message).await?;
                if message[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::select! {
            ready = tokio::time::timeout(READY_TIMEOUT, ready) => {
                if let Ok(ready) = ready {
                    return ready;
                }
            }
            status = self.child.wait() => {
                bail!("{} ended before it was ready ({}):\n{}", self.name, status?, self.log_end());
            }
        }
        bail!("{} was not ready within {} s:\n{}", self.name, READY_TIMEOUT.as_secs(), self.log_end())
    }

    /// Its process id.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`: the program gets no chance to finish anything.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub async fn kill(mut self) -> Result<()> {
        self.child.start_kill()?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM, and waits for the clean stop.
    ///
    /// # Errors
    /// Where it does not stop in time, or stops with a failure: with the end of its log.
    pub async fn stop(mut self) -> Result<()> {
        kill_process(self.signal_pid()?, Signal::TERM)?;
        let status = tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("{} did not stop:\n{}", self.name, self.log_end()))??;
        if !status.success() {
            bail!("{} stopped with {status}:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// SIGSTOP: the program hangs, its connections stay open.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn freeze(&self) -> Result<()> {
        Ok(kill_process(self.signal_pid()?, Signal::STOP)?)
    }

    /// SIGCONT after [`Process::freeze`].
    ///
    /// # Errors
    /// Where it has ended.
    pub fn thaw(&self) -> Result<()> {
        Ok(kill_process(self.signal_pid()?, Signal::CONT)?)
    }

    /// The most memory that it ever had resident, in bytes, as the kernel counts it (`VmHWM`, proc(5)).
    ///
    /// # Errors
    /// Where it has ended, or the kernel does not say.
    pub fn memory_peak(&self) -> Result<u64> {
        memory_peak(self.pid()?)
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last 40 lines of it.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn signal_pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.pid()?)?;
        Pid::from_raw(pid).context("no such process")
    }
}

/// The most memory that process `pid` ever had resident, in bytes (`VmHWM`, proc(5)).
///
/// # Errors
/// Where there is no such process, or the kernel does not say.
pub fn memory_peak(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
