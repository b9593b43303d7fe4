//! Roles apart and together, and starts that cannot be: each says what to do.

use lighter_harness::mail::TestMessage;
use serde_json::{Value, json};

use crate::world::{DOMAIN, Relay, errors, plain, until};

/// What the start says that must fail.
async fn start_fails(change: impl FnOnce(&mut Value)) -> String {
    let relay = Relay::with(change);
    let output = relay.command(&["serve"]).await;
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(!relay.data().join("addresses.json").exists(), "it never said that it was ready");
    errors(&output)
}

#[tokio::test]
async fn a_start_that_cannot_be_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listener in ["web", "location"] {
        let said = start_fails(|config| config[listener]["listen"] = json!(address)).await;
        assert!(said.contains(&address), "{said}");
    }
    let said = start_fails(|config| config["smtp"]["listen"] = json!([address])).await;
    assert!(said.contains(&address), "{said}");
    let said = start_fails(|config| config["smtp"] = json!({ "message_bytes_max": 1_000_000 })).await;
    assert!(said.contains("smtp.listen"), "{said}");
    let said = start_fails(|config| config["roles"] = json!(["smtp", "location"])).await;
    assert!(said.contains("array.servers") && said.contains("role storage"), "{said}");
    let said = start_fails(|config| config["roles"] = json!(["smtp", "storage"])).await;
    assert!(said.contains("location.url") && said.contains("role location"), "{said}");
    let said = start_fails(|config| config["smtp"]["tls_certificate"] = json!("cert.pem")).await;
    assert!(said.contains("tls_key"), "{said}");
    let said = start_fails(|config| config["listen"] = json!(25)).await;
    assert!(said.contains("listen"), "{said}");
    let said = start_fails(|config| config["data"] = json!("/dev/null/data")).await;
    assert!(said.contains("/dev/null/data"), "{said}");
}

// SPEC: A16, B20
#[tokio::test]
async fn a_role_that_is_off_listens_nowhere() {
    let mut relay = Relay::with(|config| config["roles"] = json!(["location"]));
    relay.start().await;
    let addresses = relay.addresses();
    assert!(addresses["location"].is_string(), "{addresses}");
    for role in ["smtp", "lmtp", "storage"] {
        assert_eq!(addresses[role], json!([]), "{role}");
    }
    assert!(addresses["web"].is_null() && addresses["quic"].is_null(), "{addresses}");
    relay.stop().await;
}

/// So many storage servers in one process that takes appends from `writer`.
pub(crate) async fn storage_for(writer: &Relay, count: usize) -> Relay {
    let writer = writer.json(&["keys", "id"]).await["relay"].clone();
    let mut storage = Relay::with(|config| config["roles"] = json!(["storage"]));
    let server = |number: usize| {
        let path = storage.data().join(format!("server-{number}"));
        json!({ "path": path, "listen": "127.0.0.1:0" })
    };
    let servers: Vec<Value> = (0..count).map(server).collect();
    storage.configure(|config| config["storage"] = json!({ "writers": [writer], "servers": servers }));
    storage.start().await;
    let addresses = storage.addresses();
    storage.configure(|config| {
        for number in 0..count {
            config["storage"]["servers"][number]["listen"] = addresses["storage"][number]["address"].clone();
        }
    });
    storage
}

// SPEC: C1, B12; DESIGN §3 rule 5
#[tokio::test]
async fn with_storage_in_another_process_mail_waits_with_the_sender_while_that_is_down() {
    let mut relay = Relay::with(|config| config["roles"] = json!(["smtp", "location"]));
    let mut storage = storage_for(&relay, 2).await;
    let servers = storage.addresses()["storage"].clone();
    relay.configure(|config| config["array"] = json!({ "servers": servers }));
    relay.start().await;
    assert_eq!(relay.send(&plain("alice", 1)).await, 250);

    storage.kill().await;
    // Never taken, never refused for good; where it is in doubt, dropped without a word (DESIGN §3 rule 2).
    until("storage is missed", async || {
        let reply = relay.try_send(&plain("alice", 2)).await?;
        assert!((400..500).contains(&reply), "{reply}");
        Some(())
    })
    .await;

    storage.start().await;
    until("mail is taken again", async || {
        (relay.try_send(&plain("alice", 3)).await == Some(250)).then_some(())
    })
    .await;
    until("handed over", async || (relay.maildir("alice").len() >= 2).then_some(())).await;
    relay.stop().await;
    storage.stop().await;
}

#[tokio::test]
async fn a_storage_server_takes_nothing_from_a_relay_that_it_does_not_know() {
    let known = Relay::new();
    let storage = storage_for(&known, 2).await;
    let servers = storage.addresses()["storage"].clone();
    let stranger = Relay::with(|config| {
        config["roles"] = json!(["smtp", "location"]);
        config["array"] = json!({ "servers": servers });
    });
    let output = stranger.command(&["serve"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains("storage array"), "{}", errors(&output));
}

// SPEC: A9; DESIGN §3 rule 5
#[tokio::test]
async fn with_the_location_server_away_from_the_start_mail_goes_whole() {
    let nobody = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let mut relay = Relay::new();
    let token = relay.data().with_file_name("token");
    std::fs::write(&token, "some-token\n").unwrap();
    relay.configure(|config| {
        config["roles"] = json!(["smtp", "storage"]);
        config["location"] = json!({ "url": format!("http://{nobody}"), "token_file": token });
    });
    relay.start().await;
    let message = TestMessage::new(&format!("alice@{DOMAIN}"), 400_000, 7);
    assert_eq!(relay.send(&message).await, 250);
    let found = until("handed over", async || relay.maildir("alice").pop()).await;
    assert!(found.ends_with(&message.to_bytes()));
    relay.stop().await;
}

#[tokio::test]
async fn a_location_server_inside_that_was_set_up_anew_knows_this_relay_again() {
    let mut relay = Relay::started().await;
    relay.stop().await;
    std::fs::remove_dir_all(relay.data().join("location")).unwrap();
    relay.start().await;
    until("the relay is known", async || {
        relay.process().log().matches("the location server knows this relay").nth(1).map(|_| ())
    })
    .await;
    relay.stop().await;
}
