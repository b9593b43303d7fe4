//! What every program of Lighter does alike: its logs, saying that it is ready and where it listens, the socket over
//! which its commands reach it, stopping cleanly, what its exit code says, and counts in words.

pub mod addresses;
pub mod control;
pub mod exit;
pub mod files;
pub mod logs;
pub mod stop;
pub mod words;

pub use addresses::ready;
pub use exit::Exit;
pub use words::count;
