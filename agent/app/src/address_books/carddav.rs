//! Address books on CardDAV servers (RFC 6352), as Nextcloud, Radicale, Fastmail and others have them.
//!
//! ```text
//!   multistatus ── a server's answer → resources: pure
//!   client ─────── one server, asked; the password stays with it
//!   fetch ──────── finds the books, and fetches what has changed
//!   copy ───────── what was fetched, on this machine
//!   password ───── where it is
//! ```
//!
//! Groups are expanded from the copy, never from the server: a message does not wait for it, and goes to the same people
//! whether it is there or not. The running agent keeps the copy fresh; `send` to a group fetches first where the copy is older than
//! that, and goes on with the old one where the server cannot be reached. A book that was never fetched counts as one
//! that could not be read as a whole.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use lighter_protocol::UnixTime;
use lighter_transport::proxy::Proxies;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::book::{Book, Gathering};
use super::card::Flaw;
use super::format;
use crate::carriers;
use crate::config::{Config, Paths};
use crate::failure::Failure;
use crate::limits::{
    CARDDAV_FRESHEN_TIME_MAX, CARDDAV_NAME_LEN_MAX, CARDDAV_PAUSE_MIN, CARDDAV_REFRESH_MINUTES_DEFAULT,
    CARDDAV_REFRESH_MINUTES_MIN, CARDDAV_RETRY, CARDDAV_SERVERS_MAX, CARDDAV_TIME_MAX,
};
use crate::shared::Handle;

mod client;
mod copy;
mod fetch;
pub mod multistatus;
mod password;

pub use client::CardDavError;
use client::Client;
use copy::{Copy, Failed, Place};
use fetch::{Fetched, fetch};

/// A CardDAV server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardDavConfig {
    /// What it is called here: letters, digits, `-` and `_`, at most [`CARDDAV_NAME_LEN_MAX`].
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The server (`https://dav.example.org`): all of the user's address books are fetched then; or one address book.
    pub url: String,
    /// The user's name there.
    pub username: String,
    /// A file with the password, which only its owner can read. Absent: `lighter-agent carddav login` keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Minutes after which it is asked again what has changed; at least [`CARDDAV_REFRESH_MINUTES_MIN`].
    #[serde(default = "refresh_minutes_default", deserialize_with = "refresh_minutes")]
    pub refresh_minutes: u32,
}

/// It names files.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_usual = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if !name.is_empty() && name.len() <= CARDDAV_NAME_LEN_MAX && name.chars().all(is_usual) {
        return Ok(name);
    }
    let why = format!("name is 1 to {CARDDAV_NAME_LEN_MAX} letters, digits, - and _, not “{name}”");
    Err(serde::de::Error::custom(why))
}

fn refresh_minutes_default() -> u32 {
    CARDDAV_REFRESH_MINUTES_DEFAULT
}

fn refresh_minutes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let minutes = u32::deserialize(deserializer)?;
    if minutes >= CARDDAV_REFRESH_MINUTES_MIN {
        return Ok(minutes);
    }
    let why = format!("refresh_minutes is at least {CARDDAV_REFRESH_MINUTES_MIN}, not {minutes}");
    Err(serde::de::Error::custom(why))
}

/// The servers in the configuration; an error where there are too many, or two of one name, which would share a copy.
pub(crate) fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CardDavConfig>, D::Error> {
    let servers = Vec::<CardDavConfig>::deserialize(deserializer)?;
    if servers.len() > CARDDAV_SERVERS_MAX {
        return Err(serde::de::Error::custom(format!("more than {CARDDAV_SERVERS_MAX} CardDAV servers")));
    }
    for (at, server) in servers.iter().enumerate() {
        // File systems may not tell capitals apart.
        if servers.iter().take(at).any(|other| other.name.eq_ignore_ascii_case(&server.name)) {
            return Err(serde::de::Error::custom(format!(
                "two CardDAV servers are called “{}”",
                server.name
            )));
        }
    }
    Ok(servers)
}

