//! When requests should have their first token, for hosts that do not report it in time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::flight::Flight;

/// Seconds behind the clock above which a report of a first token comes too late to count as one.
const LATE: f64 = 0.1;

/// Requests by the moment at which their prefill should be over, soonest first.
///
/// Kept only while first tokens are not reported: then a request would count as queued until its
/// end, and an engine that decodes would look like one that prefills. Once a host reports one in
/// time, its word is waited for instead, since it knows of an engine that is slower than expected.
#[derive(Debug, Default)]
pub(super) struct Due {
    heap: BinaryHeap<Reverse<(u64, u32, u128)>>,
    reported: bool,
    missed: bool,
}

impl Due {
    /// A first token of `time` is reported at `now`.
    pub fn reported(&mut self, time: f64, now: f64) {
        if time < now - LATE {
            self.missed = true;
        } else {
            self.reported = true;
            self.heap = BinaryHeap::new();
        }
    }

    /// A request was served, and nobody spoke of its first token.
    pub fn missed(&mut self) {
        self.missed = true;
    }

    /// A request was sent; `live` requests are in flight, of which `is_live` knows those given.
    pub fn sent(
        &mut self,
        flight: &Flight,
        request: u128,
        live: usize,
        is_live: impl Fn(u32, u128) -> bool,
    ) {
        // A request without a known prompt has nothing queued.
        if self.reported || !self.missed || flight.work.prefill_us == 0 {
            return;
        }
        let queued = flight.ahead.us.saturating_add(flight.work.prefill_us);
        let at = micros(flight.start).saturating_add(queued);
        self.heap.push(Reverse((at, flight.row, request)));
        if self.heap.len() > 2 * live + 1024 {
            self.heap.retain(|Reverse((_, row, request))| is_live(*row, *request));
        }
    }

    /// The next request whose prefill should be over: its row, its id, and when it was.
    pub fn next(&mut self, now: f64) -> Option<(u32, u128, f64)> {
        let now = micros(now);
        let soonest = self.heap.peek().is_some_and(|Reverse((at, ..))| *at <= now);
        let Reverse((at, row, request)) = if soonest { self.heap.pop()? } else { return None };
        Some((row, request, at as f64 / 1e6))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

fn micros(time: f64) -> u64 {
    (time * 1e6) as u64
}
