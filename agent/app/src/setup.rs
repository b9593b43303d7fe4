//! `setup`: a key, the enrolment, the configuration file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use lighter_protocol::{Mailbox, Registration, Signed, UnixTime};
use lighter_store::{OpenError, Store};
use lighter_transport::Identity;
use lighter_transport::location::{FindingConfig, LocationClient, LocationError, Secret};
use rand::RngExt;
use serde::Serialize;

use crate::config::{
    AddressBooksConfig, Config, KeyConfig, LocationConfig, OutboxConfig, Paths, QuicConfig, SendConfig,
    SmtpConfig, StoreConfig, SubmissionConfig,
};
use crate::drops;
use crate::failure::Failure;
use crate::key;
use crate::limits::REGISTRATION_LIFE;
use crate::registration::SEQUENCE;
use crate::submission;

/// What `setup` is told.
#[derive(Clone, Debug)]
pub struct SetupRequest {
    /// Whose agent it will be.
    pub mailbox: Mailbox,
    /// The location server.
    pub location: String,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The admin's single-use token.
    pub token: Secret,
    /// Where `send` hands mail to.
    pub smtp: Option<String>,
    /// Where mail clients of this machine send through; absent: as it was.
    pub submission: Option<SocketAddr>,
    /// Keep the key in a file even where there is a keyring.
    pub key_file: bool,
}

/// What `setup` did.
#[derive(Clone, Debug, Serialize)]
pub struct SetupReport {
    mailbox: Mailbox,
    peer: String,
    /// `keyring` or `file`.
    key: &'static str,
    primary: bool,
    /// Until when a further store waits to be attested (Unix seconds).
    pending_until: Option<u64>,
    config: PathBuf,
    data: PathBuf,
    /// Whether attachments wait for this store already, before its first run.
    awaited: bool,
}

/// Enrols, and writes the configuration.
///
/// # Errors
/// Where the location server refuses or cannot be reached; then nothing was written but the key.
pub async fn run(request: SetupRequest, paths: &Paths) -> Result<SetupReport, Failure> {
    let client =
        LocationClient::new(&request.location, request.ca_file.as_deref()).map_err(Failure::wrong_use)?;
    if let Some(listen) = request.submission {
        submission::check(listen, request.smtp.is_some() || smtp_is_known(paths))?;
    }
    paths.make_data()?;
    // An agent that was set up already keeps its key: the store's receipts are signed with it.
    let known = Config::read(&paths.config).ok().filter(|config| config.mailbox == request.mailbox);
    let (identity, key) = match &known {
        Some(config) => (key::load(&config.key, paths).await?, config.key.clone()),
        None => {
            // Unique for each setup: two agents of one user, on one desktop, do not share an entry.
            let entry = format!("{} {:08x}", request.mailbox, rand::rng().random::<u32>());
            key::create(entry, paths, !request.key_file).await?
        }
    };
    let enrolled = client.enrol(identity.keypair(), &request.token, &request.mailbox).await;
    let enrolled = enrolled.map_err(|error| match error {
        LocationError::Refused | LocationError::Unauthorised => Failure::failed(
            "the location server refused: the token is wrong, used, expired, or for another mailbox",
        ),
        error => Failure::from(error),
    })?;
    let config = Config {
        location: LocationConfig {
            url: client.url().to_owned(),
            peer: enrolled.location,
            ca_file: request.ca_file,
        },
        finding: known.as_ref().map_or_else(FindingConfig::default, |known| known.finding.clone()),
        key: key.clone(),
        smtp: match (request.smtp, &known) {
            // The same server again keeps what was set by hand.
            (Some(server), Some(Config { smtp: Some(smtp), .. })) if smtp.server == server => {
                Some(smtp.clone())
            }
            (Some(server), _) => Some(SmtpConfig::new(server)),
            (None, Some(known)) => known.smtp.clone(),
            (None, None) => None,
        },
        submission: SubmissionConfig {
            listen: request.submission.or(known.as_ref().and_then(|known| known.submission.listen)),
            senders: known.as_ref().map_or_else(Vec::new, |known| known.submission.senders.clone()),
        },
        outgoing: known.as_ref().map(|known| known.outgoing.clone()).unwrap_or_default(),
        hosted: known.as_ref().and_then(|known| known.hosted.clone()),
        quic: known.as_ref().map_or_else(|| default_quic(&request.location), |known| known.quic.clone()),
        network: known.as_ref().map(|known| known.network.clone()).unwrap_or_default(),
        send: known.as_ref().map_or_else(SendConfig::default, |known| known.send.clone()),
        outbox: known.as_ref().map_or_else(OutboxConfig::default, |known| known.outbox.clone()),
        store: known.as_ref().map_or_else(StoreConfig::default, |known| known.store),
        guest: known.as_ref().map(|known| known.guest.clone()).unwrap_or_default(),
        address_books: known.map_or_else(AddressBooksConfig::default, |known| known.address_books),
        mailbox: request.mailbox,
    };
    config.write(&paths.config)?;
    let awaited = announce(&client, &identity, &config, paths).await?;
    Ok(SetupReport {
        mailbox: config.mailbox,
        peer: identity.peer().to_string(),
        key: match key {
            KeyConfig::File => "file",
            KeyConfig::Keyring { .. } => "keyring",
        },
        primary: enrolled.primary,
        pending_until: enrolled.pending_until.map(|time| time.0),
        config: paths.config.clone(),
        data: paths.data.clone(),
        awaited,
    })
}

