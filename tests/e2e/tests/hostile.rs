//! Hostile peers, all at once, against a real agent and a real relay on their QUIC ports: an honest message goes through
//! meanwhile, memory stays bounded, and nobody falls over. Each attack by itself: the tests named in docs/SECURITY.md.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lighter_harness::mail::TestMessage;
use lighter_harness::watch::{wait_for_mail, wait_for_receipts};
use lighter_harness::{Process, World};
use lighter_protocol::limits::OFFER_BLOBS_MAX;
use lighter_protocol::wire::{
    Get, GetBlobs, Offer, OfferedBlob, Push, PushPart, Request, Response, Waiting, decode, encode,
};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Introduction, Mailbox, Receipt, Signed, Statement, UnixTime,
};
use lighter_transport::{Identity, tls};
use quinn::crypto::rustls::QuicClientConfig;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The honest message's attachment.
const SIZE: u64 = 20_000_000;
/// What each program may have resident at its peak, with everybody at it: the longest messages that are read at once
/// (64 of 1 MiB), 1,024 handshakes and connections from one address, and what it needs anyway.
const PEAK_MAX: u64 = 256 << 20;
/// Connections of those who come, prove who they are, and say nothing.
const SILENT: u32 = 1_000;
/// Longer than anything that is waited for takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Somebody with a key of their own, on an address of their own, who speaks QUIC as they like.
#[derive(Clone)]
struct Attacker {
    identity: Identity,
    endpoint: quinn::Endpoint,
    target: SocketAddr,
    mailbox: Mailbox,
}

