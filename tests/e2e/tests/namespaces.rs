//! Three storage servers as hosts of their own, in network namespaces, while mail comes in: one after the other is cut
//! off (its packets vanish, nothing is refused), slowed down, unplugged and killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::load::{Load, assert_all_taken};
use lighter_harness::network::{Host, Network};
use lighter_harness::watch::{check_deep, wait_until_healed};
use lighter_harness::world::{Options, StorageOptions};
use lighter_harness::{World, isolated};
use serde_json::Value;

/// What befalls a server.
#[derive(Clone, Copy, Debug)]
enum Fate {
    CutOff,
    Unplugged,
    /// A line that carries far less than the load.
    Slowed,
    Killed,
}

/// What happens, one after the other, each to another server than before.
const FATES: [Fate; 6] =
    [Fate::CutOff, Fate::Killed, Fate::Slowed, Fate::Unplugged, Fate::CutOff, Fate::Slowed];
/// At this rate an attachment takes half a minute.
const SLOW_KBIT: u32 = 400;
/// Senders at once.
const SENDERS: u64 = 4;
/// Messages that come in while a server is as it is: so many that most are begun after it happened.
const MESSAGES_DURING: u64 = 3 * SENDERS;
/// A sender waits at most this long for its `250`, also on a busy machine: far below any mail server's patience. A
/// server that no healthy one can take the place of has 10 s.
const DELAY_MAX: Duration = Duration::from_secs(60);

// SPEC: C5, B12, B14, B15, C9
#[test]
fn hosts_that_are_cut_off_slowed_unplugged_and_killed_under_load_cost_no_message() -> Result<()> {
    isolated::run(
        "hosts_that_are_cut_off_slowed_unplugged_and_killed_under_load_cost_no_message",
        async || {
            let network = Network::new(3).await?;
            let on_host = |host: &Host| StorageOptions {
                listen: host.address(),
                through: host.through(),
                ..StorageOptions::default()
            };
            let storage = network.hosts.iter().map(on_host).collect();
            let mut world =
                World::start_with(&Options { storage_servers: 3, storage, ..Options::default() }).await?;
            let mut alice = world.agent("alice").await?;
            let mut sent = Vec::new();
            for (round, fate) in (0..).zip(FATES) {
                let load = Load::start(world.smtp()?, &alice.mailbox, SENDERS, round);
                load.wait_for_replies(SENDERS).await?;
                let status = world.relay_command(&["array", "status"]).await?;
                let victim = victim(&status, &network, usize::try_from(round)?)?;
                let host = &network.hosts[victim];
                match fate {
                    Fate::CutOff => host.cut_off().await?,
                    Fate::Unplugged => host.unplug().await?,
                    Fate::Slowed => host.slow_down(SLOW_KBIT).await?,
                    Fate::Killed => world.storage[victim].kill().await?,
                }
                load.wait_for_replies(SENDERS + MESSAGES_DURING).await?;
                host.mend().await?;
                if !world.storage[victim].is_started() {
                    world.storage[victim].start().await?;
                }
                let during = load.stop().await;
                let slowest = assert_all_taken(&during, DELAY_MAX)?;
                println!(
                    "{}: {fate:?}: {} taken, the slowest in {slowest:.1?}",
                    host.address(),
                    during.len()
                );
                sent.extend(during);
                wait_until_healed(&world).await?;
            }
            let status = world.relay_command(&["array", "status"]).await?;
            let gone_on = status["segments_gone_on"].as_u64().context("no segments_gone_on")?;
            println!("{gone_on} segments were closed and gone on with elsewhere");
            ensure!(gone_on >= FATES.len() as u64 / 2, "hardly anything happened: {status:#}");
            assert_delivered_once(&world, &mut alice, &sent).await?;
            check_deep(&world).await
        },
    )
}

/// Who is next: a server that did not fail of late, and so is written to; each gets its turn.
fn victim(status: &Value, network: &Network, round: usize) -> Result<usize> {
    let servers = status["servers"].as_array().context("no servers")?;
    let is_written_to = |index: &usize| {
        let prefix = format!("{}:", network.hosts[*index].address());
        let is_it = |server: &&Value| server["address"].as_str().is_some_and(|at| at.starts_with(&prefix));
        servers.iter().find(is_it).is_some_and(|server| server["quarantined"] == false)
    };
    let hosts = network.hosts.len();
    let in_turn = || (0..hosts).map(|step| (round + step) % hosts);
    in_turn().find(is_written_to).or_else(|| in_turn().next()).context("no hosts")
}
