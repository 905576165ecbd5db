//! The prefix index in the core alone: match, choice and insert by number of endpoints, and what
//! a second thread adds.
#![allow(missing_docs)] // criterion_group! makes an undocumented function

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use routecore::fleet::Lookup;
use routecore::prompt::{BlockHasher, Unit};
use routecore::{Candidates, Fleet, Key, Params, Prompt, Router, View};

const BLOCK: usize = 128;

/// A prompt of `head` blocks that all share, and `tail` of its own.
fn prompt(head: usize, tail: usize, name: u64) -> Prompt {
    let mut hasher = BlockHasher::new(BLOCK as u32, Unit::Bytes, 7);
    hasher.feed(&vec![b'h'; head * BLOCK]);
    hasher.feed(&name.to_le_bytes().repeat(tail * BLOCK / 8));
    hasher.finish()
}

/// A fleet of which all hold the head; its candidates.
fn fleet(n: usize, head: usize) -> (Fleet, Candidates) {
    let mut fleet = Fleet::new(60.0, 600.0);
    fleet.advance(1.0);
    let shared = prompt(head, 0, 0);
    let rows: Vec<u32> = (0..n as u64).map(|id| fleet.add(id)).collect();
    for &row in &rows {
        fleet.chosen_unfollowed(row, &shared, 0.0);
    }
    fleet.advance(10.0);
    let ids = (0..n as u64).collect();
    let order = rows.clone();
    (fleet, Candidates::new(rows, ids, Vec::new(), order))
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash a prompt into blocks");
    for kib in [2, 32, 400] {
        let text = vec![b'x'; kib * 1024];
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{kib} KiB")), |b| {
            b.iter(|| {
                let mut hasher = BlockHasher::new(BLOCK as u32, Unit::Bytes, 7);
                hasher.feed(black_box(&text));
                hasher.finish()
            });
        });
    }
}

fn steps(c: &mut Criterion) {
    for n in [8_usize, 64, 1024] {
        let (mut fleet, candidates) = fleet(n, 8);
        let asked = prompt(8, 8, 1);
        let key = Key::Prompt(asked.clone());
        let sizes = fleet.tokens(&asked);
        let mut lookup = Lookup::default();
        let index = fleet.index();
        c.bench_function(&format!("match, all hold the head/{n}"), |b| {
            b.iter(|| lookup.find(&index.read(), &asked));
        });
        for name in ["prefix_cache", "expected_latency"] {
            let mut router = Router::new(name, Params::default(), 7).expect("it builds");
            c.bench_function(&format!("{name}, match and choice/{n}"), |b| {
                b.iter(|| {
                    lookup.find(&index.read(), &asked);
                    let rows = candidates.rows.iter().copied();
                    let (runs, in_use) = (candidates.runs(), router.needs_in_use());
                    lookup.look(rows, runs, sizes, in_use);
                    let asked = lookup.asked(sizes);
                    let view = View::new(&fleet.table, &candidates).asking(asked, fleet.engine());
                    router.pick(view, &key)
                });
            });
        }
        // Enough prompts that what comes in pushes something out.
        let fresh: Vec<Prompt> = (0..4_096).map(|name| prompt(8, 8, name)).collect();
        fleet.set_kv_tokens(2_000.0 * 8.0);
        let mut request = 0_u128;
        c.bench_function(&format!("insert, answer and end/{n}"), |b| {
            b.iter(|| {
                request += 1;
                let row = (request % n as u128) as u32;
                fleet.chosen_for(row, &fresh[request as usize % fresh.len()], 256.0);
                fleet.sent(row, request, 10.0);
                fleet.first_token(row, request, 10.0);
                fleet.end(row, request, 10.0, true);
            });
        });
    }
}

/// Lookups a thread makes in a while, beside others; what they took a lookup.
fn threads(c: &mut Criterion) {
    let (fleet, _) = fleet(64, 8);
    let index = fleet.index();
    let asked = prompt(8, 120, 1);
    let mut group = c.benchmark_group("lookups, 64 endpoints");
    for count in [1_u32, 2] {
        group.bench_function(BenchmarkId::from_parameter(format!("{count} threads")), |b| {
            b.iter_custom(|lookups| {
                let barrier = Barrier::new(count as usize);
                let each = lookups.div_ceil(u64::from(count));
                let run = || {
                    let mut lookup = Lookup::default();
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..each {
                        lookup.find(&index.read(), black_box(&asked));
                    }
                    start.elapsed()
                };
                std::thread::scope(|scope| {
                    let all: Vec<_> = (0..count).map(|_| scope.spawn(run)).collect();
                    all.into_iter().filter_map(|one| one.join().ok()).max().unwrap_or(Duration::MAX)
                })
            });
        });
    }
}

criterion_group!(benches, hashing, steps, threads);
criterion_main!(benches);
