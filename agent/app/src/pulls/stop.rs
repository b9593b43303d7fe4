//! The agent stops while a delivery is pulled: its streams end where they are, what they brought is written and put on record,
//! and the next start goes on from there.

use tokio::sync::mpsc;

use super::driver::{Driver, Event};

impl Driver<'_> {
    /// Leaves off: streams first, whatever they wait for; then what they brought. What is being receipted is, and nobody is told
    /// any more: who offers it again hears of it then.
    pub(super) async fn stop(&mut self, receiver: &mut mpsc::Receiver<Event>) {
        for open in self.streams.values_mut() {
            open.is_left = true;
            open.gauge.stop();
        }
        while !self.streams.is_empty() || self.is_syncing {
            // The sender is this pull's own, too: the channel never closes.
            let Some(event) = receiver.recv().await else { break };
            match event {
                Event::Ended { stream, .. } => _ = self.close(stream).await,
                Event::Kept(streams) => {
                    streams.iter().for_each(|(stream, _)| _ = self.streams.remove(stream));
                }
                Event::Settled(_) => self.is_syncing = false,
                // Whoever offers, pushes or looks on comes again.
                _ => {}
            }
        }
        self.finisher.flush().await;
        let partials: Vec<_> = self.partials.drain().map(|(_, (partial, _))| partial).collect();
        let on_record = self.shared.blocking(move |_| {
            for partial in partials {
                if let Err(error) = partial.checkpoint() {
                    tracing::warn!(blob = %partial.blob(), %error, "a checkpoint failed");
                }
            }
        });
        on_record.await;
        tracing::info!(delivery = %self.machine.offer().delivery, "pull left off: the agent stops");
        self.end().await;
    }

    /// Ends all that runs for this pull: nothing of it has anything to say, or holds the store, once this returns.
    pub(super) async fn end(&mut self) {
        let (finisher, packer) = &mut self.tasks;
        let beside =
            async { tokio::join!(self.work.shutdown(), self.watched.shutdown(), self.answering.shutdown()) };
        tokio::join!(beside, finisher.end(), packer.end());
    }
}
