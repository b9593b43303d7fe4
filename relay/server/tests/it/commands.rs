//! The commands: what they answer, what they refuse, and what their exit codes say (DESIGN §12).

use serde_json::{Value, json};

use crate::world::{Relay, errors, plain, until};

const DONE: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const WRONG_USE: Option<i32> = Some(2);
const TRY_AGAIN: Option<i32> = Some(75);

#[tokio::test]
async fn with_no_relay_running_questions_say_so_and_are_worth_another_try() {
    let relay = Relay::new();
    for question in [&["queue"][..], &["array", "status"], &["catalog", "status"]] {
        let output = relay.command(question).await;
        assert_eq!(output.status.code(), TRY_AGAIN, "{question:?}");
        assert!(errors(&output).contains("lighter-relay serve"), "{}", errors(&output));
    }
}

#[tokio::test]
async fn a_running_relay_answers_every_question_in_json_and_in_lines() {
    let relay = Relay::started().await;
    assert_eq!(relay.send(&plain("alice", 1)).await, 250);
    until("handed over", async || (relay.maildir("alice").len() == 1).then_some(())).await;
    until("an empty queue", async || {
        let queue = relay.json(&["queue"]).await;
        let expected = json!({
            "deliveries_waiting": 0, "bytes_waiting": 0, "deliveries_receipted": 0, "hand_overs_waiting": 0,
        });
        (queue == expected).then_some(())
    })
    .await;
    let array = relay.json(&["array", "status"]).await;
    assert_eq!(array["writable"], true);
    let servers = array["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 2);
    assert!(servers.iter().all(|server| server["available"] == true), "{array}");
    let catalog = relay.json(&["catalog", "status"]).await;
    assert_eq!((&catalog["messages"], &catalog["changes_in_doubt"]), (&json!(0), &json!(0)));

    let lines = relay.command(&["queue"]).await;
    assert!(String::from_utf8_lossy(&lines.stdout).contains("hand_overs_waiting: 0\n"));

    let unknown = "00".repeat(16);
    for command in ["show", "revoke"] {
        let output = relay.command(&["ticket", command, &unknown]).await;
        assert_eq!(output.status.code(), FAILED);
        assert!(errors(&output).contains("there is no delivery"), "{}", errors(&output));
        assert_eq!(relay.command(&["ticket", command, "xyz"]).await.status.code(), WRONG_USE);
    }
}

#[tokio::test]
async fn a_second_relay_and_a_rebuild_are_refused_while_one_runs_and_do_it_no_harm() {
    let mut relay = Relay::started().await;
    for command in [&["serve"][..], &["catalog", "rebuild"]] {
        let output = relay.command(command).await;
        assert_eq!(output.status.code(), TRY_AGAIN, "{command:?}");
        assert!(errors(&output).contains("stop it first"), "{}", errors(&output));
    }
    assert_eq!(relay.send(&plain("alice", 1)).await, 250);
    until("handed over", async || (relay.maildir("alice").len() == 1).then_some(())).await;
    relay.stop().await;
    relay.start().await;
    assert_eq!(relay.maildir("alice").len(), 1);
}

/// With no relay there, what it would answer is found out by the command.
#[tokio::test]
async fn the_view_is_checked_and_made_anew_with_and_without_a_relay() {
    let relay = Relay::new();
    for command in ["check", "orphans", "rebuild"] {
        let output = relay.command(&["catalog", command]).await;
        assert_eq!(output.status.code(), FAILED, "{command}");
        assert!(errors(&output).contains("ever started"), "{}", errors(&output));
    }
    assert!(!relay.data().exists(), "looking makes nothing");

    let mut relay = Relay::started().await;
    for number in 1..4 {
        assert_eq!(relay.send(&plain("alice", number)).await, 250);
    }
    until("handed over", async || (relay.maildir("alice").len() == 3).then_some(())).await;
    let running = relay.json(&["catalog", "check", "--deep"]).await;
    assert_eq!((&running["sound"], &running["disagreements"]), (&json!(true), &json!(0)), "{running}");
    let orphans = relay.json(&["catalog", "orphans"]).await;
    assert!(
        orphans["orphaned_bytes"].as_u64() > Some(0),
        "what was handed over is needed no more: {orphans}"
    );
    assert_eq!(orphans["segments"].as_array().unwrap().len(), 1);
    relay.stop().await;

    let stopped = relay.json(&["catalog", "check"]).await;
    assert_eq!((&stopped["sound"], &stopped["changes"]), (&json!(true), &running["changes"]), "{stopped}");
    let sealed = relay.json(&["catalog", "orphans"]).await;
    assert_eq!(sealed["orphaned_bytes"], orphans["orphaned_bytes"]);
    assert_eq!(sealed["orphaned_portions"], json!(3), "their manifests: {sealed}");
    // Damaged, deleted, or as it was: made anew, it says the same.
    let view = relay.data().join("catalog").join("catalog-2.redb");
    for spoil in ["nothing", "garbage", "gone"] {
        match spoil {
            "garbage" => std::fs::write(&view, b"not a view").unwrap(),
            "gone" => std::fs::remove_file(&view).unwrap(),
            _ => {}
        }
        let rebuilt = relay.json(&["catalog", "rebuild"]).await;
        assert_eq!(rebuilt["changes"], running["changes"], "{spoil}");
        assert_eq!((&rebuilt["hand_overs_waiting"], &rebuilt["log_gaps"]), (&json!(0), &json!(0)), "{spoil}");
    }
    relay.start().await;
    assert_eq!(relay.json(&["catalog", "check"]).await["sound"], true);
    assert_eq!(relay.maildir("alice").len(), 3, "nothing is delivered twice");
    relay.stop().await;
}

#[tokio::test]
async fn the_array_key_comes_out_goes_in_and_is_never_replaced() {
    let mut relay = Relay::new();
    let ids = relay.json(&["keys", "id"]).await;
    assert_eq!(ids["storage"].as_array().unwrap().len(), 2);
    let none = relay.command(&["keys", "export"]).await;
    assert_eq!(none.status.code(), FAILED);
    assert!(errors(&none).contains("first start"), "{}", errors(&none));

    relay.start().await;
    assert_eq!(relay.addresses()["peer"], ids["relay"], "the key that was made is the one that is used");
    let finding = async |relay: &Relay| {
        let output = relay.command(&["--json", "check"]).await;
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = findings.as_array().unwrap().clone();
        (output.status.code(), all.into_iter().find(|finding| finding["what"] == "array key").unwrap())
    };
    let (code, before) = finding(&relay).await;
    assert_eq!((code, &before["ok"]), (FAILED, &json!(false)));
    assert!(before["say"].as_str().unwrap().contains("keys export"));
    let key = relay.json(&["keys", "export"]).await["array_key"].as_str().unwrap().to_owned();
    let (code, after) = finding(&relay).await;
    assert_eq!((code, &after["ok"]), (DONE, &json!(true)), "{after}");

    let same = relay.command_with(&["keys", "import"], key.as_bytes()).await;
    assert_eq!(same.status.code(), DONE);
    let other = Relay::new();
    assert_eq!(other.command_with(&["keys", "import"], key.as_bytes()).await.status.code(), DONE);
    let mut third = Relay::new();
    third.start().await;
    let refused = third.command_with(&["keys", "import"], key.as_bytes()).await;
    assert_eq!(refused.status.code(), FAILED);
    assert!(errors(&refused).contains("different key"), "{}", errors(&refused));
    let garbage = other.command_with(&["keys", "import"], b"no key").await;
    assert_eq!(garbage.status.code(), FAILED);
}

#[tokio::test]
async fn check_says_what_to_mend() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::with(|config| {
        config["smtp"]["listen"] = json!([taken.local_addr().unwrap().to_string()]);
        config["roles"] = json!(["smtp"]);
        config["location"] = json!({});
    });
    let output = relay.command(&["check"]).await;
    assert_eq!(output.status.code(), FAILED);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["MEND smtp on 127.0.0.1", "MEND location server"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!relay.data().exists(), "check changes nothing");
}

#[tokio::test]
async fn detach_gives_an_unchanged_message_where_nothing_may_be_taken_out() {
    let relay = Relay::new();
    let blobs = relay.data().join("blobs");
    let message = plain("alice", 1).to_bytes();
    let output = relay.command_with(&["detach", "--blobs", blobs.to_str().unwrap()], &message).await;
    assert_eq!((output.status.code(), output.stdout == message), (DONE, true), "{}", errors(&output));
}
