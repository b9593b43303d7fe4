//! In simulated time: transfers of random sizes, classes and numbers of streams.

use proptest::prelude::*;

use super::*;

const CLASSES: [Class; 4] = [Class::First, Class::Asked, Class::Small, Class::Bulk];

/// A transfer that always wants more, on so many streams, in pieces of such a size.
#[derive(Clone, Copy, Debug)]
struct Greedy {
    class: Class,
    streams: usize,
    piece: u64,
}

fn greedy() -> impl Strategy<Value = Greedy> {
    (0..4_usize, 1..5_usize, prop_oneof![Just(u64::MAX), 1_000..300_000_u64])
        .prop_map(|(class, streams, piece)| Greedy { class: CLASSES[class], streams, piece })
}

fn limited(rate: u64) -> Allowance {
    Allowance { rate: Rate::Limited(NonZeroU64::new(rate).unwrap()), hold: Hold::Nothing }
}

/// Lets all of them go on for so long: the turns, with when and whose they were.
fn simulate(
    fair: &mut Fair,
    begin: Instant,
    time: Duration,
    transfers: &[Greedy],
) -> Vec<(Duration, usize, u64)> {
    let mut whose = HashMap::new();
    let wait = |fair: &mut Fair, whose: &mut HashMap<Ticket, usize>, number: usize| {
        let Greedy { class, piece, .. } = transfers[number];
        let ticket = fair.wait(Transfer { id: number as u128, class }, piece);
        whose.insert(ticket, number);
    };
    for (number, transfer) in transfers.iter().enumerate() {
        for _ in 0..transfer.streams {
            wait(fair, &mut whose, number);
        }
    }
    let (mut now, mut turns) = (begin, Vec::new());
    while now < begin + time {
        while let Some((ticket, len)) = fair.poll(now) {
            let number = whose.remove(&ticket).unwrap();
            turns.push((now - begin, number, len));
            wait(fair, &mut whose, number);
        }
        now = fair.next(now).unwrap().max(now + Duration::from_nanos(1));
    }
    whose.into_keys().for_each(|ticket| fair.leave(ticket));
    turns
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // SPEC: A6
    #[test]
    fn shares_are_those_of_the_classes_within_a_tenth(
        transfers in proptest::collection::vec(greedy(), 1..12),
        rate in 50_000..20_000_000_u64,
    ) {
        let begin = Instant::now();
        let mut fair = Fair::new(limited(rate), begin);
        // So long that a single turn says nothing: the smallest share is fifty turns or more.
        let weights: u64 = transfers.iter().map(|transfer| transfer.class.weight()).sum();
        let turn = turn_len(NonZeroU64::new(rate).unwrap());
        let time = Duration::from_secs(1 + 50 * turn * weights / rate);
        let turns = simulate(&mut fair, begin, time, &transfers);
        let all: u64 = turns.iter().map(|(_, _, len)| len).sum();
        for (number, transfer) in transfers.iter().enumerate() {
            let own: u64 = turns.iter().filter(|(_, whose, _)| *whose == number).map(|(_, _, len)| len).sum();
            let due = all as f64 * transfer.class.weight() as f64 / weights as f64;
            prop_assert!((own as f64 - due).abs() <= due / 10.0, "{number}: {own} of {all}, due {due}");
        }
    }

    #[test]
    fn never_more_than_the_limit_in_any_time_and_never_less_while_somebody_waits(
        transfers in proptest::collection::vec(greedy(), 1..6),
        rate in 16_384..50_000_000_u64,
        late_ms in 0..60_u64,
    ) {
        let begin = Instant::now();
        let limit = NonZeroU64::new(rate).unwrap();
        let mut fair = Fair::new(limited(rate), begin);
        let turns = simulate(&mut fair, begin + Duration::from_millis(late_ms), Duration::from_secs(12), &transfers);
        let all: u64 = turns.iter().map(|(_, _, len)| len).sum();
        prop_assert!(all as f64 >= rate as f64 * 12.0 - turn_len(limit) as f64, "{all} at {rate}");
        // Each beginning, against each end behind it.
        for (from, (begun, ..)) in turns.iter().enumerate().step_by(turns.len() / 20 + 1) {
            let mut sum = 0;
            for (at, _, len) in &turns[from..] {
                sum += len;
                let may = burst(limit) as f64 + rate as f64 * (*at - *begun).as_secs_f64();
                prop_assert!(sum as f64 <= may + 1.0, "{sum} > {may}");
            }
        }
    }

    #[test]
    fn whoever_goes_away_and_whatever_changes_every_turn_is_given_once(
        steps in proptest::collection::vec((0..6_u8, 0..4_usize, 0..200_000_u64), 1..200),
    ) {
        let mut now = Instant::now();
        let mut fair = Fair::new(Allowance::default(), now);
        let (mut waiting, mut given) = (HashMap::new(), 0);
        for (what, which, amount) in steps {
            match what {
                0 | 1 => {
                    let ticket = fair.wait(Transfer { id: u128::from(amount % 5), class: CLASSES[which] }, amount);
                    prop_assert!(waiting.insert(ticket, amount.max(1)).is_none());
                }
                2 => {
                    if let Some(ticket) = waiting.keys().copied().min() {
                        waiting.remove(&ticket);
                        fair.leave(ticket);
                    }
                }
                3 => fair.allow(limited(16_384 + amount * 10), now),
                4 => fair.allow(Allowance { hold: [Hold::Nothing, Hold::Bulk, Hold::All, Hold::Nothing][which], ..fair.allowance() }, now),
                _ => now += Duration::from_millis(amount / 100),
            }
            while let Some((ticket, len)) = fair.poll(now) {
                let wanted = waiting.remove(&ticket);
                prop_assert!(wanted.is_some_and(|wanted| (1..=wanted).contains(&len)), "{wanted:?} {len}");
                given += len;
            }
            prop_assert_eq!(fair.granted(), given);
            prop_assert_eq!(fair.queue.len(), waiting.len());
            prop_assert_eq!(fair.tags.len(), waiting.len());
        }
        // Let go, all of them have their turns.
        fair.allow(Allowance::default(), now);
        while let Some((ticket, _)) = fair.poll(now) {
            waiting.remove(&ticket);
        }
        prop_assert!(waiting.is_empty());
        prop_assert!(fair.ends.len() <= 20);
    }
}

