//! The event loop: arrivals → gateway → engines, in order of time.

use std::time::Instant;

use routecore::RouteError;

use crate::arrivals::{Arrival, Arrivals};
use crate::conditions::{Change, Conditions, Scrapes};
use crate::engine::{Engine, EngineConfig, Happened};
use crate::events::UnderWay;
use crate::gateway::{Gateway, Request, Usage};
use crate::outcome::{NOWHERE, Outcome};
use crate::trace::{Grain, Trace};

/// Replays the trace on the engines behind the gateway.
///
/// # Errors
/// On a fleet that cannot work: no engines, settings out of range, engines of unequal block size,
/// or a block size that does not fit the trace's.
pub fn run(
    trace: &Trace,
    fleet: &[EngineConfig],
    conditions: &Conditions,
    gateway: &mut dyn Gateway,
) -> Result<Outcome, RouteError> {
    let Some(first) = fleet.first() else {
        return Err(RouteError("fleet: expected at least one engine, got none".into()));
    };
    conditions.check(fleet.len())?;
    for engine in fleet {
        engine.check()?;
        if engine.block != first.block {
            let (a, b) = (first.block, engine.block);
            return Err(RouteError(format!("fleet: expected one KV block size, got {a} and {b}")));
        }
    }
    let n = trace.len();
    let outcome = Outcome {
        engine: vec![NOWHERE; n],
        arrival: vec![f64::NAN; n],
        dispatch: vec![f64::NAN; n],
        admitted: vec![f64::NAN; n],
        turned_away: vec![f64::NAN; n],
        first_token: vec![f64::NAN; n],
        end: vec![f64::NAN; n],
        cached: vec![0; n],
        ..Outcome::default()
    };
    let mut changes = conditions.changes.clone();
    changes.sort_by(|a, b| b.time().total_cmp(&a.time()));
    let Conditions { speedup, jitter, seed, .. } = *conditions;
    let mut simulation = Simulation {
        trace,
        grain: trace.at_grain(first.block)?,
        engines: fleet.iter().map(|&config| Engine::new(config)).collect(),
        up: conditions.present(fleet.len()),
        sick: vec![false; fleet.len()],
        in_flight: vec![0; fleet.len()],
        total_in_flight: 0,
        arrivals: Arrivals::new(trace, speedup, jitter, seed),
        changes,
        scrapes: Scrapes::new(conditions),
        kv_events: UnderWay::new(conditions.kv_event_delay.unwrap_or(0.0)),
        gateway,
        outcome,
        happened: Vec::new(),
        admitted: Vec::new(),
        due: Vec::new(),
        now: 0.0,
    };
    if conditions.kv_event_delay.is_some() {
        simulation.engines.iter_mut().for_each(Engine::tell_kv);
    }
    simulation.run();
    let mut outcome = simulation.outcome;
    outcome.preemptions = simulation.engines.iter().map(Engine::preemptions).sum();
    Ok(outcome)
}

struct Simulation<'t, 'g> {
    trace: &'t Trace,
    grain: Grain<'t>,
    engines: Vec<Engine>,
    up: Vec<bool>,
    sick: Vec<bool>,
    in_flight: Vec<u32>,
    total_in_flight: u32,
    arrivals: Arrivals,
    /// The next one last.
    changes: Vec<Change>,
    scrapes: Scrapes,
    kv_events: UnderWay,
    gateway: &'g mut dyn Gateway,
    outcome: Outcome,
    happened: Vec<Happened>,
    admitted: Vec<(u32, u32)>,
    due: Vec<u32>,
    now: f64,
}

impl Simulation<'_, '_> {
    fn run(&mut self) {
        for (engine, up) in self.up.clone().into_iter().enumerate() {
            if !up {
                self.gateway.on_down(0.0, engine as u32);
            }
        }
        while !self.gateway.stopped() {
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
            if time.min(arrival) == f64::INFINITY && self.gateway.wake_at(self.now).is_infinite() {
                return;
            }
            let change = self.changes.last().map_or(f64::INFINITY, |change| change.time());
            let wake = self.gateway.wake_at(self.now);
            if time == f64::INFINITY {
                self.scrapes.skip(arrival.min(change).min(wake).min(self.kv_events.next()));
            }
            let scrape = self.scrapes.next();
            self.now = self.now.max(time.min(arrival).min(change).min(scrape).min(wake));
            if wake < time.min(arrival).min(change).min(scrape) {
                self.retry(wake);
            } else if self.kv_events.next() <= time.min(arrival).min(change).min(scrape) {
                self.deliver();
            } else if change.min(scrape) <= time.min(arrival) {
                if change <= scrape { self.change() } else { self.scrape() }
            } else if arrival < time || (arrival == time && starts) {
                self.arrive();
            } else {
                self.engines[engine].proceed(&self.grain);
                self.observe(engine as u32, time);
            }
        }
    }

    fn scrape(&mut self) {
        let now = self.scrapes.next();
        let (engines, up) = (&mut self.engines, &self.up);
        let seen = self.scrapes.proceed(|time| {
            let report = |(engine, &up): (&mut Engine, &bool)| up.then(|| engine.report(time));
            engines.iter_mut().zip(up).map(report).collect()
        });
        for (engine, report) in seen.into_iter().enumerate() {
            if let Some(report) = report {
                self.gateway.on_stats(now, engine as u32, &report);
            }
        }
    }

    fn deliver(&mut self) {
        if let Some((now, engine, batch)) = self.kv_events.deliver() {
            self.gateway.on_kv_events(now, engine, &batch);
        }
    }

