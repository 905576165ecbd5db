//! A compiled strategy of the core, fed as a live gateway feeds it. Core calls are in this file, in
//! `hold.rs` and in `beside.rs` alone.

mod with;

use routecore::fleet::{Lookup, Reported};
use routecore::hash::{PrefixHasher, endpoint_id, session_key};
use routecore::health::Outcome;
use routecore::prompt::Unit;
use routecore::{Asked, Candidates, Fleet, Key, Params, Prompt, RouteError, Router, Stat, View};

use crate::beside::Beside;
use crate::decisions::Decisions;
use crate::engine::{EngineConfig, Report};
use crate::events::{Held, Residency};
use crate::gateway::{Gateway, Request, Usage};
use crate::hold::{Waiting, Wanted};

/// Trace blocks in the first segment of a prefix key: the finest grain a trace has.
const KEY_BLOCK_BYTES: usize = 8;
/// A day: the gateway here reports every end, as hosts do that set such a lease.
const LEASE_SECONDS: f64 = 86_400.0;

/// A compiled strategy of the core, fed as a live gateway feeds it.
pub struct LiveRouter {
    router: Router,
    fleet: Fleet,
    /// Row of each engine; `None` while it is not there.
    rows: Vec<Option<u32>>,
    candidates: Candidates,
    /// Engine of each candidate.
    engines: Vec<u32>,
    /// Whether those that fail were left out of them.
    narrowed: bool,
    /// Capacity weight of each engine; empty when all are alike.
    weights: Vec<f64>,
    by_session: bool,
    by_prefix: bool,
    lookup: Lookup,
    /// Tokens of a block of the prefix index: the engines' own.
    block: u32,
    /// Tokens that each engine's KV cache holds, as it reports.
    kv_tokens: Vec<f64>,
    /// Each engine's cache by its KV events; empty where nobody listens to them.
    held: Vec<Held>,
    /// Who waits for room; none where requests go at once.
    waiting: Option<Waiting>,
    decisions: Decisions,
    /// The routers beside it; none where it routes alone.
    beside: Option<Beside>,
}

impl LiveRouter {
    /// `engines`: what they report of themselves. See [`Router::new`] for the others.
    ///
    /// # Errors
    /// On an unknown strategy or parameter.
    pub fn new(
        strategy: &str,
        params: Params,
        seed: u64,
        engines: &[EngineConfig],
    ) -> Result<Self, RouteError> {
        let tokens = |e: &EngineConfig| f64::from(e.kv_blocks) * f64::from(e.block);
        let mut live = Self {
            router: Router::new(strategy, params, seed)?,
            fleet: Fleet::new(60.0, LEASE_SECONDS),
            rows: vec![None; engines.len()],
            candidates: Candidates::default(),
            engines: Vec::new(),
            narrowed: false,
            weights: Vec::new(),
            by_session: strategy == "session_affinity",
            by_prefix: strategy == "prefix_affinity",
            lookup: Lookup::default(),
            block: engines.iter().map(|engine| engine.block).min().unwrap_or(1),
            kv_tokens: engines.iter().map(tokens).collect(),
            held: Vec::new(),
            waiting: None,
            decisions: Decisions::default(),
            beside: None,
        };
        for engine in 0..engines.len() {
            live.join(engine);
        }
        live.gather();
        Ok(live)
    }

