//! Two domains that know nothing of each other but what DNS and the web say: Debian's dnsmasq is the name server, Debian's
//! nginx the web server and the HTTPS in front of both location servers. One domain is found by an SRV record, the other
//! by `.well-known`, which names a third party's host; the latter has no relay.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lighter_harness::peers::{Certificate, Host, NameServer, Saying, Site, WebServer};
use lighter_harness::watch::{wait_for, wait_for_mail, wait_for_receipts};
use lighter_harness::world::{Domain, Options};
use lighter_harness::{Agent, World, isolated};
use serde_json::{Value, json};

const SIZE: usize = 2 * 1024 * 1024;
/// The name server: what `/etc/resolv.conf` of a machine with a resolver of its own says.
const NAME_SERVER: &str = "127.0.0.1:53";

/// Everything on loopback, under addresses as different as hosts have.
fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, last]), port)
}

// SPEC: A2, A15, A16, A27
#[test]
fn domains_find_each_other_and_attachments_go_to_whom_the_recipient_accepts() -> Result<()> {
    isolated::run("domains_find_each_other_and_attachments_go_to_whom_the_recipient_accepts", async || {
        let folder = tempfile::tempdir()?;
        let certificates = Certificates::make(folder.path()).await?;
        let finding = json!({ "finding": {
            "name_servers": [NAME_SERVER],
            "allowed_networks": ["127.0.0.0/8"],
            "ca_file": certificates.bundle,
        }});
        let options = Options { location: Some(finding.clone()), ..Options::default() };
        let world = World::start_with(&options).await?;
        let two = Domain::start(world.folder(), "two.test", &finding).await?;
        let _web = web(folder.path(), &certificates, &world, &two).await?;
        let names = names(folder.path()).await?;

        let mut alice = world.agent("alice").await?;
        let mut bob = two.agent("bob", &world.smtp()?.to_string()).await?;
        for agent in [&mut alice, &mut bob] {
            agent.configure(&finding)?;
            agent.member.start().await?;
            registered(agent).await?;
        }
        let file = folder.path().join("report.bin");
        std::fs::write(&file, vec![7; SIZE])?;

        // Strangers: nobody learns that there is a store. Alice has written to Bob by that.
        ensure!(sends(&alice, &bob, &file).await? == "whole");
        // Bob's domain is found by `.well-known`, Alice's by SRV; he may write to her now, she has written to him.
        ensure!(sends(&bob, &alice, &file).await? == "receipted");
        wait_for_receipts(&alice, 1).await?;
        // And he to her: so she may, too.
        ensure!(sends(&alice, &bob, &file).await? == "receipted");
        wait_for_receipts(&bob, 1).await?;
        // The recipient decides.
        for (command, becomes) in [
            (vec!["block", &bob.mailbox], "whole"),
            (vec!["accept", &bob.mailbox], "receipted"),
            (vec!["policy", "closed"], "whole"),
            (vec!["policy", "open"], "receipted"),
        ] {
            alice.json(&command).await?;
            let became = sends(&bob, &alice, &file).await?;
            ensure!(became == becomes, "{command:?}: {became}");
        }
        // Others' SRV records that lead to Alice's server are no proof: its certificate is not for their domain; nor is a
        // `.well-known` that leads into a network that nobody named.
        for (mailbox, why) in
            [("x@thief.test", "cannot be found now"), ("x@metadata.test", "cannot be found now")]
        {
            let output = bob.try_command(&["lookup", mailbox]).await?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(75) && said.contains(why), "{mailbox}: {said}");
        }
        let nothing = bob.json(&["lookup", "x@nothing.test"]).await?;
        ensure!(nothing["store"].is_null(), "{nothing}");
        // With the name server gone, what is known counts on; who is not known gets mail as ever.
        drop(names);
        ensure!(sends(&bob, &alice, &file).await? == "receipted");
        let said = bob.command(&["--json", "send", "--to", "x@three.test", path(&file)?]).await?;
        ensure!(
            String::from_utf8_lossy(&said).contains("cannot be found now"),
            "{}",
            String::from_utf8_lossy(&said)
        );
        let status = bob.json(&["status"]).await?;
        ensure!(status["domains"].to_string().contains("lighter.test"), "{status}");
        Ok(())
    })
}

