//! What other peers ask of this agent, on connections that they or this agent opened.
//!
//! Each request is decided on by who asks: an own relay and a stranger get different answers, and a stranger gets the
//! same one for everything that is not theirs (DESIGN §3 rule 11, §4).

mod held;
mod small;

use std::fs::File;
use std::sync::Arc;

use bao_tree::io::outboard::PreOrderOutboard;
use lighter_protocol::blob;
use lighter_protocol::wire::{Get, GetShared, Have, Request, Response};
use lighter_protocol::{BlobId, PeerId};
use lighter_store::{BlobFiles, StoreError};
use lighter_transport::limiter::{Rate, Transfer, Turns};
use lighter_transport::limits::SERVED_RATE_MIN;
use lighter_transport::serve::{FileSlices, ServeError};
use lighter_transport::{Connection, IncomingRequest, Responder};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::limits::{HELD_LATER_S, REQUESTS_PER_CONNECTION_MAX, SERVES_MAX};
use crate::shared::{self, Handle};
use crate::{offers, pulls, sharing, ways};
use held::Held;

/// Seconds after which somebody whom this agent cannot answer now is asked to come back.
const LATER_S: u32 = 10;

/// Accepts connections until the endpoint is closed.
pub async fn run(shared: Handle) {
    // As many as the endpoint lets in.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
            accepted = shared.endpoint.accept() => {
                let Some(accepted) = accepted else { return };
                connections.spawn(connection(shared.clone(), accepted));
            }
        }
    }
}

/// Answers what is asked on one connection until it is closed.
pub async fn connection(shared: Handle, connection: Connection) {
    shared.links.add(&connection);
    let room = Arc::new(Semaphore::new(REQUESTS_PER_CONNECTION_MAX));
    let mut requests = JoinSet::new();
    loop {
        let permit = match Arc::clone(&room).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => break,
        };
        let Some(IncomingRequest { request, responder }) = connection.accept_request().await else { break };
        while requests.try_join_next().is_some() {}
        let shared = shared.clone();
        requests.spawn(async move {
            answer(&shared, request, responder).await;
            drop(permit);
        });
    }
    shared.links.sweep(&connection.peer());
}

async fn answer(shared: &Handle, request: Request, responder: Responder) {
    let peer = responder.peer();
    let response = match request {
        Request::Offer(offer) => return pulls::offered(shared, offer, false, responder).await,
        Request::PushOffer(offer) => return pulls::offered(shared, offer, true, responder).await,
        Request::Push(push) => return pulls::pushed(shared, push, responder).await,
        Request::Get(get) => return serve(shared, get, responder).await,
        Request::GetShared(asked) => return serve_shared(shared, asked, responder).await,
        Request::GetBlobs(asked) => return small::serve(shared, asked, responder).await,
        Request::Sources(sources) => return pulls::told_sources(shared, sources, responder).await,
        Request::Have(have) => self::have(shared, have, &peer).await,
        Request::Receipt(receipt) => offers::receipted(shared, &receipt, &peer).await,
        Request::Knock(knock) => ways::knock::knocked(shared, &knock, peer),
        Request::Here(number) => here(shared, number, responder.connection()),
        // Who it is was proved by the connection, and it hears of nothing but its own: no attestation is needed.
        Request::Waiting(_) => match offers::wanted(shared, peer).await {
            0 => Response::Refused,
            count => Response::Waiting(count),
        },
        // Only relays take drops and help others to meet. Pings are answered by the connection itself.
        Request::Meet(_) | Request::Drop(_) | Request::DropState(_) | Request::Ping => Response::Refused,
    };
    if let Err(error) = responder.respond(&response).await {
        tracing::debug!(%peer, %error, "could not answer");
    }
}

/// A store opened this connection because a helper told it to: it is used, or not wanted any more.
fn here(shared: &Handle, number: u64, connection: &Connection) -> Response {
    if shared.ways.expected.arrived(number, connection.clone()) {
        Response::Coming
    } else {
        Response::Refused
    }
}

/// Own relays may know what is here, re-read from disk; others could ask what a user owns (DESIGN §4).
async fn have(shared: &Handle, have: Have, peer: &PeerId) -> Response {
    if !shared.is_own_relay(peer) {
        return Response::Refused;
    }
    let held = shared
        .blocking(move |store| match have {
            Have::Blob(blob) => store.recheck(blob),
            Have::Delivery(delivery) => {
                let Some(incoming) = store.incoming(delivery)? else { return Ok(false) };
                let parts = std::iter::once(&incoming.manifest).chain(&incoming.blobs);
                for part in parts {
                    if !store.recheck(part.id)? {
                        return Ok(false);
                    }
                }
                Ok::<_, StoreError>(true)
            }
        })
        .await;
    match held {
        Ok(held) => Response::Have(held),
        Err(error) => {
            tracing::warn!(%error, "could not look what is in the store");
            Response::Later(LATER_S)
        }
    }
}