impl Attacker {
    /// One that is as well known as anybody: any key may connect.
    fn new(number: u8, target: SocketAddr, mailbox: &Mailbox) -> Result<Self> {
        let identity = Identity::generate();
        let crypto =
            QuicClientConfig::try_from(tls::client_config(&identity, None, lighter_protocol::wire::ALPN)?)?;
        // Each at an address of its own: the honest ones are not to suffer from what is counted by address.
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::new(127, 0, 1, number), 0).into())?;
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        Ok(Self { identity, endpoint, target, mailbox: mailbox.clone() })
    }

    /// A connection that is open, as far as the other side lets it.
    async fn connect(&self) -> Result<quinn::Connection> {
        let connection = timeout(PATIENCE, self.endpoint.connect(self.target, "127.0.0.1")?).await??;
        ensure!(self.ask(&connection, &Request::Ping).await? == Some(Response::Pong), "no pong");
        Ok(connection)
    }

    /// Says it, and hears the answer; none where the stream or the connection is ended instead.
    async fn ask(&self, connection: &quinn::Connection, request: &Request) -> Result<Option<Response>> {
        let said = encode(request)?;
        let answer = async {
            let (mut send, mut receive) = connection.open_bi().await.ok()?;
            send.write_all(&said).await.ok()?;
            send.finish().ok()?;
            receive.read_to_end(1 << 20).await.ok()
        };
        let answer = timeout(PATIENCE, answer).await.context("no answer in time")?;
        Ok(answer.filter(|answer| answer.len() > 4).map(|answer| decode(&answer[4..])).transpose()?)
    }

    /// As [`Attacker::ask`]: what it says opens nothing.
    async fn is_refused(&self, request: &Request, what: &str) -> Result<()> {
        let connection = self.connect().await?;
        let answer = self.ask(&connection, request).await?;
        connection.close(0_u32.into(), b"");
        ensure!(matches!(answer, None | Some(Response::Refused)), "{what}: {answer:?}");
        Ok(())
    }

    fn signed<T: Statement>(&self, statement: &T) -> Result<Signed<T>> {
        Ok(Signed::sign(statement, self.identity.keypair())?)
    }

    fn offer(&self, blobs: usize) -> Result<Offer> {
        let now = UnixTime::now();
        let blob = |number: usize| OfferedBlob {
            id: BlobId::of(&number.to_le_bytes()),
            size: 1 << 40,
            name: "n".repeat(200),
            media_type: "x/y".to_owned(),
        };
        let introduction = Introduction {
            sender: self.identity.peer(),
            sender_mailbox: self.mailbox.clone(),
            recipient: self.mailbox.clone(),
            bytes_max: u64::MAX,
            expires: now.plus(Duration::from_secs(600)),
            number: 1,
        };
        Ok(Offer {
            delivery: DeliveryId(rand::random()),
            mailbox: self.mailbox.clone(),
            manifest: blob(0),
            blobs: (1..=blobs).map(blob).collect(),
            sources: Vec::new(),
            expires: now.plus(Duration::from_secs(3_600)),
            introduction: Some(self.signed(&introduction)?),
        })
    }

    /// Statements of every kind that it signed itself, since nobody else would.
    async fn forges(self) -> Result<()> {
        let now = UnixTime::now();
        let attestation = Attestation {
            mailbox: self.mailbox.clone(),
            peer: self.identity.peer(),
            primary: true,
            relays: Vec::new(),
            issued: now,
            expires: now.plus(Duration::from_secs(3_600)),
        };
        let attestation = self.signed(&attestation)?;
        let receipt = Receipt {
            delivery: DeliveryId([1; 16]),
            mailbox: self.mailbox.clone(),
            store: self.identity.peer(),
            manifest: BlobId([1; 32]),
            time: now,
        };
        let get = Get {
            delivery: DeliveryId([1; 16]),
            blob: BlobId([1; 32]),
            ranges: Vec::new(),
            attestation: Some(attestation.clone()),
        };
        let many =
            GetBlobs { delivery: get.delivery, blobs: vec![get.blob], attestation: get.attestation.clone() };
        for _ in 0..10 {
            self.is_refused(&Request::Receipt(self.signed(&receipt)?), "a receipt").await?;
            self.is_refused(&Request::Waiting(Waiting { attestation: attestation.clone() }), "a store")
                .await?;
            self.is_refused(&Request::Get(get.clone()), "a get").await?;
            self.is_refused(&Request::GetBlobs(many.clone()), "a get of many").await?;
            self.is_refused(&Request::Offer(self.offer(1)?), "an introduction").await?;
            self.is_refused(&Request::PushOffer(self.offer(1)?), "an introduction").await?;
        }
        Ok(())
    }

    /// Offers as long as they may be, as many at once as the connection takes.
    async fn floods(self) -> Result<()> {
        let offer = Request::Offer(self.offer(OFFER_BLOBS_MAX)?);
        let connection = self.connect().await?;
        let mut asking = JoinSet::new();
        for _ in 0..100 {
            let (own, connection, offer) = (self.clone(), connection.clone(), offer.clone());
            asking.spawn(async move { own.ask(&connection, &offer).await });
        }
        while let Some(answer) = asking.join_next().await {
            let answer = answer??;
            ensure!(
                matches!(answer, None | Some(Response::Refused | Response::Later(_))),
                "an offer: {answer:?}"
            );
        }
        Ok(())
    }

    /// Bytes that mean nothing, on one stream after the other, until it is shown the door; a few times.
    async fn babbles(self, seed: u64) -> Result<()> {
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..5 {
            let connection = self.connect().await?;
            let mut said = 0;
            while said < 1_000 {
                let mut noise = vec![0; chance.random_range(1..5_000)];
                chance.fill_bytes(&mut noise);
                let babbled = async {
                    let (mut send, mut receive) = connection.open_bi().await.ok()?;
                    // It may be told to stop before all is said.
                    let _ = send.write_all(&noise).await;
                    let _ = send.finish();
                    let _ = receive.read_to_end(1 << 20).await;
                    connection.close_reason().is_none().then_some(())
                };
                if timeout(PATIENCE, babbled).await?.is_none() {
                    break;
                }
                said += 1;
            }
            ensure!(said < 1_000, "nobody minds");
        }
        Ok(())
    }

    /// A request that never ends, as fast as it is taken.
    async fn drones(self) -> Result<()> {
        let connection = self.connect().await?;
        for _ in 0..8 {
            let Ok((mut send, _receive)) = connection.open_bi().await else { break };
            // The longest length that may be: then it goes on beyond that.
            let droned = async {
                send.write_all(&(1_u32 << 20).to_be_bytes()).await?;
                for _ in 0..64 {
                    send.write_all(&[0x55; 64 * 1024]).await?;
                }
                Ok::<_, quinn::WriteError>(())
            };
            ensure!(!matches!(timeout(PATIENCE, droned).await, Ok(Ok(()))), "4 MiB were taken for a request");
        }
        Ok(())
    }

    /// Pushes that nobody waits for, without end, on as many streams as there may be.
    async fn pushes(self) -> Result<()> {
        let connection = self.connect().await?;
        let part = PushPart { blob: BlobId([1; 32]), ranges: vec![(0, 1 << 40)] };
        let push = encode(&Request::Push(Push { delivery: DeliveryId([1; 16]), parts: vec![part] }))?;
        let mut pushing = JoinSet::new();
        for _ in 0..64 {
            let (connection, push) = (connection.clone(), push.clone());
            pushing.spawn(async move {
                let pushed = async {
                    let (mut send, _receive) = connection.open_bi().await?;
                    send.write_all(&push).await?;
                    for _ in 0..64 {
                        send.write_all(&[0x55; 64 * 1024]).await?;
                    }
                    Ok::<_, anyhow::Error>(())
                };
                ensure!(timeout(PATIENCE, pushed).await?.is_err(), "4 MiB were taken of a push");
                Ok(())
            });
        }
        while let Some(ended) = pushing.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// The beginning of a request on as many streams as there may be, and then nothing; until it is told to end.
    async fn dawdles(self) -> Result<()> {
        let connection = self.connect().await?;
        let mut open = Vec::new();
        while let Ok(Ok((mut send, receive))) = timeout(Duration::from_secs(1), connection.open_bi()).await {
            send.write_all(&[0]).await?;
            open.push((send, receive));
            ensure!(open.len() < 1_000, "any number of streams");
        }
        for (_send, mut receive) in open {
            timeout(PATIENCE, receive.read_to_end(1 << 20))
                .await
                .context("a request may take for ever")?
                .ok();
        }
        Ok(())
    }

    /// Connections that say nothing, by the thousand: most are not let in, and those that are are closed again.
    async fn keeps_silent(self) -> Result<()> {
        let mut silent = JoinSet::new();
        for _ in 0..SILENT {
            let connecting = self.endpoint.connect(self.target, "127.0.0.1")?;
            silent.spawn(async move {
                if let Ok(connection) = connecting.await {
                    connection.closed().await;
                }
            });
        }
        timeout(PATIENCE, async { while silent.join_next().await.is_some() {} })
            .await
            .context("let in to stay")
    }
}

