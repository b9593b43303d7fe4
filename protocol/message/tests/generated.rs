//! Generated MIME, sound and damaged, fed in every way: what goes in comes back.

mod common;

use common::comes_back_in_pieces;
use lighter_message::Policy;
use proptest::prelude::*;

/// A part, before it is written.
#[derive(Clone, Debug)]
enum Node {
    Leaf { kind: usize, encoding: usize, disposition: usize, blob: Vec<u8>, line_len: usize, tail: usize },
    Multipart { kind: usize, boundary: usize, children: Vec<Node>, preamble: bool, ended: bool },
    Message(Box<Node>),
}

const LEAF_KINDS: [&str; 8] = [
    "application/pdf; name=a.pdf",
    "text/plain; charset=utf-8",
    "text/html",
    "image/png; name=\"=?utf-8?B?w7w=?=.png\"",
    "text/calendar",
    "application/pgp-signature",
    "application/octet-stream",
    "message/external-body",
];
const MULTIPART_KINDS: [&str; 7] =
    ["mixed", "alternative", "related", "signed", "report", "digest", "x-unknown"];
// Some are the beginning of another, and some the same.
const BOUNDARIES: [&str; 8] =
    ["b", "bb", "=_x", "b c", "----=_Part_1", "b", "-", "cccccccccccccccccccccccccc"];
const ENCODINGS: [&str; 5] = ["base64", "7bit", "quoted-printable", "BASE64", "8bit"];
const DISPOSITIONS: [&str; 4] = [
    "",
    "Content-Disposition: attachment\n",
    "Content-Disposition: inline; filename=x\n",
    "Content-ID: <1@x>\n",
];
const TAILS: [&str; 6] = ["\n", "", "\n\n", "\n \n", "=\n", "\n--\n"];

fn write(node: &Node, out: &mut Vec<u8>) {
    let mut line = |text: &str| out.extend_from_slice(text.as_bytes());
    match node {
        Node::Leaf { kind, encoding, disposition, blob, line_len, tail } => {
            let encoding = ENCODINGS[*encoding];
            line(&format!("Content-Type: {}\nContent-Transfer-Encoding: {encoding}\n", LEAF_KINDS[*kind]));
            line(DISPOSITIONS[*disposition]);
            line("\n");
            if encoding.eq_ignore_ascii_case("base64") {
                let characters = base64_simd::STANDARD.encode_to_string(blob);
                let lines: Vec<_> = characters.as_bytes().chunks(*line_len).collect();
                out.extend(lines.join(&b'\n'));
            } else {
                out.extend(blob.chunks(*line_len).collect::<Vec<_>>().join(&b'\n'));
            }
            out.extend_from_slice(TAILS[*tail].as_bytes());
        }
        Node::Multipart { kind, boundary, children, preamble, ended } => {
            let boundary = BOUNDARIES[*boundary];
            line(&format!(
                "Content-Type: multipart/{};\n boundary=\"{boundary}\"\n\n",
                MULTIPART_KINDS[*kind]
            ));
            if *preamble {
                line("A preamble -- of no import.\n");
            }
            for child in children {
                out.extend_from_slice(format!("--{boundary}\n").as_bytes());
                write(child, out);
                if !out.ends_with(b"\n") {
                    out.push(b'\n');
                }
            }
            if *ended {
                out.extend_from_slice(format!("--{boundary}--\n").as_bytes());
            }
        }
        Node::Message(inner) => {
            line("Content-Type: message/rfc822\n\nSubject: Inner\n");
            write(inner, out);
        }
    }
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = (
        0..LEAF_KINDS.len(),
        0..ENCODINGS.len(),
        0..DISPOSITIONS.len(),
        proptest::collection::vec(any::<u8>(), 0..400),
        prop_oneof![4 => Just(76usize), 1 => 1..100usize, 1 => Just(1_000_000usize)],
        0..TAILS.len(),
    )
        .prop_map(|(kind, encoding, disposition, blob, line_len, tail)| Node::Leaf {
            kind,
            encoding,
            disposition,
            blob,
            line_len,
            tail,
        });
    leaf.prop_recursive(5, 24, 4, |inner| {
        let multipart = (
            0..MULTIPART_KINDS.len(),
            0..BOUNDARIES.len(),
            proptest::collection::vec(inner.clone(), 0..4),
            any::<bool>(),
            proptest::bool::weighted(0.9),
        )
            .prop_map(|(kind, boundary, children, preamble, ended)| Node::Multipart {
                kind,
                boundary,
                children,
                preamble,
                ended,
            });
        prop_oneof![5 => multipart, 1 => inner.prop_map(|node| Node::Message(Box::new(node)))]
    })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    (node(), any::<bool>()).prop_map(|(node, crlf)| {
        let mut text = b"From: a@example.org\nSubject: Generated\nMIME-Version: 1.0\n".to_vec();
        write(&node, &mut text);
        if crlf { common::to_crlf(&text) } else { text }
    })
}

