//! Real mail servers on both sides: Debian's Postfix before the relay, Debian's Dovecot behind it, set up as
//! docs/OPERATING.md says. What the relay was given is known from a wire tap, what signatures say from another library.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lighter_e2e::{assert_restores, contains, head};
use lighter_harness::imap::Imap;
use lighter_harness::mail::{MailClient, TestMessage};
use lighter_harness::peers::{Certificate, Dovecot, Postfix, Route, Tap, example, free_address};
use lighter_harness::programs::{run, run_ok};
use lighter_harness::watch::{wait_for, wait_for_receipts};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World};
use serde_json::{Value, json};

/// Makes, signs and verifies mail by libraries that know nothing of Lighter.
const MAIL_TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mail_tool.py");
/// Debian's, which has Debian's dkimpy.
const PYTHON: &str = "/usr/bin/python3";
const SENDER: &str = "sender@elsewhere.example";

// SPEC: A17, A20, A25, D1, D2
#[tokio::test]
async fn a_signed_message_through_postfix_and_dovecot_restores_and_still_verifies() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dovecot = Dovecot::start(&folder.path().join("dovecot")).await?;
    let next_hop = next_hop("relay-next-hop-lmtp", "127.0.0.1:24", &dovecot.lmtp.to_string())?;
    let world = World::start_with(&Options { next_hop: Some(next_hop), ..Options::default() }).await?;
    let tap = Tap::start(world.lmtp()?).await?;
    let postfix = Postfix::start(&folder.path().join("postfix"), &Route::Lmtp(tap.address)).await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;

    let attachment: Vec<u8> = TestMessage::new(&alice.mailbox, 1_000_000, 1).attachment().flatten().collect();
    let file = folder.path().join("attachment");
    std::fs::write(&file, &attachment)?;
    let key = text(&folder.path().join("dkim"))?;
    let composed = mail_tool(&["compose", SENDER, &alice.mailbox, &text(&file)?], &[]).await?;
    let signed = mail_tool(&["sign", &key], &composed).await?;
    let server = postfix.smtp.to_string();
    let swaks =
        ["--server", &server, "--from", SENDER, "--to", &alice.mailbox, "--data", "-", "--silent", "2"];
    let sent = run_ok(Path::new("/usr/bin/swaks"), swaks, &signed).await?;
    ensure!(sent.is_empty(), "{}", head(&sent));

    let stub = arrived(&dovecot, &alice.mailbox, 1).await?;
    ensure!(contains(&stub, b"Lighter-Message:"), "not a stub:\n{}", head(&stub));
    ensure!(stub.len() < 50_000, "{} bytes", stub.len());
    ensure!(!verifies(&stub, &key).await?, "a stub verifies: the check proves nothing");
    wait_for_receipts(&alice, 1).await?;
    let received = tap.contents()?.pop().context("nothing went through the tap")?;
    let restored = restored(&alice, &stub, &received).await?;
    ensure!(contains(&restored, &signed), "the signed message does not stand in it as it was sent");
    ensure!(verifies(&restored, &key).await?, "the signature does not verify any more");
    ensure!(mail_tool(&["extract"], &restored).await? == attachment, "another attachment came out");
    Ok(())
}

// SPEC: A9, A10, A17, A20, A25, D1 — an after-queue filter: through the relay and back to the same Postfix.
#[tokio::test]
async fn as_a_content_filter_the_relay_gives_postfix_stubs_and_whole_messages_and_what_senders_asked_about_reports()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let dovecot = Dovecot::start(&folder.path().join("dovecot")).await?;
    let back = free_address()?;
    let certificate = Certificate::make(folder.path()).await?;
    let options = Options {
        next_hop: Some(next_hop("relay-next-hop-smtp", "127.0.0.1:10026", &back.to_string())?),
        more: Some(json!({
            "smtp": { "tls_certificate": certificate.certificate, "tls_key": certificate.key }
        })),
        ..Options::default()
    };
    let world = World::start_with(&options).await?;
    let route = Route::Filter { relay: world.smtp()?, back, mailboxes: dovecot.lmtp };
    let encrypt = "smtp_tls_security_level = encrypt\n";
    let postfix = Postfix::start_at(&folder.path().join("postfix"), free_address()?, &route, encrypt).await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;

    let message = TestMessage::new(&alice.mailbox, 600_000, 2);
    let mut client = MailClient::connect(postfix.smtp, "EHLO").await?;
    for command in [
        &format!("MAIL FROM:<{SENDER}> RET=HDRS ENVID=QQ314159"),
        "RCPT TO:<alice@lighter.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Alice+2Bfirst@lighter.test",
        "RCPT TO:<plain@lighter.test> NOTIFY=NEVER",
    ] {
        client.command(command).await?.expect(250)?;
    }
    send_content(&mut client, &message.to_bytes()).await?;

    let whole = arrived(&dovecot, "plain@lighter.test", 1).await?;
    ensure!(whole.ends_with(&message.to_bytes()), "not as it was sent:\n{}", head(&whole));
    ensure!(contains(&whole, b"with ESMTPS id"), "not encrypted on the way:\n{}", head(&whole));
    let stub = arrived(&dovecot, &alice.mailbox, 1).await?;
    wait_for_receipts(&alice, 1).await?;
    assert_restores(&alice, &stub, &message).await?;
    // Dovecot reports nothing, so the Postfix behind the relay does, in the words that came all the way.
    let report = arrived(&dovecot, SENDER, 1).await?;
    for line in [
        "Original-Envelope-Id: QQ314159",
        "Original-Recipient: rfc822;Alice+first@lighter.test",
        "Action: relayed",
    ] {
        ensure!(contains(&report, line.as_bytes()), "no {line:?} in the report:\n{}", head(&report));
    }
    ensure!(!contains(&report, b"plain@lighter.test"), "a report about who wants none");
    Ok(())
}

