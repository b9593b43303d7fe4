//! One relay in a folder of its own, everything on ports from the kernel.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use lighter_harness::Process;
use lighter_harness::mail::{MailClient, TestMessage};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// The domain that relays of these tests serve.
pub(crate) const DOMAIN: &str = "lighter.test";

/// A relay: its configuration, and its process while it runs.
pub(crate) struct Relay {
    folder: TempDir,
    config: Value,
    process: Option<Process>,
}

impl Relay {
    /// All roles, not started yet.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With another configuration, not started yet.
    pub(crate) fn with(change: impl FnOnce(&mut Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = json!({
            "data": folder.path().join("data"),
            "hostname": "mx.lighter.test",
            "domains": [DOMAIN],
            "smtp": { "listen": ["127.0.0.1:0"] },
            "lmtp": { "listen": ["127.0.0.1:0"] },
            "quic": { "listen": "127.0.0.1:0" },
            "web": { "listen": "127.0.0.1:0" },
            "location": { "listen": "127.0.0.1:0" },
        });
        change(&mut config);
        let relay = Self { folder, config, process: None };
        relay.write_config();
        relay
    }

    pub(crate) async fn started() -> Self {
        let mut relay = Self::new();
        relay.start().await;
        relay
    }

    /// Changes the configuration, for the next start.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.write_config();
    }

    fn write_config(&self) {
        std::fs::write(self.config_path(), toml::to_string(&self.config).unwrap()).unwrap();
    }

    fn config_path(&self) -> PathBuf {
        self.folder.path().join("relay.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) async fn start(&mut self) {
        let arguments = ["--config".into(), self.config_path().into_os_string(), "serve".into()];
        let process = Process::start("relay", program(), arguments, self.folder.path()).await;
        self.process = Some(process.unwrap_or_else(|error| panic!("{error:#}")));
    }

    /// The process, while it runs.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    /// SIGTERM; it must end well.
    pub(crate) async fn stop(&mut self) {
        self.process.take().unwrap().stop().await.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    /// Runs a command with this relay's configuration.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        self.command_with(arguments, b"").await
    }

    /// The same, with something on standard input.
    pub(crate) async fn command_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(program())
            .arg("--config")
            .arg(self.config_path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input).await; // who does not read it ends before
        drop(stdin);
        tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the command ends").unwrap()
    }

    /// A command's answer as JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[&["--json"], arguments].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn addresses(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.data().join("addresses.json")).unwrap()).unwrap()
    }

    pub(crate) fn address(&self, pointer: &str) -> SocketAddr {
        let addresses = self.addresses();
        let text = addresses.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no {pointer} in {addresses}")).parse().unwrap()
    }

    pub(crate) async fn smtp(&self) -> MailClient {
        MailClient::connect(self.address("/smtp/0"), "EHLO").await.unwrap()
    }

    /// Sends a message; the code of the reply that decided. `None`: the connection was dropped without one.
    pub(crate) async fn try_send(&self, message: &TestMessage) -> Option<u16> {
        let mut client = self.smtp().await;
        for command in
            [format!("MAIL FROM:<{}>", message.from), format!("RCPT TO:<{}>", message.to), "DATA".to_owned()]
        {
            let reply = client.command(&command).await.ok()?;
            if reply.code >= 400 {
                return Some(reply.code);
            }
        }
        for piece in message.pieces() {
            client.write(&piece).await.ok()?;
        }
        client.command(".").await.ok().map(|reply| reply.code)
    }

    /// Sends a message; the code of the reply that decided.
    pub(crate) async fn send(&self, message: &TestMessage) -> u16 {
        self.try_send(message).await.expect("a reply")
    }

    /// What lies in a mailbox.
    pub(crate) fn maildir(&self, name: &str) -> Vec<Vec<u8>> {
        let folder = self.data().join("maildir").join(DOMAIN).join(name).join("new");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    /// Throws the catalog's view away, which must be there.
    pub(crate) fn delete_view(&self) {
        assert!(self.process.is_none(), "the relay runs");
        std::fs::remove_dir_all(self.data().join("catalog")).unwrap();
    }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lighter-relay"))
}

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// What a command wrote on standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small message with nothing attached.
pub(crate) fn plain(name: &str, seed: u64) -> TestMessage {
    TestMessage::new(&format!("{name}@{DOMAIN}"), 0, seed)
}
