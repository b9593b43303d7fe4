//! The schedule: times of the week, by the local clock, at which transfers wait or go slower.
//!
//! An entry holds from its beginning to its end as instants, each made of a day and a time of that day. Where the clocks are set
//! forward over one of them, it is as much later; where they are set back, the first of the two counts (RFC 5545 §3.3.5). So
//! every entry begins once and ends once on each of its days, whatever the clocks do.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::amounts::ByteRate;
use crate::limits::SCHEDULE_MAX;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// On which days it begins; absent: on all of them.
    #[serde(default = "Day::all", skip_serializing_if = "Day::are_all")]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: TimeOfDay,
    /// When it ends: on the next day, where that is no later than `from`.
    pub to: TimeOfDay,
    /// Nothing goes that nobody waits for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Bytes a second that come, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<ByteRate>,
    /// Bytes a second that go, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<ByteRate>,
}

/// A time of day, to the minute. `24:00` is the next day's `00:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(Time);

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are days")]
pub enum Day {
    #[serde(alias = "monday")]
    Mon,
    #[serde(alias = "tuesday")]
    Tue,
    #[serde(alias = "wednesday")]
    Wed,
    #[serde(alias = "thursday")]
    Thu,
    #[serde(alias = "friday")]
    Fri,
    #[serde(alias = "saturday")]
    Sat,
    #[serde(alias = "sunday")]
    Sun,
}

impl Day {
    const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn are_all(days: &[Self]) -> bool {
        *days == Self::ALL
    }

    fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is no time of day: write it as `08:00` or `22:30`");
        let (hour, minute) = text.trim().split_once(':').ok_or_else(malformed)?;
        let number = |text: &str| {
            let is_short = matches!(text.len(), 1..=2) && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i8>().ok().filter(|_| is_short)
        };
        match (number(hour), number(minute)) {
            (Some(24), Some(0)) => Ok(Self(Time::midnight())),
            (Some(hour), Some(minute)) => Time::new(hour, minute, 0, 0).map(Self).map_err(|_| malformed()),
            _ => Err(malformed()),
        }
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

/// What the schedule says of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduled {
    /// Nothing goes that nobody waits for.
    pub off: bool,
    /// Bytes a second that come, at most.
    pub download: Option<ByteRate>,
    /// Bytes a second that go, at most.
    pub upload: Option<ByteRate>,
    /// When it says something else; none: not within a week.
    pub until: Option<Timestamp>,
}

impl Scheduled {
    fn add(&mut self, entry: &Entry) {
        self.off |= entry.off;
        self.download = lower(self.download, entry.download);
        self.upload = lower(self.upload, entry.upload);
    }

    fn says(self) -> (bool, Option<ByteRate>, Option<ByteRate>) {
        (self.off, self.download, self.upload)
    }
}

/// The lower of two limits, where none is no limit.
pub(super) fn lower(one: Option<ByteRate>, other: Option<ByteRate>) -> Option<ByteRate> {
    one.into_iter().chain(other).min()
}

/// What `entries` say at `now`, where the clock shows the time of `zone`.
pub fn at(entries: &[Entry], now: Timestamp, zone: &TimeZone) -> Scheduled {
    // Yesterday's may still go on, or even the day's before that, where the clocks jumped over a day.
    let today = zone.to_datetime(now).date();
    let spans: Vec<_> = entries
        .iter()
        .take(SCHEDULE_MAX)
        .flat_map(|entry| {
            (-2..=8).filter_map(move |days| {
                let date = today.checked_add(i64::from(days).days()).ok()?;
                Some((span(entry, date, zone)?, entry))
            })
        })
        .collect();
    let of = |now: Timestamp| {
        let mut said = Scheduled::default();
        for ((from, to), entry) in &spans {
            if *from <= now && now < *to {
                said.add(entry);
            }
        }
        said
    };
    let now_said = of(now);
    // Beyond a week, what is looked at is not all that there is.
    let week = now.checked_add((7 * 24).hours()).unwrap_or(Timestamp::MAX);
    let edges = spans.iter().flat_map(|((from, to), _)| [*from, *to]);
    let mut edges: Vec<_> = edges.filter(|at| now < *at && *at <= week).collect();
    edges.sort_unstable();
    let until = edges.into_iter().find(|at| of(*at).says() != now_said.says());
    Scheduled { until, ..now_said }
}

