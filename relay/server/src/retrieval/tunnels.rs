//! WebSockets to the relay's endpoint, for agents where nothing but the web gets through (SPEC A30; PROTOCOL.md §3).
//!
//! What is in them is QUIC from PeerId to PeerId: who may do what is decided there. Here is only how many there are: they
//! count among the endpoint's connections, by the address that the client has, or that a proxy of ours says it has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lighter_location::address::Network;
use lighter_location::http::ClientAddress;
use lighter_transport::{Carrier, Endpoint, websocket};

use crate::limits::RETRIEVAL_LATER_SECONDS;

/// Where tunnels lead to.
#[derive(Clone, Debug)]
pub struct Tunnels {
    endpoint: Endpoint,
    proxies: Arc<[Network]>,
}

impl Tunnels {
    /// To `endpoint`; what `proxies` say of who asks is believed.
    pub fn new(endpoint: Endpoint, proxies: &[Network]) -> Self {
        Self { endpoint, proxies: proxies.into() }
    }

    /// What is served.
    pub(super) fn router(self) -> Router {
        Router::new().route(websocket::PATH, get(upgrade)).with_state(self)
    }
}

async fn upgrade(State(tunnels): State<Tunnels>, mut request: Request) -> Response {
    let direct = request.extensions().get::<ClientAddress>();
    let direct = direct.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |address| address.0);
    let client = client_of(direct, request.headers(), &tunnels.proxies);
    let Some((response, upgrading)) = websocket::agree(&mut request) else {
        let field = [(header::UPGRADE, "websocket")];
        return (StatusCode::UPGRADE_REQUIRED, field, "a WebSocket for lighter-agent\n").into_response();
    };
    let Some(place) = tunnels.endpoint.place(client) else {
        let retry_after = [(header::RETRY_AFTER, RETRIEVAL_LATER_SECONDS.to_string())];
        return (StatusCode::SERVICE_UNAVAILABLE, retry_after).into_response();
    };
    tokio::spawn(async move {
        if let Some(halves) = upgrading.halves().await {
            tunnels.endpoint.accept_in(halves, place, Carrier::WebSocket, None).await;
        }
    });
    response.map(|()| Body::empty())
}

/// Who asks: the last entry of `X-Forwarded-For`, which our own proxy wrote, where one asks for somebody.
fn client_of(direct: SocketAddr, headers: &HeaderMap, proxies: &[Network]) -> SocketAddr {
    if !proxies.iter().any(|network| network.contains(direct.ip())) {
        return direct;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    last.map_or(direct, |ip: IpAddr| SocketAddr::new(ip, direct.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxy_is_believed_who_it_asks_for() {
        let loopback: Network = "127.0.0.0/8".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "198.51.100.1, 203.0.113.9".parse().unwrap());
        let client = |direct: &str| client_of(direct.parse().unwrap(), &headers, &[loopback]).to_string();
        assert_eq!(client("127.0.0.1:5"), "203.0.113.9:5");
        assert_eq!(client("192.0.2.7:5"), "192.0.2.7:5");
        assert_eq!(client_of("127.0.0.1:5".parse().unwrap(), &HeaderMap::new(), &[loopback]).port(), 5);
        headers.append("x-forwarded-for", "not an address".parse().unwrap());
        assert_eq!(
            client_of("127.0.0.1:5".parse().unwrap(), &headers, &[loopback]).ip().to_string(),
            "127.0.0.1"
        );
    }
}
