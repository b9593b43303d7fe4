//! The writer's side of the storage array: what the relay keeps mail in.
//!
//! ```no_run
//! # async fn example(config: lighter_storage::ArrayConfig, identity: &lighter_transport::Identity,
//! #     key: lighter_storage::ArrayKey) -> Result<(), Box<dyn std::error::Error>> {
//! use lighter_storage::{Array, Class, Sequence, wall_clock};
//!
//! let array = Array::open(config, identity, key, wall_clock()).await?;
//!
//! let mut writer = array.create_blob(Class::Days30);
//! writer.write(b"a file, in as many pieces as it comes").await?;
//! let blob = writer.finish().await?; // placed, not yet durable
//!
//! let record = b"the message that has it".to_vec(); // names blob.stored()
//! let sequence = array.append_catalog(record, Class::Days30, &[&blob]).await?;
//! // Now, and not before, record and blob are on stable storage on as many copies as promised.
//!
//! let mut reader = array.read_blob(blob.stored(), 0..blob.stored().size);
//! while let Some(verified) = reader.next().await? {
//!     assert!(!verified.is_empty());
//! }
//!
//! let mut replay = array.replay(Sequence::ZERO);
//! while let Some(entry) = replay.next().await? {
//!     assert_eq!(entry.sequence, sequence);
//! }
//! # Ok(()) }
//! ```

mod config;
mod errors;
mod skeleton;

pub use config::{ArrayConfig, Clock, ServerRecord, wall_clock};
pub use errors::{OpenError, ReadError, WriteError};
pub use skeleton::*;
