//! Rates and times as people write them: `2 MiB/s`, `500k`, `20 Mbit/s`; `2h`, `90 min`, `1d 12h`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use lighter_transport::limits::RATE_MIN;
use serde::{Deserialize, Serialize};

use crate::limits::BY_HAND_TIME_MAX;
use crate::views::size;

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteRate(pub NonZeroU64);

/// Why something is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// It is not a number with a unit.
    #[error("`{0}` is no rate: write it as `2 MiB/s`, `500k` or `20 Mbit/s`")]
    Malformed(String),
    /// With less, transfers would only break.
    #[error(
        "`{0}` is less than 16 KiB/s, at which nothing would arrive: use `lighter-agent pause`, or `off` in a schedule"
    )]
    TooSmall(String),
}

/// What a unit stands for, in bits.
fn unit_bits(unit: &str) -> Option<u64> {
    let unit = unit.strip_suffix("/s").or_else(|| unit.strip_suffix("ps")).unwrap_or(unit).trim_end();
    Some(match unit {
        "" | "B" | "b" => 8,
        "k" | "K" | "Ki" | "KiB" => 8 << 10,
        "m" | "M" | "Mi" | "MiB" => 8 << 20,
        "g" | "G" | "Gi" | "GiB" => 8 << 30,
        "kB" | "KB" => 8_000,
        "MB" => 8_000_000,
        "GB" => 8_000_000_000,
        "kbit" | "Kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return None,
    })
}

impl FromStr for ByteRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError::Malformed(text.to_owned());
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let unit = unit_bits(unit.trim_start()).ok_or_else(malformed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 9 || number.ends_with('.') {
            return Err(malformed());
        }
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| malformed())?;
        let tenths = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| malformed())?);
        let bits = digits.checked_mul(u128::from(unit)).ok_or_else(malformed)? / tenths;
        let bytes = u64::try_from(bits / 8).map_err(|_| malformed())?;
        match NonZeroU64::new(bytes).filter(|_| bytes >= RATE_MIN) {
            Some(rate) => Ok(Self(rate)),
            None => Err(RateError::TooSmall(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ByteRate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<ByteRate> for String {
    /// Such that it is read as the same.
    fn from(rate: ByteRate) -> Self {
        let bytes = rate.0.get();
        match bytes {
            _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB/s", bytes >> 20),
            _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB/s", bytes >> 10),
            _ => format!("{bytes} B/s"),
        }
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", size(self.0.get()))
    }
}

/// A time as it is given on the command line.
///
/// # Errors
/// In words for the user.
pub fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("`{text}` is no time: write it as `2h`, `30m`, `1d` or `1h30m`");
    let mut rest = text.trim();
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let seconds = match unit {
            "s" | "sec" | "seconds" => 1,
            "m" | "min" | "minutes" => 60,
            "h" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => 86_400,
            _ => return Err(malformed()),
        };
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let part = number.checked_mul(seconds).ok_or_else(malformed)?;
        sum = sum.checked_add(part).ok_or_else(malformed)?;
        rest = behind.trim_start();
    }
    match Duration::from_secs(sum) {
        Duration::ZERO => Err(malformed()),
        time if time > BY_HAND_TIME_MAX => Err(format!("`{text}` is more than a year: leave the time out")),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("2 MiB/s", 2 << 20),
            ("2M", 2 << 20),
            ("500k", 500 << 10),
            ("1.5 MiB/s", 3 << 19),
            ("20 Mbit/s", 2_500_000),
            ("20Mbps", 0),
            ("1 MB/s", 1_000_000),
            (" 65536 ", 65_536),
            ("65536 B/s", 65_536),
            ("1 GiB", 1 << 30),
        ] {
            match text.parse::<ByteRate>() {
                Ok(rate) => assert_eq!(rate.0.get(), bytes, "{text}"),
                Err(error) => assert_eq!((bytes, error), (0, RateError::Malformed(text.to_owned()))),
            }
        }
        for text in [
            "",
            "fast",
            "-1M",
            "1..2M",
            ".5M",
            "1.M",
            "2 MiB/h",
            "1e9",
            "99999999999999999999999999999999999999999M",
        ] {
            let error = text.parse::<ByteRate>().unwrap_err();
            assert_eq!(error, RateError::Malformed(text.to_owned()));
            assert!(error.to_string().contains("2 MiB/s"), "it says what to write");
        }
        for text in ["0", "1k", "16383"] {
            assert!(text.parse::<ByteRate>().unwrap_err().to_string().contains("pause"), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("2h", 7_200),
            ("30m", 1_800),
            ("1h30m", 5_400),
            ("1d 12h", 129_600),
            ("90 min", 5_400),
            ("5s", 5),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "2", "h", "0h", "2 weeks", "-1h", "1.5h", "400d", "99999999999999999999d"] {
            assert!(duration(text).unwrap_err().contains(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_rate_that_was_written_is_read_as_the_same(bytes in 16_384_u64..) {
            let rate = ByteRate(NonZeroU64::new(bytes).unwrap());
            prop_assert_eq!(String::from(rate).parse(), Ok(rate));
        }

        #[test]
        fn no_text_does_any_harm(text in "\\PC{0,20}") {
            let _ = (text.parse::<ByteRate>(), duration(&text));
        }
    }
}
