//! Messages that are broken or hostile: each comes back byte for byte, and what readers differ about stays in it.

mod common;

use std::fmt::Write;

use common::{comes_back, comes_back_in_pieces, detach};
use lighter_message::{Detacher, Event, Policy, Recipe, ReplayError};

/// Everything but the defaults' threshold.
fn small() -> Policy {
    Policy { min_size: 1, ..Policy::default() }
}

/// `bytes` in base64, in lines of 76.
fn base64(bytes: &[u8]) -> String {
    let characters = base64_simd::STANDARD.encode_to_string(bytes);
    characters.as_bytes().chunks(76).fold(String::new(), |mut body, line| {
        body.push_str(std::str::from_utf8(line).unwrap_or_default());
        body + "\r\n"
    })
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// An attachment as most senders write it.
fn attachment(fields: &str, body: &str) -> String {
    format!(
        "Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n{fields}\r\n{body}"
    )
}

fn multipart(parts: &[String]) -> Vec<u8> {
    let mut message = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned();
    for part in parts {
        let _ = write!(message, "--b\r\n{part}");
    }
    message += "--b--\r\n";
    message.into_bytes()
}

/// The message comes back, fed in many ways, and that many parts go under that policy.
fn check(message: &[u8], policy: Policy, parts: usize) {
    for (pieces, block_len) in [(&[1 << 20][..], 1 << 16), (&[1_000, 1, 77], 100), (&[3], 1)] {
        if message.len() > 50_000 && pieces == [3] {
            continue;
        }
        let detached = comes_back_in_pieces(message, policy, pieces, block_len);
        assert_eq!(
            detached.summary.parts.len(),
            parts,
            "{}",
            String::from_utf8_lossy(&message[..message.len().min(500)])
        );
    }
    comes_back(message, Policy::everything());
}

/// By default nothing goes.
fn untouched(message: &[u8]) {
    check(message, small(), 0);
}

#[test]
fn bad_input_17_headers_without_bounds_pass_in_bounded_memory() {
    let lines = "X-Line: 12345678\r\n".repeat(10_000);
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    let addresses = format!("To: {}z@example.org\r\n", "a@example.org, ".repeat(1_000_000));
    let folded = format!("To: a@example.org{}\r\n", ",\r\n a@example.org".repeat(100_000));
    for field in [lines, long, addresses, folded, "no colon in this line\r\n".to_owned(), ":\r\n".to_owned()]
    {
        let head = format!("MIME-Version: 1.0\r\n{field}Content-Type: multipart/mixed; boundary=b\r\n\r\n");
        let message = format!("{head}--b\r\n{}--b--\r\n", attachment("", "QUJD\r\n"));
        untouched(message.as_bytes());
        // The same in a part: the others still go.
        let message = multipart(&[attachment(&field, "QUJD\r\n"), attachment("", "QUJD\r\n")]);
        let goes = usize::from(field.len() < 100_000);
        check(&message, small(), goes);
    }
}

#[test]
fn bad_input_17_a_part_with_a_large_header_stays_and_the_next_one_goes() {
    let field = format!("X-Long: {}\r\n", "x".repeat(20_000));
    check(&multipart(&[attachment(&field, "QUJD\r\n"), attachment("", "QUJD\r\n")]), small(), 1);
}

#[test]
fn bad_input_18_fields_that_count_twice_leave_their_part_untouched() {
    for field in [
        "Content-Type: text/html\r\n",
        "Content-Type: multipart/mixed; boundary=c\r\n",
        "Content-Transfer-Encoding: 7bit\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "CONTENT-TYPE : text/html\r\n",
    ] {
        untouched(&multipart(&[attachment(field, "QUJD\r\n")]));
    }
    // Two versions or two senders say nothing about where a part ends.
    for field in
        ["MIME-Version: 1.0\r\n", "MIME-Version: 2.0\r\n", "From: a@example.org\r\nFrom: b@example.org\r\n"]
    {
        let message = [field.as_bytes(), &multipart(&[attachment("", "QUJD\r\n")])].concat();
        check(&message, small(), 1);
    }
    let twice = "Content-Type: multipart/mixed; boundary=b\r\n".repeat(2);
    untouched(format!("{twice}\r\n--b\r\n{}--b--\r\n", attachment("", "QUJD\r\n")).as_bytes());
}

/// The name that the part is shown under.
fn shown_name(fields: &str) -> String {
    let part = format!("Content-Type: application/pdf\r\n{fields}\r\nbody\r\n");
    let detached = comes_back(&multipart(&[part]), small());
    assert_eq!(detached.summary.parts.len(), 1);
    detached.summary.parts[0].facts.name.clone()
}

#[test]
fn bad_input_19_name_parameters_of_every_form_do_no_harm() {
    let continued: String = (0..500).map(|n| format!(";\r\n filename*{n}=x{n}")).collect();
    for (parameters, name) in [
        ("; filename*0=a; filename*1=.pdf", "a.pdf"),
        ("; filename*0=a; filename*2=.pdf", "a"),
        ("; filename*1=b; filename=plain.pdf", "plain.pdf"),
        ("; filename*=utf-8''%2e%2e%2fx.pdf", "x.pdf"),
        ("; filename*0*=utf-8''%E2%80%AE; filename*1=fdp.exe", "fdp.exe"),
        ("; filename*99999999999999999999=x", "attachment"),
        ("; filename*-1=x", "attachment"),
        ("; filename**=x", "attachment"),
        ("; filename*0**=x", "attachment"),
        ("; filename*=x'y", "x'y"),
    ] {
        assert_eq!(
            shown_name(&format!("Content-Disposition: attachment{parameters}\r\n")),
            name,
            "{parameters}"
        );
    }
    assert!(shown_name(&format!("Content-Disposition: attachment{continued}\r\n")).len() <= 200);
}

#[test]
fn bad_input_20_hostile_names_stay_out_of_the_stub() {
    for (given, name) in [
        ("../../x", "x"),
        ("..\\\\..\\\\x", "x"),
        ("CON", "_CON"),
        ("a\\\"; filename=b", "a_; filename=b"),
        ("", "attachment"),
        ("....", "attachment"),
        ("=?utf-8?Q?a=0D=0ABcc:_x?=", "aBcc_ x"),
        ("=?utf-8?Q?=E2=80=AEgpj.exe?=", "gpj.exe"),
        ("=?utf-8?B?AGE=?=", "a"),
        ("a\u{0}b.pdf", "ab.pdf"),
    ] {
        let fields = format!("Content-Disposition: attachment; filename=\"{given}\"\r\n");
        if given.contains('\0') {
            // A NUL in a header is read differently: the part stays.
            untouched(&multipart(&[attachment(&fields, "QUJD\r\n")]));
        } else {
            assert_eq!(shown_name(&fields), name, "{given}");
        }
    }
    let fields = format!("Content-Disposition: attachment; filename=\"{}.pdf\"\r\n", "x".repeat(4_096));
    assert!(shown_name(&fields).len() <= 200);
}

#[test]
fn bad_input_21_nothing_from_the_message_is_markup_in_the_stub() {
    for name in [
        "<script>alert(1)</script>.html",
        "--><script>alert(1)</script>",
        "<!--",
        "a\\\"><img src=x onerror=alert(1)>",
        "&lt;b&gt;",
        "=?utf-8?B?PHNjcmlwdD4=?=",
        "<!-- Lighter-End: 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a -->",
        "'; drop table",
    ] {
        let fields = format!("Content-Disposition: attachment; filename=\"{name}\"\r\n");
        let detached = comes_back(&multipart(&[attachment(&fields, "QUJD\r\n")]), small());
        let stub = String::from_utf8(detached.stub).unwrap();
        let card = &stub[stub.find("<!DOCTYPE").unwrap()..];
        for markup in ["<script", "<img", "onerror=alert(1)>", "alert(1)<", "\"><img"] {
            assert!(!card.contains(markup), "{name}: {markup} in {card}");
        }
        assert_eq!(card.matches("Lighter-End: 5a").count(), 1, "the end mark is ours alone: {card}");
    }
}

#[test]
fn bad_input_22_a_message_with_a_field_of_our_own_is_untouched() {
    let body = multipart(&[attachment("", "QUJD\r\n")]);
    for field in ["Lighter-Message: v=1\r\n", "lighter-part: x\r\n", "Lighter-Whatever:\r\n x\r\n"] {
        let message = [field.as_bytes(), &body].concat();
        assert_eq!(comes_back(&message, Policy::everything()).summary.parts.len(), 0, "{field}");
        let enclosed = format!("Content-Type: message/rfc822\r\n\r\n{}", String::from_utf8_lossy(&message));
        check(format!("Subject: x\r\n{enclosed}").as_bytes(), Policy::everything(), 0);
    }
    // A forged verdict of another server is none of our business here: it comes back as it was.
    let message = [b"Authentication-Results: mx.example.org; dkim=pass\r\n", body.as_slice()].concat();
    check(&message, small(), 1);
}

#[test]
fn bad_input_23_structure_without_bounds_is_read_up_to_a_bound() {
    let mut nested = String::new();
    for level in 0..10_000 {
        let _ = write!(
            nested,
            "Content-Type: multipart/mixed; boundary=\"x{level:05}\"\r\n\r\n--x{level:05}\r\n"
        );
    }
    nested += &attachment("", "QUJD\r\n");
    untouched(nested.as_bytes());
    let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(10_000) + &attachment("", "QUJD\r\n");
    untouched(messages.as_bytes());
    let tiny = multipart(&vec![attachment("", "QUJD\r\n"); 20_000]);
    let detached = comes_back(&tiny, small());
    assert_eq!(detached.summary.parts.len(), lighter_message::limits::PARTS_MAX);
    let empty = multipart(&vec!["\r\n".to_owned(); 100_000]);
    untouched(&empty);
    let no_header = multipart(&vec![String::new(); 100_000]);
    untouched(&no_header);
}

#[test]
fn bad_input_23_forty_levels_are_read() {
    let mut message = String::new();
    for level in 0..40 {
        let _ = write!(
            message,
            "Content-Type: multipart/mixed; boundary=\"x{level:05}\"\r\n\r\n--x{level:05}\r\n"
        );
    }
    message += &attachment("", "QUJD\r\n");
    for level in (0..40).rev() {
        let _ = write!(message, "--x{level:05}--\r\n");
    }
    check(message.as_bytes(), small(), 1);
}

/// A message of two attachments with this `boundary` parameter and this delimiter.
fn bounded_by(parameter: &str, delimiter: &str) -> Vec<u8> {
    let part = attachment("", "QUJD\r\n");
    format!("Content-Type: multipart/mixed{parameter}\r\n\r\n--{delimiter}\r\n{part}--{delimiter}\r\n{part}--{delimiter}--\r\n")
        .into_bytes()
}

#[test]
fn bad_input_24_boundaries_that_readers_take_differently_stop_detaching() {
    let long = "x".repeat(2_048);
    let (at_limit, over_limit) = ("y".repeat(70), "y".repeat(71));
    check(&bounded_by("; boundary=b", "b"), small(), 2);
    check(&bounded_by("; boundary=\"a b\"", "a b"), small(), 2);
    check(&bounded_by(&format!("; boundary={at_limit}"), &at_limit), small(), 2);
    untouched(&bounded_by("", "b"));
    untouched(&bounded_by("; boundary", "b"));
    untouched(&bounded_by("; boundary=", ""));
    untouched(&bounded_by("; boundary=\"\"", ""));
    untouched(&bounded_by("; boundary=\"b \"", "b "));
    untouched(&bounded_by("; boundary=\"b", "b"));
    untouched(&bounded_by("; boundary=b; boundary=c", "b"));
    untouched(&bounded_by("; boundary*=us-ascii''b", "b"));
    untouched(&bounded_by(&format!("; boundary={over_limit}"), &over_limit));
    untouched(&bounded_by(&format!("; boundary={long}"), &long));
    // Trailing blanks, and a longer line.
    untouched(&bounded_by("; boundary=b", "b \t"));
    untouched(&bounded_by("; boundary=b", "bb"));
}

#[test]
fn bad_input_24_boundaries_within_each_other_stop_detaching_where_they_meet() {
    let nested = |inner: &str| {
        let part = attachment("", "QUJD\r\n");
        let within = format!(
            "Content-Type: multipart/mixed; boundary=\"{inner}\"\r\n\r\n--{inner}\r\n{part}--{inner}--\r\n"
        );
        multipart(&[part, within, attachment("", "QUJD\r\n")])
    };
    check(&nested("other"), small(), 3);
    check(&nested("b"), small(), 1);
    check(&nested("bc"), small(), 1);
    // Inside base64 a delimiter is a delimiter: base64 knows no dash.
    let inside = attachment("", &format!("{}--b\r\n\r\n{}", base64(&bytes(99)), base64(&bytes(99))));
    check(&multipart(&[inside]), small(), 1);
    // Line ends that change in a delimiter.
    let message =
        String::from_utf8(multipart(&[attachment("", "QUJD\r\n"), attachment("", "QUJD\r\n")])).unwrap();
    check(message.replacen("--b\r\n", "--b\n", 1).as_bytes(), small(), 0);
    check(message.replacen("--b--\r\n", "--b--\n", 1).as_bytes(), small(), 2);
}

#[test]
fn bad_input_25_multiparts_that_do_not_end_as_they_should_come_back() {
    let part = attachment("", "QUJD\r\n");
    let whole = String::from_utf8(multipart(&[part.clone(), part.clone()])).unwrap();
    check(whole.strip_suffix("--b--\r\n").unwrap().as_bytes(), small(), 2);
    check(whole.strip_suffix("\r\n").unwrap().as_bytes(), small(), 2);
    check(format!("{whole}epilogue\r\n--b\r\n{part}--b--\r\n").as_bytes(), small(), 2);
    let inner = format!("Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n{part}");
    check(&multipart(&[inner, part]), small(), 1);
    let preamble = "A line of a preamble - -- that says nothing.\r\n".repeat(10 * 1024 * 1024 / 46);
    let message = whole.replacen("\r\n\r\n--b", &format!("\r\n\r\n{preamble}--b"), 1);
    let detached = comes_back(message.as_bytes(), small());
    assert_eq!(detached.summary.parts.len(), 2);
}

#[test]
fn bad_input_26_what_must_not_be_encoded_and_is_stays() {
    let part = attachment("", "QUJD\r\n");
    let inner = String::from_utf8(multipart(&[part])).unwrap();
    for encoding in ["base64", "quoted-printable", "x-unknown"] {
        untouched(format!("Content-Transfer-Encoding: {encoding}\r\n{inner}").as_bytes());
        let enclosed =
            format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{inner}");
        untouched(&multipart(&[enclosed.replace("boundary=b", "boundary=i").replace("--b", "--i")]));
    }
    let enclosed = format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64(inner.as_bytes())
    );
    untouched(&multipart(&[enclosed]));
}

