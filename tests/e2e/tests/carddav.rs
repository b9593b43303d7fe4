//! Groups from a real CardDAV server: Radicale, as Debian packages it (SPEC A11).

use anyhow::{Context, Result, ensure};
use lighter_harness::peers::{Radicale, free_address};
use lighter_harness::watch::{wait_for, wait_for_receipts};
use lighter_harness::{Agent, World};
use serde_json::{Value, json};

const PLAIN: &str = "plain@lighter.test";

fn person(uid: &str, name: &str, address: &str) -> String {
    format!(
        "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:{uid}\r\nN:{name};;;;\r\nFN:{name}\r\nEMAIL:{address}\r\nEND:VCARD\r\n"
    )
}

/// As macOS and iOS write groups.
fn group(uid: &str, name: &str, members: &[&str]) -> String {
    let members: String =
        members.iter().map(|uid| format!("X-ADDRESSBOOKSERVER-MEMBER:urn:uuid:{uid}\r\n")).collect();
    format!(
        "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:{uid}\r\nN:{name};;;;\r\nFN:{name}\r\nX-ADDRESSBOOKSERVER-KIND:group\r\n{members}END:VCARD\r\n"
    )
}

fn configure(agent: &Agent, url: &str) -> Result<()> {
    let server = json!({ "name": "office", "url": url, "username": Radicale::USER, "refresh_minutes": 1 });
    agent.configure(&json!({ "address_books": { "carddav": [server] } }))
}

async fn login(agent: &Agent, password: &str) -> Result<std::process::Output> {
    let line = format!("{password}\n");
    agent.try_command_with(&["--json", "carddav", "login", "office"], line.as_bytes()).await
}

fn numbers(view: &Value) -> [&Value; 2] {
    [&view["servers"][0]["changed"], &view["servers"][0]["removed"]]
}

