//! Two sides in turn, the median of each, and their ratio.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

/// How thorough a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Rounds that count, after one that does not.
    pub(crate) rounds: u32,
}

/// One benchmark beside its peer; both figures are rates: more is better.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// What was measured, and beside whom.
    name: String,
    /// Our rate, the median of the rounds.
    ours: f64,
    /// The peer's.
    peer: f64,
    /// Of both rates.
    unit: &'static str,
    /// The median of the rounds' own ratios, ours over the peer's.
    ratio: f64,
    /// What it should be at least (DESIGN §11).
    aim: f64,
    /// Whether it is.
    met: bool,
}

/// Runs `ours` and `peer` in turn. Each does the same amount of `work`, in `unit`s a second when divided by its time.
pub(crate) fn compare(
    name: impl Into<String>,
    settings: &Settings,
    (work, unit): (f64, &'static str),
    aim: f64,
    mut ours: impl FnMut() -> Result<()>,
    mut peer: impl FnMut() -> Result<()>,
) -> Result<Comparison> {
    let mut rates = Vec::new();
    // The first round warms caches, files and the processor, and does not count.
    for round in 0..=settings.rounds {
        let pair = (work / seconds(&mut ours)?, work / seconds(&mut peer)?);
        if round > 0 {
            rates.push(pair);
        }
    }
    let ratio = median(rates.iter().map(|(ours, peer)| ours / peer));
    let (ours, peer) = (median(rates.iter().map(|pair| pair.0)), median(rates.iter().map(|pair| pair.1)));
    Ok(Comparison { name: name.into(), ours, peer, unit, ratio, aim, met: ratio >= aim })
}

fn seconds(work: &mut impl FnMut() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
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
    let mut text =
        format!("{:<58} {:>10} {:>10} {:<9} {:>6} {:>6}  met", "", "ours", "peer", "", "ratio", "aim");
    for comparison in comparisons {
        let Comparison { name, ours, peer, unit, ratio, aim, met } = comparison;
        let met = if *met { "yes" } else { "NO" };
        text.push_str(&format!(
            "\n{name:<58} {ours:>10.1} {peer:>10.1} {unit:<9} {ratio:>6.2} {aim:>6.2}  {met}"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
