//! The next hop is down, refuses, or is given up on; the relay is killed, and its view is lost: mail comes through once,
//! or its sender is told once.

use lighter_harness::mail::TestMessage;
use serde_json::json;

use crate::roles::storage_for;
use crate::sink::Sink;
use crate::world::{DOMAIN, Relay, plain, until};

fn next_hop(sink: &Sink) -> serde_json::Value {
    json!({ "kind": "smtp", "address": sink.address.to_string(), "tls": "off" })
}

async fn hand_overs_waiting(relay: &Relay) -> u64 {
    relay.json(&["queue"]).await["hand_overs_waiting"].as_u64().unwrap()
}

// SPEC: B13; DESIGN §3 rules 5 and 10
#[tokio::test]
async fn what_waits_for_the_next_hop_outlives_a_kill_and_the_loss_of_the_view() {
    let sink = Sink::start().await;
    let address = sink.address;
    let mut relay = Relay::with(|config| config["next_hop"] = next_hop(&sink));
    drop(sink);
    relay.start().await;
    let small = plain("alice", 1);
    let large = TestMessage::new(&format!("bob@{DOMAIN}"), 3_000_000, 2);
    assert_eq!((relay.send(&small).await, relay.send(&large).await), (250, 250));
    until("both wait", async || (hand_overs_waiting(&relay).await == 2).then_some(())).await;
    relay.kill().await;
    relay.delete_view();
    relay.start().await;
    assert_eq!(hand_overs_waiting(&relay).await, 2);
    relay.stop().await;

    let sink = Sink::start_on(address).await;
    // Tries and their times are the view's: without it, they begin anew.
    relay.delete_view();
    relay.start().await;
    until("both handed over", async || (hand_overs_waiting(&relay).await == 0).then_some(())).await;
    relay.stop().await;
    relay.delete_view();
    relay.start().await;
    assert_eq!(hand_overs_waiting(&relay).await, 0);
    relay.stop().await;
    let taken = sink.taken();
    assert_eq!(taken.len(), 2, "each once");
    for message in [&small, &large] {
        let found = taken.iter().find(|taken| taken.to == [message.to.clone()]).unwrap();
        let original = String::from_utf8(message.to_bytes()).unwrap();
        assert!(found.content.ends_with(&format!("{original}.\r\n")), "byte for byte");
        assert_eq!(found.from, message.from);
    }
}

#[tokio::test]
async fn who_is_refused_for_good_is_reported_once_and_the_others_get_the_message_once() {
    let sink = Sink::start().await;
    let mut relay = Relay::with(|config| config["next_hop"] = next_hop(&sink));
    relay.start().await;
    let message = plain("alice", 1);
    let recipients = [format!("alice@{DOMAIN}"), format!("never@{DOMAIN}"), format!("never-too@{DOMAIN}")];
    let mut client = relay.smtp().await;
    let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
    client.send(&message.from, &to, message.pieces()).await.unwrap().expect(250).unwrap();
    until("a report and a message", async || (sink.taken().len() >= 2).then_some(())).await;
    until("nothing waits", async || (hand_overs_waiting(&relay).await == 0).then_some(())).await;
    relay.stop().await;
    // A start that makes the view again finds all of it settled, too.
    relay.delete_view();
    relay.start().await;
    assert_eq!(hand_overs_waiting(&relay).await, 0);
    relay.stop().await;
    let taken = sink.taken();
    let (reports, messages): (Vec<_>, Vec<_>) = taken.iter().partition(|taken| taken.from.is_empty());
    assert_eq!((reports.len(), messages.len()), (1, 1), "{taken:#?}");
    assert_eq!(messages[0].to, [recipients[0].clone()]);
    assert_eq!(reports[0].to, std::slice::from_ref(&message.from));
    for refused in &recipients[1..] {
        assert!(reports[0].content.contains(refused.as_str()), "{}", reports[0].content);
    }
    assert!(!reports[0].content.contains(&format!("Final-Recipient: rfc822;{}", recipients[0])));
}

#[tokio::test]
async fn a_message_that_is_given_up_on_is_told_to_its_sender_and_a_report_to_nobody() {
    let sink = Sink::start().await;
    let mut relay = Relay::with(|config| {
        config["next_hop"] = next_hop(&sink);
        config["queue"] = json!({ "give_up_hours": 0 });
    });
    relay.start().await;
    let message = plain("later", 1);
    assert_eq!(relay.send(&message).await, 250);
    let report = until("a report", async || sink.taken().pop()).await;
    assert_eq!((report.from.as_str(), report.to), ("", vec![message.from]));
    // From the null path, to who is refused: a report of a report is never made (RFC 3464 §2).
    let mut client = relay.smtp().await;
    let null = TestMessage { from: String::new(), ..plain("never", 2) };
    client.send("", &[&null.to], null.pieces()).await.unwrap().expect(250).unwrap();
    until("nothing waits", async || (hand_overs_waiting(&relay).await == 0).then_some(())).await;
    relay.stop().await;
    assert_eq!(sink.taken().len(), 1);
}

#[tokio::test]
async fn a_recipient_who_is_put_off_waits_and_the_others_do_not() {
    let sink = Sink::start().await;
    let mut relay = Relay::with(|config| config["next_hop"] = next_hop(&sink));
    relay.start().await;
    let message = plain("alice", 1);
    let mut client = relay.smtp().await;
    let (alice, later) = (format!("alice@{DOMAIN}"), format!("later@{DOMAIN}"));
    client.send(&message.from, &[&alice, &later], message.pieces()).await.unwrap().expect(250).unwrap();
    until("one waits", async || {
        (sink.taken().len() == 1 && hand_overs_waiting(&relay).await == 1).then_some(())
    })
    .await;
    // Killed and started again, it still waits, and nobody gets the message a second time.
    relay.kill().await;
    relay.delete_view();
    relay.start().await;
    assert_eq!(hand_overs_waiting(&relay).await, 1);
    relay.stop().await;
    let taken = sink.taken();
    assert_eq!((taken.len(), &taken[0].to), (1, &vec![alice]));
}

// DESIGN §3 rule 5: with a storage server away nothing can be written down, so nothing is handed over again and again.
#[tokio::test]
async fn while_storage_takes_no_records_nothing_is_handed_over_and_then_all_of_it_once() {
    let sink = Sink::start().await;
    let address = sink.address;
    let mut relay = Relay::with(|config| {
        config["roles"] = json!(["smtp", "location"]);
        config["next_hop"] = next_hop(&sink);
    });
    drop(sink);
    let storage = storage_for(&relay, 1).await;
    let mut other = storage_for(&relay, 1).await;
    let servers = [storage.addresses()["storage"][0].clone(), other.addresses()["storage"][0].clone()];
    relay.configure(|config| config["array"] = json!({ "servers": servers }));
    relay.start().await;
    assert_eq!(relay.send(&plain("alice", 1)).await, 250);
    relay.stop().await;
    other.stop().await;

    let sink = Sink::start_on(address).await;
    relay.delete_view();
    relay.start().await;
    assert_eq!(hand_overs_waiting(&relay).await, 1, "it is known with one server, too");
    assert_eq!(relay.json(&["array", "status"]).await["writable"], false);
    // Mail that is refused meanwhile gives the queue its turns.
    for seed in 2..6 {
        assert_eq!(relay.send(&plain("alice", seed)).await, 451);
    }
    assert_eq!(sink.taken().len(), 0);
    other.start().await;
    until("handed over", async || (hand_overs_waiting(&relay).await == 0).then_some(())).await;
    assert_eq!(sink.taken().len(), 1);
    relay.stop().await;
}
