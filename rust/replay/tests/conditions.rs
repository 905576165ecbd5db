//! Engines that die and join, stats that age, routers that do not know of each other.

#![allow(clippy::unwrap_used)]

use routecore::Params;
use routecore_replay::engine::Report;
use routecore_replay::gateway::{Assigned, Usage};
use routecore_replay::several::Several;
use routecore_replay::{
    Change, Conditions, EngineConfig, Gateway, LiveRouter, Outcome, Request, Row, Trace, run,
};

/// A request of 640 tokens every 20 ms, answered in some 80 ms by an idle engine.
fn trace(requests: u32) -> Trace {
    let mut trace = Trace::new(64).unwrap();
    for at in 0..requests {
        let ids: Vec<u64> = (0..10).map(|block| u64::from(at) * 10 + block).collect();
        let arrival = f64::from(at) * 20.0;
        trace.push(Row { arrival, input: 640, output: 10, ids: &ids, ..Row::default() }).unwrap();
    }
    trace
}

fn replay(conditions: &Conditions, strategy: &str, engines: usize) -> Outcome {
    let fleet = vec![EngineConfig::DEFAULT; engines];
    let mut router = LiveRouter::new(strategy, Params::default(), 1, &fleet).unwrap();
    run(&trace(200), &fleet, conditions, &mut router).unwrap()
}

fn went_to(outcome: &Outcome, engine: u32, from: f64, to: f64) -> usize {
    let requests = outcome.arrival.iter().zip(&outcome.engine);
    requests.filter(|&(&time, &at)| at == engine && (from..to).contains(&time)).count()
}

#[test]
fn a_dead_engine_gets_nothing_after_its_first_error() {
    let changes = vec![Change::Fail { time: 1000.5, engine: 1 }];
    let ours = replay(&Conditions { changes, ..Conditions::default() }, "least_connections", 4);
    assert!(went_to(&ours, 1, 0.0, 1000.5) > 5);
    assert_eq!(went_to(&ours, 1, 1000.5, f64::INFINITY), 0);
    // What had no token yet was sent again; what had is lost.
    let served = ours.end.iter().filter(|end| !end.is_nan()).count();
    assert_eq!(served + ours.failed as usize, 200);
    assert!(ours.failed <= 3 && ours.rejected == 0, "{} failed", ours.failed);
    for at in 0..200 {
        assert!(ours.end[at].is_nan() || ours.engine[at] != 1 || ours.end[at] < 1000.5);
    }
}

#[test]
fn an_engine_that_died_idle_is_found_out_by_one_request() {
    let changes = vec![Change::Fail { time: 0.0, engine: 0 }];
    let conditions = Conditions { changes, ..Conditions::default() };
    let ours = replay(&conditions, "round_robin", 2);
    assert_eq!((ours.failed, ours.decisions), (0, 201));
    assert!(ours.engine.iter().all(|&engine| engine == 1));
}

#[test]
fn an_engine_serves_from_when_it_joins() {
    let changes = vec![Change::Join { time: 2000.0, engine: 2 }];
    let ours = replay(&Conditions { changes, ..Conditions::default() }, "round_robin", 3);
    assert_eq!((went_to(&ours, 2, 0.0, 2000.0), ours.failed), (0, 0));
    assert!(went_to(&ours, 2, 2000.0, f64::INFINITY) >= 30);
}

#[test]
fn a_restarted_engine_comes_back_without_its_cache() {
    let mut trace = Trace::new(64).unwrap();
    let ids: Vec<u64> = (0..10).collect();
    for arrival in [0.0, 1000.0, 3000.0] {
        trace.push(Row { arrival, input: 640, output: 1, ids: &ids, ..Row::default() }).unwrap();
    }
    let changes =
        vec![Change::Join { time: 2500.0, engine: 0 }, Change::Fail { time: 2000.0, engine: 0 }];
    let conditions = Conditions { changes, ..Conditions::default() };
    let mut router =
        LiveRouter::new("round_robin", Params::default(), 1, &[EngineConfig::DEFAULT]).unwrap();
    let ours = run(&trace, &[EngineConfig::DEFAULT], &conditions, &mut router).unwrap();
    assert_eq!((ours.cached, ours.failed), (vec![0, 576, 0], 0));
}

#[test]
fn without_engines_requests_fail_and_the_replay_ends() {
    let changes = vec![Change::Fail { time: 100.0, engine: 0 }];
    let ours = replay(&Conditions { changes, ..Conditions::default() }, "round_robin", 1);
    assert!(ours.failed > 190);
}

#[test]
fn a_faster_engine_takes_less_time() {
    let fleet = [1.0, 2.0].map(|speed| EngineConfig { speed, ..EngineConfig::DEFAULT });
    let mut router = LiveRouter::new("round_robin", Params::default(), 1, &fleet).unwrap();
    let ours = run(&trace(2), &fleet, &Conditions::default(), &mut router).unwrap();
    let taken = |at: usize| ours.end[at] - ours.arrival[at];
    assert!((taken(0) / taken(1) - 2.0).abs() < 1e-9);
}