#[test]
fn bad_input_27_odd_base64_comes_back_at_every_size() {
    let lines = base64(&bytes(3 * 57 + 1));
    let lines = lines.trim_end();
    for body in [
        lines.trim_end_matches('=').to_owned() + "\r\n",
        lines[..lines.len() - 1].to_owned() + "\r\n",
        lines[..lines.len() - 3].to_owned() + "R==\r\n",
        lines.to_owned() + "\r\nQUJD\r\n",
        lines.to_owned() + "\r\n\r\n\r\n",
        lines.to_owned() + "QUJDQUJD\r\n",
        lines.replace("\r\n", " \r\n") + "\r\n",
        lines.replacen("\r\n", "\n", 1) + "\r\n",
        lines.replacen("\r\n", "\r", 1) + "\r\n",
        lines.replacen("\r\n", "", 1) + "\r\n",
        lines.replace("\r\n", "") + "\r\n",
        lines.replacen('A', "*", 1) + "\r\n",
        lines.replacen('A', "\u{fffd}", 1) + "\r\n",
        "begin 644 x\r\n#0V%T\r\n`\r\nend\r\n".to_owned(),
        "=\r\n".to_owned(),
        "====\r\n".to_owned(),
        "\r\n".to_owned(),
        String::new(),
    ] {
        let message = multipart(&[attachment("", &body)]);
        comes_back_in_pieces(&message, small(), &[1 << 20], 1 << 16);
        for block_len in [1, 7, 78] {
            comes_back_in_pieces(&message, small(), &[block_len], block_len);
        }
        // The same behind so much that the blob was being given out.
        let message = multipart(&[attachment("", &(base64(&bytes(57 * 400)) + &body))]);
        let policy = Policy { min_size: 5_000, ..Policy::default() };
        for block_len in [1 << 16, 1_000] {
            let detached = comes_back_in_pieces(&message, policy, &[block_len], block_len);
            assert_eq!(detached.summary.parts.len(), 1);
        }
    }
}

