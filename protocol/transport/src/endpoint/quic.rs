//! How quinn is set up: TLS, windows, packet sizes, times.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use lighter_protocol::PeerId;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ConnectionId, ConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{BindError, EndpointConfig};
use crate::congestion::AdaptiveConfig;
use crate::identity::Identity;
use crate::limits::{
    CONNECTION_WINDOW, DATAGRAM_LEN_INTERNET_MAX, DATAGRAM_LEN_MAX, HANDSHAKES_MAX, HOLE_INITIAL_RTT,
    INCOMING_BUFFER_LEN, INCOMING_BUFFERS_LEN, SEND_WINDOW, SOCKET_BUFFER_LEN, STREAM_WINDOW, STREAMS_MAX,
    TUNNEL_DATAGRAM_LEN_MAX,
};
use crate::tls::{self, ALPN, TlsError};
use crate::tunnel::pace::DelayConfig;

/// What paces a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Cubic, and on a line that loses packets without being full, as much as that line carries: it finds out by itself which it is.
    #[default]
    Adaptive,
    /// RFC 9438, quinn's: the usual one. To compare with.
    Cubic,
    /// quinn's, which it calls experimental. To compare with.
    Bbr,
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As QUIC does.
    #[default]
    Usual,
    /// Through routers on both sides, towards somebody who does the same at this moment: the first packets only open
    /// the way, so they are repeated at once, not after a second (RFC 9002 §6.2.2).
    Hole,
    /// As [`Manner::Hole`], for the other side to use: nothing is done here to keep it alive.
    Knock,
}

/// The server's side, for both kinds of path.
pub(super) struct Server {
    near: Arc<ServerConfig>,
    pub(super) internet: Arc<ServerConfig>,
    /// In byte streams.
    pub(super) tunnel: Arc<ServerConfig>,
}

impl Server {
    pub(super) fn config_for(&self, remote: IpAddr) -> &Arc<ServerConfig> {
        if is_near(remote) { &self.near } else { &self.internet }
    }
}

pub(super) fn server(identity: &Identity, config: &EndpointConfig) -> Result<Server, BindError> {
    let tls = Arc::new(tls::server_config(identity, ALPN)?);
    let of = |path, incoming_max| {
        let crypto = QuicServerConfig::try_from(Arc::clone(&tls)).map_err(|_| BindError::Quic)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        // Whoever opened a connection keeps it alive; one sign of life does for both sides.
        let quiet = EndpointConfig { keep_alive: None, ..config.clone() };
        server.transport_config(Arc::new(transport(&quiet, path, Manner::Usual)));
        server.max_incoming(incoming_max);
        server.incoming_buffer_size(INCOMING_BUFFER_LEN);
        server.incoming_buffer_size_total(INCOMING_BUFFERS_LEN);
        Ok::<_, BindError>(Arc::new(server))
    };
    Ok(Server {
        near: of(Path::Udp(DATAGRAM_LEN_MAX), HANDSHAKES_MAX)?,
        internet: of(Path::Udp(DATAGRAM_LEN_INTERNET_MAX), HANDSHAKES_MAX)?,
        tunnel: of(Path::Tunnel, 1)?,
    })
}

/// What a connection goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// Datagrams of at most so many bytes.
    Udp(u16),
    /// A byte stream.
    Tunnel,
}

pub(super) fn client(
    identity: &Identity,
    expected: PeerId,
    remote: IpAddr,
    manner: Manner,
    config: &EndpointConfig,
) -> Result<quinn::ClientConfig, TlsError> {
    let datagram_len_max = if is_near(remote) { DATAGRAM_LEN_MAX } else { DATAGRAM_LEN_INTERNET_MAX };
    client_on(Path::Udp(datagram_len_max), identity, expected, manner, config)
}

pub(super) fn client_in_tunnel(
    identity: &Identity,
    expected: PeerId,
    config: &EndpointConfig,
) -> Result<quinn::ClientConfig, TlsError> {
    client_on(Path::Tunnel, identity, expected, Manner::Usual, config)
}

fn client_on(
    path: Path,
    identity: &Identity,
    expected: PeerId,
    manner: Manner,
    config: &EndpointConfig,
) -> Result<quinn::ClientConfig, TlsError> {
    let tls = tls::client_config(identity, Some(expected), ALPN)?;
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|_| rustls::Error::General("no cipher suite for QUIC's first packets".into()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport(config, path, manner)));
    Ok(client)
}

