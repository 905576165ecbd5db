//! The life of requests, event by event.

use super::*;
use crate::stats::{Stat, StatTable};

fn two_rows() -> (Load, StatTable) {
    (Load::new(60.0, 600.0), StatTable::scratch(2))
}

fn loads(table: &StatTable) -> Vec<f64> {
    table.column(Stat::InFlight).to_vec()
}

#[test]
fn a_request_counts_from_choice_to_end_once() {
    let (mut load, mut table) = two_rows();
    load.chosen(&mut table, 0, Work::default());
    assert_eq!(loads(&table), [1.0, 0.0]);
    load.sent(&mut table, 0, 7, 1.0);
    load.first_token(&mut table, 0, 7, 2.0);
    assert_eq!(loads(&table), [1.0, 0.0]);
    load.end(&mut table, 0, 7, 3.0, true);
    load.end(&mut table, 0, 7, 3.0, true);
    assert_eq!(loads(&table), [0.0, 0.0]);
    let stats = load.stats(0, 3.0).map(|s| (s.ttft, s.avg_latency, s.finished));
    assert_eq!(stats, Some((Some(1.0), Some(2.0), 1)));
}

#[test]
fn a_failover_takes_the_first_attempt_off_the_load() {
    let (mut load, mut table) = two_rows();
    load.sent(&mut table, 0, 7, 1.0);
    load.sent(&mut table, 1, 7, 1.5);
    assert_eq!(loads(&table), [0.0, 1.0]);
    load.first_token(&mut table, 1, 7, 2.0);
    load.sent(&mut table, 0, 7, 2.5); // a namesake, not a failover
    assert_eq!(loads(&table), [1.0, 1.0]);
}

#[test]
fn a_report_from_elsewhere_adds_to_the_load_until_the_next() {
    let (mut load, mut table) = two_rows();
    load.sent(&mut table, 0, 7, 1.0);
    load.elsewhere(&mut table, 0, 3);
    load.elsewhere(&mut table, 9, 3); // no such row
    assert_eq!(loads(&table), [4.0, 0.0]);
    load.elsewhere(&mut table, 0, 0);
    load.end(&mut table, 0, 7, 2.0, true);
    assert_eq!((loads(&table), load.in_flight()), (vec![0.0, 0.0], 0));
}

#[test]
fn leases_and_unreported_choices_run_out() {
    let (mut load, mut table) = two_rows();
    load.sent(&mut table, 0, 7, 0.0);
    load.chosen(&mut table, 1, Work::default());
    load.advance(&mut table, 2.0);
    assert_eq!(loads(&table), [1.0, 0.0]);
    load.advance(&mut table, 601.0);
    assert_eq!((loads(&table), load.leases_expired()), (vec![0.0, 0.0], 1));
    load.end(&mut table, 0, 7, 602.0, true);
    assert_eq!(load.in_flight(), 0);
}

#[test]
fn a_time_that_is_no_number_holds_up_no_lease() {
    let (mut load, mut table) = two_rows();
    load.sent(&mut table, 0, 7, f64::NAN);
    load.sent(&mut table, 1, 8, 1.0);
    load.advance(&mut table, 700.0);
    assert_eq!((loads(&table), load.leases_expired()), (vec![0.0, 0.0], 2));
}

/// 1,000 tokens that take 0.4 s.
fn work() -> Work {
    Work { prompt_tokens: 1000, uncached_tokens: 1000, prefill_us: 400_000, ..Work::default() }
}

fn send(load: &mut Load, table: &mut StatTable, request: u128, time: f64) {
    load.advance(table, time);
    load.chosen(table, 0, work());
    load.sent(table, 0, request, time);
}

