//! What happens to a request, from its choice to its end.

use super::flight::Flight;
use super::seen::{FirstToken, Glimpse, Served};
use super::state::{Fate, Load, MAX_PENDING};
use super::work::Work;
use crate::index::Pin;
use crate::stats::{Stat, StatTable};

/// Seconds behind the clock that a request may be reported as sent; further back, a clock was set.
const SENT_LATE: f64 = 60.0;

/// Which of the flights leaves next from the row: one that has its first token before one that
/// waits.
fn next_to_end(flights: &[Flight], row: u32) -> Option<usize> {
    let ours = |f: &Flight| f.row == row;
    let answering = flights.iter().position(|f| ours(f) && f.first_token.is_some());
    answering.or_else(|| flights.iter().position(ours))
}

impl Load {
    /// A choice fell on the row: counts until the request is reported, or for [`PENDING_LEASE`].
    pub fn chosen(&mut self, table: &mut StatTable, row: u32, work: Work) {
        let Some(id) = table.id(row) else { return };
        self.row(row).choose(work);
        self.publish(table, row);
        self.await_report(table, row, id);
    }

    /// The same without a prompt: one more in flight, and nothing else.
    pub fn chosen_bare(&mut self, table: &mut StatTable, row: u32) {
        let Some(id) = table.id(row) else { return };
        self.row(row).choose_bare();
        table.bump(Stat::InFlight, row, 1.0);
        self.await_report(table, row, id);
    }

    fn await_report(&mut self, table: &mut StatTable, row: u32, id: u64) {
        self.pending.push_back((self.clock.now(), row, id));
        if self.pending.len() > MAX_PENDING {
            self.drop_oldest_pending(table);
        }
    }

    /// Takes the pin from the latest choice on the row.
    pub fn unpin_last(&mut self, row: u32) -> Option<Pin> {
        self.row(row).unpin_last()
    }

    /// A request was sent to the row.
    ///
    /// The same request on another row, still without a first token, was a failed attempt and
    /// leaves that row's load. The oldest choice on the row that waits for its report was for it.
    pub fn sent(&mut self, table: &mut StatTable, row: u32, request: u128, time: f64) {
        if table.id(row).is_none() {
            return;
        }
        let time = self.observe(table, row, time, SENT_LATE);
        if self.adopt(row, request, time) {
            return self.publish(table, row);
        }
        let failed: Vec<u32> = self.flights.get(&request).map_or_else(Vec::new, |flights| {
            let waits = |f: &&Flight| f.row != row && f.waits();
            flights.iter().filter(waits).map(|f| f.row).collect()
        });
        for old in failed {
            let waits = |f: &Flight| f.row == old && f.waits();
            if let Some(flight) = self.take_where(request, waits) {
                self.release(&flight);
                self.publish(table, old);
            }
        }
        let bounds = self.bounds();
        let flight = self.row(row).send(row, time, bounds);
        let flights = &self.flights;
        self.due.sent(&flight, request, self.live, |row, request| {
            flights.get(&request).is_some_and(|fs| fs.iter().any(|f| f.row == row))
        });
        self.flights.entry(request).or_default().push(flight);
        self.live += 1;
        self.leases.push_back((time, request));
        self.compact_leases();
        self.publish(table, row);
    }

    /// The first token came back. Returns what there is to learn from it.
    pub fn first_token(
        &mut self,
        table: &mut StatTable,
        row: u32,
        request: u128,
        time: f64,
    ) -> Option<FirstToken> {
        let time = self.observe(table, row, time, f64::INFINITY);
        let time = self.revive(table, row, request, time);
        let (bounds, now) = (self.bounds(), self.clock.now());
        self.row(row).pass(time);
        let flights = self.flights.get_mut(&request)?;
        let waits = |f: &&mut Flight| f.row == row && f.waits();
        let flight = flights.iter_mut().find(waits)?;
        let time = if time < flight.start { now } else { time };
        self.due.reported(time, now);
        if !flight.presumed {
            self.settled.extend(flight.work.pin.map(|pin| (row, pin, Fate::Computed)));
        }
        let seen = self.rows.get_mut(row as usize)?.first_token(flight, time, bounds);
        let waited = seen.waited_ms * 1e-3;
        self.publish(table, row);
        bounds.can_last(waited).then_some(seen)
    }

