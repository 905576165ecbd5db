//! The event loop: arrivals → gateway → engines, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use routecore::RouteError;

use crate::engine::{Engine, EngineConfig, Happened};
use crate::gateway::{Gateway, Request, Usage};
use crate::trace::{Grain, Trace};

/// No engine: the request was never sent, or never served.
pub const NOWHERE: u32 = u32::MAX;

/// What became of each request, and what happened on the way. Times are milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Engine of each request; [`NOWHERE`] if it was sent to none.
    pub engine: Vec<u32>,
    /// Arrival at the router.
    pub arrival: Vec<f64>,
    /// First token; `NaN` if there was none.
    pub first_token: Vec<f64>,
    /// Last token; `NaN` if there was none.
    pub end: Vec<f64>,
    /// Prompt tokens found in the engine's cache at the last admission (there are several only
    /// where a request was preempted): as Dynamo counts, so that its figures can be compared.
    pub cached: Vec<u32>,
    /// Requests that no engine had room for.
    pub rejected: u64,
    /// Requests dropped by an engine to be computed again.
    pub preemptions: u64,
    /// Sums over arrivals of the largest and the mean number of requests on an engine.
    pub load_max_and_mean: (f64, f64),
    /// Wall-clock time in the gateway's choices.
    pub deciding: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Arrival {
    time: f64,
    request: u32,
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.time.total_cmp(&other.time).then(self.request.cmp(&other.request))
    }
}

/// Arrivals in time order: the independent ones sorted, the dependent ones as they come up.
struct Arrivals {
    sorted: std::vec::IntoIter<Arrival>,
    head: Option<Arrival>,
    later: BinaryHeap<Reverse<Arrival>>,
    missing: Vec<u32>,
    heirs: Vec<u32>,
    heir_starts: Vec<usize>,
    speedup: f64,
}

impl Arrivals {
    fn new(trace: &Trace, speedup: f64) -> Self {
        let n = trace.len();
        let missing: Vec<u32> =
            (0..n as u32).map(|at| trace.predecessors(at).len() as u32).collect();
        let free = || (0..n).filter(|&at| missing[at] == 0);
        let first = free().map(|at| trace.arrivals[at]).fold(f64::INFINITY, f64::min);
        let mut sorted: Vec<Arrival> = free()
            .map(|at| Arrival { time: (trace.arrivals[at] - first) / speedup, request: at as u32 })
            .collect();
        sorted.sort_unstable();
        let mut heir_starts = vec![0_usize; n + 1];
        for &before in &trace.after {
            heir_starts[before as usize + 1] += 1;
        }
        for at in 0..n {
            heir_starts[at + 1] += heir_starts[at];
        }
        let mut fill = heir_starts.clone();
        let mut heirs = vec![0; trace.after.len()];
        for at in 0..n as u32 {
            for &before in trace.predecessors(at) {
                heirs[fill[before as usize]] = at;
                fill[before as usize] += 1;
            }
        }
        let mut sorted = sorted.into_iter();
        let head = sorted.next();
        Self { sorted, head, later: BinaryHeap::new(), missing, heirs, heir_starts, speedup }
    }

    fn peek(&self) -> f64 {
        let open = self.head.map_or(f64::INFINITY, |arrival| arrival.time);
        open.min(self.later.peek().map_or(f64::INFINITY, |Reverse(arrival)| arrival.time))
    }

    fn pop(&mut self) -> Option<Arrival> {
        match (self.head, self.later.peek()) {
            (Some(open), Some(Reverse(closed))) if *closed < open => {}
            (Some(open), _) => {
                self.head = self.sorted.next();
                return Some(open);
            }
            _ => {}
        }
        self.later.pop().map(|Reverse(arrival)| arrival)
    }

    /// A request is over: whoever waited for it alone arrives after its delay.
    fn release(&mut self, trace: &Trace, request: u32, now: f64) {
        let at = request as usize;
        for &heir in &self.heirs[self.heir_starts[at]..self.heir_starts[at + 1]] {
            self.missing[heir as usize] -= 1;
            if self.missing[heir as usize] == 0 {
                let time = now + trace.delays[heir as usize] / self.speedup;
                self.later.push(Reverse(Arrival { time, request: heir }));
            }
        }
    }
}

