//! What `expected_latency` takes engines for after a few answers, over what they are.
//!
//! `cargo run --release -p routecore-replay --example estimates`: per engine and length of answers,
//! after 5, 20 and 100 of these, the learned prefill (the farthest off of prompts of 200, 1,000 and
//! 3,000 tokens), decode step (8 requests) and length of answers, each over the truth.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use routecore::rng::Rng;
use routecore::{Fleet, Params, Stat};
use routecore_replay::gateway::Usage;
use routecore_replay::timing::{Prefill, Profile, Timing};
use routecore_replay::{Conditions, EngineConfig, Gateway, LiveRouter, Request, Row, Trace, run};

/// Answers after which the estimates are looked at.
pub const AFTER: [usize; 3] = [5, 20, 100];
/// Mean tokens of the answers.
pub const ANSWERS: [u32; 4] = [8, 36, 300, 2000];
const ENGINES: usize = 4;

/// An engine and the prompts that it gets.
#[derive(Debug, Clone, Copy)]
pub struct Truth {
    /// What it is.
    pub name: &'static str,
    /// Its step times.
    pub timing: Timing,
    /// Uncached tokens of its prompts, from and to.
    pub prompts: [u32; 2],
}

/// Engines quicker and slower than the default profile, and one measured on a CPU.
pub fn truths() -> Vec<Truth> {
    let names = ["3x-quicker", "qwen3-32b-h100-tp2", "8x-slower", "30x-slower"];
    let scaled = names.map(|name| {
        let timing = Profile::named(name).map(|profile| profile.timing).unwrap();
        Truth { name, timing, prompts: [200, 3000] }
    });
    let timing = Timing::Linear {
        floor: 30.0,
        base: 5.0,
        token: 0.4,
        pair: 4e-6,
        sequence: 3.0,
        context: 1e-4,
    };
    scaled
        .into_iter()
        .chain([Truth { name: "vLLM on a CPU", timing, prompts: [100, 500] }])
        .collect()
}

/// Estimates over the truth: prefill, decode step, length of answers.
pub type Off = [f64; 3];

struct Watched<'a> {
    live: LiveRouter,
    truth: &'a Truth,
    output: f64,
    ended: usize,
    seen: Vec<Off>,
}

impl Watched<'_> {
    fn look(&mut self) {
        if AFTER.contains(&self.ended) {
            self.seen.push(off(self.live.fleet(), self.truth, self.output));
        }
    }
}

/// Farther from 1 of the two.
fn farther(a: f64, b: f64) -> f64 {
    if b.ln().abs() > a.ln().abs() { b } else { a }
}

fn off(fleet: &Fleet, truth: &Truth, output: f64) -> Off {
    let [mut prefill, mut step] = [1.0_f64; 2];
    let [low, high] = truth.prompts;
    for row in 0..ENGINES as u32 {
        for tokens in [low, (low + high) / 3, high] {
            let mut prompt = Prefill::default();
            prompt.add(0, tokens);
            let tokens = f64::from(tokens);
            let took = truth.timing.step(&prompt, 0, 0.0, 1e6);
            prefill = farther(prefill, fleet.speed.prefill_ms(row, tokens, tokens) / took);
        }
        let context = 8.0 * f64::from(low + high) / 2.0;
        let [base, request, token] = fleet.engine().step;
        let slower = fleet.table.get(Stat::StepSlowness, row);
        let learned = slower * (base + request * 8.0 + token * context);
        step = farther(step, learned / truth.timing.decode(8, context, 1e6));
    }
    [prefill, step, fleet.engine().output_tokens / output]
}

impl Gateway for Watched<'_> {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        self.live.choose(now, request)
    }

    fn on_first_token(&mut self, now: f64, id: u32, engine: u32) {
        self.live.on_first_token(now, id, engine);
    }

    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool) {
        self.live.on_end(now, id, engine, usage, ok);
        self.ended += 1;
        self.look();
    }
}

/// The estimates after each of [`AFTER`] answers of about so many tokens.
pub fn estimates(truth: &Truth, answer: u32, seed: u64) -> Vec<Off> {
    let mut rng = Rng::new(seed);
    let mut trace = Trace::new(16).unwrap();
    let [low, high] = truth.prompts;
    let mut prompt = Prefill::default();
    prompt.add(0, u32::midpoint(low, high));
    let prefill = truth.timing.step(&prompt, 0, 0.0, 1e6);
    // Half of what prefills or decoding sixteen at a time would let through.
    let decode = truth.timing.decode(16, 3e4, 1e6) * f64::from(answer) / 16.0;
    let gap = 2.0 * prefill.max(decode) / ENGINES as f64;
    let (mut now, mut next, mut tokens) = (0.0, 0_u64, 0_u64);
    for _ in 0..120 {
        now -= gap * (1.0 - rng.unit()).ln();
        let input = low + rng.below((high - low) as usize) as u32;
        let output = (f64::from(answer) * (0.5 + rng.unit())).round().max(1.0) as u32;
        let ids: Vec<u64> = (next..next + u64::from((input + output).div_ceil(16))).collect();
        next += ids.len() as u64;
        tokens += u64::from(output);
        trace.push(Row { arrival: now, input, output, ids: &ids, ..Row::default() }).unwrap();
    }
    let kv_blocks = 40_000;
    let engine =
        EngineConfig { timing: truth.timing, block: 16, kv_blocks, ..EngineConfig::DEFAULT };
    let fleet = [engine; ENGINES];
    let live = LiveRouter::new("expected_latency", Params::default(), seed, &fleet).unwrap();
    let output = tokens as f64 / 120.0;
    let mut watched = Watched { live, truth, output, ended: 0, seen: Vec::new() };
    run(&trace, &fleet, &Conditions::default(), &mut watched).unwrap();
    watched.seen
}

/// Of several seeds, each figure the farthest off.
pub fn worst(truth: &Truth, answer: u32, seeds: u64) -> Vec<Off> {
    let runs: Vec<Vec<Off>> = (0..seeds).map(|seed| estimates(truth, answer, seed)).collect();
    let fold = |at: usize, of: usize| runs.iter().fold(1.0, |far, run| farther(far, run[at][of]));
    (0..AFTER.len()).map(|at| std::array::from_fn(|of| fold(at, of))).collect()
}

#[allow(dead_code)]
fn main() {
    println!(
        "| engine | answers | after {AFTER:?}: prefill | step | length |\n|---|---|---|---|---|"
    );
    for truth in truths() {
        for answer in ANSWERS {
            let off = worst(&truth, answer, 3);
            let row =
                |of: usize| off.iter().map(|off| format!("{:.2}", off[of])).collect::<Vec<_>>();
            let [prefill, step, length] = [0, 1, 2].map(|of| row(of).join(", "));
            println!("| {} | {answer} | {prefill} | {step} | {length} |", truth.name);
        }
    }
}
