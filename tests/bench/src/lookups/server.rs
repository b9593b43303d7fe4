//! Both servers: the location server with many stores registered, and the bare handlers.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};
use lighter_location::config::RatesConfig;
use lighter_location::engine::{Engine, EngineError, Loaded, RedbEngine};
use lighter_location::http::{self, HttpLimits};
use lighter_location::location::Location;
use lighter_location::rows::{Change, EnrolmentRow, RegistrationRow, Row, StoreKey, TokenRow};
use lighter_location::token::TokenKind;
use lighter_location::{Config, api};
use lighter_protocol::{Mailbox, Registration, Signed, UnixTime};
use lighter_transport::Identity;
use lighter_transport::location::{Scope, Secret};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A server that runs until its runtime ends.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) token: Secret,
}

/// What the bare handlers return.
pub(crate) struct Bare {
    pub(crate) one: Vec<u8>,
    pub(crate) many: Vec<u8>,
}

/// The mailbox with this number.
pub(crate) fn mailbox(number: u32) -> String {
    format!("user{number}@lighter.test")
}

impl Running {
    /// The location server: all of it, but for the database, from which questions are not answered.
    pub(crate) async fn location(stores: u32) -> Result<Self> {
        let token = TokenKind::Api.draw(&mut StdRng::seed_from_u64(1));
        let rates = RatesConfig { token_names_per_s: u32::MAX, ..RatesConfig::default() };
        let config = Config { rates, ..Config::default() }.checked()?;
        let engine = Box::new(Generated::new(stores, &token, Identity::generate())?);
        Self::with_engine(config, engine, token).await
    }

    /// The same with a database at `path`, which takes every change; the stores are all `identity`'s.
    pub(crate) async fn durable(stores: u32, identity: Identity, path: &Path) -> Result<Self> {
        let token = TokenKind::Api.draw(&mut StdRng::seed_from_u64(1));
        let rates = RatesConfig { registrations_per_s: 1_000_000, ..RatesConfig::default() };
        let config = Config { rates, ..Config::default() }.checked()?;
        let generated = Generated::new(stores, &token, identity)?;
        let engine = Box::new(Durable { generated, kept: RedbEngine::open(path)? });
        Self::with_engine(config, engine, token).await
    }

    async fn with_engine(config: Config, engine: Box<dyn Engine>, token: Secret) -> Result<Self> {
        let opening = move || Location::with_engine(config, Identity::generate(), engine);
        let location = tokio::task::spawn_blocking(opening).await??;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let app = api::router(&location);
        tokio::spawn(http::serve(listener, None, app, HttpLimits::default(), CancellationToken::new()));
        Ok(Self { address, token })
    }

    /// Handlers that do nothing but return these bytes.
    pub(crate) async fn bare(bodies: Bare) -> Result<Self> {
        for body in [&bodies.one, &bodies.many] {
            let found = body.windows(7).any(|window| window == b"\"peer\":");
            ensure!(found, "the location server did not find the store");
        }
        let json = |body: &Bytes| ([(CONTENT_TYPE, "application/json")], body.clone());
        let (one, many) = (Bytes::from(bodies.one), Bytes::from(bodies.many));
        let app = Router::new()
            .route("/v1/stores/{mailbox}", get(async move || json(&one)))
            .route("/v1/lookup", post(async move |_: Bytes| json(&many)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, token: Secret::new("none") })
    }

    /// A request as clients send it.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let Self { address, token } = self;
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\naccept: */*\r\n",
            token.expose()
        );
        if !body.is_empty() {
            let length = body.len();
            request.push_str(&format!("content-type: application/json\r\ncontent-length: {length}\r\n"));
        }
        format!("{request}\r\n{body}").into_bytes()
    }
}

/// An engine whose rows are made as they are read: so many registered stores, and a token that may look them up.
struct Generated {
    stores: u32,
    token: Row,
    store: Identity,
    registration: Signed<Registration>,
}

impl Generated {
    fn new(stores: u32, token: &Secret, store: Identity) -> Result<Self> {
        let now = UnixTime::now();
        let row = TokenRow {
            id: "bench".to_owned(),
            name: "bench".to_owned(),
            scopes: vec![Scope::Lookup, Scope::Presence],
            created: now,
            expires: None,
            revoked: None,
        };
        // Verified when it comes in, not when it is read from the database: one does for all.
        let registration = Registration {
            mailbox: mailbox(0).parse()?,
            peer: store.peer(),
            addresses: vec!["192.0.2.7:4001".parse()?, "[2001:db8::7]:4001".parse()?],
            sequence: 1,
            expires: now.plus(Duration::from_secs(24 * 3600)),
        };
        let registration = Signed::sign(&registration, store.keypair())?;
        Ok(Self { stores, token: Row::Token(token.hash(), row), store, registration })
    }

    fn key(&self, number: u32) -> Option<StoreKey> {
        let mailbox: Mailbox = mailbox(number).parse().ok()?;
        Some(StoreKey { mailbox, peer: self.store.peer() })
    }
}

impl Engine for Generated {
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<Loaded, EngineError> {
        let enrolled = EnrolmentRow { primary: true, enrolled: UnixTime(0), confirmed: UnixTime(0) };
        for key in (0..self.stores).filter_map(|number| self.key(number)) {
            each(Row::Enrolment(key, enrolled.clone()));
        }
        for key in (0..self.stores).filter_map(|number| self.key(number)) {
            each(Row::Registration(key, RegistrationRow::Registered(self.registration.clone())));
        }
        each(self.token.clone());
        Ok(Loaded { rows: 2 * u64::from(self.stores) + 1, damaged: 0 })
    }

    fn commit(&mut self, _changes: &[Change]) -> Result<(), EngineError> {
        Ok(())
    }
}

/// As [`Generated`] to begin with; every change goes into a database, durably.
struct Durable {
    generated: Generated,
    kept: RedbEngine,
}

impl Engine for Durable {
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<Loaded, EngineError> {
        self.generated.load(each)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), EngineError> {
        self.kept.commit(changes)
    }
}
