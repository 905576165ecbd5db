//! The rules, one by one.

use super::*;
use crate::fleet::Fleet;
use crate::stats::Stat;

/// `n` rows, at 1,000 s.
fn fleet(n: u64) -> Fleet {
    let mut fleet = Fleet::new(60.0, 600.0);
    let policy = Policy { jitter: 0.0, ..Policy::default() };
    fleet.health.configure(policy, 1).unwrap();
    for id in 0..n {
        fleet.add(id);
    }
    fleet.advance(1_000.0);
    fleet
}

fn request(fleet: &mut Fleet, row: u32, time: f64, outcome: Outcome) {
    let id = fleet.load.in_flight() as u128 + 1_000_000 + u128::from(time.to_bits());
    fleet.chosen(row);
    fleet.sent(row, id, time);
    fleet.end(row, id, time, outcome);
}

fn fail(fleet: &mut Fleet, row: u32, time: f64, reason: Reason, times: u32) {
    (0..times).for_each(|_| request(fleet, row, time, Outcome::Failed(reason, None)));
}

fn is_out(fleet: &Fleet) -> Vec<bool> {
    (0..fleet.table.rows() as u32).map(|row| fleet.health.is_out(row)).collect()
}

#[test]
fn it_takes_fewer_refused_connections_than_other_failures() {
    for (reason, times) in [(Reason::Status, 5), (Reason::Connect, 2), (Reason::Unknown, 5)] {
        let mut fleet = fleet(3);
        fail(&mut fleet, 0, 1_000.0, reason, times - 1);
        assert!(!fleet.health.is_disturbed(), "{reason:?}");
        fail(&mut fleet, 0, 1_000.0, reason, 1);
        assert_eq!(is_out(&fleet), [true, false, false], "{reason:?}");
        assert_eq!(fleet.health.standing(0).until, Some(1_001.0));
    }
}

#[test]
fn a_served_request_between_failures_and_a_client_that_leaves_put_nobody_out() {
    let mut fleet = fleet(3);
    for _ in 0..30 {
        fail(&mut fleet, 0, 1_000.0, Reason::Client, 40);
        fail(&mut fleet, 0, 1_000.0, Reason::Status, 2);
        (0..3).for_each(|_| request(&mut fleet, 0, 1_000.0, Outcome::Served));
    }
    assert!(!fleet.health.is_disturbed());
    // Half of its requests: too many, though never five in a row.
    (0..10).for_each(|_| {
        fail(&mut fleet, 0, 1_000.0, Reason::Status, 2);
        request(&mut fleet, 0, 1_000.0, Outcome::Served);
    });
    assert!(fleet.health.ejections() > 0);
}

#[test]
fn an_answer_that_ends_for_no_known_reason_is_taken_for_one_whose_client_left() {
    let mut fleet = fleet(2);
    let mut cut = |reason, ids: std::ops::Range<u128>| {
        for id in ids {
            fleet.sent(0, id, 1_000.0);
            fleet.first_token(0, id, 1_000.0);
            fleet.end(0, id, 1_000.0, Outcome::Failed(reason, None));
        }
        fleet.health.is_out(0)
    };
    assert!(!cut(Reason::Unknown, 0..50));
    assert!(cut(Reason::Broken, 50..60));
}

