//! What holds for every strategy, over random fleets: the choice is a candidate, the same seed
//! chooses the same, and `explain` tells the next choice without changing it.

use proptest::prelude::*;
use routecore::hash::{PrefixHasher, endpoint_id};
use routecore::load::Load;
use routecore::prompt::{BlockHasher, Unit};
use routecore::speed::Profile;
use routecore::strategy::Strategy;
use routecore::{Asked, Candidates, Key, Params, Router, Stat, StatTable, View};

fn router(name: &str, seed: u64) -> Router {
    let mut params = Params::default();
    if name == "weighted_score" {
        params.weights = [("qps".to_owned(), 1.0), ("in_flight".to_owned(), 2.0)].into();
    }
    Router::new(name, params, seed).expect("a registered strategy builds")
}

/// A prompt of one block, and of the same blocks as others of its length.
fn prompt(blocks: u16) -> Key {
    let mut hasher = BlockHasher::new(16, Unit::Tokens, 1);
    hasher.feed(&vec![0; 64 * usize::from(blocks % 90)]);
    Key::Prompt(hasher.finish())
}

/// A column's value, an engine's constant, or a prompt's cached tokens: good and bad.
fn figure() -> impl proptest::strategy::Strategy<Value = f64> {
    prop_oneof![
        6 => 0.0..2_000.0,
        1 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(1e300),
    ]
}

