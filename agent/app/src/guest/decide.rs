//! What may go now, how fast, and why: one value, of what is configured, what the user said by hand, and what is around. It does
//! no I/O; time is an argument.
//!
//! Of all that says *wait*, one is enough; a pause by hand is named first. Of all limits the lowest counts, but that one set by
//! hand takes the place of those of configuration and schedule: the user says so now. On a metered network its limit counts
//! beside that.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lighter_protocol::UnixTime;
use lighter_transport::limiter::{Allowance, Hold, Rate};
use serde::{Deserialize, Serialize};

use super::amounts::ByteRate;
use super::battery::Battery;
use super::by_hand::ByHand;
use super::metered::Metered;
use super::schedule::{self, Entry};
use crate::limits::{METERED_RATE_DEFAULT, SCHEDULE_MAX};

/// What is configured: `[guest]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestConfig {
    /// Bytes a second that come, at most, all transfers together; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<ByteRate>,
    /// Bytes a second that go, at most; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<ByteRate>,
    /// What happens on a network that costs by the byte.
    pub metered: OnMetered,
    /// With `metered = "limited"`: bytes a second, each way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metered_rate: Option<ByteRate>,
    /// On battery, transfers wait below so many percent; 0: never.
    #[serde(deserialize_with = "percent")]
    pub battery_percent_min: u8,
    /// Times at which it is otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "entries")]
    pub schedule: Vec<Entry>,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            download: None,
            upload: None,
            metered: OnMetered::Off,
            metered_rate: None,
            battery_percent_min: 20,
            schedule: Vec::new(),
        }
    }
}

impl GuestConfig {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn percent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    let is_one = percent <= 100;
    is_one.then_some(percent).ok_or_else(|| {
        serde::de::Error::custom(format!("battery_percent_min is 0 (never) to 100, not {percent}"))
    })
}

fn entries<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    let wrong = |text: String| Err(serde::de::Error::custom(text));
    if entries.len() > SCHEDULE_MAX {
        return wrong(format!("a schedule has at most {SCHEDULE_MAX} entries, not {}", entries.len()));
    }
    for entry in &entries {
        let Entry { from, to, off, download, upload, days } = entry;
        if !off && download.is_none() && upload.is_none() {
            return wrong(format!(
                "the entry from {from} to {to} says nothing: give it `off = true`, `download` or `upload`"
            ));
        }
        if days.is_empty() {
            return wrong(format!(
                "the entry from {from} to {to} has no days: name some, or leave `days` out"
            ));
        }
    }
    Ok(entries)
}

/// What happens on a network that costs by the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMetered {
    /// Transfers that nobody waits for wait.
    #[default]
    Off,
    /// They go slowly.
    Limited,
    /// As on any other.
    On,
}

/// What is around.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// The network, where it costs by the byte.
    pub metered: Option<Metered>,
    /// The battery, where there is one.
    pub battery: Option<Battery>,
}

/// Why nothing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// The user said so.
    Hand,
    /// The network costs by the byte.
    Metered(Metered),
    /// The schedule.
    Schedule,
    /// The battery.
    Battery {
        /// How full it is.
        percent: u8,
        /// How full it should be.
        min: u8,
    },
}

/// Why it does not go faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The user said so.
    Hand,
    /// The configuration.
    Config,
    /// The schedule.
    Schedule,
    /// The network costs by the byte.
    Metered,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Bytes a second.
    pub rate: ByteRate,
    /// Why.
    pub by: LimitedBy,
    /// When time ends it, where it does.
    pub until: Option<UnixTime>,
}

/// What may go now, how fast, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What waits.
    pub hold: Hold,
    /// Why, and when time ends that, where it does.
    pub held_by: Option<(HeldBy, Option<UnixTime>)>,
    /// How fast what comes may.
    pub download: Option<Limited>,
    /// How fast what goes may.
    pub upload: Option<Limited>,
    /// When time alone changes any of it; none: never.
    pub next: Option<UnixTime>,
}

impl Verdict {
    /// What transfers towards this machine may.
    pub fn down(&self) -> Allowance {
        self.allowance(self.download)
    }

    /// What transfers from this machine may.
    pub fn up(&self) -> Allowance {
        self.allowance(self.upload)
    }

    fn allowance(&self, limited: Option<Limited>) -> Allowance {
        let rate = limited.map_or(Rate::Any, |limited| Rate::Limited(limited.rate.0));
        Allowance { rate, hold: self.hold }
    }
}

/// Decides.
pub fn decide(
    config: &GuestConfig,
    by_hand: &ByHand,
    around: &Around,
    now: UnixTime,
    zone: &TimeZone,
) -> Verdict {
    let ByHand { pause, limit } = by_hand.at(now);
    let seconds = i64::try_from(now.0).unwrap_or(i64::MAX);
    let instant = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let scheduled = schedule::at(&config.schedule, instant, zone);
    let scheduled_until =
        scheduled.until.and_then(|until| u64::try_from(until.as_second()).ok()).map(UnixTime);

    let (mut hold, mut held_by) = (Hold::Nothing, None);
    if let Some(pause) = pause {
        hold = if pause.everything { Hold::All } else { Hold::Bulk };
        held_by = Some((HeldBy::Hand, pause.until));
    }
    let metered = around.metered.as_ref().filter(|_| config.metered == OnMetered::Off);
    let low =
        around.battery.filter(|battery| !battery.on_mains && battery.percent < config.battery_percent_min);
    let others = [
        metered.map(|metered| (HeldBy::Metered(metered.clone()), None)),
        low.map(|Battery { percent, .. }| {
            (HeldBy::Battery { percent, min: config.battery_percent_min }, None)
        }),
        scheduled.off.then_some((HeldBy::Schedule, scheduled_until)),
    ];
    if let Some(first) = others.into_iter().flatten().next() {
        hold = hold.max(Hold::Bulk);
        held_by.get_or_insert(first);
    }

    let slow = around.metered.as_ref().filter(|_| config.metered == OnMetered::Limited);
    let slow = slow.map(|_| config.metered_rate.unwrap_or(ByteRate(METERED_RATE_DEFAULT)));
    let limited = |configured: Option<ByteRate>,
                   scheduled: Option<ByteRate>,
                   set: Option<Option<ByteRate>>| {
        let mut all = Vec::new();
        match (set, limit) {
            (Some(rate), Some(limit)) => all.push((rate, LimitedBy::Hand, limit.until)),
            _ => {
                all.push((scheduled, LimitedBy::Schedule, scheduled_until));
                all.push((configured, LimitedBy::Config, None));
            }
        }
        all.push((slow, LimitedBy::Metered, None));
        let all = all.into_iter().filter_map(|(rate, by, until)| Some(Limited { rate: rate?, by, until }));
        all.min_by_key(|limited| limited.rate)
    };
    let download = limited(config.download, scheduled.download, limit.map(|limit| limit.download));
    let upload = limited(config.upload, scheduled.upload, limit.map(|limit| limit.upload));
    let times = [pause.and_then(|pause| pause.until), limit.and_then(|limit| limit.until), scheduled_until];
    Verdict { hold, held_by, download, upload, next: times.into_iter().flatten().min() }
}

#[cfg(test)]
mod tests;
