//! An outgoing mail server sends for all its users (SPEC A26), set up as docs/OPERATING.md says: swaks hands their mail to
//! Debian's Postfix, that to the agent, and the agent back to Postfix, which takes it to the recipients' mail server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lighter_e2e::{contains, head};
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Postfix, Route, example, free_address};
use lighter_harness::programs::run;
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts, wait_until_released};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World};
use serde_json::{Value, json};

const SAM: &str = "sam@lighter.test";
const CAROL: &str = "carol@lighter.test";
/// Where the mail server connects from, and nobody else.
const FROM: &str = "127.0.0.2";
const SIZE: u64 = 3 * 1024 * 1024;
/// What it could not hand on it tries again at once.
const TRIES_AT_ONCE: &str = "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n";

/// A domain with an outgoing mail server, and two users with agents that do not run yet.
struct Domain {
    world: World,
    out: Agent,
    alice: Agent,
    bob: Agent,
    /// Where users hand in their mail.
    postfix: Postfix,
    /// Where the agent takes it.
    agent: SocketAddr,
}

impl Domain {
    async fn start(folder: &Path) -> Result<Self> {
        let names = [("example.org", "lighter.test")];
        let location: Value = toml::from_str(&example("location-outgoing", &names)?)?;
        let world = World::start_with(&Options { location: Some(location), ..Options::default() }).await?;
        let (agent, back) = (free_address()?, free_address()?);
        let mut out = world.agent("outgoing").await?;
        let (agent_text, back_text) = (agent.to_string(), back.to_string());
        let ours = [
            names[0],
            ("127.0.0.1:10025", agent_text.as_str()),
            ("127.0.0.1:10027", back_text.as_str()),
            ("127.0.0.0/8", "127.0.0.2/32"),
        ];
        out.configure(&toml::from_str(&example("agent-outgoing", &ours)?)?)?;
        out.member.start().await?;
        ensure!(out.member.address("/outgoing")? == agent);
        registered(&out).await?;
        let main = format!("smtp_bind_address = {FROM}\n{TRIES_AT_ONCE}");
        let route = Route::Outgoing { agent, back, onward: world.lmtp()? };
        let postfix = Postfix::start_at(&folder.join("postfix"), free_address()?, &route, &main).await?;
        let (alice, bob) = (world.agent("alice").await?, world.agent("bob").await?);
        Ok(Self { world, out, alice, bob, postfix, agent })
    }

    fn everybody(&self) -> String {
        format!("{},{},{CAROL}", self.alice.mailbox, self.bob.mailbox)
    }

    /// A user's message, handed to their mail server.
    async fn submit(&self, message: &TestMessage) -> Result<()> {
        let said = swaks(self.postfix.smtp, Ipv4Addr::LOCALHOST, &self.everybody(), message).await?;
        ensure!(said.contains("queued as"), "{said}\n{}", self.postfix.log());
        Ok(())
    }

    /// How many messages each of them has.
    fn counts(&self) -> Result<[usize; 3]> {
        let [alice, bob, carol] = [&self.alice.mailbox, &self.bob.mailbox, CAROL];
        Ok([
            self.world.maildir(alice)?.len(),
            self.world.maildir(bob)?.len(),
            self.world.maildir(carol)?.len(),
        ])
    }
}

fn message(size: u64, seed: u64) -> TestMessage {
    TestMessage { from: SAM.to_owned(), ..TestMessage::new("undisclosed@lighter.test", size, seed) }
}

async fn registered(agent: &Agent) -> Result<()> {
    let registered = async || {
        let status = agent.json(&["status"]).await?;
        Ok((status["registered"] == true).then_some(()))
    };
    wait_for("the agent to be online", registered).await
}

