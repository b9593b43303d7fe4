//! The client: one method for each call of the API.

use std::error::Error as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use lighter_protocol::signed::SignedError;
use lighter_protocol::{
    Introduction, Keypair, Mailbox, PeerId, Registration, RelayRecord, SealingKey, Signed, Succession,
    UnixTime,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{
    Acceptance, AcceptanceChange, ConfirmRequest, DomainAnswer, EnrolAnswer, EnrolRequest, Enrolment,
    ForeignRequest, HostedAcceptanceRequest, HostingAnswer, HostingRegistrations, HostingRequest,
    IntroductionAnswer, IntroductionRequest, LookupAnswers, LookupRequest, PingAnswer, PrimaryRequest,
    RegisterAnswer, RegisterRequest, RelayRequest, Secret, SpeakerAnswer, SpeakerRequest, StoreRecord,
    SuccessionRequest,
};
use super::connect::{HttpClient, http_client_with};
use super::error::{LocationError, LocationSetupError};
use super::finding::resolve::{Guarded, HostResolver};
use super::foreign::{Asker, ForeignAsk, Speaker, SpeaksFor};
use super::limits::{
    ANSWER_LEN_MAX, FOREIGN_NAMES_MAX, HOSTED_PAGE_MAX, HOSTING_STATE_LEN_MAX, LOOKUP_NAMES_MAX,
    REQUEST_TIMEOUT, STALE_TRIES_MAX,
};
use super::presence::PresenceEvents;
use crate::proxy::Proxies;

/// A location server, reached over HTTP: cheap to clone, connections are kept and shared.
#[derive(Clone, Debug)]
pub struct LocationClient {
    base: Arc<str>,
    http: Arc<RwLock<HttpClient>>,
    https: bool,
    ca_file: Option<Arc<Path>>,
    proxies: Proxies,
    resolver: HostResolver,
}

impl LocationClient {
    /// A client for the server at `url` (`http://host:port` or `https://host`, no path). For `https` the system's
    /// certificates are trusted, or only those in `ca_file`. Nothing is connected yet.
    ///
    /// # Errors
    /// Where the address is none, or nothing can be trusted.
    pub fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, LocationSetupError> {
        Self::new_through(url, ca_file, Proxies::of_environment())
    }

    /// As [`LocationClient::new`], through other proxies than those that the environment names.
    ///
    /// # Errors
    /// As [`LocationClient::new`].
    pub fn new_through(
        url: &str,
        ca_file: Option<&Path>,
        proxies: Proxies,
    ) -> Result<Self, LocationSetupError> {
        Self::resolved(url, ca_file, HostResolver::system(), proxies)
    }

    /// A client for a server that a foreign domain named: never through a proxy, which would resolve the name itself.
    pub(super) fn guarded(
        url: &str,
        ca_file: Option<&Path>,
        guarded: Guarded,
    ) -> Result<Self, LocationSetupError> {
        Self::resolved(url, ca_file, HostResolver::Guarded(guarded), Proxies::none())
    }

    fn resolved(
        url: &str,
        ca_file: Option<&Path>,
        resolver: HostResolver,
        proxies: Proxies,
    ) -> Result<Self, LocationSetupError> {
        let uri: Uri = url.parse().map_err(|_| LocationSetupError::Url)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(LocationSetupError::Url);
        };
        let plain_path = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let https = scheme == "https";
        if !(https || scheme == "http") || !plain_path || authority.as_str().contains('@') {
            return Err(LocationSetupError::Url);
        }
        if !https && !is_loopback(authority.host()) {
            tracing::warn!(%url, "tokens travel in the clear: this location server is neither https nor on this machine");
        }
        let http = http_client_with(https, ca_file, resolver.clone(), &proxies)?;
        let http = Arc::new(RwLock::new(http));
        Ok(Self {
            base: format!("{scheme}://{authority}").into(),
            http,
            https,
            ca_file: ca_file.map(Into::into),
            proxies,
            resolver,
        })
    }

    /// Lets go of the connections that are kept: this machine is on another network, and from its address of before nothing
    /// can be sent any more. What is under way on them goes on.
    pub fn forget_connections(&self) {
        let new = http_client_with(self.https, self.ca_file.as_deref(), self.resolver.clone(), &self.proxies);
        match new {
            Ok(new) => *self.http.write().unwrap_or_else(PoisonError::into_inner) = new,
            Err(error) => tracing::warn!(%error, "the connections to the location server are kept"),
        }
    }

    /// The server's address, as given, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Who the server is, and for whom it speaks.
    ///
    /// # Errors
    /// See [`LocationError`], here and below.
    pub async fn domain(&self) -> Result<DomainAnswer, LocationError> {
        self.ask(Method::GET, "/v1/domain", None, NOTHING).await
    }

    /// Enrols the store whose key is `key` for `mailbox`, with the single-use `token` that the admin made.
    ///
    /// # Errors
    /// [`LocationError::Refused`] for a token that is wrong, used, expired or for somebody else.
    pub async fn enrol(
        &self,
        key: &Keypair,
        token: &Secret,
        mailbox: &Mailbox,
    ) -> Result<EnrolAnswer, LocationError> {
        let peer = key.public().to_peer_id();
        let statement = Enrolment { token_hash: token.hash(), mailbox: mailbox.clone(), peer };
        let proof = Signed::sign(&statement, key).map_err(cannot_sign)?;
        let request =
            EnrolRequest { token: token.expose().to_owned(), mailbox: mailbox.clone(), peer, proof };
        self.ask(Method::POST, "/v1/enrol", None, Some(&request)).await
    }

    /// Rotates the key of `mailbox`'s store from `former` to `next`: what the one was, the other is from then on. Asked again,
    /// the answer is the same.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where the former key is no store of the mailbox, where it hosts others' mailboxes, or where
    /// the next one was a store of it before.
    pub async fn succeed(
        &self,
        former: &Keypair,
        next: &Keypair,
        mailbox: &Mailbox,
        sealing_key: Option<&Signed<SealingKey>>,
    ) -> Result<(EnrolAnswer, Signed<Succession>), LocationError> {
        let statement = Succession {
            mailbox: mailbox.clone(),
            former: former.public().to_peer_id(),
            next: next.public().to_peer_id(),
            time: UnixTime::now(),
        };
        let sign = |key| Signed::sign(&statement, key).map_err(cannot_sign);
        let (succession, agreed) = (sign(former)?, sign(next)?);
        let request =
            SuccessionRequest { succession: succession.clone(), agreed, sealing_key: sealing_key.cloned() };
        let answer = self.ask(Method::POST, "/v1/succession", None, Some(&request)).await?;
        Ok((answer, succession))
    }

    /// Registers a store's addresses; from here on it counts as online. The answer's session goes into the calls below.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where the store is not enrolled, [`LocationError::Stale`] where the sequence number
    /// is not above the last, [`LocationError::Address`] where an address may not be registered.
    pub async fn register(
        &self,
        registration: &Signed<Registration>,
    ) -> Result<RegisterAnswer, LocationError> {
        self.register_sealed(registration, None).await
    }

    /// As [`LocationClient::register`]; says also what drops for this store are sealed to.
    ///
    /// # Errors
    /// As with [`LocationClient::register`]; [`LocationError::Refused`] also where the sealing key is another store's.
    pub async fn register_sealed(
        &self,
        registration: &Signed<Registration>,
        sealing_key: Option<&Signed<SealingKey>>,
    ) -> Result<RegisterAnswer, LocationError> {
        let request =
            RegisterRequest { registration: registration.clone(), sealing_key: sealing_key.cloned() };
        self.ask(Method::POST, "/v1/register", None, Some(&request)).await
    }

    /// Still here.
    ///
    /// # Errors
    /// [`LocationError::Unauthorised`]: the server does not know the session any more: register again.
    pub async fn ping(&self, session: &Secret) -> Result<PingAnswer, LocationError> {
        self.ask(Method::POST, "/v1/ping", Some(session), NOTHING).await
    }

    /// Going offline: the server removes the addresses, and the session ends (SPEC A13).
    ///
    /// # Errors
    /// See [`LocationError`].
    pub async fn offline(&self, session: &Secret) -> Result<(), LocationError> {
        self.tell(Method::POST, "/v1/offline", session, NOTHING).await
    }

    /// Confirms a further store of the session's mailbox before its 24 hours are over.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where there is no such store, or this one is itself pending.
    pub async fn confirm(&self, session: &Secret, peer: PeerId) -> Result<(), LocationError> {
        self.tell(Method::POST, "/v1/confirm", session, Some(&ConfirmRequest { peer })).await
    }

    /// Says which of the session's mailbox's stores is the primary one.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where that is no confirmed store of it, or this one is itself pending.
    pub async fn prefer(&self, session: &Secret, peer: PeerId) -> Result<(), LocationError> {
        self.tell(Method::POST, "/v1/primary", session, Some(&PrimaryRequest { peer })).await
    }

    /// A page of the mailboxes that the session's store is the hosted store of (SPEC A29): those behind `after`.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where it is no hosted store; see [`LocationError`].
    pub async fn hosting(
        &self,
        session: &Secret,
        after: Option<&Mailbox>,
    ) -> Result<HostingAnswer, LocationError> {
        let request = HostingRequest { after: after.cloned() };
        let answer: HostingAnswer =
            self.ask(Method::POST, "/v1/hosting", Some(session), Some(&request)).await?;
        let is_sound = answer.mailboxes.len() <= HOSTED_PAGE_MAX
            && answer.state.len() <= HOSTING_STATE_LEN_MAX
            && !(answer.more && answer.mailboxes.is_empty());
        if is_sound { Ok(answer) } else { Err(LocationError::Malformed) }
    }

    /// The session's store takes its mailboxes on: what drops for them are sealed to. At most [`HOSTED_KEYS_MAX`].
    ///
    /// # Errors
    /// [`LocationError::Refused`] where one is not its own any more: ask again which are.
    ///
    /// [`HOSTED_KEYS_MAX`]: super::limits::HOSTED_KEYS_MAX
    pub async fn register_hosted(
        &self,
        session: &Secret,
        sealing_keys: Vec<Signed<SealingKey>>,
    ) -> Result<(), LocationError> {
        let request = HostingRegistrations { sealing_keys };
        self.tell(Method::POST, "/v1/hosting/registrations", session, Some(&request)).await
    }

    /// The stores of `mailboxes`, in their order; `None` is the one answer for unknown, not endowed and not accepted.
    /// `bearer` is an API token with scope `lookup`, or a store's session. More than
    /// [`LOOKUP_NAMES_MAX`] are asked for in several requests.
    ///
    /// # Errors
    /// See [`LocationError`]; one request's failure is the whole call's.
    pub async fn lookup(
        &self,
        bearer: &Secret,
        mailboxes: &[Mailbox],
    ) -> Result<Vec<Option<StoreRecord>>, LocationError> {
        self.lookup_for(bearer, None, mailboxes).await
    }

    /// As [`LocationClient::lookup`], by an outgoing mail server's session for `sender`.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where it does not speak for them; as [`LocationClient::lookup`].
    pub async fn lookup_for(
        &self,
        bearer: &Secret,
        sender: Option<&Mailbox>,
        mailboxes: &[Mailbox],
    ) -> Result<Vec<Option<StoreRecord>>, LocationError> {
        let mut stores = Vec::with_capacity(mailboxes.len());
        for names in mailboxes.chunks(LOOKUP_NAMES_MAX) {
            let request = LookupRequest { mailboxes: names.to_vec(), sender: sender.cloned() };
            let answer: LookupAnswers =
                self.ask(Method::POST, "/v1/lookup", Some(bearer), Some(&request)).await?;
            if answer.answers.len() != names.len() {
                return Err(LocationError::Malformed);
            }
            stores.extend(answer.answers.into_iter().map(|answer| answer.store));
        }
        Ok(stores)
    }

    /// The store of one mailbox.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub async fn lookup_one(
        &self,
        bearer: &Secret,
        mailbox: &Mailbox,
    ) -> Result<Option<StoreRecord>, LocationError> {
        let mut stores = self.lookup(bearer, std::slice::from_ref(mailbox)).await?;
        Ok(stores.pop().flatten())
    }

    /// The server's word that the session's store may offer `bytes` to `recipient`'s; `None` is the same as in
    /// [`LocationClient::lookup`].
    ///
    /// # Errors
    /// See [`LocationError`].
    pub async fn introduction(
        &self,
        session: &Secret,
        recipient: &Mailbox,
        bytes: u64,
    ) -> Result<Option<Signed<Introduction>>, LocationError> {
        self.introduction_for(session, None, recipient, bytes).await
    }

    /// As [`LocationClient::introduction`], by an outgoing mail server's session for `sender`.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where it does not speak for them; see [`LocationError`].
    pub async fn introduction_for(
        &self,
        session: &Secret,
        sender: Option<&Mailbox>,
        recipient: &Mailbox,
        bytes: u64,
    ) -> Result<Option<Signed<Introduction>>, LocationError> {
        let request = IntroductionRequest { recipient: recipient.clone(), bytes, sender: sender.cloned() };
        let answer: IntroductionAnswer =
            self.ask(Method::POST, "/v1/introductions", Some(session), Some(&request)).await?;
        Ok(answer.introduction)
    }

    /// The server's word, for other domains, that the session's store sends for all users of `domain`.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where it does not; see [`LocationError`].
    pub async fn speaker(&self, session: &Secret, domain: &str) -> Result<Signed<Speaker>, LocationError> {
        let request = SpeakerRequest { domain: domain.to_owned() };
        let answer: SpeakerAnswer =
            self.ask(Method::POST, "/v1/speaker", Some(session), Some(&request)).await?;
        Ok(answer.speaker)
    }

    /// As [`LocationClient::lookup`], at another domain's location server, whose key is `server`. More than
    /// [`FOREIGN_NAMES_MAX`] are asked for in several requests.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where the asker's proof does not count there; see [`LocationError`].
    pub async fn foreign_lookup(
        &self,
        asker: &Asker<'_>,
        server: PeerId,
        mailboxes: &[Mailbox],
    ) -> Result<Vec<Option<StoreRecord>>, LocationError> {
        self.foreign_lookup_for(asker, None, server, mailboxes).await
    }

    /// As [`LocationClient::foreign_lookup`], by an outgoing mail server for one of the users it speaks for.
    ///
    /// # Errors
    /// As [`LocationClient::foreign_lookup`].
    pub async fn foreign_lookup_for(
        &self,
        asker: &Asker<'_>,
        speaks_for: Option<SpeaksFor<'_>>,
        server: PeerId,
        mailboxes: &[Mailbox],
    ) -> Result<Vec<Option<StoreRecord>>, LocationError> {
        let mut stores = Vec::with_capacity(mailboxes.len());
        for names in mailboxes.chunks(FOREIGN_NAMES_MAX) {
            let request = foreign(asker, speaks_for, server, ForeignAsk::Lookup(names.to_vec()))?;
            let answer: LookupAnswers =
                self.ask(Method::POST, "/v1/foreign/lookup", None, Some(&request)).await?;
            if answer.answers.len() != names.len() {
                return Err(LocationError::Malformed);
            }
            stores.extend(answer.answers.into_iter().map(|answer| answer.store));
        }
        Ok(stores)
    }

    /// As [`LocationClient::introduction`], at another domain's location server.
    ///
    /// # Errors
    /// As [`LocationClient::foreign_lookup`].
    pub async fn foreign_introduction(
        &self,
        asker: &Asker<'_>,
        server: PeerId,
        recipient: &Mailbox,
        bytes: u64,
    ) -> Result<Option<Signed<Introduction>>, LocationError> {
        self.foreign_introduction_for(asker, None, server, recipient, bytes).await
    }

    /// As [`LocationClient::foreign_introduction`], by an outgoing mail server for one of the users it speaks for.
    ///
    /// # Errors
    /// As [`LocationClient::foreign_lookup`].
    pub async fn foreign_introduction_for(
        &self,
        asker: &Asker<'_>,
        speaks_for: Option<SpeaksFor<'_>>,
        server: PeerId,
        recipient: &Mailbox,
        bytes: u64,
    ) -> Result<Option<Signed<Introduction>>, LocationError> {
        let ask = ForeignAsk::Introduction { recipient: recipient.clone(), bytes };
        let request = foreign(asker, speaks_for, server, ask)?;
        let answer: IntroductionAnswer =
            self.ask(Method::POST, "/v1/foreign/introductions", None, Some(&request)).await?;
        Ok(answer.introduction)
    }

    /// What the session's mailbox has chosen: who learns of its stores.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub async fn acceptance(&self, session: &Secret) -> Result<Acceptance, LocationError> {
        self.ask(Method::GET, "/v1/acceptance", Some(session), NOTHING).await
    }

    /// What a mailbox has chosen that the session's store is the hosted store of.
    ///
    /// # Errors
    /// [`LocationError::Refused`] where it is not, or the user has a store of their own.
    pub async fn acceptance_of(
        &self,
        session: &Secret,
        mailbox: &Mailbox,
    ) -> Result<Acceptance, LocationError> {
        let request = HostedAcceptanceRequest { mailbox: mailbox.clone() };
        self.ask(Method::POST, "/v1/hosting/acceptance", Some(session), Some(&request)).await
    }

    /// Changes that.
    ///
    /// # Errors
    /// [`LocationError::Full`] where something is said of too many people; see [`LocationError`].
    pub async fn change_acceptance(
        &self,
        session: &Secret,
        change: &AcceptanceChange,
    ) -> Result<(), LocationError> {
        self.tell(Method::POST, "/v1/acceptance", session, Some(change)).await
    }

    /// Makes a relay known: attestations name it from now on. `token` needs the scope `relay`.
    ///
    /// # Errors
    /// [`LocationError::Full`] where the server knows as many relays as an attestation can name.
    pub async fn put_relay(&self, token: &Secret, relay: &RelayRecord) -> Result<(), LocationError> {
        let request = RelayRequest::from(relay.clone());
        self.tell(Method::PUT, "/v1/relays", token, Some(&request)).await
    }

    /// Takes a relay out of the attestations made from now on.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub async fn remove_relay(&self, token: &Secret, relay: PeerId) -> Result<(), LocationError> {
        self.tell(Method::DELETE, &format!("/v1/relays/{relay}"), token, NOTHING).await
    }

    /// The presence of all stores, as it changes: a stream that opens itself again whenever it breaks. `token` needs
    /// the scope `presence`.
    pub fn presence(&self, token: &Secret) -> PresenceEvents {
        PresenceEvents::new(self.clone(), token.clone())
    }

    /// Opens the presence stream once.
    pub(super) async fn open_presence(&self, token: &Secret) -> Result<Incoming, LocationError> {
        let send = async {
            let response = self.send(Method::GET, "/v1/presence", Some(token), NOTHING).await?;
            if response.status() == StatusCode::OK { Ok(response) } else { Err(refusal(response).await) }
        };
        Ok(in_time(send).await?.into_body())
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&Secret>,
        request: Option<&impl Serialize>,
    ) -> Result<A, LocationError> {
        in_time(async {
            let response = self.send(method, path, bearer, request).await?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            let body = read_body(response).await?;
            serde_json::from_slice(&body).map_err(|_| LocationError::Malformed)
        })
        .await
    }

    async fn tell(
        &self,
        method: Method,
        path: &str,
        bearer: &Secret,
        request: Option<&impl Serialize>,
    ) -> Result<(), LocationError> {
        in_time(async {
            let response = self.send(method, path, Some(bearer), request).await?;
            if response.status().is_success() { Ok(()) } else { Err(refusal(response).await) }
        })
        .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&Secret>,
        request: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, LocationError> {
        let mut tries = if may_be_repeated(&method, path) { STALE_TRIES_MAX } else { 1 };
        let mut builder = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(bearer) = bearer {
            builder = builder.header(AUTHORIZATION, format!("Bearer {}", bearer.expose()));
        }
        builder = builder.header(ACCEPT, "application/json, text/event-stream");
        let body = match request {
            Some(request) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(request).map_err(|_| LocationError::NotUnderstood)?
            }
            None => Vec::new(),
        };
        // A token with a line end in it cannot be one: the same as one that the server does not know.
        let request = builder.body(Full::new(Bytes::from(body))).map_err(|_| LocationError::Unauthorised)?;
        let http = self.http.read().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            tries -= 1;
            match http.request(request.clone()).await {
                Err(error) if tries > 0 && is_broken_off(&error) => {}
                answered => return answered.map_err(LocationError::unreachable),
            }
        }
    }
}

