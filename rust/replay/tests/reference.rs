//! Round robin on the conversation trace, against NVIDIA Dynamo 1.6.1's offline replay.
//!
//! Their figures as published in the engine model's reference tables; round robin draws nothing,
//! so both simulators must agree within 1 %.

#![allow(clippy::unwrap_used)]

use routecore::Params;
use routecore_replay::kv::Kv;
use routecore_replay::{Conditions, EngineConfig, LiveRouter, Summary, Trace, run};

mod conv;

fn trace() -> Option<Trace> {
    match conv::load(conv::PATH) {
        Ok(trace) => Some(trace),
        Err(reason) => {
            eprintln!("skipped, the reference trace is not here: {reason}");
            None
        }
    }
}

fn close(what: &str, ours: f64, theirs: f64, rounding: f64) {
    let off = (ours - theirs).abs();
    assert!(off <= 0.01 * theirs + rounding, "{what}: ours {ours}, theirs {theirs}");
}

fn round_robin(trace: &Trace, engines: usize, speedup: f64, config: EngineConfig) -> Summary {
    let fleet = vec![config; engines];
    let mut router = LiveRouter::new("round_robin", Params::default(), 1, &fleet).unwrap();
    let conditions = Conditions { speedup, ..Conditions::default() };
    let outcome = run(trace, &fleet, &conditions, &mut router).unwrap();
    assert_eq!(outcome.rejected, 0);
    Summary::of(trace, &outcome, engines)
}

/// Engines, speed-up, hit, TTFT mean, p50, p90, p99, TPOT mean, E2E mean, p99.
const LARGE_KV: [[f64; 10]; 4] = [
    [8.0, 1.0, 0.0817, 321.0, 184.0, 702.0, 2048.0, 8.1, 2913.0, 10_889.0],
    [4.0, 1.0, 0.0821, 516.0, 355.0, 1093.0, 2577.0, 12.7, 4115.0, 15_436.0],
    [16.0, 1.0, 0.0733, 241.0, 128.0, 561.0, 1756.0, 6.6, 2519.0, 8896.0],
    [8.0, 2.0, 0.0817, 347.0, 207.0, 766.0, 2147.0, 10.8, 3861.0, 15_200.0],
];

#[test]
fn large_caches_give_dynamos_figures() {
    let Some(trace) = trace() else { return };
    for [engines, speedup, hit, mean, p50, p90, p99, tpot, e2e, e2e_p99] in LARGE_KV {
        let ours = round_robin(&trace, engines as usize, speedup, EngineConfig::DEFAULT);
        let name = |figure: &str| format!("{engines} engines ×{speedup}, {figure}");
        close(&name("hit"), ours.token_hit_rate, hit, 0.00005);
        close(&name("TTFT mean"), ours.ttft.mean, mean, 0.5);
        close(&name("TTFT p50"), ours.ttft.p50, p50, 0.5);
        close(&name("TTFT p90"), ours.ttft.p90, p90, 0.5);
        close(&name("TTFT p99"), ours.ttft.p99, p99, 0.5);
        close(&name("TPOT mean"), ours.tpot.mean, tpot, 0.05);
        close(&name("E2E mean"), ours.e2e.mean, e2e, 0.5);
        close(&name("E2E p99"), ours.e2e.p99, e2e_p99, 0.5);
    }
}

/// Engines, speed-up, hit, TTFT mean, p90, p99 (0: not published), TPOT mean, E2E mean.
const SMALL_KV: [[f64; 8]; 4] = [
    [8.0, 3.0, 0.064, 764.0, 1666.0, 8234.0, 33.9, 12_170.0],
    [8.0, 4.0, 0.072, 13_053.0, 35_977.0, 56_933.0, 54.0, 30_880.0],
    [8.0, 4.5, 0.076, 44_056.0, 0.0, 0.0, 57.7, 62_970.0],
    [16.0, 8.0, 0.071, 8253.0, 24_548.0, 44_115.0, 52.3, 25_600.0],
];

#[test]
fn caches_under_pressure_give_dynamos_figures() {
    let Some(trace) = trace() else { return };
    let config = EngineConfig { block: 512, kv_blocks: 896, ..EngineConfig::DEFAULT };
    for [engines, speedup, hit, mean, p90, p99, tpot, e2e] in SMALL_KV {
        let ours = round_robin(&trace, engines as usize, speedup, config);
        let name = |figure: &str| format!("{engines} engines ×{speedup}, {figure}");
        close(&name("hit"), ours.token_hit_rate, hit, 0.0005);
        close(&name("TTFT mean"), ours.ttft.mean, mean, 0.5);
        if p90 > 0.0 {
            close(&name("TTFT p90"), ours.ttft.p90, p90, 0.5);
            close(&name("TTFT p99"), ours.ttft.p99, p99, 0.5);
        }
        close(&name("TPOT mean"), ours.tpot.mean, tpot, 0.05);
        close(&name("E2E mean"), ours.e2e.mean, e2e, 5.0);
    }
}

#[test]
fn the_cache_alone_gives_the_published_hits() {
    let Some(trace) = trace() else { return };
    let table = [
        (1, [0.043, 0.043, 0.054, 0.139]),
        (8, [0.043, 0.051, 0.081, 0.116]),
        (16, [0.045, 0.055, 0.072, 0.096]),
    ];
    for (workers, hits) in table {
        for (tokens, expected) in [100_000, 300_000, 1_000_000, 3_000_000].into_iter().zip(hits) {
            let ours = cache_alone(&trace, workers, tokens / 512);
            assert!(
                (ours - expected).abs() < 0.0015,
                "{workers} workers of {tokens} tokens: ours {ours:.4}, theirs {expected}"
            );
        }
    }
}

/// File order, request j to worker j mod n, no time: each prompt is looked up, held and left.
fn cache_alone(trace: &Trace, workers: usize, blocks: u32) -> f64 {
    let mut caches = vec![Kv::new(blocks); workers];
    let mut hit = 0;
    for request in 0..trace.len() as u32 {
        let cache = &mut caches[request as usize % workers];
        let ids = trace.blocks(request);
        let found = ids.iter().take_while(|&&id| cache.look(u64::from(id)).0 > 0).count() as u32;
        hit += u64::from((found * 512).min(trace.input(request)));
        let mut held = Vec::new();
        for &id in ids.iter().take(blocks as usize) {
            let node = cache.enter(u64::from(id));
            let missing = cache.hold(node, 1);
            cache.take(missing);
            held.push(node);
        }
        for node in held.into_iter().rev() {
            cache.leave(node, || 1);
        }
    }
    hit as f64 / trace.input_tokens() as f64
}
