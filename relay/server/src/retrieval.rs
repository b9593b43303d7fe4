//! Giving attachments out over HTTP, by ticket (DESIGN §8; SPEC C9, A22, D2).
//!
//! - `GET /t/TICKET/` is a page: what there is, how large, until when. Looking at it uses nothing up: scanners follow
//!   links, and a link that works once does not work for people.
//! - `GET /t/TICKET/N/NAME` is the N-th attachment. The name is for people; the number decides.
//! - `GET /healthz`, `GET /metrics`.
//! - `GET /lighter` is a WebSocket, for agents where UDP is blocked (`tunnels`; SPEC A30).
//!
//! What comes out of mail is hostile: bytes go out as a download, in a sandbox, never as what they say they are where
//! a browser could run it, from an origin that serves nothing else; names are cleaned and escaped.
//!
//! What cannot be had: a ticket that is unknown or revoked gets one answer (404). Who holds a good one is told more, since
//! nobody else can ask: that its day is over (410, until the catalog forgets the message a week later), which store has what
//! was let go of (410), that no server answers now (503, with when to try again), that no copy is right (502).
//!
//! Memory for one download is a few pieces of a blob, whatever its size; how many there are at once is bounded.

mod attachments;
pub mod disposition;
mod download;
mod page;
pub mod range;
mod routes;
mod status;
mod tunnels;

use std::net::SocketAddr;

use lighter_location::http::{self, HttpLimits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use attachments::{
    Attachment, Attachments, DeliveryView, LedgerAttachments, Opened, Pieces, RetrievalError,
};
pub use routes::router;
pub use status::{RelayStatus, Status};
pub use tunnels::Tunnels;

/// Serves retrieval, and tunnels to the relay's endpoint, on `listener` until `stopping`.
pub async fn serve<A: Attachments, S: Status>(
    listener: TcpListener,
    attachments: A,
    status: S,
    tunnels: Tunnels,
    stopping: CancellationToken,
) {
    let app = router(attachments, status).merge(tunnels.router());
    http::serve(listener, None, app, HttpLimits::default(), stopping).await;
}

/// What links in placeholders begin with where no other address is configured.
pub fn default_url(listening: SocketAddr) -> String {
    let mut address = listening;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests;
