//! Being a good guest: limits, pauses, metered networks, a store that is full; and nothing is lost by any of it.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lighter_agent::agent::Agent;
use lighter_agent::config::Paths;
use lighter_agent::guest::by_hand::{Pause, Wish};
use lighter_agent::guest::decide::GuestConfig;
use lighter_protocol::pull::SourceState;
use lighter_protocol::wire::{Answer, Get, LaterReason, Offer};
use lighter_protocol::{BlobId, DeliveryId, UnixTime};
use lighter_store::Here;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, json, program, run, run_ok};
use crate::support::relay::Relay;
use crate::support::{World, bytes, change, eventually, file, mailbox, start};

const PAUSE: Wish = Wish::Pause(Pause { until: None, everything: false });
const MIB: usize = 1024 * 1024;

/// Sets `name` up with this configuration of its guest's manners.
async fn set_up(world: &World, name: &str, guest: &str) -> Paths {
    let sink = MailSink::start().await;
    let paths = world.set_up(name, Some(sink.address.to_string())).await;
    change(&paths, |config| config.guest = toml::from_str::<GuestConfig>(guest).unwrap());
    paths
}

/// Bytes that these requests ask for.
fn asked(gets: &[Get]) -> u64 {
    gets.iter().flat_map(|get| &get.ranges).map(|(start, end)| end - start).sum()
}

fn answers(relay: &Relay) -> Vec<Vec<Answer>> {
    relay.held.lock().unwrap().answers.clone()
}

fn later(reason: LaterReason) -> Vec<Answer> {
    vec![Answer::Later(reason)]
}

/// Waits until so many deliveries are receipted; a receipt that is shown again counts once.
async fn receipted(relay: &Relay, count: usize) -> BTreeSet<DeliveryId> {
    let claims = || -> BTreeSet<_> {
        let held = relay.held.lock().unwrap();
        held.receipts.iter().map(|receipt| receipt.claim().unwrap().delivery).collect()
    };
    eventually("receipts", async || claims().len() >= count).await;
    claims()
}

async fn is_here(agent: &Agent, offer: &Offer) {
    for part in &offer.blobs {
        assert!(agent.shared().store.open_blob(part.id).unwrap().is_intact().unwrap());
    }
}