    /// The engine's own count of the request's tokens: prompt, found in its cache, generated.
    /// Returns what was expected of the cache, if the request is in flight there.
    pub fn usage(&mut self, row: u32, request: u128, generated: Option<u64>) -> Option<Work> {
        let flights = self.flights.get_mut(&request)?;
        let flight = flights.iter_mut().find(|f| f.row == row)?;
        flight.generated = generated.or(flight.generated);
        Some(flight.work)
    }

    /// The request ended: `done` when it was served, else it failed or was aborted. Returns what
    /// there is to learn of a served one.
    pub fn end(
        &mut self,
        table: &mut StatTable,
        row: u32,
        request: u128,
        time: f64,
        done: bool,
    ) -> Option<Served> {
        let time = self.observe(table, row, time, f64::INFINITY);
        let time = self.revive(table, row, request, time);
        self.row(row).pass(time);
        let flight = self.take(row, request)?;
        let begun = flight.first_token.map_or(flight.start, |first| first.max(flight.start));
        let time = if time < begun { self.clock.now().max(begun) } else { time };
        if done && flight.first_token.is_none() {
            // Answered in one piece: the prefix was computed all the same.
            self.settled.extend(flight.work.pin.map(|pin| (row, pin, Fate::Computed)));
        }
        if done && flight.waits() {
            self.due.missed();
        }
        self.release(&flight);
        let bounds = self.bounds();
        let served = if done { self.row(row).serve(&flight, time, bounds) } else { None };
        self.publish(table, row);
        served
    }

    /// Hears a host's timestamp of the row; its time by our clock.
    pub fn observed(&mut self, table: &mut StatTable, row: u32, timestamp: f64) -> f64 {
        self.observe(table, row, timestamp, f64::INFINITY)
    }

    /// A host's timestamp as a time of our clock; changes nothing.
    pub fn time_of(&self, timestamp: f64) -> f64 {
        self.clock.at(timestamp)
    }

    /// The request in flight on the row.
    pub fn look(&self, row: u32, request: u128) -> Option<Glimpse> {
        let flights = self.flights.get(&request)?;
        Some(flights[next_to_end(flights, row)?].glimpse())
    }

    /// Its first token, reported just now, is deferred: nothing was learned from it, nor does the index
    /// take the prompt for computed.
    pub fn defer_first_token(&mut self, row: u32, request: u128, seen: FirstToken) {
        self.settled.retain(|&(at, pin, fate)| {
            (at, Some(pin), fate) != (row, seen.work.pin, Fate::Computed)
        });
        let Some(flights) = self.flights.get_mut(&request) else { return };
        if let Some(at) = next_to_end(flights, row) {
            flights[at].deferred = Some(seen);
        }
    }

    /// Takes the first token that was deferred.
    pub fn take_deferred(&mut self, row: u32, request: u128) -> Option<FirstToken> {
        let flights = self.flights.get_mut(&request)?;
        let at = next_to_end(flights, row)?;
        flights[at].deferred.take()
    }

    /// The engine has computed what was pinned.
    pub fn computed(&mut self, row: u32, pin: Option<Pin>) {
        self.settled.extend(pin.map(|pin| (row, pin, Fate::Computed)));
    }

    /// Requests sent to the row from now on are of this generation.
    pub fn set_generation(&mut self, row: u32, generation: u32) {
        self.row(row).generation = generation;
    }

    /// What other routers have in flight on the row, from now until the next report.
    pub fn elsewhere(&mut self, table: &mut StatTable, row: u32, count: u32) {
        if table.id(row).is_none() {
            return;
        }
        self.row(row).elsewhere = count;
        self.publish(table, row);
    }

    /// The engine swapped the request out.
    pub fn swapped(&mut self, row: u32) {
        self.row(row).swapped += 1;
    }
}
