//! Routers that tell each other what they have in flight: when, and what of it is lost.

use std::collections::VecDeque;

use routecore::rng::Rng;

use crate::gateway::Gateway;

/// Milliseconds of words that still count when a router has been idle for longer.
const RECENT: f64 = 5_000.0;

/// How routers tell each other of their load. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Between two messages of a router.
    pub every: f64,
    /// Until a message is heard.
    pub delay: f64,
    /// Share of the messages that one router does not hear.
    pub loss: f64,
}

/// The messages of several routers.
#[derive(Debug)]
pub struct Messages {
    share: Share,
    /// When each router speaks next.
    next: Vec<f64>,
    under_way: VecDeque<(f64, usize, Vec<u8>)>,
    draws: Rng,
}

impl Messages {
    /// Routers start one after the other, as they do.
    pub fn new(share: Share, routers: usize, seed: u64) -> Self {
        let start = |at: usize| share.every * (at + 1) as f64 / routers as f64;
        Self {
            share,
            next: (0..routers).map(start).collect(),
            under_way: VecDeque::new(),
            draws: Rng::new(seed ^ 0x5EED_0F5A_A5E0),
        }
    }

    /// Everything up to `now`. Routers change by what they receive alone, so that what they say
    /// is the same whether they are asked at the time or later.
    pub fn pass(&mut self, routers: &mut [Box<dyn Gateway + Send>], now: f64) {
        loop {
            let speaker =
                (0..self.next.len()).min_by(|&a, &b| self.next[a].total_cmp(&self.next[b]));
            let Some(speaker) = speaker else { return };
            let speaks = self.next[speaker];
            let heard = self.under_way.front().map_or(f64::INFINITY, |message| message.0);
            if speaks.min(heard) > now {
                return;
            }
            if heard <= speaks {
                self.deliver(routers);
            } else if now - speaks > 2.0 * RECENT {
                let idle = ((now - RECENT - speaks) / self.share.every).floor();
                self.next[speaker] += idle * self.share.every;
            } else {
                self.next[speaker] += self.share.every;
                let mut bytes = Vec::new();
                routers[speaker].tell(speaks, &mut bytes);
                if !bytes.is_empty() {
                    self.under_way.push_back((speaks + self.share.delay, speaker, bytes));
                }
            }
        }
    }

    fn deliver(&mut self, routers: &mut [Box<dyn Gateway + Send>]) {
        let Some((time, speaker, bytes)) = self.under_way.pop_front() else { return };
        for (at, router) in routers.iter_mut().enumerate() {
            let lost = self.share.loss > 0.0 && self.draws.unit() < self.share.loss;
            if at != speaker && !lost {
                router.hear(time, &bytes);
            }
        }
    }
}
