//! Local submission with real programs on both sides: swaks and Python's smtplib as mail clients, Debian's Postfix as the
//! provider, with passwords that Debian's Dovecot knows, over TLS.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lighter_e2e::{assert_restores, contains, head};
use lighter_harness::imap::Imap;
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Certificate, Dovecot, Postfix, Route, free_address};
use lighter_harness::programs::run;
use lighter_harness::watch::wait_for_receipts;
use lighter_harness::{Agent, World};

const SAM: &str = "sam@lighter.test";
/// More than the threshold, less than a test minds.
const SIZE: u64 = 5 * 1024 * 1024;

/// What Python's library makes of a session: logs in, sends, and prints who was refused.
const SMTPLIB: &str = r#"
import smtplib, sys
host, port, password = sys.argv[1:4]
message = sys.stdin.buffer.read()
with smtplib.SMTP(host, int(port)) as client:
    client.ehlo()
    print("auth", client.esmtp_features.get("auth", ""))
    client.login("sam@lighter.test", password)
    print("refused", client.sendmail("sam@lighter.test", sys.argv[4:], message))
"#;

// SPEC: A1, A2, A5, A6, A9, A10, A25
#[tokio::test]
async fn a_mail_client_sends_three_ways_at_once_through_a_real_provider_with_its_own_password() -> Result<()>
{
    let world = World::start().await?;
    let folder = tempfile::tempdir()?;
    let dovecot = Dovecot::start(&folder.path().join("dovecot")).await?;
    let certificate = Certificate::make(folder.path()).await?;
    let address = free_address()?;
    let postfix = provider(folder.path(), address, &dovecot, &certificate, "").await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let mut sam = world.agent("sam").await?;
    configure(&world, address, &certificate, "required")?;
    sam.member.start().await?;
    let submission = sam.member.address("/submission")?;
    registered(&sam).await?;

    // swaks, by STARTTLS to the provider.
    let everybody = format!("{},plain@lighter.test,gone@lighter.test", alice.mailbox);
    let message =
        TestMessage { from: SAM.to_owned(), ..TestMessage::new("undisclosed@lighter.test", SIZE, 1) };
    let wrong = swaks(submission, "wrong", &everybody, &message).await?;
    ensure!(wrong.contains("535 5.7.8 Error: authentication failed"), "{wrong}");
    let sent = swaks(submission, Dovecot::PASSWORD, &everybody, &message).await?;
    ensure!(sent.contains("550 5.1.1 <gone@lighter.test>") && sent.contains("queued as"), "{sent}");
    ensure!(sent.contains("AUTH PLAIN LOGIN") && sent.contains("235 2.7.0"), "{sent}");
    let stub = arrived(&dovecot, &alice.mailbox, 1).await?;
    ensure!(contains(&stub, b"Lighter-Message:") && stub.len() < 50_000, "not a stub:\n{}", head(&stub));
    let whole = arrived(&dovecot, "plain@lighter.test", 1).await?;
    wait_for_receipts(&alice, 1).await?;
    // swaks puts a line end behind it; for both it is the same, and what swaks was given stands in it.
    let restored = alice.command_with(&["restore"], &stub).await?;
    let sent = as_sent(&whole)?;
    ensure!(sent.starts_with(&message.to_bytes()), "not as it was sent:\n{}", head(&whole));
    ensure!(as_sent(&restored)? == sent, "restored to something else:\n{}", head(&restored));
    let log = sam.member.process()?.log();
    for secret in ["c2VjcmV0", "Test message", "plain@lighter.test"] {
        ensure!(!log.contains(secret), "{secret} stands in the log:\n{log}");
    }

    // smtplib, the provider encrypting from the first byte on; the agent is another process.
    sam.member.stop().await?;
    drop(postfix);
    let _postfix =
        provider(folder.path(), address, &dovecot, &certificate, "smtpd_tls_wrappermode = yes\n").await?;
    configure(&world, address, &certificate, "implicit")?;
    sam.member.start().await?;
    registered(&sam).await?;
    let (host, port) = (submission_host(&sam)?, sam.member.address("/submission")?.port().to_string());
    let message = TestMessage { seed: 2, ..message };
    let recipients = [&alice.mailbox, "gone@lighter.test", "plain@lighter.test"];
    let arguments = [&["-c", SMTPLIB, &host, &port, Dovecot::PASSWORD], &recipients[..]].concat();
    let output = run(Path::new("/usr/bin/python3"), arguments, &message.to_bytes()).await?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("auth ") && said.contains("PLAIN LOGIN"), "{said}");
    ensure!(said.contains("refused {'gone@lighter.test': (550") && !said.contains("plain@"), "{said}");
    let stub = arrived(&dovecot, &alice.mailbox, 2).await?;
    wait_for_receipts(&alice, 2).await?;
    assert_restores(&alice, &stub, &message).await?;
    let whole = arrived(&dovecot, "plain@lighter.test", 2).await?;
    ensure!(whole.ends_with(&message.to_bytes()), "not as it was sent:\n{}", head(&whole));
    let status = sam.json(&["status"]).await?;
    ensure!(status["submission"]["recipients_to_store"] == 1, "{status}");
    ensure!(status["submission"]["recipients_whole"] == 1, "{status}");
    Ok(())
}

