//! Small traces on small fleets, under conditions that may be anything: every run ends or is
//! refused. Run with `-timeout=20`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routecore_fuzz::Input;
use routecore_replay::gateway::Assigned;
use routecore_replay::{Change, Conditions, EngineConfig, Row, Trace, run};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let Ok(mut trace) = Trace::new(u32::from(input.byte())) else { return };
    let positive = |value: f64| if value.is_nan() { value } else { value.abs() };
    let conditions = Conditions {
        speedup: if input.byte() & 1 == 0 { 1.0 } else { input.float() },
        jitter: input.float(),
        seed: 1,
        stats_period: positive(input.float()),
        stats_delay: positive(input.float()),
        kv_event_delay: (input.byte() & 1 == 0).then(|| positive(input.float())),
        changes: (0..input.below(4))
            .map(|at| {
                let (time, engine) = (positive(input.float()), u32::from(input.below(3)));
                if at & 1 == 0 {
                    Change::Fail { time, engine }
                } else {
                    Change::Join { time, engine }
                }
            })
            .collect(),
    };
    let engine = EngineConfig {
        block: u32::from(input.byte()),
        kv_blocks: u32::from(input.byte()),
        token_budget: 16 * u32::from(input.byte()),
        max_sequences: u32::from(input.below(8)),
        speed: if input.byte() & 1 == 0 { 1.0 } else { input.float() },
        ..EngineConfig::DEFAULT
    };
    let mut assigned = Vec::new();
    // Each token is simulated, so that millions take seconds: few rows may have so many.
    let mut tokens = 1 << 24;
    while !input.is_over() && assigned.len() < 24 {
        let ids: Vec<u64> = (0..input.below(9)).map(|_| u64::from(input.byte())).collect();
        let after: Vec<u32> = (0..input.below(2)).map(|_| u32::from(input.below(24))).collect();
        let row = Row {
            arrival: input.float(),
            input: u32::from(input.byte()) * u32::from(input.byte()),
            output: (u32::from(input.byte()) << input.below(16)).min(tokens),
            ids: &ids,
            session: Some(u64::from(input.byte())),
            after: &after,
            delay: positive(input.float()),
        };
        tokens -= row.output;
        if trace.push(row).is_ok() {
            assigned.push(u32::from(input.below(3)));
        }
    }
    let requests = assigned.len();
    if let Ok(outcome) = run(&trace, &[engine; 2], &conditions, &mut Assigned(assigned)) {
        assert_eq!(outcome.end.len(), requests);
    }
});
