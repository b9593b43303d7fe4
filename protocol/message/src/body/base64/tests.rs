use proptest::prelude::*;

use super::*;

/// What reading a body came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Regular { blob: Vec<u8>, recipe: Recipe },
    Irregular,
}

/// Reads `body` in pieces of the given lengths (used round and round) and checks that it comes back byte for byte,
/// whatever it is.
fn check(body: &[u8], pieces: &[usize]) -> Outcome {
    let mut reader = Base64Body::new();
    let mut blob = Vec::new();
    let mut at = 0;
    for len in pieces.iter().copied().cycle() {
        if at == body.len() {
            break;
        }
        let end = (at + len.max(1)).min(body.len());
        if let Err(Irregular { consumed }) = reader.update(&body[at..end], &mut blob) {
            assert_eq!(reader.decoded, blob.len() as u64);
            let mut again = Vec::new();
            let mut encoder = reader.encoder_so_far();
            encoder.update(&blob, &mut again);
            encoder.finish(&mut again);
            again.extend_from_slice(reader.unsettled());
            again.extend_from_slice(&body[at + consumed..]);
            assert_eq!(again, body, "an irregular body comes back");
            return Outcome::Irregular;
        }
        at = end;
    }
    let Regular { last, recipe } = reader.finish();
    blob.extend_from_slice(&last);
    let size = blob.len() as u64;
    assert_eq!(recipe.validate(size), Ok(()));
    assert_eq!(recipe.body_len(size), Some(body.len() as u64));
    let mut again = Vec::new();
    let mut encoder = Encoder::new(&recipe, size);
    for piece in blob.chunks(7) {
        encoder.update(piece, &mut again);
    }
    encoder.finish(&mut again);
    assert_eq!(again, body, "a regular body comes back by {recipe}");
    Outcome::Regular { blob, recipe }
}

fn regular(body: &str, blob: &str, recipe: &str) {
    for pieces in [&[1][..], &[2, 3], &[100_000]] {
        let expected = Outcome::Regular { blob: blob.into(), recipe: recipe.parse().unwrap() };
        assert_eq!(check(body.as_bytes(), pieces), expected, "{body:?} in pieces of {pieces:?}");
    }
}

fn irregular(body: &str) {
    for pieces in [&[1][..], &[2, 3], &[100_000]] {
        assert_eq!(check(body.as_bytes(), pieces), Outcome::Irregular, "{body:?} in pieces of {pieces:?}");
    }
}

#[test]
fn regular_base64_becomes_the_file_and_a_recipe() {
    regular("QUJD\r\n", "ABC", "b64:4:crlf:crlf");
    regular("QUJDREVG\r\nR0hJSktM\r\nTQ==\r\n", "ABCDEFGHIJKLM", "b64:8:crlf:crlf");
    regular("QUJDREVG\nR0hJSktM\nTU4=\n", "ABCDEFGHIJKLMN", "b64:8:lf:lf");
    regular("QUJDREVG\nR0hJSktM", "ABCDEFGHIJKL", "b64:8:lf:none");
    regular("QUJDREVG", "ABCDEF", "b64:none");
    regular("QUJDREVGRw==\r\n", "ABCDEFG", "b64:crlf");
    regular("QUJDREVG\r\nR0hJSktM\r\n\r\n\r\n", "ABCDEFGHIJKL", "b64:8:crlf:=DQoNCg0K");
    // Lines that cut groups in two.
    regular("QUJDRE\nVGR0hJ\nSktM\n", "ABCDEFGHIJKL", "b64:6:lf:lf");
    regular("QUJDR\nEVGRw\n==\n", "ABCDEFG", "b64:5:lf:lf");
    regular("Q\nU\nJ\nD\nR\nA\n=\n=\n", "ABCD", "b64:1:lf:lf");
}

#[test]
fn bad_input_27_an_end_that_is_not_as_it_should_be_stays_in_the_tail() {
    // No padding, and too little of it.
    regular("QUJDREVG\nR0hJSktM\nTQ\n", "ABCDEFGHIJKLM", "b64:8:lf:cut=1:=ClRRCg");
    regular("QUJDREVG\nTU4\n", "ABCDEFMN", "b64:8:lf:cut=2:=ClRVNAo");
    regular("QUJDREVG\nTQ=\n", "ABCDEFM", "b64:8:lf:cut=1:=ClRRPQo");
    // Stray bits in the last group.
    regular("QUJDREVG\nTR==\n", "ABCDEFM", "b64:8:lf:cut=1:=ClRSPT0K");
    // Data after the end, and a mailing list's footer.
    regular("QUJDREVG\nTQ==\nQUJD\n", "ABCDEFM", "b64:8:lf:=ClFVSkQK");
    regular("TQ==\r\n_____\r\nlist\r\n", "M", "b64:=DQpfX19fXw0KbGlzdA0K");
    // A lone character, and nothing but padding.
    regular("QUJD\nQ\n", "ABC", "b64:4:lf:=ClEK");
    regular("====\r\n", "", "b64:=PT09PQ0K");
    regular("", "", "b64:none");
    regular("\r\n", "", "b64:crlf");
}

