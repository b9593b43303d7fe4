use lighter_transport::limiter::Class;
use proptest::prelude::*;

use super::super::by_hand::{HandLimit, Pause};
use super::*;

/// A Friday, 10:00 UTC.
const NOW: UnixTime = UnixTime(1_795_168_800);
const HOUR: u64 = 3_600;

fn rate(text: &str) -> ByteRate {
    text.parse().unwrap()
}

fn metered() -> Around {
    Around { metered: Some(Metered { name: Some("wlan0".to_owned()) }), battery: None }
}

fn on_battery(percent: u8) -> Around {
    Around { battery: Some(Battery { percent, on_mains: false }), metered: None }
}

fn decided(config: &GuestConfig, by_hand: &ByHand, around: &Around) -> Verdict {
    decide(config, by_hand, around, NOW, &TimeZone::UTC)
}

#[test]
fn with_nothing_said_everything_goes() {
    let verdict = decided(&GuestConfig::default(), &ByHand::default(), &Around::default());
    assert_eq!(verdict, Verdict::default());
    assert_eq!((verdict.down(), verdict.up()), Default::default());
    let mains = Around { battery: Some(Battery { percent: 1, on_mains: true }), metered: None };
    assert_eq!(decided(&GuestConfig::default(), &ByHand::default(), &mains), Verdict::default());
}

#[test]
fn on_a_metered_network_bulk_waits_unless_it_is_said_otherwise() {
    let with = |metered_as| GuestConfig { metered: metered_as, ..GuestConfig::default() };
    let off = decided(&with(OnMetered::Off), &ByHand::default(), &metered());
    assert_eq!(
        (off.hold, off.held_by.clone()),
        (Hold::Bulk, Some((HeldBy::Metered(metered().metered.unwrap()), None)))
    );
    assert!(off.down().holds(Class::Bulk) && off.up().holds(Class::Small));
    assert!(!off.down().holds(Class::First) && !off.up().holds(Class::Asked));
    let slow = decided(&with(OnMetered::Limited), &ByHand::default(), &metered());
    let limited = Limited { rate: ByteRate(METERED_RATE_DEFAULT), by: LimitedBy::Metered, until: None };
    assert_eq!((slow.hold, slow.download, slow.upload), (Hold::Nothing, Some(limited), Some(limited)));
    assert_eq!(decided(&with(OnMetered::On), &ByHand::default(), &metered()), Verdict::default());
}

#[test]
fn a_low_battery_holds_bulk_up_and_zero_percent_never() {
    let config = GuestConfig::default();
    assert_eq!(decided(&config, &ByHand::default(), &on_battery(20)), Verdict::default());
    let low = decided(&config, &ByHand::default(), &on_battery(19));
    assert_eq!(low.held_by, Some((HeldBy::Battery { percent: 19, min: 20 }, None)));
    let never = GuestConfig { battery_percent_min: 0, ..config };
    assert_eq!(decided(&never, &ByHand::default(), &on_battery(0)), Verdict::default());
}

#[test]
fn a_limit_by_hand_takes_the_place_of_the_others_until_its_time() {
    let text =
        "download = '1M'\n[[schedule]]\nfrom = '08:00'\nto = '12:00'\ndownload = '500k'\nupload = '2M'\n";
    let config: GuestConfig = toml::from_str(text).unwrap();
    let noon = UnixTime(NOW.0 + 2 * HOUR);
    let verdict = decided(&config, &ByHand::default(), &Around::default());
    let schedule =
        |text: &str| Some(Limited { rate: rate(text), by: LimitedBy::Schedule, until: Some(noon) });
    assert_eq!(
        (verdict.download, verdict.upload, verdict.next),
        (schedule("500k"), schedule("2M"), Some(noon))
    );
    let until = Some(UnixTime(NOW.0 + HOUR));
    let limit = HandLimit { download: Some(rate("8M")), upload: None, until };
    let by_hand = ByHand { limit: Some(limit), pause: None };
    let verdict = decided(&config, &by_hand, &Around::default());
    assert_eq!(verdict.download, Some(Limited { rate: rate("8M"), by: LimitedBy::Hand, until }));
    assert_eq!((verdict.upload, verdict.next), (None, until));
    let after = decide(&config, &by_hand, &Around::default(), noon, &TimeZone::UTC);
    assert_eq!(after.download, Some(Limited { rate: rate("1M"), by: LimitedBy::Config, until: None }));
}

#[test]
fn a_pause_for_everything_holds_even_small_things_and_another_reason_does_not_weaken_it() {
    let pause = |everything| ByHand { pause: Some(Pause { until: None, everything }), limit: None };
    let all = decided(&GuestConfig::default(), &pause(true), &metered());
    assert!(all.down().holds(Class::First) && all.held_by == Some((HeldBy::Hand, None)));
    assert_eq!(decided(&GuestConfig::default(), &pause(false), &Around::default()).hold, Hold::Bulk);
}

