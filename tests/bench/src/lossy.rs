//! Over lines that lose packets: the agent from the offer until the receipt, beside sendme over the same line, and beside what the
//! line carries.
//!
//! Both sides are hosts of [`JoinedHosts`]: nothing but the line is between them, and whatever is sent takes it.

use std::time::Duration;

use anyhow::Result;
use lighter_harness::line::{JoinedHosts, Line};

use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::pull::process::{HoldingProcess, Plan};
use crate::pull::sendme::Sendme;
use crate::settings::{MIB, Settings, amount};

/// What is drawn for the packets is drawn from this.
const SEED: u64 = 7;
/// Bytes a second of each line: 100 Mbit/s.
const RATE: u64 = 12_500_000;

/// A bad line, and what is aimed at on it.
struct Bad {
    name: &'static str,
    loss: f64,
    round_trip: Duration,
    of_the_line: Option<f64>,
    of_sendme: Option<f64>,
}

const LINES: [Bad; 2] = [
    Bad {
        name: "0.1% loss, 100 ms",
        loss: 0.001,
        round_trip: Duration::from_millis(100),
        of_the_line: Some(0.7),
        of_sendme: Some(5.0),
    },
    Bad {
        name: "2% loss, 20 ms",
        loss: 0.02,
        round_trip: Duration::from_millis(20),
        of_the_line: None,
        of_sendme: None,
    },
];

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for bad in &LINES {
        let line = Line {
            loss: bad.loss,
            delay: bad.round_trip / 2,
            rate: Some(RATE),
            packet_len_max: 1_500,
            ..Line::default()
        };
        match JoinedHosts::start(line, SEED) {
            Ok(joined) => comparisons.extend(on_line(settings, bad, &joined)?),
            Err(reason) => {
                eprintln!("bad lines are left out: {reason:#}");
                break;
            }
        }
    }
    Ok(comparisons)
}

fn on_line(settings: &Settings, bad: &Bad, joined: &JoinedHosts) -> Result<Vec<Comparison>> {
    let (folder, size) = (settings.temporary()?, settings.lossy_mib * MIB);
    let through = joined.hosts.each_ref().map(|host| host.through());
    let addresses = joined.hosts.each_ref().map(|host| host.address());
    let plan = Plan { through: [&through[0], &through[1]], addresses, count: 1, size };
    let files = folder.path().join("files");
    let mut holder = HoldingProcess::start(&plan, folder.path(), Some(files.clone()))?;
    let sendme = Sendme::start(&through[0], folder.path(), &files.join("0.bin"))?;

    let the_line = Duration::from_nanos(size * 1_000_000_000 / RATE);
    let mut sides = vec![
        Side::costed(format!("agent: {} MiB, 100 Mbit/s, {}", settings.lossy_mib, bad.name), || {
            holder.pull(&plan, &settings.temporary()?)
        }),
        Side::new("the line", || Ok(the_line)),
    ];
    let mut pairs = vec![Pair { ours: 0, peer: 1, aim: bad.of_the_line }];
    if let Some(sendme) = &sendme {
        sides.push(Side::costed("sendme", || sendme.receive(&through[1], &settings.temporary()?, size)));
        pairs.push(Pair { ours: 0, peer: 2, aim: bad.of_sendme });
    }
    compare(settings.rounds, Work { amount: amount(settings.lossy_mib), unit: "MiB/s" }, sides, &pairs)
}
