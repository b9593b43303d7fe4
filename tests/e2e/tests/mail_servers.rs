//! Real mail servers on both sides: Debian's Postfix before the relay, Debian's Dovecot behind it.

use anyhow::{Result, ensure};
use lighter_e2e::{contains, head};
use lighter_harness::World;
use lighter_harness::imap::Imap;
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Dovecot, Postfix};
use lighter_harness::programs::run_ok;
use lighter_harness::watch::wait_for_receipts;
use lighter_harness::world::Options;
use std::path::Path;

/// Signs and verifies by dkimpy, which knows nothing of Lighter (RFC 6376).
const DKIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dkim_tool.py");

// SPEC: A17, A20, A25, D1, D2
#[tokio::test]
async fn a_signed_message_through_postfix_and_dovecot_restores_and_still_verifies() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dovecot = Dovecot::start(&folder.path().join("dovecot")).await?;
    let next_hop = serde_json::json!({ "kind": "lmtp", "address": dovecot.lmtp.to_string(), "tls": "off" });
    let world = World::start_with(&Options { next_hop: Some(next_hop), ..Options::default() }).await?;
    let postfix = Postfix::start(&folder.path().join("postfix"), world.lmtp()?).await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;

    let python = Path::new("/usr/bin/python3");
    let key = folder.path().join("dkim");
    let key = key.to_str().unwrap_or_default();
    let message = TestMessage::new(&alice.mailbox, 1_000_000, 1);
    let signed = run_ok(python, [DKIM, "sign", key], &message.to_bytes()).await?;
    ensure!(contains(&signed, b"DKIM-Signature:"), "not signed");
    let server = postfix.smtp.to_string();
    let sent = run_ok(
        Path::new("/usr/bin/swaks"),
        [
            "--server",
            &server,
            "--from",
            &message.from,
            "--to",
            &alice.mailbox,
            "--data",
            "-",
            "--silent",
            "2",
        ],
        &signed,
    )
    .await?;
    ensure!(sent.is_empty(), "{}", head(&sent));

    let mut imap = Imap::login(dovecot.imap, &alice.mailbox, Dovecot::PASSWORD).await?;
    let stub = imap.wait_for_message(1).await?;
    ensure!(contains(&stub, b"Lighter-Message:"), "not a stub:\n{}", head(&stub));
    ensure!(stub.len() < 50_000, "{} bytes", stub.len());
    wait_for_receipts(&alice, 1).await?;
    let restored = alice.command_with(&["restore"], &stub).await?;
    ensure!(restored.ends_with(&signed), "restored to something else:\n{}", head(&restored));
    run_ok(python, [DKIM, "verify", key], &restored).await?;
    Ok(())
}
