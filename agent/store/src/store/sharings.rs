//! Who else has what is being pulled, by the sender's signed word: kept with the delivery, so that it outlives the process.

use lighter_protocol::{DeliveryId, Sharing, Signed};

use super::Store;
use crate::error::StoreError;

impl Store {
    /// Puts on record what the sender of a delivery that is being pulled said: who else has it. Durable when the call returns.
    /// One that is on record already stays, unless this one is good for longer. Gives how many were put; those beyond
    /// [`SHARINGS_MAX`](lighter_protocol::limits::SHARINGS_MAX) of the delivery, or
    /// [`SHARINGS_KEPT_MAX`](crate::limits::SHARINGS_KEPT_MAX) of all, are not. Whether they are true is the caller's to see.
    ///
    /// They go with the delivery, when it is receipted, and when they expire ([`Store::expire`]).
    ///
    /// # Errors
    /// What the index says.
    pub fn put_sharings(
        &self,
        delivery: DeliveryId,
        sharings: &[Signed<Sharing>],
    ) -> Result<usize, StoreError> {
        Ok(self.0.index.put_sharings(delivery, sharings)?)
    }

    /// What is on record for that delivery, perhaps expired.
    ///
    /// # Errors
    /// What the index says.
    pub fn sharings(&self, delivery: DeliveryId) -> Result<Vec<Signed<Sharing>>, StoreError> {
        Ok(self.0.index.sharings(delivery)?)
    }

    /// The deliveries that somebody else may be asked for, in no order of theirs: all of them are being pulled.
    ///
    /// # Errors
    /// What the index says.
    pub fn shared_deliveries(&self) -> Result<Vec<DeliveryId>, StoreError> {
        Ok(self.0.index.shared_deliveries()?)
    }
}