/// Replays the trace on the engines behind the gateway. `speedup` divides arrival times and
/// delays, not engine times.
///
/// # Errors
/// On a fleet that cannot work: no engines, settings out of range, engines of unequal block size,
/// or a block size that does not fit the trace's.
pub fn run(
    trace: &Trace,
    fleet: &[EngineConfig],
    speedup: f64,
    gateway: &mut dyn Gateway,
) -> Result<Outcome, RouteError> {
    let Some(first) = fleet.first() else {
        return Err(RouteError("fleet: expected at least one engine, got none".into()));
    };
    if !speedup.is_finite() || speedup <= 0.0 {
        return Err(RouteError(format!("speedup: expected a number above 0, got {speedup}")));
    }
    for engine in fleet {
        engine.check()?;
        if engine.block != first.block {
            let (a, b) = (first.block, engine.block);
            return Err(RouteError(format!("fleet: expected one KV block size, got {a} and {b}")));
        }
    }
    let grain = trace.at_grain(first.block)?;
    let n = trace.len();
    let outcome = Outcome {
        engine: vec![NOWHERE; n],
        arrival: vec![f64::NAN; n],
        first_token: vec![f64::NAN; n],
        end: vec![f64::NAN; n],
        cached: vec![0; n],
        ..Outcome::default()
    };
    let mut simulation = Simulation {
        trace,
        grain,
        engines: fleet.iter().map(|&config| Engine::new(config)).collect(),
        in_flight: vec![0; fleet.len()],
        total_in_flight: 0,
        arrivals: Arrivals::new(trace, speedup),
        gateway,
        outcome,
        happened: Vec::new(),
        admitted: Vec::new(),
    };
    simulation.run();
    let mut outcome = simulation.outcome;
    outcome.preemptions = simulation.engines.iter().map(Engine::preemptions).sum();
    Ok(outcome)
}

struct Simulation<'t, 'g> {
    trace: &'t Trace,
    grain: Grain<'t>,
    engines: Vec<Engine>,
    in_flight: Vec<u32>,
    total_in_flight: u32,
    arrivals: Arrivals,
    gateway: &'g mut dyn Gateway,
    outcome: Outcome,
    happened: Vec<Happened>,
    admitted: Vec<(u32, u32)>,
}

impl Simulation<'_, '_> {
    fn run(&mut self) {
        loop {
            // At one time: steps end, then requests arrive, then steps start.
            let mut next = (f64::INFINITY, true, 0);
            for (at, engine) in self.engines.iter().enumerate() {
                let time = engine.next();
                if time < next.0 || (time == next.0 && next.1 && !engine.starts()) {
                    next = (time, engine.starts(), at);
                }
            }
            let (time, starts, engine) = next;
            let arrival = self.arrivals.peek();
            if arrival < time || (arrival == time && starts && arrival < f64::INFINITY) {
                self.arrive();
            } else if time < f64::INFINITY {
                self.engines[engine].proceed(&self.grain);
                self.observe(engine as u32, time);
            } else {
                return;
            }
        }
    }

    fn arrive(&mut self) {
        let Some(Arrival { time, request }) = self.arrivals.pop() else { return };
        let at = request as usize;
        self.outcome.arrival[at] = time;
        let input = self.trace.inputs[at];
        let blocks = self.trace.blocks(request);
        let prompt = input.div_ceil(self.trace.block()) as usize;
        // A partial block of a prompt is named together with the output that fills it: not known.
        let known =
            if blocks.len() > prompt { (input / self.trace.block()) as usize } else { prompt };
        let seen = Request {
            id: request,
            input_tokens: input,
            session: self.trace.sessions[at],
            blocks: &blocks[..known.min(blocks.len())],
            block: self.trace.block(),
        };
        let begun = Instant::now();
        let chosen = self.gateway.choose(time, &seen);
        self.outcome.deciding += begun.elapsed();
        let Some(engine) = chosen.filter(|&engine| (engine as usize) < self.engines.len()) else {
            self.outcome.rejected += 1;
            self.arrivals.release(self.trace, request, time);
            return;
        };
        self.outcome.engine[at] = engine;
        self.in_flight[engine as usize] += 1;
        self.total_in_flight += 1;
        let most = self.in_flight.iter().copied().max().unwrap_or(0);
        self.outcome.load_max_and_mean.0 += f64::from(most);
        self.outcome.load_max_and_mean.1 +=
            f64::from(self.total_in_flight) / self.engines.len() as f64;
        self.engines[engine as usize].push(request, time);
    }

    /// What came out of an engine reaches the router at once, on the response path.
    fn observe(&mut self, engine: u32, now: f64) {
        let mut happened = std::mem::take(&mut self.happened);
        let source = &mut self.engines[engine as usize];
        source.drain_happened(&mut happened);
        source.drain_admitted(&mut self.admitted);
        for (request, cached) in self.admitted.drain(..) {
            self.outcome.cached[request as usize] = cached;
        }
        for event in happened.drain(..) {
            match event {
                Happened::FirstToken(request) => {
                    self.outcome.first_token[request as usize] = now;
                    self.gateway.on_first_token(now, request, engine);
                }
                Happened::Ended(request) => self.over(request, engine, now, true),
                Happened::Rejected(request) => {
                    self.outcome.rejected += 1;
                    self.over(request, engine, now, false);
                }
            }
        }
        self.happened = happened;
    }

    fn over(&mut self, request: u32, engine: u32, now: f64, ok: bool) {
        let at = request as usize;
        let mut usage = Usage::default();
        if ok {
            self.outcome.end[at] = now;
            usage = Usage {
                prompt: self.trace.inputs[at],
                cached: self.outcome.cached[at],
                output: self.trace.outputs[at],
            };
        }
        self.in_flight[engine as usize] -= 1;
        self.total_in_flight -= 1;
        self.gateway.on_end(now, request, engine, usage, ok);
        self.arrivals.release(self.trace, request, now);
    }
}
