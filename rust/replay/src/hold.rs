//! The requests that wait at a simulated router, and what was found out about them.

use std::collections::HashMap;

use routecore::admission::{Ask, Floor, Hold, Limits};
use routecore::{Fleet, Key, Prompt, View};

use crate::gateway::Request;

/// What a router has worked out of a request: what identifies it, and its prompt.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub key: Key,
    /// Apart where the strategy goes by something else.
    pub prompt: Option<Prompt>,
}

impl Wanted {
    /// The prompt, whatever the strategy goes by.
    pub fn prompt(&self) -> Option<&Prompt> {
        match &self.key {
            Key::Prompt(prompt) => Some(prompt),
            _ => self.prompt.as_ref(),
        }
    }
}

/// A [`Hold`] whose waiters have the numbers of the trace.
#[derive(Debug)]
pub(crate) struct Waiting {
    hold: Hold,
    wanted: HashMap<u32, (u64, Wanted)>,
    requests: HashMap<u64, u32>,
    due: Vec<u64>,
}

impl Waiting {
    pub fn new(limits: Limits) -> Self {
        let hold = Hold::new(limits);
        Self { hold, wanted: HashMap::new(), requests: HashMap::new(), due: Vec::new() }
    }

    pub fn holds(&self, request: u32) -> bool {
        self.wanted.contains_key(&request)
    }

    /// What is known of a request that waits.
    pub fn take(&mut self, request: u32) -> Option<(u64, Wanted)> {
        let (waiter, wanted) = self.wanted.remove(&request)?;
        self.requests.remove(&waiter);
        Some((waiter, wanted))
    }

    /// It waits, or waits on, unless too many do.
    pub fn keep(&mut self, request: u32, waiter: u64, wanted: Wanted, now: f64) {
        if self.hold.keep(waiter, now).is_ok() {
            self.wanted.insert(request, (waiter, wanted));
            self.requests.insert(waiter, request);
        }
    }

    pub fn arrive(&mut self, request: &Request<'_>, now: f64) -> u64 {
        let ask = Ask {
            tokens: f64::from(request.input_tokens),
            session: request.session,
            request: Some(u128::from(request.id)),
            ..Ask::default()
        };
        self.hold.arrive(ask, now)
    }

    /// Lets sessions go that have had nothing in flight for long.
    pub fn rest(&mut self, fleet: &Fleet) {
        let flies = |row, request| fleet.load.look(row, request).is_some();
        self.hold.rest(fleet.load.now(), flies);
    }

    /// Reads what was just scraped of the row.
    pub fn look(&mut self, fleet: &Fleet, row: u32, now: f64) {
        let floor = Floor { table: &fleet.table, engine: fleet.engine() };
        self.hold.look(floor, std::iter::once(row), now);
    }

    pub fn leave(&mut self, waiter: u64) {
        self.hold.leave(waiter);
    }

    /// Whether it is worth while to pick for the waiter.
    pub fn may_go(&mut self, waiter: u64, new: bool, fleet: &Fleet, rows: &[u32]) -> bool {
        let floor = Floor { table: &fleet.table, engine: fleet.engine() };
        let rows = rows.iter().copied();
        (!new || self.hold.is_tried(waiter)) && !self.hold.is_shut(floor, rows, fleet.load.now())
    }

    /// The position that the waiter goes to, if it does.
    pub fn offer(
        &mut self,
        waiter: u64,
        picked: usize,
        view: View<'_>,
        fleet: &Fleet,
    ) -> Option<usize> {
        let floor = Floor { table: &fleet.table, engine: fleet.engine() };
        let rows = view.candidates.rows.iter().copied();
        let added = |pos| view.added(pos);
        let go = self.hold.offer(floor, rows, waiter, picked, added, fleet.load.now())?;
        Some(go.pos)
    }

    pub fn expired(&mut self, now: f64, into: &mut Vec<u32>) {
        while let Some((waiter, _)) = self.hold.expired(now) {
            if let Some(request) = self.requests.remove(&waiter) {
                self.wanted.remove(&request);
                into.push(request);
            }
        }
    }

    pub fn due(&mut self, into: &mut Vec<u32>) {
        self.due.clear();
        self.hold.due(&mut self.due);
        into.extend(self.due.iter().filter_map(|waiter| self.requests.get(waiter)));
    }

    pub fn wake_at(&self, now: f64) -> f64 {
        self.hold.wake_at(now)
    }
}
