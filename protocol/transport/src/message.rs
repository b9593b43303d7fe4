//! Messages on streams: one request or one response, read whole within a length and a number of bytes in memory.

use bytes::{Buf, Bytes};
use lighter_protocol::wire::{self, Decoder, Message, Request, WireError};
use quinn::{RecvStream, SendStream};
use tokio::sync::Semaphore;

use crate::error::{ExchangeError, PeerError};
use crate::limits::SMALL_REQUEST_LEN;

/// Bytes taken off a stream at once.
const READ_LEN: usize = 64 * 1024;

/// Writes `message` and, with it, everything that will be said on this side of the stream.
pub(crate) async fn write_last<M: Message>(
    stream: &mut SendStream,
    message: &M,
) -> Result<(), ExchangeError> {
    write(stream, message).await?;
    // An error here says that the peer has stopped the stream: it will not read what was written.
    stream.finish().map_err(|_| ExchangeError::Peer(PeerError::Gone))
}

/// Writes `message`; more follows.
pub(crate) async fn write<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), ExchangeError> {
    let frame = wire::encode(message).map_err(ExchangeError::Invalid)?;
    stream.write_chunk(Bytes::from(frame)).await.map_err(PeerError::from)?;
    Ok(())
}

/// Reads a message, and the end of the stream right behind it.
///
/// A message over [`SMALL_REQUEST_LEN`] waits for a permit of `large`: so the memory for all that are being read is
/// bounded.
pub(crate) async fn read_last<M: Message>(
    stream: &mut RecvStream,
    large: &Semaphore,
) -> Result<M, PeerError> {
    read(stream, large, |_| false).await.map(|(message, _)| message)
}

/// Reads a request: the end of the stream right behind it, or, where verified streams follow, what of them came with it.
pub(crate) async fn read_request(
    stream: &mut RecvStream,
    large: &Semaphore,
) -> Result<(Request, Option<Bytes>), PeerError> {
    read(stream, large, |request| matches!(request, Request::Push(_))).await
}

async fn read<M: Message>(
    stream: &mut RecvStream,
    large: &Semaphore,
    goes_on: impl Fn(&M) -> bool,
) -> Result<(M, Option<Bytes>), PeerError> {
    let mut decoder = Decoder::new();
    let mut message = None;
    let mut len = 0;
    let mut permit = None;
    while let Some(chunk) = stream.read_chunk(READ_LEN, true).await? {
        len += chunk.bytes.len();
        if len > SMALL_REQUEST_LEN && permit.is_none() {
            permit = large.acquire().await.ok(); // an error would say that it was closed: it never is
        }
        let mut input = &chunk.bytes[..];
        if message.is_none() {
            message = decoder.feed(&mut input)?;
        }
        if let Some(message) = message.take_if(|message| goes_on(message)) {
            return Ok((message, Some(chunk.bytes.slice_ref(input))));
        }
        if !input.is_empty() {
            return Err(WireError::LeftOver(input.len()).into());
        }
    }
    message.map(|message| (message, None)).ok_or_else(|| WireError::CutOff.into())
}

/// Reads a message off the front of a stream, and gives the bytes that came behind it.
pub(crate) async fn read_first<M: Message>(stream: &mut RecvStream) -> Result<(M, Bytes), PeerError> {
    let mut decoder = Decoder::new();
    while let Some(mut chunk) = stream.read_chunk(READ_LEN, true).await? {
        let mut input = &chunk.bytes[..];
        if let Some(message) = decoder.feed(&mut input)? {
            let taken = chunk.bytes.len() - input.len();
            chunk.bytes.advance(taken);
            return Ok((message, chunk.bytes));
        }
    }
    Err(WireError::CutOff.into())
}
