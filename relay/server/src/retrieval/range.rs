//! Conditional and range requests (RFC 9110 §13 and §14): whether to answer with bytes, and which, decided without I/O.
//!
//! One range is answered with 206. Several are answered with the whole, as RFC 9110 §14.2 allows: nothing that fetches
//! attachments asks for several, and `multipart/byteranges` is how small requests are made into large answers
//! (CVE-2011-3192).
//!
//! The entity tag is the hash of the bytes; the date is when the message came in. Both are strong validators (§8.8): what
//! lies under a ticket never changes.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use axum::http::{HeaderMap, HeaderName};
use lighter_protocol::UnixTime;

/// What there is to be selected from.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Bytes.
    pub size: u64,
    /// The strong entity tag, quotes included.
    pub etag: &'a str,
    /// Since when it has been as it is.
    pub modified: UnixTime,
}

/// What to answer a GET or HEAD with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 200: everything.
    Whole,
    /// 206: these bytes, at least one.
    Part(Range<u64>),
    /// 416: no byte of it is there.
    Unsatisfiable,
    /// 304: the client has it (RFC 9110 §13.1.2, §13.1.3).
    NotModified,
    /// 412: the client wants another (RFC 9110 §13.1.1, §13.1.4).
    PreconditionFailed,
}

/// Decides by the headers of a request, in the order of RFC 9110 §13.2.2. `is_get`: ranges mean something for GET only
/// (§14.2).
pub fn select(headers: &HeaderMap, is_get: bool, there: &Validators<'_>) -> Selection {
    let is_met = if headers.contains_key(IF_MATCH) {
        is_listed(headers, &IF_MATCH, there.etag, Strength::Strong)
    } else {
        date(headers, &IF_UNMODIFIED_SINCE).is_none_or(|since| there.modified <= since)
    };
    if !is_met {
        return Selection::PreconditionFailed;
    }
    let is_known = if headers.contains_key(IF_NONE_MATCH) {
        is_listed(headers, &IF_NONE_MATCH, there.etag, Strength::Weak)
    } else {
        date(headers, &IF_MODIFIED_SINCE).is_some_and(|since| there.modified <= since)
    };
    if is_known {
        return Selection::NotModified;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Selection::Whole };
    if !is_get || !is_current(headers, there) {
        return Selection::Whole;
    }
    match range.to_str().ok().and_then(|text| single_range(text, there.size)) {
        Some(Some(range)) => Selection::Part(range),
        Some(None) => Selection::Unsatisfiable,
        None => Selection::Whole,
    }
}

/// Whether what the client has a part of is what is there (RFC 9110 §13.1.5): the tag, compared strongly, or exactly
/// the date. Another entity, a weak tag, another date, or neither of the two: the client gets the whole.
fn is_current(headers: &HeaderMap, there: &Validators<'_>) -> bool {
    let mut fields = headers.get_all(IF_RANGE).iter();
    let Some(field) = fields.next() else { return true };
    if fields.next().is_some() {
        return false;
    }
    field.as_bytes() == there.etag.as_bytes() || date(headers, &IF_RANGE) == Some(there.modified)
}

/// The one date in a field; none where there is no valid one: then the field is ignored (RFC 9110 §13.1.3).
fn date(headers: &HeaderMap, field: &HeaderName) -> Option<UnixTime> {
    let mut values = headers.get_all(field).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let date = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    Some(UnixTime(date.duration_since(UNIX_EPOCH).ok()?.as_secs()))
}

/// A time as HTTP writes it (RFC 9110 §5.6.7).
pub fn http_date(time: UnixTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.0.min(LAST_SECOND)))
}

/// 9999-12-31 23:59:59: what the format can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// The one range that `text` asks for; inner `None`: it is not there. Outer `None`: not one well-formed byte range, so
/// the field is ignored.
fn single_range(text: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (unit, spec) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    if first.is_empty() {
        // The last so many bytes.
        let count = number(last)?.min(size);
        return Some((count > 0).then(|| size - count..size));
    }
    let first = number(first)?;
    let end = match last {
        "" => size,
        last => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        }
    };
    Some((first < size).then_some(first..end))
}

/// Decimal digits only: no sign, no blank. More than fits is the largest that does.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
}