#[test]
fn bad_input_27_lines_of_every_length_come_back() {
    let blob = bytes(150_000);
    let characters = base64_simd::STANDARD.encode_to_string(&blob);
    for len in [1, 77, 998, 100_000, 1_000_000] {
        let mut body = String::new();
        for line in characters.as_bytes().chunks(len) {
            body.push_str(std::str::from_utf8(line).unwrap());
            body.push_str("\r\n");
        }
        let message = multipart(&[attachment("", &body)]);
        let detached = comes_back(&message, Policy { min_size: 100_000, ..Policy::default() });
        assert!(detached.blobs.get(detached.summary.parts[0].blob).unwrap() == blob, "lines of {len}");
    }
}

/// A part that is regular for a while and then is not.
fn turns_irregular() -> Vec<u8> {
    let body = base64(&bytes(57 * 1_000)) + "*\r\n" + &base64(&bytes(57 * 1_000));
    multipart(&[attachment("", &body), attachment("", "QUJD\r\n")])
}

#[test]
fn bad_input_27_a_blob_that_was_begun_starts_again_as_the_encoded_body() {
    let message = turns_irregular();
    let detached = comes_back(&message, small());
    let part = &detached.summary.parts[0];
    assert_eq!(part.recipe, "raw:crlf".parse::<Recipe>().unwrap());
    let body = base64(&bytes(57 * 1_000)) + "*\r\n" + &base64(&bytes(57 * 1_000));
    assert_eq!(detached.blobs.get(part.blob).unwrap(), body.trim_end().as_bytes());
    assert_eq!(detached.summary.parts.len(), 2, "the next part goes as if nothing had been");
}

