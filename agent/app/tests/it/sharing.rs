//! Other recipients of the same message as sources: whoever has it gives it to who has not, at the sender's word, and nobody
//! else gets anything. Here: within a domain; in the files below: between domains (`domains`), what each is told on the wire
//! (`told`), peers that know nothing of it (`older`), and restarts (`restart`).

mod domains;
mod office;
mod older;
mod restart;
mod told;

use std::sync::Arc;

use lighter_agent::agent::Agent;
use lighter_agent::guest::decide::GuestConfig;
use lighter_agent::sharing::Share;
use lighter_protocol::pull::{Role, SourceView};
use lighter_protocol::wire::{Request, Response, Sources};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Keypair, PeerId, Sharing, Signed, UnixTime};
use lighter_transport::pull::{Piece, Pull, PullError, VerifiedSink};
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity};

use crate::submissions::Client;
use crate::support::mail_sink::MailSink;
use crate::support::programs::json;
use crate::support::{PATIENCE, World, bytes, eventually, file, mailbox, start};
use office::{
    MIB, Office, SIZE, are_released, away, come, delivery_of, holds, is_intact, is_receipted, limit,
    outgoing, send, sender, stop, the_sender_hears_of_it, verified, views,
};

/// What may be on its way from a source that is not asked any more: QUIC's windows, and what waits in the sender.
const ON_ITS_WAY: u64 = 20 * MIB;