#[test]
fn many_streams_are_no_more_than_one() {
    let begin = Instant::now();
    let mut fair = Fair::new(limited(1_000_000), begin);
    let one = Greedy { class: Class::Bulk, streams: 1, piece: u64::MAX };
    let transfers = [one, Greedy { streams: 16, ..one }];
    let turns = simulate(&mut fair, begin, Duration::from_secs(20), &transfers);
    let own: u64 = turns.iter().filter(|(_, whose, _)| *whose == 0).map(|(_, _, len)| len).sum();
    let all: u64 = turns.iter().map(|(_, _, len)| len).sum();
    assert!(own.abs_diff(all / 2) <= all / 20, "{own} of {all}");
}

#[test]
fn who_was_away_has_no_claim_to_what_went_meanwhile() {
    let begin = Instant::now();
    let mut fair = Fair::new(limited(1_000_000), begin);
    let one = Greedy { class: Class::Bulk, streams: 1, piece: 100_000 };
    simulate(&mut fair, begin, Duration::from_secs(10), &[one]);
    let both = simulate(&mut fair, begin + Duration::from_secs(10), Duration::from_secs(10), &[one, one]);
    let new: u64 = both.iter().filter(|(_, whose, _)| *whose == 1).map(|(_, _, len)| len).sum();
    assert!((4_400_000..=5_600_000).contains(&new), "{new}");
}
