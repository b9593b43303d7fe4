//! What an append through the array is made of, each part alone and with the same load: hashing and encryption, the way over
//! TLS to two servers and back, and two units. None of them waits for another here, nor takes another's processor.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use lighter_protocol::UnixTime;
use lighter_protocol::blob::HashedPortion;
use lighter_storage::limits::{FRAME_LEN, HELLO_TIME_MAX};
use lighter_storage::link::Link;
use lighter_storage::wire::{Frame, OutFrame, Request, Response, Target};
use lighter_storage::{Epoch, SegmentId, ServerRecord, UnitId};
use lighter_transport::Identity;
use lighter_transport::tcp::TcpTls;
use lighter_transport::tls::STORAGE_ALPN;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::unit::Appending;
use super::{Load, Room, data};

/// Each blob hashed with its tree, and encrypted in frames under a key of its own.
pub(super) async fn encryption(load: Load) -> Result<Duration> {
    load.run((), |_| async {
        let hashed = HashedPortion::of(0, &data())?;
        let key = UnboundKey::new(&AES_256_GCM, &hashed.cv).ok().context("a key of 32 bytes")?;
        let key = LessSafeKey::new(key);
        for (index, frame) in data().chunks_mut(FRAME_LEN).enumerate() {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&(index as u64).to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), frame);
            let _ = std::hint::black_box(tag.ok().context("sealing")?);
        }
        // As the array does after each: others have their turn.
        tokio::task::yield_now().await;
        Ok(())
    })
    .await
}

/// Each append sent to two servers, which read it and answer, and do nothing else.
pub(super) async fn network(load: Load) -> Result<Duration> {
    let mut servers = JoinSet::new();
    let mut links = Vec::new();
    let dial = TcpTls::new(&Identity::generate(), STORAGE_ALPN)?;
    for _ in 0..2 {
        let tls = TcpTls::new(&Identity::generate(), STORAGE_ALPN)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let record = ServerRecord { peer: tls.peer(), address: listener.local_addr()? };
        servers.spawn(answer_all(listener, tls));
        links.push(Link::connect(&dial, &record, UnixTime::now()).await?.0);
    }
    let mut chance = StdRng::seed_from_u64(1);
    let target = Target {
        unit: UnitId::draw(&mut chance),
        segment: SegmentId::draw(&mut chance),
        writer: dial.peer(),
        epoch: Epoch(1),
    };
    let request = Arc::new(Request::Append { target, offset: 0, forward: None });
    let time = load
        .run((links, request), |to| async move {
            let (links, request) = &*to;
            let record = Bytes::from(data());
            let mut answers = Vec::with_capacity(links.len());
            for link in links {
                answers.push(link.send(request, vec![record.clone()]).await?);
            }
            for answer in answers {
                answer.answer().await?;
            }
            Ok(())
        })
        .await?;
    servers.shutdown().await;
    Ok(time)
}

async fn answer_all(listener: TcpListener, tls: TcpTls) -> Result<()> {
    let (socket, _) = listener.accept().await?;
    let (stream, _) = tokio::time::timeout(HELLO_TIME_MAX, tls.accept(socket)).await??;
    let (mut read, write) = tokio::io::split(stream);
    let mut write = BufWriter::new(write);
    loop {
        let frame = Frame::read(&mut read).await?;
        let response = match frame.decode()? {
            Request::Hello { now, .. } => Response::Hello { now, epoch: Epoch(1), units: Vec::new() },
            Request::Append { .. } => Response::Appended { keys: Vec::new(), digest: 0 },
            Request::Ping => Response::Done,
            other => bail!("not asked for here: {other:?}"),
        };
        OutFrame::new(frame.id, &response, Vec::new())?.write(&mut write).await?;
        write.flush().await?;
    }
}

/// Each append placed, checked, written and synced by two units at once.
pub(super) async fn disk(folder: &Path, load: Load) -> Result<Duration> {
    let units = ["copy-0", "copy-1"].map(|name| Appending::start(&folder.join(name), Room::Filled));
    let [first, second] = units;
    load.run((first?, second?), |units| async move {
        tokio::try_join!(units.0.append(), units.1.append())?;
        Ok(())
    })
    .await
}