#[test]
fn jitter_is_bounded_and_seeded() {
    let with =
        |seed| replay(&Conditions { jitter: 5.0, seed, ..Conditions::default() }, "round_robin", 2);
    assert_eq!(with(1).arrival, with(1).arrival);
    assert_ne!(with(1).arrival, with(2).arrival);
    let moved = with(1)
        .arrival
        .iter()
        .enumerate()
        .map(|(at, time)| time - 20.0 * at as f64)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), moved| {
            (low.min(moved), high.max(moved))
        });
    assert!(moved.1 - moved.0 > 5.0 && moved.1 - moved.0 <= 10.0, "{moved:?}");
}

/// Sends everything to engine 0 and keeps what the scrapes said.
#[derive(Default)]
struct Watcher {
    seen: Vec<(f64, u32, Report)>,
}

impl Gateway for Watcher {
    fn choose(&mut self, _: f64, _: &Request<'_>) -> Option<u32> {
        Some(0)
    }
    fn on_first_token(&mut self, _: f64, _: u32, _: u32) {}
    fn on_end(&mut self, _: f64, _: u32, _: u32, _: Usage, _: bool) {}
    fn on_stats(&mut self, now: f64, engine: u32, report: &Report) {
        self.seen.push((now, engine, *report));
    }
}

#[test]
fn scrapes_arrive_at_their_period_and_age() {
    let mut watcher = Watcher::default();
    let conditions = Conditions { stats_period: 100.0, stats_delay: 30.0, ..Conditions::default() };
    let fleet = [EngineConfig::DEFAULT; 2];
    run(&trace(200), &fleet, &conditions, &mut watcher).unwrap();
    let busy: Vec<_> = watcher.seen.iter().filter(|seen| seen.1 == 0).collect();
    assert!(busy.len() > 30);
    for (at, (now, _, report)) in busy.iter().enumerate() {
        assert!((now - (at as f64 * 100.0 + 30.0)).abs() < 1e-9);
        let blocks = report.kv_usage * 16_384.0;
        // Ten blocks a prompt, and the eleventh for what it generates.
        assert!(blocks >= 10.0 * f64::from(report.running) - 10.0, "{report:?}");
        assert!(blocks <= 11.0 * f64::from(report.running), "{report:?}");
    }
    assert!(busy.iter().any(|seen| seen.2.running > 1));
    assert!(watcher.seen.iter().filter(|seen| seen.1 == 1).all(|seen| seen.2.running == 0));
}

/// What scrapes see of a few requests, one of them with a long answer: usage by time in ms.
fn usage(output: u32, stats_period: f64) -> Vec<(f64, f64)> {
    let mut trace = Trace::new(64).unwrap();
    for at in 0..4_u32 {
        let (arrival, output) = (f64::from(at) * 700.0, if at == 0 { output } else { 300 });
        let ids = [u64::from(at)];
        trace.push(Row { arrival, input: 64, output, ids: &ids, ..Row::default() }).unwrap();
    }
    let mut watcher = Watcher::default();
    let conditions = Conditions { stats_period, ..Conditions::default() };
    run(&trace, &[EngineConfig::DEFAULT], &conditions, &mut watcher).unwrap();
    watcher.seen.iter().map(|(now, _, report)| (*now, report.kv_usage)).collect()
}

#[test]
fn what_a_scrape_sees_does_not_depend_on_the_scrapes_before() {
    let (often, seldom) = (usage(2000, 1.0), usage(2000, 250.0));
    assert!(seldom.len() > 20);
    for (time, seen) in seldom {
        let same = often.iter().find(|(now, _)| *now == time).map(|(_, seen)| *seen);
        assert_eq!(same, Some(seen), "at {time}");
    }
}

#[test]
fn a_long_answer_is_scraped_in_time_that_grows_with_its_length_alone() {
    // From its first step at each scrape, this would take minutes.
    assert!(usage(200_000, 5.0).len() > 200_000);
}

#[test]
fn routers_apart_count_only_their_own() {
    let fleet = [EngineConfig::DEFAULT; 4];
    let live = |seed| LiveRouter::new("round_robin", Params::default(), seed, &fleet).unwrap();
    let boxed = |seed| Box::new(live(seed)) as Box<dyn Gateway + Send>;
    let mut several = Several::new(vec![boxed(1), boxed(2)], 7);
    let ours = run(&trace(200), &fleet, &Conditions::default(), &mut several).unwrap();
    let share = |engine| ours.engine.iter().filter(|&&at| at == engine).count();
    // Two rotations interleave: even within two, and not strictly in turn.
    assert!((0..4).all(|engine| share(engine).abs_diff(50) <= 2));
    assert!(ours.engine.windows(2).any(|pair| pair[0] == pair[1]));
}

