//! What is known of the requests in flight.

use std::collections::{HashMap, VecDeque};

use super::clock::Clock;
use super::due::Due;
use super::flight::{Flight, Meter};
use super::row::{Bounds, RowLoad};
use crate::index::Pin;
use crate::stats::StatTable;

/// Seconds a choice counts as load before the host reports the request.
pub const PENDING_LEASE: f64 = 1.0;
/// Choices that may wait for their report at once; above it the oldest stops counting.
pub const MAX_PENDING: usize = 1 << 16;

/// What became of a request's hold on its row's prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The engine has computed the prefix.
    Computed,
    /// The request is over.
    Over,
}

/// A request whose lease ran out in a leap of the clock, kept for as long as the leap may be wrong.
#[derive(Debug)]
pub(super) struct Lapsed {
    pub since: f64,
    pub request: u128,
    pub flight: Flight,
}

/// The lifecycle of requests. Times are arguments: timestamps of the host, which may be wrong, and
/// become times of the [`Clock`] here.
#[derive(Debug)]
pub struct Load {
    pub(super) span: f64,
    pub(super) lease: f64,
    pub(super) clock: Clock,
    pub(super) rows: Vec<RowLoad>,
    pub(super) flights: HashMap<u128, Vec<Flight>>,
    pub(super) live: usize,
    pub(super) leases: VecDeque<(f64, u128)>,
    /// What a leap of the clock ended, and the meter of the row on which it leapt.
    pub(super) lapsed: Vec<Lapsed>,
    pub(super) metered: Option<(u32, Meter)>,
    pub(super) pending: VecDeque<(f64, u32, u64)>,
    pub(super) expired: u64,
    /// Pins whose fate changed, for the index to hear of.
    pub(super) settled: Vec<(u32, Pin, Fate)>,
    pub(super) due: Due,
}

impl Load {
    /// `span`: seconds of the sliding window. `lease`: seconds after which a request that never
    /// ends is dropped from the load.
    pub fn new(span: f64, lease: f64) -> Self {
        Self {
            span,
            lease,
            clock: Clock::default(),
            rows: Vec::new(),
            flights: HashMap::new(),
            live: 0,
            leases: VecDeque::new(),
            lapsed: Vec::new(),
            metered: None,
            pending: VecDeque::new(),
            expired: 0,
            settled: Vec::new(),
            due: Due::default(),
        }
    }

    /// Changes the window and the lease from now on.
    pub fn configure(&mut self, span: f64, lease: f64) {
        self.span = span;
        self.lease = lease;
    }

    /// The latest time that is not in doubt, seconds; minus infinity before any.
    pub fn now(&self) -> f64 {
        self.clock.sure()
    }

    /// The time, which may be in doubt, and what the host's clock says then.
    pub fn times(&self) -> (f64, f64) {
        (self.clock.now(), self.clock.reported())
    }

    /// Requests dropped because their lease ran out.
    pub fn leases_expired(&self) -> u64 {
        self.expired
    }

    /// Requests in flight on all rows, pending choices aside.
    pub fn in_flight(&self) -> usize {
        self.live
    }

    /// Takes what the index has to hear: pins that were computed or are over.
    pub fn settled(&mut self) -> std::vec::Drain<'_, (u32, Pin, Fate)> {
        self.settled.drain(..)
    }

    /// Takes the flight out: one that has its first token before one that waits.
    pub(super) fn take(&mut self, row: u32, request: u128) -> Option<Flight> {
        self.take_where(request, |f| f.row == row && f.first_token.is_some())
            .or_else(|| self.take_where(request, |f| f.row == row))
    }

    pub(super) fn take_where(
        &mut self,
        request: u128,
        which: impl Fn(&Flight) -> bool,
    ) -> Option<Flight> {
        let flights = self.flights.get_mut(&request)?;
        let flight = flights.remove(flights.iter().position(which)?);
        if flights.is_empty() {
            self.flights.remove(&request);
        }
        self.live -= 1;
        Some(flight)
    }

    pub(super) fn release(&mut self, flight: &Flight) {
        self.settled.extend(flight.work.pin.map(|pin| (flight.row, pin, Fate::Over)));
        self.row(flight.row).release(flight);
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { span: self.span, sure: self.clock.sure(), longest: self.lease }
    }

    pub(super) fn row(&mut self, row: u32) -> &mut RowLoad {
        if self.rows.len() <= row as usize {
            self.rows.resize_with(row as usize + 1, RowLoad::default);
        }
        &mut self.rows[row as usize]
    }

    pub(super) fn publish(&mut self, table: &mut StatTable, row: u32) {
        self.row(row).publish(table, row);
    }
}