impl CardDavConfig {
    fn place(&self, paths: &Paths) -> Place {
        Place::new(&paths.carddav(), &self.name)
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.refresh_minutes) * 60)
    }

    /// When the copy is due: an interval after it was fetched, or a little after a fetch has failed. Whatever a clock that
    /// was set back says, one interval is the longest.
    fn due(&self, copy: &Copy, now: UnixTime) -> Duration {
        let after = |since: Option<UnixTime>, interval: Duration| {
            since.map_or(Duration::ZERO, |since| interval.saturating_sub(now.since(since)))
        };
        match &copy.failed {
            Some(failed) => after(Some(failed.at), CARDDAV_RETRY.min(self.interval())),
            None => after(copy.fetched, self.interval()),
        }
    }

    /// Fetches what has changed, and says in the copy what came of it.
    async fn refresh(
        &self,
        config: &Config,
        paths: &Paths,
        given: Option<&Zeroizing<String>>,
        within: Duration,
    ) -> Result<(Fetched, Copy), CardDavError> {
        let place = self.place(paths);
        let mut copy = self.read(paths).await;
        let fetching = async {
            let password = match given {
                Some(password) => password.clone(),
                None => password::load(self, &place, paths, &config.key).await?,
            };
            let ca_file = self.ca_file.as_ref().map(|path| paths.beside_config(path));
            let proxies = carriers::proxies(config).unwrap_or_else(|_| Proxies::of_environment());
            let client =
                Client::new(&self.name, &self.url, ca_file.as_deref(), &proxies, &self.username, &password)?;
            fetch(&client, &mut copy).await
        };
        let fetched = timeout(within, fetching).await.unwrap_or(Err(CardDavError::TooSlow(within)));
        let now = UnixTime::now();
        match &fetched {
            Ok(_) => (copy.fetched, copy.failed) = (Some(now), None),
            Err(error) => copy.failed = Some(Failed { at: now, why: error.to_string() }),
        }
        let path = place.path().display().to_string();
        let written = spawn_blocking(move || place.write(&copy).map(|()| copy)).await;
        let fetched = fetched?;
        let written = written.unwrap_or_else(|ended| Err(std::io::Error::other(ended)));
        Ok((fetched, written.map_err(|source| CardDavError::Copy { path, source })?))
    }

    /// The copy, read on a thread where that may take its time.
    async fn read(&self, paths: &Paths) -> Copy {
        let (place, url, username) = (self.place(paths), self.url.clone(), self.username.clone());
        spawn_blocking(move || place.read(&url, &username)).await.unwrap_or_default()
    }

    /// The address books as they were last fetched. Blocks on the disk.
    fn books(&self, paths: &Paths, room: &mut u64) -> Vec<Book> {
        let place = self.place(paths);
        let copy = place.read(&self.url, &self.username);
        let old = || {
            let failed = copy.failed.as_ref()?;
            Some(Flaw::NotFetchedSince { since: copy.fetched?, why: failed.why.clone() })
        };
        if copy.fetched.is_none() {
            let why = copy.failed.as_ref().map_or_else(
                || format!("run `lighter-agent carddav refresh {}`", self.name),
                |failed| failed.why.clone(),
            );
            return vec![self.flawed(Flaw::NotFetched(why))];
        }
        let mut books = Vec::new();
        for (uri, book) in &copy.books {
            let mut gathering = Gathering::new(book.name.clone(), PathBuf::from(uri));
            for (path, card) in &book.cards {
                let Some(left) = room.checked_sub(card.text.len() as u64) else {
                    gathering.flaw(Path::new(uri), Flaw::AllTooLarge);
                    break;
                };
                *room = left;
                gathering.add(Path::new(path), format::parse("card.vcf", card.text.as_bytes()));
            }
            if let Some(flaw) = old() {
                gathering.flaw(Path::new(uri), flaw);
            }
            books.push(gathering.finish());
        }
        books
    }

    /// No book, and what is wrong.
    fn flawed(&self, flaw: Flaw) -> Book {
        let mut gathering = Gathering::new(self.name.clone(), PathBuf::from(&self.url));
        gathering.flaw(Path::new(&self.url), flaw);
        gathering.finish()
    }
}