// SPEC: A6, A19
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_a_limit_takes_its_time_and_is_asked_for_once() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let paths = set_up(&world, "alice", "download = '400 KiB/s'").await;
    let offers: Vec<_> = (1..=3)
        .map(|number| {
            relay.hold(number, &mailbox("alice"), &[number; 9], &[bytes(number.into(), 400 * 1024)])
        })
        .collect();
    let began = Instant::now();
    let alice = start(&paths).await;
    receipted(&relay, 3).await;
    // 1200 KiB, but for what may go at once.
    assert!(began.elapsed() >= Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert_eq!(asked(&relay.held.lock().unwrap().gets), 3 * (400 * 1024 + 9), "nothing twice");
    for offer in &offers {
        is_here(&alice, offer).await;
    }
    alice.stop().await;
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_a_limit_takes_its_time() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let sam = set_up(&world, "sam", "upload = '400 KiB/s'").await;
    let content = bytes(1, MIB);
    let attached = file(world.folder.path(), "a.bin", &content);
    let began = Instant::now();
    let arguments = ["--json", "send", "--to", "alice@example.org", attached.to_str().unwrap()];
    let output = run(&sam, &arguments, b"").await;
    assert!(output.status.success(), "{}", error_text(&output));
    assert!(began.elapsed() >= Duration::from_millis(2_000), "{:?}", began.elapsed());
    assert!(String::from_utf8_lossy(&output.stdout).contains("receipted"));
    assert!(alice.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    alice.stop().await;
}

// SPEC: A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_the_middle_holds_a_pull_up_and_it_goes_on_with_what_is_missing() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.held.lock().unwrap().rate = Some(MIB as u64 / 4);
    let paths = set_up(&world, "alice", "").await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 4 * MIB)]);
    let alice = start(&paths).await;
    let (blob, size) = (offer.blobs[0].id, offer.blobs[0].size);
    let here = || match alice.shared().store.here(blob, size, UnixTime::now()).unwrap() {
        Here::Part(ranges) => ranges,
        Here::Whole => unreachable!("whole already"),
    };
    eventually("some of it", async || !here().is_empty()).await;
    let at_pause = here();
    alice.shared().guest.say(PAUSE).unwrap();
    let view = || json(&paths, &["list"]);
    eventually("to be told why", async || {
        view().await["deliveries"][0]["reason"].as_str() == Some("waits: paused by hand")
    })
    .await;
    // A further one is left with the relay, and told of, too.
    relay.hold(2, &mailbox("alice"), b"another", &[bytes(2, MIB + 1)]);
    alice.shared().guest.there_is_room();
    eventually("the second to wait", async || {
        answers(&relay).contains(&later(LaterReason::Paused))
            && view().await["deliveries"].as_array().unwrap().len() == 2
    })
    .await;
    assert!(relay.held.lock().unwrap().receipts.is_empty());

    let asked_before = relay.held.lock().unwrap().gets.len();
    relay.held.lock().unwrap().rate = None;
    run_ok(&paths, &["resume"], b"").await;
    receipted(&relay, 2).await;
    is_here(&alice, &offer).await;
    let gets = relay.held.lock().unwrap().gets[asked_before..].to_vec();
    let ranges: Vec<_> =
        gets.iter().filter(|get| get.blob == blob).flat_map(|get| get.ranges.clone()).collect();
    assert!(!ranges.is_empty(), "it went on after the pause");
    for (start, end) in ranges {
        let again = at_pause.iter().any(|had| had.start < end && start < had.end);
        assert!(!again, "{start}..{end} was here already");
    }
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_keeps_what_a_paused_store_does_not_take_and_hands_it_over_afterwards() {
    let world = World::start().await;
    let alice = start(&set_up(&world, "alice", "").await).await;
    alice.shared().guest.say(PAUSE).unwrap();
    let sam_paths = set_up(&world, "sam", "").await;
    let sam = start(&sam_paths).await;
    let content = bytes(1, 700_000);
    let attached = file(world.folder.path(), "a.bin", &content);
    let arguments =
        ["send", "--unreachable", "retry", "--to", "alice@example.org", attached.to_str().unwrap()];
    let output = run(&sam_paths, &arguments, b"").await;
    assert!(output.status.success(), "{}", error_text(&output));
    let state = || async { json(&sam_paths, &["status"]).await["outgoing"][0].clone() };
    assert_eq!(state().await["state"], "waiting");
    let waits = alice.shared().pulls.waits.all(UnixTime::now());
    assert_eq!((waits.len(), waits[0].reason), (1, LaterReason::Paused));
    alice.shared().guest.say(Wish::Resume).unwrap();
    eventually("the delivery", async || state().await["state"] == "released").await;
    assert!(alice.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    assert!(alice.shared().pulls.waits.all(UnixTime::now()).is_empty());
    sam.stop().await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_paused_serves_nothing_large_until_it_is_not() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let sam_paths = set_up(&world, "sam", "").await;
    let sam = start(&sam_paths).await;
    sam.shared().guest.say(PAUSE).unwrap();
    let content = bytes(1, 700_000);
    let attached = file(world.folder.path(), "a.bin", &content);
    let mut command = program(&sam_paths);
    command.args(["send", "--to", "alice@example.org", attached.to_str().unwrap()]);
    let mut sending = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sent = || async { json(&sam_paths, &["status"]).await["outgoing"][0].clone() };
    eventually("to be told why", async || {
        sent().await["reason"].as_str() == Some("uploads wait: paused by hand")
    })
    .await;
    eventually("the store to be told to wait", async || {
        let sources = alice.shared().pulls.sources().await;
        sources.values().flatten().any(|source| source.state == SourceState::Resting)
    })
    .await;
    assert!(!alice.shared().store.holds(BlobId::of(&content)).unwrap());
    sam.shared().guest.say(Wish::Resume).unwrap();
    eventually("the delivery", async || sent().await["state"] == "released").await;
    assert!(sending.wait().await.unwrap().success());
    assert!(alice.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    sam.stop().await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_for_everything_not_even_an_offer_is_answered_and_a_restart_keeps_it() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 1_000)]);
    let paths = set_up(&world, "alice", "").await;
    // With no agent running: it holds for the next.
    let said = run_ok(&paths, &["pause", "--everything", "--for", "1h"], b"").await;
    assert!(
        String::from_utf8_lossy(&said).starts_with("everything waits: paused by hand, until "),
        "{said:?}"
    );
    let alice = start(&paths).await;
    eventually("the offer to come", async || alice.shared().pulls.waits.all(UnixTime::now()).len() == 1)
        .await;
    assert!(answers(&relay).is_empty() && relay.held.lock().unwrap().gets.is_empty());
    let status = json(&paths, &["status"]).await;
    assert_eq!(
        (&status["limits"]["waits"], &status["waiting"][0]["bytes"]),
        (&"everything".into(), &1_000.into())
    );
    let shown = String::from_utf8(run_ok(&paths, &["status"], b"").await).unwrap();
    assert!(shown.contains("limits     everything waits: paused by hand"), "{shown}");
    let said = run_ok(&paths, &["resume"], b"").await;
    assert!(String::from_utf8_lossy(&said).contains("No limits"));
    receipted(&relay, 1).await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_by_hand_are_set_shown_and_lifted() {
    let world = World::start().await;
    let paths = set_up(&world, "alice", "upload = '1 MiB/s'").await;
    let alice = start(&paths).await;
    let limit = json(&paths, &["limit", "--down", "2M", "--up", "500k", "--for", "2h"]).await;
    assert_eq!(limit["download"]["bytes_per_second"], 2 * MIB);
    assert_eq!(limit["upload"]["bytes_per_second"], 500 * 1024);
    assert!(limit["download"]["until"].as_u64().unwrap() >= UnixTime::now().0 + 7_000);
    assert_eq!(json(&paths, &["limit"]).await, limit);
    let lifted = run_ok(&paths, &["limit", "--off"], b"").await;
    assert_eq!(String::from_utf8_lossy(&lifted), "upload at most 1.0 MiB/s: the configuration\n");
    for wrong in
        [&["limit", "--down", "1k"][..], &["limit", "--for", "2h"], &["limit", "--off", "--up", "1M"]]
    {
        let output = run(&paths, wrong, b"").await;
        assert_eq!(output.status.code(), Some(2), "{}", error_text(&output));
    }
    alice.stop().await;
}

