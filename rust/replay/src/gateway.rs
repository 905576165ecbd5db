//! What a live router does, and all that it may know.
//!
//! Everything the routing side learns passes through [`Gateway`]: a prompt at its arrival, the
//! first token and the end when they come back. No queue, no output length, no clock of the
//! simulator. Core calls are in this file alone.

use routecore::fleet::Lookup;
use routecore::hash::{PrefixHasher, endpoint_id, mix, session_key};
use routecore::prompt::Unit;
use routecore::{Asked, Candidates, Fleet, Key, Params, Prompt, RouteError, Router, Stat, View};

use crate::EngineConfig;

/// A request as a router sees it on arrival.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Number of the request in the trace.
    pub id: u32,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// The session, if the trace tells.
    pub session: Option<u64>,
    /// Identity of each block of the prompt, in order: equal number, equal prefix up to there.
    pub blocks: &'a [u32],
    /// Tokens a block stands for; the last may be partial.
    pub block: u32,
}

impl Request<'_> {
    /// Chained hashes of the prompt's full blocks of `tokens` each, as a router would compute
    /// them from the text. `tokens` must divide the trace's block, or be a multiple of it.
    pub fn block_hashes(&self, tokens: u32, into: &mut Vec<u64>) {
        into.clear();
        let full = self.input_tokens / tokens;
        for number in 0..full {
            let last = (u64::from(number) + 1) * u64::from(tokens) - 1;
            let Some(&id) = self.blocks.get((last / u64::from(self.block)) as usize) else {
                return;
            };
            let part = last % u64::from(self.block);
            into.push(mix((u64::from(id) << 32 | part) ^ 0x9E37_79B9_7F4A_7C15));
        }
    }
}

/// The routing side. Times are milliseconds of simulated time.
pub trait Gateway {
    /// The engine for a request that arrives now; `None` where none is to be had.
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32>;
    /// The first token of a request came back.
    fn on_first_token(&mut self, now: f64, id: u32, engine: u32);
    /// A request ended (`ok`), or failed. The token counts are those of the response's usage.
    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool);
}

/// Token counts that a finished response carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt: u32,
    /// Prompt tokens that the engine had in its cache.
    pub cached: u32,
    /// Generated tokens.
    pub output: u32,
}

/// Trace blocks in the first segment of a prefix key: the finest grain a trace has.
const KEY_BLOCK_BYTES: usize = 8;

/// A compiled strategy of the core, fed as a live gateway feeds it.
pub struct LiveRouter {
    router: Router,
    fleet: Fleet,
    candidates: Candidates,
    by_session: bool,
    by_prefix: bool,
    by_prompt: bool,
    lookup: Lookup,
    block: u32,
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
        let router = Router::new(strategy, params, seed)?;
        let mut fleet = Fleet::new(60.0, 600.0);
        let ids: Vec<u64> = (0..engines.len())
            .map(|at| endpoint_id(format!("http://engine-{at:05}").as_bytes()))
            .collect();
        let rows: Vec<u32> = ids.iter().map(|&id| fleet.add(id)).collect();
        for (&row, engine) in rows.iter().zip(engines) {
            let tokens = f64::from(engine.kv_blocks) * f64::from(engine.block);
            fleet.table.set(Stat::KvCapacity, row, tokens);
        }
        let order = rows.clone();
        Ok(Self {
            by_prompt: router.needs_prompt(),
            lookup: Lookup::default(),
            block: engines.iter().map(|engine| engine.block).min().unwrap_or(1),
            router,
            fleet,
            candidates: Candidates::new(rows, ids, Vec::new(), order),
            by_session: strategy == "session_affinity",
            by_prefix: strategy == "prefix_affinity",
        })
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
        if self.by_prompt {
            let mut chain = Vec::new();
            request.block_hashes(self.block, &mut chain);
            let (size, block) = (u64::from(request.input_tokens), self.block);
            return Key::Prompt(Prompt { chain, size, block, unit: Unit::Tokens });
        }
        Key::None
    }
}

impl Gateway for LiveRouter {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        let time = now * 1e-3;
        let key = self.key(request);
        let Self { router, fleet, candidates, lookup, .. } = self;
        fleet.advance(time);
        let mut asked = Asked::default();
        if let Key::Prompt(prompt) = &key {
            lookup.find(&fleet.index().read(), prompt);
            let (sizes, in_use) = (fleet.tokens(prompt), router.needs_in_use());
            let rows = candidates.rows.iter().copied();
            asked = lookup.asked(rows, candidates.runs(), sizes, in_use);
        }
        let view = View::new(&fleet.table, candidates).asking(asked, fleet.engine());
        let row = candidates.rows[router.pick(view, &key)?];
        match &key {
            Key::Prompt(prompt) => fleet.chosen_for(row, prompt, lookup.depth(row)),
            _ => fleet.chosen(row),
        }
        fleet.sent(row, u128::from(request.id), time);
        Some(row)
    }

    fn on_first_token(&mut self, now: f64, id: u32, engine: u32) {
        self.fleet.first_token(engine, u128::from(id), now * 1e-3);
    }

    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool) {
        let told = |tokens: u32| Some(u64::from(tokens));
        let request = u128::from(id);
        let Usage { prompt, cached, output } = usage;
        if ok {
            self.fleet.usage(engine, request, told(prompt), told(cached), told(output));
        }
        self.fleet.end(engine, request, now * 1e-3, ok);
    }
}

/// Engines given beforehand, one a request: replays what an outside router decided.
pub struct Assigned(pub Vec<u32>);

impl Gateway for Assigned {
    fn choose(&mut self, _: f64, request: &Request<'_>) -> Option<u32> {
        self.0.get(request.id as usize).copied()
    }

    fn on_first_token(&mut self, _: f64, _: u32, _: u32) {}

    fn on_end(&mut self, _: f64, _: u32, _: u32, _: Usage, _: bool) {}
}
