//! Attachments over HTTP by ticket, from an array of two storage servers, beside nginx sending a file of that size.

mod nginx;
mod relay;

use std::sync::Arc;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use crate::http_client::{self, Requests};
use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{MIB, Settings, amount};
use nginx::Nginx;
use relay::{Relay, Servers};

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let folder = settings.temporary()?;
    let Some(nginx) = Nginx::start(folder.path())? else { return Ok(Vec::new()) };
    let (serving, asking) = (Runtime::new()?, Runtime::new()?);
    let inside = serving.block_on(Relay::start(&folder.path().join("inside"), Servers::Inside))?;
    let elsewhere = serving.block_on(Relay::start(&folder.path().join("elsewhere"), Servers::Elsewhere))?;
    let mut comparisons = Vec::new();
    for kib in &settings.ticket_kib {
        let mut file = vec![0; usize::try_from(kib * 1024)?];
        StdRng::seed_from_u64(*kib).fill_bytes(&mut file);
        let peer = nginx.put(&format!("{kib}.bin"), &file)?;
        let ours = serving.block_on(inside.put(&file))?;
        let over_tls = serving.block_on(elsewhere.put(&file))?;
        for (address, request) in
            [(inside.address, &ours), (elsewhere.address, &over_tls), (nginx.address, &peer)]
        {
            let got = asking.block_on(http_client::ask_once(address, request))?;
            ensure!(got == file, "other bytes than were put there");
        }
        let total = u32::try_from((settings.downloads_mib * 1024).div_ceil(*kib))?;
        let requests = |request: Vec<u8>| Requests {
            requests: Arc::new(vec![request]),
            connections: settings.connections,
            total,
        };
        let (ours, over_tls, peer) = (requests(ours), requests(over_tls), requests(peer));
        let bytes = u64::from(total) * kib * 1024;
        let work = Work { amount: amount(bytes) / amount(MIB), unit: "MiB/s" };
        let sides = vec![
            Side::new(format!("tickets, {kib} KiB, {} connections", settings.connections), || {
                asking.block_on(ours.ask(inside.address))
            }),
            Side::new(format!("tickets, {kib} KiB, storage servers elsewhere"), || {
                asking.block_on(over_tls.ask(elsewhere.address))
            }),
            Side::new("nginx", || asking.block_on(peer.ask(nginx.address))),
        ];
        comparisons.extend(compare(
            settings.rounds,
            work,
            sides,
            &[Pair { ours: 0, peer: 2, aim: Some(0.3) }, Pair { ours: 1, peer: 2, aim: Some(0.3) }],
        )?);
    }
    serving.block_on(inside.stop());
    serving.block_on(elsewhere.stop());
    Ok(comparisons)
}