/// Drives a detacher up to its replay, and gives what was given out first.
fn up_to_replay(detacher: &mut Detacher) -> Vec<u8> {
    detacher.push(&turns_irregular());
    detacher.finish();
    let mut first = Vec::new();
    while let Some(event) = detacher.poll_event() {
        match event {
            Event::BlobData(bytes) => first.extend_from_slice(&bytes),
            Event::BlobRestart { len } => assert_eq!(len, first.len() as u64),
            _ => {}
        }
    }
    assert!(!first.is_empty());
    first
}

#[test]
fn a_blob_that_was_not_read_back_as_it_was_given_out_is_never_used() {
    let mut detacher = Detacher::new(small());
    assert_eq!(detacher.replay(b"x"), Err(ReplayError::NotAsked));
    let mut first = up_to_replay(&mut detacher);
    first[0] ^= 1;
    assert_eq!(detacher.replay(&first), Err(ReplayError::Differs));
    assert!(
        !std::iter::from_fn(|| detacher.poll_event()).any(|event| matches!(event, Event::BlobEnd { .. }))
    );

    let mut detacher = Detacher::new(small());
    let first = up_to_replay(&mut detacher);
    let longer = [first.as_slice(), b"x"].concat();
    assert_eq!(detacher.replay(&longer), Err(ReplayError::TooLong));
    assert_eq!(detacher.replay(&first), Ok(()), "the right bytes are still taken");
}

