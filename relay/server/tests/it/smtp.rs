//! What the running relay takes, and what it does not.

use lighter_harness::mail::MailClient;
use serde_json::json;

use crate::world::{DOMAIN, Relay, plain, until};

#[tokio::test]
async fn smtp_and_lmtp_take_mail_for_several_and_each_gets_it_once() {
    let relay = Relay::started().await;
    let message = plain("alice", 1);
    let (alice, bob) = (format!("alice@{DOMAIN}"), format!("bob@{DOMAIN}"));
    let mut smtp = relay.smtp().await;
    let reply = smtp.send(&message.from, &[&alice, &bob, &alice], message.pieces()).await.unwrap();
    assert_eq!(reply.code, 250);
    let mut lmtp = MailClient::connect(relay.address("/lmtp/0"), "LHLO").await.unwrap();
    lmtp.send(&message.from, &[&alice, &bob], message.pieces()).await.unwrap().expect(250).unwrap();
    lmtp.reply().await.unwrap().expect(250).unwrap();
    until("all there", async || {
        (relay.maildir("alice").len() >= 2 && relay.maildir("bob").len() >= 2).then_some(())
    })
    .await;
    assert_eq!((relay.maildir("alice").len(), relay.maildir("bob").len()), (2, 2));
    for found in relay.maildir("alice") {
        assert!(found.ends_with(&message.to_bytes()));
    }
}

#[tokio::test]
async fn strangers_reach_this_domain_only() {
    let mut relay = Relay::with(|config| config["trusted"] = json!(["192.0.2.0/24"]));
    relay.start().await;
    let mut client = relay.smtp().await;
    client.command("MAIL FROM:<x@elsewhere.example>").await.unwrap().expect(250).unwrap();
    for refused in [
        "x@elsewhere.example",
        "\"alice@lighter.test\"@elsewhere.example",
        "x%lighter.test@elsewhere.example",
    ] {
        let reply = client.command(&format!("RCPT TO:<{refused}>")).await.unwrap();
        assert_eq!(reply.code, 550, "{refused}: {reply:?}");
    }
    client.command(&format!("RCPT TO:<alice@{DOMAIN}>")).await.unwrap().expect(250).unwrap();
    client.command(&format!("RCPT TO:<@elsewhere.example:alice@{DOMAIN}>")).await.unwrap();
    client.command("DATA").await.unwrap().expect(354).unwrap();
    client.write(&plain("alice", 1).to_bytes()).await.unwrap();
    client.command(".").await.unwrap().expect(250).unwrap();
    until("handed over", async || (relay.maildir("alice").len() == 1).then_some(())).await;
    assert!(!relay.data().join("maildir/elsewhere.example").exists());
}

#[tokio::test]
async fn bad_input_08_sizes_that_are_too_much_or_a_lie_are_refused_and_the_session_goes_on() {
    let mut relay = Relay::with(|config| config["smtp"]["message_bytes_max"] = json!(100_000));
    relay.start().await;
    let mut client = relay.smtp().await;
    for size in ["100001", "18446744073709551615", "18446744073709551616"] {
        let reply = client.command(&format!("MAIL FROM:<x@elsewhere.example> SIZE={size}")).await.unwrap();
        assert!(matches!(reply.code, 501 | 552), "{size}: {reply:?}");
    }
    client.command("MAIL FROM:<x@elsewhere.example> SIZE=-1").await.unwrap().expect(501).unwrap();
    for declared in ["", " SIZE=10"] {
        client
            .command(&format!("MAIL FROM:<x@elsewhere.example>{declared}"))
            .await
            .unwrap()
            .expect(250)
            .unwrap();
        client.command(&format!("RCPT TO:<alice@{DOMAIN}>")).await.unwrap().expect(250).unwrap();
        client.command("DATA").await.unwrap().expect(354).unwrap();
        for _ in 0..2_000 {
            client.write(&[b"x".repeat(98).as_slice(), b"\r\n"].concat()).await.unwrap();
        }
        client.command(".").await.unwrap().expect(552).unwrap();
    }
    client.command("NOOP").await.unwrap().expect(250).unwrap();
    assert_eq!(relay.send(&plain("alice", 1)).await, 250);
    until("the good one is handed over", async || (relay.maildir("alice").len() == 1).then_some(())).await;
}

#[tokio::test]
async fn bad_input_01_nothing_but_crlf_dot_crlf_ends_a_message() {
    let relay = Relay::started().await;
    let variants: [&[u8]; 8] =
        [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r\r\n", b"\r\n\0.\r\n", b"\r.\r\n", b"\r\n.\r"];
    for (number, variant) in variants.into_iter().enumerate() {
        let mut client = relay.smtp().await;
        client.command("MAIL FROM:<x@elsewhere.example>").await.unwrap().expect(250).unwrap();
        client.command(&format!("RCPT TO:<alice@{DOMAIN}>")).await.unwrap().expect(250).unwrap();
        client.command("DATA").await.unwrap().expect(354).unwrap();
        client.write(b"Subject: one\r\n\r\nfirst").await.unwrap();
        client.write(variant).await.unwrap();
        let smuggled = format!(
            "MAIL FROM:<root@{DOMAIN}>\r\nRCPT TO:<mallory@{DOMAIN}>\r\nDATA\r\nSubject: two\r\n\r\nsmuggled"
        );
        client.write(smuggled.as_bytes()).await.unwrap();
        // The one reply, to the one end; then the one to NOOP, and nothing in between.
        let reply = client.command("\r\n.").await;
        if let Ok(reply) = reply {
            assert!(matches!(reply.code, 250 | 500..=599), "{number}: {reply:?}");
            if let Ok(next) = client.command("NOOP").await {
                assert!(next.code == 250 && client.command("QUIT").await.is_ok_and(|bye| bye.code == 221));
            }
        }
    }
    assert_eq!(relay.send(&plain("bob", 1)).await, 250);
    until("the last is handed over", async || (relay.maildir("bob").len() == 1).then_some(())).await;
    assert_eq!(relay.maildir("mallory").len(), 0);
}

#[tokio::test]
async fn a_relay_that_is_told_to_stop_takes_the_message_that_is_coming_in() {
    let mut relay = Relay::started().await;
    let message = plain("alice", 1);
    let mut client = relay.smtp().await;
    let mut idle = relay.smtp().await;
    client.command(&format!("MAIL FROM:<{}>", message.from)).await.unwrap().expect(250).unwrap();
    client.command(&format!("RCPT TO:<{}>", message.to)).await.unwrap().expect(250).unwrap();
    client.command("DATA").await.unwrap().expect(354).unwrap();
    let content = message.to_bytes();
    client.write(&content[..40]).await.unwrap();
    let sending = async {
        // The idle one is told, so the stop has begun.
        assert_eq!(idle.reply().await.unwrap().code, 421);
        client.write(&content[40..]).await.unwrap();
        client.command(".").await.unwrap().expect(250).unwrap();
    };
    tokio::join!(relay.stop(), sending);
    relay.start().await;
    until("handed over", async || (relay.maildir("alice").len() == 1).then_some(())).await;
}
