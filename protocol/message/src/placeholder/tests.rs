use lighter_protocol::BlobId;

use super::*;

fn part(name: &str) -> PartEntry {
    PartEntry {
        blob: BlobId([0xaa; 32]),
        size: 25_000_000,
        recipe: "b64:76:crlf:crlf".parse().unwrap(),
        name: name.to_owned(),
        media_type: "application/pdf".to_owned(),
        header: Vec::new(),
    }
}

fn context(landing: Option<&str>) -> StubContext {
    StubContext {
        delivery: DeliveryId([0x5a; 16]),
        landing: landing.map(str::to_owned),
        expires: Some(UnixTime(1_797_811_200)),
    }
}

fn write(part: &PartEntry, context: &StubContext, line_end: LineEnd) -> String {
    let mut out = Vec::new();
    Placeholder { part, number: 3, context, is_root: false }.write(line_end, &mut out);
    String::from_utf8(out).unwrap()
}

const LANDING: &str = "https://relay.example.org/t/0123456789abcdefghijklmnopqrstuvwxyzABCDEFG/";

#[test]
fn a_placeholder_says_what_was_there_and_where_it_is() {
    let text = write(&part("Report 2026.pdf"), &context(Some(LANDING)), LineEnd::CrLf);
    for expected in [
        "Content-Type: text/html; charset=us-ascii\r\n",
        "Content-Transfer-Encoding: 7bit\r\n",
        "filename=\"Report 2026.pdf.html\"\r\n",
        "X-Mozilla-Cloud-Part: cloudFile;\r\n",
        "/3/Report%202026.pdf;\r\n",
        "Report 2026.pdf",
        "application/pdf &#183; 25.0 MB (25,000,000 bytes)",
        "Kept for you until 21 December 2026.",
        &format!("\"{LANDING}\""),
        &"aa".repeat(32),
    ] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    assert_eq!(text.matches("href").count(), 1, "one link");
    assert!(text.ends_with("<!-- Lighter-End: 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a -->\r\n"));
}

#[test]
fn a_placeholder_of_a_sending_agent_has_no_link() {
    let text = write(&part("a.pdf"), &context(None), LineEnd::Lf);
    assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("X-Mozilla"), "{text}");
    assert!(!text.contains('\r'));
}

/// SPEC: D2
#[test]
fn bad_input_20_no_hop_has_a_reason_to_encode_a_placeholder_anew() {
    let names = [
        "a.pdf".to_owned(),
        "名前".repeat(60),
        "x".repeat(4_096),
        "ü".repeat(99),
        "<>&\"'`".repeat(20),
        "--B".to_owned(),
        "From me".to_owned(),
        ".".repeat(50) + "a",
        "\r\n.\r\n".to_owned(),
        "\u{1f600}".repeat(30),
        "%41;filename=x".to_owned(),
    ];
    for name in names {
        let text = write(&part(&name), &context(Some(LANDING)), LineEnd::CrLf);
        for line in text.split_inclusive("\r\n") {
            let line = line.strip_suffix("\r\n").unwrap();
            assert!(line.len() <= LINE_LEN || line.starts_with(" url="), "too long: {line}");
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "not plain ASCII: {line:?}");
            let bad = ["--", ".", "From ", ">From"].iter().any(|start| line.starts_with(start));
            assert!(!bad, "a line that others take for something else: {line}");
        }
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let starts = head.split("\r\n").filter(|line| !line.starts_with(' ')).count();
        assert_eq!(starts, 4, "a name made a field of its own: {head}");
    }
}

#[test]
fn sizes_read_well() {
    for (size, text) in [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB (1,000 bytes)"),
        (999_949, "999.9 kB (999,949 bytes)"),
        (999_950, "1.0 MB (999,950 bytes)"),
        (26_214_400, "26.2 MB (26,214,400 bytes)"),
        (u64::MAX, "18 EB (18,446,744,073,709,551,615 bytes)"),
    ] {
        assert_eq!(size_text(size), text);
    }
}
