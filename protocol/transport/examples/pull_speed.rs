//! How fast a pull is on loopback, beside raw quinn in its default form, in one process with two runtimes:
//! `cargo run --release -p lighter-transport --example pull_speed -- [MiB] [rounds]`.
//!
//! A blob in a file is pulled and verified, and dropped by the sink; raw quinn sends as many bytes over one stream, from
//! memory, and they are dropped.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::CreateOutboard;
use bytes::Bytes;
use lighter_protocol::blob::{GROUP, tree};
use lighter_protocol::wire::Request;
use lighter_protocol::{BlobId, DeliveryId};
use lighter_transport::serve::FileSlices;
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity, Piece, Pull, VerifiedSink, tls};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use tokio::runtime::Runtime;

type AnyError = Box<dyn Error + Send + Sync>;

const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const MIB: usize = 1024 * 1024;

fn main() -> Result<(), AnyError> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let (source, puller) = (Runtime::new()?, Runtime::new()?);

    let mut data = tempfile::NamedTempFile::new()?;
    let mut block: Vec<u8> =
        (0..MIB).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    for index in 0..mib {
        block[..8].copy_from_slice(&index.to_le_bytes());
        io::Write::write_all(&mut data, &block)?;
    }
    let mut outboard_file = tempfile::NamedTempFile::new()?;
    let outboard = PreOrderOutboard::<Vec<u8>>::create(File::open(data.path())?, GROUP)?;
    io::Write::write_all(&mut outboard_file, &outboard.data)?;
    let blob = Arc::new(Blob {
        id: outboard.root.into(),
        size: (mib * MIB) as u64,
        data: Arc::new(File::open(data.path())?),
        outboard: Arc::new(File::open(outboard_file.path())?),
    });

    for _ in 0..rounds {
        let ours = lighter(&source, &puller, &blob)?;
        let raw = raw_quinn(&source, &puller, mib)?;
        let rate = |time: Duration| mib as f64 / time.as_secs_f64();
        let line = format!(
            "pull {:.0} MiB/s · raw quinn {:.0} MiB/s · ratio {:.2}\n",
            rate(ours),
            rate(raw),
            raw.as_secs_f64() / ours.as_secs_f64()
        );
        io::Write::write_all(&mut io::stdout(), line.as_bytes())?;
    }
    Ok(())
}

struct Blob {
    id: BlobId,
    size: u64,
    data: Arc<File>,
    outboard: Arc<File>,
}

/// Takes verified pieces and lets them go.
struct Drain;

impl VerifiedSink for Drain {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        std::hint::black_box(piece);
        Ok(())
    }
}

fn lighter(source: &Runtime, puller: &Runtime, blob: &Arc<Blob>) -> Result<Duration, AnyError> {
    let bind = || Endpoint::bind(&Identity::generate(), ANY_PORT.into(), EndpointConfig::default());
    let server = source.block_on(async { bind() })?;
    let (address, peer) = (server.local_addr()?, server.peer());
    let serving = source.spawn(serve(server, Arc::clone(blob)));
    let time = puller.block_on(async {
        let client = bind()?;
        let connection = client.connect(peer, &[address], Duration::from_secs(10)).await?;
        let began = Instant::now();
        let pull = Pull::of(DeliveryId([0; 16]), blob.id, blob.size);
        connection.pull(&pull, &Arc::new(Drain)).await?;
        Ok::<_, AnyError>(began.elapsed())
    })?;
    serving.abort();
    Ok(time)
}

async fn serve(server: Endpoint, blob: Arc<Blob>) {
    while let Some(connection) = server.accept().await {
        tokio::spawn(answer(connection, Arc::clone(&blob)));
    }
}

async fn answer(connection: Connection, blob: Arc<Blob>) {
    while let Some(incoming) = connection.accept_request().await {
        let Request::Get(get) = incoming.request else { continue };
        let blob = Arc::clone(&blob);
        tokio::spawn(async move {
            let data = FileSlices::of_blob(Arc::clone(&blob.data), blob.size);
            let outboard = PreOrderOutboard {
                root: blob.id.hash(),
                tree: tree(blob.size),
                data: FileSlices::of_outboard(Arc::clone(&blob.outboard), blob.size),
            };
            incoming.responder.serve(&get, blob.size, data, outboard).await
        });
    }
}

fn raw_quinn(source: &Runtime, puller: &Runtime, mib: usize) -> Result<Duration, AnyError> {
    let identity = Identity::generate();
    let server = QuicServerConfig::try_from(tls::server_config(&identity, tls::ALPN)?)?;
    let server = quinn::ServerConfig::with_crypto(Arc::new(server));
    let server = source.block_on(async { quinn::Endpoint::server(server, ANY_PORT.into()) })?;
    let address: SocketAddr = server.local_addr()?;
    let sending = source.spawn(async move {
        let incoming = server.accept().await.ok_or("closed")?;
        let mut stream = incoming.await?.open_uni().await?;
        let block = Bytes::from(vec![7; MIB]);
        for _ in 0..mib {
            stream.write_chunk(block.clone()).await?;
        }
        stream.finish()?;
        stream.stopped().await?;
        Ok::<_, AnyError>(())
    });
    puller.block_on(async {
        let client = QuicClientConfig::try_from(tls::client_config(&identity, None, tls::ALPN)?)?;
        let endpoint = quinn::Endpoint::client(ANY_PORT.into())?;
        let config = quinn::ClientConfig::new(Arc::new(client));
        let connection = endpoint.connect_with(config, address, "127.0.0.1")?.await?;
        let began = Instant::now();
        let mut stream = connection.accept_uni().await?;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
            std::hint::black_box(chunk);
        }
        let time = began.elapsed();
        connection.close(0_u32.into(), b"");
        endpoint.wait_idle().await;
        let _ = sending.await?;
        Ok(time)
    })
}
