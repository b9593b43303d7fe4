//! `restore`: from a stub to the original, byte for byte (SPEC D1).
//!
//! A stub is not to be believed by itself (DESIGN §4): out of the own store, only a delivery is restored that the store
//! lists, with the blobs that it lists for it. A folder of blobs (`--blobs`) is the user's word that they may be used.
//! Where a server on the way re-wrote the stub, the manifest restores it, behind what servers added above.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use lighter_message::drive::{self, DriveError};
use lighter_message::{FromStub, MessageField};
use lighter_protocol::{BlobId, DeliveryId, Mailbox};
use lighter_shell::Exit;
use lighter_store::{BlobFiles, Incoming};

use crate::access::Access;
use crate::cli::RestoreArgs;
use crate::config::{Config, ConfigError, Paths};
use crate::failure::Failure;
use crate::hosted;
use crate::limits::{COPY_LEN, STUB_LEN_MAX};
use crate::output::{Target, Unproved, unnamed_file};

/// Where a delivery's manifest and blobs are.
#[derive(Debug)]
enum Source {
    /// Files named by their ids, and `DELIVERY.manifest`.
    Folder(PathBuf),
    /// The store's own files: the manifest, and the delivery's blobs.
    Store { manifest: Option<BlobFiles>, blobs: Vec<(BlobId, BlobFiles)> },
}

/// Restores a stub to standard output or a file.
///
/// # Errors
/// Where the stub cannot be read, is none, or a part of it is not here.
pub async fn run(args: RestoreArgs, paths: Result<Paths, ConfigError>) -> Result<Exit, Failure> {
    let target = args.output.as_deref().map_or_else(Target::stdout, Target::of)?;
    let of = args.mailbox.clone();
    let stub = args.stub.filter(|path| path != Path::new("-"));
    let stub =
        tokio::task::spawn_blocking(move || read_stub(stub.as_deref())).await.map_err(Failure::failed)??;
    let source = match args.blobs {
        Some(folder) => Source::Folder(folder),
        None => {
            let field = tokio::task::spawn_blocking({
                let stub = stub.try_clone()?;
                move || field_of(stub)
            });
            match field.await.map_err(Failure::failed)?? {
                Some(field) => find(&paths?, field.delivery, of).await?,
                // Nothing to look for: it comes out as it went in.
                None => Source::Store { manifest: None, blobs: Vec::new() },
            }
        }
    };
    tokio::task::spawn_blocking(move || write(stub, &source, target)).await.map_err(Failure::failed)?
}

