//! What others may have sent since their last word: each router leans to other endpoints.
//!
//! Between two words all routers see the same endpoint idle, and all would send there. So each takes
//! some prefill for waiting that nobody has said yet: as much as others send meanwhile, more on
//! some endpoints and less on others, and on others than the routers beside it do. Between endpoints
//! that differ by more than that, it changes nothing.

use crate::hash::mix;

/// What is not said yet counts so many times: whoever comes second waits for all of the first one's
/// prefill, which is not spread over endpoints. Of 0.5 to 8, 8 gave the least mean TTFT with 2, 4 and 8
/// routers on Mooncake's conversation trace; more costs end-to-end latency.
const WEIGHT: f64 = 8.0;
/// Seconds between two looks at what others send.
const LOOK: f64 = 0.25;

/// How far this router leans.
#[derive(Debug)]
pub struct Lean {
    origin: u64,
    looked: f64,
    /// Milliseconds on an endpoint, at most.
    most: f64,
}

impl Lean {
    /// Nobody sends anything yet. Each origin leans its own way.
    pub fn new(origin: u64) -> Self {
        Self { origin: mix(origin), looked: f64::NEG_INFINITY, most: 0.0 }
    }

    /// Takes note of what others send, now and then: `rate` microseconds of prefill a second to all
    /// endpoints, from whom there is a word `every` so many seconds.
    pub fn look(&mut self, now: f64, every: f64, rate: impl Fn() -> u64, endpoints: usize) {
        if (0.0..LOOK).contains(&(now - self.looked)) {
            return;
        }
        self.looked = now;
        let unsaid_ms = rate() as f64 * 1e-3 * every / 2.0;
        self.most = 2.0 * WEIGHT * unsaid_ms / endpoints.max(1) as f64;
    }

    /// Milliseconds that others may have sent to the endpoint.
    pub fn ms(&self, id: u64) -> f64 {
        self.most * ((mix(self.origin ^ id) >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_lean_to_different_endpoints_and_no_further_than_others_send() {
        let lean = |origin| {
            let mut lean = Lean::new(origin);
            lean.look(1.0, 0.2, || 800_000, 16);
            lean
        };
        let favourite = |lean: &Lean| (0..16).min_by(|&a, &b| lean.ms(a).total_cmp(&lean.ms(b)));
        let mut favourites: Vec<_> = (0..8).map(|origin| favourite(&lean(origin))).collect();
        favourites.sort_unstable();
        favourites.dedup();
        assert!(favourites.len() >= 4, "{favourites:?}");
        // 800 ms of prefill a second, of which a tenth is not said: 5 ms an endpoint.
        let mean = (0..1_000).map(|id| lean(1).ms(id)).sum::<f64>() / 1_000.0;
        assert!((mean / (WEIGHT * 5.0) - 1.0).abs() < 0.1, "{mean}");
    }

    #[test]
    fn where_others_send_nothing_nobody_leans() {
        let mut lean = Lean::new(3);
        lean.look(1.0, 0.05, || 1_000_000, 4);
        assert!((0..4).any(|id| lean.ms(id) > 0.0));
        lean.look(1.1, 0.05, || 0, 4); // too soon
        assert!((0..4).any(|id| lean.ms(id) > 0.0));
        lean.look(1.3, 0.05, || 0, 4);
        assert!((0..4).all(|id| lean.ms(id) == 0.0));
    }
}
