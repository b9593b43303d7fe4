//! The HTTP API (DESIGN §7): routes, who may call them, and what errors look like. Each handler reads its request,
//! calls [`crate::location::Location`], and writes the answer.

mod answers;
mod extract;
mod handlers;
mod openapi;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::error::CallError;
use crate::limits::{BODY_LEN_MAX, REQUEST_TIME_MAX};
use crate::location::Location;
use crate::metrics::RequestLabels;

pub use openapi::document;

/// What handlers share.
type Shared = Arc<Location>;

/// Every route: method, path, handler. The OpenAPI document names the same ones; a test compares them.
fn routes() -> Vec<(Method, &'static str, MethodRouter<Shared>)> {
    vec![
        (Method::GET, "/v1/domain", get(handlers::domain)),
        (Method::POST, "/v1/enrol", post(handlers::enrol)),
        (Method::POST, "/v1/succession", post(handlers::succession)),
        (Method::POST, "/v1/register", post(handlers::register)),
        (Method::POST, "/v1/ping", post(handlers::ping)),
        (Method::POST, "/v1/offline", post(handlers::offline)),
        (Method::POST, "/v1/confirm", post(handlers::confirm)),
        (Method::POST, "/v1/primary", post(handlers::primary)),
        (Method::POST, "/v1/hosting", post(handlers::hosting)),
        (Method::POST, "/v1/hosting/registrations", post(handlers::hosting_registrations)),
        (Method::POST, "/v1/hosting/acceptance", post(handlers::hosting_acceptance)),
        (Method::GET, "/v1/stores/{mailbox}", get(handlers::store)),
        (Method::POST, "/v1/lookup", post(handlers::lookup)),
        (Method::POST, "/v1/introductions", post(handlers::introduction)),
        (Method::POST, "/v1/speaker", post(handlers::speaker)),
        (Method::POST, "/v1/foreign/lookup", post(handlers::foreign_lookup)),
        (Method::POST, "/v1/foreign/introductions", post(handlers::foreign_introduction)),
        (Method::GET, "/v1/acceptance", get(handlers::acceptance)),
        (Method::POST, "/v1/acceptance", post(handlers::change_acceptance)),
        (Method::GET, "/v1/presence", get(handlers::presence)),
        (Method::PUT, "/v1/relays", put(handlers::put_relay)),
        (Method::DELETE, "/v1/relays/{peer}", delete(handlers::remove_relay)),
        (Method::GET, "/openapi.json", get(handlers::openapi)),
        (Method::GET, "/healthz", get(handlers::health)),
        (Method::GET, "/metrics", get(handlers::metrics)),
    ]
}

/// The API of `location`.
pub fn router(location: &Arc<Location>) -> Router {
    let mut router = Router::new();
    // A path that stands twice has two methods: the router merges them.
    for (_, path, handler) in routes() {
        let location = location.clone();
        let counted = handler.layer(middleware::from_fn(move |request: Request, next: Next| {
            let location = location.clone();
            async move {
                let response = bounded(request, next).await;
                let labels = RequestLabels { route: path, status: response.status().as_u16() };
                location.metrics().requests.get_or_create(&labels).inc();
                response
            }
        }));
        router = router.route(path, counted);
    }
    router
        .fallback(|| async { CallError::NotFound })
        .method_not_allowed_fallback(|State(_): State<Shared>| async { answers::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(location.clone())
}

/// What holds for every route: the body's length is said, and everything has its time.
async fn bounded(request: Request, next: Next) -> Response {
    // A body whose length is not said up front, or said twice (RFC 9112 §6.3), gains a client of this API nothing, and
    // is how requests are smuggled past proxies: refused, and the connection closed.
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        return closing(answers::length_required());
    }
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > BODY_LEN_MAX as u64) {
        return closing(answers::too_large());
    }
    let mut response = match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => CallError::Unavailable.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The rest of the request is not read: the connection ends with this answer.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_names_every_route_and_no_other() {
        let document = serde_json::to_value(document()).unwrap();
        let mut documented = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                documented.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut routed: Vec<_> =
            routes().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        documented.sort();
        routed.sort();
        assert_eq!(documented, routed);
    }
}
