//! What other routers report that they have in flight on a row.

use super::backlog::Backlog;
use crate::register::{Field, Register};

/// What other routers have in flight on a row: sums over all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others {
    pub requests: u64,
    pub decoding: u64,
    pub decoding_tokens: u64,
    pub queued: Backlog,
    /// Prefill that is over since they started, of those who are there now.
    pub prefilled: Backlog,
}

impl Others {
    pub fn of(sum: &Register) -> Self {
        Self {
            requests: sum.get(Field::Requests),
            decoding: sum.get(Field::Decoding),
            decoding_tokens: sum.get(Field::DecodingTokens),
            queued: Backlog {
                requests: sum.get(Field::QueuedRequests),
                tokens: sum.get(Field::QueuedTokens),
                pairs: sum.get(Field::QueuedPairs),
                us: sum.get(Field::QueuedUs),
            },
            prefilled: Backlog {
                requests: sum.get(Field::PrefilledRequests),
                tokens: sum.get(Field::PrefilledTokens),
                pairs: sum.get(Field::PrefilledPairs),
                us: 0,
            },
        }
    }
}
