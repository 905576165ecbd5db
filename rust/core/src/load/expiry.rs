//! What leaves the load by time alone, and comes back when the time turns out to be wrong.

use super::clock::{FAR, Turn};
use super::flight::Flight;
use super::state::{Fate, Lapsed, Load, PENDING_LEASE};
use crate::stats::StatTable;

impl Load {
    /// Moves time on: pending choices and leases that ran out leave the load.
    pub fn advance(&mut self, table: &mut StatTable, now: f64) {
        let first = self.clock.now() == f64::NEG_INFINITY;
        let (_, turn) = self.clock.observe(now, FAR);
        if turn == Turn::Leapt {
            self.metered = None;
        }
        if first {
            self.start();
        }
        self.follow(table, turn);
    }

    /// Something happened on the row at a timestamp; its time by the clock. `late`: seconds that
    /// it may be reported late.
    pub(super) fn observe(
        &mut self,
        table: &mut StatTable,
        row: u32,
        timestamp: f64,
        late: f64,
    ) -> f64 {
        let first = self.clock.now() == f64::NEG_INFINITY;
        let (time, turn) = self.clock.observe(timestamp, late);
        if first {
            self.start();
        }
        if turn == Turn::Leapt {
            self.metered = self.rows.get(row as usize).map(|load| (row, load.meter()));
        }
        self.follow(table, turn);
        time
    }

    /// A request of which news came at `time` is on the row after all, if its lease ran out in a
    /// long leap of the clock: the leap was wrong then. Returns that time by the clock as it now is.
    pub(super) fn revive(
        &mut self,
        table: &mut StatTable,
        row: u32,
        request: u128,
        time: f64,
    ) -> f64 {
        let is_it = |lapsed: &Lapsed| lapsed.request == request && lapsed.flight.row == row;
        let is_here = |flights: &Vec<Flight>| flights.iter().any(|flight| flight.row == row);
        if self.lapsed.is_empty()
            || self.flights.get(&request).is_some_and(is_here)
            || !self.lapsed.iter().any(is_it)
        {
            return time;
        }
        let Some(time) = self.clock.disprove(time) else { return time };
        self.go_back(table);
        time
    }

    /// Choices and requests of before any time was known start their lease with the first.
    fn start(&mut self) {
        let now = self.clock.now();
        self.pending.iter_mut().for_each(|pending| pending.0 = now);
        self.leases.iter_mut().for_each(|lease| lease.0 = now);
        for flight in self.flights.values_mut().flatten() {
            (flight.start, flight.since) = (now, now);
        }
    }

    fn follow(&mut self, table: &mut StatTable, turn: Turn) {
        match turn {
            Turn::On if self.clock.settle() => self.lapsed = Vec::new(),
            Turn::On => {}
            Turn::Leapt => self.lapsed.clear(),
            Turn::Undone => return self.go_back(table),
        }
        let now = self.clock.now();
        while self.pending.front().is_some_and(|p| p.0 < now - PENDING_LEASE) {
            self.drop_oldest_pending(table);
        }
        while self.leases.front().is_some_and(|l| l.0 < now - self.lease) {
            let Some((since, request)) = self.leases.pop_front() else { break };
            self.expire(table, since, request);
        }
        while let Some((row, request, time)) = self.due.next(now) {
            self.presume(table, row, request, time);
        }
    }

    /// The clock went back: what ran out in its leap is there again, and nothing is of the future.
    fn go_back(&mut self, table: &mut StatTable) {
        let now = self.clock.now();
        for (since, request) in self.leases.iter_mut().filter(|lease| lease.0 > now) {
            let flights = self.flights.get_mut(request).into_iter().flatten();
            for flight in flights.filter(|flight| flight.since == *since) {
                (flight.since, flight.start) = (now, now);
                flight.first_token = flight.first_token.map(|_| now);
            }
            *since = now;
        }
        for pending in self.pending.iter_mut().filter(|pending| pending.0 > now) {
            pending.0 = now;
        }
        if let Some((row, meter)) = self.metered.take()
            && let Some(load) = self.rows.get_mut(row as usize)
        {
            load.set_meter(meter);
        }
        for Lapsed { since, request, flight } in std::mem::take(&mut self.lapsed).into_iter().rev()
        {
            let row = flight.row;
            self.row(row).restore(&flight);
            self.publish(table, row);
            self.leases.push_front((since, request));
            self.flights.entry(request).or_default().push(flight);
            self.live += 1;
            self.expired = self.expired.saturating_sub(1);
        }
    }

    /// The request should have its first token by now.
    fn presume(&mut self, table: &mut StatTable, row: u32, request: u128, time: f64) {
        let Some(flights) = self.flights.get_mut(&request) else { return };
        let waits = |f: &&mut Flight| f.row == row && f.first_token.is_none();
        let Some(flight) = flights.iter_mut().find(waits) else { return };
        self.settled.extend(flight.work.pin.map(|pin| (row, pin, Fate::Computed)));
        if let Some(load) = self.rows.get_mut(row as usize) {
            load.pass(time);
            load.decodes(flight, time);
            flight.presumed = true;
        }
        self.publish(table, row);
    }

    fn expire(&mut self, table: &mut StatTable, since: f64, request: u128) {
        while let Some(mut flight) = self.take_where(request, |f| f.since <= since) {
            let row = flight.row;
            self.release(&flight);
            self.expired += 1;
            self.publish(table, row);
            if self.clock.has_leapt() {
                flight.work.pin = None; // given back for good
                self.lapsed.push(Lapsed { since, request, flight });
            }
        }
    }

    /// Ends of long-gone requests are swept once they outnumber the living.
    pub(super) fn compact_leases(&mut self) {
        if self.leases.len() > 2 * self.live + 1024 {
            let flights = &self.flights;
            self.leases.retain(|(since, request)| {
                flights.get(request).is_some_and(|fs| fs.iter().any(|f| f.since == *since))
            });
        }
    }

    pub(super) fn drop_oldest_pending(&mut self, table: &mut StatTable) {
        let Some((_, row, id)) = self.pending.pop_front() else { return };
        if table.id(row) != Some(id) {
            return;
        }
        let unsent = self.row(row).drop_oldest_choice();
        self.settled.extend(unsent.and_then(|w| w.pin).map(|pin| (row, pin, Fate::Over)));
        if unsent.is_some() {
            self.publish(table, row);
        }
    }
}
