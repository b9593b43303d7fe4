//! Senders, mail servers and recipients, each with Lighter or without: all eight combinations. The table in
//! docs/ARCHITECTURE.md is what this test finds. The mail server without Lighter is Debian's Postfix, with mailboxes in
//! Debian's Dovecot, for a domain that has a location server and no relay.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lighter_e2e::{assert_restores, contains, head};
use lighter_harness::imap::Imap;
use lighter_harness::mail::{TestMessage, base64_lines, send};
use lighter_harness::peers::{Dovecot, Postfix, Route};
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts};
use lighter_harness::world::Domain;
use lighter_harness::{Agent, World};
use serde_json::{Value, json};

/// More than the threshold, less than a test minds.
const SIZE: u64 = 600_000;
const HEAD: &str = "| sender | mail server | recipient | the message comes | its attachments come |";

/// The mail server of a domain, and people there.
struct Side<'a> {
    server: MailServer<'a>,
    /// A sender and a recipient with agents, both online.
    sam: &'a Agent,
    alice: &'a Agent,
    /// A recipient without.
    plain: &'a str,
}

enum MailServer<'a> {
    Relay(&'a World),
    Postfix(&'a Postfix, &'a Dovecot),
}

/// What arrives.
struct Arrived {
    message: &'static str,
    attachments: &'static str,
}

// SPEC: A5, A8, A9, A17, A20, A25, A27
#[tokio::test]
async fn in_each_of_the_eight_combinations_everything_arrives_as_the_table_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::start().await?;
    let (mut alice, mut sam) = (world.agent("alice").await?, world.agent("sam").await?);
    let dovecot = Dovecot::start(&folder.path().join("dovecot")).await?;
    let postfix = Postfix::start(&folder.path().join("postfix"), &Route::Lmtp(dovecot.lmtp)).await?;
    let two = Domain::start(world.folder(), "two.test", &json!({})).await?;
    let smtp = postfix.smtp.to_string();
    let (mut other_alice, mut other_sam) = (two.agent("alice", &smtp).await?, two.agent("sam", &smtp).await?);
    for agent in [&mut alice, &mut sam, &mut other_alice, &mut other_sam] {
        agent.member.start().await?;
        registered(agent).await?;
    }
    let with =
        Side { server: MailServer::Relay(&world), sam: &sam, alice: &alice, plain: "plain@lighter.test" };
    let without = Side {
        server: MailServer::Postfix(&postfix, &dovecot),
        sam: &other_sam,
        alice: &other_alice,
        plain: "plain@two.test",
    };

    let name = |has: bool| if has { "with Lighter" } else { "without" };
    let mut rows = vec![HEAD.to_owned(), "|---|---|---|---|---|".to_owned()];
    let mut seed = 0;
    for has_sender in [false, true] {
        for side in [&without, &with] {
            for has_recipient in [false, true] {
                seed += 1;
                let arrived = side.deliver(has_sender, has_recipient, seed, folder.path()).await;
                let server = name(matches!(side.server, MailServer::Relay(_)));
                let case = format!("{} | {server} | {}", name(has_sender), name(has_recipient));
                let Arrived { message, attachments } = arrived.with_context(|| case.clone())?;
                rows.push(format!("| {case} | {message} | {attachments} |"));
            }
        }
    }
    let found = rows.join("\n");
    let documented = documented()?;
    ensure!(documented == found, "docs/ARCHITECTURE.md says\n{documented}\nand it is\n{found}");

    // Without a relay nobody keeps anything for a store that is offline: all of it goes by mail.
    other_alice.member.stop().await?;
    let (server, plain) = (MailServer::Postfix(&postfix, &dovecot), "plain@two.test");
    let without = Side { server, sam: &other_sam, alice: &other_alice, plain };
    let Arrived { message, attachments } = without.deliver(true, true, 9, folder.path()).await?;
    ensure!((message, attachments) == ("whole", "in it"), "{message}, {attachments}");
    Ok(())
}

