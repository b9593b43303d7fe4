//! Routes, and what holds for every answer.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use lighter_location::http::ClientAddress;
use lighter_location::rate::{NetworkRates, Rate, TooMany};
use lighter_protocol::{Day, Ticket, UnixTime};
use tokio::sync::Semaphore;

use super::attachments::{Attachments, DeliveryView, Opened, RetrievalError};
use super::status::Status;
use super::{download, page};
use crate::limits::{DOWNLOADS_MAX, RETRIEVAL_LATER_SECONDS, WRONG_TICKETS_PER_S};

/// On an answer that says where the bytes have gone: the PeerId of the store that has them, for programs.
const STORE_FIELD: HeaderName = HeaderName::from_static("lighter-store");
/// On an answer that says that their day is over: which one it was, for programs.
const EXPIRED_FIELD: HeaderName = HeaderName::from_static("lighter-expired");

/// Pages: nothing but their own stylesheet, in no frame.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";
/// Bytes: should a browser show them in spite of everything, then without an origin and without scripts.
const BYTES_POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

struct Shared<A, S> {
    attachments: A,
    status: S,
    downloads: Arc<Semaphore>,
    /// Wrong tickets, by the network that they come from.
    wrong: Mutex<NetworkRates>,
}

type SharedState<A, S> = State<Arc<Shared<A, S>>>;

/// Everything that is served.
pub fn router<A: Attachments, S: Status>(attachments: A, status: S) -> Router {
    let wrong = NetworkRates::new(Rate::per_second(WRONG_TICKETS_PER_S, Instant::now()));
    let shared = Shared {
        attachments,
        status,
        downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
        wrong: Mutex::new(wrong),
    };
    Router::new()
        .route("/t/{ticket}", get(landing::<A, S>))
        .route("/t/{ticket}/", get(landing::<A, S>))
        .route("/t/{ticket}/{number}", get(bytes_unnamed::<A, S>))
        .route("/t/{ticket}/{number}/{name}", get(bytes_named::<A, S>))
        .route(page::STYLE_PATH, get(style))
        .route("/robots.txt", get(|| async { "User-agent: *\nDisallow: /\n" }))
        .route("/healthz", get(health::<A, S>))
        .route("/metrics", get(metrics::<A, S>))
        .fallback(|| async { not_found() })
        .layer(middleware::map_response(harden))
        .layer(middleware::from_fn(refuse_bodies))
        .with_state(Arc::new(shared))
}

/// What every answer says, unless it has said so itself.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, "private, no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Nothing here takes a body: who sends one gets no answer from it, and its connection is not used again.
async fn refuse_bodies(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let has_length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let has_body = has_length || headers.contains_key(header::TRANSFER_ENCODING);
    if !has_body {
        return next.run(request).await;
    }
    let close = (header::CONNECTION, "close");
    (StatusCode::BAD_REQUEST, [close], "no body is expected here\n").into_response()
}

async fn landing<A: Attachments, S: Status>(
    State(shared): SharedState<A, S>,
    Path(ticket): Path<String>,
    asked: Parts,
) -> Response {
    match find(&shared, &ticket, &asked).await {
        Ok(view) => Html(page::landing(&ticket, &view)).into_response(),
        Err(refusal) => refusal,
    }
}

async fn bytes_unnamed<A: Attachments, S: Status>(
    state: SharedState<A, S>,
    Path((ticket, number)): Path<(String, String)>,
    asked: Parts,
) -> Response {
    bytes(state, &ticket, &number, asked).await
}

async fn bytes_named<A: Attachments, S: Status>(
    state: SharedState<A, S>,
    Path((ticket, number, _name)): Path<(String, String, String)>,
    asked: Parts,
) -> Response {
    bytes(state, &ticket, &number, asked).await
}

