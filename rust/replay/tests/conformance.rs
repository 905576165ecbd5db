//! Cases that NVIDIA Dynamo 1.6.1's engine was run on: one engine, polynomial timing, blocks of 64.

#![allow(clippy::unwrap_used)]

use routecore_replay::gateway::Assigned;
use routecore_replay::{Conditions, EngineConfig, Outcome, Row, Trace, run};

/// Input tokens, output tokens, arrival, first id: prompts with the same first id share a prefix.
type Case = (u32, u32, f64, u64);

fn trace(cases: &[Case]) -> Trace {
    let mut trace = Trace::new(64).unwrap();
    for &(input, output, arrival, first) in cases {
        let ids: Vec<u64> = (0..u64::from(input.div_ceil(64))).map(|at| first + at).collect();
        trace.push(Row { arrival, input, output, ids: &ids, ..Row::default() }).unwrap();
    }
    trace
}

fn replay(trace: &Trace, kv_blocks: u32, speedup: f64) -> Outcome {
    let conditions = Conditions { speedup, ..Conditions::default() };
    let config = EngineConfig { kv_blocks, ..EngineConfig::DEFAULT };
    run(trace, &[config], &conditions, &mut Assigned(vec![0; trace.len()])).unwrap()
}

fn outcome(cases: &[Case]) -> Outcome {
    replay(&trace(cases), 16_384, 1.0)
}

fn near(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() < 2e-5, "ours {ours}, theirs {theirs}");
}

#[test]
fn one_prompt_and_its_tokens() {
    let ours = outcome(&[(1024, 4, 0.0, 0)]);
    near(ours.first_token[0], 32.490_712);
    near(ours.end[0], 49.869_180);
    near(outcome(&[(1024, 2, 0.0, 0)]).end[0] - ours.first_token[0], 5.792_771);
}

#[test]
fn a_long_prompt_comes_in_chunks() {
    let ours = outcome(&[(20_000, 2, 0.0, 0)]);
    near(ours.first_token[0], 415.183_33);
    near(ours.end[0] - ours.first_token[0], 6.760_85);
}

#[test]
fn two_prompts_share_a_step() {
    for second in [3000, 3001] {
        let ours = outcome(&[(1000, 2, 0.0, 0), (second, 2, 0.0, 1000)]);
        near(ours.first_token[0], 83.971_16);
        near(ours.first_token[1], 83.971_16);
    }
    let ours = outcome(&[(1000, 2, 0.0, 0), (3000, 2, 0.0, 1000)]);
    near(ours.end[0] - ours.first_token[0], 5.945_76);
}

#[test]
fn a_prompt_that_arrives_during_a_step_waits_for_its_end() {
    let ours = outcome(&[(1024, 20, 0.0, 0), (1000, 5, 50.0, 1000)]);
    near(ours.first_token[1], 93.560_94);
}

#[test]
fn a_cached_prefix_is_not_computed_again() {
    let first = (1024, 2, 0.0, 0);
    for (input, reused, ms) in
        [(1024, 960, 17.474_88), (1100, 1024, 17.657_79), (1000, 960, 17.109_43)]
    {
        let ours = outcome(&[first, (input, 2, 1000.0, 0)]);
        assert_eq!(ours.cached[1], reused);
        near(ours.first_token[1] - 1000.0, ms);
    }
}

#[test]
fn a_prefix_is_shared_within_the_step_that_computes_it() {
    let ours = outcome(&[(1024, 2, 0.0, 0), (1024, 2, 0.0, 0)]);
    assert_eq!(ours.cached, [0, 960]);
    // 1,024 + 64 tokens in one step.
    near(ours.first_token[0], 33.519_36);
    near(ours.first_token[1], 33.519_36);
}

#[test]
fn the_oldest_freed_blocks_go_first_tail_before_head() {
    let (a, b, c) = ((640, 1, 0.0, 0), (512, 1, 1000.0, 100), (384, 1, 2000.0, 200));
    let probe = |cases: &[Case], which: Case| {
        let mut cases = cases.to_vec();
        // Longer by a block than what was sent, so that the last full block counts as well.
        cases.push((which.0 + 64, 1, 5000.0, which.3));
        *replay(&trace(&cases), 20, 1.0).cached.last().unwrap() / 64
    };
    assert_eq!(probe(&[a, b, c], a), 6);
    let again = (640, 1, 1500.0, 0);
    assert_eq!(probe(&[a, b, again, c], b), 4);
}

#[test]
fn a_prompt_that_does_not_fit_waits_for_an_end() {
    let ours = replay(&trace(&[(960, 200, 0.0, 0), (384, 10, 100.0, 100)]), 20, 1.0);
    near_ms(ours.end[0], 6551.288);
    // Admitted then, alone: 384 tokens of prefill.
    let alone = outcome(&[(384, 10, 0.0, 0)]).first_token[0];
    near_ms(ours.first_token[1], 6551.288 + alone);
}

fn near_ms(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() < 1e-3, "ours {ours}, theirs {theirs}");
}

#[test]
fn a_turn_arrives_after_the_end_of_the_one_before() {
    for (speedup, expected) in [(1.0, 100.0), (2.0, 50.0)] {
        let mut trace = trace(&[(1024, 51, 0.0, 0)]);
        let next = Row { input: 100, output: 1, ids: &[900, 901], after: &[0], ..Row::default() };
        trace.push(Row { delay: 100.0, ..next }).unwrap();
        let ours = replay(&trace, 16_384, speedup);
        near(ours.arrival[1] - ours.end[0], expected);
    }
}

#[test]
fn a_prompt_larger_than_the_cache_is_rejected_and_counted() {
    let ours = replay(&trace(&[(64 * 21, 2, 0.0, 0), (64, 2, 0.0, 100)]), 20, 1.0);
    assert_eq!(ours.rejected, 1);
    assert!(ours.end[0].is_nan() && ours.first_token[0].is_nan() && ours.end[1] > 0.0);
    // One that outgrows it while decoding, too, and it must not hold up the one behind it.
    let ours = replay(&trace(&[(64 * 19, 200, 0.0, 0), (128, 2, 1.0, 100)]), 20, 1.0);
    assert_eq!(ours.rejected, 1);
    assert!(ours.end[0].is_nan() && ours.first_token[0] > 0.0 && ours.end[1] > 0.0);
}

#[test]
fn the_last_admitted_gives_way_when_blocks_run_out() {
    // Ten blocks each; both grow, twenty blocks in all.
    let ours = replay(&trace(&[(630, 100, 0.0, 0), (630, 100, 0.0, 100)]), 20, 1.0);
    assert_eq!((ours.preemptions, ours.rejected), (1, 0));
    assert!(ours.end[0] < ours.end[1]);
    // The first token of the one that gave way counts once, when it first came.
    assert_eq!(ours.first_token[0], ours.first_token[1]);
}

#[test]
fn an_output_named_by_the_trace_is_reused_by_the_next_turn() {
    let mut trace = Trace::new(64).unwrap();
    let ids: Vec<u64> = (0..10).collect();
    let first = Row { input: 256, output: 129, ids: &ids[..6], ..Row::default() };
    trace.push(first).unwrap();
    let next = Row { input: 512, output: 2, ids: &ids[..8], after: &[0], ..Row::default() };
    trace.push(next).unwrap();
    let ours = replay(&trace, 100, 1.0);
    // 256 of the prompt and 128 of the output; the last token was never written.
    assert_eq!(ours.cached, [0, 384]);
}
