//! A whole installation in one temporary folder: location server, relay, storage servers, agents.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Process;
use crate::homes::HomeHost;
use crate::mail::TestMessage;
use crate::ports;
use crate::programs::{program, run, run_ok};

mod domain;

pub use domain::Domain;

/// The domain that every world serves.
pub const DOMAIN: &str = "lighter.test";

/// What differs from one world to the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// Relays with the same storage servers and array key: 1. Each has ports of its own.
    pub relays: u32,
    /// Storage servers, each a process: 2.
    pub storage_servers: u32,
    /// How the first of them are started, each in its own way; the others as by default.
    pub storage: Vec<StorageOptions>,
    /// Where mail goes on to, as the relay's configuration says it (`[next_hop]`); None: Maildirs.
    pub next_hop: Option<Value>,
    /// Where location server and relay listen, on ports of their own: loopback.
    pub address: IpAddr,
    /// Days that a copy stays after its receipt.
    pub keep_after_receipt_days: u32,
    /// More of the location server's configuration: tables and values. None: nothing more.
    pub location: Option<Value>,
    /// More of the relay's configuration: tables, whose fields are put into those of the world. None: nothing more.
    pub more: Option<Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            relays: 1,
            storage_servers: 2,
            storage: Vec::new(),
            next_hop: None,
            address: Ipv4Addr::LOCALHOST.into(),
            keep_after_receipt_days: 0,
            location: None,
            more: None,
        }
    }
}

/// How one storage server is started.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Where it listens, on a port of its own: loopback.
    pub listen: IpAddr,
    /// What its command begins with (see [`Member::through`]): nothing.
    pub through: Vec<String>,
    /// Its units: one, in its data folder.
    pub units: Vec<PathBuf>,
    /// Where its sealed segments are moved, as its configuration says it; None: nowhere.
    pub object_store: Option<Value>,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            listen: Ipv4Addr::LOCALHOST.into(),
            through: Vec::new(),
            units: Vec::new(),
            object_store: None,
        }
    }
}

/// One program of the world: what it is started with, and, while it runs, its process.
#[derive(Debug)]
pub struct Member {
    /// What the command begins with that starts it, in front of the program: one that becomes the program, or runs it
    /// beside itself (`ip netns exec NAME`, `strace -D`). Empty: nothing.
    pub through: Vec<String>,
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    folder: PathBuf,
    process: Option<Process>,
}

/// A whole installation.
#[derive(Debug)]
pub struct World {
    /// The location server.
    pub location: Member,
    /// The storage servers, each a process of its own.
    pub storage: Vec<Member>,
    /// The relay: SMTP, LMTP, retrieval, delivery.
    pub relay: Member,
    /// Other relays beside it.
    pub fellows: Vec<Member>,
    /// Where the location server listens.
    pub location_url: String,
    folder: TempDir,
}

/// One user's agent.
#[derive(Debug)]
pub struct Agent {
    /// Its mailbox.
    pub mailbox: String,
    /// The program; not running until [`Member::start`].
    pub member: Member,
}

impl Member {
    /// Starts it, and returns when it is ready.
    ///
    /// # Errors
    /// Where it runs already, or does not start.
    pub async fn start(&mut self) -> Result<()> {
        anyhow::ensure!(self.process.is_none(), "{} runs already", self.name);
        let mut arguments = self.arguments.clone();
        let mut program = self.program.clone();
        if let [first, rest @ ..] = &self.through[..] {
            let inner = std::mem::replace(&mut program, first.into());
            arguments = rest.iter().cloned().chain([path_text(&inner)?]).chain(arguments).collect();
        }
        self.process = Some(Process::start(&self.name, &program, &arguments, &self.folder).await?);
        Ok(())
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// Where it does not run, or does not stop cleanly.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} does not run", self.name))?.stop().await
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} does not run", self.name))?.kill().await
    }

    /// Whether it has been started and not stopped since.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// The running process.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The addresses that it listens on, as it wrote them down before it was ready.
    ///
    /// # Errors
    /// Where there is no such file, or no JSON in it.
    pub fn addresses(&self) -> Result<Value> {
        let path = self.data.join("addresses.json");
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// One of those addresses, by a JSON pointer (RFC 6901).
    ///
    /// # Errors
    /// Where it is not there.
    pub fn address(&self, pointer: &str) -> Result<SocketAddr> {
        let addresses = self.addresses()?;
        let text = addresses.pointer(pointer).and_then(Value::as_str);
        Ok(text.with_context(|| format!("{}: no address {pointer} in {addresses}", self.name))?.parse()?)
    }
}

