//! The relay's retrieval as `lighter-relay serve` runs it: the same routes, over an array of two storage servers. The ticket is looked up in memory, not in the catalog's file.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use lighter_protocol::{DeliveryId, TicketHash, TicketKey, UnixTime};
use lighter_relay::retrieval::{
    self, Attachment, Attachments, DeliveryView, Opened, RetrievalError, Status, Tunnels,
};
use lighter_storage::{
    Array, ArrayConfig, ArrayKey, BlobReader, Class, LocalServers, ServerConfig, ServerRecord, StorageServer,
    StoredBlob, wall_clock,
};
use lighter_transport::{Endpoint, EndpointConfig, Identity};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Where the storage servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Servers {
    /// In the relay's process, as they are by default.
    Inside,
    /// In this process as well, and spoken to over TLS as if they were on other machines.
    Elsewhere,
}

/// Array and retrieval.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    array: Array,
    held: Held,
    servers: Vec<StorageServer>,
    stopping: CancellationToken,
}

impl Relay {
    pub(super) async fn start(folder: &Path, place: Servers) -> Result<Self> {
        let local = LocalServers::default();
        let relay = Identity::generate();
        let mut servers = Vec::new();
        for index in 0..2 {
            let config = ServerConfig {
                identity: Identity::generate(),
                listen: ([127, 0, 0, 1], 0).into(),
                units: vec![folder.join(format!("server-{index}")).join("unit")],
                writers: vec![relay.peer()],
                clock: wall_clock(),
                scrub_days: lighter_storage::limits::SCRUB_DAYS_DEFAULT,
                depot: None,
                local: if place == Servers::Inside { local.clone() } else { LocalServers::default() },
            };
            servers.push(StorageServer::start(config).await?);
        }
        let records =
            servers.iter().map(|server| ServerRecord { peer: server.peer(), address: server.address() });
        let key = ArrayKey::draw(&mut StdRng::seed_from_u64(1));
        let config = ArrayConfig { local, ..ArrayConfig::new(records.collect()) };
        let array = Array::open(config, &relay, key, wall_clock()).await?;
        let held = Held { array: array.clone(), views: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let endpoint = Endpoint::bind(&relay, ([127, 0, 0, 1], 0).into(), EndpointConfig::default())?;
        let tunnels = Tunnels::new(endpoint, &[]);
        tokio::spawn(retrieval::serve(listener, held.clone(), Well, tunnels, stopping.clone()));
        Ok(Self { address, array, held, servers, stopping })
    }

    /// Stores `file` on both servers; gives the request for it.
    pub(super) async fn put(&self, file: &[u8]) -> Result<Vec<u8>> {
        let mut writer = self.array.create_blob(Class::Days30);
        for piece in file.chunks(1 << 20) {
            writer.write(piece).await?;
        }
        let placed = writer.finish().await?;
        placed.durable().await?;
        let blob = placed.stored().clone();
        let attachment = Attachment {
            name: "file.bin".to_owned(),
            media_type: "application/octet-stream".to_owned(),
            id: blob.id,
            size: blob.size,
            blob,
        };
        let mut views = self.held.views.lock().unwrap_or_else(PoisonError::into_inner);
        let delivery = DeliveryId([u8::try_from(views.len())?; 16]);
        let ticket = TicketKey::derive(&[1; 32]).ticket(&delivery, 0);
        let now = UnixTime::now();
        let view = DeliveryView {
            from: "bob@lighter.test".to_owned(),
            subject: "A file".to_owned(),
            accepted: now,
            expires: now.day().plus(30),
            opened: Opened::Here,
            attachments: vec![attachment],
        };
        views.insert(ticket.hash(), view);
        let (ticket, address) = (ticket.to_text(), self.address);
        Ok(format!("GET /t/{ticket}/0/file.bin HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes())
    }

    pub(super) async fn stop(self) {
        self.stopping.cancel();
        self.array.close().await;
        for server in self.servers {
            server.stop().await;
        }
    }
}

#[derive(Clone)]
struct Held {
    array: Array,
    views: Arc<Mutex<HashMap<TicketHash, DeliveryView<StoredBlob>>>>,
}

impl Attachments for Held {
    type Blob = StoredBlob;
    type Pieces = BlobReader;

    async fn find(&self, ticket: TicketHash) -> Result<Option<DeliveryView<StoredBlob>>, RetrievalError> {
        Ok(self.views.lock().unwrap_or_else(PoisonError::into_inner).get(&ticket).cloned())
    }

    fn open(&self, blob: &StoredBlob, range: Range<u64>) -> BlobReader {
        self.array.read_blob(blob, range)
    }
}

struct Well;

impl Status for Well {
    fn trouble(&self) -> Option<&'static str> {
        None
    }

    async fn metrics(&self) -> String {
        String::new()
    }
}
