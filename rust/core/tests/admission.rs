//! The hold beside a naive twin over 20,000 tickets: clients leave, requests fail, endpoints come
//! and go. Both let the same requests go to the same endpoints, and nothing is held at the end.

use proptest::prelude::*;
use routecore::admission::{Ask, Floor, Hold, Limits};
use routecore::load::Load;
use routecore::prompt::Unit;
use routecore::rng::Rng;
use routecore::speed::Profile;
use routecore::{Fleet, Prompt, Stat, StatTable};

const BLOCK: u32 = 16;

/// One that waits: order, id, arrival, deadline, lane.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Waiter {
    order: i64,
    id: u64,
    arrived: f64,
    until: f64,
    lane: u64,
}

/// Lists that are searched from front to back.
#[derive(Default)]
struct Naive {
    waiters: Vec<Waiter>,
    /// Lane, waiter, row and the endpoint on it.
    kept: Vec<(u64, u64, u32, Option<u64>)>,
}

impl Naive {
    fn due(&self, limits: &Limits) -> Vec<u64> {
        let mut found = Vec::new();
        let mut lanes: Vec<u64> = self.waiters.iter().map(|w| w.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            let mut of_lane: Vec<Waiter> =
                self.waiters.iter().copied().filter(|w| w.lane == lane).collect();
            of_lane.sort_by_key(|w| (w.order, w.id));
            let oldest = of_lane.iter().min_by_key(|w| w.id).copied();
            let first: Vec<Waiter> = of_lane.into_iter().take(limits.look_ahead).collect();
            let passed = oldest.filter(|oldest| !first.contains(oldest));
            found.extend(passed.map(|w| Waiter { order: i64::MIN, ..w }));
            found.extend(first);
        }
        found.sort_by_key(|w| (w.order, w.id));
        found.into_iter().map(|w| w.id).collect()
    }

    fn remove(&mut self, id: u64) {
        self.waiters.retain(|w| w.id != id);
        self.kept.retain(|kept| kept.1 != id);
    }

    /// The position that the waiter goes to.
    #[allow(clippy::too_many_arguments)]
    fn offer(
        &mut self,
        table: &StatTable,
        engine: Profile,
        rows: &[u32],
        id: u64,
        picked: usize,
        added: f64,
        now: f64,
        limits: &Limits,
    ) -> Option<usize> {
        let waiter = *self.waiters.iter().find(|w| w.id == id)?;
        let answer = engine.output_tokens;
        let sum = |stat| rows.iter().map(|&row| table.get(stat, row)).sum::<f64>();
        let came = engine.request_rate * sum(Stat::RequestsSent);
        let stay = if came > 0.0 { sum(Stat::InFlight) / came } else { f64::INFINITY };
        let in_use = |row: u32| {
            table.get(Stat::KvTokens, row) + 0.5 * answer * table.get(Stat::InFlight, row)
        };
        let fits = |row: u32| {
            let capacity = limits.room * table.get(Stat::KvCapacity, row);
            table.get(Stat::InFlight, row) == 0.0 || in_use(row) + added + 0.5 * answer <= capacity
        };
        let oldest = self.waiters.iter().filter(|w| w.lane == waiter.lane).all(|w| w.id >= id);
        let mut mine = None;
        let kept = self.kept.iter().any(|kept| kept.1 == id);
        if oldest && (kept || now - waiter.arrived >= limits.reserve_after.min(stay)) {
            self.kept.retain(|&(_, other, row, endpoint)| {
                other != id || (table.id(row) == endpoint && rows.contains(&row))
            });
            if !self.kept.iter().any(|kept| kept.1 == id) {
                let share = |row: u32| (in_use(row) + added) / table.get(Stat::KvCapacity, row);
                let free = rows.iter().filter(|row| !self.kept.iter().any(|k| k.2 == **row));
                let least = free.min_by(|a, b| share(**a).total_cmp(&share(**b))).copied();
                self.kept.extend(least.map(|row| (waiter.lane, id, row, table.id(row))));
            }
            mine = self.kept.iter().find(|kept| kept.1 == id).map(|kept| kept.2);
        }
        let taken = |row: u32| self.kept.iter().any(|kept| kept.2 == row && kept.1 != id);
        let row = if !taken(rows[picked]) && fits(rows[picked]) {
            rows[picked]
        } else {
            mine.filter(|&row| fits(row))?
        };
        self.remove(id);
        rows.iter().position(|&other| other == row)
    }
}

/// A request that runs.
struct Running {
    row: u32,
    id: u64,
    request: u128,
    /// Whether the host reported it, and its first token.
    sent: bool,
    first: bool,
}

struct World {
    fleet: Fleet,
    hold: Hold,
    naive: Naive,
    draws: Rng,
    now: f64,
    rows: Vec<u32>,
    running: Vec<Running>,
    /// Waiter, its prompt.
    waiting: Vec<(u64, Prompt)>,
    tickets: u64,
    ended: u64,
    rejected: u64,
    left: u64,
    endpoints: u64,
    longest: f64,
}

