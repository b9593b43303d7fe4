//! Home routers that map a port to a store that asks for one: by PCP, NAT-PMP or UPnP, of a real daemon. What no hole
//! leads through is reached directly then.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lighter_harness::homes::{HomeHost, Internet, PORT, PUBLIC, Router};
use lighter_harness::peers::{Answers, Miniupnpd};
use lighter_harness::watch::{wait_for, wait_for_receipts};
use lighter_harness::world::Options;
use lighter_harness::{Agent, World, isolated};

// SPEC: A12, D6
#[test]
fn a_store_whose_router_maps_a_port_is_reached_directly_from_where_no_hole_leads_to_it() -> Result<()> {
    let name = "a_store_whose_router_maps_a_port_is_reached_directly_from_where_no_hole_leads_to_it";
    isolated::run(name, async || {
        let mut internet = Internet::new().await?;
        let world = World::start_with(&Options { address: PUBLIC, ..Options::default() }).await?;
        // Behind a symmetric router nobody can open a hole to a port-restricted one.
        let [away] = hosts(internet.home(Router::Symmetric, 1).await?)?;
        let mut sender = world.agent_at_home("sender", &away, false).await?;
        sender.member.start().await?;
        let file = world.folder().join("plan.bin");
        std::fs::write(&file, vec![7; 3 * 1024 * 1024])?;
        let file = file.to_str().context("a path")?;
        for (answers, by) in [(Answers::Pcp, "pcp"), (Answers::NatPmp, "nat-pmp"), (Answers::Upnp, "upnp")] {
            // Two stores in one home that listen on the same port.
            let [one, mut other] = hosts(internet.home(Router::PortMapping, 2).await?)?;
            other.port = PORT;
            if answers == Answers::NatPmp {
                one.without_pcp().await?;
            }
            let router = Miniupnpd::start(&world.folder().join(by), &one.on_router(), answers).await?;
            let mut mapped = BTreeSet::new();
            let mut stores = Vec::new();
            for (name, host) in [(format!("one-{by}"), &one), (format!("other-{by}"), &other)] {
                let mut store = world.agent_at_home(&name, host, false).await?;
                store.member.start().await?;
                let address = wait_for_port(&store, by).await?;
                ensure!(address.starts_with(&format!("{}:", one.outside())), "{by}: {address}");
                mapped.insert(address.clone());
                wait_until_found(&sender, &store, &address).await?;
                let sent =
                    sender.try_command(&["send", "--to", &store.mailbox, "--subject", by, file]).await?;
                ensure!(sent.status.success(), "{sent:?}");
                wait_for_receipts(&store, 1).await?;
                stores.push(store);
            }
            ensure!(mapped.len() == 2, "{by}: both have {mapped:?}");
            // Killed and started again, it has the port that it had.
            stores[1].member.kill().await?;
            stores[1].member.start().await?;
            let again = wait_for_port(&stores[1], by).await?;
            ensure!(mapped.contains(&again), "{by}: {again} instead of one of {mapped:?}");
            // Stopped, they give the ports back.
            ensure!(ports_of(&one).await? == 2, "{by}: {} ports", ports_of(&one).await?);
            for store in &mut stores {
                store.member.stop().await?;
            }
            ensure!(ports_of(&one).await? == 0, "{by}: still mapped: {}", ports_of(&one).await?);
            drop(router);
        }
        Ok(())
    })
}

#[test]
fn a_port_of_a_router_that_is_itself_behind_another_is_not_told_of_and_the_user_learns_why() -> Result<()> {
    let name = "a_port_of_a_router_that_is_itself_behind_another_is_not_told_of_and_the_user_learns_why";
    isolated::run(name, async || {
        let mut internet = Internet::new().await?;
        let world = World::start_with(&Options { address: PUBLIC, ..Options::default() }).await?;
        for (answers, router) in [
            (Some(Answers::Pcp), Router::DoublePortMapping),
            (Some(Answers::Upnp), Router::DoublePortMapping),
            (None, Router::PortRestricted),
        ] {
            let [host] = hosts(internet.home(router, 1).await?)?;
            let name = format!("store-{answers:?}").to_lowercase().replace(['(', ')'], "");
            let folder = world.folder().join(format!("router-{name}"));
            let _router = match answers {
                Some(answers) => Some(Miniupnpd::start(&folder, &host.on_router(), answers).await?),
                None => None,
            };
            let mut store = world.agent_at_home(&name, &host, false).await?;
            store.member.start().await?;
            let problem = wait_for(&format!("{name}: why no port is mapped"), async || {
                let status = store.json(&["status"]).await?;
                let problem = status["port_mapping"]["problem"].as_str().map(ToOwned::to_owned);
                Ok(problem.filter(|_| status["registered"] == true))
            })
            .await?;
            println!("{name}: {problem}");
            let status = store.json(&["status"]).await?;
            ensure!(status["port_mapping"]["address"].is_null(), "{status}");
            let table = String::from_utf8(store.command(&["status"]).await?)?;
            ensure!(table.contains("no port mapped: "), "{table}");
            store.member.stop().await?;
        }
        Ok(())
    })
}

/// Waits until the store says that its router maps a port to it; gives the address outside.
async fn wait_for_port(store: &Agent, by: &str) -> Result<String> {
    wait_for(&format!("{}: a port mapped by {by}", store.mailbox), async || {
        let status = store.json(&["status"]).await?;
        let mapping = &status["port_mapping"];
        ensure!(mapping["problem"].is_null(), "{by}: {mapping}");
        let address = mapping["address"].as_str().filter(|_| mapping["by"] == by);
        Ok(address.map(ToOwned::to_owned))
    })
    .await
}

/// Waits until the sender learns of the address, and reaches the store there.
async fn wait_until_found(sender: &Agent, store: &Agent, address: &str) -> Result<()> {
    wait_for(&format!("{} reached directly", store.mailbox), async || {
        let found = sender.json(&["lookup", &store.mailbox]).await?;
        let is_known =
            found["store"]["addresses"].as_array().is_some_and(|all| all.contains(&address.into()));
        // Its registration is known a moment before its presence is.
        let way = found["store"]["way"].as_str().filter(|_| is_known);
        ensure!(way.is_none_or(|way| way == "direct"), "{found}");
        Ok(way.map(|_| ()))
    })
    .await
}

/// How many ports the router of this host maps.
async fn ports_of(host: &HomeHost) -> Result<usize> {
    let rules = host.rules_of("inet", Miniupnpd::TABLE, Miniupnpd::CHAIN).await?;
    Ok(rules.lines().filter(|line| line.contains("dnat")).count())
}

fn hosts<const N: usize>(all: Vec<HomeHost>) -> Result<[HomeHost; N]> {
    all.try_into().ok().context("hosts")
}
