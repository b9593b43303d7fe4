//! Which addresses an HTTP connection is made to: for a server that a foreign domain named, only ones that may be dialled.
//! The check is made on what is dialled, at each connection: nothing resolves the name again behind it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use super::dns::{Dns, DnsError};
use crate::location::address::{Network, may_be_dialled};

/// Resolves hosts for an HTTP client.
#[derive(Clone, Debug)]
pub enum HostResolver {
    /// As the system does.
    System(GaiResolver),
    /// For a host that a foreign domain named.
    Guarded(Guarded),
}

impl HostResolver {
    /// As the system does.
    pub fn system() -> Self {
        Self::System(GaiResolver::new())
    }
}

/// Resolves a host that a foreign domain named.
#[derive(Clone, Debug)]
pub struct Guarded {
    pub(super) dns: Arc<Dns>,
    /// Networks that may be dialled besides those that everybody can route to.
    pub(super) networks: Arc<[Network]>,
    /// The host to resolve in place of the one in the URL, whose name the certificate is for: an SRV record's.
    pub(super) host: Option<Arc<str>>,
}

impl Guarded {
    async fn addresses(self, name: &str) -> Result<Vec<SocketAddr>, DnsError> {
        let host = self.host.as_deref().unwrap_or(name);
        let mut addresses = self.dns.addresses(host).await?;
        addresses.retain(|address| may_be_dialled(*address, &self.networks));
        if addresses.is_empty() {
            return Err(DnsError::Address);
        }
        // The port is the URL's.
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

type Addresses = std::vec::IntoIter<SocketAddr>;
type Resolving = Pin<Box<dyn Future<Output = Result<Addresses, std::io::Error>> + Send>>;

impl Service<Name> for HostResolver {
    type Response = Addresses;
    type Error = std::io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::System(system) => system.poll_ready(context),
            Self::Guarded(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, name: Name) -> Resolving {
        match self {
            Self::System(system) => {
                let resolving = system.call(name);
                Box::pin(async move { Ok(resolving.await?.collect::<Vec<_>>().into_iter()) })
            }
            Self::Guarded(guarded) => {
                let guarded = guarded.clone();
                Box::pin(async move {
                    let addresses = guarded.addresses(name.as_str()).await.map_err(std::io::Error::other)?;
                    Ok(addresses.into_iter())
                })
            }
        }
    }
}