impl World {
    /// Starts everything but agents, with the default options.
    ///
    /// # Errors
    /// Where a program is not built or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Options::default()).await
    }

    /// Starts everything but agents.
    ///
    /// # Errors
    /// Where a program is not built or does not start.
    pub async fn start_with(options: &Options) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lighter-").tempdir()?;
        let root = folder.path();
        let (location, location_url, token_file) = start_location(root, options).await?;
        let relay_config = root.join("relay.toml");
        let mut relay = Member::new("relay", "lighter-relay", root, ["serve"])?;
        // The relay's PeerId does not depend on its array, so the storage servers can be told of it first.
        write_config(&relay_config, &json!({ "data": relay.data() }))?;
        let mut writers = vec![relay_id(&relay, &relay_config).await?];
        let mut fellows = Vec::new();
        for number in 2..=options.relays {
            let (fellow, id) = make_fellow(root, number).await?;
            fellows.push(fellow);
            writers.push(id);
        }
        let mut storage = Vec::new();
        for number in 1..=options.storage_servers {
            let how = options.storage.get(number as usize - 1).cloned().unwrap_or_default();
            storage.push(start_storage(root, number, &writers, how).await?);
        }
        let mut config = relay_values(&relay, options, &location_url, &token_file, &storage).await?;
        write_config(&relay_config, &config)?;
        relay.start().await?;
        pin_ports(&mut config, &relay)?;
        write_config(&relay_config, &config)?;
        for fellow in &mut fellows {
            // They share the array, and so its key.
            std::fs::copy(relay.data().join("array.key"), fellow.data().join("array.key"))?;
            let path = root.join(format!("{}.toml", fellow.name));
            let mut config = relay_values(fellow, options, &location_url, &token_file, &storage).await?;
            write_config(&path, &config)?;
            fellow.start().await?;
            pin_ports(&mut config, fellow)?;
            write_config(&path, &config)?;
        }
        Ok(Self { location, storage, relay, fellows, location_url, folder })
    }

    /// The folder that everything lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder when the world is dropped, and says where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Starts one more storage server that the relay may write to; it is not told of it.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn more_storage(&self, number: u32) -> Result<Member> {
        self.more_storage_with(number, StorageOptions::default()).await
    }

    /// As [`World::more_storage`], started in its own way. One that was there before under this number goes on with what
    /// it has.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn more_storage_with(&self, number: u32, how: StorageOptions) -> Result<Member> {
        let root = self.folder();
        let id = relay_id(&self.relay, &root.join("relay.toml")).await?;
        start_storage(root, number, &[id], how).await
    }

    /// Where the relay takes SMTP.
    ///
    /// # Errors
    /// Where the relay has not said so.
    pub fn smtp(&self) -> Result<SocketAddr> {
        self.relay.address("/smtp/0")
    }

    /// Where the relay takes LMTP.
    ///
    /// # Errors
    /// Where the relay has not said so.
    pub fn lmtp(&self) -> Result<SocketAddr> {
        self.relay.address("/lmtp/0")
    }

    /// Sends `message` to its recipient as a plain SMTP client does.
    ///
    /// # Errors
    /// Where the relay does not take it.
    pub async fn send(&self, message: &TestMessage) -> Result<()> {
        crate::mail::send(self.smtp()?, message, &[&message.to]).await
    }

    /// Invites `name@lighter.test` and sets up an agent for them, not yet running.
    ///
    /// # Errors
    /// Where either is refused.
    pub async fn agent(&self, name: &str) -> Result<Agent> {
        let mailbox = format!("{name}@{DOMAIN}");
        let smtp = self.smtp()?.to_string();
        invite_and_set_up(self.folder(), self.location.data(), &self.location_url, &mailbox, &smtp).await
    }

    /// As [`World::agent`], on a host in a home: it listens on the port of that host, and finds others there by multicast
    /// DNS or does not.
    ///
    /// # Errors
    /// As [`World::agent`].
    pub async fn agent_at_home(&self, name: &str, host: &HomeHost, has_mdns: bool) -> Result<Agent> {
        let mut agent = self.agent(name).await?;
        agent.member.through = host.through();
        let path = self.folder().join(format!("{name}.toml"));
        let mut config: Value = toml::from_str(&std::fs::read_to_string(&path)?)?;
        config["quic"] = json!({ "listen": SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), host.port) });
        config["network"] = json!({ "mdns": has_mdns });
        write_config(&path, &config)?;
        Ok(agent)
    }

    /// Runs a `lighter-location` command against the running server; its JSON answer.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn location_command(&self, arguments: &[&str]) -> Result<Value> {
        location_command(self.location.data(), arguments).await
    }

    /// Runs a `lighter-relay` command against the running relay; its JSON answer.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn relay_command(&self, arguments: &[&str]) -> Result<Value> {
        relay_command(&self.folder().join("relay.toml"), arguments).await
    }

    /// The messages in a mailbox's Maildir, oldest first.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn maildir(&self, mailbox: &str) -> Result<Vec<PathBuf>> {
        let (local, domain) = mailbox.split_once('@').context("no mailbox")?;
        let folder = self.relay.data().join("maildir").join(domain).join(local).join("new");
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut messages = Vec::new();
        for entry in entries {
            let entry = entry?;
            messages.push((entry.metadata()?.modified()?, entry.path()));
        }
        messages.sort();
        Ok(messages.into_iter().map(|(_, path)| path).collect())
    }
}