impl Side<'_> {
    async fn deliver(
        &self,
        has_sender: bool,
        has_recipient: bool,
        seed: u64,
        folder: &Path,
    ) -> Result<Arrived> {
        let to = if has_recipient { &self.alice.mailbox } else { self.plain };
        let message = TestMessage::new(to, SIZE, seed);
        let attachment: Vec<u8> = message.attachment().flatten().collect();
        let (number, receipts) = (self.count(to).await? + 1, count_receipts(self.alice).await?);
        let became = if has_sender {
            let file = folder.join(&message.name);
            std::fs::write(&file, &attachment)?;
            let file = file.to_str().context("a file whose name is no UTF-8")?;
            what_became(&self.sam.command(&["--json", "send", "--to", to, file]).await?)?
        } else {
            match &self.server {
                MailServer::Relay(world) => send(world.smtp()?, &message, &[to]).await?,
                MailServer::Postfix(postfix, _) => send(postfix.smtp, &message, &[to]).await?,
            }
            None
        };
        let mail = self.arrived(to, number).await?;
        if !contains(&mail, b"Lighter-Message:") {
            let line = base64_lines(&attachment[..57]);
            ensure!(contains(&mail, line.trim_ascii_end()), "no attachment in it:\n{}", head(&mail));
            ensure!(became.as_deref() != Some("receipted"), "both ways");
            return Ok(Arrived { message: "whole", attachments: "in it" });
        }
        wait_for_receipts(self.alice, receipts + 1).await?;
        let blobs = self.alice.json(&["list"]).await?.to_string();
        ensure!(blobs.contains(&blake3::hash(&attachment).to_hex().to_string()), "{blobs}");
        let attachments = if became.as_deref() == Some("receipted") {
            let restored = self.alice.command_with(&["restore"], &mail).await?;
            ensure!(contains(&restored, message.name.as_bytes()), "{}", head(&restored));
            "from the sender's agent"
        } else {
            assert_restores(self.alice, &mail, &message).await?;
            "from the relay"
        };
        Ok(Arrived { message: "with placeholders", attachments })
    }

    async fn count(&self, mailbox: &str) -> Result<u32> {
        match &self.server {
            MailServer::Relay(world) => {
                Ok(u32::try_from(world.maildir(mailbox).map_or(0, |mail| mail.len()))?)
            }
            MailServer::Postfix(_, dovecot) => {
                Imap::login(dovecot.imap, mailbox, Dovecot::PASSWORD).await?.count().await
            }
        }
    }

    async fn arrived(&self, mailbox: &str, number: u32) -> Result<Vec<u8>> {
        match &self.server {
            MailServer::Relay(world) => {
                wait_for_mail(world, mailbox, usize::try_from(number)?).await?;
                let newest = world.maildir(mailbox)?.pop().context("no mail")?;
                Ok(std::fs::read(newest)?)
            }
            MailServer::Postfix(_, dovecot) => {
                let mut imap = Imap::login(dovecot.imap, mailbox, Dovecot::PASSWORD).await?;
                imap.wait_for_message(number).await.with_context(|| mailbox.to_owned())
            }
        }
    }
}

async fn registered(agent: &Agent) -> Result<()> {
    wait_for("registration", async || {
        let status = agent.json(&["status"]).await?;
        Ok((status["registered"] == true && status["primary"] == true).then_some(()))
    })
    .await
}

async fn count_receipts(agent: &Agent) -> Result<u64> {
    let list = agent.json(&["list"]).await?;
    let deliveries = list["deliveries"].as_array().context("no deliveries")?;
    Ok(deliveries.iter().filter(|delivery| delivery["state"] == "receipted").count() as u64)
}

/// The event that says how it went to its one recipient.
fn what_became(said: &[u8]) -> Result<Option<String>> {
    for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Value = serde_json::from_slice(line)?;
        if let Some(name @ ("whole" | "receipted")) = event["event"].as_str() {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn documented() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let from_table = text.lines().skip_while(|line| *line != HEAD);
    Ok(from_table.take_while(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n"))
}
