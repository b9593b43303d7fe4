//! What handlers take out of requests: bearer tokens, JSON bodies, who asks.

use std::net::IpAddr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use lighter_protocol::Now;
use lighter_transport::location::Secret;
use serde::de::DeserializeOwned;

use super::{Shared, answers};
use crate::address::in_any;
use crate::error::CallError;
use crate::http::ClientAddress;

/// A JSON body. serde_json's own limit ends nesting at 128 levels.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Response> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
        if !media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
            return Err(answers::not_json());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                answers::too_large()
            } else {
                CallError::Malformed("the body broke off").into_response()
            }
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|_| {
            CallError::Malformed("the body is not the JSON that this call takes: see /openapi.json")
                .into_response()
        })
    }
}

/// The network address that a request came from, through proxies that are trusted.
pub(super) struct ClientIp(pub(super) IpAddr);

impl FromRequestParts<Shared> for ClientIp {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, location: &Shared) -> Result<Self, CallError> {
        // Without a connection (never, but for a router that is called by hand) everybody is one stranger.
        let direct = parts.extensions.get::<ClientAddress>();
        let direct = direct.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.0.ip());
        if !in_any(&location.config().trusted_proxies, direct) {
            return Ok(Self(direct));
        }
        // The last entry is the one that our own proxy wrote.
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
        let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        Ok(Self(last.unwrap_or(direct)))
    }
}

/// The bearer token (RFC 6750 §2.1). A request without one counts as a stranger's.
pub(super) struct Bearer(pub(super) Secret);

impl FromRequestParts<Shared> for Bearer {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, location: &Shared) -> Result<Self, CallError> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Self(Secret::new(token.trim())))
            }
            _ => {
                let ClientIp(ip) = ClientIp::from_request_parts(parts, location).await?;
                location.count_stranger(ip, Now::read())?;
                Err(CallError::Unauthorised)
            }
        }
    }
}

/// A token was wrong: that counts as a stranger's call, so that guessing is slow.
pub(super) fn count_if_wrong<T>(
    location: &Shared,
    ip: IpAddr,
    result: Result<T, CallError>,
) -> Result<T, CallError> {
    if matches!(result, Err(CallError::Unauthorised)) {
        location.count_stranger(ip, Now::read())?;
    }
    result
}