proptest! {
    #[test]
    fn prompts_go_to_candidates_whatever_is_known_of_them(
        rows in prop::collection::vec(prop::collection::vec(figure(), Stat::ALL.len() + 2), 1..20),
        prompts in prop::collection::vec(any::<u16>(), 1..8),
        tokens in figure(),
        (rate, reuse, sequences) in (figure(), figure(), figure()),
        known: bool,
        seed: u64,
    ) {
        let n = rows.len();
        let mut table = StatTable::scratch(n);
        for (row, values) in rows.iter().enumerate() {
            for (&stat, &value) in Stat::ALL.iter().zip(values) {
                table.set(stat, row as u32, value);
            }
        }
        let column = |at: usize| rows.iter().map(|row| row[at]).collect::<Vec<_>>();
        let (cached, in_use) = (column(Stat::ALL.len()), column(Stat::ALL.len() + 1));
        let (cached, in_use): (&[f64], &[f64]) =
            if known { (&cached, &in_use) } else { (&[], &[]) };
        // A third of the endpoints is no candidate.
        let rows: Vec<u32> = (0..n as u32).filter(|row| n < 3 || row % 3 > 0).collect();
        let of_rows = |all: &[f64]| -> Vec<f64> {
            rows.iter().filter_map(|&row| all.get(row as usize).copied()).collect()
        };
        let (cached, in_use) = (of_rows(cached), of_rows(in_use));
        let ids = rows.iter().map(|&row| u64::from(row)).collect();
        let order = (0..rows.len() as u32).collect();
        let candidates = Candidates::new(rows.clone(), ids, Vec::new(), order);
        let asked = Asked { tokens, block_tokens: 16.0, cached: &cached, in_use: &in_use };
        let rates = Profile { prefill_rate: rate, request_rate: rate, ..Profile::default() };
        let engine = Profile { reuse, sequences, ..rates };
        let view = View::new(&table, &candidates).asking(asked, engine);
        for &name in Strategy::NAMES {
            let (mut one, mut two) = (router(name, seed), router(name, seed));
            for &blocks in &prompts {
                for key in [Key::None, prompt(blocks)] {
                    let (explained, scores) = one.explain(view, &key);
                    let chosen = one.pick(view, &key);
                    prop_assert_eq!(explained, chosen, "{}", name);
                    prop_assert_eq!(two.pick(view, &key), chosen, "{}", name);
                    prop_assert_eq!(scores.len(), rows.len());
                    prop_assert!(chosen.is_some_and(|at| at < rows.len()), "{}", name);
                }
            }
        }
    }

    #[test]
    fn an_endpoint_of_which_a_figure_is_unknown_is_no_better_than_a_known_idle_one(
        seed: u64,
        unknown in prop::sample::subsequence(Stat::ALL.to_vec(), 1..Stat::ALL.len()),
    ) {
        // Row 0 is idle and all of it is known; row 1 holds nothing, is busier, and unknown in part.
        let mut table = StatTable::scratch(2);
        for &stat in Stat::ALL {
            table.set(stat, 0, 1.0);
            table.set(stat, 1, if unknown.contains(&stat) { f64::NAN } else { 9.0 });
        }
        for stat in [Stat::KvCapacity, Stat::HitRate] {
            table.set(stat, 0, 1e6);
        }
        table.set(Stat::KvUsage, 0, 0.0);
        let candidates = Candidates::new(vec![0, 1], vec![0, 1], Vec::new(), vec![0, 1]);
        let (cached, in_use) = ([640.0, 0.0], [640.0, 0.0]);
        let asked =
            Asked { tokens: 800.0, block_tokens: 16.0, cached: &cached, in_use: &in_use };
        let view = View::new(&table, &candidates).asking(asked, Profile::default());
        for &name in Strategy::NAMES {
            let mut router = router(name, seed);
            if !router.needs_prompt() {
                continue;
            }
            prop_assert_eq!(router.pick(view, &prompt(50)), Some(0), "{}", name);
        }
    }

    #[test]
    fn choices_are_candidates_and_repeatable(
        values in prop::collection::vec(prop_oneof![Just(f64::NAN), 0.0..9.0], 0..40),
        picks in prop::collection::vec(any::<u16>(), 1..20),
        seed: u64,
    ) {
        let n = values.len();
        let mut table = StatTable::scratch(n + 3);
        for (row, &value) in values.iter().enumerate() {
            table.set(Stat::InFlight, row as u32 + 3, value);
            table.set(Stat::Qps, row as u32 + 3, value);
        }
        let rows: Vec<u32> = (3..n as u32 + 3).rev().collect();
        let ids = rows.iter().map(|row| endpoint_id(&row.to_le_bytes())).collect();
        let candidates = Candidates::new(rows, ids, Vec::new(), (0..n as u32).collect());
        let view = View::new(&table, &candidates);
        for &name in Strategy::NAMES {
            let (mut one, mut two) = (router(name, seed), router(name, seed));
            for pick in &picks {
                let mut hasher = PrefixHasher::new(1, 0);
                hasher.feed(&pick.to_le_bytes());
                for key in [Key::None, Key::Session(u64::from(*pick)), Key::Prefix(hasher.finish())] {
                    let (explained, scores) = one.explain(view, &key);
                    let chosen = one.pick(view, &key);
                    prop_assert_eq!(explained, chosen);
                    prop_assert_eq!(two.pick(view, &key), chosen);
                    prop_assert_eq!(scores.len(), n);
                    prop_assert_eq!(chosen.is_some_and(|at| at < n), n > 0);
                }
            }
        }
    }

    #[test]
    fn loads_equal_what_is_open_and_never_go_negative(
        events in prop::collection::vec((0..4_u8, 0..3_u32, 0..6_u128, 0.0..5.0), 0..200),
    ) {
        let (mut load, mut table) = (Load::new(10.0, 20.0), StatTable::scratch(3));
        let mut now = 0.0;
        for (kind, row, request, wait) in events {
            now += wait;
            match kind {
                0 => load.sent(&mut table, row, request, now),
                1 => drop(load.first_token(&mut table, row, request, now)),
                2 => drop(load.end(&mut table, row, request, now, true)),
                _ => drop(load.end(&mut table, row, request, now, false)),
            }
            let column = table.column(Stat::InFlight);
            prop_assert!(column.iter().all(|&v| v >= 0.0));
            prop_assert_eq!(column.iter().sum::<f64>(), load.in_flight() as f64);
        }
        load.advance(&mut table, now + 100.0);
        prop_assert_eq!(load.in_flight(), 0);
        prop_assert_eq!(table.column(Stat::InFlight), &[0.0; 3]);
    }
}
