//! What each candidate has of a prompt, by the index and by what engines reported.

use std::ops::Range;

use crate::index::{Depths, PrefixIndex};
use crate::prompt::Prompt;
use crate::strategy::Asked;

/// Blocks of a prompt that a cache can save: never all, an engine computes the last token anew.
fn most_blocks(tokens: f64, block_tokens: f64) -> u32 {
    ((tokens - 1.0) / block_tokens) as u32
}

/// Finds out what each candidate has of a prompt; keeps its memory from one request to the next.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    depths: Depths,
    cached: Vec<f64>,
    /// What `cached` was before the engines were heard; empty if none was.
    learned: Vec<f64>,
    in_use: Vec<f64>,
}

impl Lookup {
    /// Matches the prompt against all rows.
    pub fn find(&mut self, index: &PrefixIndex, prompt: &Prompt) {
        index.match_into(&prompt.chain, &mut self.depths);
    }

    /// What these rows have of the prompt, by the last [`Lookup::find`]. `runs`: the same rows as
    /// runs of neighbours, or nothing. `in_use`: whether that is asked too.
    pub fn look(
        &mut self,
        rows: impl Iterator<Item = u32> + Clone,
        runs: &[Range<usize>],
        (tokens, block_tokens): (f64, f64),
        in_use: bool,
    ) {
        let most = most_blocks(tokens, block_tokens);
        let cached = |depth: u32| f64::from(depth.min(most)) * block_tokens;
        let used = |depth: u32| f64::from(depth) * block_tokens;
        self.cached.clear();
        self.in_use.clear();
        let whole = runs.iter().map(|run| self.depths.of_run(run));
        if !runs.is_empty() && whole.clone().all(|run| run.is_some()) {
            for (held, busy) in whole.flatten() {
                self.cached.extend(held.iter().copied().map(cached));
                if in_use {
                    self.in_use.extend(busy.iter().copied().map(used));
                }
            }
        } else {
            self.cached.extend(rows.clone().map(|row| cached(self.depths.of(row))));
            if in_use {
                self.in_use.extend(rows.map(|row| used(self.depths.in_use(row))));
            }
        }
    }

    /// Puts right what was [looked](Self::look) up, by what the engines of the rows reported.
    pub fn observe(
        &mut self,
        rows: impl Iterator<Item = (u32, Option<Reported>)>,
        (tokens, block_tokens): (f64, f64),
    ) {
        let most = (tokens - 1.0).max(0.0);
        self.learned.clone_from(&self.cached);
        for (cached, (row, reported)) in self.cached.iter_mut().zip(rows) {
            let Some(reported) = reported else { continue };
            // What requests in flight use is there, or soon will be; beyond, an exact engine's
            // word is final.
            let in_use = f64::from(self.depths.in_use(row)) * block_tokens;
            let learned = if reported.exact { in_use } else { *cached };
            *cached = learned.max(reported.tokens).min(most);
        }
    }

    /// What is asked of the rows that were looked at last.
    pub fn asked(&self, (tokens, block_tokens): (f64, f64)) -> Asked<'_> {
        Asked { tokens, block_tokens, cached: &self.cached, in_use: &self.in_use }
    }

    /// Tokens that the candidate at this position has by what was sent there, whatever its engine
    /// reported; 0 where no engine was heard.
    pub fn learned(&self, pos: usize) -> f64 {
        self.learned.get(pos).copied().unwrap_or(0.0)
    }

    /// Tokens that the candidate at this position has, by the last [`Lookup::asked`].
    pub fn cached(&self, pos: usize) -> f64 {
        self.cached.get(pos).copied().unwrap_or(0.0)
    }
}

/// What an engine reported of a prompt by its KV events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reported {
    /// Leading tokens that it has.
    pub tokens: f64,
    /// Whether it surely has no more.
    pub exact: bool,
}
