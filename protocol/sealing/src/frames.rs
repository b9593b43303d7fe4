//! One sealed blob: its bytes in frames, each authenticated at its place (the STREAM construction of Hoang, Reyhanitabar,
//! Rogaway and Vizár, 2015).
//!
//! # Format
//! ```text
//! sealed blob  frame*
//! frame        up to 64 KiB of AES-256-GCM ciphertext, and its tag of 16 bytes
//! nonce        number of the frame in the blob, u64 big endian; three zeros; 1 for the last frame, else 0
//! ```
//! Every frame but the last holds exactly 64 KiB; the last one holds 1 byte to 64 KiB, or nothing where the blob is empty.
//! The key is the blob's alone ([`ContentKey`]: made of the drop's key, the delivery and the blob's number), so no nonce is
//! ever used twice with it, and no frame opens at another place, of another blob, or as the last where it was not.
//!
//! Memory is one frame, whatever the size.

use std::io::{self, Read};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use lighter_protocol::DeliveryId;

use crate::{ContentKey, NotOpened};

/// Bytes of a frame, opened.
pub const FRAME_LEN: usize = 64 * 1024;
/// Bytes of a frame's tag.
pub const TAG_LEN: usize = 16;

/// Bytes of a blob of `size` bytes once it is sealed.
pub fn sealed_size(size: u64) -> u64 {
    size.saturating_add(frames(size).saturating_mul(TAG_LEN as u64))
}

/// Frames of a blob of `size` bytes.
fn frames(size: u64) -> u64 {
    size.div_ceil(FRAME_LEN as u64).max(1)
}

/// Gives the sealed bytes of what `R` gives.
#[derive(Debug)]
pub struct Sealer<R> {
    plain: R,
    frames: Frames,
}

/// Gives the bytes that were sealed, each frame once all of it has been authenticated.
#[derive(Debug)]
pub struct Opener<R> {
    sealed: R,
    frames: Frames,
}

/// Where in a blob, and what of the frame there is still to be given.
struct Frames {
    key: LessSafeKey,
    /// The next frame's number.
    next: u64,
    /// How many there are.
    count: u64,
    /// Bytes of the blob, opened, from the next frame on.
    left: u64,
    /// The frame that is being given, and how far.
    frame: Vec<u8>,
    given: usize,
}

impl Frames {
    fn new(key: &ContentKey, delivery: &DeliveryId, index: u32, size: u64) -> Result<Self, NotOpened> {
        let key = key.blob_key(delivery, index)?;
        Ok(Self { key, next: 0, count: frames(size), left: size, frame: Vec::new(), given: 0 })
    }

    /// Gives of the frame that is there.
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.frame[self.given..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.given += len;
        len
    }

    fn is_given(&self) -> bool {
        self.given == self.frame.len()
    }

    fn is_over(&self) -> bool {
        self.next == self.count
    }

    /// The next frame's nonce, and how many bytes it holds, opened.
    fn step(&mut self) -> (Nonce, usize) {
        let len = usize::try_from(self.left.min(FRAME_LEN as u64)).unwrap_or(FRAME_LEN);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        nonce[11] = u8::from(self.is_over());
        self.left -= len as u64;
        self.given = 0;
        (Nonce::assume_unique_for_key(nonce), len)
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("next", &self.next).field("count", &self.count).finish_non_exhaustive()
    }
}

fn not_opened(error: NotOpened) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<R: Read> Sealer<R> {
    /// Seals the `size` bytes of `plain`, as blob `index` of `delivery`.
    ///
    /// # Errors
    /// [`NotOpened`] where no key can be made.
    pub fn new(
        key: &ContentKey,
        delivery: &DeliveryId,
        index: u32,
        size: u64,
        plain: R,
    ) -> Result<Self, NotOpened> {
        Ok(Self { plain, frames: Frames::new(key, delivery, index, size)? })
    }
}

impl<R: Read> Read for Sealer<R> {
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where there are fewer bytes than were promised.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frames.is_given() && !self.frames.is_over() {
            let (nonce, len) = self.frames.step();
            self.frames.frame.resize(len, 0);
            self.plain.read_exact(&mut self.frames.frame)?;
            let Frames { key, frame, .. } = &mut self.frames;
            key.seal_in_place_append_tag(nonce, Aad::empty(), frame).map_err(|_| not_opened(NotOpened))?;
        }
        Ok(self.frames.give(buffer))
    }
}

impl<R: Read> Opener<R> {
    /// Opens a sealed blob that holds `size` bytes, as blob `index` of `delivery`.
    ///
    /// # Errors
    /// [`NotOpened`] where no key can be made.
    pub fn new(
        key: &ContentKey,
        delivery: &DeliveryId,
        index: u32,
        size: u64,
        sealed: R,
    ) -> Result<Self, NotOpened> {
        Ok(Self { sealed, frames: Frames::new(key, delivery, index, size)? })
    }
}

impl<R: Read> Read for Opener<R> {
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where a frame does not open, or bytes are left over;
    /// [`io::ErrorKind::UnexpectedEof`] where they end too early.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frames.is_given() && !self.frames.is_over() {
            let (nonce, len) = self.frames.step();
            self.frames.frame.resize(len + TAG_LEN, 0);
            self.sealed.read_exact(&mut self.frames.frame)?;
            if self.frames.is_over() && self.sealed.read(&mut [0])? != 0 {
                return Err(not_opened(NotOpened));
            }
            let Frames { key, frame, .. } = &mut self.frames;
            let opened = key.open_in_place(nonce, Aad::empty(), frame).map(|plain| plain.len());
            let opened = opened.map_err(|_| {
                frame.clear();
                not_opened(NotOpened)
            })?;
            frame.truncate(opened);
        }
        Ok(self.frames.give(buffer))
    }
}

#[cfg(test)]
mod tests;
