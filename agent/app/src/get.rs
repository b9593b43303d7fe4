//! `get`: an attachment from the own store, or else from the mail server by its ticket (SPEC A21 to A24).
//!
//! The order: the store on this machine (the agent that runs, or its folder); the mailbox's store on another machine,
//! looked up, pinged and asked; the relay, by the link in the stub. Whichever it was, the bytes are hashed here before
//! anybody sees them. Where the relay has let go of them, the user is told which store has them.

mod devices;
mod relay;
mod stub;

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use lighter_protocol::limits::BLOB_SIZE_MAX;
use lighter_protocol::{BlobId, DeliveryId, Mailbox};
use lighter_shell::Exit;
use lighter_store::{BlobFiles, Store, StoreError};
use serde::Serialize;

use crate::access::Access;
use crate::agent::Agent;
use crate::cli::GetArgs;
use crate::commands::{print, start};
use crate::config::{Config, Paths};
use crate::control::Client;
use crate::failure::Failure;
use crate::hosted;
use crate::limits::COPY_LEN;
use crate::output::{Target, Unproved};
use crate::restore::read_stub;
use crate::views::{List, size};

pub(crate) use devices::{Places, fetch, places};
use relay::Relay;
use stub::{Attachment, Link};

/// Gets.
///
/// # Errors
/// Where an attachment is nowhere to be had: says where it is, as far as that is known.
pub async fn run(args: GetArgs, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    let what = args.what.clone();
    let wanted = tokio::task::spawn_blocking(move || wanted(&what)).await.map_err(Failure::failed)??;
    let targets = Targets::of(args.output.as_deref(), &wanted)?;
    let mut asker = Asker::open(config, paths, args.mailbox.clone()).await?;
    let got = all(&mut asker, &wanted, &targets).await;
    asker.close().await;
    let got = got?;
    if targets == Targets::Stdout { Ok(Exit::Done) } else { print(&got, is_json) }
}

async fn all(asker: &mut Asker, wanted: &Wanted, targets: &Targets) -> Result<Got, Failure> {
    let attachments: Vec<_> = match wanted {
        Wanted::Blob(blob) => vec![asker.listed(*blob).await?],
        Wanted::Stub(attachments) => attachments.iter().cloned().map(One::from).collect(),
    };
    let mut got = Got { attachments: Vec::new() };
    for one in attachments {
        got.attachments.push(asker.get(one, targets).await?);
    }
    Ok(got)
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Blob(BlobId),
    /// All attachments of a stub.
    Stub(Vec<Attachment>),
}

fn wanted(what: &str) -> Result<Wanted, Failure> {
    if let Ok(blob) = what.parse() {
        return Ok(Wanted::Blob(blob));
    }
    let path = Some(Path::new(what)).filter(|path| *path != Path::new("-"));
    let file = read_stub(path)?;
    let mut reader = BufReader::with_capacity(COPY_LEN, file.take(crate::limits::STUB_LEN_MAX));
    let attachments = stub::attachments(&mut reader)?;
    if attachments.is_empty() {
        return Err(Failure::failed(format!(
            "{what} is neither an attachment's id (64 hexadecimal digits) nor a stub of Lighter's"
        )));
    }
    Ok(Wanted::Stub(attachments))
}

/// Where it all goes.
#[derive(Debug, PartialEq, Eq)]
enum Targets {
    Stdout,
    File(PathBuf),
    /// Under the attachments' own names.
    Folder(PathBuf),
}

impl Targets {
    fn of(output: Option<&Path>, wanted: &Wanted) -> Result<Self, Failure> {
        let Some(path) = output else { return Ok(Self::Folder(PathBuf::from("."))) };
        match (wanted, path == Path::new("-")) {
            (Wanted::Stub(all), true) if all.len() > 1 => Err(Failure::wrong_use(
                "a stub with several attachments goes into a folder, not to standard output",
            )),
            (_, true) => Target::stdout().map(|_| Self::Stdout),
            (Wanted::Stub(_), false) => {
                std::fs::create_dir_all(path).map_err(|error| Failure::failed(error).when(path.display()))?;
                Ok(Self::Folder(path.to_owned()))
            }
            (Wanted::Blob(_), false) if path.is_dir() => Ok(Self::Folder(path.to_owned())),
            (Wanted::Blob(_), false) => Ok(Self::File(path.to_owned())),
        }
    }

    fn target(&self, name: &str) -> Target {
        match self {
            Self::Stdout => Target::Stdout,
            Self::File(path) => Target::File(path.clone()),
            Self::Folder(folder) => Target::Folder(folder.clone(), name.to_owned()),
        }
    }
}

/// One attachment that is looked for.
#[derive(Clone, Debug)]
struct One {
    blob: BlobId,
    /// Its size, where somebody said so.
    size: Option<u64>,
    delivery: Option<DeliveryId>,
    name: Option<String>,
    link: Option<String>,
}