fn smtp_is_known(paths: &Paths) -> bool {
    Config::read(&paths.config).is_ok_and(|config| config.smtp.is_some())
}

/// Registers once, without an address, and says offline: from now on attachments wait for this store, also before it
/// runs for the first time. False where that has to wait for the first run (which does it again in any case).
async fn announce(
    client: &LocationClient,
    identity: &Identity,
    config: &Config,
    paths: &Paths,
) -> Result<bool, Failure> {
    let (folder, settings) = (paths.store(), config.store.settings());
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder, settings)).await;
    let store = match opened.map_err(Failure::failed)? {
        Ok(store) => store,
        Err(OpenError::InUse) => return Ok(false), // by an agent that runs, and is registered
        Err(error) => return Err(error.into()),
    };
    let mut floor = 1;
    loop {
        let sequence = store.next_number(SEQUENCE, floor).map_err(Failure::failed)?;
        let registration = Registration {
            mailbox: config.mailbox.clone(),
            peer: identity.peer(),
            addresses: Vec::new(),
            sequence,
            expires: UnixTime::now().plus(REGISTRATION_LIFE),
        };
        let signed = Signed::sign(&registration, identity.keypair()).map_err(Failure::failed)?;
        let sealing_key = drops::sealing_key(identity, &config.mailbox);
        match client.register_sealed(&signed, sealing_key.as_ref()).await {
            Ok(answer) => {
                // What is not said is noticed by the missing pings.
                let _ = client.offline(&answer.session).await;
                return Ok(true);
            }
            Err(LocationError::Stale { sequence: known }) if known >= floor => {
                floor = known.saturating_add(1);
            }
            Err(error) => {
                tracing::warn!(%error, "not registered yet");
                return Ok(false);
            }
        }
    }
}

/// Everything on one machine stays on it: with the location server on loopback, so does the endpoint.
fn default_quic(location: &str) -> QuicConfig {
    let host = location.split_once("://").map_or(location, |(_, rest)| rest);
    let is_local = host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]");
    if is_local {
        QuicConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..QuicConfig::default() }
    } else {
        QuicConfig::default()
    }
}

impl std::fmt::Display for SetupReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} is enrolled with key {}.", self.mailbox, self.peer)?;
        match self.key {
            "keyring" => writeln!(f, "The key is in your keyring.")?,
            _ => writeln!(
                f,
                "There is no keyring (or none was wanted): the key is in {}, a file that only you can read.",
                self.data.join("key").display()
            )?,
        }
        if self.pending_until.is_some() {
            writeln!(
                f,
                "It is a further store of this mailbox, and waits for 24 hours; on one that is there already,\n\
                 `lighter-agent confirm {}` has it begin at once.",
                self.peer
            )?;
        }
        if self.awaited {
            writeln!(f, "Attachments wait for it from now on.")?;
        }
        writeln!(f, "The configuration is in {}.", self.config.display())?;
        writeln!(
            f,
            "\nNext: `lighter-agent run`, and leave it running. `lighter-agent status` shows how it is."
        )
    }
}
