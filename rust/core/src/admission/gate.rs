//! How full an endpoint's KV cache is expected to get.

use crate::speed::Profile;
use crate::stats::{Stat, StatTable};

/// Share of an answer that a request in flight is still to write, on average.
const LEFT: f64 = 0.5;
/// Seconds after which a scraped figure that does not change is taken for an old one.
const STALE: f64 = 10.0;

/// What there is to read of the endpoints.
#[derive(Clone, Copy)]
pub struct Floor<'a> {
    /// The fleet's own table.
    pub table: &'a StatTable,
    /// What the engines are like.
    pub engine: Profile,
}

impl Floor<'_> {
    /// Tokens that the row's KV cache holds.
    pub fn capacity(self, row: u32) -> f64 {
        let reported = self.table.get(Stat::KvCapacity, row);
        if reported > 0.0 { reported } else { self.engine.kv_tokens }
    }

    /// Tokens that requests in flight will keep there, by the router's own counts.
    fn counted(self, row: u32) -> f64 {
        let known = |stat| Some(self.table.get(stat, row)).filter(|x| *x > 0.0).unwrap_or(0.0);
        known(Stat::KvTokens) + LEFT * self.engine.output_tokens * known(Stat::InFlight)
    }

    /// Whether the engine says that it has more requests than this router sent, by more than a
    /// scrape may lag behind: else what it uses beyond our count is only answers that got longer.
    fn has_others(self, row: u32) -> bool {
        let known = |stat| Some(self.table.get(stat, row)).filter(|x| !x.is_nan());
        let Some(running) = known(Stat::Running) else { return true };
        let ours = known(Stat::InFlight).unwrap_or(0.0);
        running + known(Stat::Queuing).unwrap_or(0.0) > ours + (ours * 0.1).max(1.0)
    }

    /// Seconds that a request stays on an endpoint on average, as far as those of late say: as many
    /// are in flight as came in that time. Infinite where none came.
    pub(super) fn stay(self, rows: impl Iterator<Item = u32>) -> f64 {
        let known = |x: f64| if x > 0.0 { x } else { 0.0 };
        let (mut in_flight, mut sent) = (0.0, 0.0);
        for row in rows {
            in_flight += known(self.table.get(Stat::InFlight, row));
            sent += known(self.table.get(Stat::RequestsSent, row));
        }
        let pace = sent * self.engine.request_rate;
        if pace > 0.0 { in_flight / pace } else { f64::INFINITY }
    }

    fn is_idle(self, row: u32) -> bool {
        // Not known counts as nothing: a gate must not close for want of news.
        let requests = self.table.get(Stat::InFlight, row);
        requests.is_nan() || requests <= 0.0
    }
}

/// What a scrape said of a row, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Scrape {
    id: Option<u64>,
    usage: f64,
    at: f64,
    /// Tokens in use there beyond what this router had counted at that time.
    beyond: f64,
}

/// The router's own counts lead, since they are immediate. A scrape adds what they cannot know:
/// what other routers have there. An old one adds nothing, so that the gate never stays shut
/// because nobody looks.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    scrapes: Vec<Scrape>,
}

impl Gate {
    /// Tokens that requests in flight on the row keep in its cache, or will.
    pub fn in_use(&mut self, floor: Floor<'_>, row: u32, now: f64) -> f64 {
        let counted = floor.counted(row);
        let usage = floor.table.get(Stat::KvUsage, row);
        if self.scrapes.len() <= row as usize {
            self.scrapes.resize(row as usize + 1, Scrape::default());
        }
        let last = &mut self.scrapes[row as usize];
        let id = floor.table.id(row);
        if last.id != id {
            *last = Scrape { id, usage: f64::NAN, ..Scrape::default() };
        }
        if !(0.0..=1.0).contains(&usage) {
            return counted;
        }
        if usage != last.usage {
            let beyond = usage * floor.capacity(row) - counted;
            let beyond = if floor.has_others(row) { beyond.max(0.0) } else { 0.0 };
            *last = Scrape { id, usage, at: now, beyond };
        }
        if now - last.at > STALE { counted } else { counted + last.beyond }
    }

    /// Whether so many more tokens fit on the row, or nothing is in flight there.
    pub fn fits(&mut self, floor: Floor<'_>, row: u32, added: f64, room: f64, now: f64) -> bool {
        if floor.is_idle(row) {
            return true;
        }
        let own = LEFT * floor.engine.output_tokens;
        self.in_use(floor, row, now) + added + own <= room * floor.capacity(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(table: &StatTable) -> Floor<'_> {
        let engine = Profile { output_tokens: 200.0, ..Profile::default() };
        Floor { table, engine }
    }

    fn table(in_flight: f64, kv_tokens: f64) -> StatTable {
        let mut table = StatTable::scratch(1);
        table.set(Stat::InFlight, 0, in_flight);
        table.set(Stat::KvTokens, 0, kv_tokens);
        table.set(Stat::KvCapacity, 0, 1_000.0);
        table
    }

    #[test]
    fn prompts_and_half_an_answer_each_must_fit() {
        let (mut gate, table) = (Gate::default(), table(2.0, 500.0));
        assert!(gate.fits(floor(&table), 0, 200.0, 1.0, 0.0));
        assert!(!gate.fits(floor(&table), 0, 201.0, 1.0, 0.0));
        assert!(gate.fits(floor(&table), 0, 201.0, 1.1, 0.0));
    }

    #[test]
    fn an_idle_endpoint_takes_whatever_comes() {
        let (mut gate, table) = (Gate::default(), table(0.0, 0.0));
        assert!(gate.fits(floor(&table), 0, 1e9, 1.0, 0.0));
    }

    #[test]
    fn answers_that_got_longer_are_not_the_work_of_others() {
        for (running, in_use) in [(2.0, 700.0), (3.0, 700.0), (4.0, 900.0)] {
            let (mut gate, mut table) = (Gate::default(), table(2.0, 500.0));
            table.set(Stat::KvUsage, 0, 0.9);
            table.set(Stat::Running, 0, running);
            assert_eq!(gate.in_use(floor(&table), 0, 5.0), in_use, "{running}");
        }
    }

    #[test]
    fn a_scrape_adds_what_others_have_and_ages() {
        let (mut gate, mut table) = (Gate::default(), table(2.0, 500.0));
        table.set(Stat::KvUsage, 0, 0.9);
        assert!(!gate.fits(floor(&table), 0, 1.0, 1.0, 5.0), "others fill it");
        table.set(Stat::KvTokens, 0, 0.0);
        assert_eq!(gate.in_use(floor(&table), 0, 6.0), 400.0, "our own end is seen at once");
        assert_eq!(gate.in_use(floor(&table), 0, 15.1), 200.0, "and an old scrape says nothing");
        table.set(Stat::KvUsage, 0, 0.1);
        assert_eq!(gate.in_use(floor(&table), 0, 16.0), 200.0, "a scrape never opens the gate");
        table.set(Stat::KvUsage, 0, f64::NAN);
        assert_eq!(gate.in_use(floor(&table), 0, 16.0), 200.0);
    }
}
