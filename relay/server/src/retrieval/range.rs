//! Range requests (RFC 9110 §14): which bytes of how many, decided without I/O.
//!
//! One range is answered with 206. Several are answered with the whole, as RFC 9110 §14.2 allows: nothing that fetches
//! attachments asks for several, and `multipart/byteranges` is how small requests are made into large answers
//! (CVE-2011-3192).

use std::ops::Range;

use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderName};

/// What to answer a GET or HEAD with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 200: everything.
    Whole,
    /// 206: these bytes, at least one.
    Part(Range<u64>),
    /// 416: no byte of it is there.
    Unsatisfiable,
    /// 304: the client has it (RFC 9110 §13.1.2).
    NotModified,
    /// 412: the client wants another (RFC 9110 §13.1.1).
    PreconditionFailed,
}

/// Decides by the headers of a request for something of `size` bytes with the strong entity tag `etag` (quotes
/// included). `is_get`: ranges mean something for GET only (RFC 9110 §14.2).
pub fn select(headers: &HeaderMap, is_get: bool, size: u64, etag: &str) -> Selection {
    if headers.contains_key(IF_MATCH) && !is_listed(headers, &IF_MATCH, etag, Strength::Strong) {
        return Selection::PreconditionFailed;
    }
    if is_listed(headers, &IF_NONE_MATCH, etag, Strength::Weak) {
        return Selection::NotModified;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Selection::Whole };
    // RFC 9110 §13.1.5: another entity, a weak tag or a date (there is no Last-Modified to compare): the whole.
    let is_current = headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
    if !is_get || !is_current {
        return Selection::Whole;
    }
    match range.to_str().ok().and_then(|text| single_range(text, size)) {
        Some(Some(range)) => Selection::Part(range),
        Some(None) => Selection::Unsatisfiable,
        None => Selection::Whole,
    }
}

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

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn range(text: &str) -> Selection {
        select(&headers(&[(RANGE, text)]), true, 100, ETAG)
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
        let empty = select(&headers(&[(RANGE, "bytes=0-")]), true, 0, ETAG);
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
            let twice = headers(&[(RANGE, "bytes=0-1"), (RANGE, second)]);
            assert_eq!(select(&twice, true, 100, ETAG), Selection::Whole, "the field twice");
        }
    }

    #[test]
    fn bad_input_40_if_range_with_another_tag_gives_the_whole() {
        let with = |tag: &str| select(&headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, tag)]), true, 100, ETAG);
        assert_eq!(with(ETAG), Selection::Part(0..1));
        for tag in ["\"old\"", "W/\"abc\"", "abc", "*", "Sat, 21 Nov 2026 11:00:00 GMT"] {
            assert_eq!(with(tag), Selection::Whole, "{tag}");
        }
    }

    #[test]
    fn head_ignores_ranges() {
        assert_eq!(select(&headers(&[(RANGE, "bytes=0-0")]), false, 100, ETAG), Selection::Whole);
    }

    #[test]
    fn what_the_client_has_is_not_sent_again_and_what_it_does_not_want_neither() {
        let with = |name, tags: &str| select(&headers(&[(name, tags)]), true, 100, ETAG);
        for tags in ["\"abc\"", "\"x\", \"abc\"", "W/\"abc\"", "*"] {
            assert_eq!(with(IF_NONE_MATCH, tags), Selection::NotModified, "{tags}");
        }
        assert_eq!(with(IF_NONE_MATCH, "\"x\""), Selection::Whole);
        assert_eq!(with(IF_MATCH, "\"x\""), Selection::PreconditionFailed);
        assert_eq!(with(IF_MATCH, "W/\"abc\""), Selection::PreconditionFailed);
        assert_eq!(with(IF_MATCH, "\"abc\""), Selection::Whole);
    }
}