/// The verified stream of a blob, for whom its delivery was offered to, and for the user's other devices (SPEC A23).
async fn serve(shared: &Handle, get: Get, responder: Responder) {
    let peer = responder.peer();
    let Some((files, transfer)) = readable(shared, &get, peer).await else {
        let _ = responder.respond(&Response::Refused).await;
        return;
    };
    send(shared, get, (files, transfer), responder).await;
}

/// The same for another recipient of the same message, at its sender's word (SPEC D3).
async fn serve_shared(shared: &Handle, asked: GetShared, responder: Responder) {
    let Some(readable) = sharing::give::readable(shared, &asked, responder.peer()).await else {
        let _ = responder.respond(&Response::Refused).await;
        return;
    };
    let Ok(_permit) = shared.shared_serves.try_acquire() else {
        let _ = responder.respond(&Response::Later(LATER_S)).await;
        return;
    };
    send(shared, asked.get, readable, responder).await;
}

/// The verified stream, when it is its turn.
async fn send(shared: &Handle, get: Get, readable: (BlobFiles, Transfer), responder: Responder) {
    let (peer, (files, transfer)) = (responder.peer(), readable);
    let turns = shared.guest.up.transfer(transfer);
    if turns.is_held() {
        let _ = responder.respond(&Response::Later(HELD_LATER_S)).await;
        return;
    }
    let Some(_permit) = place(shared) else {
        let _ = responder.respond(&Response::Later(LATER_S)).await;
        return;
    };
    let progress = offers::Progress::begin(shared, get.delivery);
    match stream(&get, &files, responder, &turns).await {
        Ok(sent) => {
            tracing::debug!(%peer, blob = %get.blob, sent, "served");
            progress.served(&get, files.size);
        }
        Err(Served::Open(error)) => tracing::warn!(blob = %get.blob, %error, "cannot be read"),
        Err(Served::Stream(ServeError::Held)) => tracing::debug!(%peer, blob = %get.blob, "held up"),
        Err(Served::Stream(ServeError::Peer(error))) => tracing::debug!(%peer, %error, "stopped pulling"),
        Err(Served::Stream(error)) => {
            tracing::warn!(blob = %get.blob, %error, "what was to be served is damaged");
            // Looked at as a whole, and set aside if it is so.
            let blob = get.blob;
            if let Err(error) = shared.blocking(move |store| store.recheck(blob)).await {
                tracing::warn!(%blob, %error, "could not be looked at");
            }
        }
    }
}

/// A place among the streams that are served, if one is free.
pub(crate) fn place(shared: &Handle) -> Option<SemaphorePermit<'_>> {
    let served = serves_max(shared).saturating_sub(shared.serves.available_permits());
    shared.serves.try_acquire().ok().filter(|_| served < served_max(shared))
}

/// How many streams may be served at a time.
fn serves_max(shared: &Handle) -> usize {
    shared::serves_max(&shared.config)
}

/// How many streams are served at a time: with a limit, so many that each of them gets on.
fn served_max(shared: &Handle) -> usize {
    match shared.guest.up.allowance().rate {
        Rate::Any => serves_max(shared),
        Rate::Limited(rate) => {
            let streams = usize::try_from(rate.get() / SERVED_RATE_MIN).unwrap_or(SERVES_MAX);
            streams.clamp(1, serves_max(shared))
        }
    }
}

/// The files of what `get` asks for, if `peer` may read it, and what it is to the line.
async fn readable(shared: &Handle, get: &Get, peer: PeerId) -> Option<(BlobFiles, Transfer)> {
    let held = Held::find(shared, get.delivery).await?;
    let (size, blob) = (held.admits(shared, get, &peer)?, get.blob);
    let files = shared.blocking(move |store| store.files_of(blob)).await;
    files.ok().filter(|files| files.size == size).map(|files| (files, held.transfer(&blob)))
}

enum Served {
    Open(std::io::Error),
    Stream(ServeError),
}

async fn stream(get: &Get, files: &BlobFiles, responder: Responder, turns: &Turns) -> Result<u64, Served> {
    let (data, outboard) = open(get.blob, files).await.map_err(Served::Open)?;
    responder.serve_in_turns(get, files.size, data, outboard, Some(turns)).await.map_err(Served::Stream)
}

/// A blob's bytes and proofs, to be sent.
pub(crate) async fn open(
    blob: BlobId,
    files: &BlobFiles,
) -> std::io::Result<(FileSlices, PreOrderOutboard<FileSlices>)> {
    let BlobFiles { size, data, offset, outboard } = files.clone();
    let open = move || -> std::io::Result<_> {
        let data = Arc::new(File::open(data)?);
        // A blob of one group has no outboard, and none of it is read: any file does.
        let outboard =
            outboard.map_or_else(|| Ok(Arc::clone(&data)), |path| File::open(path).map(Arc::new))?;
        Ok((FileSlices::of_blob_read(data, offset, size)?, outboard))
    };
    let opened = tokio::task::spawn_blocking(open).await.map_err(std::io::Error::other);
    let (data, outboard) = opened.and_then(|opened| opened)?;
    let outboard = PreOrderOutboard {
        root: blob.hash(),
        tree: blob::tree(size),
        data: FileSlices::of_outboard(outboard, size),
    };
    Ok((data, outboard))
}
