//! How a request ended, as far as it says something of the endpoint.

use crate::error::{RouteError, fail};

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No connection: refused, no such name, TLS.
    Connect,
    /// The answer was an error of the endpoint's own (5xx).
    Status,
    /// The endpoint has too much to do (429, 503).
    Busy,
    /// No answer in time.
    Timeout,
    /// The answer broke off.
    Broken,
    /// The client left: says nothing of the endpoint.
    Client,
    /// The host does not say. After a first token it counts as [`Reason::Client`].
    Unknown,
}

impl Reason {
    /// Every reason.
    pub const ALL: &[Self] = &[
        Self::Connect,
        Self::Status,
        Self::Busy,
        Self::Timeout,
        Self::Broken,
        Self::Client,
        Self::Unknown,
    ];

    /// The word that hosts use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Status => "status",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Client => "client",
            Self::Unknown => "unknown",
        }
    }

    /// The reason of that word.
    ///
    /// # Errors
    /// When no reason has the word; lists the valid ones.
    pub fn named(word: &str) -> Result<Self, RouteError> {
        if let Some(&reason) = Self::ALL.iter().find(|reason| reason.name() == word) {
            return Ok(reason);
        }
        let words: Vec<_> = Self::ALL.iter().map(|reason| reason.name()).collect();
        fail!("reason: expected one of {}, got {word:?}", words.join(", "))
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It was served.
    Served,
    /// The endpoint found fault with the request itself (4xx): it lives, but there is nothing to
    /// learn from the answer.
    Refused,
    /// It failed, and the endpoint asks to be left alone for so many seconds, if it does.
    Failed(Reason, Option<f64>),
}

impl Outcome {
    /// The outcome of an answer with this HTTP status.
    pub fn of_status(status: u16, retry_after: Option<f64>) -> Self {
        match status {
            429 | 503 => Self::Failed(Reason::Busy, retry_after),
            500.. => Self::Failed(Reason::Status, retry_after),
            400.. => Self::Refused,
            _ => Self::Served,
        }
    }
}

/// Served, or failed for a reason that is not known.
impl From<bool> for Outcome {
    fn from(served: bool) -> Self {
        if served { Self::Served } else { Self::Failed(Reason::Unknown, None) }
    }
}
