//! A pick allocates nothing once a strategy has seen its fleet and its windows are full.

use std::alloc::System;

use routecore::hash::{PrefixHasher, endpoint_id, session_key};
use routecore::strategy::Strategy;
use routecore::{Candidates, Key, Params, Router, Stat, StatTable, View};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn key_of(name: &str, request: u32) -> Key {
    match name {
        "session_affinity" => Key::Session(session_key(&request.to_le_bytes(), 0)),
        _ => {
            let mut hasher = PrefixHasher::new(128, 0);
            hasher.feed(&[7; 128]);
            hasher.feed(&(request % 5000).to_le_bytes().repeat(200));
            Key::Prefix(hasher.finish())
        }
    }
}

#[test]
fn a_pick_allocates_nothing() {
    let n = 64;
    let mut table = StatTable::scratch(n);
    for row in 0..n as u32 {
        // Every third endpoint lacks its scraped stats: the neutral value is needed too.
        for &stat in Stat::ALL.iter().filter(|_| row % 3 > 0) {
            table.set(stat, row, f64::from(row % 5));
        }
    }
    let rows: Vec<u32> = (0..n as u32).collect();
    let ids = rows.iter().map(|row| endpoint_id(&row.to_le_bytes())).collect();
    let candidates = Candidates::new(rows.clone(), ids, Vec::new(), rows);
    for &name in Strategy::NAMES {
        let mut params = Params::default();
        if name == "weighted_score" {
            params.weights = ["qps", "gpu_cache_usage_perc"].map(|s| (s.to_owned(), 1.0)).into();
        }
        let mut router = Router::new(name, params, 7).unwrap();
        let view = View::new(&table, &candidates);
        for request in 0..10_000 {
            router.pick(view, &key_of(name, request));
        }
        let keys: Vec<Key> = (0..20_000).map(|request| key_of(name, request)).collect();
        let region = Region::new(GLOBAL);
        for key in &keys {
            assert!(router.pick(view, key).is_some());
        }
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{name}");
    }
}
