//! What holds for every strategy, over random fleets: the choice is a candidate, the same seed
//! chooses the same, and `explain` tells the next choice without changing it.

use proptest::prelude::*;
use routecore::hash::{PrefixHasher, endpoint_id};
use routecore::load::Load;
use routecore::strategy::Strategy;
use routecore::{Candidates, Key, Params, Router, Stat, StatTable, View};

fn router(name: &str, seed: u64) -> Router {
    let mut params = Params::default();
    if name == "weighted_score" {
        params.weights = [("qps".to_owned(), 1.0), ("in_flight".to_owned(), 2.0)].into();
    }
    Router::new(name, params, seed).expect("a registered strategy builds")
}

proptest! {
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
                    let (told, scores) = one.explain(view, &key);
                    let chosen = one.pick(view, &key);
                    prop_assert_eq!(told, chosen);
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