/// Bytes that mean something to a reader of mail.
fn telling() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::sample::select(vec![
            "\n",
            "\r\n",
            "\r",
            "--",
            "--b",
            "--b\n",
            "--b--\r\n",
            "\n--bb\n",
            "\r--b\r\n",
            "\0",
            ":",
            " ",
            "\n\n",
            "\r\n\r\n",
            "=",
            "==\r\n",
            "Lighter-Part: v=1\n",
            "Content-Type: text/html\n",
            "\n--b \n",
            "A",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 1..4),
    ]
}

/// Cuts, doubles, replaces and inserts.
fn damage(message: &mut Vec<u8>, at: prop::sample::Index, len: usize, kind: u8, bytes: &[u8]) {
    let at = at.index(message.len() + 1);
    let end = (at + len).min(message.len());
    match kind {
        0 => drop(message.splice(at..at, bytes.iter().copied())),
        1 => drop(message.splice(at..end, [])),
        2 => drop(message.splice(at..end, bytes.iter().copied())),
        3 => {
            let doubled = message[at..end].to_vec();
            drop(message.splice(at..at, doubled));
        }
        _ => message.truncate(at),
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (prop_oneof![Just(1usize), 1..300usize], flags).prop_map(|(min_size, flags)| Policy {
        min_size,
        signed_and_encrypted: flags.0,
        text: flags.1,
        shown_inline: flags.2,
        structured: flags.3,
        ambiguous: flags.4,
        ..Policy::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn generated_messages_come_back(
        message in message(),
        policy in policy(),
        pieces in proptest::collection::vec(1..2_000usize, 1..6),
        block_len in prop_oneof![Just(1usize), 1..300usize, Just(65_536usize)],
    ) {
        comes_back_in_pieces(&message, policy, &pieces, block_len);
        comes_back_in_pieces(&message, Policy::everything(), &pieces, block_len);
    }

    #[test]
    fn damaged_messages_come_back(
        mut message in message(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), 0..80usize, 0..5u8, telling()), 1..6),
        policy in policy(),
        pieces in proptest::collection::vec(1..2_000usize, 1..6),
        block_len in prop_oneof![Just(1usize), 1..300usize, Just(65_536usize)],
    ) {
        for (at, len, kind, bytes) in damages {
            damage(&mut message, at, len, kind, &bytes);
        }
        comes_back_in_pieces(&message, policy, &pieces, block_len);
        comes_back_in_pieces(&message, Policy::everything(), &pieces, block_len);
    }

    #[test]
    fn what_is_detached_does_not_depend_on_how_the_message_is_cut(
        message in message(),
        policy in policy(),
        pieces in proptest::collection::vec(1..500usize, 1..6),
        block_len in 1..300usize,
    ) {
        let whole = common::detach(&message, policy);
        let cut = common::detach_in_pieces(&message, policy, &pieces, block_len);
        prop_assert_eq!(whole.summary, cut.summary);
        prop_assert_eq!(whole.stub, cut.stub);
    }

    #[test]
    fn any_bytes_come_back(message in proptest::collection::vec(any::<u8>(), 0..500), block_len in 1..100usize) {
        comes_back_in_pieces(&message, Policy::everything(), &[13], block_len);
    }
}
