//! The commands: what they take, and what they do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};
use etcetera::BaseStrategy;
use lighter_location::config::ConfigError;
use lighter_location::control::{self, ControlError};
use lighter_location::engine::EngineError;
use lighter_location::error::CallError;
use lighter_location::location::{Location, OpenError};
use lighter_location::{AdminAnswer, AdminCommand, Config, LocationServer, StartError};
use lighter_protocol::{Mailbox, Now, PeerId};
use lighter_shell::Exit;
use lighter_transport::location::Scope;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{export, show};

/// Where users' stores are, and whether they can be reached now.
#[derive(Debug, Parser)]
#[command(version, about, after_help = "Exit codes: 0 done, 1 failed, 2 wrong use, 75 try again.")]
pub(crate) struct Cli {
    /// Configuration (TOML). Without one everything has its default: loopback, port 7080.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder with key, database and control socket; default: the configuration's, or below the user's data folder.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// Address to listen on; port 0 takes one from the kernel.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Domain whose mailboxes may be invited; may be given again.
        #[arg(long = "domain", value_name = "DOMAIN")]
        domains: Vec<String>,
    },
    /// API tokens, for mail servers and relays.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Users and their stores.
    #[command(subcommand)]
    User(UserCommand),
    /// This server's key.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print everything but secrets, as JSON lines.
    Export,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make another key, and announce that it takes over.
    Announce {
        /// Days until it does: those who know the present key have so long to hear of it.
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
    /// Show the key, and its changes.
    Show,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token. It is shown once, and kept as a hash only.
    Create {
        /// What to call it.
        #[arg(long, default_value = "")]
        name: String,
        /// What it may do: lookup, presence, relay; may be given again.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// Days until it expires. Without it, it does not.
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
    /// List tokens.
    List,
    /// End a token.
    Revoke {
        /// Its id, as listed.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a token with which this mailbox's store can enrol, once.
    Invite {
        /// For whom.
        mailbox: Mailbox,
        /// Days until it expires.
        #[arg(long, value_name = "DAYS", default_value_t = 7)]
        days: u32,
    },
    /// List users with their stores.
    List,
    /// Confirm a user's further store at once: it waits 24 hours otherwise.
    Confirm {
        /// Whose.
        mailbox: Mailbox,
        /// The store's key.
        #[arg(long, value_name = "PEER")]
        peer: PeerId,
    },
    /// Remove a user's stores and enrolment tokens, or one store: a device that was lost.
    Remove {
        /// Whose.
        mailbox: Mailbox,
        /// Only the store with this key.
        #[arg(long, value_name = "PEER")]
        peer: Option<PeerId>,
    },
}

/// A command that did not work, and with which code to say so.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
}

const SECONDS_PER_DAY: u64 = 86_400;

impl Cli {
    /// Does what was asked.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let config = self.config().map_err(|error| Failure::new(Exit::WrongUse, error))?;
        if let Command::Serve { listen, domains } = self.command {
            lighter_shell::logs::init();
            return serve(config, listen, domains).await;
        }
        lighter_shell::logs::init_quiet();
        let admin = Admin::reach(config).await?;
        let command = match self.command {
            Command::Serve { .. } | Command::Export => {
                return export::print(&admin).await;
            }
            Command::Token(command) => command.into(),
            Command::User(UserCommand::List) => {
                return show::users(&admin, self.json).await;
            }
            Command::User(command) => command.into(),
            Command::Key(command) => command.into(),
        };
        show::answer(&admin.ask(command).await?, self.json).map_err(|error| Failure::new(Exit::Failed, error))
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config { data: default_data(), ..Config::default() },
        };
        if self.config.is_some() && config.data == Config::default().data {
            config.data = default_data();
        }
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        config.checked()
    }
}

/// The user's data folder (XDG base directories); where there is no home, the working folder.
fn default_data() -> PathBuf {
    let base = etcetera::choose_base_strategy();
    base.map_or_else(|_| Config::default().data, |base| base.data_dir().join("lighter-location"))
}

