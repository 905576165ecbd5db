//! Endpoint URLs ↔ rows of the fleet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use routecore::hash::endpoint_id;
use routecore::load::Load;
use routecore::{Fleet, Stat};

use crate::errors::to_py;
use crate::health::{self, News};
use crate::living::Living;

/// Lists bound since a row was last used, before an idle row may be freed.
const IDLE_BINDS: u64 = 256;

/// Tables made so far: an address may be used again, a number is not.
static MADE: AtomicU64 = AtomicU64::new(0);
/// Those that live.
pub static FLEETS: Living<Inner> = Living::new();

/// A fleet, and who is in it.
pub struct Inner {
    pub fleet: Fleet,
    pub serial: u64,
    rows: HashMap<String, u32>,
    urls: Vec<Option<String>>,
    used: Vec<u64>,
    clock: u64,
    sweep_at: usize,
    /// Whether the endpoint of each row sleeps.
    asleep: Vec<bool>,
    sleepers: usize,
}

impl Inner {
    pub fn new(window: f64, lease: f64) -> Self {
        Self {
            fleet: Fleet::new(window, lease),
            serial: MADE.fetch_add(1, Ordering::Relaxed),
            rows: HashMap::new(),
            urls: Vec::new(),
            used: Vec::new(),
            clock: 0,
            sweep_at: 64,
            asleep: Vec::new(),
            sleepers: 0,
        }
    }

    /// The row of a URL, given one if it has none. Now and then rows nobody uses are freed.
    pub fn add(&mut self, url: &str) -> u32 {
        if let Some(&row) = self.rows.get(url) {
            self.used[row as usize] = self.clock;
            return row;
        }
        if self.fleet.table.live() >= self.sweep_at {
            self.sweep();
            self.sweep_at = 2 * self.fleet.table.live() + 64;
        }
        let row = self.fleet.add(endpoint_id(url.as_bytes()));
        let entry = Some(url.to_owned());
        if let Some(slot) = self.urls.get_mut(row as usize) {
            *slot = entry;
            self.used[row as usize] = self.clock;
        } else {
            self.urls.push(entry);
            self.used.push(self.clock);
        }
        self.rows.insert(url.to_owned(), row);
        row
    }

    /// [`Inner::add`] for news of a request: a URL that is new then is time that passes.
    pub fn met(&mut self, url: &str) -> u32 {
        if !self.rows.contains_key(url) {
            self.tick();
        }
        self.add(url)
    }

    /// A new list of endpoints was met: time, for rows, passes.
    pub fn tick(&mut self) {
        self.clock += 1;
    }

    pub fn remove(&mut self, url: &str) -> bool {
        let Some(row) = self.rows.remove(url) else { return false };
        self.fleet.remove(row);
        self.set_asleep(row, false);
        self.urls[row as usize] = None;
        true
    }

    /// The engine behind the URL has lost its cache, or all engines have; if `learned`, others are
    /// behind them from now on.
    pub fn forget(&mut self, url: Option<&str>, learned: bool) {
        let fleet = &mut self.fleet;
        match url.map(|url| self.rows.get(url).copied()) {
            None => {
                fleet.caches_lost();
                if learned {
                    fleet.unlearn_all();
                }
            }
            Some(Some(row)) => {
                fleet.cache_lost(row);
                if learned {
                    fleet.unlearn(row);
                }
            }
            Some(None) => {}
        }
    }

    /// Notes whether the endpoint of the row sleeps. True where it fell asleep just now: what its
    /// engine had in its cache is lost, whether the engine says so or not.
    pub fn set_asleep(&mut self, row: u32, asleep: bool) -> bool {
        let at = row as usize;
        if self.asleep.get(at).copied().unwrap_or(false) == asleep {
            return false;
        }
        if self.asleep.len() <= at {
            self.asleep.resize(at + 1, false);
        }
        self.asleep[at] = asleep;
        self.sleepers = if asleep { self.sleepers + 1 } else { self.sleepers.saturating_sub(1) };
        if asleep {
            self.fleet.cache_lost(row);
        }
        asleep
    }

    /// Who left and who is back since the last call.
    pub fn news(&mut self) -> Option<Vec<News>> {
        let Self { fleet, urls, .. } = self;
        health::news(fleet, |row| urls.get(row as usize).cloned().flatten())
    }

    /// The URL of each row, and the load of all.
    pub fn load(&mut self) -> (&[Option<String>], &mut Load) {
        (&self.urls, &mut self.fleet.load)
    }

    /// Endpoints that sleep.
    pub fn sleepers(&self) -> usize {
        self.sleepers
    }

    fn sweep(&mut self) {
        let idle = |&(row, _): &(usize, &Option<String>)| {
            self.used[row] + IDLE_BINDS < self.clock
                && self.fleet.table.get(Stat::InFlight, row as u32)
                    <= self.fleet.load.in_flight_elsewhere(row as u32)
        };
        let gone: Vec<String> =
            self.urls.iter().enumerate().filter(idle).filter_map(|(_, url)| url.clone()).collect();
        for url in gone {
            self.remove(&url);
        }
    }

    /// The row of a URL that must have one.
    pub fn known(&self, url: &str) -> PyResult<u32> {
        let unknown = || to_py(format!("unknown endpoint {url:?}: add() it first"));
        self.row(url).ok_or_else(unknown)
    }

    /// The rows of these URLs, which must have one; all rows if none are given.
    pub fn rows_of(&self, urls: Option<Vec<String>>) -> PyResult<Vec<u32>> {
        match urls {
            Some(urls) => urls.iter().map(|url| self.known(url)).collect(),
            None => Ok((0..self.fleet.table.rows() as u32).collect()),
        }
    }

    /// The row of a URL, if it has one.
    pub fn row(&self, url: &str) -> Option<u32> {
        self.rows.get(url).copied()
    }

    /// The URL of each row, none where it is free.
    pub fn urls(&self) -> &[Option<String>] {
        &self.urls
    }
}
