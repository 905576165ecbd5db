//! What a simulated router may be given beside its strategy.

use routecore::admission::Limits;

use super::LiveRouter;
use crate::beside::Beside;
use crate::decisions::Decisions;
use crate::events::Held;
use crate::hold::Waiting;

impl LiveRouter {
    /// Gives the engines capacity weights, one each.
    #[must_use]
    pub fn with_weights(mut self, weights: Vec<f64>) -> Self {
        self.weights = weights;
        self.gather();
        self
    }

    /// Goes by the engines' KV events, not by what was sent where.
    #[must_use]
    pub fn with_kv_events(mut self) -> Self {
        self.held = vec![Held::default(); self.rows.len()];
        self
    }

    /// Lets requests wait until there is room for them.
    #[must_use]
    pub fn with_hold(mut self, limits: Limits) -> Self {
        self.waiting = Some(Waiting::new(limits));
        self
    }

    /// Keeps some of its decisions there.
    #[must_use]
    pub fn with_decisions(mut self, decisions: Decisions) -> Self {
        self.decisions = decisions;
        self
    }

    /// Tells the others what it has in flight, as router number `origin`, every so many
    /// milliseconds at most; and where prefixes are, unless it goes by the engines' KV events.
    #[must_use]
    pub fn with_replicas(mut self, origin: u64, every: f64) -> Self {
        let prefixes = self.held.is_empty() && self.router.needs_prompt();
        self.beside = Some(Beside::new(origin, every, prefixes, &mut self.fleet));
        self
    }
}
