//! The handlers, in the order of the API.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lighter_protocol::{Mailbox, Now, PeerId};
use lighter_transport::location::api::{
    Acceptance, AcceptanceChange, ConfirmRequest, DomainAnswer, EnrolAnswer, EnrolRequest, ErrorAnswer,
    ForeignRequest, HostedAcceptanceRequest, HostingAnswer, HostingRegistrations, HostingRequest,
    IntroductionAnswer, IntroductionRequest, LookupAnswer, LookupAnswers, LookupRequest, PingAnswer,
    PrimaryRequest, RegisterAnswer, RegisterRequest, RelayRequest, SpeakerAnswer, SpeakerRequest,
    SuccessionRequest,
};
use lighter_transport::location::{Presence, Scope};

use super::Shared;
use super::extract::{Bearer, Body, ClientIp, count_if_wrong};
use crate::error::CallError;
use crate::http::ClientAddress;

type Answer<T> = Result<Json<T>, CallError>;

/// Who this server is, and for whom it speaks.
#[utoipa::path(get, path = "/v1/domain", tag = "public", responses(
    (status = 200, body = DomainAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn domain(State(location): State<Shared>, ClientIp(ip): ClientIp) -> Answer<DomainAnswer> {
    location.count_stranger(ip, Now::read())?;
    Ok(Json(location.domain()))
}

/// Enrols a store with a single-use token.
#[utoipa::path(post, path = "/v1/enrol", tag = "stores", request_body = EnrolRequest, responses(
    (status = 200, body = EnrolAnswer), (status = 403, body = ErrorAnswer, description = "whatever is wrong"),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn enrol(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Body(request): Body<EnrolRequest>,
) -> Answer<EnrolAnswer> {
    let now = Now::read();
    location.count_stranger(ip, now)?;
    Ok(Json(location.enrol(request, now).await?))
}

/// Rotates a store's key: what the former one was, the next one is from here on.
#[utoipa::path(post, path = "/v1/succession", tag = "stores", request_body = SuccessionRequest, responses(
    (status = 200, body = EnrolAnswer), (status = 403, body = ErrorAnswer, description = "whatever is wrong"),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn succession(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Body(request): Body<SuccessionRequest>,
) -> Answer<EnrolAnswer> {
    let now = Now::read();
    location.count_stranger(ip, now)?;
    Ok(Json(location.succeed(request, now).await?))
}

/// Registers a store's addresses; it counts as online from here on.
#[utoipa::path(post, path = "/v1/register", tag = "stores", request_body = RegisterRequest, responses(
    (status = 200, body = RegisterAnswer), (status = 403, body = ErrorAnswer),
    (status = 409, body = ErrorAnswer, description = "an older sequence number than the last"),
    (status = 422, body = ErrorAnswer, description = "an address that nobody may be told to dial"),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn register(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Body(request): Body<RegisterRequest>,
) -> Answer<RegisterAnswer> {
    let now = Now::read();
    location.count_registration(ip, now)?;
    Ok(Json(location.register(request.registration, request.sealing_key, now).await?))
}

/// The store is still there.
#[utoipa::path(post, path = "/v1/ping", tag = "stores", security(("session" = [])), responses(
    (status = 200, body = PingAnswer), (status = 401, body = ErrorAnswer, description = "register again"),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn ping(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
) -> Answer<PingAnswer> {
    count_if_wrong(&location, ip, location.ping(&session.hash(), Now::read())).map(Json)
}

/// The store goes offline: its addresses are removed.
#[utoipa::path(post, path = "/v1/offline", tag = "stores", security(("session" = [])), responses(
    (status = 204), (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn offline(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
) -> Result<StatusCode, CallError> {
    count_if_wrong(&location, ip, location.offline(&session.hash(), Now::read()).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The store vouches for a further one of its mailbox.
#[utoipa::path(post, path = "/v1/confirm", tag = "stores", security(("session" = [])),
    request_body = ConfirmRequest, responses(
    (status = 204), (status = 401, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn confirm(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(request): Body<ConfirmRequest>,
) -> Result<StatusCode, CallError> {
    let confirmed = location.confirm(&session.hash(), request.peer, Now::read()).await;
    count_if_wrong(&location, ip, confirmed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The user says which of the mailbox's stores is the primary one.
#[utoipa::path(post, path = "/v1/primary", tag = "stores", security(("session" = [])),
    request_body = PrimaryRequest, responses(
    (status = 204), (status = 401, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn primary(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(request): Body<PrimaryRequest>,
) -> Result<StatusCode, CallError> {
    let preferred = location.prefer(&session.hash(), request, Now::read()).await;
    count_if_wrong(&location, ip, preferred)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The mailboxes that the session's store hosts, with an attestation for each, a page at a time.
#[utoipa::path(post, path = "/v1/hosting", tag = "hosted stores", security(("session" = [])),
    request_body = HostingRequest, responses(
    (status = 200, body = HostingAnswer), (status = 401, body = ErrorAnswer),
    (status = 403, body = ErrorAnswer, description = "it hosts none"), (status = 429, body = ErrorAnswer)))]
pub(super) async fn hosting(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(request): Body<HostingRequest>,
) -> Answer<HostingAnswer> {
    let page = location.hosting(&session.hash(), request.after.as_ref(), Now::read());
    count_if_wrong(&location, ip, page).map(Json)
}

/// The session's store takes its mailboxes on: they are online from here on, for as long as it pings.
#[utoipa::path(post, path = "/v1/hosting/registrations", tag = "hosted stores", security(("session" = [])),
    request_body = HostingRegistrations, responses(
    (status = 204), (status = 401, body = ErrorAnswer),
    (status = 403, body = ErrorAnswer, description = "one of them is not its own"),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn hosting_registrations(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(request): Body<HostingRegistrations>,
) -> Result<StatusCode, CallError> {
    let taken = location.register_hosted(&session.hash(), request.sealing_keys, Now::read()).await;
    count_if_wrong(&location, ip, taken)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who learns that the session's store is the store of a mailbox that it hosts.
#[utoipa::path(post, path = "/v1/hosting/acceptance", tag = "hosted stores", security(("session" = [])),
    request_body = HostedAcceptanceRequest, responses(
    (status = 200, body = Acceptance), (status = 401, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
    (status = 429, body = ErrorAnswer)))]
pub(super) async fn hosting_acceptance(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(request): Body<HostedAcceptanceRequest>,
) -> Answer<Acceptance> {
    let acceptance = location.hosted_acceptance(&session.hash(), &request.mailbox, Now::read());
    count_if_wrong(&location, ip, acceptance).map(Json)
}

/// The store of one mailbox, or `none`: the same for unknown, not endowed and not accepted.
#[utoipa::path(get, path = "/v1/stores/{mailbox}", tag = "look-up", security(("token" = ["lookup"]), ("session" = [])),
    params(("mailbox" = String, Path,)), responses(
    (status = 200, body = LookupAnswer, headers(("retry-after" = u32, description = "with a store that is offline"))),
    (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn store(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(bearer): Bearer,
    Path(mailbox): Path<String>,
) -> Result<Response, CallError> {
    let now = Now::read();
    let caller = count_if_wrong(&location, ip, location.lookup_caller(&bearer, now))?;
    // What is no mailbox has no store.
    let Ok(mailbox) = mailbox.parse::<Mailbox>() else {
        return Ok(Json(LookupAnswer { store: None }).into_response());
    };
    let mut answers = location.lookup(&caller, std::slice::from_ref(&mailbox), now)?;
    let answer = answers.pop().unwrap_or(LookupAnswer { store: None });
    let offline = is_offline(&answer);
    Ok(with_retry_after(&location, offline, Json(answer).into_response()))
}

/// The stores of up to 1,000 mailboxes, in the order of the request.
#[utoipa::path(post, path = "/v1/lookup", tag = "look-up", security(("token" = ["lookup"]), ("session" = [])),
    request_body = LookupRequest, responses(
    (status = 200, body = LookupAnswers, headers(("retry-after" = u32, description = "where a store is offline"))),
    (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn lookup(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(bearer): Bearer,
    Body(request): Body<LookupRequest>,
) -> Result<Response, CallError> {
    let now = Now::read();
    let caller = count_if_wrong(&location, ip, location.lookup_caller(&bearer, now))?;
    let caller = location.ask_for(caller, request.sender, now)?;
    let answers = location.lookup(&caller, &request.mailboxes, now)?;
    let offline = answers.iter().any(is_offline);
    Ok(with_retry_after(&location, offline, Json(LookupAnswers { answers }).into_response()))
}

/// The server's word to a recipient's store that the session's store may offer.
#[utoipa::path(post, path = "/v1/introductions", tag = "look-up", security(("session" = [])),
    request_body = IntroductionRequest, responses(
    (status = 200, body = IntroductionAnswer), (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn introduction(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(bearer): Bearer,
    Body(mut request): Body<IntroductionRequest>,
) -> Answer<IntroductionAnswer> {
    let now = Now::read();
    let mut session = count_if_wrong(&location, ip, location.session_of(&bearer, now))?;
    if let Some(sender) = request.sender.take() {
        session = location.session_for(session, sender, now)?;
    }
    Ok(Json(location.introduce(&session, request, now)?))
}

/// The server's word, for other domains, that the session's store sends for all users of a domain.
#[utoipa::path(post, path = "/v1/speaker", tag = "look-up", security(("session" = [])),
    request_body = SpeakerRequest, responses(
    (status = 200, body = SpeakerAnswer), (status = 401, body = ErrorAnswer),
    (status = 403, body = ErrorAnswer, description = "it does not"), (status = 429, body = ErrorAnswer)))]
pub(super) async fn speaker(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(request): Body<SpeakerRequest>,
) -> Answer<SpeakerAnswer> {
    let speaker = location.speaker(&session.hash(), &request.domain, Now::read());
    count_if_wrong(&location, ip, speaker).map(Json)
}

/// A store of another domain looks up. Refused for whatever is wrong with its proof; otherwise answered in the same time,
/// whatever the answer.
#[utoipa::path(post, path = "/v1/foreign/lookup", tag = "other domains", request_body = ForeignRequest, responses(
    (status = 200, body = LookupAnswers, headers(("retry-after" = u32, description = "where a store is offline"))),
    (status = 403, body = ErrorAnswer), (status = 429, body = ErrorAnswer),
    (status = 503, body = ErrorAnswer, description = "the asker's own location server cannot be asked now")))]
pub(super) async fn foreign_lookup(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Body(request): Body<ForeignRequest>,
) -> Result<Response, CallError> {
    let now = Now::read();
    location.count_stranger(ip, now)?;
    let call = location.prove_foreign(&request, now).await?;
    let answers = location.foreign_lookup(call, now).await?;
    let offline = answers.iter().any(is_offline);
    Ok(with_retry_after(&location, offline, Json(LookupAnswers { answers }).into_response()))
}

/// The server's word to a recipient's store that a store of another domain may offer.
#[utoipa::path(post, path = "/v1/foreign/introductions", tag = "other domains", request_body = ForeignRequest,
    responses((status = 200, body = IntroductionAnswer), (status = 403, body = ErrorAnswer),
    (status = 429, body = ErrorAnswer),
    (status = 503, body = ErrorAnswer, description = "the asker's own location server cannot be asked now")))]
pub(super) async fn foreign_introduction(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Body(request): Body<ForeignRequest>,
) -> Answer<IntroductionAnswer> {
    let now = Now::read();
    location.count_stranger(ip, now)?;
    let call = location.prove_foreign(&request, now).await?;
    Ok(Json(location.foreign_introduction(call, now).await?))
}

/// Who learns of the stores of the session's mailbox.
#[utoipa::path(get, path = "/v1/acceptance", tag = "stores", security(("session" = [])), responses(
    (status = 200, body = Acceptance), (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn acceptance(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
) -> Answer<Acceptance> {
    count_if_wrong(&location, ip, location.acceptance(&session.hash(), Now::read())).map(Json)
}

/// Changes who learns of the stores of the session's mailbox.
#[utoipa::path(post, path = "/v1/acceptance", tag = "stores", security(("session" = [])),
    request_body = AcceptanceChange, responses(
    (status = 204), (status = 401, body = ErrorAnswer), (status = 403, body = ErrorAnswer),
    (status = 429, body = ErrorAnswer),
    (status = 507, body = ErrorAnswer, description = "something would be said of too many people")))]
pub(super) async fn change_acceptance(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(session): Bearer,
    Body(change): Body<AcceptanceChange>,
) -> Result<StatusCode, CallError> {
    let changed = location.change_acceptance(&session.hash(), change, Now::read()).await;
    count_if_wrong(&location, ip, changed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Presence as server-sent events: `snapshot` pages, then `change`s; `again` before the server ends the stream.
#[utoipa::path(get, path = "/v1/presence", tag = "relays", security(("token" = ["presence"])), responses(
    (status = 200, content_type = "text/event-stream",
     description = "events `snapshot` (SnapshotPage), `change` (StorePresence), `again`"),
    (status = 401, body = ErrorAnswer), (status = 429, body = ErrorAnswer)))]
pub(super) async fn presence(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(bearer): Bearer,
) -> Result<Response, CallError> {
    count_if_wrong(&location, ip, location.authorise(&bearer, Scope::Presence, Now::read()))?;
    let feed = location.presence_feed()?;
    let events = futures_util::stream::unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(event), feed))
    });
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would hold events back otherwise.
    let unbuffered = (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([content_type, unbuffered], HttpBody::from_stream(events)).into_response())
}

/// A relay makes itself known: attestations name it from now on.
#[utoipa::path(put, path = "/v1/relays", tag = "relays", security(("token" = ["relay"])),
    request_body = RelayRequest, responses(
    (status = 204), (status = 401, body = ErrorAnswer), (status = 422, body = ErrorAnswer),
    (status = 507, body = ErrorAnswer, description = "as many relays as an attestation can name")))]
pub(super) async fn put_relay(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(bearer): Bearer,
    Body(request): Body<RelayRequest>,
) -> Result<StatusCode, CallError> {
    count_if_wrong(&location, ip, location.authorise(&bearer, Scope::Relay, Now::read()))?;
    location.put_relay(request.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a relay out of the attestations made from now on.
#[utoipa::path(delete, path = "/v1/relays/{peer}", tag = "relays", security(("token" = ["relay"])),
    params(("peer" = String, Path,)), responses(
    (status = 204), (status = 401, body = ErrorAnswer), (status = 404, body = ErrorAnswer)))]
pub(super) async fn remove_relay(
    State(location): State<Shared>,
    ClientIp(ip): ClientIp,
    Bearer(bearer): Bearer,
    Path(peer): Path<String>,
) -> Result<StatusCode, CallError> {
    count_if_wrong(&location, ip, location.authorise(&bearer, Scope::Relay, Now::read()))?;
    let peer: PeerId = peer.parse().map_err(|_| CallError::NotFound)?;
    location.remove_relay(peer).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// This API's OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", tag = "public", responses((status = 200)))]
pub(super) async fn openapi() -> Response {
    Json(super::document()).into_response()
}

/// Whether changes can be made.
#[utoipa::path(get, path = "/healthz", tag = "public", responses((status = 200), (status = 503)))]
pub(super) async fn health(State(location): State<Shared>) -> Response {
    if location.is_healthy() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "nothing can be written: see the log\n").into_response()
    }
}

/// Metrics for Prometheus; from this machine only, and not through a proxy on it: what they tell is not for strangers.
#[utoipa::path(get, path = "/metrics", tag = "public", responses((status = 200), (status = 404, body = ErrorAnswer)))]
pub(super) async fn metrics(State(location): State<Shared>, request: Request) -> Result<Response, CallError> {
    let direct = request.extensions().get::<ClientAddress>();
    let is_local = direct.is_some_and(|address| address.0.ip().to_canonical().is_loopback());
    let headers = request.headers();
    let is_proxied = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    if !is_local || is_proxied {
        return Err(CallError::NotFound);
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], location.metrics_text()).into_response())
}

fn is_offline(answer: &LookupAnswer) -> bool {
    answer.store.as_ref().is_some_and(|store| store.presence == Presence::Offline)
}

/// Who asks for a store that is offline is told when asking again may be worth it; listening to presence is better.
fn with_retry_after(location: &Shared, offline: bool, mut response: Response) -> Response {
    if offline {
        let seconds = HeaderValue::from(location.config().ping_interval_s);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
