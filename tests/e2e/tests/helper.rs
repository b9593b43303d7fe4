//! A domain with a location server and no relay, whose users are behind home routers: the location server helps them to
//! find each other.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lighter_harness::homes::{HomeHost, Internet, PUBLIC, Router};
use lighter_harness::watch::wait_for;
use lighter_harness::world::Domain;
use lighter_harness::{Agent, isolated};
use serde_json::{Value, json};

// SPEC: A27, D6
#[test]
fn without_a_relay_the_location_server_helps_stores_behind_routers_to_be_reached() -> Result<()> {
    let name = "without_a_relay_the_location_server_helps_stores_behind_routers_to_be_reached";
    isolated::run(name, async || {
        let mut internet = Internet::new().await?;
        let folder = tempfile::tempdir()?;
        let listen = SocketAddr::new(PUBLIC, 0);
        let helped = json!({ "listen": listen, "helper": { "listen": listen } });
        let alone = json!({ "listen": listen });
        for (name, more, expected) in
            [("helped.test", &helped, Some("punched")), ("alone.test", &alone, None)]
        {
            let domain = Domain::start(folder.path(), name, more).await?;
            let mut agents = Vec::new();
            for user in ["alice", "bob"] {
                let [host] = one(internet.home(Router::PortRestricted, 1).await?)?;
                let mut agent = domain.agent(user, "127.0.0.1:9").await?;
                at_home(&mut agent, &host)?;
                agent.member.start().await?;
                wait_until_there(&agent, expected.is_some()).await?;
                agents.push(agent);
            }
            let [alice, bob] = [&agents[0], &agents[1]];
            for (from, to) in [(alice, bob), (bob, alice)] {
                let found = from.json(&["lookup", &to.mailbox]).await?;
                ensure!(found["store"]["presence"] == "online", "{name}: {found}");
                let way = found["store"]["way"].as_str();
                ensure!(way == expected, "{name}: {way:?} instead of {expected:?}: {found}");
                ensure!(found["store"]["answers"] == expected.is_some(), "{name}: {found}");
            }
            // Nobody leaves anything there: it is no relay.
            let status = alice.json(&["status"]).await?;
            let problem = status["problem"].as_str();
            ensure!(problem.is_none() == expected.is_some(), "{name}: {problem:?}");
            for mut agent in agents {
                agent.member.stop().await?;
            }
        }
        Ok(())
    })
}

/// From now on it runs on this host.
fn at_home(agent: &mut Agent, host: &HomeHost) -> Result<()> {
    agent.member.through = host.through();
    let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), host.port);
    agent.configure(&json!({ "quic": { "listen": listen }, "network": { "mdns": false } }))
}

/// Waits until the store is registered, and has a session with its helper if there is one.
async fn wait_until_there(agent: &Agent, has_helper: bool) -> Result<()> {
    wait_for(&format!("{} to be registered", agent.mailbox), async || {
        let status = agent.json(&["status"]).await?;
        let is_connected = status.pointer("/relays/0/connected") == Some(&Value::Bool(true));
        Ok((status["registered"] == true && is_connected == has_helper).then_some(()))
    })
    .await
}

fn one(all: Vec<HomeHost>) -> Result<[HomeHost; 1]> {
    all.try_into().ok().context("one")
}
