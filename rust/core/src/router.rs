//! A strategy with its own draws.

use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;
use crate::strategy::{Key, Params, Scored, Strategy, View};

/// Chooses. It reads the view and changes only itself; accounting is the fleet's.
#[derive(Clone)]
pub struct Router {
    strategy: Strategy,
    rng: Rng,
}

impl Router {
    /// Builds the strategy of that word.
    ///
    /// # Errors
    /// On an unknown strategy or parameter; the text lists the valid ones.
    pub fn new(strategy: &str, params: Params, seed: u64) -> Result<Self, RouteError> {
        Ok(Self { strategy: Strategy::build(strategy, params)?, rng: Rng::new(seed) })
    }

    /// Draws from this seed and takes this turn next: another process has the same state.
    pub fn reseed(&mut self, seed: u64, turn: u64) {
        self.rng = Rng::new(seed);
        self.strategy.shift(turn);
    }

    /// Columns the strategy reads.
    pub fn reads(&self) -> Vec<Stat> {
        self.strategy.reads()
    }

    /// Whether it reads what the prefix index knows of the prompt.
    pub fn needs_prompt(&self) -> bool {
        self.strategy.needs_prompt()
    }

    /// Whether it reads which of the prompt's blocks are in use.
    pub fn needs_in_use(&self) -> bool {
        self.strategy.needs_in_use()
    }

    /// Position of the chosen candidate; `None` only when there is none.
    #[inline]
    pub fn pick(&mut self, view: View<'_>, key: &Key) -> Option<usize> {
        self.strategy.select(view, key, &mut self.rng)
    }

    /// What every candidate scores; changes nothing.
    pub fn scores(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
        self.strategy.score(view, key)
    }

    /// What the next [`Router::pick`] would choose, and every candidate's score; changes nothing.
    pub fn explain(&self, view: View<'_>, key: &Key) -> (Option<usize>, Vec<Scored>) {
        let scores = self.scores(view, key);
        (self.clone().pick(view, key), scores)
    }
}
