//! Networks that let no UDP through: agents reach their relay by TLS on TCP, or by a WebSocket on a web server, through a
//! proxy where there is one; and by QUIC again when that works again.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lighter_harness::homes::{HomeHost, Internet, PUBLIC, Router};
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Certificate, Nginx, Tinyproxy};
use lighter_harness::watch::{wait_for, wait_for_receipts, wait_until_released};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World, isolated};
use serde_json::{Value, json};

/// What goes this way.
const SIZE: u64 = 8 * 1024 * 1024;

// SPEC: A6, A7, A30
#[test]
fn where_udp_is_dropped_everything_goes_by_tcp_and_by_quic_again_when_that_works_again() -> Result<()> {
    let name = "where_udp_is_dropped_everything_goes_by_tcp_and_by_quic_again_when_that_works_again";
    isolated::run(name, async || {
        let mut internet = Internet::new().await?;
        let world = World::start_with(&Options { address: PUBLIC, ..Options::default() }).await?;
        let (home, office) = (blocked(&mut internet).await?, blocked(&mut internet).await?);
        let mut alice = world.agent_at_home("alice", &home, false).await?;
        let mut bob = world.agent_at_home("bob", &office, false).await?;
        for agent in [&mut alice, &mut bob] {
            agent.member.start().await?;
            wait_for_carrier(agent, "tcp").await?;
        }
        // Mail for one of them: the relay's blobs come through the session that it opened.
        world.send(&TestMessage::new(&alice.mailbox, SIZE, 1)).await?;
        wait_for_receipts(&alice, 1).await?;
        wait_until_released(&world).await?;
        // From one to the other no way leads: it is left with the relay, and fetched from there.
        let file = world.folder().join("left.bin");
        let content: Vec<u8> = TestMessage::new("x@example.org", SIZE, 2).attachment().flatten().collect();
        std::fs::write(&file, &content)?;
        let file = file.to_str().context("a path")?;
        let said =
            bob.command(&["--json", "send", "--to", &alice.mailbox, "--subject", "Plan", file]).await?;
        let said = String::from_utf8(said)?;
        ensure!(said.contains(r#""event":"dropped""#), "not left:\n{said}");
        wait_for_receipts(&alice, 2).await?;
        let blobs = alice.json(&["list"]).await?.to_string();
        ensure!(blobs.contains(&blake3::hash(&content).to_hex().to_string()), "{blobs}");
        wait_for("the sender to learn of the receipt", async || {
            let status = bob.json(&["status"]).await?;
            Ok((status.pointer("/outgoing/0/state").and_then(Value::as_str) == Some("released"))
                .then_some(()))
        })
        .await?;
        // The next start begins with what worked in this network.
        alice.member.stop().await?;
        let remembered = std::fs::read_to_string(alice.member.data().join("networks.json"))?;
        ensure!(remembered.contains(r#""carrier": "tcp""#), "{remembered}");
        alice.member.start().await?;
        wait_for_carrier(&alice, "tcp").await?;
        // UDP comes back, and the session with it.
        home.let_udp_through(true).await?;
        wait_for_carrier(&alice, "quic").await?;
        let remembered = std::fs::read_to_string(alice.member.data().join("networks.json"))?;
        ensure!(!remembered.contains("tcp"), "{remembered}");
        world.send(&TestMessage::new(&alice.mailbox, SIZE, 3)).await?;
        wait_for_receipts(&alice, 3).await?;
        for agent in [alice, bob] {
            let mut member = agent.member;
            member.stop().await?;
        }
        Ok(())
    })
}

// SPEC: A30
#[test]
fn where_only_the_web_gets_through_attachments_come_by_websocket_through_proxy_and_web_server() -> Result<()>
{
    let name = "where_only_the_web_gets_through_attachments_come_by_websocket_through_proxy_and_web_server";
    isolated::run(name, async || {
        let mut internet = Internet::new().await?;
        let (front, url) = (SocketAddr::new(PUBLIC, 443), format!("https://{PUBLIC}"));
        let more = json!({ "web": { "url": url, "proxies": [format!("{PUBLIC}/32")] } });
        let world =
            World::start_with(&Options { address: PUBLIC, more: Some(more), ..Options::default() }).await?;
        let certificate = Certificate::make_for(world.folder(), PUBLIC).await?;
        let (web, location) = (world.relay.address("/web")?, world.location.address("/http")?);
        let nginx = Nginx::start(&world.folder().join("nginx"), front, &certificate, web, location).await?;
        // One behind a router that lets nothing but port 443 through, two behind one that lets nothing through.
        let [web_only] = one(internet.home(Router::WebOnly, 1).await?)?;
        let office = internet.home(Router::Closed, 2).await?;
        let address = SocketAddr::new(office[0].outside(), 3_128);
        let folder = world.folder().join("tinyproxy");
        let proxy = Tinyproxy::start(&folder, &office[0].on_router(), address).await?;
        let proxy_url = format!("http://{}@192.168.1.1:3128", Tinyproxy::USER);

        let mut alice = world.agent_at_home("alice", &web_only, false).await?;
        let mut bob = world.agent_at_home("bob", &office[0], false).await?;
        let mut carol = world.agent_at_home("carol", &office[1], false).await?;
        for (agent, proxy) in [(&alice, None), (&bob, Some(&proxy_url)), (&carol, None)] {
            behind_the_web(&world, agent, &url, &certificate, proxy)?;
        }
        // One is told of the proxy by its configuration, one by the environment.
        carol.member.through.extend(["env".to_owned(), format!("HTTPS_PROXY={proxy_url}")]);
        for (agent, seed) in [(&mut alice, 1), (&mut bob, 2), (&mut carol, 3)] {
            agent.member.start().await?;
            wait_for_carrier(agent, "websocket").await?;
            world.send(&TestMessage::new(&agent.mailbox, SIZE, seed)).await?;
            wait_for_receipts(agent, 1).await?;
        }
        wait_until_released(&world).await?;
        ensure!(nginx.asked()?.contains("/v1/register"), "the location server is behind it, too");
        let connects = proxy.log()?.matches(&format!("CONNECT {front}")).count();
        ensure!(connects >= 4, "the proxy was asked {connects} times:\n{}", proxy.log()?);
        for agent in [alice, bob, carol] {
            let mut member = agent.member;
            member.stop().await?;
        }
        // nginx writes a line when a WebSocket has ended.
        wait_for("three WebSockets in the log", async || {
            let asked = nginx.asked()?;
            let upgrades = asked.lines().filter(|line| line.contains("GET /lighter HTTP/1.1\" 101"));
            Ok((upgrades.count() >= 3).then_some(()))
        })
        .await
    })
}

fn one<T>(all: Vec<T>) -> Result<[T; 1]> {
    all.try_into().ok().context("one")
}

async fn blocked(internet: &mut Internet) -> Result<HomeHost> {
    let [host] = one(internet.home(Router::UdpBlocked, 1).await?)?;
    Ok(host)
}

/// Waits until the agent has a session with its relay by this carrier.
async fn wait_for_carrier(agent: &Agent, carrier: &str) -> Result<()> {
    wait_for(&format!("{}: a session by {carrier}", agent.mailbox), async || {
        let status = agent.json(&["status"]).await?;
        Ok((status.pointer("/relays/0/carrier").and_then(Value::as_str) == Some(carrier)).then_some(()))
    })
    .await
}

/// From now on the agent knows its location server by the web server in front of it.
fn behind_the_web(
    world: &World,
    agent: &Agent,
    url: &str,
    certificate: &Certificate,
    proxy: Option<&String>,
) -> Result<()> {
    let (name, _) = agent.mailbox.split_once('@').context("no mailbox")?;
    let path = world.folder().join(format!("{name}.toml"));
    let mut config: toml::Value = toml::from_str(&std::fs::read_to_string(&path)?)?;
    let table = config.as_table_mut().context("a table")?;
    let location = table.get_mut("location").and_then(toml::Value::as_table_mut).context("location")?;
    location.insert("url".to_owned(), url.into());
    location.insert("ca_file".to_owned(), certificate.certificate.to_str().context("a path")?.into());
    if let Some(proxy) = proxy {
        let network = table.get_mut("network").and_then(toml::Value::as_table_mut).context("network")?;
        network.insert("proxy".to_owned(), proxy.as_str().into());
    }
    std::fs::write(&path, toml::to_string(&config)?)?;
    Ok(())
}
