//! Trace replay: discrete events, modelled engines, the very strategies that production runs.
//!
//! Time is in milliseconds from the first arrival. Read in this order: [`trace`] (requests and
//! the identity of their blocks), [`timing`] (how long a step takes), [`kv`] (the block cache of
//! one engine), [`engine`] (its scheduler), [`events`] (what it tells of its cache), [`gateway`]
//! (what a live router does and knows), [`live`] (one with a strategy of the core), [`decisions`]
//! (why it went where it went), [`arrivals`],
//! [`conditions`] (what goes wrong in a fleet), [`sim`] (the event loop), [`outcome`] and [`report`]
//! (figures).

pub mod arrivals;
mod beside;
pub mod conditions;
pub mod decisions;
pub mod engine;
pub mod events;
pub mod gateway;
mod hold;
pub mod kv;
pub mod live;
pub mod mixed_map;
pub mod outcome;
pub mod report;
pub mod request;
pub mod several;
pub mod share;
pub mod sim;
pub mod timing;
pub mod trace;

pub use conditions::{Change, Conditions};
pub use engine::EngineConfig;
pub use gateway::Gateway;
pub use live::LiveRouter;
pub use outcome::Outcome;
pub use report::Summary;
pub use request::Request;
pub use several::Several;
pub use share::Share;
pub use sim::run;
pub use timing::Timing;
pub use trace::{Row, Trace};