/// Sends as sam from an address of this machine; everything that was said.
async fn swaks(server: SocketAddr, from: Ipv4Addr, to: &str, message: &TestMessage) -> Result<String> {
    let (server, from) = (server.to_string(), from.to_string());
    let arguments = [
        "--server",
        &server,
        "--local-interface",
        &from,
        "--from",
        SAM,
        "--to",
        to,
        "--data",
        "-",
        "--suppress-data",
    ];
    let output = run(Path::new("/usr/bin/swaks"), arguments, &message.to_bytes()).await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Whether a message stands in this one from its first line to its last; swaks puts a line end behind it.
fn is_whole(mail: &[u8], message: &TestMessage) -> bool {
    let sent = message.to_bytes();
    mail.ends_with(&sent) || mail.strip_suffix(b"\r\n").is_some_and(|mail| mail.ends_with(&sent))
}

/// The states of what went to stores: of each recipient's delivery.
async fn states(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.json(&["status"]).await?;
    let all = status.pointer("/outgoing").and_then(Value::as_array).context("no outgoing in the status")?;
    let state = |sent: &Value| sent.pointer("/state").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(all.iter().map(state).collect())
}

// SPEC: A5, A6, A7, A9, A10, A26
#[tokio::test]
async fn one_message_of_a_user_without_an_agent_goes_three_ways_through_their_real_mail_server() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut domain = Domain::start(folder.path()).await?;
    domain.alice.member.start().await?;
    registered(&domain.alice).await?;
    let sent = message(SIZE, 1);
    domain.submit(&sent).await?;

    let (world, alice) = (&domain.world, &domain.alice);
    let to_alice = wait_for_mail(world, &alice.mailbox, 1).await?;
    ensure!(contains(&to_alice, b"Lighter-Message:") && to_alice.len() < 50_000, "{}", head(&to_alice));
    wait_for_receipts(alice, 1).await?;
    // Carol gets every byte, below what the servers on the way have put on top.
    let whole = wait_for_mail(world, CAROL, 1).await?;
    ensure!(is_whole(&whole, &sent), "not as it was sent:\n{}", head(&whole));
    ensure!(
        is_whole(&alice.command_with(&["restore"], &to_alice).await?, &sent),
        "restored to something else"
    );
    // Bob's store is off: what is his is at the relay, sealed, and comes when it is on.
    let to_bob = wait_for_mail(world, &domain.bob.mailbox, 1).await?;
    ensure!(contains(&to_bob, b"Lighter-Message:") && to_bob.len() < 50_000, "{}", head(&to_bob));
    let status = domain.out.json(&["status"]).await?;
    let counted = &status["submission"];
    let expected = json!([1, 1, 1, 1]);
    let figures = ["detached", "recipients_to_store", "recipients_left", "recipients_whole"];
    ensure!(json!(figures.map(|figure| &counted[figure])) == expected, "{counted}");
    let said = String::from_utf8(domain.out.command(&["status"]).await?)?;
    ensure!(said.contains("for lighter.test") && said.contains("1 left with a relay"), "{said}");
    domain.bob.member.start().await?;
    wait_for_receipts(&domain.bob, 1).await?;
    ensure!(is_whole(&domain.bob.command_with(&["restore"], &to_bob).await?, &sent), "bob's");
    ensure!(domain.counts()? == [1, 1, 1], "{:?}", domain.counts()?);
    // Against receipts alone it lets go. It asks the relay when it starts.
    domain.out.member.stop().await?;
    domain.out.member.start().await?;
    wait_for("the agent to let go of everything", async || {
        Ok((states(&domain.out).await? == ["released", "released"]).then_some(()))
    })
    .await?;
    Ok(())
}

// SPEC: A26
#[tokio::test]
async fn bad_input_34_nobody_but_the_mail_server_sends_through_it_and_its_mail_goes_whole_without_a_location_server()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut domain = Domain::start(folder.path()).await?;
    domain.alice.member.start().await?;
    registered(&domain.alice).await?;
    let sent = message(SIZE, 4);
    for (from, to) in [
        (Ipv4Addr::LOCALHOST, domain.everybody()),
        (Ipv4Addr::new(127, 0, 0, 3), "victim@elsewhere.example".to_owned()),
    ] {
        let said = swaks(domain.agent, from, &to, &sent).await?;
        ensure!(said.contains("554 5.7.1 Mail is not taken from there"), "{said}");
        ensure!(!said.contains("MAIL FROM"), "{said}");
    }
    let status = domain.out.json(&["status"]).await?;
    ensure!(status["submission"]["turned_away"] == 2, "{status}");
    // From where the mail server is, it is let in: the test can fail.
    let from = FROM.parse()?;
    let said = swaks(domain.agent, from, CAROL, &sent).await?;
    ensure!(said.contains("queued as"), "{said}");
    let whole = wait_for_mail(&domain.world, CAROL, 1).await?;
    ensure!(is_whole(&whole, &sent), "not as it was sent:\n{}", head(&whole));

    domain.world.location.stop().await?;
    domain.submit(&sent).await?;
    wait_for_mail(&domain.world, &domain.alice.mailbox, 1).await?;
    wait_for_mail(&domain.world, CAROL, 2).await?;
    let status = domain.out.json(&["status"]).await?;
    ensure!(status["submission"]["untouched"] == 2, "{status}");
    Ok(())
}

/// How many deliveries a store was offered.
async fn offered(agent: &Agent) -> Result<usize> {
    let list = agent.json(&["list"]).await?;
    Ok(list["deliveries"].as_array().context("no deliveries in the list")?.len())
}

/// How many deliveries for this recipient are on record.
async fn sent_to(agent: &Agent, recipient: &str) -> Result<usize> {
    let status = agent.json(&["status"]).await?;
    let all = status["outgoing"].as_array().context("no outgoing in the status")?;
    Ok(all.iter().filter(|sent| sent["recipient"] == recipient).count())
}

