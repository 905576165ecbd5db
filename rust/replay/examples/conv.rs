//! One strategy on a Mooncake trace, straight from cargo: for tuning.
//!
//! `cargo run --release -p routecore-replay --example conv -- --endpoints 8 --speedup 4
//! --block 512 --kv-blocks 896 --strategy round_robin --param k=v --seed 1 --trace FILE`
//!
//! `--jitter 1500` moves arrivals by up to so many ms. `--strategy a,b,c` runs several, `--seed 1,2,3` each with several seeds;
//! `--param weights.in_flight=1` sets one of several weights.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use routecore::Params;
use routecore_replay::{Conditions, EngineConfig, LiveRouter, Summary, run};

#[path = "../tests/conv/mod.rs"]
mod conv;

fn main() {
    let mut params = Params::default();
    let mut options = std::collections::BTreeMap::from([
        ("--endpoints", "8".to_owned()),
        ("--speedup", "1".to_owned()),
        ("--block", "64".to_owned()),
        ("--kv-blocks", "16384".to_owned()),
        ("--strategy", "round_robin".to_owned()),
        ("--jitter", "0".to_owned()),
        ("--hold", "0".to_owned()),
        ("--seed", "1".to_owned()),
        ("--trace", conv::PATH.to_owned()),
    ]);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{name}: value missing"));
        if name == "--param" {
            let (key, value) = value.split_once('=').expect("--param key=value");
            match (key.strip_prefix("weights."), value.parse()) {
                (Some(stat), Ok(number)) => drop(params.weights.insert(stat.to_owned(), number)),
                (_, Ok(number)) => drop(params.numbers.insert(key.to_owned(), number)),
                (_, Err(_)) => drop(params.words.insert(key.to_owned(), value.to_owned())),
            }
        } else {
            *options.get_mut(name.as_str()).unwrap_or_else(|| panic!("unknown {name}")) = value;
        }
    }
    let number = |name: &str| options[name].parse::<f64>().unwrap();
    let trace = conv::load(&options["--trace"]).unwrap();
    let (engines, speedup) = (number("--endpoints") as usize, number("--speedup"));
    let jitter = number("--jitter");
    let config = EngineConfig {
        block: number("--block") as u32,
        kv_blocks: number("--kv-blocks") as u32,
        ..EngineConfig::DEFAULT
    };
    println!(
        "{:24} {:>4} {:>6} {:>8} {:>7} {:>7} {:>7} {:>6} {:>7} {:>8} {:>6} {:>6} {:>6} {:>7}",
        "strategy",
        "seed",
        "hit",
        "TTFT",
        "p50",
        "p90",
        "p99",
        "TPOT",
        "E2E",
        "E2Ep99",
        "imbal",
        "share",
        "good",
        "wall ms"
    );
    for strategy in options["--strategy"].split(',') {
        for seed in options["--seed"].split(',').map(|seed| seed.parse().unwrap()) {
            let fleet = vec![config; engines];
            let mut router = LiveRouter::new(strategy, params.clone(), seed, &fleet).unwrap();
            if number("--hold") > 0.0 {
                router = router.with_hold(routecore::admission::Limits::default());
            }
            let begun = Instant::now();
            let conditions = Conditions { speedup, jitter, seed, ..Conditions::default() };
            let outcome = run(&trace, &fleet, &conditions, &mut router).unwrap();
            let wall = begun.elapsed().as_secs_f64() * 1e3;
            let s = Summary::of(&trace, &outcome, engines);
            println!(
                "{strategy:24} {seed:4} {:6.4} {:8.1} {:7.1} {:7.1} {:7.0} {:6.2} {:7.0} {:8.0} \
                 {:6.3} {:6.3} {:6.3} {wall:7.1} wait {:.1} max TTFT {:.0} shed {}",
                s.token_hit_rate,
                s.ttft.mean,
                s.ttft.p50,
                s.ttft.p90,
                s.ttft.p99,
                s.tpot.mean,
                s.e2e.mean,
                s.e2e.p99,
                s.max_over_mean_load,
                s.max_share,
                s.goodput,
                outcome
                    .dispatch
                    .iter()
                    .zip(&outcome.arrival)
                    .map(|(d, a)| d - a)
                    .fold(0.0, f64::max),
                outcome
                    .first_token
                    .iter()
                    .zip(&outcome.arrival)
                    .map(|(d, a)| d - a)
                    .fold(0.0, f64::max),
                outcome.shed
            );
        }
    }
}