impl Agent {
    /// Runs a `lighter-agent` command of this user; what it printed.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn command(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        self.command_with(arguments, &[]).await
    }

    /// As [`Agent::command`], with bytes on its standard input.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn command_with(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        run_ok(&self.member.program, self.arguments(arguments), input).await
    }

    /// As [`Agent::command`], with whatever exit code.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub async fn try_command(&self, arguments: &[&str]) -> Result<std::process::Output> {
        self.try_command_with(arguments, &[]).await
    }

    /// As [`Agent::try_command`], with bytes on its standard input.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub async fn try_command_with(&self, arguments: &[&str], input: &[u8]) -> Result<std::process::Output> {
        run(&self.member.program, self.arguments(arguments), input).await
    }

    /// Puts `more` into its configuration, for its next start.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn configure(&self, more: &Value) -> Result<()> {
        let path = self.member.folder.join(format!("{}.toml", self.member.name));
        let mut config: Value = toml::from_str(&std::fs::read_to_string(&path)?)?;
        merge(&mut config, Some(more));
        write_config(&path, &config)
    }

    /// A command's JSON answer.
    ///
    /// # Errors
    /// Where it fails, or prints something else.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> = [&["--json"], arguments].concat();
        Ok(serde_json::from_slice(&self.command(&arguments).await?)?)
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = self.member.arguments.clone();
        all.pop();
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all
    }
}

impl Member {
    /// A program that is run as `PROGRAM --config FOLDER/NAME.toml --data FOLDER/NAME COMMAND…`.
    fn new<const N: usize>(
        name: &str,
        program_name: &str,
        folder: &Path,
        command: [&str; N],
    ) -> Result<Self> {
        let data = folder.join(name);
        let mut arguments = vec!["--config".to_owned(), path_text(&folder.join(format!("{name}.toml")))?];
        arguments.extend(["--data".to_owned(), path_text(&data)?]);
        arguments.extend(command.map(ToOwned::to_owned));
        let program = program(program_name)?;
        let (name, folder) = (name.to_owned(), folder.to_owned());
        Ok(Self { through: Vec::new(), name, program, arguments, data, folder, process: None })
    }
}

/// Invites `mailbox` at the location server whose data is given, and sets up an agent in `folder` under the name of its
/// local part.
async fn invite_and_set_up(
    folder: &Path,
    location: &Path,
    location_url: &str,
    mailbox: &str,
    smtp: &str,
) -> Result<Agent> {
    let invitation = location_command(location, &["user", "invite", mailbox]).await?;
    let token = invitation.pointer("/token").and_then(Value::as_str).context("no token in the invitation")?;
    let name = mailbox.split('@').next().context("a mailbox")?;
    let member = Member::new(name, "lighter-agent", folder, ["run"])?;
    std::fs::create_dir_all(member.data())?;
    let agent = Agent { mailbox: mailbox.to_owned(), member };
    let arguments =
        ["setup", "--mailbox", mailbox, "--location", location_url, "--token", token, "--smtp", smtp];
    agent.command(&arguments).await?;
    Ok(agent)
}

/// Puts what `more` says into `config`: tables within tables, the rest in place of what is there.
fn merge(config: &mut Value, more: Option<&Value>) {
    for (name, value) in more.and_then(Value::as_object).into_iter().flatten() {
        match (&mut config[name.as_str()], value) {
            (known @ Value::Object(_), Value::Object(_)) => merge(known, Some(value)),
            (known, value) => *known = value.clone(),
        }
    }
}

/// Starts the location server; returns it, its URL, and the file with the relay's token.
async fn start_location(root: &Path, options: &Options) -> Result<(Member, String, PathBuf)> {
    let config_path = root.join("location.toml");
    let mut location = Member::new("location", "lighter-location", root, ["serve"])?;
    let mut config = json!({ "listen": ports::reserve(options.address)?, "domains": [DOMAIN] });
    merge(&mut config, options.location.as_ref());
    write_config(&config_path, &config)?;
    location.start().await?;
    let address = location.address("/http")?.to_string();
    config["listen"] = json!(address);
    write_config(&config_path, &config)?;
    let scopes = ["--scope", "lookup", "--scope", "presence", "--scope", "relay"];
    let token =
        location_command(location.data(), &[&["token", "create", "--name", "relay"], &scopes[..]].concat())
            .await?;
    let token = token.pointer("/token").and_then(Value::as_str).context("no token")?.to_owned();
    let token_file = root.join("relay.token");
    std::fs::write(&token_file, token)?;
    Ok((location, format!("http://{address}"), token_file))
}

