//! A simulated router among those beside it.

use routecore::Fleet;
use routecore::register::Register;
use routecore::replicas::{Replicas, Settings, own};

/// What a router tells the others, and hears of them. Times are milliseconds.
#[derive(Debug)]
pub(crate) struct Beside {
    replicas: Replicas,
    registers: Vec<(u64, Register)>,
}

impl Beside {
    /// Router number `origin`, which speaks every so many milliseconds at most.
    pub fn new(origin: u64, every: f64) -> Self {
        let settings = Settings { group: 0, grain: 0, origin, epoch: 0, every: every * 1e-3 };
        Self { replicas: Replicas::new(settings), registers: Vec::new() }
    }

    pub fn tell(&mut self, fleet: &mut Fleet, now: f64, into: &mut Vec<u8>) {
        let time = now * 1e-3;
        fleet.advance(time);
        self.replicas.expire(time);
        self.replicas.merge(fleet, usize::MAX);
        own(fleet, &mut self.registers);
        self.replicas.tell(self.registers.drain(..), time, into);
    }

    pub fn hear(&mut self, fleet: &mut Fleet, now: f64, message: &[u8]) {
        let time = now * 1e-3;
        fleet.advance(time);
        self.replicas.hear(message, time);
        self.replicas.merge(fleet, usize::MAX);
    }
}