/// From when to when the entry holds that begins on `date`; none where it does not.
fn span(entry: &Entry, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    if !entry.days.iter().any(|day| day.weekday() == date.weekday()) {
        return None;
    }
    let instant = |date: Date, time: TimeOfDay| zone.to_timestamp(date.to_datetime(time.0)).ok();
    let end = if entry.to <= entry.from { date.tomorrow().ok()? } else { date };
    Some((instant(date, entry.from)?, instant(end, entry.to)?))
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use proptest::prelude::*;

    use super::*;

    /// Clocks that are set in spring and autumn, east and west, half an hour, at midnight; and those that are not.
    const ZONES: [&str; 5] = [
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "EST5EDT,M3.2.0,M11.1.0",
        "LHST-10:30LHDT-11,M10.1.0,M4.1.0",
        "CST5CDT,M3.2.0/0,M11.1.0/1",
        "UTC0",
    ];

    fn zone(text: &str) -> TimeZone {
        TimeZone::posix(text).unwrap()
    }

    fn entry(days: &[Day], from: &str, to: &str) -> Entry {
        Entry {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            off: true,
            download: None,
            upload: None,
        }
    }

    fn in_berlin(text: &str) -> Timestamp {
        zone(ZONES[0]).to_timestamp(text.parse::<DateTime>().unwrap()).unwrap()
    }

    #[test]
    fn an_entry_crosses_midnight_into_a_day_that_is_not_its_own() {
        // 2026-11-20 is a Friday.
        let nights = [entry(&[Day::Fri], "22:00", "06:00")];
        let at = |text: &str| at(&nights, in_berlin(text), &zone(ZONES[0]));
        assert!(!at("2026-11-20T21:59").off && at("2026-11-20T22:00").off && at("2026-11-21T05:59").off);
        assert!(!at("2026-11-21T06:00").off && !at("2026-11-21T23:00").off && !at("2026-11-20T05:00").off);
        assert_eq!(at("2026-11-20T23:00").until, Some(in_berlin("2026-11-21T06:00")));
        assert_eq!(at("2026-11-21T06:00").until, Some(in_berlin("2026-11-27T22:00")));
    }

    #[test]
    fn of_several_entries_the_strictest_counts_and_edges_that_change_nothing_are_none() {
        let slow = |from: &str, to: &str, rate: &str| Entry {
            off: false,
            download: Some(rate.parse().unwrap()),
            ..entry(&Day::ALL, from, to)
        };
        let entries =
            [slow("08:00", "18:00", "1M"), slow("12:00", "13:00", "2M"), slow("17:00", "20:00", "1M")];
        let said = at(&entries, in_berlin("2026-11-20T12:30"), &zone(ZONES[0]));
        assert_eq!(said.download, Some("1M".parse().unwrap()));
        assert_eq!(said.until, Some(in_berlin("2026-11-20T20:00")));
    }

    #[test]
    fn an_entry_of_a_whole_day_and_every_day_never_ends() {
        let said = at(&[entry(&Day::ALL, "00:00", "24:00")], in_berlin("2026-03-29T03:00"), &zone(ZONES[0]));
        assert_eq!((said.off, said.until), (true, None));
    }

    #[test]
    fn where_the_clocks_are_set_an_entry_begins_once_and_ends_once() {
        let berlin = zone(ZONES[0]);
        let entries = [entry(&Day::ALL, "02:15", "02:45")];
        let count = |from: &str, to: &str| {
            let (mut now, to, mut minutes) = (in_berlin(from), in_berlin(to), 0);
            while now < to {
                minutes += u32::from(at(&entries, now, &berlin).off);
                now += 1.minute();
            }
            minutes
        };
        // In spring there is no 02:15; in autumn there are two of them.
        assert_eq!(count("2026-03-29T00:00", "2026-03-30T00:00"), 30);
        assert_eq!(count("2026-10-25T00:00", "2026-10-26T00:00"), 30);
    }

    #[test]
    fn what_is_no_time_of_day_is_refused_with_what_to_write() {
        for text in ["8", "25:00", "24:01", "08:60", "8:0x", "-1:00", "+8:00", "008:00", ""] {
            assert!(text.parse::<TimeOfDay>().unwrap_err().contains("08:00"), "{text}");
        }
        assert_eq!("8:5".parse::<TimeOfDay>().unwrap().to_string(), "08:05");
        assert_eq!("24:00".parse::<TimeOfDay>().unwrap().to_string(), "00:00");
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (1..128_u8, 0..1_440_i32, 0..1_440_i32, any::<bool>(), 0..3_u64).prop_map(
            |(days, from, to, off, rate)| {
                let time = |minutes: i32| format!("{:02}:{:02}", minutes / 60, minutes % 60).parse().unwrap();
                let days = Day::ALL
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| days & (1 << bit) != 0)
                    .map(|(_, day)| *day);
                let rate = (rate > 0).then(|| format!("{rate}M").parse().unwrap());
                Entry {
                    days: days.collect(),
                    from: time(from),
                    to: time(to),
                    off,
                    download: rate,
                    upload: None,
                }
            },
        );
        proptest::collection::vec(entry, 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        // Around the days on which clocks are set, too: from a day in March, and one in October.
        #[test]
        fn until_it_says_so_the_schedule_says_the_same_and_then_something_else(
            entries in entries(),
            which in 0..ZONES.len(),
            begin in prop_oneof![1_772_000_000_i64..1_776_000_000, 1_790_000_000_i64..1_795_000_000],
            samples in proptest::collection::vec(0..1_000_i64, 8),
        ) {
            let zone = zone(ZONES[which]);
            let now = Timestamp::from_second(begin).unwrap();
            let said = at(&entries, now, &zone);
            let end = said.until.unwrap_or(now + (7 * 24).hours());
            prop_assert!(end > now);
            let seconds = end.as_second() - now.as_second();
            for sample in samples {
                let between = now + (seconds * sample / 1_000).seconds();
                prop_assert_eq!(at(&entries, between, &zone).says(), said.says(), "at {}", between);
            }
            if let Some(until) = said.until {
                prop_assert!(at(&entries, until, &zone).says() != said.says());
            }
        }

        #[test]
        fn an_entry_is_as_long_as_it_says_but_for_an_hour_where_clocks_are_set(
            entries in entries(),
            which in 0..ZONES.len(),
            days in 0..800_i64,
        ) {
            let zone = zone(ZONES[which]);
            let date = Date::constant(2026, 1, 1) + days.days();
            for entry in &entries {
                let Some((from, to)) = span(entry, date, &zone) else { continue };
                let minutes = |time: TimeOfDay| i64::from(time.0.hour()) * 60 + i64::from(time.0.minute());
                let nominal = (minutes(entry.to) - minutes(entry.from)).rem_euclid(1_440);
                let nominal = if nominal == 0 { 1_440 } else { nominal };
                let real = (to.as_second() - from.as_second()) / 60;
                prop_assert!((real - nominal).abs() <= 60, "{real} {nominal}");
            }
        }
    }
}
