//! A mail service is its users' store (SPEC A29), set up as docs/OPERATING.md says: Debian's Postfix before the relay, Debian's
//! Dovecot behind it, and one agent for all users, who run nothing themselves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lighter_e2e::{contains, head};
use lighter_harness::imap::Imap;
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Dovecot, Postfix, Route, example};
use lighter_harness::programs::run_ok;
use lighter_harness::watch::{wait_for, wait_for_receipts, wait_until_released};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World};
use serde_json::{Value, json};

const SENDER: &str = "sender@elsewhere.example";
const USERS: [&str; 3] = ["ann@lighter.test", "bob@lighter.test", "carl@lighter.test"];
const SIZE: u64 = 2 * 1024 * 1024;

struct Service {
    world: World,
    dovecot: Dovecot,
    postfix: Postfix,
    store: Agent,
    users: PathBuf,
}

impl Service {
    /// A domain with a relay, and a store for the users of Dovecot's passwd-file.
    async fn start(folder: &Path) -> Result<Self> {
        let dovecot = Dovecot::start(&folder.join("dovecot")).await?;
        let next_hop: toml::Table =
            toml::from_str(&example("relay-next-hop-lmtp", &[("127.0.0.1:24", &dovecot.lmtp.to_string())])?)?;
        let next_hop = serde_json::to_value(next_hop.get("next_hop").context("no [next_hop]")?)?;
        let mut world =
            World::start_with(&Options { next_hop: Some(next_hop), ..Options::default() }).await?;
        let postfix = Postfix::start(&folder.join("postfix"), &Route::Lmtp(world.lmtp()?)).await?;
        let mut store = world.agent("store").await?;
        let peer = store.json(&["status"]).await?["peer"].as_str().context("no key")?.to_owned();
        let users = folder.join("users");
        name(&users, &USERS)?;
        let file = users.to_str().context("a path")?.to_owned();
        let ours = [
            ("12D3KooWPeerIdOfTheStore", peer.as_str()),
            ("/etc/dovecot/users", file.as_str()),
            ("example.org", "lighter.test"),
        ];
        let hosted: toml::Table = toml::from_str(&example("location-hosted", &ours)?)?;
        let config = world.folder().join("location.toml");
        let mut location: toml::Table = toml::from_str(&std::fs::read_to_string(&config)?)?;
        location.extend(hosted);
        location.insert("ping_interval_s".to_owned(), toml::Value::Integer(1));
        std::fs::write(&config, toml::to_string(&location)?)?;
        world.location.stop().await?;
        world.location.start().await?;
        store.configure(&toml::from_str(&example("agent-hosted", &[("example.org", "lighter.test")])?)?)?;
        store.member.start().await?;
        let service = Self { world, dovecot, postfix, store, users };
        service.serves(USERS.len()).await?;
        Ok(service)
    }

    /// Waits until so many mailboxes are served, and the location server says so.
    async fn serves(&self, count: usize) -> Result<()> {
        wait_for(&format!("{count} hosted mailboxes"), async || {
            let status = self.store.json(&["status"]).await?;
            let listed = self.world.location_command(&["user", "list"]).await?;
            let listed = listed.as_array().context("no list")?;
            let online =
                listed.iter().filter(|row| row["hosted"] == true && row["presence"] == "online").count();
            Ok((status["hosted"]["mailboxes"] == count && online == count).then_some(()))
        })
        .await
    }

    async fn send(&self, message: &TestMessage) -> Result<()> {
        let (server, to) = (self.postfix.smtp.to_string(), USERS.join(","));
        let swaks = ["--server", &server, "--from", SENDER, "--to", &to, "--data", "-", "--silent", "2"];
        let said = run_ok(Path::new("/usr/bin/swaks"), swaks, &message.to_bytes()).await?;
        ensure!(said.is_empty(), "{}", head(&said));
        Ok(())
    }

