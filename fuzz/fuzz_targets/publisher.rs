//! Publishers' lives: messages, losses, replays, restarts. An endpoint that leaves leaves nothing.
#![no_main]

use std::sync::RwLock;

use libfuzzer_sys::fuzz_target;
use routecore::exact::{ExactIndex, Feed, Scratch};
use routecore_fuzz::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let index = RwLock::new(ExactIndex::new(7));
    let mut feed = Feed::new(2_000);
    let mut seq = 0_u64;
    while !input.is_over() {
        let (id, rank) = (u64::from(input.below(2)), u32::from(input.below(2)));
        let turn = input.byte();
        let (publisher, work) = feed.publisher(id, rank, &index);
        match turn % 8 {
            0..=3 => {
                seq = seq.wrapping_add([1, 1, 1, 5][usize::from(turn >> 6)]);
                let at = if turn & 16 == 0 { seq } else { input.number() };
                publisher.live(at, input.part(), turn & 32 == 0, work, &index);
            }
            4 => drop(publisher.replayed(input.number() % 64, input.part(), work, &index)),
            5 => drop(publisher.replay_end(turn & 16 == 0, work, &index)),
            6 => publisher.disconnected(turn & 16 == 0, work, &index),
            _ => {
                feed.drop_endpoint(id, &index);
            }
        }
        let (mut out, mut scratch) = ([0; 2], Scratch::default());
        if let Ok(index) = index.read() {
            let rows: Vec<u32> = (0..2).filter_map(|id| index.row(id)).collect();
            index.match_into(&[1, 2, 3], &rows, &mut out[..rows.len()], &mut scratch);
        }
    }
    for id in 0..2 {
        feed.drop_endpoint(id, &index);
    }
    assert_eq!(index.read().map(|index| index.blocks()).ok(), Some(0));
});
