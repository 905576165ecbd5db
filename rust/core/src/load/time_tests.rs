//! Timestamps that are wrong, and clocks that are set while requests run.

use proptest::prelude::*;

use super::*;
use crate::stats::{Stat, StatTable};

const HOUR: f64 = 3_600.0;

fn rows(lease: f64) -> (Load, StatTable) {
    (Load::new(60.0, lease), StatTable::scratch(2))
}

fn in_flight(table: &StatTable) -> f64 {
    table.column(Stat::InFlight).iter().sum()
}

/// 20 requests in flight, sent within a second from `start`.
fn with_twenty(lease: f64, start: f64) -> (Load, StatTable) {
    let (mut load, mut table) = rows(lease);
    for i in 0..20_u8 {
        load.sent(&mut table, u32::from(i % 2), u128::from(i), start + f64::from(i) / 20.0);
    }
    (load, table)
}

#[test]
fn one_timestamp_in_milliseconds_or_an_hour_off_ends_nothing_and_holds_up_nothing() {
    let start = 1.7e9;
    for wrong in [start * 1e3, start * 1e9, start + HOUR, start - HOUR, 0.0, f64::NAN, -1e300] {
        let (mut load, mut table) = with_twenty(60.0, start);
        load.sent(&mut table, 0, 99, wrong);
        load.advance(&mut table, start + 1.5);
        assert_eq!((load.in_flight(), load.leases_expired()), (21, 0), "{wrong}");
        // Requests that never end: one a second, each for its lease.
        for second in 2..500_u16 {
            let now = start + f64::from(second);
            load.sent(&mut table, 0, 1_000 + u128::from(second), now);
            load.chosen(&mut table, 1, Work::default());
            load.advance(&mut table, now);
            assert!(load.in_flight() <= 61 + 21, "{wrong}: {second}");
        }
        assert!(load.in_flight() <= 62, "{wrong}: {}", load.in_flight());
        assert!(in_flight(&table) <= 65.0, "{wrong}: {}", in_flight(&table));
    }
}

#[test]
fn one_reading_that_is_an_hour_ahead_ends_nothing() {
    let (mut load, mut table) = with_twenty(600.0, 1_000.0);
    load.advance(&mut table, 1_000.0 + HOUR);
    load.advance(&mut table, 1_002.0);
    assert_eq!((load.in_flight(), load.leases_expired(), in_flight(&table)), (20, 0, 20.0));
    for second in 0..3_000_u16 {
        load.chosen(&mut table, 0, Work::default());
        load.advance(&mut table, 1_003.0 + f64::from(second) / 10.0);
    }
    assert!(in_flight(&table) <= 20.0 + 11.0);
    for i in 0..20 {
        let seen = load.end(&mut table, i % 2, u128::from(i), 1_310.0, true);
        assert!(seen.is_some_and(|seen| seen.decode_ms == 0.0)); // no word of its first token
    }
    assert_eq!((load.in_flight(), load.stats(0, 1_310.0).map(|s| s.finished)), (0, Some(10)));
}

#[test]
fn a_clock_that_is_set_runs_on_whichever_way_it_went() {
    for set in [HOUR, -HOUR, 30.0, -30.0] {
        let (mut load, mut table) = with_twenty(600.0, 10_000.0);
        let now = |seconds: f64| 10_001.0 + set + seconds;
        load.advance(&mut table, now(0.0));
        for i in 0..10 {
            load.first_token(&mut table, i % 2, u128::from(i), now(1.0));
        }
        assert_eq!((load.in_flight(), in_flight(&table)), (20, 20.0), "{set}");
        for i in 0..10 {
            load.end(&mut table, i % 2, u128::from(i), now(2.0), true);
        }
        let stats = load.stats(0, now(2.0)).map(|stats| stats.avg_latency.unwrap_or(0.0));
        let most = 3.0 + set.clamp(0.0, 30.0);
        assert!(stats.is_some_and(|latency| (0.0..=most).contains(&latency)), "{set}: {stats:?}");
        load.chosen(&mut table, 0, Work::default());
        load.advance(&mut table, now(10.0));
        assert_eq!((load.in_flight(), in_flight(&table)), (10, 10.0), "{set}");
        load.advance(&mut table, now(700.0));
        assert_eq!((load.in_flight(), in_flight(&table)), (0, 0.0), "{set}");
    }
}