/// What is killed, and what has just happened to the message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    /// The agent; Alice's store has been offered it.
    Offered,
    /// The agent; the relay takes what is Bob's, and does not get on.
    Leaving,
    /// The agent; Carol has it.
    Whole,
    /// The agent; Alice has her stub.
    Stub,
    /// The relay, while it takes what is Bob's.
    Relay,
}

impl Domain {
    /// Sends a message, and kills one of the programs that it goes through.
    async fn submit_and_kill(&mut self, kill: Kill, message: &TestMessage) -> Result<()> {
        let before = self.counts()?;
        let offered_before = offered(&self.alice).await?;
        let waits_before = sent_to(&self.out, &self.bob.mailbox).await?;
        let is_held = matches!(kill, Kill::Leaving | Kill::Relay);
        if is_held {
            // What the relay cannot write to both of them it does not take.
            self.world.storage[0].process()?.freeze()?;
        }
        self.submit(message).await?;
        wait_for(&format!("{kill:?}"), async || {
            let has_come = match kill {
                Kill::Offered => offered(&self.alice).await? > offered_before,
                Kill::Leaving | Kill::Relay => sent_to(&self.out, &self.bob.mailbox).await? > waits_before,
                Kill::Whole => self.counts()?[2] > before[2],
                Kill::Stub => self.counts()?[0] > before[0],
            };
            Ok(has_come.then_some(()))
        })
        .await?;
        let victim = if kill == Kill::Relay { &mut self.world.relay } else { &mut self.out.member };
        victim.kill().await?;
        if is_held {
            self.world.storage[0].process()?.thaw()?;
        }
        let victim = if kill == Kill::Relay { &mut self.world.relay } else { &mut self.out.member };
        victim.start().await
    }

    /// Waits until a user has each message, whole or to be restored to the byte; twice only where a program was killed while
    /// it was being mailed to them.
    async fn has_all(&self, mailbox: &str, agent: Option<&Agent>, sent: &[TestMessage]) -> Result<()> {
        let last = std::cell::RefCell::new(Vec::new());
        let waited = wait_for(&format!("every message for {mailbox}"), async || {
            let mut counts = vec![0; sent.len()];
            for path in self.world.maildir(mailbox)? {
                let mail = std::fs::read(&path)?;
                let restored = match agent.filter(|_| contains(&mail, b"Lighter-Message:")) {
                    Some(agent) => agent.try_command_with(&["restore"], &mail).await?.stdout,
                    None => mail,
                };
                for (count, message) in counts.iter_mut().zip(sent) {
                    *count += usize::from(is_whole(&restored, message));
                }
            }
            let is_there = counts.iter().all(|count| *count > 0);
            last.replace(counts);
            Ok(is_there.then_some(()))
        })
        .await;
        let counts = last.take();
        waited.with_context(|| format!("{counts:?}\n{}", self.postfix.log()))?;
        ensure!(counts.iter().all(|count| *count <= 2), "{mailbox} has {counts:?} of each");
        Ok(())
    }
}

// SPEC: A7, A26
#[tokio::test]
async fn bad_input_32_whatever_is_killed_on_the_way_everybody_has_every_message() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut domain = Domain::start(folder.path()).await?;
    domain.alice.member.start().await?;
    registered(&domain.alice).await?;
    let mut sent = Vec::new();
    for (kill, seed) in
        [Kill::Offered, Kill::Leaving, Kill::Whole, Kill::Stub, Kill::Relay].into_iter().zip(10..)
    {
        let message = message(SIZE, seed);
        let began = std::time::Instant::now();
        domain.submit_and_kill(kill, &message).await?;
        println!("{kill:?}: after {:?}", began.elapsed());
        registered(&domain.out).await?;
        // One after the other: what is killed next has nothing else under way.
        sent.push(message);
        wait_for(&format!("everything after {kill:?}"), async || {
            let has_come = domain.counts()?.iter().all(|count| *count >= sent.len());
            Ok((has_come && domain.postfix.is_idle()).then_some(()))
        })
        .await
        .with_context(|| format!("{:?}\n{}", domain.counts(), domain.postfix.log()))?;
        println!("{kill:?}: everybody has it after {:?}", began.elapsed());
    }
    domain.bob.member.start().await?;
    domain.has_all(&domain.alice.mailbox, Some(&domain.alice), &sent).await?;
    domain.has_all(&domain.bob.mailbox, Some(&domain.bob), &sent).await?;
    domain.has_all(CAROL, None, &sent).await?;
    wait_until_released(&domain.world).await?;
    // It asks the relay when it starts, and lets go of everything.
    domain.out.member.stop().await?;
    domain.out.member.start().await?;
    println!("all of it is with them, and the agent is to learn that");
    wait_for("the agent to let go of everything", async || {
        let states = states(&domain.out).await?;
        Ok(states.iter().all(|state| state == "released").then_some(()))
    })
    .await
}
