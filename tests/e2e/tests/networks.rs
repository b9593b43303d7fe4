//! Agents in home networks, each behind a router of one kind: which pair reaches each other in which way. The table in
//! docs/NETWORKS.md is what this test finds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lighter_harness::homes::{Internet, PUBLIC, Router};
use lighter_harness::watch::wait_for_receipts;
use lighter_harness::world::Options;
use lighter_harness::{Agent, World, isolated};
use serde_json::Value;

/// The rows and columns of the table.
const KINDS: [(&str, Router); 7] = [
    ("public address", Router::None),
    ("full cone", Router::FullCone),
    ("address-restricted", Router::AddressRestricted),
    ("port-restricted", Router::PortRestricted),
    ("symmetric", Router::Symmetric),
    ("two routers", Router::Double),
    ("no UDP", Router::UdpBlocked),
];
/// Where nothing works, that is known before long.
const NOT_REACHED_MAX: Duration = Duration::from_secs(9);
/// What goes through holes.
const SIZE: usize = 8 * 1024 * 1024;

// SPEC: A5, A6, A23
#[test]
fn which_pair_of_networks_uses_which_way_is_as_the_table_says() -> Result<()> {
    isolated::run("which_pair_of_networks_uses_which_way_is_as_the_table_says", async || {
        let mut internet = Internet::new().await?;
        let world = World::start_with(&Options { address: PUBLIC, ..Options::default() }).await?;
        let (mut senders, mut recipients) = (Vec::new(), Vec::new());
        for (number, (_, router)) in KINDS.iter().enumerate() {
            for (role, agents) in [("sender", &mut senders), ("recipient", &mut recipients)] {
                let [host] = internet.home(*router, 1).await?.try_into().ok().context("one host")?;
                agents.push(world.agent_at_home(&format!("{role}-{number}"), &host, false).await?);
            }
        }
        for agent in senders.iter_mut().chain(&mut recipients) {
            agent.member.start().await?;
        }
        for agent in senders.iter().chain(&recipients) {
            wait_until_registered(agent).await?;
        }
        let began = Instant::now();
        let (senders, recipients) = (shared(senders), shared(recipients));
        let rows = look_for_each_other(&senders, &recipients).await?;
        println!("{} pairs in {:.1?}", KINDS.len() * KINDS.len(), began.elapsed());
        let table = table(&rows);
        let documented = documented()?;
        ensure!(documented == table, "docs/NETWORKS.md says\n{documented}\nand it is\n{table}");
        // Not only found: attachments go through.
        for (from, to) in [(3, 3), (1, 4), (4, 2), (5, 3)] {
            println!("{}", transfer(&world, &senders[from], &recipients[to]).await?);
        }
        Ok(())
    })
}

// SPEC: D6
#[test]
fn two_behind_the_same_router_find_each_other() -> Result<()> {
    isolated::run("two_behind_the_same_router_find_each_other", async || {
        let mut internet = Internet::new().await?;
        let world = World::start_with(&Options { address: PUBLIC, ..Options::default() }).await?;
        let homes = [
            (Router::PortRestricted, true, Some("lan")),
            (Router::Hairpin, false, Some("punched")),
            (Router::PortRestricted, false, None),
        ];
        for (number, (router, has_mdns, expected)) in homes.into_iter().enumerate() {
            let hosts = internet.home(router, 2).await?;
            let [mut from, mut to] = [
                world.agent_at_home(&format!("one-{number}"), &hosts[0], has_mdns).await?,
                world.agent_at_home(&format!("other-{number}"), &hosts[1], has_mdns).await?,
            ];
            for agent in [&mut from, &mut to] {
                agent.member.start().await?;
                wait_until_registered(agent).await?;
            }
            // The announcement takes the moment that it takes.
            let began = Instant::now();
            let found = loop {
                let found = from.json(&["lookup", &to.mailbox]).await?;
                let way = found["store"]["way"].as_str().map(ToOwned::to_owned);
                if way.as_deref() == expected || began.elapsed() > Duration::from_secs(20) {
                    break way;
                }
            };
            ensure!(
                found.as_deref() == expected,
                "{router:?}, {has_mdns}: {found:?} instead of {expected:?}"
            );
            if expected.is_some() {
                println!("{}", transfer(&world, &from, &to).await?);
            }
        }
        Ok(())
    })
}

// SPEC: D3, D6
#[test]
fn bad_input_32_a_transfer_goes_on_where_its_sender_is_killed_twice_and_gets_another_address() -> Result<()> {
    let name = "bad_input_32_a_transfer_goes_on_where_its_sender_is_killed_twice_and_gets_another_address";
    isolated::run(name, async || {
        let mut internet = Internet::new().await?;
        let world = World::start_with(&Options { address: PUBLIC, ..Options::default() }).await?;
        let [mut from_host] = one(internet.home(Router::PortRestricted, 1).await?)?;
        let [to_host] = one(internet.home(Router::PortRestricted, 1).await?)?;
        from_host.slow_down(SLOW_KBIT).await?;
        let mut from = world.agent_at_home("one", &from_host, false).await?;
        let mut to = world.agent_at_home("other", &to_host, false).await?;
        for agent in [&mut from, &mut to] {
            agent.member.start().await?;
            wait_until_registered(agent).await?;
        }
        // By the outbox, which goes on with it whoever is killed.
        let folder = from.member.data().join("outbox").join(&to.mailbox);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("large.bin"), contents(LARGE))?;
        let mut pulled = wait_for_more(&to, 0).await?;
        for trouble in [Trouble::Killed, Trouble::Killed, Trouble::SenderMoves] {
            match trouble {
                Trouble::Killed => {
                    from.member.kill().await?;
                    from.member.start().await?;
                }
                Trouble::SenderMoves => from_host.move_on().await?,
            }
            let began = Instant::now();
            let before = pulled;
            pulled = wait_for_more(&to, before).await?;
            println!("{trouble:?} at {before} bytes: went on after {:.1?}", began.elapsed());
            ensure!(began.elapsed() < GOES_ON_MAX, "{trouble:?}: {:?}", began.elapsed());
        }
        wait_for_receipts(&to, 1).await?;
        assert_from(&from, &to).await
    })
}

