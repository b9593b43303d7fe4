//! Names that an operator gives: machines, disks, network paths; and what copies may share by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::LABEL_LEN_MAX;

/// The name of a machine, a disk or a network path: 1 to 64 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// Not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {LABEL_LEN_MAX} visible ASCII characters, and no blanks")]
pub struct LabelError;

impl Label {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        let is_good = (1..=LABEL_LEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if is_good { Ok(Self(text)) } else { Err(LabelError) }
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.to_owned().try_into()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that two copies of a segment must not share, unless it was allowed by name. Written `host:NAME`,
/// `disk:NAME`, `zone:NAME`.
// SPEC: B15
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Shared {
    /// A machine.
    Host(Label),
    /// A disk, or a store behind the network that several machines have mounted.
    Disk(Label),
    /// A network path: a switch, a line, a room.
    Zone(Label),
}

/// Not the text of a [`Shared`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what copies may share is written host:NAME, disk:NAME or zone:NAME")]
pub struct SharedError;

impl FromStr for Shared {
    type Err = SharedError;

    fn from_str(text: &str) -> Result<Self, SharedError> {
        let (kind, name) = text.split_once(':').ok_or(SharedError)?;
        let name = name.parse().map_err(|_| SharedError)?;
        match kind {
            "host" => Ok(Self::Host(name)),
            "disk" => Ok(Self::Disk(name)),
            "zone" => Ok(Self::Zone(name)),
            _ => Err(SharedError),
        }
    }
}

impl TryFrom<String> for Shared {
    type Error = SharedError;

    fn try_from(text: String) -> Result<Self, SharedError> {
        text.parse()
    }
}

impl From<Shared> for String {
    fn from(shared: Shared) -> Self {
        shared.to_string()
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Disk(name) => write!(f, "disk:{name}"),
            Self::Zone(name) => write!(f, "zone:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_shared_reads_back_what_it_writes_and_nothing_else() {
        for text in ["host:10.0.0.1", "host:fe80::1", "disk:nas-1", "zone:room/2"] {
            assert_eq!(text.parse::<Shared>().unwrap().to_string(), text);
        }
        for bad in
            ["", "host", "host:", "rack:1", "host:a b", "host:\u{e4}", &format!("host:{}", "x".repeat(65))]
        {
            assert_eq!(bad.parse::<Shared>(), Err(SharedError), "{bad}");
        }
    }
}
