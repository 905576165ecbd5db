//! What one router tells another of endpoints that fail: it helps, and whoever lies harms nobody.

use proptest::prelude::*;
use routecore::fleet::Prefixes;
use routecore::health::{Outcome, Policy, Reason, State};
use routecore::register::{Field, Register};
use routecore::replicas::{GONE_AFTER, Replicas, Settings, own};
use routecore::{Fleet, Stat};

const FAILED: Outcome = Outcome::Failed(Reason::Status, None);
const REFUSED: Outcome = Outcome::Failed(Reason::Connect, None);

struct Side {
    fleet: Fleet,
    router: Replicas,
    requests: u128,
}

impl Side {
    fn new(origin: u64, endpoints: u64) -> Self {
        let mut fleet = Fleet::new(60.0, 600.0);
        for id in 0..endpoints {
            fleet.add(id);
        }
        fleet.advance(1_000.0);
        let settings = Settings { group: 1, grain: 0, origin, epoch: 1, every: 0.05 };
        let mut router = Replicas::new(settings);
        router.begin(&mut fleet);
        Self { fleet, router, requests: 0 }
    }

    fn send(&mut self, row: u32) -> u128 {
        self.requests += 1;
        self.fleet.chosen(row);
        self.fleet.sent(row, self.requests, self.fleet.load.now());
        self.requests
    }

    fn end(&mut self, row: u32, outcome: Outcome, times: u32) {
        for _ in 0..times {
            let id = self.send(row);
            self.fleet.end(row, id, self.fleet.load.now(), outcome);
        }
    }

    fn says(&mut self, now: f64) -> Vec<u8> {
        let (mut registers, mut bytes) = (Vec::new(), Vec::new());
        own(&mut self.fleet, &mut registers);
        self.router.tell(registers.into_iter(), &Prefixes::default(), now, &mut bytes);
        bytes
    }

    fn hears(&mut self, said: &[u8], now: f64) {
        self.router.hear(said, now);
        self.pass(now);
    }

    fn pass(&mut self, now: f64) {
        self.router.expire(now);
        while self.router.merge(&mut self.fleet, now, 1) {}
    }

    fn state(&self, row: u32) -> State {
        self.fleet.health.state(row)
    }

    /// Whether the first endpoint may be given one more.
    fn has_room(&self) -> bool {
        self.fleet.health.has_room(0, self.fleet.table.own(Stat::InFlight, 0))
    }

    fn doubted(&self) -> usize {
        (0..self.fleet.table.rows() as u32).filter(|&row| self.state(row) == State::Doubted).count()
    }
}

/// A router of which endpoints 0 to `away` are out, and one that has heard that.
fn heard(endpoints: u64, away: u32) -> (Side, Side) {
    let (mut one, mut two) = (Side::new(1, endpoints), Side::new(2, endpoints));
    // Whoever has a healthy one may put out more than half.
    one.end(endpoints as u32 - 1, Outcome::Served, 20);
    (0..away).for_each(|row| one.end(row, FAILED, 5));
    let said = one.says(0.0);
    two.hears(&said, 0.0);
    (one, two)
}

/// A message that says that these are away.
fn lie(router: &mut Replicas, rows: impl Iterator<Item = u64>, now: f64) -> Vec<u8> {
    let mut away = Register::default();
    away.set(Field::Failing, 10);
    let mut bytes = Vec::new();
    router.tell(rows.map(|id| (id, away)), &Prefixes::default(), now, &mut bytes);
    bytes
}

#[test]
fn what_fails_at_one_router_is_tried_by_one_request_of_another_and_its_failure_is_enough() {
    for (outcome, alone) in [(FAILED, 5), (REFUSED, 2)] {
        let (_, mut two) = heard(4, 1);
        assert_eq!(two.state(0), State::Doubted);
        assert!(!two.fleet.health.is_out(0) && two.fleet.health.ejections() == 0, "no verdict");
        assert!(two.has_room());
        let tried = two.send(0);
        assert!(!two.has_room(), "one at a time");
        two.fleet.end(0, tried, 1_000.0, outcome);
        assert!(two.fleet.health.is_out(0));
        let hints = two.fleet.health.hints();
        assert_eq!((hints.heard, hints.confirmed, hints.doubted), (1, 1, 0));
        // A router that heard nothing needs more of them.
        let mut apart = Side::new(3, 4);
        apart.end(0, outcome, alone - 1);
        assert!(!apart.fleet.health.is_out(0));
        apart.end(0, outcome, 1);
        assert!(apart.fleet.health.is_out(0));
    }
}

#[test]
fn the_first_failure_is_enough_after_the_doubt_too_as_long_as_others_say_so() {
    let (mut one, mut two) = heard(4, 1);
    let said = one.says(2.0);
    two.hears(&said, 2.9);
    assert_eq!(two.state(0), State::Doubted);
    two.pass(3.0);
    assert_eq!((two.state(0), two.fleet.health.hints().faded), (State::In, 1));
    assert!(two.has_room());
    two.end(0, FAILED, 1);
    assert!(two.fleet.health.is_out(0));
}