async fn serve(mut config: Config, listen: Option<SocketAddr>, domains: Vec<String>) -> Result<(), Failure> {
    if let Some(listen) = listen {
        config.listen = listen;
    }
    if !domains.is_empty() {
        config.domains = domains;
    }
    let data = config.data.clone();
    let mut server = LocationServer::start(config, CancellationToken::new()).await.map_err(|error| {
        let exit = match &error {
            StartError::Config(_) | StartError::Tls(_) => Exit::WrongUse,
            StartError::Open(OpenError::Engine(EngineError::InUse)) => Exit::TryAgain,
            _ => Exit::Failed,
        };
        Failure::new(exit, error)
    })?;
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, error);
    let stop = lighter_shell::stop::requested().map_err(failed)?;
    let helper = server.helper_addresses().to_vec();
    let addresses = Addresses { http: server.address(), url: server.url(), helper };
    lighter_shell::ready(&data, &addresses).map_err(failed)?;
    tokio::select! {
        () = stop => {}
        () = server.ended() => {}
    }
    server.stop().await;
    Ok(())
}

/// What the server writes down of where it listens.
#[derive(Serialize)]
struct Addresses {
    http: SocketAddr,
    url: String,
    /// Where the helper listens, if there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    helper: Vec<SocketAddr>,
}

/// Where commands go: the server that runs on the data folder, or the opened database.
pub(crate) enum Admin {
    Server(PathBuf),
    Database(std::sync::Arc<Location>),
}

impl Admin {
    /// The database's lock decides: who cannot have it asks who has.
    async fn reach(config: Config) -> Result<Self, Failure> {
        let data = config.data.clone();
        require_folder(&data)?;
        let opened = tokio::task::spawn_blocking(move || Location::open(config)).await;
        match opened.context("opening the database").map_err(|error| Failure::new(Exit::Failed, error))? {
            Ok(location) => Ok(Self::Database(location)),
            Err(OpenError::Engine(EngineError::InUse)) => Ok(Self::Server(data)),
            Err(error) => Err(Failure::new(Exit::Failed, error)),
        }
    }

    /// Does what the admin says.
    pub(crate) async fn ask(&self, command: AdminCommand) -> Result<AdminAnswer, Failure> {
        match self {
            Self::Server(data) => control::ask(data, &command).await.map_err(|error| {
                let exit = match &error {
                    ControlError::Refused(_) => Exit::Failed,
                    ControlError::NoServer { .. } | ControlError::Broken(_) => Exit::TryAgain,
                };
                Failure::new(exit, error)
            }),
            Self::Database(location) => location.administer(command, Now::read()).await.map_err(|error| {
                let exit = match &error {
                    CallError::Malformed(_) => Exit::WrongUse,
                    _ => Exit::Failed,
                };
                Failure::new(exit, error)
            }),
        }
    }
}

/// A command must not make a database where the admin mistyped the folder; only its own default place may be new.
fn require_folder(data: &Path) -> Result<(), Failure> {
    if data.is_dir() || data == default_data() {
        return Ok(());
    }
    let missing =
        anyhow::anyhow!("{} is no folder: start the server there first, or name another", data.display());
    Err(Failure::new(Exit::WrongUse, missing))
}

impl From<TokenCommand> for AdminCommand {
    fn from(command: TokenCommand) -> Self {
        match command {
            TokenCommand::Create { name, scopes, days } => Self::TokenCreate {
                name,
                scopes,
                lifetime_s: days.map(|days| u64::from(days) * SECONDS_PER_DAY),
            },
            TokenCommand::List => Self::TokenList,
            TokenCommand::Revoke { id } => Self::TokenRevoke { id },
        }
    }
}

impl From<UserCommand> for AdminCommand {
    fn from(command: UserCommand) -> Self {
        match command {
            UserCommand::Invite { mailbox, days } => {
                Self::UserInvite { mailbox, lifetime_s: Some(u64::from(days) * SECONDS_PER_DAY) }
            }
            UserCommand::List => Self::UserList { from: 0 },
            UserCommand::Confirm { mailbox, peer } => Self::UserConfirm { mailbox, peer },
            UserCommand::Remove { mailbox, peer } => Self::UserRemove { mailbox, peer },
        }
    }
}

impl From<KeyCommand> for AdminCommand {
    fn from(command: KeyCommand) -> Self {
        match command {
            KeyCommand::Announce { days } => {
                Self::KeyAnnounce { overlap_s: days.map(|days| u64::from(days) * SECONDS_PER_DAY) }
            }
            KeyCommand::Show => Self::KeyShow,
        }
    }
}