// SPEC: A10, A11
#[tokio::test]
async fn a_group_on_a_carddav_server_goes_to_its_members_whether_the_server_is_there_or_not() -> Result<()> {
    let world = World::start().await?;
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let radicale = Radicale::start(&folder.path().join("radicale"), Some(address)).await?;
    radicale.make_book("/sam/work/", "Work &amp; more").await?;
    radicale.make_book("/sam/home/", "Home").await?;
    radicale.put("/sam/work/alice.vcf", &person("a-1", "Alice", "alice@lighter.test")).await?;
    radicale.put("/sam/work/plain.vcf", &person("p-1", "Plain", PLAIN)).await?;
    radicale.put("/sam/work/team.vcf", &group("t-1", "Team Blue", &["a-1"])).await?;

    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let mut sam = world.agent("sam").await?;
    configure(&sam, &format!("http://{address}"))?;
    let file = folder.path().join("a.bin");
    std::fs::write(&file, vec![7_u8; 400_000])?;
    let file = file.to_str().context("an odd path")?;

    // Nothing is sent to a group of which nobody knows who is in it.
    let unfetched = sam.try_command(&["send", "--to", "Team Blue", file]).await?;
    let said = String::from_utf8_lossy(&unfetched.stderr).into_owned();
    ensure!(!unfetched.status.success() && said.contains("not read as a whole"), "{said}");
    let groups = sam.json(&["groups"]).await?;
    ensure!(groups.to_string().contains("carddav login office"), "{groups}");

    let wrong = login(&sam, "guess").await?;
    ensure!(wrong.status.code() == Some(1), "{wrong:?}");
    ensure!(!sam.member.data().join("carddav/office.password").exists(), "a wrong password is kept");
    let right = login(&sam, Radicale::PASSWORD).await?;
    ensure!(right.status.success(), "{right:?}");
    let view: Value = serde_json::from_slice(&right.stdout)?;
    ensure!(numbers(&view) == [3, 0], "{view}");
    let names: Vec<_> =
        view["servers"][0]["books"].as_array().context("books")?.iter().map(|b| &b["name"]).collect();
    ensure!(names == ["Home", "Work & more"], "{view}");

    // The running agent sends, and takes what the command has read.
    sam.member.start().await?;
    sam.command(&["send", "--to", "team blue", file]).await?;
    wait_for_receipts(&alice, 1).await?;

    // Of what is as it was, not even a list is asked for.
    let before = radicale.requests()?.len();
    let view = sam.json(&["carddav", "refresh"]).await?;
    ensure!(numbers(&view) == [0, 0], "{view}");
    let asked = radicale.requests()?;
    ensure!(
        asked[before..].iter().all(|line| !line.contains("/sam/work/") && !line.contains("REPORT")),
        "{asked:?}"
    );

    // One card has changed, one is new, one is gone.
    radicale.put("/sam/work/team.vcf", &group("t-1", "Team Blue", &["a-1", "b-1"])).await?;
    radicale.put("/sam/work/b%20o.vcf", &person("b-1", "Bo", PLAIN)).await?;
    radicale.delete("/sam/work/plain.vcf").await?;
    let view = sam.json(&["carddav", "refresh", "office"]).await?;
    ensure!(numbers(&view) == [2, 1], "{view}");

    // The server is gone: the copy is what counts, and says so.
    drop(radicale);
    let failed = sam.try_command(&["carddav", "refresh"]).await?;
    ensure!(failed.status.code() == Some(75), "{failed:?}");
    let sent = sam.command(&["--json", "send", "--to", "Work & more/Team Blue", file]).await?;
    let sent = String::from_utf8(sent)?;
    ensure!(sent.contains("alice@lighter.test") && sent.contains(PLAIN), "{sent}");
    wait_for_receipts(&alice, 2).await?;
    wait_for("the whole message", async || Ok((!world.maildir(PLAIN)?.is_empty()).then_some(()))).await?;
    let groups = sam.json(&["groups", "Team Blue"]).await?;
    let book = &groups["books"][0];
    ensure!(book["problems"].to_string().contains("is as it was"), "{groups}");
    ensure!(book["groups"][0]["recipients"] == json!(["alice@lighter.test", PLAIN]), "{groups}");

    // An agent fetches by itself what it has no copy of.
    sam.member.stop().await?;
    std::fs::remove_file(sam.member.data().join("carddav/office.json"))?;
    let radicale = Radicale::start(&folder.path().join("radicale"), Some(address)).await?;
    sam.member.start().await?;
    let path = sam.member.data().join("carddav/office.json");
    let is_fetched =
        async || Ok(std::fs::read_to_string(&path).ok().filter(|text| text.contains("Bo")).map(|_| ()));
    wait_for("the agent to fetch", is_fetched).await?;
    let log = sam.member.process()?.log();
    ensure!(!log.contains(Radicale::PASSWORD) && !log.contains("b3BlbjogIHNlc2FtZQ"), "{log}");
    drop(radicale);
    Ok(())
}

// SPEC: A11
#[tokio::test]
async fn an_address_book_is_found_behind_the_well_known_address_and_by_its_own() -> Result<()> {
    let world = World::start().await?;
    let folder = tempfile::tempdir()?;
    let radicale = Radicale::start(folder.path(), None).await?;
    radicale.make_book("/sam/work/", "Work").await?;
    radicale.put("/sam/work/a.vcf", &person("a", "Ann", "ann@lighter.test")).await?;
    let sam = world.agent("sam").await?;
    let base = format!("http://{}", radicale.address);
    for path in ["", "/", "/.well-known/carddav", "/sam/", "/sam/work/"] {
        configure(&sam, &format!("{base}{path}"))?;
        let output = login(&sam, Radicale::PASSWORD).await?;
        ensure!(output.status.success(), "{path}: {output:?}");
        let view: Value = serde_json::from_slice(&output.stdout)?;
        let book = &view["servers"][0]["books"][0];
        ensure!(book["name"] == "Work" && book["cards"] == 1, "{path}: {view}");
    }
    // Another account's copy is not this one's.
    configure(&sam, &format!("{base}/sam/none/"))?;
    let failed = sam.try_command(&["carddav", "refresh"]).await?;
    ensure!(failed.status.code() == Some(1), "{failed:?}");
    let groups = sam.json(&["groups"]).await?;
    ensure!(groups["books"][0]["people"] == 0, "{groups}");
    Ok(())
}
