//! Several sides in turn, the median of each, and the ratios between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cost::Cost;

/// One way to do the work: ours, or a peer's.
pub(crate) struct Side<'a> {
    name: String,
    run: Box<dyn FnMut() -> Result<(Duration, Option<Cost>)> + 'a>,
}

impl<'a> Side<'a> {
    /// A side that says itself how long its work took: what it prepares and clears away does not count.
    pub(crate) fn new(name: impl Into<String>, mut run: impl FnMut() -> Result<Duration> + 'a) -> Self {
        Self { name: name.into(), run: Box::new(move || Ok((run()?, None))) }
    }

    /// The same, of work whose cost is known.
    pub(crate) fn costed(
        name: impl Into<String>,
        mut run: impl FnMut() -> Result<(Duration, Cost)> + 'a,
    ) -> Self {
        let run = move || run().map(|(time, cost)| (time, Some(cost)));
        Self { name: name.into(), run: Box::new(run) }
    }

    /// A side all of which is work.
    pub(crate) fn timed(name: impl Into<String>, mut work: impl FnMut() -> Result<()> + 'a) -> Self {
        Self::new(name, move || {
            let began = Instant::now();
            work()?;
            Ok(began.elapsed())
        })
    }
}

/// Which sides are compared, by their index, and the ratio that is aimed at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: usize,
    pub(crate) peer: usize,
    /// None: the design names none.
    pub(crate) aim: Option<f64>,
}

/// What each side does in one round: so much, in these units a second when divided by its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) amount: f64,
    pub(crate) unit: &'static str,
}

/// One benchmark beside its peer; both figures are rates: more is better.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// What was measured, and beside whom.
    pub(crate) name: String,
    /// Our rate, the median of the rounds.
    pub(crate) ours: f64,
    /// The peer's.
    pub(crate) peer: f64,
    /// Of both rates.
    pub(crate) unit: &'static str,
    /// The median of the rounds' own ratios, ours over the peer's.
    pub(crate) ratio: f64,
    /// What it should be at least (DESIGN §11), where that is said.
    pub(crate) aim: Option<f64>,
    /// Whether it is.
    pub(crate) met: Option<bool>,
    /// What a round of ours cost, where that was looked at: the median of each figure.
    pub(crate) our_cost: Option<Cost>,
    /// What a round of the peer's did.
    pub(crate) peer_cost: Option<Cost>,
}

/// Runs all sides in turn, round after round, and compares those of `pairs`.
pub(crate) fn compare(
    rounds: u32,
    work: Work,
    mut sides: Vec<Side<'_>>,
    pairs: &[Pair],
) -> Result<Vec<Comparison>> {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); sides.len()];
    // The first round warms caches, files and the processor, and does not count.
    for round in 0..=rounds {
        for ((side, rates), costs) in sides.iter_mut().zip(&mut rates).zip(&mut costs) {
            let (time, cost) = (side.run)().with_context(|| side.name.clone())?;
            if round > 0 {
                rates.push(work.amount / time.as_secs_f64());
                costs.extend(cost);
            }
        }
    }
    let compared = pairs.iter().map(|&Pair { ours, peer, aim }| {
        let ratio = median(rates[ours].iter().zip(&rates[peer]).map(|(ours, peer)| ours / peer));
        Comparison {
            name: format!("{} · {}", sides[ours].name, sides[peer].name),
            ours: median(rates[ours].iter().copied()),
            peer: median(rates[peer].iter().copied()),
            unit: work.unit,
            ratio,
            aim,
            met: aim.map(|aim| ratio >= aim),
            our_cost: median_cost(&costs[ours]),
            peer_cost: median_cost(&costs[peer]),
        }
    });
    Ok(compared.collect())
}

fn median_cost(costs: &[Cost]) -> Option<Cost> {
    let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure));
    (!costs.is_empty()).then(|| Cost { cpu_s: of(|cost| cost.cpu_s), peak_mib: of(|cost| cost.peak_mib) })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// The comparisons as a table for people.
pub(crate) fn table(comparisons: &[Comparison]) -> String {
    let width = comparisons.iter().map(|comparison| comparison.name.chars().count()).max().unwrap_or(0);
    let (ours, peer, ratio, aim) = ("ours", "peer", "ratio", "aim");
    let cost = |cost: &Option<Cost>| {
        cost.map_or_else(
            || "-".to_owned(),
            |Cost { cpu_s, peak_mib }| format!("{cpu_s:.2} s {peak_mib:.0} MiB"),
        )
    };
    let mut text = format!(
        "{:<width$} {ours:>10} {peer:>10} {:<9} {ratio:>6} {aim:>6}  met  {:<18} {}",
        "", "", "our cost", "peer's cost"
    );
    for comparison in comparisons {
        let Comparison { name, ours, peer, unit, ratio, aim, met, our_cost, peer_cost } = comparison;
        let aim = aim.map_or_else(|| "-".to_owned(), |aim| format!("{aim:.2}"));
        let met = met.map_or("-", |met| if met { "yes" } else { "NO" });
        text.push_str(&format!(
            "\n{name:<width$} {:>10} {:>10} {unit:<9} {ratio:>6.2} {aim:>6}  {met:<3}  {:<18} {}",
            rate(*ours),
            rate(*peer),
            cost(our_cost),
            cost(peer_cost)
        ));
    }
    text
}

/// Small rates with a digit more.
fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios_and_the_first_round_does_not_count() {
        let side = |times: &'static [u64]| {
            let mut times = times.iter();
            Side::new("side", move || Ok(Duration::from_secs(*times.next().context("too many rounds")?)))
        };
        // Rates 1, 2, 4 and 2, 2, 2: the ratios are ½, 1 and 2.
        let sides = vec![side(&[1000, 8, 4, 2]), side(&[1, 4, 4, 4])];
        let pairs = [(0, 1, Some(0.9)), (0, 1, Some(1.1)), (1, 0, None)];
        let pairs = pairs.map(|(ours, peer, aim)| Pair { ours, peer, aim });
        let compared = compare(3, Work { amount: 8.0, unit: "/s" }, sides, &pairs).unwrap();
        assert_eq!((compared[0].ours, compared[0].peer, compared[0].ratio), (2.0, 2.0, 1.0));
        let met: Vec<_> = compared.iter().map(|comparison| comparison.met).collect();
        assert_eq!(met, [Some(true), Some(false), None]);
    }
}
