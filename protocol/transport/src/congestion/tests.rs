//! By whole transfers in virtual time, and by rounds.

mod line;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use line::{Line, World};

/// Longer than any transfer here takes by Cubic.
const LONG: Duration = Duration::from_secs(600);

/// Lines that lose without being full, with queues deep and shallow.
fn lossy() -> impl Iterator<Item = Line> {
    // Mbit/s, round trip in ms, loss, queue in ms.
    let lines = [
        (50, 100, 0.001, 100),
        (50, 100, 0.001, 20),
        (50, 40, 0.01, 20),
        (50, 20, 0.02, 50),
        (20, 100, 0.02, 100),
        (20, 60, 0.002, 40),
        (10, 250, 0.005, 200),
    ];
    lines.into_iter().map(|(mbit, round_trip, loss, queue)| Line {
        loss,
        queue: Duration::from_millis(queue),
        ..Line::new(mbit, round_trip)
    })
}

/// A transfer that takes so many seconds at the line's rate, in MiB.
fn mib(line: &Line, seconds: u64) -> u64 {
    (line.rate * seconds) >> 20
}

/// A transfer that has ended, alone on its line.
fn transfer(
    line: Line,
    seed: u64,
    congestion: impl ControllerFactory + Send + Sync + 'static,
    mib: u64,
) -> World {
    let mut world = World::new(line, seed);
    world.start(congestion, mib);
    assert!(world.run(LONG), "{line:?}: not whole");
    world
}

#[test]
fn a_line_that_loses_without_being_full_is_used_and_no_more_is_lost_than_it_loses() {
    for (line, seed) in lossy().zip(1..) {
        let world = transfer(line, seed, AdaptiveConfig, mib(&line, 20));
        let transfer = &world.transfers[0];
        assert_eq!(transfer.switches(), (1, true), "{line:?}: once, and no way back");
        let percent = transfer.rate() * 100 / line.rate;
        // All of it counts, until it was found out, too: a thousand packets of which each may be the one that is lost.
        let least = if line.round_trip > Duration::from_millis(200) { 60 } else { 75 };
        assert!(percent >= least, "{line:?}: {percent}% of the line");
        let (sent, lost) = transfer.packets();
        #[expect(clippy::cast_precision_loss, reason = "counts of packets")]
        let share = lost as f64 / sent as f64;
        assert!(share <= line.loss + 0.03, "{line:?}: {share} lost");
    }
}

#[test]
fn it_is_several_times_as_fast_as_cubic_where_that_is_held_back() {
    for (line, seed) in lossy().take(3).zip(1..) {
        let amount = mib(&line, 5);
        let [ours, cubic] = [
            transfer(line, seed, AdaptiveConfig, amount),
            transfer(line, seed, CubicConfig::default(), amount),
        ];
        let (ours, cubic) = (ours.transfers[0].rate(), cubic.transfers[0].rate());
        assert!(ours > 4 * cubic, "{line:?}: {ours} and {cubic}");
    }
}

#[test]
fn a_line_that_loses_only_where_it_is_full_is_left_to_cubic_whatever_its_queue() {
    for seed in 0..16 {
        let mut chance = StdRng::seed_from_u64(seed);
        // Every other one has a queue that hardly shows.
        let queue_ms_max = if seed % 2 == 0 { 300 } else { 12 };
        let queue = Duration::from_millis(chance.random_range(1..queue_ms_max));
        let line = Line { queue, ..Line::new(chance.random_range(2..60), chance.random_range(6..120)) };
        let world = transfer(line, seed, AdaptiveConfig, mib(&line, 8).max(1));
        assert_eq!(world.transfers[0].switches(), (0, false), "seed {seed}: {line:?}");
    }
}

#[test]
fn beside_cubic_on_a_full_line_it_takes_its_share_and_no_more() {
    for seed in 0..3 {
        let mut world = World::new(Line::new(40, 40), seed);
        world.start(AdaptiveConfig, 1_000);
        world.start(CubicConfig::default(), 1_000);
        world.run(Duration::from_secs(30));
        assert_eq!(world.transfers[0].switches(), (0, false), "seed {seed}");
        let [ours, other] = [0, 1].map(|index| world.transfers[index].received);
        assert!(ours < 3 * other && other < 3 * ours, "seed {seed}: {ours} and {other}");
    }
}