async fn bytes<A: Attachments, S: Status>(
    State(shared): SharedState<A, S>,
    ticket: &str,
    number: &str,
    asked: Parts,
) -> Response {
    let view = match find(&shared, ticket, &asked).await {
        Ok(view) => view,
        Err(refusal) => return refusal,
    };
    let attachment = number.parse().ok().and_then(|number: usize| view.attachments.get(number));
    let Some(attachment) = attachment else { return not_found() };
    // A browser gives up on nothing sooner than on waiting without a word.
    let Ok(permit) = shared.downloads.clone().try_acquire_owned() else { return later() };
    match download::answer(&shared.attachments, attachment, view.accepted, &asked, permit).await {
        Ok(mut response) => {
            let policy = HeaderValue::from_static(BYTES_POLICY);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(RetrievalError::Expired) => expired(view.expires),
        Err(RetrievalError::Damaged) => {
            tracing::error!(blob = %attachment.id, "no copy of an attachment is right");
            (StatusCode::BAD_GATEWAY, Html(page::damaged())).into_response()
        }
        Err(error @ RetrievalError::Unavailable) => {
            tracing::error!(blob = %attachment.id, %error, "an attachment cannot be given out");
            later()
        }
    }
}

/// The delivery that `ticket` opens, if its bytes can be had here; otherwise what to answer.
// SPEC: A22
async fn find<A: Attachments, S: Status>(
    shared: &Shared<A, S>,
    ticket: &str,
    asked: &Parts,
) -> Result<DeliveryView<A::Blob>, Response> {
    let found = match ticket.parse::<Ticket>() {
        Ok(ticket) => shared.attachments.find(ticket.hash()).await.map_err(|_| later())?,
        Err(_) => None,
    };
    let Some(view) = found else {
        return Err(match count_wrong(shared, asked) {
            Ok(()) => not_found(),
            Err(too_many) => slow_down(too_many),
        });
    };
    match view.opened {
        Opened::At(store) => {
            let html = Html(page::gone(&view, &store));
            let field = [(STORE_FIELD, store.to_string())];
            Err((StatusCode::GONE, field, html).into_response())
        }
        Opened::Withdrawn => Err((StatusCode::GONE, Html(page::withdrawn())).into_response()),
        // Over since the end of its last day, whether the rows are swept away yet or not.
        Opened::Here if view.expires.end() <= UnixTime::now() => Err(expired(view.expires)),
        Opened::Here => Ok(view),
    }
}

fn count_wrong<A, S>(shared: &Shared<A, S>, asked: &Parts) -> Result<(), TooMany> {
    let address = asked.extensions.get::<ClientAddress>();
    let address = address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.0.ip());
    shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).take(address, Instant::now())
}

/// The ticket was good, and its day is over: 410, not 404 (RFC 9110 §15.5.11). Only who was given the ticket hears it.
fn expired(day: Day) -> Response {
    (StatusCode::GONE, [(EXPIRED_FIELD, page::iso_date(day))], Html(page::expired(day))).into_response()
}

/// The one answer for unknown and revoked tickets, and for paths that are none.
fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Html(page::not_found())).into_response()
}

fn later() -> Response {
    let retry_after = [(header::RETRY_AFTER, RETRIEVAL_LATER_SECONDS.to_string())];
    (StatusCode::SERVICE_UNAVAILABLE, retry_after, Html(page::later())).into_response()
}

fn slow_down(too_many: TooMany) -> Response {
    let retry_after = [(header::RETRY_AFTER, (too_many.retry_after.as_secs() + 1).to_string())];
    (StatusCode::TOO_MANY_REQUESTS, retry_after, Html(page::later())).into_response()
}

/// The one thing that may be cached: its path changes with its content.
async fn style() -> Response {
    let fields = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=604800, immutable"),
    ];
    (fields, page::STYLE).into_response()
}

async fn health<A: Attachments, S: Status>(State(shared): SharedState<A, S>) -> Response {
    match shared.status.trouble() {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

/// From this machine only, and not through a proxy on it: what metrics tell is not for strangers.
async fn metrics<A: Attachments, S: Status>(State(shared): SharedState<A, S>, asked: Parts) -> Response {
    let address = asked.extensions.get::<ClientAddress>();
    let is_local = address.is_some_and(|address| address.0.ip().to_canonical().is_loopback());
    let headers = asked.headers;
    let is_proxied = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    if !is_local || is_proxied {
        return not_found();
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], shared.status.metrics().await).into_response()
}
