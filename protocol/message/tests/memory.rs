//! Memory does not grow with the message.

mod common;

use lighter_message::limits::{
    BLOCK_LEN, HEADER_BLOCK_LEN_MAX, LITERAL_LEN_MAX, MIN_SIZE_DEFAULT, PART_HEADER_LEN_MAX,
};
use lighter_message::{Detacher, Event, Policy};

/// What may be held: two blocks of input (a piece is pushed onto a rest), a header block, a part below the threshold
/// (as it came, at most four bytes for each of its own, and decoded; vectors grow by doubling), a frame, and the event
/// that is made of them.
const HELD_MAX: usize = 2 * BLOCK_LEN
    + 2 * HEADER_BLOCK_LEN_MAX
    + 2 * PART_HEADER_LEN_MAX
    + 2 * (5 * MIN_SIZE_DEFAULT + 2 * BLOCK_LEN)
    + 2 * LITERAL_LEN_MAX;

const HEAD: &[u8] = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
const PART: &[u8] = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n";

/// Pushes `head`, then `line` again and again up to `len` bytes, and looks at what is held. Gives the bytes of the blobs.
fn check(name: &str, head: &[&[u8]], line: &[u8], len: u64) -> u64 {
    let mut piece = Vec::new();
    while piece.len() + line.len() <= BLOCK_LEN {
        piece.extend_from_slice(line);
    }
    let mut detacher = Detacher::new(Policy::default());
    let mut blobs = 0;
    let mut drain = |detacher: &mut Detacher| {
        assert!(detacher.held() <= HELD_MAX, "{name}: {} bytes are held", detacher.held());
        while let Some(event) = detacher.poll_event() {
            assert!(detacher.held() <= HELD_MAX, "{name}: {} bytes are held", detacher.held());
            match event {
                Event::BlobData(bytes) => blobs += bytes.len() as u64,
                Event::BlobRestart { .. } => return false,
                Event::End(summary) => assert!(summary.totals.length > len, "{name}"),
                _ => {}
            }
        }
        true
    };
    for part in head {
        detacher.push(part);
        drain(&mut detacher);
    }
    let mut pushed = 0;
    while pushed <= len {
        detacher.push(&piece);
        pushed += piece.len() as u64;
        if !drain(&mut detacher) {
            return blobs;
        }
    }
    detacher.finish();
    drain(&mut detacher);
    blobs
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_message_of_a_gigabyte_is_detached_in_flat_memory() {
    let line = [[b'Q'; 76].as_slice(), b"\r\n"].concat();
    let blobs = check("base64", &[HEAD, PART], &line, 1024 * MIB);
    assert!(blobs > 740 * MIB, "all of it went: {blobs}");
}

#[test]
fn messages_of_every_shape_are_read_in_flat_memory() {
    let line = [[b'Q'; 76].as_slice(), b"\r\n"].concat();
    let binary = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let len = 64 * MIB;
    assert!(check("base64 on one line", &[HEAD, PART], &[b'Q'; 64], len) > 48 * MIB);
    assert!(check("lines of one character", &[HEAD, PART], b"Q\r\n", len) > 15 * MIB);
    assert!(check("lines that cut groups", &[HEAD, PART], b"QQQQQQQ\n", len) > 40 * MIB);
    assert!(check("8bit", &[HEAD, binary], b"\x80bytes\r\n", len) > 60 * MIB);
    assert!(check("one line", &[HEAD, binary], &[b'x'; 64], len) > 60 * MIB);
    assert!(check("line ends", &[HEAD, binary], b"\n", len) > 60 * MIB);
    assert!(check("dashes", &[HEAD, binary], b"\n--", len) > 60 * MIB);
    assert!(check("blank base64", &[HEAD, PART], b"\r\n", len) > 60 * MIB);
    check("irregular", &[HEAD, PART, &line.repeat(10_000)], b"*", len);
    check("preamble", &[HEAD], &line, len);
    check("text", &[b"Subject: x\r\n\r\n"], b"A line.\r\n", len);
    check("a header that does not end", &[b"Subject: x\r\n"], b"X: y\r\n", len);
    check("a field that does not end", &[b"X: "], b"abc", len);
    check("no line end", &[], b"x", len);
    check("delimiters", &[HEAD], b"--b\r\n", 4 * MIB);
    check("nested", &[], b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", 4 * MIB);
}