#[test]
fn stays_double_up_to_the_longest_and_start_anew_once_forgiven() {
    let mut fleet = fleet(2);
    fail(&mut fleet, 0, 1_000.0, Reason::Connect, 2);
    let mut stays = Vec::new();
    for _ in 0..6 {
        let until = fleet.health.standing(0).until.unwrap();
        let now = fleet.load.now().max(1_000.0);
        stays.push(until - now);
        (0..100).for_each(|_| fleet.chosen(1));
        fleet.advance(until);
        assert_eq!(fleet.health.due([1, 0].into_iter()), Some(1));
        fail(&mut fleet, 0, until, Reason::Connect, 1);
    }
    assert_eq!(stays, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
}

#[test]
fn one_probe_at_a_time_then_a_ramp() {
    let mut fleet = fleet(2);
    fail(&mut fleet, 0, 1_000.0, Reason::Status, 5);
    (0..10).for_each(|_| fleet.chosen(1));
    assert_eq!(fleet.health.due([0, 1].into_iter()), None);
    fleet.advance(1_001.0);
    assert_eq!(fleet.health.due([0, 1].into_iter()), Some(0));
    fleet.chosen(0);
    assert_eq!(fleet.health.due([0, 1].into_iter()), None);
    fleet.sent(0, 1, 1_001.0);
    fleet.advance(1_005.0);
    assert_eq!(fleet.health.due([0, 1].into_iter()), None);
    fleet.first_token(0, 1, 1_005.0);
    assert_eq!(fleet.health.state(0), State::Probation { answers: 1 });
    for answers in 1..8 {
        assert!(fleet.health.has_room(0, f64::from(answers)));
        assert!(!fleet.health.has_room(0, f64::from(answers) + 1.0));
        fleet.end(0, u128::from(answers as u32), 1_005.0, true);
        fleet.sent(0, u128::from(answers as u32) + 1, 1_005.0);
        fleet.first_token(0, u128::from(answers as u32) + 1, 1_005.0);
    }
    assert_eq!(fleet.health.state(0), State::In);
    assert!(!fleet.health.is_disturbed());
}

#[test]
fn what_was_sent_before_it_went_out_says_nothing_afterwards() {
    let mut fleet = fleet(2);
    fleet.sent(0, 7, 1_000.0);
    fleet.sent(0, 8, 1_000.0);
    fail(&mut fleet, 0, 1_000.0, Reason::Status, 5);
    fleet.end(0, 7, 1_000.5, true);
    assert!(fleet.health.is_out(0));
    fleet.advance(1_002.0);
    fleet.sent(0, 9, 1_002.0);
    fleet.first_token(0, 9, 1_002.0);
    fleet.end(0, 8, 1_002.0, false);
    assert_eq!(fleet.health.state(0), State::Probation { answers: 1 });
}

#[test]
fn a_fault_that_all_have_puts_half_out_and_a_fault_of_most_puts_them_out() {
    let mut common = fleet(4);
    for _ in 0..30 {
        (0..4).for_each(|row| fail(&mut common, row, 1_000.0, Reason::Status, 1));
    }
    assert_eq!(is_out(&common).iter().filter(|&&out| out).count(), 2);
    let mut most = fleet(4);
    for _ in 0..30 {
        request(&mut most, 3, 1_000.0, Outcome::Served);
        (0..3).for_each(|row| fail(&mut most, row, 1_000.0, Reason::Status, 1));
    }
    assert_eq!(is_out(&most), [true, true, true, false]);
}

#[test]
fn all_that_refuse_connections_go_out_and_are_tried_in_turn() {
    let mut fleet = fleet(4);
    (0..4).for_each(|row| fail(&mut fleet, row, 1_000.0, Reason::Connect, 2));
    assert_eq!(is_out(&fleet), [true; 4]);
    let mut tried = Vec::new();
    for _ in 0..8 {
        let row = fleet.health.least_recent(0..4).unwrap() as u32;
        tried.push(row);
        fleet.chosen(row);
    }
    assert_eq!(tried, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn retry_after_is_honoured_within_its_bound() {
    let mut fleet = fleet(2);
    let busy = |seconds| Outcome::of_status(429, Some(seconds));
    request(&mut fleet, 0, 1_000.0, busy(7.0));
    assert_eq!(fleet.health.standing(0).until, Some(1_007.0));
    request(&mut fleet, 1, 1_000.0, busy(1e9));
    assert_eq!(fleet.health.standing(1).until, Some(1_300.0));
    request(&mut fleet, 0, 1_001.0, busy(f64::NAN));
    assert_eq!(fleet.health.standing(0).until, Some(1_007.0));
}

#[test]
fn who_refuses_connections_has_lost_its_load_and_its_cache() {
    let mut fleet = fleet(2);
    fleet.sent(0, 7, 1_000.0);
    fleet.chosen(0);
    assert_eq!(fleet.table.get(Stat::InFlight, 0), 2.0);
    fail(&mut fleet, 0, 1_000.0, Reason::Connect, 2);
    assert_eq!((fleet.table.get(Stat::InFlight, 0), fleet.load.in_flight()), (0.0, 0));
    fleet.end(0, 7, 1_001.0, true);
    assert_eq!(fleet.table.get(Stat::InFlight, 0), 0.0);
}

#[test]
fn an_error_of_the_client_is_a_sign_of_life_and_nothing_else() {
    let mut fleet = fleet(2);
    for status in [400, 404, 422] {
        (0..50).for_each(|_| request(&mut fleet, 0, 1_000.0, Outcome::of_status(status, None)));
    }
    assert!(!fleet.health.is_disturbed());
    fail(&mut fleet, 0, 1_000.0, Reason::Status, 5);
    fleet.advance(1_001.0);
    request(&mut fleet, 0, 1_001.0, Outcome::of_status(404, None));
    assert_eq!(fleet.health.state(0), State::Probation { answers: 1 });
}

#[test]
fn changes_are_reported_once_each() {
    let mut fleet = fleet(2);
    fail(&mut fleet, 0, 1_000.0, Reason::Status, 9);
    let change = Change { row: 0, out: Some(Reason::Status), seconds: 1.0 };
    assert_eq!(fleet.health.changes().collect::<Vec<_>>(), [change]);
    for step in 1..20 {
        request(&mut fleet, 0, 1_000.0 + f64::from(step), Outcome::Served);
    }
    let back = fleet.health.changes().collect::<Vec<_>>();
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].row, back[0].out), (0, None));
    assert_eq!(fleet.health.ejections(), 1);
}

