//! The array key is changed while the relay runs, and before and after it is killed.

use lighter_harness::mail::TestMessage;
use serde_json::{Value, json};

use crate::world::{DOMAIN, Relay, errors, plain, until};

async fn is_settled(relay: &Relay) -> Option<Value> {
    let status = relay.json(&["keys", "status"]).await;
    (status["array_key"] == "settled").then_some(status)
}

async fn key_finding(relay: &Relay) -> Value {
    let output = relay.command(&["--json", "check"]).await;
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    findings.as_array().unwrap().iter().find(|finding| finding["what"] == "array key").unwrap().clone()
}

#[tokio::test]
async fn a_changed_array_key_opens_everything_and_the_former_one_nothing() {
    let mut relay = Relay::new();
    let stopped = relay.command(&["keys", "rotate"]).await;
    assert_eq!(stopped.status.code(), Some(75), "{}", errors(&stopped));
    relay.start().await;
    let file = relay.data().join("array.key");
    let former = std::fs::read(&file).unwrap();
    let export = async |relay: &Relay| relay.json(&["keys", "export"]).await["array_key"].clone();
    let exported = export(&relay).await;
    assert_eq!(key_finding(&relay).await["ok"], json!(true));
    let large = TestMessage::new(&format!("bob@{DOMAIN}"), 3_000_000, 2);
    assert_eq!((relay.send(&plain("alice", 1)).await, relay.send(&large).await), (250, 250));

    relay.json(&["keys", "rotate"]).await;
    let status = until("settled", async || is_settled(&relay).await).await;
    assert_eq!((&status["servers_waited_for"], &status["exported"]), (&json!([]), &json!(false)));
    let finding = key_finding(&relay).await;
    assert_eq!(finding["ok"], json!(false));
    assert!(finding["say"].as_str().unwrap().contains("changed since"), "{finding}");
    let again = export(&relay).await;
    assert_ne!(again, exported);
    assert_eq!(key_finding(&relay).await["ok"], json!(true));
    assert_eq!(relay.send(&plain("alice", 3)).await, 250);
    until("handed over", async || (relay.maildir("alice").len() == 2).then_some(())).await;
    // A message lies in the Maildir a moment before it is on record that it does.
    let are_recorded =
        async || (relay.json(&["catalog", "status"]).await["hand_overs_waiting"] == json!(0)).then_some(());
    until("on record", are_recorded).await;
    relay.kill().await;

    // All of it is opened with the new key, the log among it; with the former one nothing is, and nothing is touched.
    relay.delete_view();
    let settled = std::fs::read(&file).unwrap();
    std::fs::write(&file, &former).unwrap();
    let refused = relay.command(&["serve"]).await;
    assert_ne!(refused.status.code(), Some(0));
    assert!(errors(&refused).contains("opens none"), "{}", errors(&refused));
    std::fs::write(&file, &settled).unwrap();
    relay.start().await;
    assert_eq!(
        relay.json(&["catalog", "status"]).await["hand_overs_waiting"],
        json!(0),
        "nothing comes twice"
    );
    assert_eq!(relay.send(&plain("alice", 4)).await, 250);

    // What was exported is enough on another machine.
    let other = Relay::new();
    let text = again.as_str().unwrap().as_bytes().to_vec();
    assert!(other.command_with(&["keys", "import"], &text).await.status.success());
    assert_eq!(std::fs::read(other.data().join("array.key")).unwrap(), settled);
    relay.stop().await;
}

#[tokio::test]
async fn a_change_of_the_array_key_goes_on_after_a_kill() {
    let mut relay = Relay::started().await;
    for seed in 0..3 {
        assert_eq!(relay.send(&plain("alice", seed)).await, 250);
    }
    for round in 0..3 {
        relay.json(&["keys", "rotate"]).await;
        relay.kill().await;
        relay.start().await;
        until("settled", async || is_settled(&relay).await).await;
        assert_eq!(relay.send(&plain("bob", round)).await, 250);
    }
    until("handed over", async || (relay.maildir("bob").len() == 3).then_some(())).await;
    relay.stop().await;
}