/// A further relay, not running, and its PeerId.
async fn make_fellow(root: &Path, number: u32) -> Result<(Member, String)> {
    let name = format!("relay-{number}");
    let fellow = Member::new(&name, "lighter-relay", root, ["serve"])?;
    let path = root.join(format!("{name}.toml"));
    write_config(&path, &json!({ "data": fellow.data() }))?;
    let id = relay_id(&fellow, &path).await?;
    Ok((fellow, id))
}

/// Starts a storage server that takes appends from `writers` only.
async fn start_storage(root: &Path, number: u32, writers: &[String], how: StorageOptions) -> Result<Member> {
    let name = format!("storage-{number}");
    let config_path = root.join(format!("{name}.toml"));
    let mut member = Member::new(&name, "lighter-relay", root, ["serve"])?;
    member.through = how.through;
    // Not one from the kernel, who would give it to others while the server is down.
    let listen = ports::reserve(how.listen)?;
    let mut config = json!({
        "data": member.data(),
        "roles": ["storage"],
        "storage": {
            "servers": [{ "path": member.data().join("server"), "listen": listen, "units": how.units }],
            "writers": writers,
        },
    });
    if let Some(store) = how.object_store {
        config["storage"]["object_store"] = store;
    }
    write_config(&config_path, &config)?;
    member.start().await?;
    config["storage"]["servers"][0]["listen"] = json!(member.address("/storage/0/address")?);
    write_config(&config_path, &config)?;
    Ok(member)
}

async fn relay_values(
    relay: &Member,
    options: &Options,
    location_url: &str,
    token_file: &Path,
    storage: &[Member],
) -> Result<Value> {
    let mut servers = Vec::new();
    for member in storage {
        let addresses = member.addresses()?;
        servers.push(addresses.pointer("/storage/0").context("no storage server")?.clone());
    }
    // Not ones from the kernel, who would give them to others while the relay is down.
    let [smtp, lmtp, quic, web] = [(); 4].map(|()| ports::reserve(options.address));
    let mut config = json!({
        "data": relay.data(),
        "hostname": format!("mx.{DOMAIN}"),
        "roles": ["smtp", "lmtp", "web"],
        "smtp": { "listen": [smtp?] },
        "lmtp": { "listen": [lmtp?] },
        "quic": { "listen": quic? },
        "web": { "listen": web? },
        "location": { "url": location_url, "token_file": token_file },
        "array": { "servers": servers },
        "retention": { "keep_after_receipt_days": options.keep_after_receipt_days },
    });
    if !options.address.is_loopback() {
        // Who comes from elsewhere may send to this domain.
        config["domains"] = json!([DOMAIN]);
    }
    if let Some(next_hop) = &options.next_hop {
        config["next_hop"] = next_hop.clone();
    }
    for (table, fields) in options.more.iter().filter_map(Value::as_object).flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            config[table][field] = value.clone();
        }
    }
    Ok(config)
}

/// Puts the ports that it listens on into the configuration, also where a test's own lines left one to the kernel, so that
/// a restart listens on the same ones.
fn pin_ports(config: &mut Value, relay: &Member) -> Result<()> {
    let addresses = relay.addresses()?;
    for (listener, pointer) in [("smtp", "/smtp"), ("lmtp", "/lmtp"), ("quic", "/quic"), ("web", "/web")] {
        config[listener]["listen"] = addresses.pointer(pointer).context("no address")?.clone();
    }
    Ok(())
}

async fn relay_id(relay: &Member, config: &Path) -> Result<String> {
    let ids = run_ok(&relay.program, ["--config", &path_text(config)?, "--json", "keys", "id"], &[]).await?;
    let ids: Value = serde_json::from_slice(&ids)?;
    Ok(ids.pointer("/relay").and_then(Value::as_str).context("no PeerId")?.to_owned())
}

async fn location_command(data: &Path, arguments: &[&str]) -> Result<Value> {
    let data = path_text(data)?;
    let arguments = [&["--data", &data, "--json"], arguments].concat();
    Ok(serde_json::from_slice(&run_ok(&program("lighter-location")?, arguments, &[]).await?)?)
}

async fn relay_command(config: &Path, arguments: &[&str]) -> Result<Value> {
    let config = path_text(config)?;
    let arguments = [&["--config", &config, "--json"], arguments].concat();
    Ok(serde_json::from_slice(&run_ok(&program("lighter-relay")?, arguments, &[]).await?)?)
}

fn write_config(path: &Path, config: &Value) -> Result<()> {
    Ok(std::fs::write(path, toml::to_string(config)?)?)
}

fn path_text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a folder whose name is no UTF-8")?.to_owned())
}
