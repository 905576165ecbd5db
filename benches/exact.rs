//! The exact index alone, no Python: decode, apply, hash, match, and lookups while events arrive.
#![allow(missing_docs)] // criterion_group! makes an undocumented function

#[path = "../rust/core/tests/messages/mod.rs"]
mod messages;

use std::hint::black_box;
use std::sync::RwLock;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use routecore::exact::event::Batch;
use routecore::exact::{ExactIndex, Feed, Scratch, decode::decode, keys};
use routecore::rng::Rng;

const BLOCK: usize = 16;

struct Prompt {
    tokens: Vec<u32>,
    stored: Vec<u8>,
    removed: Vec<u8>,
}

/// Prompts of `blocks` blocks over a vocabulary of 128,000 tokens.
fn prompts(count: usize, blocks: usize) -> Vec<Prompt> {
    let mut rng = Rng::new(7);
    let mut prompt = || {
        let tokens: Vec<u32> = (0..blocks * BLOCK).map(|_| rng.below(128_000) as u32).collect();
        let hashes: Vec<u64> = (0..blocks).map(|_| rng.bits()).collect();
        Prompt {
            stored: messages::message(&[messages::stored(&hashes, None, &tokens, 16, "GPU")]),
            removed: messages::message(&[messages::removed(&hashes, "GPU")]),
            tokens,
        }
    };
    (0..count).map(|_| prompt()).collect()
}

fn apply(c: &mut Criterion) {
    let prompts = prompts(2000, 64);
    let mut group = c.benchmark_group("64 blocks of 16 tokens");
    group.throughput(Throughput::Elements(64));
    let mut batch = Batch::default();
    let mut turn = prompts.iter().cycle();
    group.bench_function("decode", |b| {
        b.iter(|| {
            decode(&turn.next().expect("a cycle never ends").stored, &mut batch)
                .expect("a whole message");
        });
    });
    let mut out = Vec::new();
    group.bench_function("hash", |b| {
        b.iter(|| {
            out.clear();
            keys::chain(1, black_box(&prompts[0].tokens), BLOCK, |_| 0, &mut out);
        });
    });
    // Always 1,000 prompts held: the oldest leaves for each that comes.
    let index = RwLock::new(ExactIndex::new(7));
    let mut feed = Feed::new(1 << 22);
    let (publisher, work) = feed.publisher(1, 0, &index);
    let mut seq = 0;
    for prompt in &prompts[..1000] {
        publisher.live(seq, &prompt.stored, false, work, &index);
        seq += 1;
    }
    let mut at = 1000;
    group.throughput(Throughput::Elements(128));
    group.bench_function("apply: 64 stored, 64 removed", |b| {
        b.iter(|| {
            publisher.live(seq, &prompts[at % 2000].stored, false, work, &index);
            publisher.live(seq + 1, &prompts[(at + 1000) % 2000].removed, false, work, &index);
            (seq, at) = (seq + 2, at + 1);
        });
    });
}

fn lookup(c: &mut Criterion) {
    for (rows, blocks) in [(64, 2048), (100, 64), (1000, 512)] {
        let index = RwLock::new(ExactIndex::new(7));
        let mut feed = Feed::new(1 << 22);
        let prompt = &prompts(1, blocks)[0];
        for row in 0..rows {
            let (publisher, work) = feed.publisher(row, 0, &index);
            publisher.live(0, &prompt.stored, false, work, &index);
        }
        let index = index.into_inner().expect("nobody panicked");
        let all: Vec<u32> = (0..rows as u32).collect();
        let (mut out, mut chain) = (vec![0; rows as usize], Vec::new());
        let mut scratch = Scratch::default();
        c.bench_function(&format!("hash and match {blocks} blocks, {rows} rows hold all"), |b| {
            b.iter(|| {
                chain.clear();
                keys::chain(keys::root(7, 0), &prompt.tokens, BLOCK, |_| 0, &mut chain);
                index.match_into(&chain, &all, &mut out, &mut scratch);
            });
        });
        assert_eq!(out[0] as usize, blocks);
    }
}

criterion_group!(benches, apply, lookup);
criterion_main!(benches);
