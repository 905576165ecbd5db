//! Every strategy over resident columns, by number of endpoints: the choice alone, no Python.
#![allow(missing_docs)] // criterion_group! makes an undocumented function

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use routecore::hash::{PrefixHasher, endpoint_id};
use routecore::rng::Rng;
use routecore::strategy::Strategy;
use routecore::{Candidates, Key, Params, Router, Stat, StatTable, View};

fn select(c: &mut Criterion) {
    for &name in Strategy::NAMES {
        let mut group = c.benchmark_group(name);
        for n in [4_usize, 64, 1024] {
            let mut rng = Rng::new(7);
            let mut table = StatTable::scratch(n);
            for row in 0..n as u32 {
                for &stat in Stat::ALL {
                    table.set(stat, row, rng.unit() * 10.0);
                }
            }
            let ids = (0..n).map(|i| endpoint_id(format!("http://e{i}").as_bytes())).collect();
            let rows = (0..n as u32).collect::<Vec<_>>();
            let candidates = Candidates::new(rows.clone(), ids, Vec::new(), rows);
            let mut params = Params::default();
            if name == "weighted_score" {
                let terms = ["in_flight", "qps", "num_queuing_requests", "gpu_cache_usage_perc"];
                params.weights = terms.iter().map(|t| ((*t).to_owned(), 1.0)).collect();
            }
            let mut router = Router::new(name, params, 7).expect("a registered strategy builds");
            let mut hasher = PrefixHasher::new(128, 0);
            hasher.feed(&[b'x'; 4096]);
            let key = Key::Prefix(hasher.finish());
            group.bench_function(BenchmarkId::from_parameter(n), |b| {
                b.iter(|| router.pick(View::new(&table, &candidates), &key));
            });
        }
    }
}

criterion_group!(benches, select);
criterion_main!(benches);
