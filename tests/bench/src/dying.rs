//! A pull from two sources of which one dies half way, without a word, beside the same pull from the one that lives; and beside
//! sendme from a provider that lives, since a receiver of sendme's has one provider, and ends with it.
//!
//! Two relays have the blob; the one that lives offers it and names the other. When half of it is on disk, the other's process is
//! killed. What it had sent is kept; what it was asked for and had not sent, the first one brings.

use std::cell::Cell;

use anyhow::Result;

use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::pull::here;
use crate::pull::process::HoldingProcess;
use crate::pull::sendme::Sendme;
use crate::settings::{MIB, Settings, amount};

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let (folder, mib) = (settings.temporary()?, settings.dying_mib);
    let (plan, files) = (here(1, mib * MIB), folder.path().join("files"));
    let mut alone = HoldingProcess::start(&plan, &folder.path().join("alone"), Some(files.clone()))?;
    let mut first = HoldingProcess::start(&plan, &folder.path().join("first"), None)?;
    let sendme = Sendme::start(&[], folder.path(), &files.join("0.bin"))?;
    // Of all rounds.
    let (brought, kept) = (Cell::new(0), Cell::new(0));
    let mut sides = vec![
        Side::costed(format!("agent: {mib} MiB from two sources, one dies half way"), || {
            let second = settings.temporary()?;
            let dies = HoldingProcess::start(&plan, second.path(), None)?;
            let died = first.pull_while_dies(dies, &plan, settings)?;
            brought.set(brought.get() + died.brought);
            kept.set(kept.get() + died.kept);
            Ok((died.time, died.cost))
        }),
        Side::costed("the same from one source that lives", || alone.pull(&plan, &settings.temporary()?)),
    ];
    let mut pairs = vec![Pair { ours: 0, peer: 1, aim: None }];
    if let Some(sendme) = &sendme {
        sides.push(Side::costed("sendme, whose one provider lives", || {
            sendme.receive(&[], &settings.temporary()?, mib * MIB)
        }));
        pairs.push(Pair { ours: 0, peer: 2, aim: None });
    }
    let work = Work { amount: amount(mib), unit: "MiB/s" };
    let mut comparisons = compare(settings.rounds, work, sides, &pairs)?;
    comparisons.push(once(brought.get(), kept.get()));
    Ok(comparisons)
}

/// Bytes on disk beside those that were brought: less than one would say that some came twice.
fn once(brought: u64, kept: u64) -> Comparison {
    let (ours, peer) = (amount(kept) / amount(MIB), amount(brought) / amount(MIB));
    let ratio = ours / peer;
    Comparison {
        name: "dying: kept · brought and verified, at the last look".to_owned(),
        ours,
        peer,
        unit: "MiB",
        ratio,
        aim: Some(1.0),
        met: Some(ratio >= 1.0),
        our_cost: None,
        peer_cost: None,
    }
}