#[test]
fn switched_off_nobody_goes_out() {
    let mut fleet = fleet(2);
    fleet.health.configure(Policy { enabled: false, ..Policy::default() }, 1).unwrap();
    fail(&mut fleet, 0, 1_000.0, Reason::Connect, 100);
    assert!(!fleet.health.is_disturbed());
    let wrong = Policy { window: 65, ..Policy::default() };
    assert!(fleet.health.configure(wrong, 1).unwrap_err().0.contains("window"));
}

#[test]
fn a_row_that_is_freed_is_in() {
    let mut fleet = fleet(2);
    fail(&mut fleet, 0, 1_000.0, Reason::Status, 5);
    fleet.remove(0);
    assert!(!fleet.health.is_disturbed());
    assert_eq!(fleet.add(9), 0);
    fail(&mut fleet, 0, 1_000.0, Reason::Status, 4);
    assert!(!fleet.health.is_disturbed());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        let failed = |reason, wait| Outcome::Failed(reason, wait);
        prop_oneof![
            3 => Just(Outcome::Served),
            1 => Just(Outcome::Refused),
            6 => (prop::sample::select(Reason::ALL), prop::option::of(any::<f64>()))
                .prop_map(move |(reason, wait)| failed(reason, wait)),
        ]
    }

    fn time() -> impl Strategy<Value = f64> {
        prop_oneof![8 => 0.0..100.0, 1 => any::<f64>(), 1 => Just(5.0)]
    }

    proptest! {
        #[test]
        fn who_saw_nothing_but_successes_is_in_and_a_choice_is_always_to_be_had(
            steps in prop::collection::vec((0..4_u32, any::<bool>(), outcome(), time()), 0..300),
            seed: u64,
        ) {
            let mut fleet = fleet(4);
            fleet.health.configure(Policy::default(), seed).unwrap();
            let mut failed = [false; 4];
            for (id, (row, token, outcome, time)) in steps.into_iter().enumerate() {
                let id = id as u128;
                fleet.advance(time);
                fleet.chosen(row);
                fleet.sent(row, id, time);
                if token {
                    fleet.first_token(row, id, time);
                }
                fleet.end(row, id, time, outcome);
                failed[row as usize] |= matches!(
                    outcome, Outcome::Failed(reason, _) if reason != Reason::Client
                );
                for (row, failed) in (0..).zip(failed) {
                    prop_assert!(failed || fleet.health.state(row) == State::In);
                }
                let somebody = (0..4).any(|row| fleet.health.has_room(row, 0.0));
                prop_assert!(somebody || fleet.health.least_recent(0..4).is_some());
                let away = (0..4).filter(|&row| fleet.health.state(row) != State::In).count();
                prop_assert_eq!(away > 0, fleet.health.is_disturbed());
                // Nobody waits for longer than the policy says, whatever the clock did.
                for (row, _) in fleet.health.out() {
                    let until = fleet.health.standing(row).until.unwrap();
                    prop_assert!(until.is_finite());
                }
            }
        }
    }
}