#[test]
fn failures_in_a_row_count_whichever_routers_they_fell_on() {
    let (mut one, mut three, mut two) = (Side::new(1, 4), Side::new(3, 4), Side::new(2, 4));
    one.end(0, FAILED, 2);
    three.end(0, FAILED, 2);
    let said = [one.says(0.0), three.says(0.0)];
    for said in &said {
        two.hears(said, 0.0);
    }
    assert_eq!(two.state(0), State::In, "four are not five");
    two.end(0, FAILED, 1);
    assert!(two.fleet.health.is_out(0));
    // What one of them served meanwhile settles its part.
    let mut four = Side::new(4, 4);
    one.end(0, Outcome::Served, 1);
    let said = [one.says(1.0), three.says(1.0)];
    for said in &said {
        four.hears(said, 0.0);
    }
    four.end(0, FAILED, 2);
    assert_eq!(four.state(0), State::In);
    four.end(0, FAILED, 1);
    assert!(four.fleet.health.is_out(0));
}

#[test]
fn an_answer_overrides_at_once_and_for_half_a_minute() {
    for answer in ["first token", "whole", "4xx"] {
        let (mut one, mut two) = heard(4, 1);
        two.fleet.advance(1_001.0);
        let tried = two.send(0);
        match answer {
            "first token" => two.fleet.first_token(0, tried, 1_001.2),
            "whole" => two.fleet.end(0, tried, 1_001.2, Outcome::Served),
            _ => two.fleet.end(0, tried, 1_001.2, Outcome::Refused),
        }
        assert_eq!((two.state(0), two.fleet.health.hints().refuted), (State::In, 1), "{answer}");
        assert!(two.has_room());
        if answer == "first token" {
            // That may be the head of an error.
            let (_, mut two) = heard(4, 1);
            two.fleet.advance(1_001.0);
            let tried = two.send(0);
            two.fleet.first_token(0, tried, 1_001.2);
            two.fleet.end(0, tried, 1_001.2, FAILED);
            assert!(two.fleet.health.is_out(0));
            continue;
        }
        // The same word again, and others' in the next half a minute, change nothing.
        let said = one.says(1.0);
        two.hears(&said, 1.0);
        let mut third = Side::new(3, 4);
        third.end(0, FAILED, 5);
        let said = third.says(0.0);
        two.hears(&said, 2.0);
        assert_eq!(two.state(0), State::In);
        two.end(0, FAILED, 4);
        assert_eq!(two.state(0), State::In, "{answer}: as if nobody had said anything");
    }
}

#[test]
fn what_was_under_way_before_says_nothing_of_what_comes_and_bars_nobody() {
    let (mut one, mut two) = (Side::new(1, 4), Side::new(2, 4));
    let early: Vec<u128> = (0..3).map(|_| two.send(0)).collect();
    two.fleet.advance(1_001.0);
    one.end(0, FAILED, 5);
    let said = one.says(0.0);
    two.hears(&said, 0.0);
    two.fleet.first_token(0, early[0], 1_001.5);
    two.fleet.end(0, early[1], 1_001.5, Outcome::Served);
    assert_eq!(two.state(0), State::Doubted);
    assert!(two.has_room(), "it is asked, whatever it is at");
    let tried = two.send(0);
    assert!(!two.has_room());
    // A client that leaves says nothing, and another is tried.
    two.fleet.end(0, tried, 1_001.6, Outcome::Failed(Reason::Client, None));
    assert!(two.has_room() && two.state(0) == State::Doubted);
    // But a failure says what it always does.
    two.fleet.end(0, early[2], 1_001.7, FAILED);
    assert!(two.fleet.health.is_out(0));
}

#[test]
fn routers_share_the_probes_and_an_answer_that_one_has_brings_one_forward() {
    let stay = |two: &Side| two.fleet.health.standing(0).until.unwrap() - 1_000.0;
    let (mut one, mut two) = heard(4, 1);
    two.end(0, FAILED, 1);
    let mut apart = Side::new(3, 4);
    apart.end(0, FAILED, 5);
    assert!(stay(&two) > 1.9 * stay(&apart) && stay(&apart) >= 0.8, "{}", stay(&two));
    // A probe of the first is answered.
    one.fleet.advance(1_002.0);
    let probe = one.send(0);
    one.fleet.first_token(0, probe, 1_002.1);
    assert!(!one.fleet.health.is_out(0));
    two.fleet.advance(1_000.1);
    assert_eq!(two.fleet.health.due(0..4), None);
    let said = one.says(1.0);
    two.hears(&said, 1.0);
    assert_eq!(two.fleet.health.due(0..4), Some(0));
    // It fails: whoever says "away" and "back" without end brings forward one in ten seconds.
    two.end(0, FAILED, 1);
    let mut liar = Side::new(7, 4).router;
    let mut early = 0;
    for step in 0..100 {
        let now = 1.1 + 0.1 * f64::from(step);
        let said = lie(&mut liar, 0..u64::from(step % 2 == 0), now);
        two.hears(&said, now);
        early += usize::from(two.fleet.health.due(0..4).is_some());
    }
    assert_eq!(early, 0);
}

