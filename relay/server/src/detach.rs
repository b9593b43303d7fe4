//! `lighter-relay detach`: the message format from a shell, no server needed.
//!
//! The original comes on standard input; its attachments go into a folder, each in a file named by its BLAKE3 hash,
//! with the manifest beside them in `DELIVERY.manifest`; the stub goes to standard output. `lighter-agent restore
//! --blobs DIR` undoes it. Where nothing may be taken out, the message goes out unchanged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use lighter_message::drive::{self, BlobSink, DriveError};
use lighter_message::{Policy, StubContext};
use lighter_protocol::{BlobId, DeliveryId};
use rand::RngExt;

use crate::cli::Detach;
use crate::commands::CommandError;

/// Detaches the message on standard input.
pub(crate) fn run(options: &Detach) -> Result<(), CommandError> {
    let failed = |error: DriveError| CommandError::failed("detaching", error);
    let in_folder = |error: io::Error| CommandError::failed(options.blobs.display().to_string(), error);
    fs::create_dir_all(&options.blobs).map_err(in_folder)?;
    let delivery = DeliveryId(rand::rng().random());
    let min_size = usize::try_from(options.min_size).unwrap_or(usize::MAX);
    let base = if options.everything { Policy::everything() } else { Policy::default() };
    let policy = Policy { min_size, ..base };

    let mut blobs = BlobFolder::new(&options.blobs, &delivery);
    let path = options.blobs.join(format!("{delivery}.manifest"));
    let mut manifest = BufWriter::new(create(&path).map_err(in_folder)?);
    let summary =
        drive::detach(policy, &mut io::stdin().lock(), &mut manifest, &mut blobs).map_err(failed)?;
    let mut manifest = manifest.into_inner().map_err(|error| in_folder(error.into_error()))?;
    manifest.sync_all().and_then(|()| manifest.seek(SeekFrom::Start(0)).map(drop)).map_err(in_folder)?;
    File::open(&options.blobs).and_then(|folder| folder.sync_all()).map_err(in_folder)?;

    // The attachments are safe: now, and not before, a message without them may go out.
    let context = StubContext { delivery, landing: None, expires: None };
    let mut stub = BufWriter::new(io::stdout().lock());
    drive::write_stub(&mut BufReader::new(manifest), context, summary.totals, &mut stub).map_err(failed)?;
    stub.flush().map_err(|error| CommandError::failed("writing standard output", error))?;
    if summary.parts.is_empty() {
        fs::remove_file(&path).map_err(in_folder)?;
    }
    Ok(())
}

/// A folder with a file for each blob. The one that is open has a name of its own until its hash is known.
struct BlobFolder {
    folder: PathBuf,
    open_path: PathBuf,
    open: Option<BufWriter<File>>,
}

impl BlobFolder {
    fn new(folder: &Path, delivery: &DeliveryId) -> Self {
        let open_path = folder.join(format!("{delivery}.part"));
        Self { folder: folder.to_owned(), open_path, open: None }
    }
}

impl BlobSink for BlobFolder {
    fn start(&mut self) -> io::Result<()> {
        self.open = Some(BufWriter::new(create(&self.open_path)?));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().ok_or(io::ErrorKind::NotFound)?.write_all(bytes)
    }

    fn restart(&mut self) -> io::Result<Box<dyn Read>> {
        let orphan = self
            .open
            .take()
            .ok_or(io::ErrorKind::NotFound)?
            .into_inner()
            .map_err(|error| error.into_error())?;
        let mut orphan = orphan;
        orphan.seek(SeekFrom::Start(0))?;
        // Still open, it is read to its end; its name goes to its successor.
        fs::remove_file(&self.open_path)?;
        self.start()?;
        Ok(Box::new(BufReader::new(orphan)))
    }

    fn end(&mut self, id: BlobId, _size: u64) -> io::Result<()> {
        let file = self
            .open
            .take()
            .ok_or(io::ErrorKind::NotFound)?
            .into_inner()
            .map_err(|error| error.into_error())?;
        file.sync_all()?;
        fs::rename(&self.open_path, self.folder.join(id.to_string()))
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}
