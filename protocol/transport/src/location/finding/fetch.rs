//! Fetching `.well-known/lighter` from a domain's own web server.

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, StatusCode};
use tokio::time::timeout;

use super::dns::DnsError;
use super::resolve::{Guarded, HostResolver};
use super::well_known::{PATH, WellKnownError};
use crate::location::connect::http_client_with;
use crate::location::limits::{REQUEST_TIMEOUT, WELL_KNOWN_LEN_MAX};
use crate::proxy::Proxies;

/// What the web server of the domain `name` says; none: it says that there is nothing. Redirects are not followed: they
/// would make whoever answers name another server's answer as the domain's own.
pub(super) async fn well_known(
    name: &str,
    ca_file: Option<&Path>,
    guarded: Guarded,
) -> Result<Option<Bytes>, WellKnownError> {
    let client = http_client_with(true, ca_file, HostResolver::Guarded(guarded), &Proxies::none())
        .map_err(|error| WellKnownError::Unreachable(error.into()))?;
    let request = Request::get(format!("https://{name}{PATH}")).header("accept", "application/json");
    let request = request.body(Full::default()).map_err(|error| WellKnownError::Unreachable(error.into()))?;
    let fetch = async {
        let response = client.request(request).await.map_err(|error| unreachable(error.into()))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status => return Err(WellKnownError::Status(status.as_u16())),
        }
        match Limited::new(response.into_body(), WELL_KNOWN_LEN_MAX).collect().await {
            Ok(body) => Ok(Some(body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(WellKnownError::TooLong),
            Err(error) => Err(WellKnownError::Unreachable(error)),
        }
    };
    match timeout(REQUEST_TIMEOUT, fetch).await {
        Ok(fetched) => fetched,
        Err(elapsed) => Err(WellKnownError::Unreachable(elapsed.into())),
    }
}

/// The resolver's own error, where it is at the bottom of it.
fn unreachable(error: Box<dyn Error + Send + Sync>) -> WellKnownError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(inner) = cause {
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(dns) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<DnsError>()) {
            return WellKnownError::Dns(*dns);
        }
        cause = inner.source();
    }
    WellKnownError::Unreachable(error)
}