// SPEC: D5
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_31_a_full_store_is_told_of_and_what_waits_comes_once_there_is_room() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let paths = set_up(&world, "alice", "").await;
    change(&paths, |config| config.store.quota_mib = Some(1));
    let offers = [(1, 700_000), (2, 900_000), (3, 950_000)].map(|(number, len)| {
        relay.hold(number, &mailbox("alice"), &[number; 5], &[bytes(number.into(), len)])
    });
    let mut alice = start(&paths).await;
    alice.follow(paths.config.clone());
    receipted(&relay, 1).await;
    eventually("all to be answered", async || answers(&relay).len() >= 3).await;
    assert!(answers(&relay).contains(&later(LaterReason::Quota)));
    // Whichever came first is here; the others wait, and it is said why and what helps.
    let list = json(&paths, &["list"]).await;
    let deliveries = list["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 3, "{list:#}");
    let (here, waiting): (Vec<_>, Vec<_>) = deliveries.iter().partition(|row| row["state"] == "receipted");
    assert_eq!((here.len(), waiting.len()), (1, 2));
    for row in waiting {
        let reason = row["reason"].as_str().unwrap();
        assert!(reason.starts_with("waits: the store is full, ") && reason.contains("missing"), "{reason}");
        assert!(reason.contains("store.quota_mib") && reason.contains("lighter-agent remove"), "{reason}");
    }
    let status = String::from_utf8(run_ok(&paths, &["status"], b"").await).unwrap();
    assert_eq!(status.matches("waits: the store is full").count(), 2, "{status}");
    // What is on its way, or nowhere, cannot be let go of.
    let waits = offers.iter().find(|offer| offer.delivery.to_string() != here[0]["delivery"]).unwrap();
    assert!(!run(&paths, &["remove", &waits.delivery.to_string()], b"").await.status.success());

    // Room is made: one more comes.
    let removed = run_ok(&paths, &["remove", here[0]["delivery"].as_str().unwrap()], b"").await;
    assert!(String::from_utf8_lossy(&removed).contains("are free again"));
    receipted(&relay, 2).await;
    eventually("one to wait", async || alice.shared().pulls.waits.all(UnixTime::now()).len() == 1).await;
    // The quota is raised, in the file of the agent that runs: the last one comes.
    change(&paths, |config| config.store.quota_mib = Some(3));
    let claims = receipted(&relay, 3).await;
    assert_eq!(claims, offers.iter().map(|offer| offer.delivery).collect());
    assert!(alice.shared().pulls.waits.all(UnixTime::now()).is_empty());
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_changed_holds_at_once_and_a_broken_one_is_told_of() {
    let world = World::start().await;
    let paths = set_up(&world, "alice", "").await;
    let mut alice = start(&paths).await;
    alice.follow(paths.config.clone());
    change(&paths, |config| config.guest = toml::from_str("download = '1 MiB/s'").unwrap());
    eventually("the limit", async || alice.shared().guest.view().download.is_some()).await;
    let good = std::fs::read_to_string(&paths.config).unwrap();
    std::fs::write(&paths.config, good.replace("1 MiB/s", "quickly")).unwrap();
    eventually("the problem", async || {
        let problem = alice.shared().guest.problem().unwrap_or_default();
        problem.contains("quickly") && problem.contains("2 MiB/s")
    })
    .await;
    assert!(alice.shared().guest.view().download.is_some(), "what was before still holds");
    std::fs::write(&paths.config, good.replace("1 MiB/s", "2 MiB/s")).unwrap();
    eventually("no problem", async || alice.shared().guest.problem().is_none()).await;
    alice.stop().await;
}

/// NetworkManager, as far as it is asked.
struct NetworkManager {
    metered: u32,
}

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl NetworkManager {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.metered
    }

    #[zbus(property)]
    fn primary_connection(&self) -> zbus::zvariant::OwnedObjectPath {
        ACTIVE.try_into().unwrap()
    }
}

const ACTIVE: &str = "/org/freedesktop/NetworkManager/ActiveConnection/1";

struct ActiveConnection;

#[zbus::interface(name = "org.freedesktop.NetworkManager.Connection.Active")]
impl ActiveConnection {
    #[zbus(property)]
    fn id(&self) -> &'static str {
        "Phone\u{202e}"
    }
}