/// Whether a list of entity tags has `etag` in it, or is `*` (RFC 9110 §8.8.3.2). Ours holds no comma.
fn is_listed(headers: &HeaderMap, field: &HeaderName, etag: &str, strength: Strength) -> bool {
    let values = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|tag| {
        let comparable = match strength {
            Strength::Weak => tag.strip_prefix("W/").unwrap_or(tag),
            Strength::Strong => tag,
        };
        tag == "*" || comparable == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"abc\"";
    /// Sun, 06 Nov 1994 08:49:37 GMT: the example of RFC 9110 §5.6.7.
    const MODIFIED: UnixTime = UnixTime(784_111_777);
    const THERE: Validators<'_> = Validators { size: 100, etag: ETAG, modified: MODIFIED };

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn range(text: &str) -> Selection {
        select(&headers(&[(RANGE, text)]), true, &THERE)
    }

    #[test]
    fn one_range_is_given_as_asked_and_cut_at_the_end() {
        for (text, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=10-19", 10..20),
            ("bytes=99-", 99..100),
            ("bytes=50-1000", 50..100),
            ("bytes=0-18446744073709551615", 0..100),
            ("bytes=0-99999999999999999999999", 0..100),
            ("bytes=-1", 99..100),
            ("bytes=-1000", 0..100),
            ("Bytes=5-5", 5..6),
        ] {
            assert_eq!(range(text), Selection::Part(expected), "{text}");
        }
    }

    #[test]
    fn bad_input_40_a_range_without_a_byte_is_not_satisfiable() {
        for text in [
            "bytes=100-",
            "bytes=100-200",
            "bytes=-0",
            "bytes=18446744073709551615-",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(range(text), Selection::Unsatisfiable, "{text}");
        }
        let nothing = Validators { size: 0, ..THERE };
        let empty = select(&headers(&[(RANGE, "bytes=0-")]), true, &nothing);
        assert_eq!(empty, Selection::Unsatisfiable);
    }

    #[test]
    fn bad_input_40_what_is_no_single_range_is_ignored() {
        let thousand = format!("bytes={}", vec!["0-0"; 1_000].join(","));
        for text in [
            "bytes=20-10",
            "bytes=0-1,0-1",
            "bytes=0-50,20-70",
            thousand.as_str(),
            "bytes=",
            "bytes",
            "bytes=-",
            "bytes=--1",
            "bytes=+1-2",
            "bytes= 1 - 2",
            "bytes=a-b",
            "lines=0-1",
            "",
            "bytes=0x0-1",
            "bytes=1-2-3",
        ] {
            assert_eq!(range(text), Selection::Whole, "{text}");
        }
        for second in ["bytes=0-1", "bytes=2-3"] {
            let mut twice = headers(&[(RANGE, "bytes=0-1")]);
            twice.append(RANGE, second.parse().unwrap());
            assert_eq!(select(&twice, true, &THERE), Selection::Whole, "the field twice");
        }
    }

    #[test]
    fn bad_input_40_rfc_9110_13_1_5_if_range_with_another_tag_or_date_gives_the_whole() {
        let with = |text: &str| select(&headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, text)]), true, &THERE);
        for text in [
            ETAG,
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(with(text), Selection::Part(0..1), "{text}");
        }
        for text in [
            "\"old\"",
            "W/\"abc\"",
            "abc",
            "*",
            "",
            "\"abc\", \"old\"",
            "Sun, 06 Nov 1994 08:49:36 GMT",
            // Later is not the same (§13.1.5: an exact match).
            "Sun, 06 Nov 1994 08:49:38 GMT",
            "Sat, 21 Nov 2026 11:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "yesterday",
        ] {
            assert_eq!(with(text), Selection::Whole, "{text}");
        }
        let mut twice = headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, ETAG)]);
        twice.append(IF_RANGE, ETAG.parse().unwrap());
        assert_eq!(select(&twice, true, &THERE), Selection::Whole, "the field twice");
        let without_range = headers(&[(IF_RANGE, "\"old\"")]);
        assert_eq!(select(&without_range, true, &THERE), Selection::Whole);
    }

    #[test]
    fn rfc_9110_14_2_head_ignores_ranges() {
        assert_eq!(select(&headers(&[(RANGE, "bytes=0-0")]), false, &THERE), Selection::Whole);
    }

    #[test]
    fn rfc_9110_13_1_1_and_13_1_2_tags_decide_whether_anything_is_sent() {
        for is_get in [true, false] {
            let with = |name, tags: &str| select(&headers(&[(name, tags)]), is_get, &THERE);
            for tags in ["\"abc\"", "\"x\", \"abc\"", "W/\"abc\"", "*", "\"a,b\",\"abc\""] {
                assert_eq!(with(IF_NONE_MATCH, tags), Selection::NotModified, "{tags}");
            }
            assert_eq!(with(IF_NONE_MATCH, "\"x\""), Selection::Whole);
            assert_eq!(with(IF_NONE_MATCH, ""), Selection::Whole);
            assert_eq!(with(IF_MATCH, "\"x\""), Selection::PreconditionFailed);
            assert_eq!(with(IF_MATCH, "W/\"abc\""), Selection::PreconditionFailed, "compared strongly");
            assert_eq!(with(IF_MATCH, "\"abc\""), Selection::Whole);
            assert_eq!(with(IF_MATCH, "*"), Selection::Whole);
        }
    }

    #[test]
    fn rfc_9110_13_1_3_and_13_1_4_dates_decide_whether_anything_is_sent() {
        let with = |name, date: &str| select(&headers(&[(name, date)]), true, &THERE);
        let (before, same, after) = (
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        );
        assert_eq!(with(IF_MODIFIED_SINCE, before), Selection::Whole);
        assert_eq!(with(IF_MODIFIED_SINCE, same), Selection::NotModified);
        assert_eq!(with(IF_MODIFIED_SINCE, after), Selection::NotModified);
        assert_eq!(with(IF_UNMODIFIED_SINCE, before), Selection::PreconditionFailed);
        assert_eq!(with(IF_UNMODIFIED_SINCE, same), Selection::Whole);
        for name in [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
            assert_eq!(with(name, "no date"), Selection::Whole, "what is no date is ignored");
        }
    }

    #[test]
    fn rfc_9110_13_2_2_tags_count_before_dates_and_both_before_ranges() {
        let after = "Sun, 06 Nov 2094 08:49:37 GMT";
        let with = |fields: &[(HeaderName, &str)]| select(&headers(fields), true, &THERE);
        let other_tag = with(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, after), (RANGE, "bytes=1-1")]);
        assert_eq!(other_tag, Selection::Part(1..2), "§13.1.3: the date is ignored beside If-None-Match");
        let right_tag = with(&[(IF_MATCH, ETAG), (IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1993 08:49:37 GMT")]);
        assert_eq!(right_tag, Selection::Whole, "§13.1.4: the date is ignored beside If-Match");
        assert_eq!(with(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, ETAG)]), Selection::PreconditionFailed);
        assert_eq!(with(&[(IF_NONE_MATCH, ETAG), (RANGE, "bytes=500-")]), Selection::NotModified);
    }

    #[test]
    fn rfc_9110_5_6_7_dates_are_written_in_the_preferred_form() {
        assert_eq!(http_date(MODIFIED), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(UnixTime(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
