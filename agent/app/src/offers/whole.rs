//! The end of a delivery that no store took: its message goes whole by mail after all (SPEC A7, A8), from the manifest and the
//! blobs that are kept for it. The recipient has the message with placeholders already, so this one has a Message-ID of its
//! own: mailboxes and clients that keep one message of each Message-ID would drop it.
//!
//! It may go twice where the process ends between the mail server's answer and the record of it; with the same Message-ID
//! then. It is never forgotten: it is on record as waiting until the mail server has it.

use std::io::{self, Write};

use lighter_protocol::{DeliveryId, UnixTime};
use lighter_store::{Outgoing, OutgoingState};

use crate::failure::Failure;
use crate::limits::COPY_LEN;
use crate::send;
use crate::shared::Handle;
use crate::views::Cancelled;

/// Mails the whole message of a delivery that is on record as mailed with placeholders, and records that; what is kept for it
/// goes then.
///
/// # Errors
/// Temporary where trying again may help. Nothing has changed then.
pub(crate) async fn mail(shared: &Handle, outgoing: &Outgoing) -> Result<(), Failure> {
    let (delivery, manifest) = (outgoing.delivery, outgoing.manifest.id);
    let id = new_id(delivery, outgoing.sender.domain());
    let store = shared.store.clone();
    // After weeks away many may be over at once: no more of them go at a time than are offered.
    let room = shared.offering.acquire().await;
    let _permit = room.map_err(|_| Failure::temporary("the agent stops"))?;
    send::mail_one(shared, &outgoing.sender, &outgoing.recipient, move |writer| {
        let mut named = NewId::new(writer, &id)?;
        send::write_original(&store, manifest, &mut named)?;
        named.finish()
    })
    .await?;
    let now = UnixTime::now();
    let changed = shared.blocking(move |store| {
        store.change_outgoing(delivery, |outgoing| {
            // A receipt that came in the meantime says more.
            if outgoing.is_held() {
                outgoing.state = OutgoingState::MailedWhole(now);
            }
        })
    });
    changed.await?;
    tracing::info!(%delivery, recipient = %outgoing.recipient, "not taken by a store: mailed whole");
    Ok(())
}

/// Gives a delivery up that waits for its store, or failed; `whole`: its message goes by mail instead.
///
/// # Errors
/// Where it is not known, or there is nothing to give up any more; then nothing has changed.
// SPEC: A7
pub async fn cancel(shared: &Handle, delivery: DeliveryId, whole: bool) -> Result<Cancelled, Failure> {
    let outgoing = shared.blocking(move |store| store.outgoing(delivery)).await?;
    let outgoing = outgoing.ok_or_else(|| {
        Failure::failed(format!("{delivery} is nothing that was sent from here: `status` lists what was"))
    })?;
    match &outgoing.state {
        OutgoingState::Waiting | OutgoingState::Failed { .. } => {}
        OutgoingState::Preparing => {
            return Err(Failure::temporary("its message is being sent just now: try again in a moment"));
        }
        OutgoingState::Released(_) => return Err(Failure::failed("their store has it already")),
        OutgoingState::MailedWhole(_) => {
            return Err(Failure::failed("it went whole by mail already"));
        }
    }
    shared.offers.cancel(&delivery);
    let given_up = give_up(shared, &outgoing, whole).await;
    let left = shared.blocking(move |store| store.left(delivery)).await?;
    if given_up.is_err() && outgoing.state == OutgoingState::Waiting && left.is_none() {
        super::begin(shared, outgoing.clone());
    }
    given_up?;
    Ok(Cancelled { delivery, recipient: outgoing.recipient, mailed_whole: whole })
}

async fn give_up(shared: &Handle, outgoing: &Outgoing, whole: bool) -> Result<(), Failure> {
    if whole {
        return mail(shared, outgoing).await;
    }
    let delivery = outgoing.delivery;
    Ok(shared.blocking(move |store| store.remove_outgoing(delivery)).await?)
}

/// The Message-ID of a delivery's message when that goes whole; the same for each try.
fn new_id(delivery: DeliveryId, domain: &str) -> String {
    format!("<whole-{delivery}@{domain}>")
}

/// Writes a message with another Message-ID. Everything else stays as it is, to the byte.
struct NewId<'a> {
    inner: &'a mut dyn Write,
    /// Of the line of the header that is being written.
    line: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A line of the header begins here; whether the field that it may go on with is left out.
    Line { is_left_out: bool },
    /// Within a long line.
    Within { is_left_out: bool },
    /// In the body.
    Body,
}