#[test]
fn figures_of_others_outlive_a_wrong_timestamp() {
    let (mut load, mut table) = rows(600.0);
    for i in 0..10_u8 {
        let time = 100.0 + f64::from(i);
        load.sent(&mut table, 0, u128::from(i), time);
        load.first_token(&mut table, 0, u128::from(i), time + 0.25);
        load.end(&mut table, 0, u128::from(i), time + 0.5, true);
    }
    let before = load.stats(0, 110.0);
    load.sent(&mut table, 0, 99, 110.0 + HOUR);
    load.first_token(&mut table, 0, 99, 110.5);
    load.end(&mut table, 0, 99, 110.75, true);
    load.advance(&mut table, 110.0);
    let after = load.stats(0, 110.75);
    assert_eq!(before.map(|s| s.finished), after.map(|s| s.finished - 1));
    assert!(after.is_some_and(|s| s.ttft <= Some(0.3) && s.avg_latency <= Some(0.6)), "{after:?}");
    load.advance(&mut table, 175.0);
    assert_eq!(load.stats(0, 175.0).map(|stats| stats.qps), Some(0.0));
}

#[test]
fn requests_of_before_any_time_was_known_are_not_for_ever() {
    for first in [-3_523.3, 0.0, 1.7e9] {
        let (mut load, mut table) = rows(50.0);
        load.sent(&mut table, 0, 0, f64::NAN);
        load.reserve(&mut table, 1, 1, f64::NAN);
        load.chosen(&mut table, 1, Work::default());
        load.sent(&mut table, 0, 3, first);
        load.first_token(&mut table, 0, 3, first + 1.0);
        assert_eq!(load.in_flight(), 3, "{first}");
        for second in 0..60_u8 {
            load.advance(&mut table, first + f64::from(second));
        }
        assert_eq!((load.in_flight(), in_flight(&table)), (0, 0.0), "{first}");
    }
}

/// What a host may pass as a time.
fn timestamp() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => 0.0..20.0,
        1 => -4_000.0..4_000.0,
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => prop_oneof![Just(1e300), Just(-1e300), Just(1.7e12), Just(1.7e18), Just(0.0)],
    ]
}

proptest! {
    #[test]
    fn whatever_the_timestamps_counts_are_right_and_nothing_stays(
        steps in prop::collection::vec((0..7_u8, 0..2_u32, 0..6_u128, timestamp()), 0..200),
    ) {
        let (mut load, mut table) = rows(50.0);
        let mut now: f64 = 1_000.0;
        for (kind, row, request, time) in steps {
            // Mostly a clock that goes on; sometimes anything.
            let reported = if (0.0..20.0).contains(&time) { now += time / 20.0; now } else { time };
            match kind {
                0 => load.sent(&mut table, row, request, reported),
                1 => load.reserve(&mut table, row, request, reported),
                2 => drop(load.first_token(&mut table, row, request, reported)),
                3 => drop(load.end(&mut table, row, request, reported, true)),
                4 => drop(load.end(&mut table, row, request, reported, false)),
                5 => load.chosen(&mut table, row, Work::default()),
                _ => load.advance(&mut table, reported),
            }
            let listed: usize = load.flights.values().map(Vec::len).sum();
            prop_assert_eq!(load.in_flight(), listed);
            let counts = in_flight(&table);
            let waiting = counts - listed as f64;
            prop_assert!((0.0..=load.pending.len() as f64).contains(&waiting));
        }
        for _ in 0..300 {
            now += 0.9;
            load.advance(&mut table, now);
        }
        prop_assert_eq!((load.in_flight(), in_flight(&table)), (0, 0.0));
        prop_assert!(load.leases.is_empty() && load.pending.is_empty());
    }
}
