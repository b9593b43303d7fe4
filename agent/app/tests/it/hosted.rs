//! One agent that is the store of many (SPEC A29): with a real location server that names it, a relay that holds deliveries
//! for its users, senders, and users' own devices.

use std::path::PathBuf;

use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, HostedConfig, Paths};
use lighter_agent::key;
use lighter_location::LocationServer;
use lighter_location::config::HostedConfig as Named;
use lighter_protocol::wire::{Answer, LaterReason, Offer, Response};
use lighter_protocol::{BlobId, DeliveryId, PeerId};
use lighter_transport::location::Secret;
use lighter_transport::pull::Pull;
use tokio_util::sync::CancellationToken;

use crate::support::programs::{error_text, run, run_ok};
use crate::support::relay::Relay;
use crate::support::{World, bytes, eventually, mailbox, start};

/// A domain whose hosted store serves the users that its file names.
struct Service {
    world: World,
    paths: Paths,
    peer: PeerId,
    users: PathBuf,
}

impl Service {
    async fn set_up(users: &[&str], hosted: HostedConfig) -> Self {
        let world = World::start().await;
        let paths = world.set_up("service", None).await;
        let mut config = Config::read(&paths.config).unwrap();
        config.hosted = Some(hosted);
        config.write(&paths.config).unwrap();
        let peer = key::load(&config.key, &paths).await.unwrap().peer();
        let file = world.folder.path().join("users");
        let service = Self { world, paths, peer, users: file };
        service.name(users);
        service.restart_location().await
    }

    /// Names the users. It counts within seconds.
    fn name(&self, users: &[&str]) {
        let lines: String = users.iter().map(|user| format!("{user}@example.org:x::::::\n")).collect();
        std::fs::write(&self.users, lines).unwrap();
    }

    /// The location server again, with the hosted store in its configuration.
    async fn restart_location(self) -> Self {
        let World { folder, location, token } = self.world;
        let (listen, data) = (location.address(), location_data(&folder));
        location.stop().await;
        let files = vec![self.users.clone()];
        let hosted = vec![Named { peer: self.peer, mailboxes: Vec::new(), files, domain: None }];
        let config = lighter_location::Config {
            listen,
            data,
            hosted,
            ping_interval_s: 1,
            ttl_s: 60,
            ..Default::default()
        };
        let location = LocationServer::start(config, CancellationToken::new()).await.unwrap();
        Self { world: World { folder, location, token }, ..self }
    }

    async fn online(&self, served: usize) -> Agent {
        let agent = start(&self.paths).await;
        self.serves(&agent, served).await;
        agent
    }

    async fn serves(&self, agent: &Agent, count: usize) {
        let mailboxes = agent.shared().hosted.mailboxes();
        eventually("the mailboxes", async || mailboxes.borrow().len() == count).await;
    }

    async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments = [&["--json"], arguments].concat();
        serde_json::from_slice(&run_ok(&self.paths, &arguments, b"").await).unwrap()
    }

    /// A sender's session: who has one gets introductions.
    async fn sender(&self, name: &str) -> (Agent, Secret) {
        let agent = self.world.agent(name, None).await;
        let session = agent.shared().session().unwrap();
        (agent, session)
    }
}

fn location_data(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("location")
}

