//! The real program as a process: serving, and commands with and without a server.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lighter_transport::location::{LocationClient, Secret};
use serde_json::Value;

use crate::world::{Store, mailbox};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lighter-location"))
}

/// Runs a command on `data`; its exit code and what it printed.
fn run(data: &Path, arguments: &[&str]) -> Output {
    program().arg("--data").arg(data).arg("--json").args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let _ = std::fs::remove_file(data.join("addresses.json"));
        let child = program()
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--domain", "example.org", "--data"])
            .arg(data)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, url: String::new() };
        let file = data.join("addresses.json");
        for _ in 0..2_000 {
            if let Ok(text) = std::fs::read(&file) {
                let addresses: Value = serde_json::from_slice(&text).unwrap();
                addresses["url"].as_str().unwrap().clone_into(&mut server.url);
                return server;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not start");
    }

    /// SIGTERM; the exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn tokens_and_users_are_managed_while_the_server_runs_and_while_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data);
    let token = json(&run(&data, &["token", "create", "--scope", "lookup", "--name", "mx"]));
    let invitation = json(&run(&data, &["user", "invite", "alice@example.org"]));
    let client = LocationClient::new(&server.url, None).unwrap();
    let alice = Store::new("alice@example.org");
    let enrolment_token = Secret::new(invitation["token"].as_str().unwrap());
    client.enrol(alice.identity.keypair(), &enrolment_token, &alice.mailbox).await.unwrap();
    client.register(&alice.sign(&alice.registration(1))).await.unwrap();
    let api_token = Secret::new(token["token"].as_str().unwrap());
    assert!(client.lookup_one(&api_token, &alice.mailbox).await.unwrap().is_some());
    let users = json(&run(&data, &["user", "list"]));
    assert_eq!(
        (&users[0]["mailbox"], &users[0]["presence"]),
        (&"alice@example.org".into(), &"online".into())
    );
    assert_eq!(server.stop(), Some(0), "a clean stop");

    let users = json(&run(&data, &["user", "list"]));
    assert_eq!(users[0]["presence"], "unknown");
    json(&run(&data, &["token", "revoke", token["id"].as_str().unwrap()]));
    let tokens = json(&run(&data, &["token", "list"]));
    assert_eq!((&tokens[0]["name"], tokens[0]["revoked"].is_u64()), (&"mx".into(), true));
    assert_eq!(json(&run(&data, &["user", "remove", "alice@example.org"]))["removed"], 1);

    let server = Server::start(&data);
    let client = LocationClient::new(&server.url, None).unwrap();
    assert!(client.lookup_one(&api_token, &mailbox("alice@example.org")).await.is_err(), "revoked");
    assert!(client.register(&alice.sign(&alice.registration(2))).await.is_err(), "removed");
}

#[tokio::test]
async fn a_server_that_was_killed_has_everything_that_it_answered() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data);
    let invitation = json(&run(&data, &["user", "invite", "alice@example.org"]));
    let client = LocationClient::new(&server.url, None).unwrap();
    let alice = Store::new("alice@example.org");
    let token = Secret::new(invitation["token"].as_str().unwrap());
    client.enrol(alice.identity.keypair(), &token, &alice.mailbox).await.unwrap();
    for sequence in 1..=20 {
        client.register(&alice.sign(&alice.registration(sequence))).await.unwrap();
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let server = Server::start(&data);
    let client = LocationClient::new(&server.url, None).unwrap();
    let stale = client.register(&alice.sign(&alice.registration(20))).await.unwrap_err();
    assert!(stale.to_string().contains("20"), "{stale}");
    client.register(&alice.sign(&alice.registration(21))).await.unwrap();
}

#[test]
fn exit_codes_say_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _server = Server::start(&data);
    assert_eq!(run(&data, &["token", "revoke", "nothing"]).status.code(), Some(1));
    assert_eq!(
        run(&data, &["user", "invite", "bob@elsewhere.org"]).status.code(),
        Some(1),
        "a foreign domain"
    );
    assert_eq!(run(&data, &["user", "invite", "no mailbox"]).status.code(), Some(2));
    assert_eq!(run(&data, &["nonsense"]).status.code(), Some(2));
    assert_eq!(run(&folder.path().join("mistyped"), &["user", "list"]).status.code(), Some(2));
    let second = run(&data, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(75), "another server runs there");
}

#[test]
fn export_prints_everything_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    drop(Server::start(&data));
    let token = json(&run(&data, &["token", "create", "--scope", "presence"]));
    let invitation = json(&run(&data, &["user", "invite", "alice@example.org"]));
    let output = run(&data, &["export"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let kinds: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        kinds.iter().map(|line| line["kind"].as_str().unwrap()).collect::<Vec<_>>(),
        ["invitation", "token"]
    );
    for secret in [&token["token"], &invitation["token"]] {
        assert!(!text.contains(secret.as_str().unwrap()));
    }
}

#[test]
fn the_data_folder_and_what_is_secret_in_it_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _server = Server::start(&data);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("location.key")), 0o600);
    assert_eq!(mode(&data.join("control.sock")), 0o600);
}
