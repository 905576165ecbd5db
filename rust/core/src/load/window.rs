//! Sliding windows: exact sums, O(1) amortised per event whatever the window.

use std::collections::VecDeque;

/// Events one window keeps at most: above it the oldest leave early, so that memory is bounded.
pub const MAX_EVENTS: usize = 1 << 20;

/// Values with their times over the last `span` seconds.
///
/// Sums are kept in whole nanoseconds, so that adding and taking away never drifts.
#[derive(Debug, Clone, Default)]
pub struct Window {
    events: VecDeque<(f64, i64)>,
    sum: i128,
}

impl Window {
    /// Adds `value` seconds at `time`, then drops what is older than `span` at the time `sure`.
    pub fn push(&mut self, time: f64, value: f64, span: f64, sure: f64) {
        // Of times far in the future, which were wrong: they would hold up what comes behind.
        for event in self.events.iter_mut().rev().take_while(|event| event.0 > time + span) {
            event.0 = time;
        }
        let nanos = (value * 1e9).round() as i64;
        self.events.push_back((time, nanos));
        self.sum += i128::from(nanos);
        self.drop_old(time.min(sure), span);
        if self.events.len() > MAX_EVENTS {
            self.drop_oldest();
        }
    }

    /// Drops what is older than `span` at `now`, or of times so far ahead that they were wrong.
    pub fn trim(&mut self, now: f64, span: f64) {
        self.drop_old(now, span);
        while self.events.front().is_some_and(|&(time, _)| time > now + span) {
            self.drop_oldest();
        }
    }

    fn drop_old(&mut self, now: f64, span: f64) {
        while self.events.front().is_some_and(|&(time, _)| time < now - span) {
            self.drop_oldest();
        }
        // A burst long past must not hold its memory for ever.
        if self.events.capacity() > 64 && self.events.len() < self.events.capacity() / 8 {
            self.events.shrink_to(self.events.len() * 2);
        }
    }

    /// Events in the window.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the window is empty.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Mean value in seconds, if there is an event.
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum as f64 / 1e9 / self.len() as f64)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, nanos)) = self.events.pop_front() {
            self.sum -= i128::from(nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_of_the_window_is_inside() {
        let mut window = Window::default();
        window.push(0.0, 1.0, 10.0, 0.0);
        window.push(10.0, 3.0, 10.0, 10.0);
        assert_eq!((window.len(), window.mean()), (2, Some(2.0)));
        window.trim(10.5, 10.0);
        assert_eq!((window.len(), window.mean()), (1, Some(3.0)));
        window.trim(1e9, 10.0);
        assert_eq!(window.mean(), None);
    }

    #[test]
    fn memory_is_capped_and_given_back() {
        let mut window = Window::default();
        for _ in 0..MAX_EVENTS + 10 {
            window.push(0.0, 0.0, 1.0, 0.0);
        }
        assert_eq!(window.len(), MAX_EVENTS);
        window.trim(5.0, 1.0);
        assert!(window.is_empty() && window.events.capacity() < 64);
    }
}