#[test]
fn without_first_tokens_a_request_is_queued_for_its_expected_prefill_only() {
    let (mut load, mut table) = two_rows();
    send(&mut load, &mut table, 1, 1.0);
    load.advance(&mut table, 9.0);
    assert_eq!(table.get(Stat::QueuedMs, 0), 400.0); // one might yet be reported
    load.end(&mut table, 0, 1, 10.0, true);
    send(&mut load, &mut table, 2, 20.0);
    send(&mut load, &mut table, 3, 20.0);
    load.advance(&mut table, 20.5);
    assert_eq!(table.get(Stat::QueuedMs, 0), 400.0); // the second prefills behind the first
    assert_eq!([Stat::InPrefill, Stat::InDecoding].map(|s| table.get(s, 0)), [1.0, 1.0]);
    load.advance(&mut table, 20.9);
    assert_eq!([Stat::QueuedMs, Stat::QueuedTokens].map(|s| table.get(s, 0)), [0.0, 0.0]);
    let seen = load.end(&mut table, 0, 2, 30.0, true).unwrap();
    let whole = seen.whole.map(|whole| whole.waited_ms); // no word of the guess
    assert_eq!((seen.decode_ms, whole), (0.0, Some(10_000.0)));
    load.end(&mut table, 0, 3, 30.0, true);
    let figures = [Stat::InFlight, Stat::ContextTokens, Stat::QueuedMs, Stat::InDecoding];
    assert_eq!(figures.map(|s| table.get(s, 0)), [0.0; 4]);
}

#[test]
fn a_first_token_reported_at_the_end_is_learned_from_and_counts_once() {
    let (mut load, mut table) = two_rows();
    send(&mut load, &mut table, 1, 1.0);
    load.advance(&mut table, 10.0);
    load.first_token(&mut table, 0, 1, 1.5);
    load.end(&mut table, 0, 1, 10.0, true);
    send(&mut load, &mut table, 2, 20.0);
    load.advance(&mut table, 29.0);
    assert_eq!(table.get(Stat::QueuedMs, 0), 0.0);
    let seen = load.first_token(&mut table, 0, 2, 20.6);
    assert_eq!(seen.map(|s| (s.waited_ms.round(), s.batch)), Some((600.0, 0.0)));
    load.end(&mut table, 0, 2, 29.0, true);
    let figures = [Stat::InFlight, Stat::InDecoding, Stat::QueuedMs];
    assert_eq!(figures.map(|s| table.get(s, 0)), [0.0; 3]);
}

#[test]
fn where_first_tokens_are_reported_a_late_one_stays_queued() {
    let (mut load, mut table) = two_rows();
    send(&mut load, &mut table, 1, 1.0);
    load.end(&mut table, 0, 1, 2.0, true); // one that was not
    send(&mut load, &mut table, 2, 20.0);
    load.first_token(&mut table, 0, 2, 20.2);
    send(&mut load, &mut table, 3, 21.0);
    load.advance(&mut table, 29.0);
    assert_eq!(table.get(Stat::QueuedMs, 0), 400.0);
}

#[test]
fn a_failover_after_the_expected_prefill_leaves_the_first_row() {
    let (mut load, mut table) = two_rows();
    send(&mut load, &mut table, 1, 1.0);
    load.end(&mut table, 0, 1, 2.0, true);
    send(&mut load, &mut table, 2, 20.0);
    load.advance(&mut table, 22.0);
    load.sent(&mut table, 1, 2, 23.0);
    assert_eq!(loads(&table), [0.0, 1.0]);
}

#[test]
fn what_is_due_stays_bounded() {
    let (mut load, mut table) = two_rows();
    load.sent(&mut table, 0, 0, 1.0);
    load.end(&mut table, 0, 0, 1.0, true);
    for i in 1..20_000_u128 {
        send(&mut load, &mut table, i, 1.0);
        load.end(&mut table, 0, i, 1.0, true);
    }
    assert!(load.due.len() <= 1_100);
}

#[test]
fn what_is_due_beyond_the_last_microsecond_is_due_then() {
    for time in [1.8e13, 1.85e13, 1e300, f64::MAX, f64::INFINITY] {
        let (mut load, mut table) = two_rows();
        load.chosen(&mut table, 0, work());
        let bounds = load.bounds();
        let flight = load.row(0).send(0, time, bounds);
        let mut due = due::Due::default();
        due.missed();
        due.sent(&flight, 7, 1, |_, _| true);
        assert_eq!(due.next(f64::MAX).map(|(row, request, _)| (row, request)), Some((0, 7)));
    }
}

#[test]
fn queues_stay_bounded() {
    let (mut load, mut table) = two_rows();
    for i in 0..200_000_u128 {
        load.chosen(&mut table, 0, Work::default());
        load.sent(&mut table, 1, i, 1.0);
        load.end(&mut table, 1, i, 1.0, true);
    }
    assert!(load.pending.len() <= MAX_PENDING && load.leases.len() < 2_000);
    assert_eq!(loads(&table), [MAX_PENDING as f64, 0.0]);
}
