//! What a strategy may see, and the registry of all of them.
//!
//! A strategy reads a [`View`] and returns a position among the candidates. It does no accounting.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{RouteError, fail};
use crate::hash::{PrefixKey, mix};
use crate::rng::Rng;
use crate::speed::Profile;
use crate::stats::{Stat, StatTable};

mod affinity;
mod cache_aware;
mod choose;
mod copies;
mod costs;
mod dynamo_cost;
mod expected_latency;
mod least_connections;
mod llm_d;
mod lmetric;
mod power_of_two;
mod prefix_affinity;
mod prefix_cache;
mod random;
mod round_robin;
mod session_affinity;
mod sticky_until_saturated;
mod weighted_score;

/// The eligible endpoints of one request.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// Row of each candidate.
    pub rows: Vec<u32>,
    /// Stable id of each candidate; placement hashes it, never the row.
    pub ids: Vec<u64>,
    /// Capacity weight of each candidate; empty when all are alike.
    pub weights: Vec<f64>,
    /// Candidate positions sorted by URL.
    pub order: Vec<u32>,
    /// Names the set, whatever its order.
    pub set: u64,
    runs: Vec<Range<usize>>,
}

impl Candidates {
    /// `order`: positions sorted by URL. `weights`: one per candidate, or empty.
    pub fn new(rows: Vec<u32>, ids: Vec<u64>, weights: Vec<f64>, order: Vec<u32>) -> Self {
        let set = ids.iter().fold(0, |set: u64, &id| set.wrapping_add(mix(id)));
        let mut runs: Vec<Range<usize>> = Vec::new();
        for row in rows.iter().map(|&row| row as usize) {
            match runs.last_mut() {
                Some(run) if run.end == row => run.end += 1,
                _ => runs.push(row..row + 1),
            }
        }
        // Rows all over the table gain nothing by runs.
        if runs.len() > 1 + rows.len() / 16 {
            runs.clear();
        }
        Self { rows, ids, weights, order, set, runs }
    }

    /// The candidates as runs of neighbouring rows; empty when they are too scattered for that.
    pub fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing can be chosen.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// What a request asks for, in tokens. Nothing is known of a request without a prompt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Tokens of the prompt.
    pub tokens: f64,
    /// Tokens of a block of the prefix index.
    pub block_tokens: f64,
    /// Leading prompt tokens that each candidate has in its cache; empty where nobody knows.
    pub cached: &'a [f64],
    /// Of these, tokens that requests in flight on the candidate use already; empty for a strategy
    /// that does not ask.
    pub in_use: &'a [f64],
}

/// What a strategy may read: the candidates, the columns and what is asked.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Packed stats.
    pub table: &'a StatTable,
    /// Whom the choice is among.
    pub candidates: &'a Candidates,
    /// The request.
    pub asked: Asked<'a>,
    /// What an engine with a slowness of 1 is like.
    pub engine: Profile,
}

impl<'a> View<'a> {
    /// A view for a request of which nothing is known.
    pub fn new(table: &'a StatTable, candidates: &'a Candidates) -> Self {
        Self { table, candidates, asked: Asked::default(), engine: Profile::default() }
    }

    /// The view for this request, to engines like this one.
    #[must_use]
    pub fn asking(self, asked: Asked<'a>, engine: Profile) -> Self {
        Self { asked, engine, ..self }
    }

    /// Leading prompt tokens that the candidate has in its cache.
    pub fn cached(self, pos: usize) -> f64 {
        self.asked.cached.get(pos).copied().unwrap_or(0.0)
    }

    /// Prompt tokens that the request adds to what the candidate's KV cache must keep.
    pub fn added(self, pos: usize) -> f64 {
        (self.asked.tokens - self.asked.in_use.get(pos).copied().unwrap_or(0.0)).max(0.0)
    }

    /// Prompt tokens that the candidate would have to prefill: at least 1, as engines do.
    pub fn uncached(self, pos: usize) -> f64 {
        (self.asked.tokens - self.cached(pos)).max(1.0)
    }

    /// Number of candidates.
    pub fn len(self) -> usize {
        self.candidates.len()
    }

    /// Whether nothing can be chosen.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The stat of the candidate at `pos`.
    pub fn get(self, stat: Stat, pos: usize) -> f64 {
        self.table.get(stat, self.candidates.rows[pos])
    }

    /// Values of a stat, a candidate each; not known is `NaN`.
    pub fn values(self, stat: Stat) -> impl Iterator<Item = f64> + Clone + 'a {
        let column = self.table.column(stat);
        let value = move |&row: &u32| column.get(row as usize).copied().unwrap_or(f64::NAN);
        self.candidates.rows.iter().map(value)
    }

    /// Capacity weight of a candidate, 1 if none was given.
    pub fn weight(self, pos: usize) -> f64 {
        self.candidates.weights.get(pos).copied().unwrap_or(1.0)
    }
}

/// What identifies a request for affinity.
#[derive(Debug, Clone)]
pub enum Key {
    /// Nothing: route by load.
    None,
    /// The hashed session.
    Session(u64),
    /// The hashed prompt head.
    Prefix(PrefixKey),
    /// The prompt, for the prefix index; see [`crate::Asked`] for what it says.
    Prompt(crate::Prompt),
}

/// One summand or factor of a score, for `explain`.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What it is.
    pub name: &'static str,
    /// How much it is, in `unit`.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// What a candidate scored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scored {
    /// The figure compared; `NaN` where the strategy does not compare.
    pub score: f64,
    /// Where it comes from.
    pub terms: Vec<Term>,
}