#[test]
fn bad_input_27_what_is_not_regular_is_known_as_such() {
    // A blank, or something foreign, inside.
    irregular("QUJD REVG\n");
    irregular("QUJD*REVG\n");
    irregular("QUJDREVG\nR0 hJSktM\n");
    irregular("\nQUJDREVG\n");
    irregular(" QUJDREVG\n");
    // Line ends mixed.
    irregular("QUJDREVG\r\nR0hJSktM\nTU5P\r\n");
    irregular("QUJDREVG\nR0hJSktM\r\nTU5P\n");
    irregular("QUJDREVG\rR0hJSktM\r");
    // A short line in the middle, a last line that is longer than the rest.
    irregular("QUJDREVG\nR0hJ\nR0hJSktM\n");
    irregular("QUJDREVG\nR0hJSktMTU5P\n");
    // uuencode that is called base64.
    irregular("begin 644 file\n#0V%T\n`\nend\n");
}

#[test]
fn bad_input_27_lines_of_any_length_are_regular() {
    for len in [1, 2, 3, 4, 5, 75, 76, 77, 78, 998, 100_000] {
        let blob: Vec<u8> = (0..250_000u32).map(|n| (n % 251) as u8).collect();
        let recipe = Recipe {
            encoding: Encoding::Base64 { lines: Some(Lines { len, end: LineEnd::CrLf }), cut: 0 },
            tail: b"\r\n".to_vec(),
        };
        let mut body = Vec::new();
        let mut encoder = Encoder::new(&recipe, blob.len() as u64);
        encoder.update(&blob, &mut body);
        encoder.finish(&mut body);
        for pieces in [&[65_536][..], &[1, 77, 4_096], &[1_000_000]] {
            assert_eq!(check(&body, pieces), Outcome::Regular { blob: blob.clone(), recipe: recipe.clone() });
        }
    }
}

#[test]
fn the_tail_is_bounded() {
    let body = format!("TQ==\n{}", "\n".repeat(TAIL_LEN_MAX));
    assert_eq!(check(body.as_bytes(), &[100]), Outcome::Irregular);
    let body = format!("TQ==\n{}", "\n".repeat(TAIL_LEN_MAX - 5));
    assert!(matches!(check(body.as_bytes(), &[100]), Outcome::Regular { .. }));
}

fn any_recipe() -> impl Strategy<Value = Recipe> {
    let lines = proptest::option::of(
        (1..130u32, proptest::bool::ANY)
            .prop_map(|(len, crlf)| Lines { len, end: if crlf { LineEnd::CrLf } else { LineEnd::Lf } }),
    );
    let tail = proptest::sample::select(vec!["\r\n", "\n", "", "\r\n\r\n", " \t"]);
    (lines, tail)
        .prop_map(|(lines, tail)| Recipe { encoding: Encoding::Base64 { lines, cut: 0 }, tail: tail.into() })
}

proptest! {
    #[test]
    fn every_body_comes_back_by_what_was_read_from_it(
        blob in proptest::collection::vec(any::<u8>(), 0..2_000),
        recipe in any_recipe(),
        pieces in proptest::collection::vec(1..500usize, 1..8),
    ) {
        let mut body = Vec::new();
        let mut encoder = Encoder::new(&recipe, blob.len() as u64);
        encoder.update(&blob, &mut body);
        encoder.finish(&mut body);
        match check(&body, &pieces) {
            Outcome::Regular { blob: read, .. } => prop_assert_eq!(read, blob),
            Outcome::Irregular => prop_assert!(false, "regular base64 was called irregular"),
        }
    }

    #[test]
    fn every_damaged_body_comes_back_too(
        blob in proptest::collection::vec(any::<u8>(), 0..600),
        recipe in any_recipe(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..3u8, prop_oneof![
            Just(b'='), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'A'), Just(b'-'), any::<u8>()
        ]), 1..6),
        pieces in proptest::collection::vec(1..300usize, 1..8),
    ) {
        let mut body = Vec::new();
        let mut encoder = Encoder::new(&recipe, blob.len() as u64);
        encoder.update(&blob, &mut body);
        encoder.finish(&mut body);
        for (place, kind, byte) in damage {
            if body.is_empty() {
                break;
            }
            let at = place.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
        }
        check(&body, &pieces);
    }

    #[test]
    fn any_bytes_come_back(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&body, &[17]);
    }
}
