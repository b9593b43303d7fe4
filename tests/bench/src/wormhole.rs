//! magic-wormhole (PyPI: magic-wormhole, magic-wormhole-mailbox-server, magic-wormhole-transit-relay), with servers of its own on this
//! machine: a large file, and a folder of many small ones, which it packs and unpacks.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cost::{Cost, Watch};
use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::pull::process::HoldingProcess;
use crate::pull::{Kept, MANY_SIZE, here};
use crate::settings::{MIB, Settings, amount};

/// Where the program is, if not on the PATH; its servers' `twist` is beside it.
const PROGRAM: &str = "LIGHTER_WORMHOLE";
/// Until a server listens.
const START_TIME_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let Some(wormhole) = Wormhole::start(settings)? else { return Ok(Vec::new()) };
    let mut comparisons = Vec::new();
    let (mib, many) = (settings.wormhole_mib, settings.many_blobs);
    for (count, size) in [(1, mib * MIB), (many, MANY_SIZE)] {
        let folder = settings.temporary()?;
        let (plan, files) = (here(count, size), folder.path().join("files"));
        let mut holder = HoldingProcess::start(&plan, folder.path(), Some(files.clone()))?;
        let (name, path, work) = if count == 1 {
            let work = Work { amount: amount(mib), unit: "MiB/s" };
            (format!("agent: {mib} MiB, offer to receipt"), files.join("0.bin"), work)
        } else {
            let work = Work { amount: f64::from(count), unit: "blobs/s" };
            (format!("agent: {count} blobs of {} KiB, offers to receipts", size / 1024), files, work)
        };
        // Many files are cleared away at the end of all rounds, as in `many`, and for the same reason.
        let kept = Kept::default();
        let folder = || if count > 1 { kept.folder(settings) } else { settings.temporary().map(Rc::new) };
        let sides = vec![
            Side::costed(name, || holder.pull(&plan, &*folder()?)),
            Side::costed("magic-wormhole", || wormhole.send(&path, &*folder()?)),
        ];
        let aim = (count > 1).then_some(3.0);
        comparisons.extend(compare(settings.rounds, work, sides, &[Pair { ours: 0, peer: 1, aim }])?);
    }
    Ok(comparisons)
}

/// The program, and both of its servers.
struct Wormhole {
    program: PathBuf,
    options: Vec<String>,
    _servers: [Server; 2],
}

/// A server that ends when this is dropped, and its folder with it.
struct Server(Child, #[expect(dead_code, reason = "held for its end")] TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Wormhole {
    /// None where it is not there, and that is said.
    fn start(settings: &Settings) -> Result<Option<Self>> {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "wormhole".into());
        let program = on_path(&program);
        let twist = program.as_ref().map(|program| program.with_file_name("twist"));
        let (Some(program), Some(twist)) = (program, twist.filter(|twist| twist.is_file())) else {
            eprintln!(
                "magic-wormhole is not there and is left out: `pip install magic-wormhole magic-wormhole-mailbox-server \
                 magic-wormhole-transit-relay`, or {PROGRAM}=FILE"
            );
            return Ok(None);
        };
        let (mailbox, mailbox_port) = serve(&twist, settings, |port| {
            ["wormhole-mailbox".into(), format!("--port=tcp:{port}:interface=127.0.0.1")]
        })?;
        let (transit, transit_port) = serve(&twist, settings, |port| {
            ["transitrelay".into(), format!("--port=tcp:{port}:interface=127.0.0.1")]
        })?;
        let options = vec![
            format!("--relay-url=ws://127.0.0.1:{mailbox_port}/v1"),
            format!("--transit-helper=tcp:127.0.0.1:{transit_port}"),
        ];
        Ok(Some(Self { program, options, _servers: [mailbox, transit] }))
    }

    /// Sends a file or folder and receives it. What counts: packing, and from when the receiver says that it receives until it has
    /// ended; the exchange of keys is left out, as connecting is elsewhere.
    fn send(&self, path: &Path, folder: &TempDir) -> Result<(Duration, Cost)> {
        let code = "--code=7-lighter-bench";
        let path = path.to_str().context("a path in UTF-8")?;
        let mut sender = self.command(&["send", "--hide-progress", code, path], folder.path()).spawn()?;
        let sender_output = BufReader::new(sender.stderr.take().context("no output")?);
        let mut receiver = self
            .command(&["receive", "--accept-file", "--hide-progress", "7-lighter-bench"], folder.path())
            .spawn()?;
        let watch = Watch::start(&[sender.id(), receiver.id()]);
        let packing = std::thread::spawn(move || packing_time(sender_output));
        let mut output = BufReader::new(receiver.stderr.take().context("no output")?);
        let (mut began, mut line) = (None, String::new());
        while output.read_line(&mut line)? > 0 {
            if line.starts_with("Receiving ") {
                began.get_or_insert_with(Instant::now);
            }
            line.clear();
        }
        let took = began.context("the receiver never received")?.elapsed();
        let packing = packing.join().ok().context("the sender's output")?;
        let cost = watch.end();
        let (sent, received) = (sender.wait()?, receiver.wait()?);
        ensure!(sent.success() && received.success(), "wormhole: {sent}, {received}");
        Ok((took + packing, cost))
    }

    fn command(&self, arguments: &[&str], folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.options).args(arguments).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// How long the sender said it was packing.
fn packing_time(mut output: impl BufRead) -> Duration {
    let (mut began, mut took, mut line) = (None, Duration::ZERO, String::new());
    while output.read_line(&mut line).is_ok_and(|len| len > 0) {
        if line.starts_with("Building zipfile") {
            began = Some(Instant::now());
        } else if line.starts_with("Sending ") {
            took = began.map_or(took, |began: Instant| began.elapsed());
        }
        line.clear();
    }
    took
}

/// Starts a server on a port that was free just now.
fn serve(twist: &Path, settings: &Settings, arguments: impl Fn(u16) -> [String; 2]) -> Result<(Server, u16)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let folder = settings.temporary()?;
    let mut command = Command::new(twist);
    command.arg("--log-level=error").args(arguments(port)).current_dir(folder.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut server = Server(child, folder);
    let began = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if server.0.try_wait()?.is_some() || began.elapsed() > START_TIME_MAX {
            let _ = server.0.kill();
            let mut said = String::new();
            server.0.stderr.take().context("no output")?.read_to_string(&mut said)?;
            anyhow::bail!("{}: {}", twist.display(), said.trim());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((server, port))
}

/// The file that a program's name stands for.
fn on_path(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.is_file().then(|| path.to_owned());
    }
    let folders: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(path)).find(|file| file.is_file())
}
