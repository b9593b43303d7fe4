//! Look-ups a second at the location server, with an API token, over kept-alive HTTP connections: one by one, and 1,000 at
//! once; beside a bare axum handler that returns the same bytes, asked by the same client.

pub(crate) mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;

use crate::http_client::{self, Requests};
use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{Settings, amount};
use server::{Bare, Running};

/// Names in one request for many: as many as the API takes.
const BATCH: usize = lighter_transport::location::limits::LOOKUP_NAMES_MAX;
/// Different requests for many that each connection repeats.
const BATCHES_PER_CONNECTION: usize = 8;

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let (serving, asking) = (Runtime::new()?, Runtime::new()?);
    let ours = serving.block_on(Running::location(settings.stores))?;
    let mut chance = StdRng::seed_from_u64(1);
    let stores = settings.stores;
    let mut name = move || server::mailbox(chance.random_range(0..stores));

    let one = |name: &str| ours.request("GET", &format!("/v1/stores/{name}"), "");
    let many = |names: &[String]| {
        let body = serde_json::json!({ "mailboxes": names }).to_string();
        ours.request("POST", "/v1/lookup", &body)
    };
    let singles: Vec<Vec<u8>> = (0..10_000).map(|_| one(&name())).collect();
    let batches: Vec<Vec<u8>> = (0..settings.connections * BATCHES_PER_CONNECTION)
        .map(|_| many(&(0..BATCH).map(|_| name()).collect::<Vec<_>>()))
        .collect();

    // What the peer returns is what ours returned.
    let answer = |request: &Vec<u8>| asking.block_on(http_client::ask_once(ours.address, request));
    let bare = Bare { one: answer(&singles[0])?, many: answer(&batches[0])? };
    let peer = serving.block_on(Running::bare(bare))?;

    let ask = |address, requests: &Requests| -> Result<Duration> { asking.block_on(requests.ask(address)) };
    let requests = |requests: Vec<Vec<u8>>, total: u32| Requests {
        requests: Arc::new(requests),
        connections: settings.connections,
        total,
    };
    let single = requests(singles, settings.lookups);
    let batch = requests(batches, settings.batches);
    let work = |amount| Work { amount, unit: "names/s" };

    let (count, stores) = (settings.connections, settings.stores);
    let sides = vec![
        Side::new(format!("lookups, {count} connections, {stores} stores"), || ask(ours.address, &single)),
        Side::new("a bare axum handler", || ask(peer.address, &single)),
    ];
    let pairs = [Pair { ours: 0, peer: 1, aim: Some(0.5) }];
    let mut comparisons = compare(settings.rounds, work(amount(settings.lookups.into())), sides, &pairs)?;
    let sides = vec![
        Side::new(format!("lookups, {BATCH} at once, {count} connections"), || ask(ours.address, &batch)),
        Side::new("a bare axum handler", || ask(peer.address, &batch)),
    ];
    let pairs = [Pair { ours: 0, peer: 1, aim: None }];
    let names = u64::from(settings.batches) * BATCH as u64;
    comparisons.extend(compare(settings.rounds, work(amount(names)), sides, &pairs)?);
    Ok(comparisons)
}
