//! Real servers beside Lighter, as Debian packages them: Postfix before the relay, Dovecot behind it, a browser on its
//! pages; and a real S3 server, which Debian has not. Each runs in the foreground with a configuration folder of its own, on loopback, and needs no systemd.
//!
//! Dovecot and the browser run as whoever runs the tests. Postfix drops root by itself and does not start without it:
//! an ordinary user starts it by `sudo`, which must not ask for a password.

mod browser;
mod dovecot;
mod examples;
mod garage;
mod miniupnpd;
mod name_server;
mod nginx;
mod postfix;
mod radicale;
mod tap;
mod tinyproxy;
mod web_server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

pub use browser::{Browser, View};
pub use dovecot::Dovecot;
pub use examples::example;
pub use garage::Garage;
pub use miniupnpd::{Answers, Miniupnpd};
pub use name_server::{NameServer, Saying};
pub use nginx::Nginx;
pub use postfix::{Postfix, Route};
pub use radicale::Radicale;
pub use tap::Tap;
pub use tinyproxy::Tinyproxy;
pub use web_server::{Host, Site, WebServer};

/// How long a server may take until it answers on its port, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one may take to end; Postfix takes up to 5 s before it uses force.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two tries to connect to a port that is not open yet, and two looks whether a program has ended: these do
/// not say when they are ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A port of this machine's own ([`ports`](crate::ports)), for programs that cannot take one from the kernel themselves.
///
/// # Errors
/// Where there is none.
pub fn free_address() -> Result<SocketAddr> {
    crate::ports::reserve(Ipv4Addr::LOCALHOST.into())
}

/// Runs `"$@"` until it ends, or until standard input does: then the first argument, a command, is to stop it. Standard
/// input ends with the handle, and with the test program however that ends, `kill -9` included.
const GUARD: &str = r#"
stop=$1; shift
exec 3<&0
"$@" </dev/null 3<&- & child=$!
{ cat <&3 >/dev/null; trap '' TERM; eval "$stop"; } & watcher=$!
exec 3<&-
wait $child; status=$?
kill $watcher 2>/dev/null
wait $watcher
exit $status
"#;

/// A server that stays in the foreground, and is stopped with its handle.
#[derive(Debug)]
struct Foreground {
    guard: Child,
    /// The guard's standard input, which it waits for the end of. Not the child's own: waiting would close it.
    life: Option<ChildStdin>,
    log: PathBuf,
}

/// What a server shows that it is ready by.
#[derive(Clone, Copy, Debug)]
enum Ready<'a> {
    /// It takes connections at this address.
    Answers(SocketAddr),
    /// Its log has these words.
    Says(&'a str),
}

impl From<SocketAddr> for Ready<'_> {
    fn from(port: SocketAddr) -> Self {
        Self::Answers(port)
    }
}

impl<'a> From<&'a str> for Ready<'a> {
    fn from(words: &'a str) -> Self {
        Self::Says(words)
    }
}

/// As who a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    /// Whoever runs the tests.
    Caller,
    /// Root, by `sudo` where the caller is somebody else.
    Root,
}

impl Foreground {
    /// Starts `command`, its output appended to `log`, and returns when it is ready. `stop` is the shell command that ends
    /// it; `$child` stands for its process id.
    async fn start(
        whose: As,
        command: &[&str],
        stop: &str,
        log: &Path,
        ready: impl Into<Ready<'_>>,
    ) -> Result<Self> {
        let output = std::fs::File::options().create(true).append(true).open(log)?;
        let mut guard = shell(whose)
            .args(["-c", GUARD, "guard", stop])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("start sh")?;
        let mut foreground = Self { life: guard.stdin.take(), guard, log: log.to_owned() };
        if let Err(error) = foreground.wait_until(ready).await {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{command:?} (tests/run installs what is needed): {error}\n{said}");
        }
        Ok(foreground)
    }