#[test]
fn what_is_configured_wrongly_is_refused_with_what_to_do() {
    for (text, says) in [
        ("download = 'fast'", "2 MiB/s"),
        ("upload = '1k'", "lighter-agent pause"),
        ("battery_percent_min = 101", "0 (never) to 100"),
        ("metered = 'no'", "limited"),
        ("[[schedule]]\nfrom = '8'\nto = '9:00'\noff = true", "08:00"),
        ("[[schedule]]\nfrom = '08:00'\nto = '09:00'", "off = true"),
        ("[[schedule]]\nfrom = '08:00'\nto = '09:00'\noff = true\ndays = []", "leave `days` out"),
        ("[[schedule]]\nfrom = '08:00'\nto = '09:00'\noff = true\ndays = ['freitag']", "fri"),
        ("speed = 1", "download"),
    ] {
        let error = toml::from_str::<GuestConfig>(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

fn around() -> impl Strategy<Value = Around> {
    (any::<bool>(), proptest::option::of((0..101_u8, any::<bool>()))).prop_map(|(is_metered, battery)| {
        Around {
            metered: is_metered.then(Metered::default),
            battery: battery.map(|(percent, on_mains)| Battery { percent, on_mains }),
        }
    })
}

proptest! {
    // Nothing that was said is lost in the one value, and until its time that value stays.
    #[test]
    fn one_reason_is_enough_to_wait_and_the_lowest_limit_counts_until_the_time_that_is_told(
        around in around(),
        (download, slow) in (proptest::option::of(1..9_u8), proptest::option::of(1..9_u8)),
        (metered_as, percent) in (0..3_usize, 0..101_u8),
        (from, to, off) in (0..24_u8, 0..24_u8, any::<bool>()),
        pause in proptest::option::of((any::<bool>(), 0..9_u64)),
        limit in proptest::option::of((proptest::option::of(1..9_u8), 0..9_u64)),
        later in 0..1_000_u64,
    ) {
        let rate = |rate: u8| format!("{rate}M").parse::<ByteRate>().unwrap();
        let entry = Entry {
            days: toml::from_str::<GuestConfig>("[[schedule]]\nfrom='1:00'\nto='2:00'\noff=true").unwrap().schedule[0].days.clone(),
            from: format!("{from}:00").parse().unwrap(),
            to: format!("{to}:00").parse().unwrap(),
            off,
            download: slow.map(rate),
            upload: None,
        };
        let config = GuestConfig {
            download: download.map(rate),
            metered: [OnMetered::Off, OnMetered::Limited, OnMetered::On][metered_as],
            battery_percent_min: percent,
            schedule: vec![entry],
            ..GuestConfig::default()
        };
        let until = |hours: u64| (hours > 0).then_some(UnixTime(NOW.0 + hours * HOUR));
        let by_hand = ByHand {
            pause: pause.map(|(everything, hours)| Pause { everything, until: until(hours) }),
            limit: limit.map(|(rate_set, hours)| HandLimit { download: rate_set.map(rate), upload: None, until: until(hours) }),
        };
        let verdict = decided(&config, &by_hand, &around);
        let scheduled = schedule::at(&config.schedule, Timestamp::from_second(NOW.0 as i64).unwrap(), &TimeZone::UTC);
        let low = around.battery.is_some_and(|battery| !battery.on_mains && battery.percent < percent);
        let waits = pause.is_some() || scheduled.off || low || (around.metered.is_some() && metered_as == 0);
        prop_assert_eq!(verdict.hold != Hold::Nothing, waits);
        prop_assert_eq!(verdict.held_by.is_some(), waits);
        prop_assert_eq!(verdict.hold == Hold::All, pause.is_some_and(|(everything, _)| everything));
        let usual = download.map(rate).into_iter().chain(scheduled.download).min();
        let own = by_hand.limit.map_or(usual, |limit| limit.download);
        let slow = (around.metered.is_some() && metered_as == 1).then_some(ByteRate(METERED_RATE_DEFAULT));
        prop_assert_eq!(verdict.download.map(|limited| limited.rate), own.into_iter().chain(slow).min());
        // Until then, nothing changes by itself.
        let end = verdict.next.unwrap_or(UnixTime(NOW.0 + 6 * 24 * HOUR));
        let between = UnixTime(NOW.0 + (end.0 - NOW.0 - 1) * later / 1_000);
        let then = decide(&config, &by_hand, &around, between, &TimeZone::UTC);
        prop_assert_eq!((then.hold, then.down(), then.up()), (verdict.hold, verdict.down(), verdict.up()));
    }
}
