//! Requests in flight and what a sliding window of them shows, per row.
//!
//! The counts are columns of the [`StatTable`], so that a strategy has one place to read.
//! A request counts from the choice on (pending), through prefill and decode, until it ends, fails,
//! or its lease runs out. Unknown and repeated ends change nothing: no count drifts or goes negative.
//! Read next: `events.rs` (what happens to a request), `state.rs` (what is kept), `flight.rs` (one
//! request), `row.rs` (the sums of one endpoint), `clock.rs` (what timestamps are worth), `expiry.rs`
//! (what leaves by time alone).

mod backlog;
mod clock;
mod due;
mod events;
mod expiry;
mod figures;
mod flight;
mod gone;
mod others;
mod places;
mod row;
mod seen;
mod shared;
mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;
mod waiting;
mod window;
mod work;

pub use row::RowStats;
pub use seen::{FirstToken, Glimpse, Served};
pub use state::{Fate, Load, MAX_PENDING, PENDING_LEASE};
pub use work::{Work, pairs};
