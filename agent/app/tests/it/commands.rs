//! What the commands say to people and scripts.

use std::os::unix::fs::PermissionsExt;

use lighter_agent::config::Paths;

use crate::support::programs::{error_text, json, program, run, run_ok};
use crate::support::relay::Relay;
use crate::support::{World, bytes, mailbox, start};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keyring_the_key_goes_into_a_file_of_the_owner_and_that_is_said() {
    let world = World::start().await;
    let paths = world.paths("alice");
    let token = world.location.invite(&mailbox("alice")).await.unwrap();
    let url = world.location.url();
    let arguments =
        ["--json", "setup", "--mailbox", "alice@example.org", "--location", &url, "--token", token.expose()];
    let report: serde_json::Value = serde_json::from_slice(&run_ok(&paths, &arguments, b"").await).unwrap();
    assert_eq!((report["key"].as_str(), report["primary"].as_bool()), (Some("file"), Some(true)));
    assert_eq!(paths.key().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(paths.data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let status = String::from_utf8(run_ok(&paths, &["status"], b"").await).unwrap();
    assert!(status.contains("in a file that only you can read"), "{status}");
    assert!(status.contains("not running"), "{status}");
    // A token is good for one agent.
    let output = run(&world.paths("eve"), &arguments, b"").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("the token is wrong, used, expired"), "{}", error_text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_before_setup_says_to_set_up_first() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths { config: folder.path().join("none.toml"), data: folder.path().join("none") };
    for command in [
        &["run"][..],
        &["status"],
        &["list"],
        &["lookup", "a@b.c"],
        &["get", "x"],
        &["groups"],
        &["send", "--to", "a@b.c"],
        &["send", "--to", "group"],
    ] {
        let output = run(&paths, command, b"").await;
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert!(error_text(&output).contains("lighter-agent setup"), "{}", error_text(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_20_hostile_names_are_listed_harmlessly() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let name = "../../\u{1b}[2J\u{202e}fdp.exe\r\n";
    relay.held.lock().unwrap().name = Some(name.to_owned());
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 1_000)]);
    let paths = world.set_up("alice", None).await;
    let agent = start(&paths).await;
    relay.receipts(1).await;
    let text = String::from_utf8(run_ok(&paths, &["list"], b"").await).unwrap();
    assert!(text.contains("[2Jfdp.exe"), "{text:?}");
    assert!(!text.chars().any(|c| c != '\n' && lighter_message::name::is_invisible(c)), "{text:?}");
    assert_eq!(json(&paths, &["list"]).await["blobs"][0]["name"], "[2Jfdp.exe");
    // And it is fetched under a name that stays in the folder.
    let folder = tempfile::tempdir().unwrap();
    let id = lighter_protocol::BlobId::of(&bytes(1, 1_000)).to_string();
    run_ok(&paths, &["get", &id, "-o", folder.path().to_str().unwrap()], b"").await;
    assert_eq!(std::fs::read(folder.path().join("[2Jfdp.exe")).unwrap(), bytes(1, 1_000));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_says_whether_the_store_answers_and_gives_one_answer_for_all_others() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let paths = world.set_up("sam", None).await;
    let found = json(&paths, &["lookup", "alice@example.org"]).await;
    assert_eq!(found["store"]["peer"], alice.shared().identity.peer().to_string());
    assert_eq!(
        (found["store"]["presence"].as_str(), found["store"]["answers"].as_bool()),
        (Some("online"), Some(true))
    );
    for nobody in ["unknown@example.org", "somebody@elsewhere.test"] {
        assert!(json(&paths, &["lookup", nobody]).await["store"].is_null());
    }
    alice.stop().await;
    let found = json(&paths, &["lookup", "alice@example.org"]).await;
    assert_eq!(
        (found["store"]["presence"].as_str(), found["store"]["answers"].as_bool()),
        (Some("offline"), Some(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_22_a_stub_whose_delivery_the_store_does_not_list_is_not_restored() {
    let world = World::start().await;
    let paths = world.set_up("alice", None).await;
    let stub = format!(
        "Lighter-Message: v=1; delivery={}; length=10; parts=1; eol=crlf; hash={}\r\nSubject: x\r\n\r\n",
        "ab".repeat(16),
        "11".repeat(32)
    );
    let output = run(&paths, &["restore"], stub.as_bytes()).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(error_text(&output).contains("is not in the own store"), "{}", error_text(&output));
    // What is no stub comes out as it went in.
    let plain = b"Subject: x\r\n\r\nLighter-Message: text\r\n";
    assert_eq!(run_ok(&paths, &["restore"], plain).await, plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_not_written_to_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths { config: folder.path().join("none.toml"), data: folder.path().join("none") };
    let message = crate::support::file(folder.path(), "mail.eml", b"Subject: \x1b]0;x\x07\r\n\r\n");
    let terminal =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&terminal).unwrap();
    rustix::pty::unlockpt(&terminal).unwrap();
    let name = rustix::pty::ptsname(&terminal, Vec::new()).unwrap();
    let other_end = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let output = program(&paths)
        .args(["restore", "--blobs", folder.path().to_str().unwrap(), message.to_str().unwrap()])
        .stdout(other_end)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error_text(&output).contains("-o"), "{}", error_text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_says_that_one_runs_already() {
    let world = World::start().await;
    let paths = world.set_up("alice", None).await;
    let agent = start(&paths).await;
    let output = run(&paths, &["run"], b"").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("runs here already"), "{}", error_text(&output));
    agent.stop().await;
}
