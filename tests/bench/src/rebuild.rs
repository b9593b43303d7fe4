//! Making the copies of a lost storage server anew: from server to server over TLS, written, read whole and checked, synced;
//! beside a plain copy of as many bytes on the same disk, synced once.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lighter_storage::{Array, ArrayConfig, ArrayKey, Class, LocalServers, ServerConfig, ServerRecord};
use lighter_storage::{StorageServer, wall_clock};
use lighter_transport::Identity;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{MIB, Settings, amount};

/// Longer than this, and something is wrong.
const TIME_MAX: Duration = Duration::from_secs(600);

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let runtime = Runtime::new()?;
    let mib = settings.rebuild_mib;
    let sides = vec![
        Side::new(format!("rebuild {mib} MiB"), || {
            let folder = settings.temporary()?;
            runtime.block_on(rebuild(folder.path(), mib))
        }),
        Side::new("a plain copy, synced", || copy(settings.temporary()?.path(), mib)),
    ];
    let work = Work { amount: amount(mib), unit: "MiB/s" };
    compare(settings.rounds, work, sides, &[Pair { ours: 0, peer: 1, aim: Some(0.7) }])
}

/// Stores so much on two servers; loses one of them, with what it had; and times until it has its copies again.
async fn rebuild(folder: &Path, mib: u64) -> Result<Duration> {
    let (relay, key) = (Identity::generate(), ArrayKey::draw(&mut StdRng::seed_from_u64(1)));
    let identities = [Identity::generate(), Identity::generate()];
    let start = async |index: usize, listen| {
        StorageServer::start(ServerConfig {
            identity: identities[index].clone(),
            listen,
            units: vec![folder.join(format!("server-{index}")).join("unit")],
            writers: vec![relay.peer()],
            clock: wall_clock(),
            scrub_days: lighter_storage::limits::SCRUB_DAYS_DEFAULT,
            depot: None,
            local: LocalServers::default(),
        })
        .await
    };
    let any = ([127, 0, 0, 1], 0).into();
    let (first, second) = (start(0, any).await?, start(1, any).await?);
    let records =
        [&first, &second].map(|server| ServerRecord { peer: server.peer(), address: server.address() });
    let config = ArrayConfig {
        heal_rate: None,
        heal_interval: Duration::from_millis(20),
        ..ArrayConfig::new(records.to_vec())
    };
    let array = Array::open(config.clone(), &relay, key.clone(), wall_clock()).await?;
    let mut blob = array.create_blob(Class::Days30);
    let mut piece = vec![0; usize::try_from(MIB)?];
    StdRng::seed_from_u64(2).fill_bytes(&mut piece);
    for _ in 0..mib {
        blob.write(&piece).await?;
    }
    blob.finish().await?.durable().await?;
    array.close().await;
    // Opened once more, everything is sealed.
    let array = Array::open(config.clone(), &relay, key.clone(), wall_clock()).await?;
    until(|| array.status().unsealed == 0).await?;
    array.close().await;

    let address = second.address();
    second.stop().await;
    std::fs::remove_dir_all(folder.join("server-1"))?;
    let second = start(1, address).await?;
    let began = Instant::now();
    let array = Array::open(config, &relay, key, wall_clock()).await?;
    until(|| {
        array
            .segments()
            .iter()
            .all(|segment| segment.copies.iter().filter(|copy| copy.whole && copy.sealed).count() == 2)
    })
    .await?;
    let time = began.elapsed();
    ensure!(array.status().heal.bytes_made >= mib * MIB, "not all of it was copied");
    array.close().await;
    first.stop().await;
    second.stop().await;
    Ok(time)
}

async fn until(mut is_so: impl FnMut() -> bool) -> Result<()> {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIME_MAX, waiting).await.context("it does not come to an end")
}

/// Copies a file of so many MiB, which is in the system's cache as what was just stored is.
fn copy(folder: &Path, mib: u64) -> Result<Duration> {
    let (from, to) = (folder.join("from"), folder.join("to"));
    let mut piece = vec![0; usize::try_from(8 * MIB)?];
    StdRng::seed_from_u64(2).fill_bytes(&mut piece);
    let mut file = File::create(&from)?;
    for _ in 0..mib {
        file.write_all(&piece[..usize::try_from(MIB)?])?;
    }
    file.sync_all()?;
    let began = Instant::now();
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            break;
        }
        to.write_all(&piece[..read])?;
    }
    to.sync_all()?;
    Ok(began.elapsed())
}
