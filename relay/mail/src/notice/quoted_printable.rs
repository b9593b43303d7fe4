//! Quoted-printable (RFC 2045 §6.7): any bytes in lines of at most 76 characters that no hop changes.

/// Characters in a line, the soft line break included.
const LINE_LEN_MAX: usize = 76;

/// Encodes lines that end with CR LF or LF; all others end with CR LF afterwards. Bytes that are no text are written as
/// hexadecimal digits.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len() + bytes.len() / 8);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        encode_line(line, &mut encoded);
        encoded.push_str("\r\n");
    }
    encoded
}

fn encode_line(line: &[u8], encoded: &mut String) {
    let mut len = 0;
    for (at, &byte) in line.iter().enumerate() {
        let last = at + 1 == line.len();
        let plain = match byte {
            b' ' | b'\t' => !last, // Blanks at the end would be lost on the way.
            b'=' => false,
            b'!'..=b'~' => true,
            _ => false,
        };
        let width = if plain { 1 } else { 3 };
        if len + width > LINE_LEN_MAX - usize::from(!last) {
            encoded.push_str("=\r\n");
            len = 0;
        }
        if plain {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("={byte:02X}"));
        }
        len += width;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader makes of it, strictly by RFC 2045.
    fn decode(encoded: &str) -> Vec<u8> {
        let joined = encoded.replace("=\r\n", "");
        let mut bytes = joined.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte == b'=' {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                decoded.push(byte);
            }
        }
        decoded
    }

    proptest! {
        #[test]
        fn any_bytes_survive_in_short_lines(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no LF", |b| !b"\r\n".contains(b)), 0..200), 0..5),
        ) {
            let bytes: Vec<u8> = lines.iter().flat_map(|line| [line, b"\r\n".as_slice()].concat()).collect();
            let encoded = encode(&bytes);
            prop_assert!(encoded.is_ascii());
            prop_assert!(encoded.split("\r\n").all(|line| line.len() <= LINE_LEN_MAX && !line.ends_with([' ', '\t'])));
            prop_assert_eq!(decode(&encoded), bytes);
        }
    }
}