/// The stub in a file that can be read twice: standard input is copied to an unnamed one.
pub(crate) fn read_stub(path: Option<&Path>) -> Result<File, Failure> {
    if let Some(path) = path {
        return File::open(path).map_err(|error| Failure::failed(error).when(path.display()));
    }
    let mut file = unnamed_file()?;
    let copied = io::copy(&mut io::stdin().lock().take(STUB_LEN_MAX + 1), &mut file)?;
    if copied > STUB_LEN_MAX {
        return Err(Failure::failed("this is no stub: too long"));
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// What the stub says it is; none where it is no stub.
fn field_of(mut stub: File) -> Result<Option<MessageField>, Failure> {
    stub.seek(SeekFrom::Start(0))?;
    let mut restorer = lighter_message::Restorer::new();
    let mut buffer = vec![0; COPY_LEN];
    let field = loop {
        let len = stub.read(&mut buffer)?;
        if len == 0 {
            restorer.finish();
        } else {
            restorer.push(&buffer[..len]);
        }
        let event = restorer.poll_event();
        if let Some(field) = restorer.field() {
            break Some(*field);
        }
        if event.is_some() || len == 0 {
            break None;
        }
    };
    stub.seek(SeekFrom::Start(0))?;
    Ok(field)
}

/// The delivery's files in the own store.
async fn find(paths: &Paths, delivery: DeliveryId, of: Option<Mailbox>) -> Result<Source, Failure> {
    let config = Config::read(&paths.config)?;
    // A stub is not to be believed about whose it is.
    let of = hosted::scope(of, &config);
    let unknown =
        || Failure::failed(format!("delivery {delivery} is not in the own store: nothing of it is restored"));
    let mut files = Vec::new();
    let manifest = match Access::open(&config, paths).await? {
        Access::Running(mut client) => {
            let (manifest, blobs) = client.delivery(delivery, of).await?.ok_or_else(unknown)?;
            for blob in blobs {
                if let Some(found) = client.blob(blob).await? {
                    files.push((blob, found));
                }
            }
            client.blob(manifest).await?
        }
        Access::Alone(store) => {
            let incoming = store.incoming(delivery)?;
            let is_meant = |incoming: &Incoming| of.is_none_or(|of| incoming.mailbox == of);
            let incoming = incoming.filter(is_meant).ok_or_else(unknown)?;
            let find = |blob| store.files_of(blob).ok();
            files.extend(incoming.blobs.iter().filter_map(|blob| Some((blob.id, find(blob.id)?))));
            find(incoming.manifest.id)
        }
    };
    Ok(Source::Store { manifest, blobs: files })
}

impl Source {
    fn blob(&self, id: BlobId) -> io::Result<Box<dyn Read>> {
        let told = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => missing(id),
                kind => io::Error::new(kind, format!("{}: {error}", path.display())),
            }
        };
        match self {
            Self::Folder(folder) => {
                let path = folder.join(id.to_string());
                buffered(File::open(&path).map_err(told(&path))?)
            }
            Self::Store { blobs, .. } => {
                let (_, files) = blobs.iter().find(|(blob, _)| *blob == id).ok_or_else(|| missing(id))?;
                buffered(files.open().map_err(told(&files.data))?)
            }
        }
    }

    fn manifest(&self, delivery: DeliveryId) -> Option<Box<dyn Read>> {
        match self {
            Self::Folder(folder) => {
                buffered(File::open(folder.join(format!("{delivery}.manifest"))).ok()?).ok()
            }
            Self::Store { manifest, .. } => buffered(manifest.as_ref()?.open().ok()?).ok(),
        }
    }
}

fn buffered(file: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    Ok(Box::new(BufReader::with_capacity(COPY_LEN, file)))
}

fn missing(id: BlobId) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("attachment {id} is not here: `lighter-agent get` may find it"),
    )
}

/// Restores into a file that nobody sees, and gives it out only when it is proved (rule 4).
fn write(mut stub: File, source: &Source, target: Target) -> Result<Exit, Failure> {
    let unproved = Unproved::begin(target)?;
    if restored(&mut stub, source, unproved.file())? == Outcome::NotAStub {
        tracing::warn!("this is no stub of Lighter's: it is given out as it is");
    }
    unproved.publish()?;
    Ok(Exit::Done)
}

/// How a message came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    FromStub,
    FromManifest,
    NotAStub,
}

fn restored(stub: &mut File, source: &Source, mut proved: &File) -> Result<Outcome, Failure> {
    let mut open = |id| source.blob(id);
    let mut writer = BufWriter::with_capacity(COPY_LEN, proved);
    let outcome = drive::restore(&mut BufReader::with_capacity(COPY_LEN, stub), &mut open, &mut writer);
    writer.flush()?;
    drop(writer);
    let (field, above) = match outcome {
        Ok(FromStub::Verified(_)) => return Ok(Outcome::FromStub),
        Ok(FromStub::NotAStub) => return Ok(Outcome::NotAStub),
        Ok(FromStub::Mismatch { field, above }) => (field, above),
        Err(error) => return Err(told(error)),
    };
    let Some(manifest) = source.manifest(field.delivery) else {
        return Err(Failure::failed(
            "the stub was changed on its way, and the manifest is not here: the original cannot be proved",
        ));
    };
    proved.set_len(0)?;
    proved.seek(SeekFrom::Start(0))?;
    let mut writer = BufWriter::with_capacity(COPY_LEN, proved);
    writer.write_all(&above)?;
    let outcome =
        drive::write_original(&mut BufReader::new(manifest), &mut open, &mut writer).map_err(told)?;
    writer.flush()?;
    match outcome {
        lighter_message::FromManifest::Verified(totals) if totals == field.totals => {
            Ok(Outcome::FromManifest)
        }
        _ => {
            Err(Failure::failed("neither the stub nor the manifest gives the original: something is damaged"))
        }
    }
}

fn told(error: DriveError) -> Failure {
    Failure::failed(error)
}
