//! `key rotate`: the store gets another key and stays what it is, whatever happens in the middle.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lighter_agent::access::Access;
use lighter_agent::config::{Config, Paths};
use lighter_agent::key;
use lighter_location::{AdminCommand, LocationServer};
use lighter_protocol::PeerId;
use lighter_transport::Identity;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::programs::{self, error_text, json, run};
use crate::support::relay::Relay;
use crate::support::{World, bytes, change, eventually, mailbox};

async fn peer(paths: &Paths) -> PeerId {
    key::load(&Config::read(&paths.config).unwrap().key, paths).await.unwrap().peer()
}

/// Files of the data folder that are about keys.
fn key_files(paths: &Paths) -> Vec<String> {
    let all = std::fs::read_dir(&paths.data).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains("key")).collect();
    names.sort();
    names
}

/// The running agent's key, once it is another one than `before`; asked again while it starts anew.
async fn changed_from(before: PeerId, paths: &Paths) -> String {
    let mut now = String::new();
    eventually("another key", async || {
        let output = run(paths, &["--json", "status"], b"").await;
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        now = status["peer"].as_str().unwrap_or_default().to_owned();
        status["running"] == true && status["registered"] == true && now != before.to_string()
    })
    .await;
    now
}

// SPEC: A12, D4
#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_takes_another_key_and_its_receipts_are_the_new_ones() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let paths = world.set_up("alice", None).await;
    // The port stays its own.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    change(&paths, |config| config.quic.listen = port);
    let former = peer(&paths).await;
    let content = bytes(1, 300_000);
    relay.hold(1, &mailbox("alice"), b"a manifest", std::slice::from_ref(&content));
    let mut agent = programs::start(&paths).await;
    let before = relay.receipts(1).await[0].claim().unwrap();
    assert_eq!(before.store, former);

    let rotated = json(&paths, &["key", "rotate"]).await;
    let new: PeerId = rotated["peer"].as_str().unwrap().parse().unwrap();
    assert!(rotated["rotated"] == true && new != former, "{rotated}");
    assert_eq!(rotated["former"][0]["peer"], former.to_string());
    assert_eq!(changed_from(former, &paths).await, new.to_string());
    assert!(agent.try_wait().unwrap().is_none(), "the program runs on");
    // The relay offers it again to the session of the new key, as if it had not heard.
    let after = relay.receipts(2).await[1].clone().verify(&new).unwrap();
    assert_eq!((after.delivery, after.manifest, after.time), (before.delivery, before.manifest, before.time));
    assert_eq!(relay.held.lock().unwrap().waiting.last().unwrap().peer, new);

    assert_eq!(key_files(&paths), ["former-keys.json", "key"]);
    for file in ["former-keys.json", "key"] {
        let mode = paths.data.join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let shown = json(&paths, &["key", "show"]).await;
    assert_eq!(shown["peer"], new.to_string());
    assert!(shown.get("rotated").is_none() && shown.get("pending").is_none(), "{shown}");
    // And once more, without an agent.
    agent.kill().await.unwrap();
    let again = json(&paths, &["key", "rotate"]).await;
    assert_eq!(again["former"].as_array().unwrap().len(), 2);
    assert_eq!(again["peer"], peer(&paths).await.to_string());
    let _agent = programs::start(&paths).await;
    relay.receipts(3).await;
    changed_from(new, &paths).await;
}

/// Stops the location server.
async fn go_down(world: World) -> Down {
    let address = world.location.address();
    let World { folder, location, token } = world;
    location.stop().await;
    Down { folder, address, token }
}

/// What is left of the world without it.
struct Down {
    folder: tempfile::TempDir,
    address: std::net::SocketAddr,
    token: lighter_transport::location::Secret,
}

impl Down {
    async fn come_back(self) -> World {
        let Self { folder, address, token } = self;
        let data = folder.path().join("location");
        let config = lighter_location::Config { listen: address, data, ..Default::default() };
        let location = LocationServer::start(config, CancellationToken::new()).await.unwrap();
        World { folder, location, token }
    }
}

fn next_key(paths: &Paths) -> Identity {
    Identity::load(&paths.data.join("key.next")).unwrap()
}