// SPEC: A29, D4, D8
#[tokio::test(flavor = "multi_thread")]
async fn one_agent_pulls_and_receipts_for_all_its_users_on_one_connection_and_keeps_each_apart() {
    let service = Service::set_up(&["ann", "bob"], HostedConfig::default()).await;
    let relay = Relay::start(&service.world).await;
    let shared = bytes(1, 600_000);
    let (of_ann, of_bob) = (bytes(2, 500_000), bytes(3, 400_000));
    relay.hold(1, &mailbox("ann"), b"ann's manifest", &[shared.clone(), of_ann.clone()]);
    relay.hold(2, &mailbox("bob"), b"bob's manifest", &[shared.clone(), of_bob.clone()]);
    let agent = service.online(2).await;
    let receipts = relay.receipts(2).await;
    for receipt in receipts {
        let claim = receipt.verify(&service.peer).unwrap();
        let expected = if claim.delivery == DeliveryId([1; 16]) { "ann" } else { "bob" };
        assert_eq!((claim.store, claim.mailbox), (service.peer, mailbox(expected)));
    }
    let mut shown: Vec<_> =
        relay.held.lock().unwrap().waiting.iter().map(|shown| shown.mailbox.to_string()).collect();
    shown.sort();
    shown.dedup();
    assert_eq!(shown, ["ann@example.org", "bob@example.org", "service@example.org"]);

    // What is listed, given and restored is the named user's.
    let list = service.json(&["list", "--mailbox", "ann@example.org"]).await;
    assert_eq!(list["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(list["deliveries"][0]["mailbox"], "ann@example.org");
    assert_eq!(service.json(&["list"]).await["deliveries"].as_array().unwrap().len(), 2);
    let id = BlobId::of(&of_bob).to_string();
    let given = run_ok(&service.paths, &["get", "--mailbox", "bob@example.org", &id, "-o", "-"], b"").await;
    assert!(given == of_bob);
    for wrong in [vec!["get", "--mailbox", "ann@example.org", &id, "-o", "-"], vec!["get", &id, "-o", "-"]] {
        let output = run(&service.paths, &wrong, b"").await;
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}: {}", error_text(&output));
    }
    let status = service.json(&["status", "--mailbox", "bob@example.org"]).await;
    assert_eq!(status["hosted"]["mailboxes"], 2);
    let bob = &status["hosted"]["mailbox"];
    assert_eq!((&bob["served"], &bob["bytes_used"]), (&true.into(), &1_000_000.into()), "{bob}");
    // Equal attachments are one file.
    assert_eq!(status["store"]["bytes_used"], 600_000 + 500_000 + 400_000);
    agent.stop().await;
}

// SPEC: A29, A23, A24
#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_device_reads_its_own_mailbox_at_the_hosted_store_and_nobody_elses() {
    let service = Service::set_up(&["ann", "bob"], HostedConfig::default()).await;
    let relay = Relay::start(&service.world).await;
    let (of_ann, of_bob) = (bytes(4, 300_000), bytes(5, 300_000));
    relay.hold(1, &mailbox("ann"), b"1", std::slice::from_ref(&of_ann));
    relay.hold(2, &mailbox("bob"), b"2", std::slice::from_ref(&of_bob));
    let hosted = service.online(2).await;
    relay.receipts(2).await;
    let paths = service.world.set_up("ann", None).await;
    let confirm = lighter_location::AdminCommand::UserConfirm {
        mailbox: mailbox("ann"),
        peer: key::load(&Config::read(&paths.config).unwrap().key, &paths).await.unwrap().peer(),
    };
    service.world.location.administer(confirm).await.unwrap();
    let device = start(&paths).await;
    let attested = device.shared().attested().unwrap();
    let at = hosted.shared().endpoint.local_addr().unwrap().port();
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], at));
    let connection =
        device.shared().endpoint.connect(service.peer, &[at], crate::support::PATIENCE).await.unwrap();
    let ask = async |number: u8, blob: &[u8]| {
        let pull = Pull {
            attestation: Some(attested.signed.clone()),
            ..Pull::of(DeliveryId([number; 16]), BlobId::of(blob), blob.len() as u64)
        };
        connection.pull(&pull, &std::sync::Arc::new(Nowhere)).await
    };
    ask(1, &of_ann).await.unwrap();
    // bad_input_34: with a right attestation, for somebody else's delivery, or an own delivery's number and their blob.
    for (number, blob) in [(2, &of_bob), (1, &of_bob), (2, &of_ann), (3, &of_ann)] {
        let refused = ask(number, blob).await.unwrap_err();
        assert!(matches!(refused, lighter_transport::pull::PullError::Refused), "{number}: {refused}");
    }
    device.stop().await;
    hosted.stop().await;
}

struct Nowhere;

impl lighter_transport::pull::VerifiedSink for Nowhere {
    async fn write(&self, _: lighter_transport::pull::Piece) -> std::io::Result<()> {
        Ok(())
    }
}

// SPEC: A29
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_for_each_user_and_equal_attachments_count_for_each() {
    let hosted =
        HostedConfig { quota_mib: Some(1), quotas_mib: [(mailbox("bob"), 10)].into_iter().collect() };
    let service = Service::set_up(&["ann", "bob"], hosted).await;
    let relay = Relay::start(&service.world).await;
    let (one, two) = (bytes(6, 700_000), bytes(7, 700_000));
    relay.hold(1, &mailbox("bob"), b"1", &[one.clone(), two.clone()]);
    relay.hold(2, &mailbox("ann"), b"2", std::slice::from_ref(&one));
    let agent = service.online(2).await;
    relay.receipts(2).await;
    // Bob has it already; ann has no room for it all the same.
    relay.hold(3, &mailbox("ann"), b"3", std::slice::from_ref(&two));
    agent.shared().guest.there_is_room();
    agent.stop().await;
    relay.held.lock().unwrap().answers.clear();
    let agent = service.online(2).await;
    eventually("the answer", async || {
        let later = vec![Answer::Later(LaterReason::Quota)];
        relay.held.lock().unwrap().answers.contains(&later)
    })
    .await;
    let status = service.json(&["status", "--mailbox", "ann@example.org"]).await;
    assert_eq!(status["hosted"]["mailbox"]["quota"], 1024 * 1024);
    // With more, it is asked for again at once.
    let mut config = Config::read(&service.paths.config).unwrap();
    config.hosted = Some(HostedConfig { quota_mib: Some(2), ..HostedConfig::default() });
    agent.shared().hosted.configure(config.hosted);
    agent.shared().guest.there_is_room();
    eventually("the third delivery", async || {
        let receipts = relay.held.lock().unwrap().receipts.clone();
        receipts.iter().any(|receipt| receipt.claim().unwrap().delivery == DeliveryId([3; 16]))
    })
    .await;
    agent.stop().await;
}