    fn change(&mut self) {
        match self.changes.pop() {
            Some(Change::Fail { time, engine }) => {
                self.fail(engine, time);
                self.retry(time);
            }
            Some(Change::Join { time, engine }) if !self.up[engine as usize] => {
                self.up[engine as usize] = true;
                self.gateway.on_up(time, engine);
                self.retry(time);
            }
            Some(Change::Sick { engine, .. }) => self.sick[engine as usize] = true,
            Some(Change::Well { engine, .. }) => self.sick[engine as usize] = false,
            _ => {}
        }
    }

    /// Requests whose first token is out are lost; the others are sent again.
    fn fail(&mut self, engine: u32, now: f64) {
        self.up[engine as usize] = false;
        let lost = self.engines[engine as usize].fail();
        self.kv_events.forget(engine);
        for &request in &lost {
            self.leave(request, engine, now, false);
        }
        if !lost.is_empty() {
            self.gateway.on_down(now, engine);
        }
        for request in lost {
            if self.outcome.first_token[request as usize].is_nan() {
                self.send(request, now);
            } else {
                self.outcome.failed += 1;
                self.arrivals.release(self.trace, request, now);
            }
        }
    }

    fn arrive(&mut self) {
        let Some(Arrival { time, request }) = self.arrivals.pop() else { return };
        self.outcome.arrival[request as usize] = time;
        self.send(request, time);
    }

    /// Asks the gateway for an engine and sends the request there; again where that one is dead.
    fn send(&mut self, request: u32, now: f64) {
        let at = request as usize;
        let input = self.trace.inputs[at];
        let blocks = self.trace.blocks(request);
        let prompt = input.div_ceil(self.trace.block()) as usize;
        // A partial block of a prompt is named together with the output that fills it: not known.
        let full = (input / self.trace.block()) as usize;
        let known = if blocks.len() > prompt { full } else { prompt };
        let seen = Request {
            id: request,
            input_tokens: input,
            session: self.trace.sessions[at],
            blocks: &blocks[..known.min(blocks.len())],
            block: self.trace.block(),
        };
        // The gateway drops an engine with its first error, so each is met dead at most once.
        for _ in 0..=self.engines.len() {
            let begun = Instant::now();
            let chosen = self.gateway.choose(now, &seen);
            self.outcome.deciding += begun.elapsed();
            self.outcome.decisions += 1;
            let Some(engine) = chosen.filter(|&engine| (engine as usize) < self.engines.len())
            else {
                break;
            };
            self.outcome.engine[at] = engine;
            if !self.up[engine as usize] {
                self.gateway.on_end(now, request, engine, Usage::default(), false);
                self.gateway.on_down(now, engine);
                continue;
            }
            if self.sick[engine as usize] {
                self.gateway.on_error(now, request, engine);
                break;
            }
            self.in_flight[engine as usize] += 1;
            self.total_in_flight += 1;
            let most = self.in_flight.iter().copied().max().unwrap_or(0);
            self.outcome.load_max_and_mean.0 += f64::from(most);
            self.outcome.load_max_and_mean.1 +=
                f64::from(self.total_in_flight) / self.engines.len() as f64;
            self.outcome.dispatch[at] = now;
            self.outcome.admitted[at] = f64::NAN;
            self.engines[engine as usize].push(request, now);
            return;
        }
        if self.gateway.holds(request) {
            return;
        }
        self.outcome.failed += 1;
        self.arrivals.release(self.trace, request, now);
    }

    /// Those who wait at the router are chosen for again.
    fn retry(&mut self, now: f64) {
        let mut due = std::mem::take(&mut self.due);
        due.clear();
        self.gateway.expired(now, &mut due);
        for request in due.drain(..) {
            self.outcome.shed += 1;
            self.outcome.turned_away[request as usize] = now;
            self.arrivals.release(self.trace, request, now);
        }
        self.gateway.due(&mut due);
        for request in due.drain(..) {
            self.send(request, now);
        }
        self.due = due;
    }

    /// What came out of an engine reaches the router at once, on the response path.
    fn observe(&mut self, engine: u32, now: f64) {
        let mut happened = std::mem::take(&mut self.happened);
        let source = &mut self.engines[engine as usize];
        source.drain_happened(&mut happened);
        source.drain_admitted(&mut self.admitted);
        self.kv_events.send(now, engine, source.drain_kv());
        for (request, cached) in self.admitted.drain(..) {
            let at = request as usize;
            self.outcome.cached[at] = cached;
            // Again after a preemption: it has been in a batch by then.
            if self.outcome.admitted[at].is_nan() {
                self.outcome.admitted[at] = now;
            }
        }
        let ended = happened.iter().any(|event| !matches!(event, Happened::FirstToken(_)));
        for event in happened.drain(..) {
            match event {
                Happened::FirstToken(request) => {
                    self.outcome.first_token[request as usize] = now;
                    self.gateway.on_first_token(now, request, engine);
                }
                Happened::Ended(request) => {
                    self.outcome.end[request as usize] = now;
                    self.leave(request, engine, now, true);
                    self.arrivals.release(self.trace, request, now);
                }
                Happened::Rejected(request) => {
                    self.outcome.rejected += 1;
                    self.leave(request, engine, now, false);
                    self.arrivals.release(self.trace, request, now);
                }
            }
        }
        self.happened = happened;
        if ended {
            self.retry(now);
        }
    }

    /// A request is no longer on its engine.
    fn leave(&mut self, request: u32, engine: u32, now: f64, ok: bool) {
        let at = request as usize;
        let mut usage = Usage::default();
        if ok {
            usage = Usage {
                prompt: self.trace.inputs[at],
                cached: self.outcome.cached[at],
                output: self.trace.outputs[at],
            };
        }
        self.in_flight[engine as usize] -= 1;
        self.total_in_flight -= 1;
        self.gateway.on_end(now, request, engine, usage, ok);
    }
}