impl From<Attachment> for One {
    fn from(found: Attachment) -> Self {
        let Attachment { delivery, blob, size, link } = found;
        Self { blob, size: Some(size), delivery: Some(delivery), name: None, link }
    }
}

/// Who is asked: the agent that runs, or this process, which becomes one where the network is needed.
enum Who {
    Running(Box<Client>),
    Alone { store: Store, config: Box<Config>, paths: Paths, agent: Option<Agent> },
}

/// Who is asked, and whose mail it is about: none where all that is here is one user's.
struct Asker {
    who: Who,
    of: Option<Mailbox>,
    /// The mailbox is not this agent's own: its user's other stores are for the user's own agents to ask.
    is_others: bool,
}

impl Asker {
    async fn open(config: Config, paths: &Paths, of: Option<Mailbox>) -> Result<Self, Failure> {
        let of = hosted::scope(of, &config);
        let is_others = of.as_ref().is_some_and(|of| *of != config.mailbox);
        let who = match Access::open(&config, paths).await? {
            Access::Running(client) => Who::Running(Box::new(client)),
            Access::Alone(store) => {
                Who::Alone { store, config: Box::new(config), paths: paths.clone(), agent: None }
            }
        };
        Ok(Self { who, of, is_others })
    }

    async fn close(self) {
        if let Who::Alone { agent: Some(agent), .. } = self.who {
            agent.stop().await;
        }
    }

    /// What the own store's list says of a blob.
    async fn listed(&mut self, blob: BlobId) -> Result<One, Failure> {
        let list = self.list().await?;
        let found = list.deliveries.iter().find_map(|delivery| {
            let part = delivery.parts.iter().find(|part| part.id == blob)?;
            Some((delivery.delivery, part))
        });
        Ok(One {
            blob,
            size: found.map(|(_, part)| part.size),
            delivery: found.map(|(delivery, _)| delivery),
            name: found.map(|(_, part)| part.name.clone()),
            link: None,
        })
    }

    async fn list(&mut self) -> Result<List, Failure> {
        match &mut self.who {
            Who::Running(client) => client.list(self.of.clone()).await,
            Who::Alone { store, .. } => Ok(List::of(store, self.of.as_ref())?),
        }
    }

