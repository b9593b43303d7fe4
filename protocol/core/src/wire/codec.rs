//! Messages as bytes, and back, in pieces of any size.
//!
//! # Format
//! ```text
//! length   u32, little endian: bytes that follow; 1 to the limit of the message's kind
//! message  postcard: the kind's number (one byte), then its fields in order
//! ```
//! Nothing may be left over behind the last field. The length is judged as soon as it is known, once against
//! [`WIRE_MESSAGE_LEN_MAX`] and, one byte later, against the limit of the kind that this byte names; memory grows with
//! the bytes that came in, never with what the length promises.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::{Check, Invalid};
use super::{Request, Response};
use crate::limits::{
    ANSWER_MESSAGE_LEN_MAX, DROP_MESSAGE_LEN_MAX, GET_BLOBS_MESSAGE_LEN_MAX, GET_MESSAGE_LEN_MAX,
    GET_SHARED_MESSAGE_LEN_MAX, MEETING_MESSAGE_LEN_MAX, OFFER_MESSAGE_LEN_MAX, PUSH_ANSWER_MESSAGE_LEN_MAX,
    PUSH_MESSAGE_LEN_MAX, SMALL_MESSAGE_LEN_MAX, SOURCES_MESSAGE_LEN_MAX, STATEMENT_MESSAGE_LEN_MAX,
    SUCCESSION_MESSAGE_LEN_MAX, WIRE_MESSAGE_LEN_MAX,
};

/// Bytes of the length in front of each message.
const PREFIX_LEN: usize = 4;

/// What travels in frames: [`Request`] and [`Response`].
pub trait Message: Serialize + DeserializeOwned + Check {
    /// Bytes that a message of the kind numbered `tag` may have; `None` where there is no such kind.
    fn len_max(tag: u8) -> Option<usize>;
}

impl Message for Request {
    fn len_max(tag: u8) -> Option<usize> {
        Some(match tag {
            0 | 1 | 8 | 10 => SMALL_MESSAGE_LEN_MAX,
            2 => OFFER_MESSAGE_LEN_MAX,
            3 => GET_MESSAGE_LEN_MAX,
            4 | 5 => STATEMENT_MESSAGE_LEN_MAX,
            6 | 7 => MEETING_MESSAGE_LEN_MAX,
            9 => DROP_MESSAGE_LEN_MAX,
            11 => OFFER_MESSAGE_LEN_MAX,
            12 => PUSH_MESSAGE_LEN_MAX,
            13 => SOURCES_MESSAGE_LEN_MAX,
            14 => GET_SHARED_MESSAGE_LEN_MAX,
            15 => GET_BLOBS_MESSAGE_LEN_MAX,
            16 => SUCCESSION_MESSAGE_LEN_MAX,
            _ => return None,
        })
    }
}

impl Message for Response {
    fn len_max(tag: u8) -> Option<usize> {
        Some(match tag {
            2 => ANSWER_MESSAGE_LEN_MAX,
            0 | 1 | 3..=10 | 13 | 14 => SMALL_MESSAGE_LEN_MAX,
            11 => STATEMENT_MESSAGE_LEN_MAX,
            12 => PUSH_ANSWER_MESSAGE_LEN_MAX,
            _ => return None,
        })
    }
}

/// Why bytes are no message, or a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length in front is 0, or over the limit of the message's kind.
    #[error("a message of {len} bytes, where 1 to {max} are allowed")]
    Length {
        /// Bytes that the prefix promises, or that the message would have.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// There is no message of this number.
    #[error("no message has the number {0}")]
    UnknownKind(u8),
    /// The fields do not decode.
    #[error("malformed message")]
    Malformed,
    /// The fields ended before the length did.
    #[error("{0} bytes left over behind the message")]
    LeftOver(usize),
    /// The bytes ended within a message.
    #[error("cut off within a message")]
    CutOff,
    /// A bound does not hold.
    #[error("{0}")]
    Invalid(#[from] Invalid),
}

/// `message` as a frame, its length in front.
///
/// # Errors
/// [`WireError::Invalid`] where it breaks a bound, so that what is sent is what the other side takes;
/// [`WireError::Length`] where it is too long altogether.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, WireError> {
    message.check()?;
    let mut frame = postcard::to_extend(message, vec![0; PREFIX_LEN]).map_err(|_| WireError::Malformed)?;
    let len = frame.len() - PREFIX_LEN;
    let max = frame.get(PREFIX_LEN).and_then(|tag| M::len_max(*tag)).unwrap_or(0);
    let prefix = u32::try_from(len).ok().filter(|_| len <= max).ok_or(WireError::Length { len, max })?;
    frame[..PREFIX_LEN].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// The message in `payload`: a frame without its length.
///
/// # Errors
/// Says what is wrong with it; [`WireError::CutOff`] where it is empty.
pub fn decode<M: Message>(payload: &[u8]) -> Result<M, WireError> {
    let tag = *payload.first().ok_or(WireError::CutOff)?;
    check_len::<M>(payload.len(), tag)?;
    let (message, rest) = postcard::take_from_bytes::<M>(payload).map_err(|_| WireError::Malformed)?;
    if !rest.is_empty() {
        return Err(WireError::LeftOver(rest.len()));
    }
    message.check()?;
    Ok(message)
}

/// Takes messages out of a stream of bytes that comes in pieces.
///
/// After an error the stream has no meaning any more: further bytes give the same error.
#[derive(Debug)]
pub struct Decoder<M> {
    /// The frame so far: prefix and payload. Invariant: `frame.len() <= PREFIX_LEN + length in the prefix`.
    frame: Vec<u8>,
    failed: Option<WireError>,
    kind: PhantomData<fn() -> M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self { frame: Vec::new(), failed: None, kind: PhantomData }
    }
}

impl<M: Message> Decoder<M> {
    /// A decoder at the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` until a message is whole or `input` is empty. What follows the message
    /// stays in `input`: the next message, or the verified stream.
    ///
    /// # Errors
    /// As [`decode`], and as early as the bytes show it.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<M>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.step(input);
        if let Err(error) = result {
            self.failed = Some(error);
            self.frame = Vec::new();
        }
        result
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// [`WireError::CutOff`] within a message; the error that `feed` gave, where it gave one.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.frame.is_empty() => Ok(()),
            None => Err(WireError::CutOff),
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<M>, WireError> {
        loop {
            let wanted = self.wanted()?;
            if self.frame.len() == wanted {
                let message = decode(&self.frame[PREFIX_LEN..])?;
                self.frame.clear();
                return Ok(Some(message));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(input.len().min(wanted - self.frame.len()));
            self.frame.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// How long the frame is to be before something can be said: its prefix; the kind's number; the whole.
    fn wanted(&self) -> Result<usize, WireError> {
        let Some((prefix, payload)) = self.frame.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(PREFIX_LEN);
        };
        let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let Some(tag) = payload.first() else {
            check_bounds(len, WIRE_MESSAGE_LEN_MAX)?;
            return Ok(PREFIX_LEN + 1);
        };
        check_len::<M>(len, *tag)?;
        Ok(PREFIX_LEN + len)
    }
}

fn check_len<M: Message>(len: usize, tag: u8) -> Result<(), WireError> {
    check_bounds(len, M::len_max(tag).ok_or(WireError::UnknownKind(tag))?)
}

fn check_bounds(len: usize, max: usize) -> Result<(), WireError> {
    if len == 0 || len > max { Err(WireError::Length { len, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