#[test]
fn bad_input_28_a_message_that_is_one_part_becomes_a_card() {
    let head = "From: a@example.org\r\nSubject: All of it\r\nMIME-Version: 1.0\r\nX-Folded: a\r\n b\r\n";
    for body in [base64(&bytes(1_000)), base64(&bytes(1_000)).trim_end().to_owned()] {
        let message = format!("{head}{}", attachment("", &body));
        check(message.as_bytes(), small(), 1);
        let stub = String::from_utf8(detach(message.as_bytes(), small()).stub).unwrap();
        assert!(stub.starts_with("Lighter-Message: "));
        let (fields, card) = stub.split_once("\r\n\r\n").unwrap();
        assert!(
            fields.contains("\r\nFrom: a@example.org\r\nSubject: All of it\r\nX-Folded: a\r\n b\r\n"),
            "{fields}"
        );
        assert_eq!(fields.matches("\r\nMIME-Version:").count(), 1);
        assert_eq!(fields.matches("\r\nContent-Type:").count(), 1);
        assert!(card.contains("a.pdf"));
    }
    let text = "Content-Type: text/plain\r\n\r\nHello\r\n".to_owned();
    check(&multipart(&[attachment("", &base64(&bytes(1_000))), text]), small(), 1);
}

#[test]
fn bad_input_29_what_is_left_alone_is_untouched_however_large() {
    let large = base64(&bytes(5 * 1024 * 1024));
    let one = |fields: &str| format!("{fields}Content-Transfer-Encoding: base64\r\n\r\n{large}");
    let within = |kind: &str, part: String| {
        format!(
            "Content-Type: multipart/{kind}; boundary=i\r\n\r\n--i\r\nContent-Type: text/html\r\n\r\nx\r\n--i\r\n{part}--i--\r\n"
        )
    };
    let pdf = one("Content-Type: application/pdf\r\nContent-Disposition: attachment\r\n");
    for message in [
        one("Content-Type: text/calendar; method=REQUEST\r\n"),
        one("Content-Type: application/pkcs7-mime\r\n"),
        within("alternative", pdf.clone()),
        within("related", one("Content-Type: image/png\r\nContent-ID: <1@x>\r\n")),
        within(
            "mixed",
            one("Content-Type: image/png\r\nContent-ID: <1@x>\r\nContent-Disposition: inline\r\n"),
        ),
        within("signed; micalg=sha-256; protocol=\"application/pgp-signature\"", pdf.clone()),
        within("encrypted; protocol=\"application/pgp-encrypted\"", pdf.clone()),
        within("report", pdf.clone()),
        format!("Content-Type: text/plain\r\n\r\n{}", "A long text.\r\n".repeat(100_000)),
    ] {
        let detached = comes_back(message.as_bytes(), Policy::default());
        assert_eq!(detached.summary.parts.len(), 0);
        assert!(!comes_back(message.as_bytes(), Policy::everything()).summary.parts.is_empty());
    }
    let signed = within("signed", pdf);
    let policy = Policy { signed_and_encrypted: true, ..Policy::default() };
    assert_eq!(comes_back(signed.as_bytes(), policy).summary.parts.len(), 1, "a mailbox may switch them on");
}

