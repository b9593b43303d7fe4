//! Tunnels that others open in TLS on TCP: the listener beside an endpoint's UDP socket.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::TUNNEL_ALPN;
use crate::carrier::Carrier;
use crate::endpoint::{Endpoint, Place};
use crate::limits::{ACCEPT_PAUSE, TUNNEL_UNSENT_LEN};
use crate::tcp::TcpTls;
use crate::tls::TlsError;

/// Takes connections off `listener` and gives them to `endpoint`, whose limits they count in and whose
/// [`accept`](Endpoint::accept) gives them to the program. It ends when it is dropped.
///
/// # Errors
/// [`TlsError`], at once, where the key makes no certificate.
pub async fn tcp(endpoint: &Endpoint, listener: TcpListener) -> Result<(), TlsError> {
    let tls = Arc::new(TcpTls::new(endpoint.identity(), TUNNEL_ALPN)?);
    // No more than the endpoint has places for.
    let mut handshakes = JoinSet::new();
    loop {
        let (socket, address) = tokio::select! {
            Some(_ended) = handshakes.join_next(), if !handshakes.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    info!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(place) = endpoint.place(address) else {
            debug!(%address, "connection refused: limit reached");
            continue;
        };
        let (endpoint, tls) = (endpoint.clone(), Arc::clone(&tls));
        handshakes.spawn(async move { open(&endpoint, &tls, socket, place).await });
    }
}

async fn open(endpoint: &Endpoint, tls: &TcpTls, socket: TcpStream, place: Place) {
    keep_little_unsent(&socket);
    let address = place.address();
    match timeout(place.time_left(), tls.accept(socket)).await {
        Ok(Ok((stream, peer))) => {
            endpoint.accept_in(tokio::io::split(stream), place, Carrier::Tcp, Some(peer)).await;
        }
        Ok(Err(error)) => debug!(%address, %error, "did not open"),
        Err(_) => debug!(%address, "did not open in time"),
    }
}

/// What is in the system's queue cannot be overtaken: it is kept short. Where the system does not know this, it works all
/// the same.
pub(crate) fn keep_little_unsent(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(TUNNEL_UNSENT_LEN);
}