/// Whether a request may come twice: where the method says so (RFC 9110 §9.2.2), and where it asks for something, or says what
/// stays the same when it is said again. Not enrolling and registering: a token and a sequence number are good once.
fn may_be_repeated(method: &Method, path: &str) -> bool {
    method.is_idempotent()
        || matches!(
            path,
            "/v1/ping"
                | "/v1/offline"
                | "/v1/lookup"
                | "/v1/introductions"
                | "/v1/speaker"
                | "/v1/hosting"
                | "/v1/hosting/acceptance"
        )
}

/// Whether the connection ended before an answer came: one that was kept, most likely, and that the server closed just then (RFC
/// 9112 §9.3.1). What was not even sent is sent again by the HTTP client itself.
fn is_broken_off(error: &hyper_util::client::legacy::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let Some(error) = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()) else {
        return false;
    };
    let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || io.is_some_and(|io| {
            matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        })
}

/// No request body.
const NOTHING: Option<&()> = None;

async fn in_time<T>(work: impl Future<Output = Result<T, LocationError>>) -> Result<T, LocationError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(done) => done,
        Err(elapsed) => Err(LocationError::unreachable(elapsed)),
    }
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes, LocationError> {
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(LocationError::Malformed),
        Err(error) => Err(LocationError::Unreachable(error)),
    }
}

async fn refusal(response: Response<Incoming>) -> LocationError {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    match read_body(response).await {
        Ok(body) => LocationError::from_answer(status, retry_after, &body),
        Err(_) => LocationError::from_answer(status, retry_after, b""),
    }
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); our server never sends the date form.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn foreign(
    asker: &Asker<'_>,
    speaks_for: Option<SpeaksFor<'_>>,
    server: PeerId,
    ask: ForeignAsk,
) -> Result<ForeignRequest, LocationError> {
    let ask = match speaks_for {
        Some(SpeaksFor { sender, .. }) => ask.on_behalf_of(sender.clone()),
        None => ask,
    };
    let question = asker.sign(server, ask, UnixTime::now()).map_err(cannot_sign)?;
    let speaker = speaks_for.map(|speaks_for| speaks_for.speaker.clone());
    Ok(ForeignRequest { attestation: asker.attestation.clone(), question, speaker })
}

fn cannot_sign(_: SignedError) -> LocationError {
    LocationError::Refused
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}