impl<'a> NewId<'a> {
    /// The new field is the first: a message that had none gets one.
    fn new(inner: &'a mut dyn Write, id: &str) -> io::Result<Self> {
        write!(inner, "Message-ID: {id}\r\n")?;
        Ok(Self { inner, line: Vec::new(), place: Place::Line { is_left_out: false } })
    }

    /// All was written: what ends within the header is passed on, too.
    fn finish(mut self) -> io::Result<()> {
        self.end_of_line()?;
        self.inner.flush()
    }

    fn end_of_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let is_left_out = match self.place {
            Place::Body => false,
            Place::Within { is_left_out } => is_left_out,
            Place::Line { .. } if matches!(line.as_slice(), b"\n" | b"\r\n") => {
                self.place = Place::Body;
                return self.inner.write_all(&line);
            }
            Place::Line { is_left_out } if line.starts_with(b" ") || line.starts_with(b"\t") => is_left_out,
            Place::Line { .. } => is_message_id(&line),
        };
        self.place =
            if line.ends_with(b"\n") { Place::Line { is_left_out } } else { Place::Within { is_left_out } };
        if is_left_out { Ok(()) } else { self.inner.write_all(&line) }
    }
}

fn is_message_id(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    name.len() < line.len() && name.trim_ascii_end().eq_ignore_ascii_case(b"message-id")
}

impl Write for NewId<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut rest = data;
        while self.place != Place::Body && !rest.is_empty() {
            let len = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (piece, behind) = rest.split_at(len);
            self.line.extend_from_slice(piece);
            rest = behind;
            if piece.ends_with(b"\n") || self.line.len() > COPY_LEN {
                self.end_of_line()?;
            }
        }
        self.inner.write_all(rest)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What becomes of `message`, written in pieces of these lengths again and again.
    fn renamed(message: &[u8], lens: &[usize]) -> String {
        let mut out = Vec::new();
        let mut writer = NewId::new(&mut out, "<new@x>").unwrap();
        let (mut rest, mut lens) = (message, lens.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((*lens.next().unwrap()).clamp(1, rest.len()));
            writer.write_all(piece).unwrap();
            rest = behind;
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_the_message_id_is_another_one() {
        let cases = [
            (
                "From: a\r\nMessage-ID: <old@x>\r\nTo: b\r\n\r\nMessage-ID: body\r\n",
                "From: a\r\nTo: b\r\n\r\nMessage-ID: body\r\n",
            ),
            ("message-id :\r\n <old@x>\r\n\t(folded)\r\nX: y\r\n z\r\n\r\n", "X: y\r\n z\r\n\r\n"),
            ("From: a\nMESSAGE-ID: <old@x>\n\nbody", "From: a\n\nbody"),
            (
                "X-Message-ID: 1\r\nMessage-Identity: 2\r\nMessage-ID\r\n\r\n",
                "X-Message-ID: 1\r\nMessage-Identity: 2\r\nMessage-ID\r\n\r\n",
            ),
            ("Message-ID: <old@x>", ""),
            ("From: a", "From: a"),
            ("\r\nMessage-ID: body", "\r\nMessage-ID: body"),
            ("", ""),
        ];
        for (message, expected) in cases {
            for lens in [&[1][..], &[3, 1, 7], &[1000]] {
                assert_eq!(
                    renamed(message.as_bytes(), lens),
                    format!("Message-ID: <new@x>\r\n{expected}"),
                    "{message:?}"
                );
            }
        }
    }

    #[test]
    fn a_header_without_line_ends_takes_no_memory_and_loses_nothing() {
        let long = format!(
            "X: {}\r\n y\r\nMessage-ID: {}\r\n\r\nz",
            "x".repeat(3 * COPY_LEN),
            "i".repeat(3 * COPY_LEN)
        );
        let written = renamed(long.as_bytes(), &[10_000]);
        assert_eq!(written, format!("Message-ID: <new@x>\r\nX: {}\r\n y\r\n\r\nz", "x".repeat(3 * COPY_LEN)));
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_give_the_same(
            message in "([MmX]essage-[Ii][Dd]:|X:| |\t|\r\n|\n|a){0,40}",
            lens in proptest::collection::vec(1_usize..9, 1..5),
        ) {
            prop_assert_eq!(renamed(message.as_bytes(), &lens), renamed(message.as_bytes(), &[usize::MAX]));
        }
    }
}