/// The address books of all servers, as they were last fetched, of at most `room` bytes. Blocks on the disk.
pub(super) fn books(config: &Config, paths: &Paths, room: &mut u64) -> Vec<Book> {
    let servers = &config.address_books.carddav;
    servers.iter().flat_map(|server| server.books(paths, room)).collect()
}

/// Fetches what is older than the configuration wants it, before groups are expanded. What fails is said in the books.
pub(crate) async fn freshen(config: &Config, paths: &Paths) {
    let servers = &config.address_books.carddav;
    join_all(servers.iter().map(|server| freshen_one(server, config, paths, CARDDAV_FRESHEN_TIME_MAX))).await;
}

/// The same for one server. Gives when it is due again.
async fn freshen_one(server: &CardDavConfig, config: &Config, paths: &Paths, within: Duration) -> Duration {
    let copy = server.read(paths).await;
    let due = server.due(&copy, UnixTime::now());
    if !due.is_zero() {
        return due;
    }
    // Where somebody else fetches, it is as fresh as it will be in a moment.
    let Ok(Some(_turn)) = server.place(paths).try_turn() else { return CARDDAV_RETRY };
    match server.refresh(config, paths, None, within).await {
        Ok(_) => server.interval(),
        Err(error) => {
            tracing::info!(server = server.name, %error, "address books stay as they are");
            CARDDAV_RETRY.min(server.interval())
        }
    }
}

/// Keeps the copies fresh, as long as the agent runs.
pub(crate) async fn run(shared: Handle, paths: Paths) {
    let config = &shared.config;
    if config.address_books.carddav.is_empty() {
        return;
    }
    let servers = &config.address_books.carddav;
    loop {
        let freshening = servers.iter().map(|server| freshen_one(server, config, &paths, CARDDAV_TIME_MAX));
        tokio::select! {
            due = join_all(freshening) => {
                let next = due.into_iter().min().unwrap_or(CARDDAV_RETRY).max(CARDDAV_PAUSE_MIN);
                tokio::select! {
                    () = sleep(next) => {}
                    () = shared.stop.cancelled() => return,
                }
            }
            () = shared.stop.cancelled() => return,
        }
    }
}

/// What `carddav refresh` and `carddav login` show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CardDavView {
    servers: Vec<ServerView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ServerView {
    name: String,
    url: String,
    /// When all of it was last known to be as on the server.
    fetched: Option<UnixTime>,
    /// What this fetch brought.
    changed: usize,
    removed: usize,
    books: Vec<BookView>,
    /// Why this fetch failed.
    problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BookView {
    name: String,
    url: String,
    cards: usize,
}

impl fmt::Display for CardDavView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        for server in &self.servers {
            writeln!(f, "{}  {}", server.name, server.url)?;
            match &server.problem {
                Some(problem) => writeln!(f, "    problem: {}", one_line(problem))?,
                None => {
                    writeln!(f, "    {} cards new or changed, {} removed", server.changed, server.removed)?;
                }
            }
            for book in &server.books {
                writeln!(f, "    {}  {} cards", one_line(&book.name), book.cards)?;
            }
        }
        Ok(())
    }
}