// SPEC: A4, A7, A14, A15
#[test]
fn a_sender_who_trusts_presence_asks_nothing_of_a_store_of_another_domain_before_the_message_goes()
-> Result<()> {
    let name =
        "a_sender_who_trusts_presence_asks_nothing_of_a_store_of_another_domain_before_the_message_goes";
    isolated::run(name, async || {
        let folder = tempfile::tempdir()?;
        let certificates = Certificates::make(folder.path()).await?;
        let finding = json!({ "finding": {
            "name_servers": [NAME_SERVER],
            "allowed_networks": ["127.0.0.0/8"],
            "ca_file": certificates.bundle,
        }});
        let options = Options { location: Some(finding.clone()), ..Options::default() };
        let world = World::start_with(&options).await?;
        let two = Domain::start(world.folder(), "two.test", &finding).await?;
        let _web = web(folder.path(), &certificates, &world, &two).await?;
        let _names = names(folder.path()).await?;
        let mut alice = world.agent("alice").await?;
        let mut bob = two.agent("bob", &world.smtp()?.to_string()).await?;
        for agent in [&mut alice, &mut bob] {
            agent.configure(&finding)?;
            agent.configure(&json!({ "send": { "unreachable": "whole" } }))?;
            agent.member.start().await?;
            registered(agent).await?;
        }
        let file = folder.path().join("report.bin");
        std::fs::write(&file, vec![7; SIZE])?;
        alice.json(&["policy", "open"]).await?;
        // Killed, it said nothing: its location server's word is that it is online, until its pings are missed.
        alice.member.kill().await?;
        let online = world.location_command(&["user", "list"]).await?;
        ensure!(online[0]["presence"] == "online", "{online}");
        // The ping decides.
        ensure!(sends(&bob, &alice, &file).await? == "whole");
        // Without it, the message goes at once, and what was to be in it waits until the store is there.
        bob.member.stop().await?;
        bob.configure(&json!({ "send": { "trust_presence": true } }))?;
        bob.member.start().await?;
        registered(&bob).await?;
        let events = bob.command(&["--json", "send", "--to", &alice.mailbox, path(&file)?]).await?;
        let events = String::from_utf8(events)?;
        let names: Vec<String> = events
            .lines()
            .map(|line| {
                Ok(serde_json::from_str::<Value>(line)?["event"].as_str().unwrap_or_default().to_owned())
            })
            .collect::<Result<_>>()?;
        let at = |event: &str| names.iter().position(|name| name == event);
        ensure!(at("mailed").is_some() && at("mailed") < at("waiting"), "{events}");
        ensure!(at("whole").is_none() && at("to-store") < at("mailed"), "{events}");
        let stub = wait_for_mail(&world, &alice.mailbox, 2).await?;
        ensure!(stub.len() < SIZE / 2, "not a stub: {} bytes", stub.len());
        let status = bob.json(&["status"]).await?;
        ensure!(status["outgoing"][0]["state"] == "waiting", "{status}");
        alice.member.start().await?;
        wait_for_receipts(&alice, 1).await?;
        wait_for("the sender to let go", async || {
            let status = bob.json(&["status"]).await?;
            Ok((status["outgoing"][0]["state"] == "released").then_some(()))
        })
        .await?;
        // Whose location server says that they are away is not relied on: the ping decides, and there is nobody.
        alice.member.stop().await?;
        ensure!(sends(&bob, &alice, &file).await? == "whole");
        Ok(())
    })
}

/// Sends a file; what became of it: `whole`, or `receipted`.
async fn sends(from: &Agent, to: &Agent, file: &Path) -> Result<String> {
    let said = from.command(&["--json", "send", "--to", &to.mailbox, path(file)?]).await?;
    let said = String::from_utf8(said)?;
    for line in said.lines() {
        let event: Value = serde_json::from_str(line)?;
        if let Some(name @ ("whole" | "receipted")) = event["event"].as_str() {
            return Ok(name.to_owned());
        }
    }
    anyhow::bail!("neither by store nor by mail:\n{said}")
}

async fn registered(agent: &Agent) -> Result<()> {
    wait_for("registration", async || {
        let status = agent.json(&["status"]).await?;
        Ok((status["registered"] == true && status["primary"] == true).then_some(()))
    })
    .await
}

/// One certificate for each name, none of which is good for another.
struct Certificates {
    one: Certificate,
    two: Certificate,
    provider: Certificate,
    metadata: Certificate,
    bundle: std::path::PathBuf,
}

impl Certificates {
    async fn make(folder: &Path) -> Result<Self> {
        let one = Certificate::make_named(folder, "one-", "DNS:lighter.test").await?;
        let two = Certificate::make_named(folder, "two-", "DNS:two.test").await?;
        let provider = Certificate::make_named(folder, "provider-", "DNS:location.provider.test").await?;
        let metadata = Certificate::make_named(folder, "metadata-", "DNS:metadata.test").await?;
        let mut all = Vec::new();
        for certificate in [&one, &two, &provider, &metadata] {
            all.extend(std::fs::read(&certificate.certificate)?);
        }
        let bundle = folder.join("all.pem");
        std::fs::write(&bundle, all)?;
        Ok(Self { one, two, provider, metadata, bundle })
    }
}

async fn web(folder: &Path, certificates: &Certificates, world: &World, two: &Domain) -> Result<WebServer> {
    let text = |url: &str| Site::Text("/.well-known/lighter", json!({ "location": url }).to_string());
    let hosts = [
        Host {
            listen: address(3, 9443),
            certificate: certificates.one.clone(),
            site: Site::Proxy(world.location.address("/http")?),
        },
        Host {
            listen: address(2, 443),
            certificate: certificates.two.clone(),
            site: text("https://location.provider.test:8443"),
        },
        Host {
            listen: address(4, 8443),
            certificate: certificates.provider.clone(),
            site: Site::Proxy(two.location.address("/http")?),
        },
        Host {
            listen: address(5, 443),
            certificate: certificates.metadata.clone(),
            site: text("https://169.254.169.254"),
        },
    ];
    WebServer::start(&folder.join("web"), &hosts).await
}

async fn names(folder: &Path) -> Result<NameServer> {
    let host = |name, last| Saying::Host(name, address(last, 0).ip());
    let says = [
        Saying::Service("_lighter._tcp.lighter.test", "hub.lighter.test", 9443),
        host("hub.lighter.test", 3),
        host("two.test", 2),
        host("location.provider.test", 4),
        Saying::Service("_lighter._tcp.thief.test", "hub.lighter.test", 9443),
        host("metadata.test", 5),
    ];
    NameServer::start(&folder.join("names"), NAME_SERVER.parse()?, &says).await
}

fn path(file: &Path) -> Result<&str> {
    file.to_str().context("a file whose name is no UTF-8")
}
