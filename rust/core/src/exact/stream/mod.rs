//! What to do with a message, by its sequence number: a state machine without sockets or time.
//!
//! Engines number their messages from 0 and start again with each process. A loss is therefore a
//! number passed over, a restart a number that falls (or a copy that came late). `live.rs` is what
//! live messages do, `resync.rs` has replays and broken connections.

mod live;
mod resync;
mod state;

pub use state::{Seen, Step, Stream, Then};