// SPEC: A10; DESIGN §3 rule 5 — a next hop that refuses some, for now and for good, over TLS that is checked.
#[tokio::test]
async fn what_a_postfix_behind_refuses_is_tried_again_or_reported_and_the_rest_arrives() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dovecot = Dovecot::start(&folder.path().join("dovecot")).await?;
    let certificate = Certificate::make(folder.path()).await?;
    let address = free_address()?;
    let next_hop = json!({
        "kind": "smtp",
        "address": format!("localhost:{}", address.port()),
        "tls": "required",
        "tls_ca": certificate.certificate,
    });
    let world = World::start_with(&Options { next_hop: Some(next_hop), ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let refused = folder.path().join("refused");
    let subjects = folder.path().join("refused-subjects");
    let gone = "gone@lighter.test 550 5.1.1 no such mailbox here\n";
    std::fs::write(&refused, format!("{gone}busy@lighter.test 450 4.2.0 the mailbox is busy\n"))?;
    std::fs::write(&subjects, "/^Subject: Too heavy/ REJECT 5.3.4 too heavy for us\n")?;
    let main = format!(
        "smtpd_recipient_restrictions = check_recipient_access texthash:{refused}, permit_mynetworks, reject\n\
         header_checks = regexp:{subjects}\n\
         smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n",
        refused = refused.display(),
        subjects = subjects.display(),
        certificate = certificate.certificate.display(),
        key = certificate.key.display(),
    );
    let route = Route::Lmtp(dovecot.lmtp);
    let postfix = Postfix::start_at(&folder.path().join("postfix"), address, &route, &main).await?;
    let message = TestMessage::new(&alice.mailbox, 300_000, 3).to_bytes();
    let recipients = [&alice.mailbox, "plain@lighter.test", "gone@lighter.test", "busy@lighter.test"];
    send_in_chunks(&world, SENDER, &recipients, &message).await?;
    let heavy =
        TestMessage { subject: "Too heavy".to_owned(), ..TestMessage::new("plain@lighter.test", 300_000, 4) };
    send_in_chunks(&world, "heavy@elsewhere.example", &["plain@lighter.test"], &heavy.to_bytes()).await?;
    send_in_chunks(&world, SENDER, &["jörg@lighter.test"], &message).await?;

    let stub = arrived(&dovecot, &alice.mailbox, 1).await?;
    ensure!(contains(&stub, b"Lighter-Message:"), "not a stub:\n{}", head(&stub));
    let whole = arrived(&dovecot, "plain@lighter.test", 1).await?;
    ensure!(whole.ends_with(&message), "not as it was sent:\n{}", head(&whole));
    // Postfix has taken the internationalized one; what Dovecot thinks of it is between the two of them.
    let taken = async || Ok(postfix.log().contains("to=<jörg@lighter.test>").then_some(()));
    wait_for("Postfix to take jörg's message", taken).await?;
    report_says(&dovecot, SENDER, &["gone@lighter.test", "Status: 5.1.1", "550 5.1.1"]).await?;
    report_says(
        &dovecot,
        "heavy@elsewhere.example",
        &["plain@lighter.test", "Status: 5.3.4", "too heavy for us"],
    )
    .await?;
    wait_for("one hand-over to wait", async || Ok((hand_overs(&world).await? == 1).then_some(()))).await?;

    // Started anew: the connections that the relay has kept are dead, and the mailbox is busy no more.
    drop(postfix);
    std::fs::write(&refused, gone)?;
    let _postfix = Postfix::start_at(&folder.path().join("postfix"), address, &route, &main).await?;
    let late = arrived(&dovecot, "busy@lighter.test", 1).await?;
    ensure!(late.ends_with(&message), "not as it was sent:\n{}", head(&late));
    wait_for("the queue to empty", async || Ok((hand_overs(&world).await? == 0).then_some(()))).await?;
    report_says(&dovecot, SENDER, &["jörg@lighter.test"]).await?;
    let reports = Imap::login(dovecot.imap, SENDER, Dovecot::PASSWORD).await?.count().await?;
    ensure!(reports == 2, "{reports} reports of two failures");
    Ok(())
}

/// A next hop as the example `name` of docs/OPERATING.md has it, at another address.
fn next_hop(name: &str, address: &str, instead: &str) -> Result<Value> {
    let table: toml::Table = toml::from_str(&example(name, &[(address, instead)])?)?;
    Ok(serde_json::to_value(table.get("next_hop").context("no [next_hop]")?)?)
}

/// Message `number` of a mailbox, once it is there.
async fn arrived(dovecot: &Dovecot, mailbox: &str, number: u32) -> Result<Vec<u8>> {
    let mut imap = Imap::login(dovecot.imap, mailbox, Dovecot::PASSWORD).await?;
    imap.wait_for_message(number).await.with_context(|| mailbox.to_owned())
}

/// Waits until a mailbox has a message with all of `words`, however its lines are folded.
async fn report_says(dovecot: &Dovecot, mailbox: &str, words: &[&str]) -> Result<()> {
    let mut seen = String::new();
    for number in 1.. {
        let message = arrived(dovecot, mailbox, number).await;
        let message = message.with_context(|| format!("no {words:?} in what came:\n{seen}"))?;
        let text = String::from_utf8_lossy(&message);
        let unfolded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.iter().all(|word| unfolded.contains(word)) {
            return Ok(());
        }
        seen.push_str(&text);
    }
    Ok(())
}

/// What `lighter-agent restore` makes of `stub`: it must be what the relay `received`, below the relay's own `Received`
/// field and what the next hops have put on top of it.
async fn restored(agent: &Agent, stub: &[u8], received: &[u8]) -> Result<Vec<u8>> {
    let restored = agent.command_with(&["restore"], stub).await?;
    ensure!(restored.ends_with(received), "restored to something else:\n{}", head(&restored));
    let above = &restored[..restored.len() - received.len()];
    ensure!(!contains(above, b"\r\n\r\n"), "more than header fields on top:\n{}", head(&restored));
    let own = above.windows(b"\r\nReceived:".len()).rposition(|window| window == b"\r\nReceived:");
    let own = &above[own.context("no field of the relay's")?..];
    ensure!(contains(own, b"by mx.lighter.test with "), "not the relay's field:\n{}", head(own));
    Ok(restored)
}

async fn send_content(client: &mut MailClient, content: &[u8]) -> Result<()> {
    client.command("DATA").await?.expect(354)?;
    client.write(content).await?;
    client.command(".").await?.expect(250)?;
    Ok(())
}

/// Sends by BDAT (RFC 3030), in two chunks, with SMTPUTF8 (RFC 6531).
async fn send_in_chunks(world: &World, from: &str, recipients: &[&str], content: &[u8]) -> Result<()> {
    let mut client = MailClient::connect(world.smtp()?, "EHLO").await?;
    let is_ascii = recipients.iter().all(|recipient| recipient.is_ascii());
    let smtputf8 = if is_ascii { "" } else { " SMTPUTF8" };
    client.command(&format!("MAIL FROM:<{from}> BODY=8BITMIME{smtputf8}")).await?.expect(250)?;
    for recipient in recipients {
        client.command(&format!("RCPT TO:<{recipient}>")).await?.expect(250)?;
    }
    let (first, last) = content.split_at(content.len() / 3);
    for (chunk, end) in [(first, ""), (last, " LAST")] {
        client.write(format!("BDAT {}{end}\r\n", chunk.len()).as_bytes()).await?;
        client.write(chunk).await?;
        client.reply().await?.expect(250)?;
    }
    Ok(())
}

async fn hand_overs(world: &World) -> Result<u64> {
    let queue = world.relay_command(&["queue"]).await?;
    queue.pointer("/hand_overs_waiting").and_then(Value::as_u64).context("no count")
}

async fn mail_tool(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    run_ok(Path::new(PYTHON), [&[MAIL_TOOL], arguments].concat(), input).await
}

/// Whether the DKIM signature verifies.
async fn verifies(message: &[u8], key: &str) -> Result<bool> {
    let output = run(Path::new(PYTHON), [MAIL_TOOL, "verify", key], message).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || said.contains("does not verify"), "{said}");
    Ok(output.status.success())
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a folder whose name is no UTF-8")?.to_owned())
}
