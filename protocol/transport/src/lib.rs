//! How peers of Lighter reach each other: keys, TLS in which both sides are PeerIds, connections, verified pulls.
//!
//! [`identity`] is a peer's key; [`tls`] makes both sides of a connection prove theirs; [`tcp`] is that over TCP, for
//! relays and storage servers; [`location`] is the location server as its clients see it. [`endpoint`] is one
//! UDP socket that connects and is connected to (QUIC); what it gives is a [`connection`], on which either side asks and
//! answers. Where UDP is blocked, QUIC goes through a [`tunnel`] in TLS on TCP or in a [`websocket`], with a [`proxy`] in
//! between where there is one.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use lighter_protocol::wire::{Have, Request, Response};
//! use lighter_transport::{Endpoint, EndpointConfig, Identity};
//!
//! rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
//! let identity = Identity::load_or_create("key".as_ref())?;
//! let endpoint = Endpoint::bind_any(&identity, 0, EndpointConfig::default())?;
//! # let (store, addresses, delivery) = (identity.peer(), vec![], lighter_protocol::DeliveryId([0; 16]));
//!
//! // Asking.
//! let connection = endpoint.connect(store, &addresses, Duration::from_secs(10)).await?;
//! let answer = connection.request(&Request::Have(Have::Delivery(delivery))).await?;
//!
//! // Being asked, on this connection or on one from `endpoint.accept()`: a task for each request.
//! while let Some(incoming) = connection.accept_request().await {
//!     match incoming.request {
//!         _ => incoming.responder.respond(&Response::Refused).await?,
//!     }
//! }
//! # Ok(()) }
//! ```

pub mod carrier;
mod congestion;
pub mod connection;
pub mod endpoint;
pub mod error;
pub mod identity;
pub mod limiter;
pub mod limits;
pub mod location;
pub mod meeting;
mod message;
pub mod progress;
pub mod proxy;
pub mod pull;
pub mod push;
pub mod serve;
pub mod small;
pub mod tcp;
pub mod tls;
pub mod tunnel;
pub mod websocket;

pub use carrier::Carrier;
pub use connection::{Connection, IncomingRequest, Patience, Responder};
pub use endpoint::{BindError, ConnectError, ConnectionLimits, Endpoint, EndpointConfig, Manner, Place};
pub use error::{ExchangeError, GiveUp, Misbehaviour, PeerError};
pub use identity::{Identity, IdentityError};
pub use limiter::{Limiter, Turns};
pub use pull::{Piece, Pull, PullError, Pulled, VerifiedSink};
pub use push::{IncomingPush, PushError, PushStream};
pub use serve::ServeError;
pub use small::{SmallBlob, SmallPull, SmallSink};
