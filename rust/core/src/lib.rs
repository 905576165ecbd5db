//! Routing strategies over packed stat columns.
//!
//! The core knows rows, ids and numbers: no URLs, no Python, no clock, no I/O.
//! Read in this order: [`stats`] (the packed table), [`strategy`] (what a strategy may see,
//! and the registry), one strategy such as `strategy/least_connections.rs`, [`load`] (requests
//! in flight and sliding windows), [`prompt`], [`media`] and [`index`] (prompts as block hashes,
//! and who has them cached), [`sizes`] and [`speed`] (what prompts weigh and engines are like,
//! learned), [`trust`] (whose events are believed), [`health`] (who is left alone because it
//! fails), [`fleet`] (these together), [`replicas`] (several routers
//! that route as one),
//! [`router`] (pick and explain), [`saved`] (what was learned, kept over a restart); [`exact`] (what
//! engines hold, by their own events) stands alone.

pub mod admission;
mod answers;
mod bytes;
pub mod error;
pub mod exact;
pub mod fleet;
pub mod hash;
pub mod health;
pub mod index;
pub mod load;
pub mod lookup;
pub mod media;
pub mod min_index;
mod placed;
pub mod prompt;
pub mod register;
pub mod replicas;
pub mod rng;
pub mod router;
pub mod saved;
pub mod sizes;
pub mod speed;
pub mod stats;
pub mod strategy;
pub mod trust;

pub use error::RouteError;
pub use fleet::Fleet;
pub use prompt::Prompt;
pub use router::Router;
pub use stats::{Stat, StatTable};
pub use strategy::{Asked, Candidates, Key, Params, View};
