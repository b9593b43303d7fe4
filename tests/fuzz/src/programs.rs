//! The programs' own edges: configuration, control sockets, the header fields of downloads.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use lighter_agent::control;
use lighter_message::name::percent_encode;
use lighter_protocol::UnixTime;
use lighter_relay::control::Question;
use lighter_relay::retrieval::disposition::{content_disposition, content_type};
use lighter_relay::retrieval::range::{Selection, Validators, select};
use lighter_shell::control::Lines;

use crate::Target;

/// Bytes of a line that control sockets take here.
const LINE_LEN_MAX: u64 = 4 * 1024;

/// These crates' targets.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: config, seeds: config_seeds },
    Target { name: "control_socket", run: control_socket, seeds: control_seeds },
    Target { name: "http_range", run: http_range, seeds: range_seeds },
    Target { name: "download_name", run: download_name, seeds: name_seeds },
];

/// A configuration file of any of the three programs.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = toml::from_str::<lighter_relay::config::Config>(text);
    if let Ok(config) = toml::from_str::<lighter_location::Config>(text) {
        let _ = config.checked().map(|config| config.networks());
    }
    if let Ok(config) = toml::from_str::<lighter_agent::config::Config>(text) {
        let written = toml::to_string_pretty(&config).expect("what was read can be written");
        let again: lighter_agent::config::Config = toml::from_str(&written).expect("and read again");
        assert!(format!("{again:?}") == format!("{config:?}"), "not the same");
    }
}

/// Lines on a control socket: questions, or the end of the conversation.
pub fn control_socket(data: &[u8]) {
    for line in data.split(|&byte| byte == b'\n') {
        if let Ok(question) = serde_json::from_slice::<Question>(line) {
            let text = serde_json::to_vec(&question).expect("what was decoded encodes");
            assert!(serde_json::from_slice::<Question>(&text).ok() == Some(question), "not the same");
        }
    }
    let read = async {
        let (mut lines, mut count) = (Lines::new(data, LINE_LEN_MAX), 0_usize);
        while let Ok(Some(_)) = lines.read::<control::Question>().await {
            count += 1;
        }
        count
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert!(runtime.block_on(read) <= data.len(), "more questions than bytes");
}

/// The fields of a request for a download, one a line: a range that comes out lies within the download.
pub fn http_range(data: &[u8]) {
    let Some((size, fields)) = data.split_first_chunk() else { return };
    let size = u64::from_le_bytes(*size);
    let mut headers = HeaderMap::new();
    for line in fields.split(|&byte| byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let there = Validators { size, etag: "\"tag\"", modified: UnixTime(1_700_000_000) };
    for is_get in [true, false] {
        match select(&headers, is_get, &there) {
            Selection::Part(range) => {
                assert!(is_get && range.start < range.end && range.end <= size, "{range:?} of {size}");
            }
            Selection::Unsatisfiable => assert!(is_get, "no ranges but for GET"),
            Selection::Whole | Selection::NotModified | Selection::PreconditionFailed => {}
        }
    }
}

/// An attachment's name and type: what comes out is one header field's value, and nothing that a browser runs.
pub fn download_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let disposition = content_disposition(&text);
    assert!(
        disposition.starts_with("attachment; filename=\"") && is_visible(&disposition),
        "{disposition:?}"
    );
    assert!(disposition.matches('"').count() == 2, "the quotes can be left: {disposition:?}");
    let media_type = content_type(&text);
    assert!(is_visible(&media_type) && HeaderValue::from_str(&media_type).is_ok(), "{media_type:?}");
    assert!(
        !["html", "script", "svg", "xml"].iter().any(|active| media_type.contains(active)),
        "{media_type:?}"
    );
    let encoded = percent_encode(&text);
    assert!(
        encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)),
        "{encoded:?}"
    );
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

// ---- seeds ----

fn config_seeds() -> Vec<Vec<u8>> {
    let peer = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
    [
        "data = \"/srv/lighter\"\nhostname = \"b.example\"\ndomains = [\"b.example\"]\nroles = [\"smtp\", \"storage\"]\n\
         [smtp]\nlisten = [\"127.0.0.1:0\"]\n[next_hop]\nkind = \"lmtp\"\naddress = \"127.0.0.1:24\"\ntls = \"off\"\n\
         [retention]\ndays = 30\n"
            .to_owned(),
        "domains = [\"B.example\"]\nlisten = \"127.0.0.1:7080\"\nping_interval_s = 60\nttl_s = 150\n\
         allowed_networks = [\"10.0.0.0/8\"]\n"
            .to_owned(),
        format!(
            "mailbox = \"alice@b.example\"\n[location]\nurl = \"https://b.example\"\npeer = \"{peer}\"\n\
             [send]\ntrust_presence = true\n"
        ),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn control_seeds() -> Vec<Vec<u8>> {
    let delivery = "22".repeat(16);
    let send =
        "{\"send\":{\"to\":[\"a@b.example\"],\"cc\":[],\"subject\":\"s\",\"body\":\"b\",\"files\":[\"/x\"]}}";
    [
        format!(
            "\"status\"\n\"list\"\n{{\"delivery\":\"{delivery}\"}}\n{{\"lookup\":\"a@b.example\"}}\n{send}\n"
        ),
        format!("{{\"ask\":\"queue\"}}\n{{\"ask\":\"ticket\",\"delivery\":\"{delivery}\"}}\n"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn range_seeds() -> Vec<Vec<u8>> {
    [
        "Range: bytes=0-0\nIf-Range: \"tag\"\n",
        "range: bytes=-500\n",
        "Range: bytes=9500-\nIf-None-Match: W/\"other\", \"another\"\n",
        "Range: bytes=500-600,601-999\nIf-Match: *\n",
        "Range: bytes=18446744073709551615-18446744073709551616\n",
    ]
    .map(|fields| [&10_000_u64.to_le_bytes()[..], fields.as_bytes()].concat())
    .to_vec()
}

fn name_seeds() -> Vec<Vec<u8>> {
    [
        "../../\u{202e}fdp.exe",
        "a\"; filename=\"b.html\r\nX: y",
        "text/html; charset=utf-8",
        "CON",
        "image/svg+xml",
        "%41",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