/// For an endpoint on `port`.
///
/// A peer that was killed and came back on its port knows none of its connections. It answers their packets with a reset
/// that only it can make (RFC 9000 §10.3), so that the other sides notice with their next packet, not when they have been
/// idle. For that, the key of resets comes from the identity; and from the port, so that no other endpoint of this
/// identity makes resets for this one's connections (§21.11).
pub(super) fn endpoint_config(
    identity: &Identity,
    port: u16,
) -> Result<quinn::EndpointConfig, quinn::ConfigError> {
    let mut material = Zeroizing::new([0; 34]);
    material[..32].copy_from_slice(&identity.secret_bytes()[..]);
    material[32..].copy_from_slice(&port.to_le_bytes());
    let secret = Zeroizing::new(blake3::derive_key(RESET_KEY_CONTEXT, &material[..]));
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret[..])));
    endpoint.cid_generator(|| Box::new(RandomIds));
    endpoint.max_udp_payload_size(DATAGRAM_LEN_MAX)?;
    Ok(endpoint)
}

/// For a tunnel. There are no resets in it: when either side is gone, so is the byte stream.
pub(super) fn endpoint_config_in_tunnel() -> Result<quinn::EndpointConfig, quinn::ConfigError> {
    let secret = Zeroizing::new(rand::random::<[u8; 32]>());
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret[..])));
    endpoint.cid_generator(|| Box::new(RandomIds));
    endpoint.max_udp_payload_size(TUNNEL_DATAGRAM_LEN_MAX)?;
    Ok(endpoint)
}

/// What the key of resets is derived for (BLAKE3's key derivation).
const RESET_KEY_CONTEXT: &str = "lighter quic stateless reset 1";

/// Connection ids: random, and nothing that only one run of the program could recognise.
struct RandomIds;

impl RandomIds {
    /// Bytes of an id.
    const LEN: usize = 8;
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; Self::LEN]>())
    }

    fn cid_len(&self) -> usize {
        Self::LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport(config: &EndpointConfig, path: Path, manner: Manner) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.datagram_receive_buffer_size(None);
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    transport.receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    transport.send_window(SEND_WINDOW);
    // The longest that QUIC can say, where more was asked for; `None` would mean no limit.
    let idle_time_max = IdleTimeout::try_from(config.idle_time_max).unwrap_or(VarInt::MAX.into());
    transport.max_idle_timeout(Some(idle_time_max));
    transport.keep_alive_interval(config.keep_alive.filter(|_| manner != Manner::Knock));
    if manner != Manner::Usual {
        transport.initial_rtt(HOLE_INITIAL_RTT);
    }
    let pacing: Arc<dyn ControllerFactory + Send + Sync> = match (path, config.congestion) {
        (Path::Tunnel, _) => Arc::new(DelayConfig),
        (Path::Udp(_), Congestion::Adaptive) => Arc::new(AdaptiveConfig),
        (Path::Udp(_), Congestion::Cubic) => Arc::new(CubicConfig::default()),
        (Path::Udp(_), Congestion::Bbr) => Arc::new(BbrConfig::default()),
    };
    transport.congestion_controller_factory(pacing);
    match path {
        Path::Udp(datagram_len_max) => {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(datagram_len_max);
            transport.mtu_discovery_config(Some(discovery));
        }
        // Known, and the same all the way.
        Path::Tunnel => {
            transport.initial_mtu(TUNNEL_DATAGRAM_LEN_MAX);
            transport.mtu_discovery_config(None);
        }
    }
    transport
}

/// Whether large packets may get through to `remote`: on this machine they do, and the networks where they can are
/// local ones.
fn is_near(remote: IpAddr) -> bool {
    match remote.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Who the other side of an established connection proved to be.
pub(super) fn peer_of(quic: &quinn::Connection) -> Option<PeerId> {
    let certificates = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::peer_id_of(&certificates).ok()
}

/// A UDP socket on `address`; an IPv6 one takes IPv4, too.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // The system cuts these to what the administrator allows: more is better, less still works.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_LEN);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_LEN);
    rustix::net::bind(&socket, &address)?;
    Ok(UdpSocket::from(socket))
}