impl World {
    fn new(seed: u64, limits: Limits) -> Self {
        let mut world = Self {
            fleet: Fleet::new(60.0, 600.0),
            hold: Hold::new(limits),
            naive: Naive::default(),
            draws: Rng::new(seed),
            now: 1.0,
            rows: Vec::new(),
            running: Vec::new(),
            waiting: Vec::new(),
            tickets: 0,
            ended: 0,
            rejected: 0,
            left: 0,
            endpoints: 0,
            longest: 0.0,
        };
        (0..4).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        self.endpoints += 1;
        let row = self.fleet.add(self.endpoints);
        self.fleet.table.set(Stat::KvCapacity, row, 4_000.0);
        self.rows.push(row);
    }

    fn candidates(&self, lane: u64) -> Vec<u32> {
        let all = self.rows.iter().copied();
        if lane == 0 || self.rows.len() < 2 { all.collect() } else { all.step_by(2).collect() }
    }

    /// One try of one waiter, by both.
    fn offer(&mut self, id: u64) -> bool {
        let Some(at) = self.waiting.iter().position(|w| w.0 == id) else { return false };
        let limits = *self.hold.limits();
        let rows = self.candidates(self.waiting[at].0 % 2);
        let picked = self.draws.below(rows.len());
        let added = self.waiting[at].1.size as f64;
        let engine = self.fleet.engine();
        let floor = Floor { table: &self.fleet.table, engine };
        let now = self.now;
        let go = self.hold.offer(floor, rows.iter().copied(), id, picked, |_| added, now);
        let twin =
            self.naive.offer(&self.fleet.table, engine, &rows, id, picked, added, now, &limits);
        assert_eq!(go.map(|go| go.pos), twin, "waiter {id} at {now}");
        let Some(go) = go else { return false };
        self.longest = self.longest.max(go.waited);
        let (id, prompt) = self.waiting.swap_remove(at);
        let (row, request) = (rows[go.pos], u128::from(id) + 1);
        self.fleet.chosen_for(row, &prompt, 0.0);
        self.fleet.reserve(row, request, now);
        assert!(self.fleet.table.get(Stat::InFlight, row) >= 1.0);
        self.running.push(Running { row, id, request, sent: false, first: false });
        true
    }

    fn arrive(&mut self) {
        self.tickets += 1;
        let lane = self.tickets % 2;
        let blocks = 1 + self.draws.below(120) as u64;
        let chain = (0..blocks).map(|at| self.tickets << 20 | at).collect();
        let prompt = Prompt::new(chain, blocks * u64::from(BLOCK), BLOCK, Unit::Tokens);
        let priority = self.draws.below(3) as f64 - 1.0;
        let patience = (self.draws.below(4) == 0).then(|| 40.0 * self.draws.unit());
        let tokens = prompt.size as f64;
        let ask = Ask { lane, tokens, priority, patience, ..Ask::default() };
        let limits = *self.hold.limits();
        let id = self.hold.arrive(ask, self.now);
        assert_eq!(id % 2, (self.tickets - 1) % 2);
        let ahead = priority * limits.priority_seconds;
        self.naive.waiters.push(Waiter {
            order: ((self.now - ahead) * 1e6) as i64,
            id,
            arrived: self.now,
            until: self.now + patience.unwrap_or(f64::INFINITY).min(limits.max_wait),
            lane,
        });
        self.waiting.push((id, prompt));
        if self.hold.is_tried(id) && self.offer(id) {
            return;
        }
        let over = self.naive.waiters.len() > limits.max_requests;
        assert_eq!(self.hold.keep(id, self.now).is_err(), over);
        if over {
            self.gone(id);
            self.rejected += 1;
        }
    }

    fn gone(&mut self, id: u64) {
        self.naive.remove(id);
        self.waiting.retain(|w| w.0 != id);
    }

    /// What a driver does at each end, and when it is woken.
    fn pump(&mut self) {
        while let Some((id, _)) = self.hold.expired(self.now) {
            let waiter = self.naive.waiters.iter().find(|w| w.id == id).copied();
            assert!(waiter.is_some_and(|w| w.until <= self.now + 1e-6), "{waiter:?}");
            self.gone(id);
            self.rejected += 1;
        }
        assert!(self.naive.waiters.iter().all(|w| w.until > self.now - 1e-6), "overdue");
        let mut due = Vec::new();
        self.hold.due(&mut due);
        assert_eq!(due, self.naive.due(self.hold.limits()));
        for id in due {
            self.offer(id);
        }
        assert_eq!(self.hold.waiting(), self.naive.waiters.len());
    }

