//! Single situations; `tests/admission.rs` has the whole machine against its naive twin.

use super::*;
use crate::speed::Profile;
use crate::stats::{Stat, StatTable};

const ADDED: f64 = 600.0;

struct Fleet2 {
    table: StatTable,
    hold: Hold,
}

impl Fleet2 {
    /// Two endpoints with room for 1,000 tokens, of which requests in flight keep so many.
    fn new(in_use: [f64; 2]) -> Self {
        let mut table = StatTable::scratch(2);
        for (row, tokens) in in_use.into_iter().enumerate() {
            table.set(Stat::KvCapacity, row as u32, 1_000.0);
            table.set(Stat::KvTokens, row as u32, tokens);
            table.set(Stat::InFlight, row as u32, f64::from(u8::from(tokens > 0.0)));
        }
        let limits = Limits { room: 1.0, reserve_after: 30.0, ..Limits::default() };
        Self { table, hold: Hold::new(limits) }
    }

    fn offer(&mut self, id: u64, picked: usize, now: f64) -> Option<usize> {
        let engine = Profile { output_tokens: 0.0, ..Profile::default() };
        let floor = Floor { table: &self.table, engine };
        let go = self.hold.offer(floor, [0, 1].into_iter(), id, picked, |_| ADDED, now);
        go.map(|go| go.pos)
    }

    fn waits(&mut self, now: f64) -> u64 {
        let id = self.hold.arrive(Ask { tokens: ADDED, ..Ask::default() }, now);
        assert_eq!(self.offer(id, 0, now), None);
        assert_eq!(self.hold.keep(id, now), Ok(()));
        id
    }
}

#[test]
fn it_waits_for_the_endpoint_that_was_picked_whoever_else_has_room() {
    let mut fleet = Fleet2::new([500.0, 0.0]);
    let id = fleet.waits(0.0);
    assert_eq!(fleet.offer(id, 1, 1.0), Some(1), "another pick, another place");
    assert_eq!(fleet.offer(id, 1, 1.0), None, "and it goes once");
    let Counts { admitted, held, waited, .. } = fleet.hold.counts();
    assert_eq!((admitted, held, waited), (1, 1, 1.0));
}

#[test]
fn after_a_while_an_endpoint_is_kept_free_for_the_oldest() {
    let mut fleet = Fleet2::new([900.0, 500.0]);
    let oldest = fleet.waits(0.0);
    let other = fleet.hold.arrive(Ask::default(), 1.0);
    assert_eq!(fleet.hold.wake_at(1.0), 30.0);
    assert_eq!(fleet.offer(oldest, 0, 30.0), None);
    // The other endpoint has least in use: it is kept, even from those who would fit.
    fleet.table.set(Stat::KvTokens, 1, 100.0);
    assert_eq!(fleet.offer(other, 1, 31.0), None);
    assert_eq!(fleet.offer(oldest, 0, 31.0), Some(1));
    assert_eq!(fleet.offer(other, 1, 31.0), Some(1), "then it is free again");
}

#[test]
fn where_requests_stay_for_less_the_oldest_has_an_endpoint_kept_free_sooner() {
    let mut fleet = Fleet2::new([900.0, 500.0]);
    let oldest = fleet.waits(0.0);
    // Two in flight, and 0.4 a second came lately: each stays for 5 s.
    fleet.table.fill(Stat::RequestsSent, [6.0, 6.0].into_iter());
    let engine = Profile { output_tokens: 0.0, request_rate: 1.0 / 30.0, ..Profile::default() };
    for (now, kept) in [(4.9, false), (5.1, true)] {
        let floor = Floor { table: &fleet.table, engine };
        assert!(fleet.hold.offer(floor, [0, 1].into_iter(), oldest, 0, |_| ADDED, now).is_none());
        let room = fleet.hold.would_wait(floor, 1, 10.0, now);
        assert_eq!(room.is_some(), kept, "{now}");
    }
}

#[test]
fn an_endpoint_that_left_is_not_waited_for() {
    let mut fleet = Fleet2::new([900.0, 500.0]);
    let oldest = fleet.waits(0.0);
    assert_eq!(fleet.offer(oldest, 0, 30.0), None);
    fleet.table.remove(1);
    fleet.table.add(7);
    for (stat, value) in [(Stat::KvCapacity, 1e3), (Stat::KvTokens, 950.0), (Stat::InFlight, 1.0)] {
        fleet.table.set(stat, 1, value);
    }
    assert_eq!(fleet.offer(oldest, 1, 31.0), None);
    fleet.table.set(Stat::KvTokens, 0, 400.0);
    assert_eq!(fleet.offer(oldest, 1, 32.0), Some(0), "it waits for the other one now");
}

#[test]
fn who_leaves_gives_back_what_was_kept_for_it() {
    let mut fleet = Fleet2::new([900.0, 500.0]);
    let oldest = fleet.waits(0.0);
    assert_eq!(fleet.offer(oldest, 0, 30.0), None);
    assert!(fleet.hold.leave(oldest) && !fleet.hold.leave(oldest));
    fleet.table.set(Stat::KvTokens, 1, 100.0);
    let other = fleet.hold.arrive(Ask::default(), 31.0);
    assert_eq!(fleet.offer(other, 1, 31.0), Some(1));
    assert_eq!((fleet.hold.waiting(), fleet.hold.waiting_tokens()), (0, 0));
}

