//! Messages of noise and of mutated real ones: no panic, nothing past the input, no retention harm.
//!
//! `ROUTECORE_FUZZ_ROUNDS` makes the run longer; each round is one message.

mod messages;

use std::sync::RwLock;

use routecore::exact::decode::decode;
use routecore::exact::event::{Batch, Event};
use routecore::exact::{ExactIndex, Feed, Scratch, keys};
use routecore::rng::Rng;

/// One real message of each kind, in both encodings.
fn corpus() -> Vec<Vec<u8>> {
    let tokens: Vec<u32> = (0..32).map(|i| i * 4001).collect();
    let stored = messages::stored(&[1 << 63, 2], Some(7), &tokens, 16, "GPU");
    let mut array = vec![0x98]; // the older encoding, by hand
    messages::text(&mut array, "BlockStored");
    messages::uints(&mut array, [9, 1 << 40].into_iter());
    array.push(0xC0);
    messages::uints(&mut array, tokens.iter().map(|&token| u64::from(token)));
    array.extend([16, 0xC0]);
    messages::text(&mut array, "CPU");
    messages::text(&mut array, "adapter");
    let mut outer = vec![0x82];
    messages::text(&mut outer, "ts");
    outer.push(1);
    messages::text(&mut outer, "events");
    outer.push(0x91);
    outer.extend(messages::removed(&[3, 4], "GPU"));
    vec![
        messages::message(&[stored.clone(), messages::removed(&[2], "GPU"), messages::cleared()]),
        messages::message(&[array, stored]),
        messages::message(&[]),
        outer,
    ]
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.bits() as u8),
            2 if at < bytes.len() => _ = bytes.remove(at),
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            // Heads are where the structure is.
            4 if at < bytes.len() => bytes[at] = 0xC0 | rng.bits() as u8,
            5 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1),
            6 => {
                let other = &corpus[rng.below(corpus.len())];
                let from = rng.below(other.len());
                let part = &other[from..from + rng.below(other.len() - from)];
                bytes.splice(at..at, part.iter().copied());
            }
            _ => {
                let noise: Vec<u8> = (0..rng.below(9)).map(|_| rng.bits() as u8).collect();
                bytes.splice(at..at, noise);
            }
        }
    }
}

fn spans_lie_inside(batch: &Batch, len: usize) {
    assert!(batch.tokens.len() + batch.hashes.len() + batch.extras.len() <= 3 * len);
    assert!(batch.events.len() as u64 + batch.malformed + batch.unknown_types <= len as u64);
    for event in &batch.events {
        if let Event::Stored(stored) = event {
            assert!(batch.tokens.get(stored.tokens.clone()).is_some());
            assert!(batch.hashes.get(stored.hashes.clone()).is_some());
            assert!(batch.extras.get(stored.extras.clone()).is_some());
        }
    }
}

#[test]
fn no_message_does_harm() {
    let rounds = std::env::var("ROUTECORE_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    let seed = std::env::var("ROUTECORE_FUZZ_SEED").ok().and_then(|n| n.parse().ok());
    let (mut rng, corpus) = (Rng::new(seed.unwrap_or(1)), corpus());
    let index = RwLock::new(ExactIndex::new(7));
    let mut feed = Feed::new(10_000);
    let (mut batch, mut scratch, mut out) = (Batch::default(), Scratch::default(), [0]);
    let tokens: Vec<u32> = (0..16).collect();
    let good =
        messages::message(&[messages::cleared(), messages::stored(&[5], None, &tokens, 16, "GPU")]);
    let mut key = Vec::new();
    keys::chain(keys::root(7, 0), &tokens, 16, |_| 0, &mut key);
    let mut seq = 0;
    let mut read = 0_u64;
    for round in 0..rounds.unwrap_or(100_000_u64) {
        let mut bytes = corpus[rng.below(corpus.len())].clone();
        mutate(&mut rng, &mut bytes, &corpus);
        if decode(&bytes, &mut batch).is_ok() {
            read += 1;
            spans_lie_inside(&batch, bytes.len());
        }
        let (publisher, work) = feed.publisher(1, rng.below(3) as u32, &index);
        let jump = [1, 1, 1, 1, 1, 0, 5][rng.below(7)];
        seq = if rng.below(1000) == 0 { 0 } else { seq + jump };
        let can_replay = rng.below(2) == 0;
        if publisher.live(seq, &bytes, can_replay, work, &index).is_some() {
            publisher.replayed(rng.below(9) as u64, &bytes, work, &index);
            publisher.replay_end(rng.below(2) == 0, work, &index);
        }
        if round % 1000 == 0 {
            assert!(feed.drop_endpoint(1, &index));
            assert_eq!(index.read().unwrap().blocks(), 0);
            let (publisher, work) = feed.publisher(1, 0, &index);
            publisher.live(0, &good, false, work, &index);
            let index = index.read().unwrap();
            index.match_into(&key, &[index.row(1).unwrap()], &mut out, &mut scratch);
            assert_eq!(out, [1]);
        }
    }
    assert!(read * 10 > rounds.unwrap_or(100_000), "mutations too coarse: {read} could be read");
}
