//! Servers whose acknowledgements are not what they should be.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, copy, split};
use tokio::time::sleep;

use crate::wire::{Frame, OutFrame, Response};

/// How a connection to a server lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Acknowledges another digest.
    Digest,
    /// Acknowledges another length.
    Length,
    /// Acknowledges twice.
    Twice,
    /// Acknowledges after the writer's patience has ended.
    Late,
    /// Acknowledges nothing.
    Never,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Digest, Self::Length, Self::Twice, Self::Late, Self::Never];
}

/// Joins the two; what the server acknowledges is changed on its way.
pub(super) async fn tell_lies(writer: impl AsyncRead + AsyncWrite, server: DuplexStream, lie: Lie) {
    let (mut from_writer, mut to_writer) = split(writer);
    let (mut from_server, mut to_server) = split(server);
    let requests = async { copy(&mut from_writer, &mut to_server).await.map(|_| ()) };
    let answers = async {
        while let Ok(frame) = Frame::read(&mut from_server).await {
            let Ok(mut response) = frame.decode::<Response>() else { break };
            let mut times = 1;
            if let Response::Appended { keys, digest } = &mut response {
                match lie {
                    Lie::Digest => *digest ^= 1,
                    Lie::Length => keys.iter_mut().for_each(|key| key.length += 16),
                    Lie::Twice => times = 2,
                    Lie::Late => sleep(Duration::from_secs(15)).await,
                    Lie::Never => times = 0,
                }
            }
            let answer = OutFrame::new(frame.id, &response, vec![frame.data]).map_err(io::Error::other)?;
            for _ in 0..times {
                answer.write(&mut to_writer).await?;
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! { biased; _ = requests => {}, _ = answers => {} }
}
