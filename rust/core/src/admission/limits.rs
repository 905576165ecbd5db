//! What a hold is allowed to do.

use crate::error::{RouteError, fail};

/// Bounds and rules of a [`Hold`](super::Hold). Times are seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Share of a KV cache that requests in flight may be expected to fill.
    pub room: f64,
    /// Waiters that are tried at each end of a request, in order.
    pub look_ahead: usize,
    /// Once the oldest has waited for so long, an endpoint is kept free for it; sooner where requests
    /// stay on an endpoint for less than that on average.
    pub reserve_after: f64,
    /// Requests that may wait at once …
    pub max_requests: usize,
    /// … and the sum of their prompt tokens.
    pub max_tokens: u64,
    /// The longest that one waits before it is rejected.
    pub max_wait: f64,
    /// Seconds of waiting that a step of priority counts for.
    pub priority_seconds: f64,
    /// Whether sessions are let in, not requests alone: see [`Hold`](super::Hold).
    pub sessions: bool,
    /// Seconds without a request in flight after which a session lives no longer.
    pub session_idle: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            room: 0.99,
            look_ahead: 256,
            reserve_after: 27.0,
            max_requests: 4096,
            max_tokens: 64 << 20,
            max_wait: 600.0,
            priority_seconds: 10.0,
            sessions: false,
            session_idle: 30.0,
        }
    }
}

impl Limits {
    /// The usual ones but for these, by the names that the error lists; a switch is 0 or 1.
    ///
    /// # Errors
    /// Names what is unknown or out of range.
    pub fn but<'a>(given: impl IntoIterator<Item = (&'a str, f64)>) -> Result<Self, RouteError> {
        let mut limits = Self::default();
        for (name, value) in given {
            match name {
                "room" => limits.room = value,
                "look_ahead" => limits.look_ahead = value as usize,
                "reserve_after_s" => limits.reserve_after = value,
                "max_requests" => limits.max_requests = value as usize,
                "max_tokens" => limits.max_tokens = value as u64,
                "max_wait_s" => limits.max_wait = value,
                "priority_s" => limits.priority_seconds = value,
                "sessions" => limits.sessions = value != 0.0,
                "session_idle_s" => limits.session_idle = value,
                _ => fail!(
                    "hold: no bound {name:?}: use room, look_ahead, reserve_after_s, max_requests, \
                     max_tokens, max_wait_s, priority_s, sessions or session_idle_s"
                ),
            }
        }
        limits.check()?;
        Ok(limits)
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// Names the bound and what it should be.
    pub fn check(&self) -> Result<(), RouteError> {
        for (name, value, low, high) in [
            ("room", self.room, 0.05, 100.0),
            ("reserve_after_s", self.reserve_after, 0.0, 86_400.0),
            ("max_wait_s", self.max_wait, 0.0, 86_400.0),
            ("priority_s", self.priority_seconds, 0.0, 86_400.0),
            ("session_idle_s", self.session_idle, 0.0, 86_400.0),
            ("look_ahead", self.look_ahead as f64, 1.0, 4096.0),
            ("max_requests", self.max_requests as f64, 0.0, 1e6),
            ("max_tokens", self.max_tokens as f64, 0.0, 1e12),
        ] {
            if !(low..=high).contains(&value) {
                fail!("hold: {name}: expected from {low} to {high}, got {value}");
            }
        }
        Ok(())
    }
}
