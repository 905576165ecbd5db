//! The prefix index against its naive twin, over random lives of requests.

mod naive;

use naive::NaiveIndex;
use proptest::prelude::*;
use routecore::hash::mix;
use routecore::index::{Depths, Pin, PrefixIndex};

const ROWS: u32 = 4;

/// What can happen to an index.
#[derive(Debug, Clone)]
enum Step {
    Pin { row: u32, prompt: Vec<u8> },
    Confirm(usize),
    Release(usize),
    Capacity { row: u32, blocks: u32 },
    Drop { row: u32 },
}

/// Prompts over two letters, so that most share something.
fn step() -> impl Strategy<Value = Step> {
    let row = 0..ROWS;
    let prompt = prop::collection::vec(0_u8..2, 0..9);
    prop_oneof![
        6 => (row.clone(), prompt).prop_map(|(row, prompt)| Step::Pin { row, prompt }),
        3 => any::<usize>().prop_map(Step::Confirm),
        4 => any::<usize>().prop_map(Step::Release),
        1 => (row.clone(), 0_u32..24).prop_map(|(row, blocks)| Step::Capacity { row, blocks }),
        1 => row.prop_map(|row| Step::Drop { row }),
    ]
}

fn chain(prompt: &[u8]) -> Vec<u64> {
    let link = |last: &mut u64, letter: &u8| {
        *last = mix(*last ^ u64::from(*letter) ^ 0x51ED);
        Some(*last)
    };
    prompt.iter().scan(7, link).collect()
}

/// A request in flight: its row, what it pinned, and the pin.
type Flight = (u32, Vec<u64>, Option<Pin>);

fn apply(step: Step, index: &mut PrefixIndex, naive: &mut NaiveIndex, flights: &mut Vec<Flight>) {
    let some = |n: usize, flights: &[Flight]| (!flights.is_empty()).then(|| n % flights.len());
    match step {
        Step::Pin { row, prompt } => {
            let chain = chain(&prompt);
            let pin = index.pin(row, &chain);
            let pinned = naive.pin(row, &chain);
            assert_eq!(pin.is_some(), pinned > 0);
            flights.push((row, chain[..pinned].to_vec(), pin));
        }
        Step::Confirm(n) => {
            let Some((row, chain, pin)) = some(n, flights).map(|n| &flights[n]) else { return };
            if let Some(pin) = *pin {
                index.confirm(*row, pin);
            }
            naive.confirm(*row, chain);
        }
        Step::Release(n) => {
            let Some((row, chain, pin)) = some(n, flights).map(|n| flights.swap_remove(n)) else {
                return;
            };
            if let Some(pin) = pin {
                index.release(row, pin);
            }
            naive.release(row, &chain);
        }
        Step::Capacity { row, blocks } => {
            index.set_capacity(row, blocks);
            naive.set_capacity(row, blocks as usize);
        }
        Step::Drop { row } => {
            index.drop_row(row);
            naive.drop_row(row);
            flights.retain(|flight| flight.0 != row);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    #[test]
    fn the_index_agrees_with_its_naive_twin(steps in prop::collection::vec(step(), 1..60)) {
        let (mut index, mut naive) = (PrefixIndex::new(12), NaiveIndex::new(12));
        let mut flights = Vec::new();
        let mut found = Depths::default();
        let probes: Vec<Vec<u64>> =
            [0_u8, 0x55, 0xFF, 0x0F, 0x93].iter()
                .map(|bits| chain(&(0..8).map(|i| bits >> i & 1).collect::<Vec<_>>()))
                .collect();
        for step in steps {
            apply(step, &mut index, &mut naive, &mut flights);
            for row in 0..ROWS {
                prop_assert_eq!(index.held(row) as usize, naive.held(row));
                prop_assert_eq!(index.pinned(row) as usize, naive.pinned(row));
            }
            for probe in &probes {
                index.match_into(probe, &mut found);
                for row in 0..ROWS {
                    prop_assert_eq!(found.of(row) as usize, naive.depth(row, probe));
                    prop_assert_eq!(found.in_use(row) as usize, naive.in_use(row, probe));
                }
            }
        }
        for row in 0..ROWS {
            index.drop_row(row);
        }
        prop_assert_eq!(index.runs(), 0);
    }
}

#[test]
fn many_rows_share_a_prefix_and_leave_it_one_by_one() {
    let mut index = PrefixIndex::new(100);
    let prompt = chain(&[0, 1, 0, 1, 1, 1, 0, 0]);
    for row in 0..200 {
        let depth = 1 + row as usize % 8;
        let pin = index.pin(row, &prompt[..depth]);
        if let Some(pin) = pin {
            index.confirm(row, pin);
        }
    }
    let mut found = Depths::default();
    index.match_into(&prompt, &mut found);
    assert!((0..200).all(|row| found.of(row) == 1 + row % 8));
    for row in (0..200).step_by(2) {
        index.drop_row(row);
    }
    index.match_into(&prompt, &mut found);
    assert!((0..200).all(|row| found.of(row) == if row % 2 == 0 { 0 } else { 1 + row % 8 }));
}

#[test]
fn what_was_never_confirmed_goes_with_its_request() {
    let mut index = PrefixIndex::new(100);
    let prompt = chain(&[0, 1, 0, 1]);
    let mut found = Depths::default();
    let (first, second) = (index.pin(0, &prompt), index.pin(0, &prompt));
    index.release(0, first.unwrap());
    index.match_into(&prompt, &mut found);
    assert_eq!(found.of(0), 4, "the second request still stands for it");
    index.release(0, second.unwrap());
    index.match_into(&prompt, &mut found);
    assert_eq!((found.of(0), index.held(0)), (0, 0), "no phantom hit stays");
}

#[test]
fn a_request_that_is_refused_has_evicted_nothing() {
    let mut index = PrefixIndex::new(8);
    let (kept, refused) = (chain(&[0, 1, 0, 1, 1]), chain(&[1; 9]));
    let mut found = Depths::default();
    let pin = index.pin(0, &kept).unwrap();
    index.confirm(0, pin);
    index.release(0, pin);
    let waits = index.pin(0, &refused).unwrap();
    index.match_into(&kept, &mut found);
    assert_eq!((found.of(0), index.held(0), index.pinned(0)), (5, 13, 8), "and it is bounded");
    assert!(index.pin(0, &chain(&[1, 0])).is_some_and(|second| second != waits));
    index.release(0, waits);
    index.match_into(&kept, &mut found);
    assert_eq!(found.of(0), 5);
    let served = index.pin(0, &refused[..6]).unwrap();
    index.confirm(0, served);
    index.match_into(&kept, &mut found);
    assert!(found.of(0) < 5 && index.held(0) <= 8 + 1);
}