#[test]
fn bounds_reject_and_say_when_to_come_again() {
    let mut fleet = Fleet2::new([900.0, 900.0]);
    fleet.hold.limits =
        Limits { max_requests: 2, max_tokens: 2_000, max_wait: 5.0, ..Limits::default() };
    let ids = [fleet.waits(0.0), fleet.waits(1.0)];
    let third = fleet.hold.arrive(Ask { tokens: ADDED, ..Ask::default() }, 1.0);
    let rejected = fleet.hold.keep(third, 1.0).unwrap_err();
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::Requests, 60.0));
    fleet.hold.leave(ids[1]);
    let large = fleet.hold.arrive(Ask { tokens: 1_500.0, ..Ask::default() }, 1.0);
    assert_eq!(fleet.hold.keep(large, 1.0).unwrap_err().reason, Reason::Tokens);
    let hasty = Ask { patience: Some(0.0), ..Ask::default() };
    let hasty = fleet.hold.arrive(hasty, 1.0);
    assert_eq!(fleet.hold.keep(hasty, 1.0).unwrap_err().reason, Reason::Seconds);
    assert_eq!(fleet.hold.expired(4.9), None);
    assert_eq!(
        fleet.hold.expired(5.0).map(|(id, r)| (id, r.reason)),
        Some((ids[0], Reason::Seconds))
    );
    assert_eq!(fleet.hold.counts().rejected, [1, 1, 2]);
    assert_eq!((fleet.hold.waiting(), fleet.hold.wake_at(6.0)), (0, f64::INFINITY));
}

#[test]
fn priorities_age() {
    let mut hold = Hold::new(Limits { priority_seconds: 10.0, ..Limits::default() });
    let plain = hold.arrive(Ask::default(), 0.0);
    let urgent = hold.arrive(Ask { priority: 1.0, ..Ask::default() }, 9.0);
    let late = hold.arrive(Ask { priority: 1.0, ..Ask::default() }, 11.0);
    let odd = hold.arrive(Ask { priority: f64::NAN, ..Ask::default() }, 12.0);
    let mut due = Vec::new();
    hold.due(&mut due);
    assert_eq!(due, [urgent, plain, late, odd]);
    assert_eq!(hold.before(late), 2);
}

/// Two idle endpoints with room for 1,000 tokens of sessions.
fn of_sessions() -> Fleet2 {
    let mut fleet = Fleet2::new([0.0, 0.0]);
    let limits = Limits { room: 1.0, sessions: true, ..Limits::default() };
    fleet.hold = Hold::new(limits);
    fleet
}

fn turn(fleet: &mut Fleet2, session: u64, tokens: f64, picked: usize, now: f64) -> Option<usize> {
    let request = Some(u128::from(session));
    let ask = Ask { tokens, session: Some(session), request, ..Ask::default() };
    let id = fleet.hold.arrive(ask, now);
    let went = fleet.offer(id, picked, now);
    if went.is_none() {
        assert_eq!(fleet.hold.keep(id, now), Ok(()));
    }
    went
}

#[test]
fn turns_of_a_session_that_lives_go_home_and_a_new_one_waits_for_room_for_its_context() {
    let mut fleet = of_sessions();
    assert_eq!(turn(&mut fleet, 1, 700.0, 0, 0.0), Some(0));
    assert_eq!(turn(&mut fleet, 2, 600.0, 0, 0.0), Some(1), "no room beside the first");
    assert_eq!(turn(&mut fleet, 1, 800.0, 1, 1.0), Some(0), "home, whatever is picked");
    assert_eq!(turn(&mut fleet, 3, 500.0, 0, 2.0), None);
    assert_eq!(turn(&mut fleet, 4, 90.0, 0, 2.0), None, "behind the one that came before it");
    assert_eq!(turn(&mut fleet, 2, 650.0, 0, 3.0), Some(1), "those that live wait for nobody");
    let mut due = Vec::new();
    fleet.hold.due(&mut due);
    assert_eq!((due.len(), fleet.hold.sessions()), (1, 2), "the first of those that wait");
    // The first has a turn in flight, the second none for 30 s.
    for tenth in 30..340 {
        fleet.hold.rest(0.1 * f64::from(tenth), |_, request| request == 1);
    }
    assert_eq!(fleet.hold.sessions(), 1);
    assert_eq!(fleet.offer(due[0], 0, 34.0), Some(1));
    due.clear();
    fleet.hold.due(&mut due);
    assert_eq!(fleet.offer(due[0], 0, 34.0), Some(0));
}

#[test]
fn sessions_that_are_let_in_have_room_to_grow() {
    for (tokens, goes) in [(590.0, true), (610.0, false)] {
        let mut fleet = of_sessions();
        assert_eq!(turn(&mut fleet, 1, 300.0, 0, 0.0), Some(0));
        assert_eq!(turn(&mut fleet, 2, 950.0, 1, 0.0), Some(1));
        assert_eq!(turn(&mut fleet, 3, tokens, 0, 0.0).is_some(), goes, "{tokens}");
    }
}

#[test]
fn a_session_larger_than_a_cache_gets_an_endpoint_without_any() {
    let mut fleet = of_sessions();
    assert_eq!(turn(&mut fleet, 1, 300.0, 1, 0.0), Some(1));
    assert_eq!(turn(&mut fleet, 2, 5_000.0, 1, 0.0), Some(0));
    assert_eq!(turn(&mut fleet, 3, 300.0, 0, 0.0), Some(1));
}

#[test]
fn a_session_whose_endpoint_is_gone_moves() {
    let mut fleet = of_sessions();
    assert_eq!(turn(&mut fleet, 1, 300.0, 0, 0.0), Some(0));
    fleet.table.remove(0);
    assert_eq!(fleet.table.add(99), 0);
    assert_eq!(turn(&mut fleet, 1, 300.0, 1, 1.0), Some(1));
}