/// Fetches what has changed, from all servers or the one of that name, however fresh the copy is. The failure, where a
/// fetch failed, comes beside what is to be shown.
///
/// # Errors
/// Where there is no such server.
pub(crate) async fn refresh(
    config: &Config,
    paths: &Paths,
    name: Option<&str>,
) -> Result<(CardDavView, Option<Failure>), Failure> {
    let servers: Vec<_> = match name {
        Some(name) => vec![called(config, name)?],
        None => config.address_books.carddav.iter().collect(),
    };
    if servers.is_empty() {
        return Err(Failure::wrong_use(
            "no CardDAV server is set: see [[address_books.carddav]] in the manual",
        ));
    }
    let mut views = Vec::new();
    let mut failure: Option<Failure> = None;
    for server in servers {
        let place = server.place(paths);
        let waiting = place.clone();
        let turn = spawn_blocking(move || waiting.turn()).await.map_err(Failure::failed)?;
        let _turn = turn.map_err(|error| Failure::failed(error).when(place.path().display()))?;
        let refreshed = server.refresh(config, paths, None, CARDDAV_TIME_MAX).await;
        if let Err(error) = &refreshed {
            failure = failure.or_else(|| Some(said(server, error)));
        }
        views.push(view(server, paths, refreshed).await);
    }
    Ok((CardDavView { servers: views }, failure))
}

/// Tries a password with the server of that name, and keeps it where it is right.
///
/// # Errors
/// Where there is no such server, or it is not right, or cannot be tried or kept.
pub(crate) async fn login(
    config: &Config,
    paths: &Paths,
    name: &str,
    password: Zeroizing<String>,
) -> Result<CardDavView, Failure> {
    let server = called(config, name)?;
    if let Some(path) = &server.password_file {
        let path = path.display();
        return Err(Failure::wrong_use(format!(
            "the password for “{name}” is in {path}: `password_file` says so"
        )));
    }
    let place = server.place(paths);
    let waiting = place.clone();
    let turn = spawn_blocking(move || waiting.turn()).await.map_err(Failure::failed)?;
    let _turn = turn.map_err(|error| Failure::failed(error).when(place.path().display()))?;
    let refreshed = match server.refresh(config, paths, Some(&password), CARDDAV_TIME_MAX).await {
        Ok(refreshed) => refreshed,
        Err(CardDavError::Refused(_)) => {
            return Err(Failure::failed(format!("{} refuses that name and password", server.url)));
        }
        Err(error) => return Err(said(server, &error)),
    };
    let kept = password::keep(server, &place, &config.key, &password).await;
    let kept = kept.map_err(|error| Failure::failed(error).when(place.password().display()))?;
    tracing::info!(?kept, "the password is kept");
    Ok(CardDavView { servers: vec![view(server, paths, Ok(refreshed)).await] })
}

fn called<'a>(config: &'a Config, name: &str) -> Result<&'a CardDavConfig, Failure> {
    let servers = &config.address_books.carddav;
    servers.iter().find(|server| server.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        let known = if names.is_empty() {
            "none is set".to_owned()
        } else {
            format!("there are: {}", names.join(", "))
        };
        Failure::wrong_use(format!("no CardDAV server is called “{name}” ({known})"))
    })
}

fn said(server: &CardDavConfig, error: &CardDavError) -> Failure {
    let failure = if error.is_temporary() { Failure::temporary(error) } else { Failure::failed(error) };
    failure.when(&server.name)
}

async fn view(
    server: &CardDavConfig,
    paths: &Paths,
    refreshed: Result<(Fetched, Copy), CardDavError>,
) -> ServerView {
    let (fetched, copy, problem) = match refreshed {
        Ok((fetched, copy)) => (fetched, copy, None),
        Err(error) => (Fetched::default(), server.read(paths).await, Some(error.to_string())),
    };
    let books = copy.books.iter().map(|(url, book)| BookView {
        name: book.name.clone(),
        url: url.clone(),
        cards: book.cards.len(),
    });
    ServerView {
        name: server.name.clone(),
        url: server.url.clone(),
        fetched: copy.fetched,
        changed: fetched.changed,
        removed: fetched.removed,
        books: books.collect(),
        problem,
    }
}

#[cfg(test)]
mod tests;