/// A bus of this test's own, which ends with it.
struct Bus {
    address: String,
    _daemon: Child,
}

impl Bus {
    async fn start() -> Self {
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--print-address"]);
        let mut daemon = daemon.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let address = lines.next_line().await.unwrap().unwrap();
        Self { address, _daemon: daemon }
    }

    async fn network_manager(&self, metered: u32) -> zbus::Connection {
        let path = "/org/freedesktop/NetworkManager";
        let builder = zbus::connection::Builder::address(self.address.as_str()).unwrap();
        let builder = builder.serve_at(path, NetworkManager { metered }).unwrap();
        let builder = builder.serve_at(ACTIVE, ActiveConnection).unwrap();
        builder.name("org.freedesktop.NetworkManager").unwrap().build().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_metered_network_what_is_offered_waits_until_it_is_another_one() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 2 * MIB)]);
    let bus = Bus::start().await;
    let manager = bus.network_manager(1).await;
    let paths = set_up(&world, "alice", "").await;
    let mut command = program(&paths);
    command
        .env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address)
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // Held up from the start, so that nothing goes before the bus has answered.
    run_ok(&paths, &["pause"], b"").await;
    let alice = command.kill_on_drop(true).spawn().unwrap();
    eventually("the agent to start", async || paths.control().exists()).await;
    let limits = || async { json(&paths, &["status"]).await["limits"].clone() };
    // The pause is named first; without it, the network counts.
    run_ok(&paths, &["resume"], b"").await;
    eventually("the network to be known", async || {
        limits().await["reason"].as_str() == Some("metered network (Phone)")
    })
    .await;
    let interface = manager
        .object_server()
        .interface::<_, NetworkManager>("/org/freedesktop/NetworkManager")
        .await
        .unwrap();
    let tell = |metered| {
        let interface = interface.clone();
        async move {
            interface.get_mut().await.metered = metered;
            interface.get().await.metered_changed(interface.signal_emitter()).await.unwrap();
        }
    };
    // 2: no; 4: guessed to be none; 0: unknown. 3: guessed to be one.
    for (metered, waits) in
        [(2, "nothing"), (3, "transfers"), (4, "nothing"), (1, "transfers"), (0, "nothing")]
    {
        tell(metered).await;
        eventually("the change", async || limits().await["waits"] == waits).await;
    }
    receipted(&relay, 1).await;
    tell(1).await;
    eventually("metered again", async || limits().await["waits"] == "transfers").await;
    relay.hold(2, &mailbox("alice"), b"another", &[bytes(2, 2 * MIB)]);
    tell(2).await;
    receipted(&relay, 2).await;
    drop(alice);
}