    /// What it knows of its engines.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn join(&mut self, engine: usize) {
        let row = self.fleet.add(id_of(engine));
        self.fleet.table.set(Stat::KvCapacity, row, self.kv_tokens[engine]);
        self.rows[engine] = Some(row);
    }

    /// The candidates: the engines that are there, as far as they are well.
    fn gather(&mut self) {
        let there = self.rows.iter().enumerate().filter_map(|(at, &row)| Some((at, row?)));
        let (mut engines, mut rows): (Vec<usize>, Vec<u32>) = there.unzip();
        let Fleet { health, table, .. } = &self.fleet;
        self.narrowed = health.is_disturbed();
        if self.narrowed {
            let room = |row| health.has_room(row, table.own(Stat::InFlight, row));
            let some = rows.iter().any(|&row| room(row));
            let tried = health.least_recent(rows.iter().copied()).filter(|_| !some);
            let one = health.due(rows.iter().copied()).or(tried);
            let stays = |at: usize| one.map_or(!some || room(rows[at]), |one| at == one);
            let kept: Vec<usize> = (0..rows.len()).filter(|&at| stays(at)).collect();
            engines = kept.iter().map(|&at| engines[at]).collect();
            rows = kept.iter().map(|&at| rows[at]).collect();
        }
        let ids = engines.iter().map(|&at| id_of(at)).collect();
        let weights = engines.iter().filter_map(|&at| self.weights.get(at).copied()).collect();
        let order = (0..rows.len() as u32).collect();
        self.candidates = Candidates::new(rows, ids, weights, order);
        self.engines = engines.into_iter().map(|at| at as u32).collect();
    }

    fn forget_held(&mut self, engine: u32) {
        if let Some(held) = self.held.get_mut(engine as usize) {
            held.clear();
        }
    }

    fn key(&self, request: &Request<'_>) -> Key {
        if self.by_session {
            return request
                .session
                .map_or(Key::None, |session| Key::Session(session_key(&session.to_le_bytes(), 0)));
        }
        if self.by_prefix {
            let mut hasher = PrefixHasher::new(KEY_BLOCK_BYTES, 0);
            for &block in request.blocks {
                if hasher.is_full() {
                    break;
                }
                hasher.feed(&u64::from(block).to_le_bytes());
            }
            return Key::Prefix(hasher.finish());
        }
        if self.router.needs_prompt() {
            return Key::Prompt(self.prompt(request));
        }
        Key::None
    }

    fn wanted(&self, request: &Request<'_>) -> Wanted {
        let key = self.key(request);
        let apart = self.waiting.is_some() && !matches!(key, Key::Prompt(_));
        Wanted { key, prompt: apart.then(|| self.prompt(request)) }
    }

    fn prompt(&self, request: &Request<'_>) -> Prompt {
        let mut chain = Vec::new();
        request.block_hashes(self.block, &mut chain);
        let (size, block) = (u64::from(request.input_tokens), self.block);
        Prompt::new(chain, size, block, Unit::Tokens)
    }
}

