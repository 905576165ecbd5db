//! The segment cache against the obvious one: a record a block, one list.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use routecore_replay::kv::Kv;

/// Blocks as (segment, number) in the order they were freed; held ones with their counts.
#[derive(Default)]
struct Naive {
    total: usize,
    free: Vec<(u32, u32)>,
    held: std::collections::HashMap<(u32, u32), u32>,
}

impl Naive {
    fn has(&self, block: (u32, u32)) -> bool {
        self.held.contains_key(&block) || self.free.contains(&block)
    }

    fn hold(&mut self, segment: u32, blocks: u32) {
        for block in (0..blocks).map(|at| (segment, at)) {
            self.free.retain(|&other| other != block);
            *self.held.entry(block).or_default() += 1;
        }
        while self.held.len() + self.free.len() > self.total {
            self.free.remove(0);
        }
    }

    fn leave(&mut self, segment: u32, blocks: u32) {
        for block in (0..blocks).rev().map(|at| (segment, at)) {
            let count = self.held.get_mut(&block).unwrap();
            *count -= 1;
            if *count == 0 {
                self.held.remove(&block);
                self.free.push(block);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_segment_cache_is_the_block_cache(
        ops in prop::collection::vec((0_u32..6, 1_u32..6, prop::bool::ANY, 0_usize..8), 1..200),
        total in 8_u32..24,
    ) {
        let mut ours = Kv::new(total);
        let mut naive = Naive { total: total as usize, ..Naive::default() };
        let mut holders: Vec<(u32, u32, u32)> = Vec::new();
        for (segment, blocks, enters, which) in ops {
            if enters {
                let (_, held) = ours.look(u64::from(segment));
                if blocks.saturating_sub(held) > ours.available() {
                    continue;
                }
                let node = ours.enter(u64::from(segment));
                let missing = ours.hold(node, blocks);
                ours.take(missing);
                naive.hold(segment, blocks);
                holders.push((segment, blocks, node));
            } else if !holders.is_empty() {
                let (segment, blocks, node) = holders.remove(which % holders.len());
                let others = holders.iter().filter(|h| h.0 == segment).map(|h| h.1).max();
                ours.leave(node, || others.unwrap_or(0));
                naive.leave(segment, blocks);
            }
            prop_assert_eq!(ours.active() as usize, naive.held.len());
            for segment in 0..6 {
                let present = (0..8).take_while(|&at| naive.has((segment, at))).count() as u32;
                let held = (0..8).take_while(|&at| naive.held.contains_key(&(segment, at))).count();
                prop_assert_eq!(ours.look(u64::from(segment)), (present, held as u32));
            }
        }
    }
}
