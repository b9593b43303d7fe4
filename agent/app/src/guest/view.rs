//! What holds now, as it is shown: for scripts as JSON, for people in words.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lighter_protocol::UnixTime;
use lighter_transport::limiter::Hold;
use serde::{Deserialize, Serialize};

use super::amounts::ByteRate;
use super::decide::{HeldBy, Limited, LimitedBy, Verdict};
use crate::views::when;

/// What may go now, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestView {
    /// What waits.
    pub waits: Waits,
    /// Why it waits, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When time ends that, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
    /// The limit of what comes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<LimitView>,
    /// The limit of what goes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<LimitView>,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waits {
    /// Nothing.
    #[default]
    Nothing,
    /// Transfers that nobody waits for.
    Transfers,
    /// Everything.
    Everything,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// It.
    pub bytes_per_second: u64,
    /// Why, in words.
    pub reason: String,
    /// When time ends it, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
}

impl GuestView {
    /// What was decided, by the clock on the wall here.
    pub fn of(verdict: &Verdict, now: UnixTime, zone: &TimeZone) -> Self {
        let limit = |limited: Limited| LimitView {
            bytes_per_second: limited.rate.0.get(),
            reason: match limited.by {
                LimitedBy::Hand => format!("set by hand{}", until(limited.until, now, zone)),
                LimitedBy::Config => "the configuration".to_owned(),
                LimitedBy::Schedule => format!("the schedule{}", until(limited.until, now, zone)),
                LimitedBy::Metered => "metered network".to_owned(),
            },
            until: limited.until,
        };
        let reason = verdict.held_by.as_ref().map(|(by, end)| match by {
            HeldBy::Hand => format!("paused by hand{}", until(*end, now, zone)),
            HeldBy::Metered(metered) => {
                let name = metered.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
                format!("metered network{name}")
            }
            HeldBy::Schedule => format!("the schedule{}", until(*end, now, zone)),
            HeldBy::Battery { percent, min } => format!("battery at {percent}%, below {min}%"),
        });
        Self {
            waits: match verdict.hold {
                Hold::Nothing => Waits::Nothing,
                Hold::Bulk => Waits::Transfers,
                Hold::All => Waits::Everything,
            },
            reason,
            until: verdict.held_by.as_ref().and_then(|(_, until)| *until),
            download: verdict.download.map(limit),
            upload: verdict.upload.map(limit),
        }
    }

    /// Whether there is anything to say.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Its lines, each of which begins a column of its own.
    pub fn lines(&self) -> Vec<String> {
        let reason = self.reason.as_deref().unwrap_or_default();
        let waits = match self.waits {
            Waits::Nothing => None,
            Waits::Transfers => Some(format!("downloads and uploads wait: {reason}")),
            Waits::Everything => Some(format!("everything waits: {reason}")),
        };
        let line = |way: &str, limit: &Option<LimitView>| {
            let LimitView { bytes_per_second, reason, .. } = limit.as_ref()?;
            let rate = std::num::NonZeroU64::new(*bytes_per_second).map(ByteRate)?;
            Some(format!("{way} at most {rate}: {reason}"))
        };
        let lines = [waits, line("download", &self.download), line("upload", &self.upload)];
        lines.into_iter().flatten().collect()
    }
}

impl fmt::Display for GuestView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        if lines.is_empty() {
            return writeln!(f, "No limits: transfers go as fast as they can.");
        }
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// `, until 18:00`; with the day, where that is another one.
fn until(time: Option<UnixTime>, now: UnixTime, zone: &TimeZone) -> String {
    let Some(time) = time else { return String::new() };
    let local = |time: UnixTime| {
        let timestamp = Timestamp::from_second(i64::try_from(time.0).ok()?).ok()?;
        Some(zone.to_datetime(timestamp))
    };
    match (local(time), local(now)) {
        (Some(end), Some(now)) => {
            let (hour, minute) = (end.hour(), end.minute());
            let day = if end.date() == now.date() { String::new() } else { format!("{} ", end.date()) };
            format!(", until {day}{hour:02}:{minute:02}")
        }
        _ => format!(", until {}", when(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::metered::Metered;

    #[test]
    fn what_waits_and_what_is_limited_is_said_in_words() {
        let now = UnixTime(1_795_168_800);
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let limited = Limited {
            rate: "500k".parse().unwrap(),
            by: LimitedBy::Schedule,
            until: Some(UnixTime(now.0 + 7 * 3_600)),
        };
        let verdict = Verdict {
            hold: Hold::Bulk,
            held_by: Some((HeldBy::Metered(Metered { name: Some("eth0".to_owned()) }), None)),
            download: Some(limited),
            upload: Some(Limited { by: LimitedBy::Hand, until: Some(UnixTime(now.0 + 86_400)), ..limited }),
            next: None,
        };
        assert_eq!(
            GuestView::of(&verdict, now, &zone).lines(),
            [
                "downloads and uploads wait: metered network (eth0)",
                "download at most 500.0 KiB/s: the schedule, until 18:00",
                "upload at most 500.0 KiB/s: set by hand, until 2026-11-21 11:00",
            ]
        );
        let battery = (HeldBy::Battery { percent: 12, min: 20 }, None);
        let verdict = Verdict { hold: Hold::All, held_by: Some(battery), ..Verdict::default() };
        assert_eq!(
            GuestView::of(&verdict, now, &zone).lines(),
            ["everything waits: battery at 12%, below 20%"]
        );
        assert!(GuestView::default().is_nothing());
        assert!(GuestView::default().to_string().contains("No limits"));
    }
}