impl Gateway for LiveRouter {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        let time = now * 1e-3;
        self.fleet.advance(time);
        if self.narrowed || self.fleet.health.is_disturbed() {
            self.gather();
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.rest(&self.fleet);
        }
        let known = self.waiting.as_mut().and_then(|waiting| waiting.take(request.id));
        let new = known.is_none();
        let (waiter, wanted) = match known {
            Some((waiter, wanted)) => (waiter, wanted),
            None => {
                let wanted = self.wanted(request);
                let waiting = self.waiting.as_mut();
                (waiting.map_or(0, |waiting| waiting.arrive(request, time)), wanted)
            }
        };
        let Self { router, fleet, candidates, engines, lookup, held, waiting, decisions, .. } =
            self;
        if let Some(waiting) = waiting {
            if candidates.is_empty() {
                waiting.leave(waiter);
                return None;
            }
            if !waiting.may_go(waiter, new, fleet, &candidates.rows) {
                waiting.keep(request.id, waiter, wanted, time);
                return None;
            }
        }
        let mut asked = Asked::default();
        if let Some(prompt) = wanted.prompt() {
            lookup.find(&fleet.index().read(), prompt);
            let sizes = fleet.tokens(prompt);
            let rows = candidates.rows.iter().copied();
            let in_use = router.needs_in_use() || waiting.is_some();
            lookup.look(rows.clone(), candidates.runs(), sizes, in_use);
            if !held.is_empty() {
                let reported = |&engine: &u32| {
                    let tokens = held.get(engine as usize)?.leading_tokens(request, prompt.block);
                    Some(Reported { tokens: f64::from(tokens), exact: true })
                };
                lookup.observe(rows.zip(engines.iter().map(reported)), sizes);
            }
            asked = lookup.asked(sizes);
        }
        let view = View::new(&fleet.table, candidates).asking(asked, fleet.engine());
        let scores = decisions.wants(request.id).then(|| router.scores(view, &wanted.key));
        let picked = router.pick(view, &wanted.key);
        let at = match (picked, waiting.as_mut()) {
            (Some(at), Some(waiting)) => match waiting.offer(waiter, at, view, fleet) {
                Some(at) => at,
                None => {
                    waiting.keep(request.id, waiter, wanted, time);
                    return None;
                }
            },
            _ => picked?,
        };
        if let Some(scores) = scores {
            decisions.keep(request.id, now, engines, at, scores);
        }
        let row = candidates.rows[at];
        match wanted.prompt() {
            Some(prompt) => fleet.chosen_for(row, prompt, lookup.cached(at)),
            _ => fleet.chosen(row),
        }
        fleet.sent(row, u128::from(request.id), time);
        Some(self.engines[at])
    }

    fn holds(&self, id: u32) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.holds(id))
    }

    fn expired(&mut self, now: f64, into: &mut Vec<u32>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.expired(now * 1e-3, into);
        }
    }

    fn due(&mut self, into: &mut Vec<u32>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.due(into);
        }
    }

    fn wake_at(&self, now: f64) -> f64 {
        self.waiting.as_ref().map_or(f64::INFINITY, |waiting| 1e3 * waiting.wake_at(now * 1e-3))
    }

    fn on_first_token(&mut self, now: f64, id: u32, engine: u32) {
        let Some(row) = self.rows[engine as usize] else { return };
        self.fleet.first_token(row, u128::from(id), now * 1e-3);
    }

    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool) {
        let Some(row) = self.rows[engine as usize] else { return };
        let counted = |tokens: u32| Some(u64::from(tokens));
        let request = u128::from(id);
        if ok {
            let Usage { prompt, cached, output } = usage;
            self.fleet.usage(row, request, counted(prompt), counted(cached), counted(output));
        }
        // An engine that died is taken out by `on_down`; what else is not served, was refused.
        let outcome = if ok { Outcome::Served } else { Outcome::Refused };
        self.fleet.end(row, request, now * 1e-3, outcome);
    }

    fn on_error(&mut self, now: f64, id: u32, engine: u32) {
        let Some(row) = self.rows[engine as usize] else { return };
        self.fleet.end(row, u128::from(id), now * 1e-3, Outcome::of_status(500, None));
    }

    fn on_stats(&mut self, now: f64, engine: u32, report: &Report) {
        let Some(row) = self.rows[engine as usize] else { return };
        let (running, waiting) = (f64::from(report.running), f64::from(report.waiting));
        let table = &mut self.fleet.table;
        table.set(Stat::Running, row, running);
        table.set(Stat::Queuing, row, waiting);
        table.set(Stat::ActiveConnections, row, running + waiting);
        table.set(Stat::KvUsage, row, report.kv_usage);
        table.set(Stat::HitRate, row, report.hit_rate);
        if let Some(waiting) = &mut self.waiting {
            waiting.look(&self.fleet, row, now * 1e-3);
        }
    }

    fn on_kv_events(&mut self, _: f64, engine: u32, batch: &[Residency]) {
        if let Some(held) = self.held.get_mut(engine as usize) {
            held.apply(batch);
        }
    }

    fn tell(&mut self, now: f64, into: &mut Vec<u8>) {
        if let Some(beside) = &mut self.beside {
            beside.tell(&mut self.fleet, now, into);
        }
    }

    fn hear(&mut self, now: f64, message: &[u8]) {
        if let Some(beside) = &mut self.beside {
            beside.hear(&mut self.fleet, now, message);
        }
    }

    fn on_down(&mut self, _: f64, engine: u32) {
        self.forget_held(engine);
        if let Some(row) = self.rows[engine as usize].take() {
            self.fleet.remove(row);
            self.gather();
        }
    }

    fn on_up(&mut self, _: f64, engine: u32) {
        self.forget_held(engine);
        if self.rows[engine as usize].is_none() {
            self.join(engine as usize);
            self.gather();
        }
    }
}

/// Ids sort as the engines' numbers do.
fn id_of(engine: usize) -> u64 {
    endpoint_id(format!("http://engine-{engine:05}").as_bytes())
}