    /// Something happens to a request that runs.
    fn proceed(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.draws.below(self.running.len());
        let (row, request, now) = (self.running[at].row, self.running[at].request, self.now);
        match self.draws.below(4) {
            0 if !self.running[at].sent => {
                self.fleet.sent(row, request, now);
                self.running[at].sent = true;
            }
            1 if !self.running[at].first => {
                self.fleet.first_token(row, request, now);
                self.running[at].first = true;
            }
            done => {
                let _ = self.running.swap_remove(at).id;
                self.fleet.end(row, request, now, done > 1);
                self.fleet.end(row, request, now, true); // a second end changes nothing
                self.ended += 1;
                self.pump();
            }
        }
    }

    fn endpoint_leaves(&mut self) {
        if self.rows.len() < 3 {
            return self.join();
        }
        let at = self.draws.below(self.rows.len());
        let row = self.rows.swap_remove(at);
        self.fleet.remove(row);
        let before = self.running.len();
        self.running.retain(|running| running.row != row);
        self.ended += (before - self.running.len()) as u64;
        self.pump();
    }

    fn step(&mut self) {
        match self.draws.below(100) {
            0 => self.endpoint_leaves(),
            1 if self.rows.len() < 6 => self.join(),
            2..4 if !self.waiting.is_empty() => {
                let (id, _) = self.waiting[self.draws.below(self.waiting.len())];
                assert!(self.hold.leave(id) && !self.hold.leave(id));
                self.gone(id);
                self.left += 1;
                self.pump();
            }
            4..44 => self.arrive(),
            _ => self.proceed(),
        }
        self.now += 0.4 * self.draws.unit();
        self.fleet.advance(self.now);
        if self.hold.wake_at(self.now - 0.4) <= self.now {
            self.pump();
        }
    }

    fn finish(mut self, limits: &Limits) {
        for _ in 0..1_000_000 {
            if self.running.is_empty() && self.waiting.is_empty() {
                break;
            }
            self.proceed();
            self.now += 0.1;
            self.pump();
        }
        assert_eq!(self.tickets, self.ended + self.rejected + self.left, "no ticket is lost");
        assert_eq!((self.hold.waiting(), self.hold.waiting_tokens()), (0, 0));
        assert_eq!((self.fleet.load.in_flight(), self.naive.kept.len()), (0, 0));
        for &row in &self.rows {
            for stat in [Stat::InFlight, Stat::KvTokens, Stat::QueuedTokens, Stat::ContextTokens] {
                assert_eq!(self.fleet.table.get(stat, row), 0.0, "{stat:?} of {row}");
            }
        }
        assert!(self.longest <= limits.max_wait + 0.5, "{}", self.longest);
        let counts = self.hold.counts();
        assert_eq!(counts.rejected.iter().sum::<u64>(), self.rejected);
        assert_eq!(counts.left, self.left);
    }
}

#[test]
fn twenty_thousand_tickets_leave_nothing_behind() {
    let limits =
        Limits { max_requests: 200, max_wait: 60.0, reserve_after: 5.0, ..Limits::default() };
    let mut world = World::new(7, limits);
    while world.tickets < 20_000 {
        world.step();
    }
    let counts = world.hold.counts();
    assert!(counts.held > 2_000 && world.left > 200 && world.rejected > 200, "{counts:?}");
    world.finish(&limits);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_twin_lets_the_same_go(
        seed: u64,
        look_ahead in 1_usize..40,
        reserve_after in 0.0..20.0,
        max_requests in 0_usize..80,
        max_wait in 0.0..90.0,
        room in 0.5..1.5,
    ) {
        let limits =
            Limits { look_ahead, reserve_after, max_requests, max_wait, room, ..Limits::default() };
        let mut world = World::new(seed, limits);
        for _ in 0..1_500 {
            world.step();
        }
        world.finish(&limits);
    }
}

#[test]
fn a_reserved_place_is_adopted_once_and_has_a_lease() {
    let (mut load, mut table) = (Load::new(60.0, 10.0), StatTable::scratch(2));
    load.reserve(&mut table, 0, 7, 1.0);
    load.sent(&mut table, 0, 7, 2.0);
    assert_eq!((table.get(Stat::InFlight, 0), load.in_flight()), (1.0, 1));
    load.advance(&mut table, 11.5);
    assert_eq!(load.in_flight(), 1, "its lease began when it was sent");
    load.advance(&mut table, 12.5);
    assert_eq!((load.in_flight(), load.leases_expired()), (0, 1));
    load.reserve(&mut table, 0, 8, 13.0);
    load.sent(&mut table, 1, 8, 13.5); // it was sent elsewhere after all
    assert_eq!([0, 1].map(|row| table.get(Stat::InFlight, row)), [0.0, 1.0]);
    load.reserve(&mut table, 0, 9, 14.0);
    load.advance(&mut table, 25.0);
    assert_eq!((load.in_flight(), table.get(Stat::InFlight, 0)), (0, 0.0), "never sent");
}