    async fn arrived(&self, mailbox: &str, number: u32) -> Result<Vec<u8>> {
        let mut imap = Imap::login(self.dovecot.imap, mailbox, Dovecot::PASSWORD).await?;
        imap.wait_for_message(number).await.with_context(|| mailbox.to_owned())
    }

    /// The stubs of message `number` in all mailboxes.
    async fn stubs(&self, number: u32) -> Result<Vec<Vec<u8>>> {
        let mut stubs = Vec::new();
        for user in USERS {
            let stub = self.arrived(user, number).await?;
            ensure!(contains(&stub, b"Lighter-Message:") && stub.len() < 50_000, "{user}:\n{}", head(&stub));
            stubs.push(stub);
        }
        Ok(stubs)
    }

    async fn restore(&self, user: &str, stub: &[u8], message: &TestMessage) -> Result<()> {
        let restored = self.store.command_with(&["restore", "--mailbox", user], stub).await?;
        // swaks puts a line end behind it.
        let sent = message.to_bytes();
        let is_whole = restored.ends_with(&sent)
            || restored.strip_suffix(b"\r\n").is_some_and(|mail| mail.ends_with(&sent));
        ensure!(is_whole, "{user}: restored to something else:\n{}", head(&restored));
        Ok(())
    }
}

fn name(file: &Path, users: &[&str]) -> Result<()> {
    let lines: String = users.iter().map(|user| format!("{user}:{{PLAIN}}x::::::\n")).collect();
    Ok(std::fs::write(file, lines)?)
}

fn message(seed: u64, size: u64) -> TestMessage {
    TestMessage { from: SENDER.to_owned(), ..TestMessage::new("undisclosed@lighter.test", size, seed) }
}

// SPEC: A29, A17, A18, A19, A20, D1, D4, D5
#[tokio::test]
async fn a_mail_service_is_its_users_store_through_postfix_and_dovecot() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut service = Service::start(folder.path()).await?;
    let first = message(1, SIZE);
    service.send(&first).await?;
    let stubs = service.stubs(1).await?;
    wait_for_receipts(&service.store, 3).await?;
    wait_until_released(&service.world).await?;
    for (user, stub) in USERS.iter().zip(&stubs) {
        service.restore(user, stub, &first).await?;
        let list = service.store.json(&["list", "--mailbox", user]).await?;
        ensure!(list["deliveries"].as_array().is_some_and(|all| all.len() == 1), "{list}");
    }
    // A stub in somebody else's mailbox, and one that is restored for nobody, put nothing in.
    for arguments in [&["restore", "--mailbox", USERS[1]][..], &["restore"]] {
        let output = service.store.try_command_with(arguments, &stubs[0]).await?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{arguments:?} gave ann's");
    }
    let status = service.store.json(&["status"]).await?;
    ensure!(status["store"]["bytes_used"] == SIZE, "equal attachments are one file: {}", status["store"]);

    // Offline: the relay keeps it; online: it comes.
    service.store.member.stop().await?;
    let second = message(2, SIZE);
    service.send(&second).await?;
    let stubs = service.stubs(2).await?;
    service.store.member.start().await?;
    wait_for_receipts(&service.store, 6).await?;
    for (user, stub) in USERS.iter().zip(&stubs) {
        service.restore(user, stub, &second).await?;
    }

    // Killed while it pulls, it goes on.
    let third = message(3, 24 * 1024 * 1024);
    service.send(&third).await?;
    wait_for("a pull to be under way", async || {
        let status = service.store.json(&["status"]).await?;
        Ok((status["pulling"] != 0 || status["store"]["deliveries"] == 9).then_some(()))
    })
    .await?;
    service.store.member.kill().await?;
    service.store.member.start().await?;
    let stubs = service.stubs(3).await?;
    wait_for_receipts(&service.store, 9).await?;
    for (user, stub) in USERS.iter().zip(&stubs) {
        service.restore(user, stub, &third).await?;
    }
    Ok(())
}