    /// Where a blob lies that is complete in the store on this machine.
    async fn here(&mut self, blob: BlobId) -> Result<Option<BlobFiles>, Failure> {
        // What is here for somebody else is not here for this one.
        if self.of.is_some() && !self.list().await?.blobs.iter().any(|listed| listed.id == blob) {
            return Ok(None);
        }
        match &mut self.who {
            Who::Running(client) => client.blob(blob).await,
            Who::Alone { store, .. } => match store.files_of(blob) {
                Ok(files) => Ok(Some(files)),
                Err(StoreError::NoBlob(_)) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    async fn places(&mut self) -> Result<Places, Failure> {
        match &mut self.who {
            Who::Running(client) => client.places().await,
            Who::Alone { .. } => places(self.agent().await?.shared()).await,
        }
    }

    async fn fetch(&mut self, wish: Wish) -> Result<bool, Failure> {
        match &mut self.who {
            Who::Running(client) => client.fetch(wish).await,
            Who::Alone { .. } => fetch(self.agent().await?.shared(), wish).await,
        }
    }

    async fn agent(&mut self) -> Result<&Agent, Failure> {
        match &mut self.who {
            Who::Alone { agent: Some(agent), .. } => Ok(agent),
            Who::Alone { store, config, paths, agent } => {
                let started = start(Config::clone(config), paths, store.clone()).await?;
                Ok(agent.insert(started))
            }
            Who::Running(_) => Err(Failure::failed("an agent runs already")),
        }
    }

    async fn get(&mut self, mut one: One, targets: &Targets) -> Result<GotOne, Failure> {
        let blob = one.blob;
        if let Some(files) = self.here(blob).await? {
            let name = match &one.name {
                Some(name) => name.clone(),
                None => self.listed(blob).await?.name.unwrap_or_else(|| blob.to_string()),
            };
            match copy(files, blob, targets.target(&name)).await {
                Ok(got) => return Ok(got),
                Err(Copied::Damaged) => tracing::warn!(%blob, "damaged in the own store: asking elsewhere"),
                Err(Copied::Failed(failure)) => return Err(failure),
            }
        }
        let places = self.places().await?;
        let link = one.link.as_deref().and_then(|link| Link::parse(link, &places.retrieval));
        one.name = one.name.or_else(|| link.as_ref()?.name.clone());
        let name = one.name.clone().unwrap_or_else(|| blob.to_string());
        if let (Some(delivery), Some(size), true) =
            (one.delivery, one.size, places.store_answers() && !self.is_others)
            && let Some(got) = self.get_from_store(delivery, blob, size, targets.target(&name)).await?
        {
            return Ok(got);
        }
        let Some(link) = link else { return Err(nowhere(&one, &places)) };
        let size = one.size.unwrap_or(BLOB_SIZE_MAX);
        let relay = Relay::new(&link.url, places.ca_file.as_deref())?;
        let unproved = relay.get(blob, size, &name, targets.target(&name)).await;
        let unproved = unproved.map_err(|missing| missing.told(&places))?;
        publish(unproved, blob, Source::Relay).await
    }

    /// From the mailbox's store on another machine; none where it does not give it.
    async fn get_from_store(
        &mut self,
        delivery: DeliveryId,
        blob: BlobId,
        size: u64,
        target: Target,
    ) -> Result<Option<GotOne>, Failure> {
        let unproved = Unproved::begin(target)?;
        let wish = Wish { delivery, blob, size, into: unproved.path() };
        if !self.fetch(wish).await? {
            return Ok(None);
        }
        let proof = unproved.file().try_clone()?;
        let is_proved =
            tokio::task::spawn_blocking(move || proves(proof, blob)).await.map_err(Failure::failed)??;
        if !is_proved {
            return Ok(None);
        }
        publish(unproved, blob, Source::OtherStore).await.map(Some)
    }
}

/// What the agent is to fetch from the mailbox's store on another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Wish {
    pub(crate) delivery: DeliveryId,
    pub(crate) blob: BlobId,
    pub(crate) size: u64,
    /// A file that is there and empty, of the same user's.
    pub(crate) into: PathBuf,
}

/// Why a blob in the own store did not do.
enum Copied {
    Damaged,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Copied {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Copies out of the own store, hashing what is copied (rule 4).
async fn copy(files: BlobFiles, blob: BlobId, target: Target) -> Result<GotOne, Copied> {
    let copied = tokio::task::spawn_blocking(move || {
        let unproved = Unproved::begin(target)?;
        let mut from = files.open().map_err(|error| Failure::failed(error).when(files.data.display()))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; COPY_LEN];
        loop {
            let len = from.read(&mut buffer).map_err(Failure::from)?;
            if len == 0 {
                break;
            }
            hasher.update(&buffer[..len]);
            unproved.file().write_all(&buffer[..len]).map_err(Failure::from)?;
        }
        if hasher.finalize() == blob.hash() { Ok(unproved) } else { Err(Copied::Damaged) }
    });
    let unproved = copied.await.map_err(Failure::failed)??;
    Ok(publish(unproved, blob, Source::Store).await?)
}

fn proves(mut file: File, blob: BlobId) -> Result<bool, Failure> {
    std::io::Seek::rewind(&mut file)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize() == blob.hash())
}

async fn publish(unproved: Unproved, blob: BlobId, from: Source) -> Result<GotOne, Failure> {
    let published = tokio::task::spawn_blocking(move || {
        let size = unproved.file().metadata()?.len();
        Ok::<_, Failure>((size, unproved.publish()?))
    });
    let (size, path) = published.await.map_err(Failure::failed)??;
    Ok(GotOne { id: blob.to_string(), size, path, from })
}

/// Says where the attachment is, as far as that is known (SPEC A22).
fn nowhere(one: &One, places: &Places) -> Failure {
    let blob = one.blob;
    let elsewhere = places.elsewhere();
    if one.link.is_some() {
        return Failure::failed(format!(
            "attachment {blob} is not in the own store, and the stub's link does not lead to a mail server of your \
             domain: it is not followed. {elsewhere}"
        ));
    }
    if one.delivery.is_none() {
        return Failure::failed(format!(
            "attachment {blob} is not in the own store. Give the message that it belongs to instead of its id: there \
             the mail server's link stands. {elsewhere}"
        ));
    }
    Failure::failed(format!(
        "attachment {blob} is not in the own store yet, and the message has no link to a mail server: it was sent from \
         store to store. {elsewhere}"
    ))
}

/// Where an attachment came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Store,
    OtherStore,
    Relay,
}

/// What `get` did.
#[derive(Clone, Debug, Serialize)]
struct Got {
    attachments: Vec<GotOne>,
}

#[derive(Clone, Debug, Serialize)]
struct GotOne {
    id: String,
    size: u64,
    path: Option<PathBuf>,
    from: Source,
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for got in &self.attachments {
            let from = match got.from {
                Source::Store => "the own store",
                Source::OtherStore => "your store on another machine",
                Source::Relay => "the mail server",
            };
            let path = got.path.as_deref().unwrap_or(Path::new("-"));
            writeln!(f, "{}  {} from {from}, verified", path.display(), size(got.size))?;
        }
        Ok(())
    }
}
