//! Who has the blob: serves it from a store's files, as agents do.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use bao_tree::io::outboard::PreOrderOutboard;
use lighter_protocol::blob::tree;
use lighter_protocol::wire::{Get, GetBlobs, OfferedBlob, Request, Response};
use lighter_protocol::{BlobId, PeerId, UnixTime};
use lighter_store::{Hold, Settings, Store};
use lighter_transport::serve::FileSlices;
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity, Responder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use crate::settings::MIB;

/// What is pulled beside the blobs.
pub(super) const MANIFEST: &[u8] = b"what the message is made of";
/// Receipts that nobody has looked at yet.
const RECEIPTS_MAX: usize = 1024;

/// What is held: one large blob or many small ones, and a manifest beside them.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    store: Store,
    /// Keeps both, as long as this is.
    _hold: Arc<Hold>,
    /// Never empty; all of the same size.
    pub(super) blobs: Vec<BlobId>,
    pub(super) size: u64,
    pub(super) manifest: OfferedBlob,
}

impl Contents {
    /// Fills a new store with `count` blobs of `size` bytes each; where they are more than a block, of whole blocks.
    pub(super) fn make(folder: &Path, count: u32, size: u64) -> Result<Self> {
        let store = Store::open(&folder.join("held"), Settings::default())?;
        let hold = store.hold();
        let mut chance = StdRng::seed_from_u64(1);
        let mut block = vec![0; usize::try_from(size.min(MIB))?];
        let mut blobs = Vec::new();
        for _ in 0..count {
            let mut import = store.import()?;
            for _ in 0..size / size.min(MIB) {
                chance.fill_bytes(&mut block);
                import.write_all(&block)?;
            }
            blobs.push(import.finish(&hold, UnixTime::now())?.0);
        }
        let mut import = store.import()?;
        import.write_all(MANIFEST)?;
        let (id, manifest_size) = import.finish(&hold, UnixTime::now())?;
        let manifest =
            OfferedBlob { id, size: manifest_size, name: String::new(), media_type: String::new() };
        Ok(Self { store, _hold: Arc::new(hold), blobs, size, manifest })
    }

    /// The first of the blobs: the only one, where there is one.
    pub(super) fn first(&self) -> BlobId {
        self.blobs[0]
    }

    /// The file that the first blob is in.
    pub(super) fn path(&self) -> Result<PathBuf> {
        Ok(self.store.files_of(self.first())?.data)
    }

    /// Copies every blob into a new folder, a file each.
    pub(super) fn copy_to(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir(folder)?;
        for (index, blob) in self.blobs.iter().enumerate() {
            std::fs::copy(self.store.files_of(*blob)?.data, folder.join(format!("{index}.bin")))?;
        }
        Ok(())
    }
}

/// Serves whoever connects.
#[derive(Debug)]
pub(super) struct Holder {
    endpoint: Endpoint,
    contents: Contents,
}

impl Holder {
    /// Within a runtime: binds, and answers `Get`s on every connection.
    pub(super) fn start(contents: &Contents) -> Result<Server> {
        let holder = Self::bind(contents, Ipv4Addr::LOCALHOST.into())?;
        let endpoint = holder.endpoint.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(connection) = holder.endpoint.accept().await {
                // Nobody listens for receipts.
                connections.spawn(answer(connection, holder.contents.clone(), mpsc::channel(1).0));
            }
        });
        Ok(Server { endpoint, serving })
    }

    /// Within a runtime: binds only.
    pub(super) fn bind(contents: &Contents, address: IpAddr) -> Result<Self> {
        let endpoint = Endpoint::bind(&Identity::generate(), (address, 0).into(), EndpointConfig::default())?;
        Ok(Self { endpoint, contents: contents.clone() })
    }

    /// The next connection; what is asked on it is answered, and receipts are told of, with the time that they came.
    pub(super) async fn accept(&self) -> Result<(Connection, mpsc::Receiver<Instant>)> {
        let connection = self.endpoint.accept().await.context("the endpoint is closed")?;
        let (receipts, received) = mpsc::channel(RECEIPTS_MAX);
        tokio::spawn(answer(connection.clone(), self.contents.clone(), receipts));
        Ok((connection, received))
    }

    pub(super) fn peer(&self) -> PeerId {
        self.endpoint.peer()
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        Ok(self.endpoint.local_addr()?)
    }
}

/// A holder that serves by itself.
#[derive(Debug)]
pub(super) struct Server {
    endpoint: Endpoint,
    serving: JoinHandle<()>,
}

impl Server {
    pub(super) fn peer(&self) -> PeerId {
        self.endpoint.peer()
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        Ok(self.endpoint.local_addr()?)
    }

    pub(super) async fn stop(self) {
        self.endpoint.close().await;
        // It ends with the endpoint.
        let _ = self.serving.await;
    }
}

async fn answer(connection: Connection, contents: Contents, receipts: mpsc::Sender<Instant>) {
    let mut requests = JoinSet::new();
    while let Some(incoming) = connection.accept_request().await {
        let (contents, receipts) = (contents.clone(), receipts.clone());
        requests.spawn(async move {
            let answered = match incoming.request {
                Request::Get(get) => serve(&get, &contents.store, incoming.responder).await,
                Request::GetBlobs(get) => serve_small(get, &contents.store, incoming.responder).await,
                Request::Receipt(_) => {
                    let came = Instant::now();
                    let released = incoming.responder.respond(&Response::Released).await;
                    // Nobody may wait for it.
                    let _ = receipts.try_send(came);
                    released.map_err(Into::into)
                }
                _ => incoming.responder.respond(&Response::Refused).await.map_err(Into::into),
            };
            if let Err(error) = answered {
                eprintln!("the holder could not answer: {error:#}");
            }
        });
        while requests.try_join_next().is_some() {}
    }
}

/// What an agent does for a `GetBlobs`, once it is decided that the asker may read.
async fn serve_small(get: GetBlobs, store: &Store, responder: Responder) -> Result<()> {
    let (store, blobs) = (store.clone(), get.blobs.clone());
    let read = spawn_blocking(move || store.read_small(&blobs)).await??;
    let blobs: Vec<_> = get.blobs.into_iter().zip(read).collect();
    responder.serve_small(&blobs, None).await?;
    Ok(())
}

/// What an agent does for a `Get`, once it is decided that the asker may read.
async fn serve(get: &Get, store: &Store, responder: Responder) -> Result<()> {
    let (store, blob) = (store.clone(), get.blob);
    let open = move || -> Result<_> {
        let files = store.files_of(blob)?;
        let data = Arc::new(File::open(&files.data)?);
        let outboard = match &files.outboard {
            Some(path) => Arc::new(File::open(path)?),
            // A blob of one group has none, and none of it is read.
            None => Arc::clone(&data),
        };
        Ok((files.size, FileSlices::of_blob_read(data, files.offset, files.size)?, outboard))
    };
    let (size, data, outboard) = spawn_blocking(open).await??;
    let outboard = PreOrderOutboard {
        root: blob.hash(),
        tree: tree(size),
        data: FileSlices::of_outboard(outboard, size),
    };
    responder.serve(get, size, data, outboard).await?;
    Ok(())
}