// SPEC: A29, A2, A5, A6, A21, A23, A24
#[tokio::test]
async fn senders_offer_to_a_hosted_store_and_a_users_own_device_gets_from_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut service = Service::start(folder.path()).await?;
    let mut dora = service.world.agent("dora").await?;
    dora.member.start().await?;
    // By herself, and not by the relay, which has what is sent while no way to the store is found.
    wait_for("a way to the store", async || {
        let found = dora.json(&["lookup", USERS[0]]).await?;
        Ok(found["store"]["way"].as_str().map(ToOwned::to_owned))
    })
    .await?;
    let content: Vec<u8> = message(4, SIZE).attachment().flatten().collect();
    let file = folder.path().join("report.bin");
    std::fs::write(&file, &content)?;
    let file = file.to_str().context("a path")?;
    let sent = dora.json(&["send", "--to", USERS[0], "--subject", "x", file]).await;
    // The progress is one JSON value in each line.
    let _ = sent;
    wait_for_receipts(&service.store, 1).await?;
    let stub = service.arrived(USERS[0], 1).await?;
    ensure!(contains(&stub, b"Lighter-Message:"), "{}", head(&stub));
    let list = service.store.json(&["list", "--mailbox", USERS[0]]).await?;
    let delivery = &list["deliveries"][0];
    let (blob, from) = (&delivery["parts"][0]["id"], &delivery["from"]);
    ensure!(*from == dora.json(&["status"]).await?["peer"], "{list}");

    // Where the store is off, it is left sealed with the relay, and opened when the store is on.
    service.store.member.stop().await?;
    let _ = dora.try_command(&["send", "--to", USERS[1], "--subject", "y", file]).await?;
    service.store.member.start().await?;
    wait_for_receipts(&service.store, 2).await?;
    let of_bob = service.store.json(&["list", "--mailbox", USERS[1]]).await?;
    ensure!(of_bob["deliveries"][0]["parts"][0]["id"] == *blob, "{of_bob}");

    // Ann has a device now: it gets hers from the hosted store, and nobody else's.
    let mut ann = service.world.agent("ann").await?;
    let peer = ann.json(&["status"]).await?["peer"].as_str().context("no key")?.to_owned();
    service.world.location_command(&["user", "confirm", USERS[0], "--peer", &peer]).await?;
    let stub_file = folder.path().join("stub.eml");
    std::fs::write(&stub_file, &stub)?;
    let stub_file = stub_file.to_str().context("a path")?;
    let into = folder.path().join("got");
    let got = ann.json(&["get", stub_file, "-o", into.to_str().context("a path")?]).await?;
    ensure!(got["attachments"][0]["from"] == "other-store", "{got}");
    let files: Vec<_> = std::fs::read_dir(&into)?.collect::<std::io::Result<_>>()?;
    ensure!(files.len() == 1 && std::fs::read(files[0].path())? == content, "other bytes");
    let bobs = service.arrived(USERS[1], 1).await?;
    std::fs::write(stub_file, &bobs)?;
    let output = ann.try_command(&["get", stub_file, "-o", into.to_str().context("a path")?]).await?;
    ensure!(!output.status.success(), "ann got bob's");

    // From here on mail for ann goes to her own store; who is not named any more is not served.
    ann.member.start().await?;
    let mail = message(5, SIZE);
    service.send(&mail).await?;
    wait_for_receipts(&ann, 1).await?;
    wait_for_receipts(&service.store, 4).await?;
    name(&service.users, &USERS[..2])?;
    service.serves(2).await?;
    let whole = message(6, SIZE);
    service.send(&whole).await?;
    let to_carl = service.arrived(USERS[2], 2).await?;
    ensure!(!contains(&to_carl, b"Lighter-Message:"), "carl has no store any more:\n{}", head(&to_carl));
    let left = &service.store.json(&["status"]).await?["hosted"]["left"];
    ensure!(*left == json!([USERS[2]]), "{left}");
    let _: Value = service.store.json(&["list", "--mailbox", USERS[2]]).await?;
    Ok(())
}
