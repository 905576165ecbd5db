//! Who arrives when: independent requests by their time, dependent ones by their predecessors' end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use routecore::rng::Rng;

use crate::trace::Trace;

/// A request that arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// Milliseconds of simulated time.
    pub time: f64,
    /// Number of the request.
    pub request: u32,
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.time.total_cmp(&other.time).then(self.request.cmp(&other.request))
    }
}

/// Arrivals in time order: the independent ones sorted, the dependent ones as they come up.
pub struct Arrivals {
    sorted: std::vec::IntoIter<Arrival>,
    head: Option<Arrival>,
    later: BinaryHeap<Reverse<Arrival>>,
    missing: Vec<u32>,
    heirs: Vec<u32>,
    heir_starts: Vec<usize>,
    speedup: f64,
}

impl Arrivals {
    /// `speedup` divides times and delays; `jitter` milliseconds of the trace's time move each
    /// independent arrival, uniformly to either side, by draws from `seed`.
    pub fn new(trace: &Trace, speedup: f64, jitter: f64, seed: u64) -> Self {
        let n = trace.len();
        let missing: Vec<u32> =
            (0..n as u32).map(|at| trace.predecessors(at).len() as u32).collect();
        let mut draws = Rng::new(seed);
        let mut sorted: Vec<Arrival> = (0..n)
            .filter(|&at| missing[at] == 0)
            .map(|at| {
                let moved = if jitter > 0.0 { (2.0 * draws.unit() - 1.0) * jitter } else { 0.0 };
                Arrival { time: trace.arrivals[at] + moved, request: at as u32 }
            })
            .collect();
        sorted.sort_unstable();
        let first = sorted.first().map_or(0.0, |arrival| arrival.time);
        for arrival in &mut sorted {
            arrival.time = (arrival.time - first) / speedup;
        }
        let mut heir_starts = vec![0_usize; n + 1];
        for &before in &trace.after {
            heir_starts[before as usize + 1] += 1;
        }
        for at in 0..n {
            heir_starts[at + 1] += heir_starts[at];
        }
        let mut fill = heir_starts.clone();
        let mut heirs = vec![0; trace.after.len()];
        for at in 0..n as u32 {
            for &before in trace.predecessors(at) {
                heirs[fill[before as usize]] = at;
                fill[before as usize] += 1;
            }
        }
        let mut sorted = sorted.into_iter();
        let head = sorted.next();
        Self { sorted, head, later: BinaryHeap::new(), missing, heirs, heir_starts, speedup }
    }

    /// When the next request arrives; infinite if none is known of.
    pub fn peek(&self) -> f64 {
        let open = self.head.map_or(f64::INFINITY, |arrival| arrival.time);
        open.min(self.later.peek().map_or(f64::INFINITY, |Reverse(arrival)| arrival.time))
    }

    /// The next arrival.
    pub fn pop(&mut self) -> Option<Arrival> {
        match (self.head, self.later.peek()) {
            (Some(open), Some(Reverse(closed))) if *closed < open => {}
            (Some(open), _) => {
                self.head = self.sorted.next();
                return Some(open);
            }
            _ => {}
        }
        self.later.pop().map(|Reverse(arrival)| arrival)
    }

    /// A request is over: whoever waited for it alone arrives after its delay.
    pub fn release(&mut self, trace: &Trace, request: u32, now: f64) {
        let at = request as usize;
        for &heir in &self.heirs[self.heir_starts[at]..self.heir_starts[at + 1]] {
            self.missing[heir as usize] -= 1;
            if self.missing[heir as usize] == 0 {
                let time = now + trace.delays[heir as usize] / self.speedup;
                self.later.push(Reverse(Arrival { time, request: heir }));
            }
        }
    }
}
