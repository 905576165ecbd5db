//! What one router tells the others of one endpoint.
//!
//! Absolute values, so that the last word is all there is to know: one that was lost is healed by
//! the next, one that comes twice changes nothing, and who falls silent takes all of his with him.

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident;)*) => {
        /// A value of a [`Register`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Field { $($(#[$doc])* $variant,)* }

        impl Field {
            /// All, in the order in which they are sent.
            pub const ALL: &[Field] = &[$(Field::$variant,)*];
        }
    };
}

fields! {
    /// Whether anything is in flight: in a sum, routers that have something there.
    Routers;
    /// Requests in flight, choices that were not reported yet among them.
    Requests;
    /// Of these, sent and without a first token.
    Prefilling;
    /// Between first token and end.
    Decoding;
    /// Requests with anything to prefill …
    QueuedRequests;
    /// … their uncached tokens …
    QueuedTokens;
    /// … the query-key pairs of these …
    QueuedPairs;
    /// … and the microseconds that it all should take.
    QueuedUs;
    /// Prompt tokens of all in flight.
    ContextTokens;
    /// Prompt tokens of those that decode.
    DecodingTokens;
    /// Distinct prompt tokens that they keep in the KV cache.
    KvTokens;
    /// Prefill that is over since the start: requests with any …
    PrefilledRequests;
    /// … their uncached tokens …
    PrefilledTokens;
    /// … and the query-key pairs of these.
    PrefilledPairs;
    /// How much of what puts the endpoint out the router has seen itself; see `health/hint.rs`.
    Failing;
    /// Microseconds of prefill sent a second, lately.
    PrefillRate;
    /// Requests with a prompt sent in 1,000 seconds, lately.
    RequestRate;
    /// Requests sent in 1,000 seconds over the window.
    Qps;
}

/// How many values a register has.
pub const FIELDS: usize = Field::ALL.len();
/// The largest value: sums over all routers stay far from their end, whatever a message says.
pub const MOST: u64 = 1 << 48;
/// The first field that changes by time alone.
const RATES: usize = Field::PrefillRate as usize;

/// Whole numbers, so that sums never drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Register([u64; FIELDS]);

impl Register {
    /// The value of a field.
    pub fn get(&self, field: Field) -> u64 {
        self.0[field as usize]
    }

    /// Sets the value of a field, at most [`MOST`].
    pub fn set(&mut self, field: Field, value: u64) {
        self.0[field as usize] = value.min(MOST);
    }

    /// Sets a field to the nearest whole number; what is none counts as 0.
    pub fn round(&mut self, field: Field, value: f64) {
        self.set(field, value.round() as u64);
    }

    /// The values, in the order of [`Field::ALL`].
    pub fn values(&self) -> &[u64; FIELDS] {
        &self.0
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&value| value == 0)
    }

    /// Whether anything happened between the two, the passing of time aside.
    pub fn differs(&self, other: &Self) -> bool {
        self.0[..RATES] != other.0[..RATES]
    }

    /// Adds another router's.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_add(other);
        }
    }

    /// Takes away what was added before.
    pub fn take(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_sub(other);
        }
    }
}
