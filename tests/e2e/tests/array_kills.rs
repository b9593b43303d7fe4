//! `kill -9` of the servers of a three-server array and of the relay between them, at random moments and over many
//! rounds, while mail comes in all the time. (`kills` does it to two servers and the agent, message by message.)

use std::time::Duration;

use anyhow::{Result, ensure};
use lighter_e2e::arrived::assert_delivered_once;
use lighter_e2e::load::{Load, send_until_taken};
use lighter_harness::World;
use lighter_harness::watch::{check_deep, wait_for, wait_until_healed};
use lighter_harness::world::Options;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Rounds: in each, something is killed under load and started again.
const ROUNDS: u64 = 24;
/// After how long, and how long it stays away: from nothing to longer than a write is waited for.
const KILL_AFTER_MS_MAX: u64 = 600;
const AWAY_MS_MAX: u64 = 1200;
/// Senders at once.
const SENDERS: u64 = 3;
/// Every so many rounds all servers are there again before the next kill; between, two may be away at once.
const REST_EVERY: u64 = 4;

// SPEC: B12, B14, C1, C5, C10; bad_input_32
#[tokio::test]
async fn bad_input_32_kill_9_of_three_servers_and_the_relay_under_load_loses_nothing_and_all_heals()
-> Result<()> {
    let seed = std::env::var("LIGHTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("replay with LIGHTER_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut world = World::start_with(&Options { storage_servers: 3, ..Options::default() }).await?;
    let mut alice = world.agent("alice").await?;
    alice.member.start().await?;
    let (smtp, mut sent) = (world.smtp()?, Vec::new());
    let load = Load::start(smtp, &alice.mailbox, SENDERS, 1);
    for round in 1..=ROUNDS {
        let victim = chance.random_range(0..5);
        let after = Duration::from_millis(chance.random_range(0..KILL_AFTER_MS_MAX));
        let away = Duration::from_millis(chance.random_range(0..AWAY_MS_MAX));
        tokio::time::sleep(after).await;
        match victim {
            // The relay alone, or with a server that it then has to do without when it starts.
            3 => world.relay.kill().await?,
            4 => {
                let server = chance.random_range(0..3);
                world.storage[server].kill().await?;
                world.relay.kill().await?;
                world.relay.start().await?;
                world.storage[server].start().await?;
            }
            server => world.storage[server].kill().await?,
        }
        tokio::time::sleep(away).await;
        let killed = world.storage.iter_mut().chain([&mut world.relay]).filter(|member| !member.is_started());
        for member in killed {
            member.start().await?;
        }
        if round % REST_EVERY == 0 {
            wait_for("all servers", async || {
                let status = world.relay_command(&["array", "status"]).await?;
                let is_away = status["to_do"].to_string().contains("is away");
                Ok((status["writable"] == true && !is_away).then_some(()))
            })
            .await?;
        }
    }
    sent.extend(load.stop().await);
    sent.push(send_until_taken(smtp, &alice.mailbox, 1).await?);
    let taken = sent.iter().filter(|sent| sent.code == Some(250)).count();
    println!("{taken} of {} were taken", sent.len());
    ensure!(taken as u64 > ROUNDS * SENDERS / 2, "hardly any was taken");
    assert_delivered_once(&world, &mut alice, &sent).await?;
    let status = wait_until_healed(&world).await?;
    ensure!(status["bad_copies"] == 0, "{status:#}");
    check_deep(&world).await
}