#[test]
fn an_endpoint_comes_back_by_this_routers_share_of_what_it_has_to_do() {
    let (mut one, mut two) = (Side::new(1, 4), Side::new(2, 4));
    two.end(0, FAILED, 5);
    (0..50).for_each(|_| {
        one.send(0);
    });
    let said = one.says(0.0);
    two.hears(&said, 0.0);
    two.fleet.advance(1_002.0);
    for _ in 0..9 {
        assert!(two.has_room() || two.fleet.health.is_out(0));
        two.end(0, Outcome::Served, 1);
    }
    assert_eq!(two.state(0), State::In, "the others' 50 hold nobody back");
    assert_eq!(two.fleet.table.get(Stat::InFlight, 0), 50.0);
}

#[test]
fn a_doubt_ends_with_the_word_that_began_it_and_with_its_router() {
    let (mut one, mut two) = heard(4, 1);
    let mut three = Side::new(3, 4);
    let said = one.says(1.0);
    three.hears(&said, 0.0);
    assert_eq!(three.state(0), State::Doubted);
    let mut bye = Vec::new();
    one.router.bye(1.5, &mut bye);
    three.hears(&bye, 0.5);
    assert_eq!((three.state(0), three.fleet.health.hints().faded), (State::In, 1));
    two.pass(GONE_AFTER);
    assert_eq!(two.state(0), State::In);
    two.end(0, FAILED, 4);
    assert_eq!(two.state(0), State::In, "nobody says so any more");
}

#[test]
fn a_router_without_a_network_says_nothing_and_a_liar_takes_no_more_than_half() {
    // 3 of 4 out by its own account: it is nobody else's concern.
    let (_, two) = heard(4, 3);
    assert_eq!(two.doubted(), 0);
    for endpoints in 1..=9_u64 {
        let (mut liar, mut two) = (Side::new(1, endpoints), Side::new(2, endpoints));
        let said = lie(&mut liar.router, 0..endpoints, 0.0);
        two.hears(&said, 0.0);
        assert_eq!(two.doubted() as u64, endpoints / 2);
        assert_eq!(two.fleet.health.ejections(), 0);
        let hints = two.fleet.health.hints();
        assert_eq!(hints.heard + hints.passed_over, endpoints);
    }
    // Those that are out by one's own experience count among them.
    let (mut liar, mut two) = (Side::new(1, 8), Side::new(2, 8));
    (0..3).for_each(|row| two.end(row, FAILED, 5));
    let said = lie(&mut liar.router, 0..8, 0.0);
    two.hears(&said, 0.0);
    assert_eq!(two.doubted(), 1);
}

#[test]
fn endpoints_that_go_take_their_doubts_along() {
    let (_, mut two) = heard(4, 2);
    assert_eq!(two.doubted(), 2);
    two.fleet.remove(0);
    assert_eq!((two.doubted(), two.fleet.health.hints().doubted), (1, 1));
    two.fleet.health.configure(Policy::default(), 1).unwrap();
    assert_eq!((two.doubted(), two.fleet.health.is_disturbed()), (0, false));
}

proptest! {
    #[test]
    fn whatever_is_said_half_stay_in_nobody_goes_out_by_it_and_a_doubt_is_short(
        words in prop::collection::vec((1..4_u64, prop::collection::vec(0..8_u64, 0..8), 0.0..2.0), 1..60),
    ) {
        let mut two = Side::new(9, 8);
        let mut liars: Vec<Replicas> = (1..4)
            .map(|origin| Side::new(origin, 8).router)
            .collect();
        let mut since = [None; 8];
        let mut now = 0.0;
        for (liar, mut rows, pause) in words {
            now += pause;
            rows.sort_unstable();
            rows.dedup();
            let said = lie(&mut liars[liar as usize - 1], rows.into_iter(), now);
            two.hears(&said, now);
            prop_assert!(two.doubted() <= 4);
            prop_assert_eq!(two.fleet.health.ejections(), 0);
            for (row, since) in since.iter_mut().enumerate() {
                match (two.state(row as u32), *since) {
                    (State::In, _) => *since = None,
                    (State::Doubted, None) => *since = Some(now),
                    (State::Doubted, Some(begun)) => prop_assert!(now - begun < 3.0),
                    (state, _) => prop_assert!(false, "{:?}", state),
                }
            }
            let hints = two.fleet.health.hints();
            prop_assert_eq!(hints.heard, hints.doubted + hints.faded);
            prop_assert!(two.fleet.table.get(Stat::InFlight, 0) == 0.0);
        }
        two.pass(now + GONE_AFTER);
        prop_assert!(!two.fleet.health.is_disturbed());
    }
}
