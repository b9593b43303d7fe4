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
        Request::Get(get) => return or_say(serve(shared, get, responder).await).await,
        Request::GetShared(asked) => return or_say(serve_shared(shared, asked, responder).await).await,
        Request::GetBlobs(asked) => return or_say(small::serve(shared, asked, responder).await).await,
        Request::Sources(sources) => return pulls::told_sources(shared, sources, responder).await,
        Request::Have(have) => self::have(shared, have, &peer).await,
        Request::Receipt(receipt) => offers::receipted(shared, &receipt, &peer).await,
        // What was left is with relays.
        Request::Succession(_) => Response::Refused,
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
    say(responder, &response).await;
}

async fn say(responder: Responder, response: &Response) {
    let peer = responder.peer();
    if let Err(error) = responder.respond(response).await {
        tracing::debug!(%peer, %error, "could not answer");
    }
}

/// Why nothing is sent: who asked, and what they hear.
type No = Box<(Responder, Response)>;

fn no(responder: Responder, response: Response) -> No {
    Box::new((responder, response))
}

async fn or_say(sent: Result<(), No>) {
    if let Err(no) = sent {
        say(no.0, &no.1).await;
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
async fn serve(shared: &Handle, get: Get, responder: Responder) -> Result<(), No> {
    match readable(shared, &get, responder.peer()).await {
        Some(readable) => send(shared, get, readable, responder).await,
        None => Err(no(responder, Response::Refused)),
    }
}

/// The same for another recipient of the same message, at its sender's word (SPEC D3).
async fn serve_shared(shared: &Handle, asked: GetShared, responder: Responder) -> Result<(), No> {
    let Some(readable) = sharing::give::readable(shared, &asked, responder.peer()).await else {
        return Err(no(responder, Response::Refused));
    };
    let Ok(_permit) = shared.shared_serves.try_acquire() else {
        return Err(no(responder, Response::Later(LATER_S)));
    };
    send(shared, asked.get, readable, responder).await
}

/// The verified stream, when it is its turn.
async fn send(
    shared: &Handle,
    get: Get,
    (files, transfer): (BlobFiles, Transfer),
    responder: Responder,
) -> Result<(), No> {
    let peer = responder.peer();
    let (turns, _permit) = match turns(shared, transfer) {
        Ok(may) => may,
        Err(later) => return Err(no(responder, later)),
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
            look_at(shared, get.blob).await;
        }
    }
    Ok(())
}

/// One that may be damaged is looked at as a whole, and set aside if it is.
async fn look_at(shared: &Handle, blob: BlobId) {
    if let Err(error) = shared.blocking(move |store| store.recheck(blob)).await {
        tracing::warn!(%blob, %error, "could not be looked at");
    }
}

/// The turns of what is to be sent, and its place among the streams that are served; or when to come back.
fn turns(shared: &Handle, transfer: Transfer) -> Result<(Turns, SemaphorePermit<'_>), Response> {
    let turns = shared.guest.up.transfer(transfer);
    if turns.is_held() {
        return Err(Response::Later(HELD_LATER_S));
    }
    Ok((turns, place(shared).ok_or(Response::Later(LATER_S))?))
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
