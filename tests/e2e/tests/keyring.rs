//! The agent's key in a real keyring: GNOME's, on a session bus of its own.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};
use lighter_e2e::contains;
use lighter_harness::World;
use lighter_harness::programs::{program, run, run_ok};
use serde_json::Value;

const MAILBOX: &str = "kim@lighter.test";
/// What runs on the session bus; the keyring's daemon ends with it. The daemon is in the background before it has its name on
/// the bus: who asks for that earlier makes the bus start another one, whose keyring is locked.
const SESSION: &str = r#"
printf secret | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1 || exit 3
looks=0
until dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
    string:org.freedesktop.secrets | grep -q 'boolean true'; do
    looks=$((looks + 1))
    [ "$looks" -lt 1200 ] || exit 6
    sleep 0.05
done
"$AGENT" --json --config "$CONFIG" --data "$DATA" setup \
    --mailbox "$MAILBOX" --location "$LOCATION" --token "$TOKEN" || exit 4
"$AGENT" --json --config "$CONFIG" --data "$DATA" key rotate >"$ROTATED" || exit 7
"$AGENT" --json --config "$CONFIG" --data "$DATA" key show >"$SHOWN" || exit 8
"$AGENT" --json --config "$CONFIG" --data "$DATA" lookup "$MAILBOX" >/dev/null || exit 5
"#;

#[tokio::test]
async fn the_key_lives_in_the_keyring_and_nowhere_else() -> Result<()> {
    let world = World::start().await?;
    let invitation = world.location_command(&["user", "invite", MAILBOX]).await?;
    let token = invitation.pointer("/token").and_then(Value::as_str).context("no token")?;
    let folder = tempfile::tempdir()?;
    let (config, data) = (folder.path().join("agent.toml"), folder.path().join("data"));
    let runtime = folder.path().join("run");
    std::fs::DirBuilder::new().mode(0o700).create(&runtime)?;
    let agent = program("lighter-agent")?;
    let set = |name: &str, value: &Path| {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        assignment
    };
    let session = [
        set("HOME", folder.path()),
        set("XDG_RUNTIME_DIR", &runtime),
        set("AGENT", &agent),
        set("CONFIG", &config),
        set("DATA", &data),
        set("ROTATED", &folder.path().join("rotated")),
        set("SHOWN", &folder.path().join("shown")),
        format!("MAILBOX={MAILBOX}").into(),
        format!("LOCATION={}", world.location_url).into(),
        format!("TOKEN={token}").into(),
        "dbus-run-session".into(),
        "--".into(),
        "sh".into(),
        "-c".into(),
        SESSION.into(),
    ];
    let set_up: Value = serde_json::from_slice(&run_ok(Path::new("env"), session, b"").await?)?;
    assert_eq!(set_up["key"], "keyring");
    assert!(!data.join("key").exists(), "the key is in a file, too");
    // Another key, in the place of the first: what is kept of that one is in the keyring as well.
    let read = |name: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(folder.path().join(name))?)?)
    };
    let (rotated, shown) = (read("rotated")?, read("shown")?);
    assert_eq!(rotated["former"][0]["peer"], set_up["peer"]);
    assert_eq!((&shown["peer"], &shown["former"]), (&rotated["peer"], &rotated["former"]));
    assert_ne!(shown["peer"], set_up["peer"]);
    let kept = std::fs::read_to_string(data.join("former-keys.json"))?;
    assert!(!kept.contains("sealing"), "{kept}");
    assert!(!data.join("key").exists() && !data.join("key.next").exists());

    // Without the keyring there is no key, and the user is told so.
    let alone = [
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent".into(),
        agent.clone().into_os_string(),
        "--config".into(),
        config.into_os_string(),
        "--data".into(),
        data.into_os_string(),
        "lookup".into(),
        MAILBOX.into(),
    ];
    let output = run(Path::new("env"), alone, b"").await?;
    assert_eq!(output.status.code(), Some(75), "to be tried again");
    assert!(contains(&output.stderr, b"keyring"), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
