//! A simulated router among those beside it.

use routecore::Fleet;
use routecore::fleet::Prefixes;
use routecore::register::Register;
use routecore::replicas::{Replicas, Settings, own};

/// What a router tells the others, and hears of them. Times are milliseconds.
#[derive(Debug)]
pub(crate) struct Beside {
    replicas: Replicas,
    registers: Vec<(u64, Register)>,
    placed: Prefixes,
}

impl Beside {
    /// Router number `origin`, which speaks every so many milliseconds at most; of prefixes, too,
    /// unless the engines do.
    pub fn new(origin: u64, every: f64, prefixes: bool, fleet: &mut Fleet) -> Self {
        let grain = u64::from(prefixes);
        let settings = Settings { group: 0, grain, origin, epoch: 0, every: every * 1e-3 };
        let mut replicas = Replicas::new(settings);
        replicas.begin(fleet);
        Self { replicas, registers: Vec::new(), placed: Prefixes::default() }
    }

    pub fn tell(&mut self, fleet: &mut Fleet, now: f64, into: &mut Vec<u8>) {
        let time = now * 1e-3;
        fleet.advance(time);
        self.replicas.expire(time);
        self.replicas.merge(fleet, time, usize::MAX);
        own(fleet, &mut self.registers);
        fleet.take_placed(&mut self.placed);
        self.replicas.answer(fleet);
        self.replicas.tell(self.registers.drain(..), &self.placed, time, into);
    }

    pub fn hear(&mut self, fleet: &mut Fleet, now: f64, message: &[u8]) {
        let time = now * 1e-3;
        fleet.advance(time);
        self.replicas.hear(message, time);
        self.replicas.expire(time);
        self.replicas.merge(fleet, time, usize::MAX);
    }
}
