//! Reading segments wherever their bytes are: on the unit's disk, or in the object store (SPEC D10).
//!
//! What is on the disk is read on a blocking thread; what is in the store is waited for here, by the connection's own
//! task, so that a store that is slow holds up no thread. A store that cannot be reached is no fault of the copy: the
//! answer is `Away`, and the relay reads another one.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Shared;
use crate::disk::Disk;
use crate::objects::ReadFault;
use crate::unit::worker::{Stopped, off_reactor};
use crate::unit::{Shelved, Stretched, UnitError};

impl<D: Disk> Shared<D> {
    /// Reads one record, and checks it before it is given out; whoever gets it checks again.
    // SPEC: C9
    pub(super) async fn read_record(
        &self,
        shelved: &Arc<Shelved<D>>,
        offset: u64,
        length: u32,
    ) -> Result<Result<Bytes, UnitError>, Stopped> {
        let range = match shelved.record_range(offset, length) {
            Ok(range) => range,
            Err(error) => return Ok(Err(error)),
        };
        let checked = Arc::clone(shelved);
        let check = move |bytes: Bytes| checked.check_record(&bytes, offset).map(|()| bytes);
        if shelved.moved().is_none() {
            let shelved = Arc::clone(shelved);
            return off_reactor(move || check(shelved.read_here(range)?)).await;
        }
        match self.read_of(shelved, range).await? {
            Ok(bytes) => off_reactor(move || check(bytes)).await,
            Err(error) => Ok(Err(error)),
        }
    }

    /// Reads `range` of a segment's file, as it stands or stood.
    pub(super) async fn read_of(
        &self,
        shelved: &Arc<Shelved<D>>,
        mut range: Range<u64>,
    ) -> Result<Result<Bytes, UnitError>, Stopped> {
        if shelved.moved().is_none() {
            return read_here(shelved, range).await;
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        while range.start < range.end {
            let (place, len) = shelved.stretch(&range);
            let stretch = range.start..range.start + len;
            let piece = match place {
                Stretched::Here(_) => read_here(shelved, stretch).await?,
                Stretched::Moved(place) => self.read_moved(shelved, place).await,
            };
            match piece {
                // Mostly all of it is in one place.
                Ok(piece) if len == range.end - range.start && bytes.is_empty() => return Ok(Ok(piece)),
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => return Ok(Err(error)),
            }
            range.start += len;
        }
        Ok(Ok(bytes.freeze()))
    }

    async fn read_moved(&self, shelved: &Shelved<D>, range: Range<u64>) -> Result<Bytes, UnitError> {
        let (Some(place), Some(depot)) = (shelved.moved(), &self.depot) else { return Err(UnitError::Away) };
        depot.read(place.unit, &place.name, range).await.map_err(|fault| match fault {
            ReadFault::Lost => UnitError::Unsound("the object is gone, or too short"),
            ReadFault::Away(_) => UnitError::Away,
        })
    }
}

async fn read_here<D: Disk>(
    shelved: &Arc<Shelved<D>>,
    range: Range<u64>,
) -> Result<Result<Bytes, UnitError>, Stopped> {
    let shelved = Arc::clone(shelved);
    off_reactor(move || shelved.read_here(range)).await
}
