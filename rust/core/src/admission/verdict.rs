//! What is said of those who wait.

/// Why a request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// As many wait as may.
    Requests,
    /// Those who wait have as many prompt tokens as they may.
    Tokens,
    /// It has waited for as long as it may.
    Seconds,
}

impl Reason {
    /// Every reason, in the order of [`Counts::rejected`].
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Seconds];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Seconds => "seconds",
        }
    }
}

/// The end of a request that never went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// Seconds after which it may come again.
    pub retry_after: f64,
}

/// What became of requests so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Those who went.
    pub admitted: u64,
    /// Of these, those who had to wait.
    pub held: u64,
    /// Seconds that these waited.
    pub waited: f64,
    /// Those who were rejected, by [`Reason::ALL`].
    pub rejected: [u64; Reason::ALL.len()],
    /// Those who left by themselves.
    pub left: u64,
}

/// A place to go to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Go {
    /// Position among the candidates.
    pub pos: usize,
    /// Seconds that the request waited; 0 if it could go at once.
    pub waited: f64,
}

/// How full an endpoint is expected to get, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// What requests in flight keep there, or will.
    pub in_use: f64,
    /// What they may keep.
    pub room: f64,
}
