//! Datagrams in a byte stream: each behind its length.
//!
//! ```text
//! 0        2                  2 + length
//! ┌────────┬──────────────────┐
//! │ length │ datagram         │   length: 16 bits, big-endian, 1 to 4,096
//! └────────┴──────────────────┘
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::TUNNEL_DATAGRAM_LEN_MAX;

/// Bytes of a length.
const LENGTH_LEN: usize = 2;

/// A length that no datagram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {0} bytes in a tunnel")]
pub struct FrameError(pub u16);

/// Puts a datagram behind what is in `out`. One that is longer than any may be is left out, as a network would do.
pub fn put(out: &mut BytesMut, datagram: &[u8]) {
    match u16::try_from(datagram.len()) {
        Ok(len @ 1..=TUNNEL_DATAGRAM_LEN_MAX) => {
            out.put_u16(len);
            out.put_slice(datagram);
        }
        _ => debug_assert!(false, "a datagram of {} bytes", datagram.len()),
    }
}

/// Cuts a byte stream into datagrams. It holds what was read at once, and one datagram.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: BytesMut,
}

impl Deframer {
    /// Where the byte stream's next bytes are put behind those that are here: room for at least one datagram, and `len`
    /// bytes where it has to be made.
    pub fn room(&mut self, len: usize) -> &mut BytesMut {
        let least = LENGTH_LEN + usize::from(TUNNEL_DATAGRAM_LEN_MAX);
        if self.buffer.capacity() - self.buffer.len() < least {
            self.buffer.reserve(len.max(least));
        }
        &mut self.buffer
    }

    /// The next datagram; none until more has come.
    ///
    /// # Errors
    /// [`FrameError`]: nothing after it makes sense.
    #[expect(clippy::should_implement_trait, reason = "it goes on after None")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let len = u16::from_be_bytes(*length);
        if !(1..=TUNNEL_DATAGRAM_LEN_MAX).contains(&len) {
            return Err(FrameError(len));
        }
        if rest.len() < usize::from(len) {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_LEN);
        Ok(Some(self.buffer.split_to(usize::from(len)).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_come_out_as_they_went_in_however_the_stream_is_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in prop::collection::vec(1_usize..700, 1..20),
        ) {
            let mut stream = BytesMut::new();
            for datagram in &datagrams {
                put(&mut stream, datagram);
            }
            let (mut deframer, mut out, mut cuts) = (Deframer::default(), Vec::new(), cuts.iter().cycle());
            while !stream.is_empty() {
                let len = (*cuts.next().unwrap()).min(stream.len());
                deframer.room(len).put_slice(&stream.split_to(len));
                while let Some(datagram) = deframer.next().unwrap() {
                    out.push(datagram.to_vec());
                }
            }
            prop_assert_eq!(out, datagrams);
        }

        #[test]
        fn bad_input_34_any_bytes_give_datagrams_within_the_limit_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..9_000)) {
            let mut deframer = Deframer::default();
            deframer.room(1).put_slice(&bytes);
            let mut taken = 0;
            while let Ok(Some(datagram)) = deframer.next() {
                prop_assert!((1..=usize::from(TUNNEL_DATAGRAM_LEN_MAX)).contains(&datagram.len()));
                taken += LENGTH_LEN + datagram.len();
            }
            prop_assert!(taken <= bytes.len());
        }
    }

    #[test]
    fn a_length_of_nothing_or_too_much_ends_the_stream() {
        for (bytes, len) in [([0, 0], 0), ([0x10, 1], 4_097), ([0xff, 0xff], u16::MAX)] {
            let mut deframer = Deframer::default();
            deframer.room(1).put_slice(&bytes);
            assert_eq!(deframer.next(), Err(FrameError(len)));
        }
    }

    #[test]
    fn golden_bytes_of_two_datagrams() {
        let mut out = BytesMut::new();
        put(&mut out, b"abc");
        put(&mut out, &[7]);
        assert_eq!(&out[..], [0, 3, b'a', b'b', b'c', 0, 1, 7]);
    }
}