/// A message from its own first line on: below what the servers on its way have written.
fn as_sent(message: &[u8]) -> Result<&[u8]> {
    let first = format!("From: <{SAM}>\r\n");
    let at = message.windows(first.len()).position(|window| window == first.as_bytes());
    Ok(&message[at.context("not the message")?..])
}

/// A Postfix that takes mail only of who has logged in, and only encrypted.
async fn provider(
    folder: &Path,
    address: SocketAddr,
    dovecot: &Dovecot,
    certificate: &Certificate,
    more: &str,
) -> Result<Postfix> {
    let refused = folder.join("refused");
    std::fs::write(&refused, "gone@lighter.test 550 5.1.1 no such mailbox here\n")?;
    let main = format!(
        "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n\
         smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:{sasl}\n\
         smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
         smtpd_recipient_restrictions = check_recipient_access texthash:{refused}, permit_sasl_authenticated, reject\n\
         {more}",
        certificate = certificate.certificate.display(),
        key = certificate.key.display(),
        sasl = dovecot.sasl,
        refused = refused.display(),
    );
    Postfix::start_at(&folder.join("postfix"), address, &Route::Lmtp(dovecot.lmtp), &main).await
}

/// Sam's agent takes mail of mail clients, for that provider.
fn configure(world: &World, provider: SocketAddr, certificate: &Certificate, tls: &str) -> Result<()> {
    let path = world.folder().join("sam.toml");
    let mut config: toml::Table = toml::from_str(&std::fs::read_to_string(&path)?)?;
    let smtp = format!(
        "server = \"localhost:{}\"\ntls = \"{tls}\"\nca_file = {:?}",
        provider.port(),
        certificate.certificate
    );
    config.insert("smtp".to_owned(), toml::from_str::<toml::Table>(&smtp)?.into());
    let submission: toml::Table = toml::from_str("listen = \"127.0.0.1:0\"")?;
    config.insert("submission".to_owned(), submission.into());
    std::fs::write(&path, toml::to_string(&config)?)?;
    Ok(())
}

async fn registered(agent: &Agent) -> Result<()> {
    let registered = async || {
        let status = agent.json(&["status"]).await?;
        Ok((status["registered"] == true).then_some(()))
    };
    lighter_harness::watch::wait_for("the agent to be online", registered).await
}

fn submission_host(agent: &Agent) -> Result<String> {
    Ok(agent.member.address("/submission")?.ip().to_string())
}

/// Sends as sam; everything that was said.
async fn swaks(server: SocketAddr, password: &str, to: &str, message: &TestMessage) -> Result<String> {
    let server = server.to_string();
    let arguments = [
        "--server",
        &server,
        "--auth",
        "PLAIN",
        "--auth-user",
        SAM,
        "--auth-password",
        password,
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

/// Message `number` of a mailbox, once it is there.
async fn arrived(dovecot: &Dovecot, mailbox: &str, number: u32) -> Result<Vec<u8>> {
    let mut imap = Imap::login(dovecot.imap, mailbox, Dovecot::PASSWORD).await?;
    imap.wait_for_message(number).await.with_context(|| mailbox.to_owned())
}