#[test]
fn settings_out_of_range_are_named() {
    let with = |conditions: &Conditions| {
        let mut router =
            LiveRouter::new("round_robin", Params::default(), 1, &[EngineConfig::DEFAULT]).unwrap();
        run(&trace(1), &[EngineConfig::DEFAULT], conditions, &mut router).unwrap_err().0
    };
    let conditions = Conditions { speedup: 0.0, ..Conditions::default() };
    assert_eq!(with(&conditions), "speedup: expected a number above 0, got 0");
    let changes = vec![Change::Fail { time: 1.0, engine: 1 }];
    let text = with(&Conditions { changes, ..Conditions::default() });
    assert!(text.contains("an engine from 0 to 0"), "{text}");
}

#[test]
fn ids_that_are_no_numbers_or_not_chained_are_distinguished_by_their_prefix() {
    let mut trace = Trace::new(64).unwrap();
    let huge = u64::MAX - 3;
    for ids in [[1, 2], [1, 2], [3, 2], [huge, 2], [huge, 2]] {
        trace.push(Row { input: 128, output: 1, ids: &ids, ..Row::default() }).unwrap();
    }
    let blocks: Vec<_> = (0..5).map(|at| trace.blocks(at).to_vec()).collect();
    assert_eq!((&blocks[0], &blocks[3]), (&blocks[1], &blocks[4]));
    let last: std::collections::BTreeSet<_> = blocks.iter().map(|ids| ids[1]).collect();
    assert_eq!(last.len(), 3);
}

#[test]
fn the_head_of_a_trace_replays_as_if_the_rest_did_not_exist() {
    let mut long = trace(30);
    let ids: Vec<u64> = (0..10).collect();
    for at in 30..60 {
        let row = Row { input: 640, output: 9, ids: &ids, after: &[at - 1], ..Row::default() };
        long.push(row).unwrap();
    }
    let fleet = vec![EngineConfig::DEFAULT; 3];
    let ends = |trace: &Trace| {
        let mut router = LiveRouter::new("round_robin", Params::default(), 1, &fleet).unwrap();
        run(trace, &fleet, &Conditions::default(), &mut router).unwrap().end
    };
    assert_eq!(ends(&long.head(30)), ends(&trace(30)));
    assert_eq!(ends(&long.head(45)), ends(&long)[..45]);
    assert_eq!(ends(&long.head(99)), ends(&long));
    assert!(long.head(0).is_empty());
}

#[test]
fn idle_ages_take_no_time() {
    let mut trace = Trace::new(64).unwrap();
    for arrival in [0.0, 9e14] {
        trace
            .push(Row {
                arrival,
                input: 100,
                output: 10,
                ids: &[1, 2],
                session: None,
                after: &[],
                delay: 0.0,
            })
            .unwrap();
    }
    let conditions =
        Conditions { stats_period: 1_000.0, stats_delay: 500.0, ..Conditions::default() };
    let mut assigned = Assigned(vec![0, 0]);
    let outcome = run(&trace, &[EngineConfig::DEFAULT], &conditions, &mut assigned).unwrap();
    assert!(outcome.end.iter().all(|end| end.is_finite()));
}

#[test]
fn what_would_never_end_is_refused() {
    let trace = Trace::new(64).unwrap();
    let run_with = |conditions: Conditions, speed: f64| {
        let engine = EngineConfig { speed, ..EngineConfig::DEFAULT };
        run(&trace, &[engine], &conditions, &mut Assigned(vec![])).map(drop).map_err(|e| e.0)
    };
    let ok = Conditions::default;
    for (conditions, speed, name) in [
        (Conditions { jitter: 1e308, ..ok() }, 1.0, "jitter"),
        (Conditions { stats_period: 1e-9, ..ok() }, 1.0, "stats period"),
        (Conditions { stats_period: 1.0, stats_delay: 1e6, ..ok() }, 1.0, "stats period"),
        (Conditions { stats_delay: 1e300, ..ok() }, 1.0, "stats delay"),
        (Conditions { kv_event_delay: Some(1e16), ..ok() }, 1.0, "KV event delay"),
        (Conditions { speedup: 1e-300, ..ok() }, 1.0, "speedup"),
        (ok(), 1e-300, "engine speed"),
    ] {
        let error = run_with(conditions, speed).unwrap_err();
        assert!(error.starts_with(name), "{error}");
    }
    let row = Row {
        arrival: 0.0,
        input: 1,
        output: 1 << 30,
        ids: &[1],
        session: None,
        after: &[],
        delay: 0.0,
    };
    assert!(Trace::new(64).unwrap().push(row).is_err());
}