/// Everybody at `target`, at once.
fn attack(all: &mut JoinSet<Result<()>>, first: u8, target: SocketAddr, mailbox: &Mailbox) -> Result<()> {
    let attacker = |number| Attacker::new(first + number, target, mailbox);
    all.spawn(attacker(1)?.forges());
    all.spawn(attacker(2)?.floods());
    all.spawn(attacker(3)?.babbles(u64::from(first)));
    all.spawn(attacker(4)?.drones());
    all.spawn(attacker(5)?.dawdles());
    all.spawn(attacker(6)?.keeps_silent());
    all.spawn(attacker(7)?.pushes());
    Ok(())
}

fn check(name: &str, process: &Process) -> Result<()> {
    let peak = process.memory_peak()?;
    eprintln!("{name}: peak {} MiB", peak >> 20);
    ensure!(peak <= PEAK_MAX, "{name}: {peak} bytes");
    ensure!(!process.log().contains("panicked"), "{name} panicked:\n{}", process.log());
    Ok(())
}

// SPEC: D3, D9 — DESIGN §3 rule 7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_11_34_35_with_hostile_peers_at_agent_and_relay_an_honest_message_goes_through()
-> Result<()> {
    // Ignored where another test of this process has done it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = World::start().await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let mailbox: Mailbox = alice.mailbox.parse()?;
    let mut attacks = JoinSet::new();
    for (first, target) in [(0, alice.member.address("/quic/0")?), (100, world.relay.address("/quic")?)] {
        let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), target.port());
        attack(&mut attacks, first, target, &mailbox)?;
    }

    let message = TestMessage::new(&alice.mailbox, SIZE, 1);
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    wait_for_receipts(&alice, 1).await?;
    lighter_e2e::assert_restores(&alice, &stub, &message).await?;

    while let Some(attack) = attacks.join_next().await {
        attack??;
    }
    // After all of it, too.
    let message = TestMessage::new(&alice.mailbox, SIZE, 2);
    world.send(&message).await?;
    wait_for_receipts(&alice, 2).await?;
    check("agent", alice.member.process()?)?;
    check("relay", world.relay.process()?)
}