// SPEC: D3, D4
#[tokio::test(flavor = "multi_thread")]
async fn when_the_sender_goes_to_sleep_half_way_a_colleague_brings_the_rest_and_the_receipt_comes_later() {
    let office = Office::start().await;
    office.send().await;
    let up = |agent: &Agent| agent.shared().guest.up.granted();
    let (given_before, sent_before) = (up(&office.carol), up(&office.sam));
    let dave = office.dave_pulls_from_both(["4 MiB/s", "4 MiB/s"]).await;
    let carols = office.carol.shared().identity.peer();
    let status = json(&office.dave_paths, &["status"]).await;
    let sources = status["pulls"][0]["sources"].as_array().unwrap();
    let shown = sources.iter().find(|source| source["peer"] == carols.to_string()).unwrap();
    assert_eq!((&shown["kind"], &shown["state"]), (&"recipient".into(), &"asked".into()), "{status}");

    let Office { world, sink, sam_paths, sam, carol, content, .. } = office;
    let (before, of_sam) = (verified(&dave, &content), sam.shared().clone());
    sam.stop().await;
    let sent = of_sam.guest.up.granted() - sent_before;
    drop(of_sam);
    assert!(!is_receipted(&dave) && before < SIZE as u64);
    limit(&carol, "");
    eventually("all of it", async || is_receipted(&dave)).await;
    assert!(is_intact(&dave, &content));
    let given = up(&carol) - given_before;
    assert!(given >= SIZE as u64 - sent, "{given} given, {sent} sent");
    assert!(given + sent <= SIZE as u64 + ON_ITS_WAY, "{given} given, {sent} sent: some of it twice");

    eventually("the pull to end", async || dave.shared().pulls.count() == 0).await;
    let sam = the_sender_hears_of_it(&sam_paths).await;
    stop([sam, dave, carol]).await;
    drop((world, sink));
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn who_has_it_meanwhile_is_told_to_those_who_still_pull() {
    let office = Office::start().await;
    let dave = office.dave().await;
    limit(&office.sam, "3 MiB/s");
    let attached = file(office.world.folder.path(), "film.bin", &office.content);
    let sending = send(&office.sam_paths, &["carol", "dave"], &attached);
    let meanwhile = async {
        let both = || [&office.carol, &dave].map(|agent| verified(agent, &office.content));
        eventually("both to pull", async || both().iter().all(|bytes| *bytes > MIB)).await;
        assert!(views(&dave).await.iter().all(|view| view.role == Role::Holder), "nobody has it yet");
        // Carol is faster from here on.
        dave.shared().guest.configure(Ok(toml::from_str("download = '100 KiB/s'").unwrap()));
        limit(&office.sam, "");
        eventually("carol's receipt", async || holds(&office.carol, &office.content)).await;
        let is_source = async || views(&dave).await.iter().any(|view| view.role == Role::Recipient);
        eventually("carol to be a source", is_source).await;
        dave.shared().guest.configure(Ok(GuestConfig::default()));
    };
    tokio::join!(sending, meanwhile);
    eventually("dave's", async || is_receipted(&dave)).await;
    office.close([dave]).await;
}

/// A message with `attached` to carol and dave, and perhaps to others whom the header does not show.
fn message(attached: &[u8]) -> Vec<u8> {
    let message = crate::submissions::message("multipart/mixed", attached);
    let message = String::from_utf8(message).unwrap();
    message
        .replace("undisclosed-recipients:;", "Carol <carol@example.org>\r\nCc: \"Dave\" <dave@example.org>")
        .into_bytes()
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_bcc_gives_nothing_and_takes_nothing_and_is_named_to_nobody() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let gus_paths = world.set_up("gus", None).await;
    let (dave_paths, eve_paths) = (away(&world, "dave").await, away(&world, "eve").await);
    let sam_paths = sender(&world, "sam@example.org", &sink, |config| {
        config.submission.listen = Some("127.0.0.1:0".parse().unwrap());
        config.send.share = Share::All;
    })
    .await;
    let (sam, address) = crate::submissions::start(&sam_paths).await;
    let (carol, gus) = (world.agent("carol", None).await, start(&gus_paths).await);
    let content = bytes(2, 12 * 1024 * 1024);
    let mut client = Client::connect(address).await;
    let to = ["carol", "dave", "eve", "gus"];
    let said = client.send("sam", &to, &message(&content)).await;
    assert!(said.starts_with("250 "), "{said}");
    eventually("carol's and gus's receipts", async || are_released(&sam, &["carol", "gus"])).await;
    let shown = sam.shared().store.shown(outgoing(&sam, "gus").unwrap().manifest.id).unwrap();
    let mut shown: Vec<_> = shown.into_iter().map(|outgoing| outgoing.recipient).collect();
    shown.sort();
    assert_eq!(shown, [mailbox("carol"), mailbox("dave")], "and neither eve nor gus");

    limit(&sam, "2 MiB/s");
    let (dave, eve) = (start(&dave_paths).await, come(&sam, &eve_paths).await);
    let carols = carol.shared().identity.peer();
    let (mut of_dave, mut of_eve) = (Vec::new(), Vec::new());
    eventually("both receipts", async || {
        of_dave.extend(views(&dave).await);
        of_eve.extend(views(&eve).await);
        are_released(&sam, &["dave", "eve"])
    })
    .await;
    let sources = |views: &[SourceView]| {
        let mut peers: Vec<PeerId> = views.iter().map(|view| view.peer).collect();
        peers.sort();
        peers.dedup();
        peers
    };
    let sams = sam.shared().identity.peer();
    assert_eq!(sources(&of_eve), [sams], "in Bcc, she is told of nobody");
    let mut expected = [sams, carols];
    expected.sort();
    assert_eq!(sources(&of_dave), expected, "and nobody of her, or of gus");
    stop([sam, carol, dave, eve, gus]).await;
}

#[derive(Debug)]
struct Nowhere;

impl VerifiedSink for Nowhere {
    async fn write(&self, _: Piece) -> std::io::Result<()> {
        Ok(())
    }
}

/// Another program of a peer: with its key, and nothing of what its agent decides.
async fn dial(identity: &Identity, to: &Agent) -> (Endpoint, Connection) {
    let endpoint =
        Endpoint::bind(identity, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
    let shared = to.shared();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], shared.endpoint.local_addr().unwrap().port()));
    let connection = endpoint.connect(shared.identity.peer(), &[address], PATIENCE).await.unwrap();
    (endpoint, connection)
}

/// What carol's store is asked for.
#[derive(Clone)]
struct Asked {
    delivery: DeliveryId,
    blob: BlobId,
    size: u64,
    attestation: Option<Signed<Attestation>>,
    sharing: Sharing,
    by: Keypair,
}

impl Asked {
    async fn of(&self, connection: &Connection) -> Result<(), PullError> {
        let pull = Pull {
            attestation: self.attestation.clone(),
            sharing: Some(Signed::sign(&self.sharing, &self.by).unwrap()),
            ..Pull::of(self.delivery, self.blob, self.size)
        };
        connection.pull(&pull, &Arc::new(Nowhere)).await.map(|_| ())
    }