/// What befalls a transfer.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Killed,
    SenderMoves,
}

/// Bytes that take the line of [`SLOW_KBIT`] a quarter of a minute.
const LARGE: usize = 10 * 1024 * 1024;
const SLOW_KBIT: u32 = 6_000;
/// Until a transfer goes on: noticing, looking the store up, a hole, and what is under way then. QUIC alone would take
/// a minute.
const GOES_ON_MAX: Duration = Duration::from_secs(25);

fn one<T>(all: Vec<T>) -> Result<[T; 1]> {
    all.try_into().ok().context("one")
}

/// Waits until a delivery has clearly more than `before` bytes; gives how many. (What was not put on record yet is read
/// from the disk again where a pull begins anew, and shows as nothing until then.)
async fn wait_for_more(to: &Agent, before: u64) -> Result<u64> {
    let began = Instant::now();
    loop {
        let list = to.json(&["list"]).await?;
        let all = list["deliveries"].as_array().cloned().unwrap_or_default();
        let delivery = all.into_iter().max_by_key(|one| one["bytes_verified"].as_u64()).unwrap_or_default();
        let pulled = delivery["bytes_verified"].as_u64().unwrap_or(0);
        if pulled >= before + 1024 * 1024 {
            return Ok(pulled);
        }
        ensure!(began.elapsed() < Duration::from_secs(90), "{delivery}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Each sender looks for each recipient; the senders side by side.
async fn look_for_each_other(senders: &[Arc<Agent>], recipients: &[Arc<Agent>]) -> Result<Vec<Vec<String>>> {
    let mut rows = tokio::task::JoinSet::new();
    for (index, sender) in senders.iter().enumerate() {
        let sender = Arc::clone(sender);
        let mailboxes: Vec<_> = recipients.iter().map(|recipient| recipient.mailbox.clone()).collect();
        rows.spawn(async move {
            let mut row = Vec::new();
            for mailbox in mailboxes {
                let began = Instant::now();
                let found = sender.json(&["lookup", &mailbox]).await?;
                let (store, took) = (&found["store"], began.elapsed());
                let cell = match store["way"].as_str() {
                    Some(way) => way.to_owned(),
                    None => {
                        ensure!(took < NOT_REACHED_MAX, "{mailbox}: known after {took:?} only: {found}");
                        let why = store["problem"].as_str().context("no reason")?;
                        ensure!(why.contains("cannot be reached"), "{why}");
                        "—".to_owned()
                    }
                };
                row.push(cell);
            }
            Ok::<_, anyhow::Error>((index, row))
        });
    }
    let mut done = Vec::new();
    while let Some(row) = rows.join_next().await {
        done.push(row??);
    }
    done.sort();
    Ok(done.into_iter().map(|(_, row)| row).collect())
}

fn shared(agents: Vec<Agent>) -> Vec<Arc<Agent>> {
    agents.into_iter().map(Arc::new).collect()
}

/// As it stands in the documentation.
fn table(rows: &[Vec<String>]) -> String {
    let heads: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
    let mut lines = vec![
        format!("| sender ↓ recipient → | {} |", heads.join(" | ")),
        format!("|{}", "---|".repeat(heads.len() + 1)),
    ];
    lines.extend(heads.iter().zip(rows).map(|(head, row)| format!("| {head} | {} |", row.join(" | "))));
    lines.join("\n")
}

fn documented() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/NETWORKS.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let from_table = text.lines().skip_while(|line| !line.starts_with("| sender ↓"));
    Ok(from_table.take_while(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n"))
}

/// An attachment goes to the recipient's store, which receipts it.
async fn transfer(world: &World, from: &Agent, to: &Agent) -> Result<String> {
    let path = world.folder().join("through-a-hole.bin");
    std::fs::write(&path, contents(SIZE))?;
    let path = path.to_str().context("a path")?;
    let began = Instant::now();
    let before = to.json(&["list"]).await?["deliveries"].as_array().map_or(0, Vec::len) as u64;
    let sent = from.try_command(&["send", "--to", &to.mailbox, "--subject", "hole", path]).await?;
    ensure!(sent.status.success(), "{sent:?}");
    wait_for_receipts(to, before + 1).await?;
    assert_from(from, to).await?;
    Ok(format!("{} to {}: {SIZE} bytes receipted in {:.1?}", from.mailbox, to.mailbox, began.elapsed()))
}

/// The last delivery came from the sender itself, not by the relay.
async fn assert_from(from: &Agent, to: &Agent) -> Result<()> {
    let (list, status) = (to.json(&["list"]).await?, from.json(&["status"]).await?);
    let delivery = list["deliveries"].as_array().and_then(|all| all.last()).context("no delivery")?;
    ensure!(delivery["from"] == status["peer"], "it came by the relay: {delivery}");
    Ok(())
}

/// Bytes that are not all the same.
fn contents(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

async fn wait_until_registered(agent: &Agent) -> Result<()> {
    let began = Instant::now();
    loop {
        let status: Value = agent.json(&["status"]).await?;
        if status["registered"] == true {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "{}: {status}", agent.mailbox);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