// SPEC: A12 — nothing is lost in the middle (DESIGN §3 rule 1)
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_interrupted_is_gone_on_with_and_ends_with_the_same_key() {
    let world = World::start().await;
    let paths = world.set_up("alice", None).await;
    let former = peer(&paths).await;
    let mut agent = programs::start(&paths).await;
    changed_from(PeerId::random(), &paths).await;

    // The location server is not there: the agent goes on when it is.
    let down = go_down(world).await;
    let output = run(&paths, &["key", "rotate"], b"").await;
    assert_eq!(output.status.code(), Some(75), "{}", error_text(&output));
    assert!(error_text(&output).contains("goes on"), "{}", error_text(&output));
    assert_eq!(peer(&paths).await, former, "the key is here until the location server has answered");
    let next = next_key(&paths).peer();
    assert_eq!(json(&paths, &["key", "show"]).await["pending"], true);
    let world = down.come_back().await;
    assert_eq!(changed_from(former, &paths).await, next.to_string());
    assert_eq!(key_files(&paths), ["former-keys.json", "key"]);
    agent.kill().await.unwrap();

    // It was told, and the agent died before it heard so.
    let down = go_down(world).await;
    let output = run(&paths, &["key", "rotate"], b"").await;
    assert_eq!(output.status.code(), Some(75), "{}", error_text(&output));
    let world = down.come_back().await;
    let present = Identity::load(&paths.data.join("key")).unwrap();
    let third = next_key(&paths);
    world.client().succeed(present.keypair(), third.keypair(), &mailbox("alice"), None).await.unwrap();
    let mut agent = programs::start(&paths).await;
    assert_eq!(changed_from(next, &paths).await, third.peer().to_string());
    agent.kill().await.unwrap();

    // It died when the key was changed, and what it was doing was still on record.
    let record = format!(r#"{{"former":"{next}","next":"{}"}}"#, third.peer());
    std::fs::write(paths.data.join("key-rotation.json"), record).unwrap();
    let _agent = programs::start(&paths).await;
    assert_eq!(changed_from(next, &paths).await, third.peer().to_string());
    assert_eq!(key_files(&paths), ["former-keys.json", "key"], "there is nothing to go on with");
    assert_eq!(json(&paths, &["key", "show"]).await["former"].as_array().unwrap().len(), 2);
}

// SPEC: A12
#[tokio::test(flavor = "multi_thread")]
async fn a_further_device_is_confirmed_by_the_first_and_begins_at_once() {
    let world = World::start_with(|config| config.ping_interval_s = 1).await;
    let first = world.set_up("alice", None).await;
    let second = world.set_up_as("phone", mailbox("alice"), None).await;
    let key = peer(&second).await.to_string();
    let phone = programs::start(&second).await;
    let status = json(&second, &["status"]).await;
    assert!(status["primary"].is_null(), "not attested: {status}");
    let output = run(&second, &["confirm", &key], b"").await;
    assert_eq!(output.status.code(), Some(1), "by itself: {}", error_text(&output));
    // Whatever key the waiting one has by then.
    let rotated = json(&second, &["key", "rotate"]).await["peer"].as_str().unwrap().to_owned();
    let output = run(&first, &["confirm", &key], b"").await;
    assert!(error_text(&output).contains("no further store with that key"), "{}", error_text(&output));
    json(&first, &["confirm", &rotated]).await;
    eventually("attested", async || {
        let output = run(&second, &["--json", "status"], b"").await;
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["primary"] == false
    })
    .await;
    drop(phone);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_key_that_is_no_stores_is_not_rotated_and_nothing_changes() {
    let world = World::start().await;
    let paths = world.set_up("alice", None).await;
    let former = peer(&paths).await;
    let remove = AdminCommand::UserRemove { mailbox: mailbox("alice"), peer: None };
    world.location.administer(remove).await.unwrap();
    let output = run(&paths, &["key", "rotate"], b"").await;
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    assert!(error_text(&output).contains("was not changed"), "{}", error_text(&output));
    assert_eq!((peer(&paths).await, key_files(&paths)), (former, vec!["key".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_damaged_records_of_keys_are_said_and_nothing_is_guessed() {
    let world = World::start().await;
    let paths = world.set_up("alice", None).await;
    json(&paths, &["key", "rotate"]).await;
    let file = |name: &str| paths.data.join(name);
    let good = std::fs::read(file("former-keys.json")).unwrap();
    let says = async |name: &str, bytes: &[u8]| {
        std::fs::write(Path::new(&file(name)), bytes).unwrap();
        let output = run(&paths, &["run"], b"").await;
        assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
        assert!(error_text(&output).contains(name), "{}", error_text(&output));
    };
    let text = String::from_utf8(good.clone()).unwrap();
    let cut = text.replacen("\"sealing\": \"", "\"sealing\": \"AAAA", 1);
    for damaged in ["", "[{}]", "{}", &cut, &text[..text.len() / 2], &"x".repeat(100_000)] {
        says("former-keys.json", damaged.as_bytes()).await;
    }
    std::fs::write(file("former-keys.json"), good).unwrap();
    says("key-rotation.json", b"{}").await;
    std::fs::remove_file(file("key-rotation.json")).unwrap();
    let config = Config::read(&paths.config).unwrap();
    assert!(matches!(Access::open(&config, &paths).await, Ok(Access::Alone(_))), "nothing was left open");
}