// SPEC: A29, D9
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_sender_cannot_tell_that_another_user_has_it_and_offers_to_nobody_who_is_not_hosted() {
    let service = Service::set_up(&["ann", "bob"], HostedConfig::default()).await;
    let relay = Relay::start(&service.world).await;
    let content = bytes(8, 300_000);
    relay.hold(1, &mailbox("ann"), b"1", std::slice::from_ref(&content));
    let hosted = service.online(2).await;
    relay.receipts(1).await;
    let (sender, session) = service.sender("sam").await;
    let identity = sender.shared().identity.clone();
    let port = hosted.shared().endpoint.local_addr().unwrap().port();
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let stranger = Relay::start_as(&service.world, identity, None).await;
    let introduced = async |number: u8, name: &str, to: &str| {
        let offer = stranger.hold(number, &mailbox(name), &[number], std::slice::from_ref(&content));
        let client = service.world.client();
        let introduction = client.introduction(&session, &mailbox(to), 1_000_000).await.unwrap();
        let offer = Offer { introduction, ..offer };
        stranger.offer_to(&service.world, service.peer, at, offer).await
    };
    let answer = introduced(2, "bob", "bob").await;
    assert_eq!(answer, Response::Answer(vec![Answer::Pull]));
    stranger.receipts(1).await;
    let asked = |number: u8| {
        let held = stranger.held.lock().unwrap();
        let of = held.gets.iter().filter(|get| get.delivery == DeliveryId([number; 16]));
        of.filter(|get| get.blob == BlobId::of(&content)).count()
    };
    assert!(asked(2) > 0, "bob's sender was not asked for what ann has");
    // Somebody who is not hosted, and an introduction for another user.
    assert_eq!(introduced(3, "carl", "bob").await, Response::Refused);
    assert_eq!(introduced(4, "ann", "bob").await, Response::Refused);
    sender.stop().await;
    hosted.stop().await;
}

// SPEC: A29
#[tokio::test(flavor = "multi_thread")]
async fn users_are_served_and_served_no_more_without_a_restart_and_what_is_kept_stays_until_it_is_removed() {
    let service = Service::set_up(&["ann"], HostedConfig::default()).await;
    let relay = Relay::start(&service.world).await;
    relay.hold(1, &mailbox("ann"), b"1", &[bytes(9, 200_000)]);
    relay.hold(2, &mailbox("bob"), b"2", &[bytes(10, 200_000)]);
    let agent = service.online(1).await;
    relay.receipts(1).await;
    service.name(&["ann", "bob"]);
    service.serves(&agent, 2).await;
    let receipts = relay.receipts(2).await;
    assert_eq!(receipts[1].claim().unwrap().mailbox, mailbox("bob"));
    // The relay is told of what is new alone.
    let shown = relay.held.lock().unwrap().waiting.clone();
    assert_eq!(shown.iter().filter(|shown| shown.mailbox == mailbox("ann")).count(), 1);

    let served = ["remove", "--mailbox", "ann@example.org"];
    let refused = run(&service.paths, &served, b"").await;
    assert!(error_text(&refused).contains("is served here"), "{}", error_text(&refused));
    let sessions = *relay.sessions.borrow();
    service.name(&["bob"]);
    service.serves(&agent, 1).await;
    // The relay is told by a new session that has no word of ann.
    eventually("a new session", async || *relay.sessions.borrow() >= sessions + 2).await;
    let said = relay.held.lock().unwrap().waiting.split_off(sessions);
    assert!(said.iter().all(|attestation| attestation.mailbox != mailbox("ann")), "{said:?}");
    let status = service.json(&["status"]).await;
    assert_eq!(status["hosted"]["left"], serde_json::json!(["ann@example.org"]));
    assert_eq!(service.json(&["list"]).await["deliveries"].as_array().unwrap().len(), 2, "it is kept");
    run_ok(&service.paths, &served, b"").await;
    let list = service.json(&["list", "--mailbox", "ann@example.org"]).await;
    assert_eq!(list["deliveries"][0]["state"], "let-go", "{list}");
    assert!(service.json(&["status"]).await["hosted"].get("left").is_none());
    agent.stop().await;
}

// SPEC: A29
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_an_agent_that_the_location_server_does_not_name_hosts_nobody_and_says_so() {
    let world = World::start().await;
    let paths = world.set_up("eve", None).await;
    let mut config = Config::read(&paths.config).unwrap();
    config.hosted = Some(HostedConfig::default());
    config.write(&paths.config).unwrap();
    let agent = start(&paths).await;
    eventually("the problem", async || {
        let problem = agent.shared().membership.borrow().problem.clone();
        problem.is_some_and(|problem| problem.contains("names no mailbox for this store"))
    })
    .await;
    assert!(agent.shared().hosted.mailboxes().borrow().is_empty());
    agent.stop().await;
}
