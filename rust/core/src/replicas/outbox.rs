//! What is to be sent, and when: what changed, not too often, and everything once a second.

use std::collections::HashMap;

use super::message::Message;
use crate::register::Register;

/// Seconds between two messages that have everything: the heartbeat.
pub const HEARTBEAT: f64 = 1.0;
/// Messages whose times are remembered, to see how long one is under way.
const REMEMBERED: usize = 128;

/// What was sent last.
#[derive(Debug)]
pub struct Outbox {
    every: f64,
    /// What changes matter: those since the last message.
    sent: HashMap<u64, Register>,
    last: f64,
    last_whole: f64,
    sequence: u64,
    times: [(u64, f64); REMEMBERED],
}

impl Outbox {
    /// `every`: seconds between two messages, at least.
    pub fn new(every: f64) -> Self {
        Self {
            every,
            sent: HashMap::new(),
            last: f64::NEG_INFINITY,
            last_whole: f64::NEG_INFINITY,
            sequence: 0,
            times: [(0, 0.0); REMEMBERED],
        }
    }

    /// Whether it is time to look for changes.
    pub fn is_due(&self, now: f64) -> bool {
        // The clock of a machine that slept may even have gone back.
        now - self.last >= self.every * (1.0 - 1e-9) || now < self.last
    }

    /// What is to be said of the router's own registers, and the number of that message. `more`:
    /// whether there is something to be said beside them.
    pub fn next(
        &mut self,
        own: impl Iterator<Item = (u64, Register)>,
        more: bool,
        now: f64,
    ) -> Option<(u64, Message)> {
        let whole = now - self.last_whole >= HEARTBEAT * (1.0 - 1e-9) || now < self.last_whole;
        let mut rows = Vec::new();
        if whole {
            rows.extend(own.filter(|(_, register)| !register.is_empty()));
            self.sent = rows.iter().copied().collect();
            self.last_whole = now;
        } else {
            for (id, register) in own {
                let sent = self.sent.get(&id).copied().unwrap_or_default();
                if register.differs(&sent) {
                    self.sent.insert(id, register);
                    rows.push((id, register));
                }
            }
            if rows.is_empty() && !more {
                return None;
            }
        }
        self.last = now;
        Some((self.number(now), Message { rows, whole, ..Message::default() }))
    }

    /// The number of a message that is sent now.
    pub fn number(&mut self, now: f64) -> u64 {
        self.sequence += 1;
        self.times[self.sequence as usize % REMEMBERED] = (self.sequence, now);
        self.sequence
    }

    /// Says everything anew, as soon as possible: somebody may just have joined.
    pub fn again(&mut self) {
        (self.last, self.last_whole) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    }

    /// Seconds since the message of this number was sent; none where that was too long ago.
    pub fn age(&self, sequence: u64, now: f64) -> Option<f64> {
        let (remembered, sent) = self.times[sequence as usize % REMEMBERED];
        (remembered == sequence && sequence > 0).then(|| (now - sent).max(0.0))
    }
}
