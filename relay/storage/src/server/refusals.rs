//! What a unit's errors are to those who asked: the kind goes over the wire, the text into the log.

use crate::unit::UnitError;
use crate::unit::worker::Stopped;
use crate::wire::Refusal;

impl From<UnitError> for Refusal {
    fn from(error: UnitError) -> Self {
        match error {
            UnitError::Fenced { present } => Self::Fenced { present },
            UnitError::NoSegment => Self::NoSegment,
            UnitError::Expired => Self::Expired,
            UnitError::Offset { next } => Self::Offset { next },
            UnitError::State(_) => Self::State,
            UnitError::Unsound(_) => Self::Unsound,
            UnitError::NoSpace => Self::NoSpace,
            UnitError::Away => Self::Away,
            UnitError::Disk(error) => {
                tracing::error!(%error, "a disk failed");
                Self::Disk
            }
        }
    }
}

impl From<Stopped> for Refusal {
    fn from(_: Stopped) -> Self {
        Self::Disk
    }
}