#[test]
fn where_somebody_else_wants_a_line_that_loses_no_more_it_goes_back_to_cubic() {
    let line = Line { loss: 0.003, queue: Duration::from_millis(150), ..Line::new(40, 40) };
    let mut world = World::new(line, 3);
    world.start(AdaptiveConfig, 1_000);
    world.run(Duration::from_secs(8));
    assert_eq!(world.transfers[0].switches(), (1, true));
    world.line.loss = 0.0;
    world.start(CubicConfig::default(), 1_000);
    world.run(Duration::from_secs(30));
    let (_, is_steady) = world.transfers[0].switches();
    assert!(!is_steady, "its queue shows that somebody else is there");
    let before = [0, 1].map(|index| world.transfers[index].received);
    world.run(Duration::from_secs(30));
    let [ours, other] = [0, 1].map(|index| world.transfers[index].received - before[index]);
    assert!(ours < 4 * other && other < 4 * ours, "{ours} and {other}");
}

#[test]
fn after_an_outage_it_begins_anew_and_finds_out_again() {
    let line = Line { loss: 0.01, ..Line::new(20, 40) };
    let mut world = World::new(line, 5);
    world.start(AdaptiveConfig, 60);
    world.run(Duration::from_secs(5));
    assert_eq!(world.transfers[0].switches(), (1, true));
    world.line.loss = 1.0;
    world.run(Duration::from_secs(3));
    world.line.loss = 0.01;
    world.run(Duration::from_secs(2));
    assert!(world.transfers[0].switches().0 <= 2);
    assert!(world.run(LONG), "it goes on");
    assert!(world.transfers[0].switches().1, "{:?}", world.transfers[0].switches());
}

/// A round of a line at so many bytes a second that loses with so much under way.
fn round(rate: u64, rtt: Duration, window: u64) -> Round {
    Round {
        took: rtt,
        acked: steady::contents(rate, rtt),
        lost: 1_200,
        rtt,
        rtt_at_loss: Some(rtt),
        window_at_loss: window,
        ..Round::default()
    }
}

#[test]
fn losses_on_a_short_way_marked_packets_and_a_queue_are_no_evidence() {
    let far = Duration::from_millis(50);
    let judged = |best: Duration, change: fn(&mut Round)| {
        let mut judge = Judge::default();
        judge.handle_round(&round(10_000_000, best, u64::MAX), best);
        let mut lossy = round(1_000_000, best, steady::contents(1_000_000, best));
        change(&mut lossy);
        (0..20).any(|_| judge.handle_round(&lossy, best).is_some())
    };
    assert!(judged(far, |_| {}));
    assert!(!judged(Duration::from_millis(1), |_| {}), "too near");
    assert!(!judged(far, |round| round.is_marked = true), "marked");
    assert!(!judged(far, |round| round.rtt_at_loss = Some(Duration::from_millis(70))), "a queue");
    assert!(!judged(far, |round| round.is_limited = true), "there was little to send");
    assert!(!judged(far, |round| round.window_at_loss = 450_000), "as much as the line held before");
}

#[test]
fn tries_that_come_to_nothing_are_further_and_further_apart() {
    let best = Duration::from_millis(50);
    let mut judge = Judge::default();
    judge.handle_round(&round(10_000_000, best, u64::MAX), best);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let mut rounds = 0;
        while judge.handle_round(&round(1_000_000, best, 50_000), best).is_none() {
            rounds += 1;
            // The line has shown at times that it holds more.
            if rounds % 16 == 0 {
                judge.handle_round(&Round { lost: 0, rtt_at_loss: None, ..round(10_000_000, best, 0) }, best);
            }
        }
        judge.handle_leave();
        waits.push(rounds);
    }
    assert!(waits.is_sorted() && waits[8] > 40 * waits[1], "{waits:?}");
}

#[test]
fn a_router_that_marks_packets_is_listened_to_at_once() {
    let best = Duration::from_millis(50);
    let mut steady = Steady::new(judge::Before { rate: 1_000_000, loss: 1 }, best);
    let marked = Round { is_marked: true, ..round(1_000_000, best, 0) };
    assert_eq!(steady.handle_round(&marked, best), Some(Leave::Marked));
}

#[test]
fn what_brings_nothing_is_given_up() {
    let best = Duration::from_millis(50);
    let mut steady = Steady::new(judge::Before { rate: 1_000_000, loss: 1 }, best);
    let left = (0..10).find_map(|_| steady.handle_round(&round(1_050_000, best, 0), best));
    assert_eq!(left, Some(Leave::NoGain));
}