    async fn wait_until(&mut self, ready: impl Into<Ready<'_>>) -> Result<()> {
        let ready = ready.into();
        let is_ready = async {
            loop {
                let is_ready = match ready {
                    Ready::Answers(port) => TcpStream::connect(port).await.is_ok(),
                    Ready::Says(words) => {
                        std::fs::read_to_string(&self.log).is_ok_and(|said| said.contains(words))
                    }
                };
                if is_ready {
                    return;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            is_ready = tokio::time::timeout(START_TIMEOUT, is_ready) => {
                is_ready.with_context(|| format!("not ready: {ready:?}"))
            }
            status = self.guard.wait() => bail!("ended before it was ready: {}", status?),
        }
    }
}

impl Drop for Foreground {
    /// Waits until the server has ended: its folder is about to be removed.
    fn drop(&mut self) {
        drop(self.life.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.guard.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.guard.start_kill();
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// A certificate for this machine that nobody else has signed, made by OpenSSL, and its key: PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate; who trusts it as an issuer trusts it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for `localhost` and 127.0.0.1, in `folder`.
    ///
    /// # Errors
    /// Where OpenSSL is not installed (tests/run installs it).
    pub async fn make(folder: &Path) -> Result<Self> {
        Self::make_for(folder, Ipv4Addr::LOCALHOST.into()).await
    }

    /// Makes one for `localhost` and `address`, in `folder`.
    ///
    /// # Errors
    /// As [`Certificate::make`].
    pub async fn make_for(folder: &Path, address: IpAddr) -> Result<Self> {
        Self::make_named(folder, "", &format!("DNS:localhost, IP:{address}")).await
    }

    /// Makes one for `names`, as OpenSSL writes them, in files of `folder` that begin with `prefix`.
    ///
    /// # Errors
    /// As [`Certificate::make`].
    pub async fn make_named(folder: &Path, prefix: &str, names: &str) -> Result<Self> {
        let text = format!(
            "[req]\ndistinguished_name = name\nprompt = no\nx509_extensions = more\n\
             [name]\nCN = localhost\n\
             [more]\nsubjectAltName = {names}\n\
             basicConstraints = critical, CA:FALSE\n"
        );
        let file = |name: &str| folder.join(format!("{prefix}{name}"));
        let (request, certificate, key) = (file("request.cnf"), file("certificate.pem"), file("key.pem"));
        std::fs::write(&request, text)?;
        let make =
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -config \"$1\" -out \"$2\" -keyout \"$3\"";
        run(As::Caller, make, &[&request, &certificate, &key]).await?;
        Ok(Self { certificate, key })
    }
}

/// A shell, as who was asked for.
fn shell(whose: As) -> Command {
    if whose == As::Root && !is_root() {
        let mut command = Command::new("sudo");
        command.args(["-n", "sh"]);
        return command;
    }
    Command::new("sh")
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Runs a shell command to its end.
async fn run(whose: As, command: &str, arguments: &[&Path]) -> Result<()> {
    let output = shell(whose).args(["-c", command, "sh"]).args(arguments).output().await?;
    if !output.status.success() {
        bail!("{command}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// `folder` and the folders `names` in it, made.
fn folders(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let make = |name: &&str| {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    };
    names.iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::TestMessage;

    #[tokio::test]
    async fn mail_goes_through_postfix_to_dovecot() {
        let folder = tempfile::tempdir().unwrap();
        let dovecot = Dovecot::start(&folder.path().join("dovecot")).await.unwrap();
        let route = Route::Lmtp(dovecot.lmtp);
        let postfix = Postfix::start(&folder.path().join("postfix"), &route).await.unwrap();
        let message = TestMessage::new("alice@lighter.test", 1000, 1);
        crate::mail::send(postfix.smtp, &message, &["alice@lighter.test"]).await.unwrap();
        let mut imap =
            crate::imap::Imap::login(dovecot.imap, "alice@lighter.test", Dovecot::PASSWORD).await.unwrap();
        let received = imap.wait_for_message(1).await.unwrap();
        assert!(received.ends_with(&message.to_bytes()));
    }

    #[tokio::test]
    async fn a_server_ends_with_its_handle_and_so_do_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let port = {
            let dovecot = Dovecot::start(&folder.path().join("dovecot")).await.unwrap();
            let route = Route::Lmtp(dovecot.lmtp);
            let postfix = Postfix::start(&folder.path().join("postfix"), &route).await.unwrap();
            [dovecot.imap, dovecot.lmtp, postfix.smtp]
        };
        for port in port {
            assert!(TcpStream::connect(port).await.is_err(), "{port} still answers");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let command = ["sh", "-c", "echo no such luck; exit 3"];
        let started =
            Foreground::start(As::Caller, &command, "kill $child", &log, free_address().unwrap()).await;
        assert!(started.unwrap_err().to_string().contains("no such luck"));
    }
}