#[test]
fn bad_input_29_inline_pgp_is_untouched() {
    let armour = |text: &str| {
        format!(
            "Content-Type: application/octet-stream\r\n\r\n{text}-----BEGIN PGP MESSAGE-----\r\n\r\nabcd\r\n-----END PGP MESSAGE-----\r\n"
        )
    };
    let policy = Policy { min_size: 40, ..Policy::default() };
    for text in ["", "Some text before.\r\n"] {
        assert_eq!(comes_back(&multipart(&[armour(text)]), policy).summary.parts.len(), 0);
        let encoded = attachment("", &base64(armour(text).split_once("\r\n\r\n").unwrap().1.as_bytes()));
        assert_eq!(comes_back(&multipart(&[encoded]), policy).summary.parts.len(), 0);
    }
}

#[test]
fn bad_input_30_tnef_is_one_part_and_never_opened() {
    let tnef = |blob: &[u8]| {
        format!(
            "Content-Type: application/ms-tnef; name=winmail.dat\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
            base64(blob)
        )
    };
    let broken = [&[0x78, 0x9f, 0x3e, 0x22, 0xff, 0xff, 0xff, 0xff][..], &bytes(100)].concat();
    let nested = String::from_utf8(multipart(&[tnef(&broken)])).unwrap();
    let nested = tnef(nested.as_bytes());
    check(&multipart(&[tnef(b"\x78\x9f\x3e\x22"), tnef(&broken), nested]), small(), 3);
}
