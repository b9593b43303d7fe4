//! When a delivery is offered, a message handed over, a copy let go: the deciding, without I/O.
//!
//! Each part takes what happened and `now`, and gives back what is to be done:
//! - [`Deliveries`]: what waits for stores. A delivery waits for presence, not for a timer; a million that wait for
//!   stores that are off are rows of the catalog and nothing here.
//! - [`HandOvers`]: what waits for the next hop, and [`Retry`]: when it is tried again, or given up.
//! - [`Clock`]: whether the wall clock may be believed when something expires.
//!
//! Nothing here is durable, and nothing needs to be: all of it may be lost at any moment, and what is made new from
//! the catalog ends the same.

mod clock;
mod deliveries;
mod hand_overs;
pub mod limits;
mod retry;

pub use clock::Clock;
pub use deliveries::{Command, Cursor, Deliveries, Presence, Probed};
pub use hand_overs::{HandOvers, Task};
pub use retry::Retry;
