//! Endpoints that are gone, or came back empty, and what was in flight on them.

use super::due::Due;
use super::row::RowLoad;
use super::state::Load;
use crate::stats::StatTable;

impl Load {
    /// What is in flight on the row is gone, and no end will be reported; so are the choices that wait.
    pub fn empty(&mut self, table: &mut StatTable, row: u32) {
        self.drop_flights(row);
        self.row(row).empty();
        self.publish(table, row);
    }

    fn drop_flights(&mut self, row: u32) {
        self.flights.retain(|_, flights| {
            flights.retain(|f| f.row != row);
            !flights.is_empty()
        });
        self.live = self.flights.values().map(Vec::len).sum();
        self.pending.retain(|p| p.1 != row);
        self.lapsed.retain(|lapsed| lapsed.flight.row != row);
    }

    /// What other routers last reported that they have in flight on the row.
    pub fn in_flight_elsewhere(&self, row: u32) -> f64 {
        self.rows.get(row as usize).map_or(0.0, |load| f64::from(load.elsewhere))
    }

    /// Forgets everything about a row that is about to be freed.
    pub fn forget(&mut self, row: u32) {
        self.drop_flights(row);
        if let Some(load) = self.rows.get_mut(row as usize) {
            *load = RowLoad::default();
        }
    }

    /// Lets go of all requests and choices: they are another process'.
    pub fn abandon(&mut self, table: &mut StatTable) {
        let flights = std::mem::take(&mut self.flights);
        flights.into_values().flatten().for_each(|flight| self.release(&flight));
        self.live = 0;
        self.leases.clear();
        self.lapsed.clear();
        self.due = Due::default();
        while !self.pending.is_empty() {
            self.drop_oldest_pending(table);
        }
        for row in 0..self.rows.len() as u32 {
            self.row(row).elsewhere = 0;
            self.publish(table, row);
        }
    }

    /// Takes the pins of all requests of a row: what they held is gone.
    pub fn unpin(&mut self, row: u32) {
        let flights = self.flights.values_mut().flatten();
        flights.filter(|f| f.row == row).for_each(|f| f.work.pin = None);
        if let Some(load) = self.rows.get_mut(row as usize) {
            load.unpin();
        }
    }
}