/// Named parameters as the user wrote them. A parameter that nobody takes is an error.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// Numbers by name.
    pub numbers: BTreeMap<String, f64>,
    /// Words by name.
    pub words: BTreeMap<String, String>,
    /// Weights by name.
    pub weights: BTreeMap<String, f64>,
}

impl Params {
    /// Takes a number within `low..=high`.
    fn number(&mut self, name: &str, default: f64, low: f64, high: f64) -> Result<f64, RouteError> {
        if let Some(word) = self.words.get(name) {
            fail!("parameter {name:?}: expected a number from {low} to {high}, got {word:?}");
        }
        let value = self.numbers.remove(name).unwrap_or(default);
        if !(low..=high).contains(&value) {
            fail!("parameter {name:?}: expected a number from {low} to {high}, got {value}");
        }
        Ok(value)
    }

    /// Takes one of `words`; the first is the default. Returns its place.
    fn word(&mut self, name: &str, words: &[&str]) -> Result<usize, RouteError> {
        if let Some(number) = self.numbers.get(name) {
            fail!("parameter {name:?}: expected one of {}, got {number}", words.join(", "));
        }
        let Some(word) = self.words.remove(name) else { return Ok(0) };
        match words.iter().position(|w| *w == word) {
            Some(at) => Ok(at),
            None => fail!("parameter {name:?}: expected one of {}, got {word:?}", words.join(", ")),
        }
    }

    fn finish(self, strategy: &str, valid: &str) -> Result<(), RouteError> {
        let left = self.numbers.into_keys().chain(self.words.into_keys());
        let weights = (!self.weights.is_empty()).then(|| "weights".to_owned());
        match left.chain(weights).next() {
            Some(name) if valid.is_empty() => {
                fail!("{strategy} takes no parameter {name:?}; it has none but seed")
            }
            Some(name) => fail!("{strategy} takes no parameter {name:?}; use one of {valid}, seed"),
            None => Ok(()),
        }
    }
}

/// One routing rule. `select` gets draws and mutable state of its own; everything else is read.
pub trait Rule: Clone + Send {
    /// The word users write.
    const NAME: &'static str;
    /// Its parameters, for error messages.
    const PARAMS: &'static str = "";
    /// Columns it reads.
    const READS: &'static [Stat] = &[Stat::InFlight];
    /// Whether it reads what the prefix index knows of the prompt.
    const NEEDS_PROMPT: bool = false;
    /// Whether it reads which of the prompt's blocks are in use ([`Asked::in_use`]).
    const NEEDS_IN_USE: bool = false;
    /// Builds it from named parameters, taking what it knows.
    ///
    /// # Errors
    /// On a value out of range.
    fn build(params: &mut Params) -> Result<Self, RouteError>;
    /// Columns this instance reads.
    fn reads(&self) -> Vec<Stat> {
        Self::READS.to_vec()
    }
    /// A position among the candidates; `None` only when there is none.
    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize>;
    /// Moves what goes round, for a process that has it from another.
    fn shift(&mut self, _: u64) {}
    /// What each candidate scores, in candidate order.
    fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored>;
}

macro_rules! registry {
    ($($module:ident :: $rule:ident),* $(,)?) => {
        /// A built strategy.
        #[derive(Clone)]
        pub enum Strategy { $(
            #[doc = concat!("See `strategy/", stringify!($module), ".rs`.")]
            $rule(Box<$module::$rule>),
        )* }

        impl Strategy {
            /// The words of all strategies.
            pub const NAMES: &[&str] = &[$(<$module::$rule as Rule>::NAME,)*];

            /// Builds a strategy from its word and parameters.
            ///
            /// # Errors
            /// On an unknown word or parameter, or a value out of range; lists the valid ones.
            pub fn build(name: &str, mut params: Params) -> Result<Self, RouteError> {
                $(if name == <$module::$rule as Rule>::NAME {
                    let rule = <$module::$rule as Rule>::build(&mut params)?;
                    params.finish(name, <$module::$rule as Rule>::PARAMS)?;
                    return Ok(Self::$rule(Box::new(rule)));
                })*
                fail!("unknown strategy {name:?}: use one of {}", Self::NAMES.join(", "))
            }

            /// Columns it reads.
            pub fn reads(&self) -> Vec<Stat> {
                match self { $(Self::$rule(rule) => rule.reads(),)* }
            }

            /// See [`Rule::NEEDS_PROMPT`].
            pub fn needs_prompt(&self) -> bool {
                match self { $(Self::$rule(_) => <$module::$rule as Rule>::NEEDS_PROMPT,)* }
            }

            /// See [`Rule::NEEDS_IN_USE`].
            pub fn needs_in_use(&self) -> bool {
                match self { $(Self::$rule(_) => <$module::$rule as Rule>::NEEDS_IN_USE,)* }
            }

            /// See [`Rule::select`].
            pub fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
                match self { $(Self::$rule(rule) => rule.select(view, key, rng),)* }
            }

            /// See [`Rule::shift`].
            pub fn shift(&mut self, turn: u64) {
                match self { $(Self::$rule(rule) => rule.shift(turn),)* }
            }

            /// See [`Rule::score`].
            pub fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
                match self { $(Self::$rule(rule) => rule.score(view, key),)* }
            }
        }
    };
}

registry! {
    round_robin::RoundRobin,
    random::Random,
    least_connections::LeastConnections,
    power_of_two::PowerOfTwo,
    weighted_score::WeightedScore,
    session_affinity::SessionAffinity,
    prefix_affinity::PrefixAffinity,
    prefix_cache::PrefixCache,
    expected_latency::ExpectedLatency,
    cache_aware::CacheAware,
    dynamo_cost::DynamoCost,
    lmetric::LMetric,
    llm_d::LlmD,
    sticky_until_saturated::StickyUntilSaturated,
}
