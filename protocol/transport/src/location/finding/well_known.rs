//! `https://DOMAIN/.well-known/lighter` (RFC 8615): `{"location": "https://HOST[:PORT]"}`. Fields that are not known are
//! passed over, for later versions.

use std::net::IpAddr;

use hyper::Uri;
use serde::Deserialize;

use super::dns::DnsError;
use crate::location::address::{Network, may_be_dialled};
use crate::location::limits::WELL_KNOWN_LEN_MAX;

/// The path.
pub const PATH: &str = "/.well-known/lighter";

/// Why what a domain says is not used.
#[derive(Debug, thiserror::Error)]
pub enum WellKnownError {
    /// Its host has no address, or none that may be dialled.
    #[error(".well-known: {0}")]
    Dns(#[source] DnsError),
    /// It does not answer.
    #[error(".well-known: no answer")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers with something else: a redirect is not followed.
    #[error(".well-known: status {0}")]
    Status(u16),
    /// It is too long.
    #[error(".well-known: over {WELL_KNOWN_LEN_MAX} bytes")]
    TooLong,
    /// It is not what it should be.
    #[error(".well-known: not the JSON that it should be")]
    Malformed,
    /// It names something that is not `https://HOST[:PORT]`.
    #[error(".well-known: location must be https://host or https://host:port, without a path")]
    Url,
    /// It names an address that is not dialled.
    #[error(".well-known: names an address that is not dialled")]
    Address,
}

#[derive(Deserialize)]
struct WellKnown {
    location: String,
}

/// The location server that `text` names: `https://host[:port]`, not more. An address in it must be one that may be
/// dialled, with `allowed` the networks that the admin named.
///
/// # Errors
/// [`WellKnownError`].
pub fn parse(text: &[u8], allowed: &[Network]) -> Result<String, WellKnownError> {
    if text.len() > WELL_KNOWN_LEN_MAX {
        return Err(WellKnownError::TooLong);
    }
    let WellKnown { location } = serde_json::from_slice(text).map_err(|_| WellKnownError::Malformed)?;
    let uri: Uri = location.parse().map_err(|_| WellKnownError::Url)?;
    let authority =
        uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or(WellKnownError::Url)?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !location.contains('#');
    if !is_bare || authority.as_str().contains('@') || authority.port_u16() == Some(0) {
        return Err(WellKnownError::Url);
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) if may_be_dialled(address, allowed) => {}
        Ok(_) => return Err(WellKnownError::Address),
        // Numbers in other notations (`0x7f.1`, `127.1`) would be an address to some resolvers.
        Err(_) if !is_host(host) => return Err(WellKnownError::Url),
        Err(_) => {}
    }
    Ok(format!("https://{authority}"))
}

/// Whether it is a name of letters, digits, dots and hyphens with a last part that is no number (RFC 1123 §2.1).
fn is_host(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
        && last.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(location: &str) -> Option<String> {
        parse(serde_json::json!({ "location": location }).to_string().as_bytes(), &[]).ok()
    }

    #[test]
    fn it_names_any_host_by_https() {
        for (url, is) in [
            ("https://location.provider.example", "https://location.provider.example"),
            ("https://location.provider.example/", "https://location.provider.example"),
            ("https://location.provider.example:8443", "https://location.provider.example:8443"),
            ("https://8.8.8.8:8443", "https://8.8.8.8:8443"),
        ] {
            assert_eq!(parsed(url).as_deref(), Some(is));
        }
        let later = br#"{"version": 2, "location": "https://a.example", "more": [1]}"#;
        assert_eq!(parse(later, &[]).unwrap(), "https://a.example");
    }

    #[test]
    fn bad_input_36_a_loopback_private_or_metadata_address_in_it_is_not_used() {
        for url in [
            "https://127.0.0.1",
            "https://10.0.0.1:8443",
            "https://169.254.169.254",
            "https://[::1]",
            "https://[fd00:ec2::254]",
            "https://[::ffff:127.0.0.1]",
            "https://0.0.0.0",
            "https://127.1",
            "https://0x7f.0.0.1",
            "https://2130706433",
            "https://0177.0.0.1",
        ] {
            assert_eq!(parsed(url), None, "{url}");
        }
        let text = br#"{"location": "https://127.0.0.1:8443"}"#;
        assert!(parse(text, &Network::local()).is_ok(), "the admin said so");
    }

    #[test]
    fn bad_input_41_anything_else_is_refused() {
        for url in [
            "http://a.example",
            "ftp://a.example",
            "https://",
            "https://a.example/path",
            "https://a.example?query",
            "https://a.example#x",
            "https://user@a.example",
            "https://user:pass@a.example",
            "https://a.example:0",
            "https://a_b.example",
            "a.example",
            "",
        ] {
            assert_eq!(parsed(url), None, "{url}");
        }
        for text in
            ["", "null", "[]", "{}", r#"{"location": 1}"#, "<html>", r#"{"location": "https://a.example""#]
        {
            assert!(parse(text.as_bytes(), &[]).is_err(), "{text}");
        }
        let deep = "[".repeat(4_000);
        assert!(parse(deep.as_bytes(), &[]).is_err());
        assert!(matches!(parse(&[b' '; WELL_KNOWN_LEN_MAX + 1], &[]), Err(WellKnownError::TooLong)));
    }
}
