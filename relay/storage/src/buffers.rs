//! Buffers of about a portion, used again and again. Taken from the system and given back for each portion, they cost more
//! than encrypting it: every page of them is mapped, cleared and unmapped.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::limits::{BUFFER_LEN, BUFFER_LEN_MIN, BUFFERS_FREE_MAX};

/// Those that nobody has now, each [`BUFFER_LEN`] bytes long.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes to be written to. What is in them at first may be anything that was there before: whoever takes one fills all of
/// it, or lets go of it.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// `len` bytes.
    pub(crate) fn take(len: usize) -> Self {
        if !(BUFFER_LEN_MIN..=BUFFER_LEN).contains(&len) {
            return Self { bytes: vec![0; len], len };
        }
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { bytes: free.unwrap_or_else(|| vec![0; BUFFER_LEN]), len }
    }

    /// As bytes that change no more; the buffer is free again with the last handle to them.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() != BUFFER_LEN {
            return;
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < BUFFERS_FREE_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_was_asked_whatever_it_was_before() {
        for len in [0, 1, BUFFER_LEN_MIN, 70_000, BUFFER_LEN, BUFFER_LEN + 1, 3 * BUFFER_LEN] {
            let mut buffer = Buffer::take(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(7);
            let bytes = buffer.freeze();
            let part = bytes.slice(len / 2..);
            drop(bytes);
            let others: Vec<_> = (0..3).map(|_| Buffer::take(len)).collect();
            assert!(others.iter().all(|other| other.len() == len));
            assert!(part.iter().all(|byte| *byte == 7), "nobody else has it while there is a handle");
        }
        assert!(FREE.lock().unwrap().len() <= BUFFERS_FREE_MAX);
    }
}