    async fn is_refused(&self, connection: &Connection, what: &str) {
        let refused = self.of(connection).await;
        assert!(matches!(refused, Err(PullError::Refused)), "{what}: {refused:?}");
    }

    fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_giver_gives_to_the_taker_whom_the_sender_named_and_to_nobody_else() {
    let office = Office::start().await;
    office.send().await;
    let dave = start(&office.dave_paths).await;
    let (mallory, mallorys) = {
        let identity = Identity::generate();
        (identity.keypair().clone(), identity)
    };
    let incoming = delivery_of(&office.carol);
    assert_eq!(incoming.from, office.sam.shared().identity.peer());
    let sams = office.sam.shared().identity.keypair().clone();
    let peer_of = |agent: &Agent| agent.shared().identity.peer();
    let asked = Asked {
        delivery: incoming.delivery,
        blob: BlobId::of(&office.content),
        size: SIZE as u64,
        attestation: Some(dave.shared().attested().unwrap().signed),
        sharing: Sharing {
            delivery: incoming.delivery,
            giver: mailbox("carol"),
            giver_store: peer_of(&office.carol),
            taker: mailbox("dave"),
            taker_store: peer_of(&dave),
            expires: UnixTime::now().plus(std::time::Duration::from_hours(1)),
        },
        by: sams,
    };
    let (_endpoint, as_dave) = dial(&dave.shared().identity, &office.carol).await;
    let (_other, as_mallory) = dial(&mallorys, &office.carol).await;
    asked.of(&as_dave).await.unwrap();

    asked.is_refused(&as_mallory, "replayed by somebody else").await;
    let hers = asked.but(|asked| asked.sharing.taker_store = mallorys.peer());
    hers.is_refused(&as_mallory, "who is the taker, but not of that mailbox").await;
    hers.but(|asked| asked.attestation = None).is_refused(&as_mallory, "without an attestation").await;
    let now = UnixTime::now();
    let long = now.plus(std::time::Duration::from_hours(30));
    let cases: [(&str, Asked); 13] = [
        ("signed by somebody", asked.but(|asked| asked.by = mallory.clone())),
        ("signed by the taker", asked.but(|asked| asked.by = dave.shared().identity.keypair().clone())),
        ("signed by the giver", asked.but(|it| it.by = office.carol.shared().identity.keypair().clone())),
        ("of another delivery", asked.but(|asked| asked.sharing.delivery = DeliveryId([9; 16]))),
        ("for another delivery", asked.but(|asked| asked.delivery = DeliveryId([9; 16]))),
        ("of another giver", asked.but(|asked| asked.sharing.giver = mailbox("eve"))),
        ("of another store", asked.but(|asked| asked.sharing.giver_store = mallorys.peer())),
        ("expired", asked.but(|asked| asked.sharing.expires = UnixTime(now.0 - 3_601))),
        ("good for too long", asked.but(|asked| asked.sharing.expires = long)),
        ("another mailbox's taker", asked.but(|asked| asked.sharing.taker = mailbox("eve"))),
        ("in another domain", asked.but(|it| it.sharing.taker = "dave@example.com".parse().unwrap())),
        ("unattested", asked.but(|asked| asked.attestation = None)),
        ("no blob of it", asked.but(|asked| asked.blob = BlobId::of(b"something else"))),
    ];
    for (what, case) in &cases {
        case.is_refused(&as_dave, what).await;
    }
    // The same request without the sender's word is nobody's right.
    let pull =
        Pull { attestation: asked.attestation.clone(), ..Pull::of(asked.delivery, asked.blob, asked.size) };
    let plain = as_dave.pull(&pull, &Arc::new(Nowhere)).await;
    assert!(matches!(plain, Err(PullError::Refused)), "{plain:?}");

    // What carol had before is not given at the word of who only named it: sam sends the same file once more.
    let attached = office.world.folder.path().join("film.bin");
    send(&office.sam_paths, &["carol"], &attached).await;
    let all = office.carol.shared().store.all_incoming().unwrap();
    let second = all.iter().find(|other| other.delivery != incoming.delivery).unwrap();
    let of_second = asked.but(|asked| {
        (asked.delivery, asked.sharing.delivery) = (second.delivery, second.delivery);
    });
    of_second.is_refused(&as_dave, "it did not come by this delivery").await;
    let manifest =
        of_second.but(|asked| (asked.blob, asked.size) = (second.manifest.id, second.manifest.size));
    manifest.of(&as_dave).await.unwrap();
    asked.of(&as_dave).await.unwrap();

    // As soon as she says so, and as soon as she has let go of it.
    office.carol.shared().change_share(Share::Off);
    asked.is_refused(&as_dave, "she shares nothing").await;
    office.carol.shared().change_share(Share::All);
    asked.of(&as_dave).await.unwrap();
    office.carol.shared().store.remove(incoming.delivery).unwrap();
    asked.is_refused(&as_dave, "let go of").await;
    office.close([dave]).await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_taker_hears_of_sources_from_who_offers_and_believes_only_the_location_server() {
    let office = Office::start().await;
    office.send().await;
    office.carol.shared().change_share(Share::Off);
    limit(&office.sam, "1 MiB/s");
    let dave = office.dave().await;
    let delivery = office.outgoing("dave").delivery;
    let carols = office.carol.shared().identity.peer();
    // Told of carol, dave asks her; she says no.
    let is_source = async || views(&dave).await.iter().any(|view| view.peer == carols);
    eventually("carol to be asked", is_source).await;
    let sharing = Sharing {
        delivery: office.outgoing("carol").delivery,
        giver: mailbox("carol"),
        giver_store: carols,
        taker: mailbox("dave"),
        taker_store: dave.shared().identity.peer(),
        expires: UnixTime::now().plus(std::time::Duration::from_hours(20)),
    };
    let stranger = Identity::generate();
    let (_endpoint, as_stranger) = dial(&stranger, &dave).await;
    let told = async |connection: &Connection, delivery, sharings| {
        connection.request(&Request::Sources(Sources { delivery, sharings })).await.unwrap()
    };
    let signed = |sharing: &Sharing, by: &Identity| Signed::sign(sharing, by.keypair()).unwrap();
    let sams = office.sam.shared().identity.clone();
    let right = vec![signed(&sharing, &sams)];
    assert_eq!(told(&as_stranger, delivery, right.clone()).await, Response::Refused, "not who offers");
    let link = office.sam.shared().links.get(&dave.shared().identity.peer()).unwrap();
    assert_eq!(told(&link, DeliveryId([3; 16]), right).await, Response::Refused, "nothing of that number");
    // From who offers: a key that is no store of that mailbox, and a mailbox without a store.
    let of_stranger = Sharing { giver_store: stranger.peer(), ..sharing.clone() };
    let of_nobody = Sharing { giver: mailbox("nobody"), giver_store: peer(8), ..sharing.clone() };
    let foreign = Sharing { giver: "a@b.example".parse().unwrap(), giver_store: peer(9), ..sharing };
    let lies = [of_stranger, of_nobody, foreign].map(|lie| signed(&lie, &sams)).to_vec();
    for _ in 0..40 {
        assert_eq!(told(&link, delivery, lies.clone()).await, Response::Noted);
    }
    limit(&office.sam, "");
    eventually("the receipt", async || {
        let views = views(&dave).await;
        let mut others = views.iter().filter(|view| view.role == Role::Recipient);
        assert!(others.all(|view| view.peer == carols && view.bytes == 0), "{views:?}");
        is_receipted(&dave)
    })
    .await;
    office.close([dave]).await;
}

fn peer(of: u8) -> PeerId {
    Keypair::ed25519_from_bytes([of; 32]).unwrap().public().to_peer_id()
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn what_a_sender_does_not_share_comes_from_the_sender_alone() {
    let office = Office::with(|sam| sam.send.share = Share::Off).await;
    office.send().await;
    assert_eq!(office.sam.shared().store.shown(office.outgoing("dave").manifest.id).unwrap(), []);
    limit(&office.sam, "20 MiB/s");
    let dave = office.dave().await;
    let mut seen = Vec::new();
    eventually("dave's", async || {
        seen.extend(views(&dave).await);
        is_receipted(&dave)
    })
    .await;
    assert!(!seen.is_empty() && seen.iter().all(|view| view.role == Role::Holder), "{seen:?}");
    office.close([dave]).await;
}
