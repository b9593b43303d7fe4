//! Raw quinn as it comes: one stream, from memory, dropped as it arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use lighter_transport::{Identity, tls};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::{ANY_PORT, Runtimes};
use crate::settings::MIB;

pub(super) fn run(runtimes: &Runtimes, mib: u64) -> Result<Duration> {
    let identity = Identity::generate();
    let crypto = QuicServerConfig::try_from(tls::server_config(&identity, tls::ALPN)?)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = runtimes.holder.block_on(async { quinn::Endpoint::server(config, ANY_PORT.into()) })?;
    let address = server.local_addr()?;
    let sending = runtimes.holder.spawn(send(server, mib));
    let time = runtimes.puller.block_on(receive(&identity, address, mib))?;
    runtimes.holder.block_on(sending)??;
    Ok(time)
}

async fn send(server: quinn::Endpoint, mib: u64) -> Result<()> {
    let connection = server.accept().await.context("closed")?.await?;
    let mut stream = connection.open_uni().await?;
    let block = Bytes::from(vec![7; usize::try_from(MIB)?]);
    for _ in 0..mib {
        stream.write_chunk(block.clone()).await?;
    }
    stream.finish()?;
    stream.stopped().await?;
    Ok(())
}

async fn receive(identity: &Identity, address: SocketAddr, mib: u64) -> Result<Duration> {
    let crypto = QuicClientConfig::try_from(tls::client_config(identity, None, tls::ALPN)?)?;
    let endpoint = quinn::Endpoint::client(ANY_PORT.into())?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(config, address, "127.0.0.1")?.await?;
    let began = Instant::now();
    let mut stream = connection.accept_uni().await?;
    let mut received = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        received += chunk.bytes.len() as u64;
    }
    let time = began.elapsed();
    anyhow::ensure!(received == mib * MIB, "not all of it arrived");
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(time)
}
