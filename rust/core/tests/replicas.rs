//! Routers that tell each other what they have in flight: against the obvious twin, whatever the
//! network does, and on fleets.

use std::collections::HashMap;

use proptest::prelude::*;
use routecore::fleet::{Prefixes, Reported};
use routecore::index::Depths;
use routecore::prompt::{Prompt, Unit};
use routecore::register::{Field, Register};
use routecore::replicas::{GONE_AFTER, Heard, Ignored, Replicas, Settings, own};
use routecore::rng::Rng;
use routecore::{Fleet, Stat};

const EVERY: f64 = 0.05;
/// When sums are looked at whose age does not matter.
const LATER: f64 = 0.0;

fn router(origin: u64) -> Replicas {
    Replicas::new(Settings { group: 1, grain: 7, origin, epoch: 100, every: EVERY })
}

fn register(requests: u64) -> Register {
    let mut register = Register::default();
    register.set(Field::Requests, requests);
    register.set(Field::QueuedTokens, requests.saturating_mul(100));
    register
}

fn said(router: &mut Replicas, rows: &[(u64, u64)], now: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    router.tell(
        rows.iter().map(|&(id, n)| (id, register(n))),
        &Prefixes::default(),
        now,
        &mut bytes,
    );
    bytes
}

fn requests(router: &Replicas, id: u64) -> u64 {
    router.sum(id).get(Field::Requests)
}

fn why(heard: Heard) -> Option<Ignored> {
    match heard {
        Heard::Ignored { why, .. } => Some(why),
        _ => None,
    }
}

#[test]
fn what_changed_is_sent_and_everything_once_a_second() {
    let mut one = router(1);
    assert!(!said(&mut one, &[(5, 2)], 0.0).is_empty());
    assert!(said(&mut one, &[(5, 2)], 0.5).is_empty(), "nothing changed");
    assert!(!said(&mut one, &[(5, 3)], 0.6).is_empty());
    assert!(!one.is_due(0.62) && one.is_due(0.65));
    let (small, whole) = (said(&mut one, &[(5, 4), (6, 0)], 0.7), said(&mut one, &[(5, 4)], 1.0));
    assert!(!small.is_empty() && !whole.is_empty(), "a heartbeat says everything");
    let mut two = router(2);
    assert_eq!(two.hear(&whole, 9.0), Heard::News);
    assert_eq!(requests(&two, 5), 4);
}

#[test]
fn who_falls_silent_is_gone_with_all_it_had_and_with_nothing_else() {
    let (mut one, mut two, mut here) = (router(1), router(2), router(3));
    here.hear(&said(&mut one, &[(5, 1000), (6, 1)], 0.0), 10.0);
    here.hear(&said(&mut two, &[(5, 7)], 0.0), 12.0);
    here.expire(10.0 + GONE_AFTER - 0.01);
    assert_eq!((requests(&here, 5), requests(&here, 6)), (1007, 1));
    here.expire(10.0 + GONE_AFTER);
    assert_eq!((requests(&here, 5), requests(&here, 6)), (7, 0));
    assert_eq!(here.seen().map(|seen| seen.origin).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_router_that_leaves_is_gone_at_once_and_what_comes_late_of_it_does_not_bring_it_back() {
    let (mut one, mut here) = (router(1), router(3));
    let (first, late) = (said(&mut one, &[(5, 9)], 0.0), said(&mut one, &[(5, 8)], 0.1));
    let mut bye = Vec::new();
    one.bye(0.2, &mut bye);
    here.hear(&first, 1.0);
    here.hear(&bye, 1.1);
    assert_eq!((requests(&here, 5), here.seen().count()), (0, 0));
    assert_eq!(why(here.hear(&late, 1.2)), Some(Ignored::Stale));
    assert_eq!(requests(&here, 5), 0);
}

#[test]
fn a_router_that_restarts_under_its_name_begins_anew_whatever_its_sequence() {
    let mut here = router(3);
    let mut before = router(1);
    for k in 0..50 {
        here.hear(&said(&mut before, &[(5, 40), (6, k)], f64::from(k as u32)), 1.0);
    }
    let settings = Settings { epoch: 101, ..router(1).settings() };
    let mut after = Replicas::new(settings);
    assert_eq!(here.hear(&said(&mut after, &[(5, 1)], 0.0), 2.0), Heard::News);
    assert_eq!((requests(&here, 5), requests(&here, 6)), (1, 0));
    let late = said(&mut before, &[(5, 41)], 60.0);
    assert_eq!(why(here.hear(&late, 2.1)), Some(Ignored::Stale));
    // Where its clock went back meanwhile, it is heard once the one before is gone.
    let mut earlier = Replicas::new(Settings { epoch: 1, ..settings });
    let bytes = said(&mut earlier, &[(5, 3)], 0.0);
    assert_eq!(why(here.hear(&bytes, 2.2)), Some(Ignored::Stale));
    here.expire(2.0 + GONE_AFTER);
    assert_eq!(here.hear(&bytes, 6.0), Heard::News);
}

#[test]
fn wrong_peers_are_ignored_counted_and_logged_once() {
    let mut here = router(3);
    let of = |settings: Settings| said(&mut Replicas::new(settings), &[(5, 9)], 0.0);
    let right = router(9).settings();
    let mut other_version = of(right);
    other_version[3] += 1;
    let wrong = [
        (of(Settings { group: 2, ..right }), Ignored::Group),
        (of(Settings { grain: 8, ..right }), Ignored::Grain),
        (of(Settings { origin: 3, epoch: 200, ..right }), Ignored::SameName),
        (other_version, Ignored::Version),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Ignored::Malformed),
        (vec![0; 100 << 20], Ignored::TooLarge),
    ];
    for round in 0..3 {
        for (bytes, reason) in &wrong {
            let Heard::Ignored { why, first, .. } = here.hear(bytes, 1.0) else { panic!() };
            assert_eq!((why, first), (*reason, round == 0));
        }
    }
    for (_, reason) in wrong {
        assert_eq!(here.counts().ignored[reason as usize], 3, "{reason:?}");
    }
    assert_eq!((here.counts().heard, requests(&here, 5)), (0, 0));
    assert_eq!(
        here.hear(&of(Settings { grain: 0, ..right }), 1.0),
        Heard::News,
        "reads no prompts"
    );
}

#[test]
fn its_own_messages_tell_how_long_one_is_under_way() {
    let (mut one, mut here) = (router(1), router(3));
    let own = said(&mut here, &[(5, 1)], 10.0);
    assert_eq!(here.hear(&own, 12.0), Heard::Own);
    assert_eq!((requests(&here, 5), here.delay()), (0, 2.0));
    // Others' words are as old, and count for as much less.
    here.hear(&said(&mut one, &[(5, 4)], 0.0), 12.0);
    here.expire(10.0 + GONE_AFTER);
    assert_eq!(requests(&here, 5), 0);
}

#[test]
fn memory_is_bounded_whoever_speaks() {
    let mut here = router(0);
    let mut full = 0;
    for origin in 1..2_000 {
        let rows: Vec<(u64, u64)> = (0..2_000).map(|id| (id * origin, 1)).collect();
        full += u32::from(why(here.hear(&said(&mut router(origin), &rows, 0.0), 1.0)).is_some());
    }
    assert!(full > 0);
    let registers: usize = here.seen().map(|seen| seen.endpoints).sum();
    assert!(here.seen().count() <= 256 && registers <= 1 << 18);
    here.expire(1.0 + GONE_AFTER);
    assert_eq!(here.seen().count(), 0);
    assert_eq!(here.hear(&said(&mut router(1), &[(5, 1)], 0.0), 9.0), Heard::News);
}

#[test]
fn noise_and_torn_messages_change_nothing_and_never_panic() {
    let mut rng = Rng::new(5);
    let mut one = router(1);
    let rounds = std::env::var("ROUTECORE_FUZZ_ROUNDS").map_or(20_000, |n| n.parse().unwrap());
    let mut here = router(3);
    for round in 0..rounds {
        let rows: Vec<(u64, u64)> = (0..rng.below(5)).map(|_| (rng.bits(), rng.bits())).collect();
        let mut bytes = said(&mut one, &rows, f64::from(round));
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() + 1);
            match rng.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, rng.bits() as u8),
                2 if at < bytes.len() => bytes[at] = rng.bits() as u8,
                _ if at < bytes.len() => bytes[at] |= 0x80,
                _ => {}
            }
        }
        here.hear(&bytes, f64::from(round));
        here.expire(f64::from(round));
        assert!(here.seen().count() <= 256);
    }
    here.expire(f64::from(rounds) + GONE_AFTER);
    assert_eq!(here.seen().count(), 0);
}

proptest! {
    #[test]
    fn whatever_the_network_does_the_last_word_is_all_that_counts(
        steps in prop::collection::vec((0..3_usize, 0..4_u64, 0..50_u64, 0..6_u8), 1..120),
        seed in any::<u64>(),
    ) {
        let mut rng = Rng::new(seed);
        let mut routers: Vec<Replicas> = (1..=3).map(router).collect();
        let mut here = router(9);
        let mut truth = vec![HashMap::<u64, u64>::new(); 3];
        let mut ever = vec![HashMap::<u64, Vec<u64>>::new(); 3];
        let mut under_way: Vec<Vec<u8>> = Vec::new();
        let rows = |truth: &HashMap<u64, u64>| {
            let mut rows: Vec<(u64, u64)> = truth.iter().map(|(&id, &n)| (id, n)).collect();
            rows.sort_unstable();
            rows
        };
        let mut now = 0.0;
        for (at, id, value, fate) in steps {
            now += EVERY;
            truth[at].insert(id, value);
            ever[at].entry(id).or_default().push(value);
            let bytes = said(&mut routers[at], &rows(&truth[at]), now);
            if fate > 0 {
                under_way.push(bytes); // else lost
            }
            if fate > 3 && !under_way.is_empty() {
                let which = rng.below(under_way.len());
                let bytes = if fate == 5 {
                    under_way[which].clone() // it will come again
                } else {
                    under_way.swap_remove(which)
                };
                here.hear(&bytes, now);
            }
            // Nothing is counted that was never reported.
            for id in 0..4 {
                let most: u64 = ever.iter()
                    .map(|reported| reported.get(&id).map_or(0, |reported| reported.iter().copied().max().unwrap_or(0)))
                    .sum();
                prop_assert!(requests(&here, id) <= most);
            }
        }
        // Whatever was lost is healed by the next whole message, and by nothing that comes late.
        now += 1.0;
        for at in 0..3 {
            here.hear(&said(&mut routers[at], &rows(&truth[at]), now), now);
        }
        for bytes in under_way {
            here.hear(&bytes, now);
        }
        for id in 0..4 {
            let right: u64 = truth.iter().map(|truth| truth.get(&id).copied().unwrap_or(0)).sum();
            prop_assert_eq!(requests(&here, id), right);
        }
        here.expire(now + GONE_AFTER + EVERY);
        for id in 0..4 {
            prop_assert_eq!(requests(&here, id), 0);
        }
    }
}

/// A fleet of endpoints with these ids.
fn fleet(ids: &[u64]) -> Fleet {
    let mut fleet = Fleet::new(60.0, 600.0);
    for &id in ids {
        fleet.add(id);
    }
    fleet.advance(1_000.0);
    fleet
}

fn speak(fleet: &mut Fleet, router: &mut Replicas, now: f64) -> Vec<u8> {
    let (mut registers, mut bytes) = (Vec::new(), Vec::new());
    own(fleet, &mut registers);
    let mut placed = Prefixes::default();
    fleet.take_placed(&mut placed);
    router.tell(registers.into_iter(), &placed, now, &mut bytes);
    bytes
}

#[test]
fn a_fleet_has_its_own_requests_and_what_others_reported_and_keeps_these_apart() {
    let (mut one, mut two) = (router(1), router(2));
    let (mut a, mut b) = (fleet(&[5, 6]), fleet(&[6, 5, 7]));
    for request in 0..3 {
        a.chosen(0);
        a.sent(0, request, 1_000.0);
    }
    b.chosen(1);
    b.sent(1, 9, 1_000.0);
    two.hear(&speak(&mut a, &mut one, 0.0), 0.0);
    while two.merge(&mut b, LATER, 1) {}
    let column = |fleet: &Fleet| fleet.table.column(Stat::InFlight).to_vec();
    assert_eq!(column(&b), [0.0, 4.0, 0.0]);
    assert_eq!((b.table.own(Stat::InFlight, 1), b.table.others(Stat::InFlight, 1)), (1.0, 3.0));
    // What is reported of its own does not come back as others'.
    one.hear(&speak(&mut b, &mut two, 0.0), 0.0);
    one.merge(&mut a, LATER, 64);
    assert_eq!(column(&a), [4.0, 0.0]);
    // Own changes count at once, and on top.
    b.end(1, 9, 1_001.0, true);
    b.chosen(1);
    b.chosen(1);
    assert_eq!(column(&b), [0.0, 5.0, 0.0]);
    // An endpoint that is new here is known by then, and one that is gone leaves nothing behind.
    b.remove(1);
    b.add(8);
    two.merge(&mut b, LATER, 64);
    assert_eq!(column(&b), [0.0, 0.0, 0.0]);
    b.add(5);
    two.merge(&mut b, LATER, 64);
    assert_eq!(column(&b), [0.0, 0.0, 0.0, 3.0]);
    two.expire(GONE_AFTER);
    two.merge(&mut b, LATER, 64);
    assert_eq!(column(&b), [0.0; 4]);
}

#[test]
fn what_the_endpoint_says_of_others_counts_beside_these_only_once() {
    let (mut one, mut two) = (router(1), router(2));
    let (mut a, mut b) = (fleet(&[5]), fleet(&[5]));
    for request in 0..3 {
        a.chosen(0);
        a.sent(0, request, 1_000.0);
    }
    let Fleet { load, table, .. } = &mut b;
    load.elsewhere(table, 0, 4);
    two.hear(&speak(&mut a, &mut one, 0.0), 0.0);
    two.merge(&mut b, LATER, 64);
    assert_eq!(b.table.get(Stat::InFlight, 0), 4.0);
}

/// A fleet and its router, which knows how prompts are cut.
fn among(origin: u64, ids: &[u64]) -> (Fleet, Replicas) {
    let (mut fleet, mut router) = (fleet(ids), router(origin));
    router.begin(&mut fleet);
    (fleet, router)
}

/// A prompt that starts with these block keys goes to the row, and is answered.
fn serve(fleet: &mut Fleet, row: u32, id: u128, chain: &[u64], now: f64) {
    let size = 16 * chain.len() as u64;
    fleet.advance(now);
    fleet.chosen_for(row, &Prompt::new(chain.to_vec(), size, 16, Unit::Tokens), 0.0);
    fleet.sent(row, id, now);
    fleet.first_token(row, id, now + 0.5);
    fleet.usage(row, id, Some(size), Some(0), Some(30));
    fleet.end(row, id, now + 1.0, true);
}

fn held(fleet: &Fleet, row: u32, chain: &[u64]) -> u32 {
    let mut depths = Depths::default();
    fleet.index().read().match_into(chain, &mut depths);
    depths.of(row)
}

fn turn(turns: u64) -> Vec<u64> {
    (100..100 + 10 * turns).collect()
}

#[test]
fn a_prefix_that_one_router_placed_is_known_to_the_others_by_its_new_blocks_alone() {
    let ((mut a, mut one), (mut b, mut two)) = (among(1, &[5, 6]), among(2, &[6, 5]));
    let mut sizes = Vec::new();
    for turns in 1..=6 {
        let now = 1_000.0 + 2.0 * turns as f64;
        serve(&mut a, 0, u128::from(turns), &turn(turns), now);
        let bytes = speak(&mut a, &mut one, now);
        sizes.push(bytes.len());
        assert_eq!(two.hear(&bytes, now), Heard::News);
        two.merge(&mut b, LATER, 64);
        assert_eq!(held(&b, 1, &turn(turns)), 10 * turns as u32);
        assert_eq!(held(&b, 0, &turn(turns)), 0);
    }
    // A later turn costs what is new of it.
    assert!(sizes[5] < sizes[1] + 20, "{sizes:?}");
    // Who goes on from there says so by the key that both know.
    serve(&mut b, 0, 99, &turn(7), 2_000.0);
    one.hear(&speak(&mut b, &mut two, 2_000.0), 2_000.0);
    one.merge(&mut a, LATER, 64);
    assert_eq!((held(&a, 1, &turn(7)), held(&a, 0, &turn(7))), (70, 60));
    assert_eq!(one.placement_counts().unknown, 0);
}

#[test]
fn what_continues_an_unknown_prefix_is_left_out_until_it_is_told_whole() {
    let ((mut a, mut one), (mut b, mut two)) = (among(1, &[5]), among(2, &[5]));
    let mut known = 0;
    for turns in 1..=40 {
        let now = 1_000.0 + 2.0 * turns as f64;
        serve(&mut a, 0, u128::from(turns), &turn(turns), now);
        let bytes = speak(&mut a, &mut one, now);
        if turns > 1 {
            two.hear(&bytes, now); // the first is lost
        }
        two.merge(&mut b, LATER, 64);
        known = held(&b, 0, &turn(turns));
    }
    let counts = two.placement_counts();
    assert_eq!((known, counts.heard), (400, 39));
    assert!((1..=16).contains(&counts.unknown), "{counts:?}");
}

#[test]
fn prefixes_are_left_to_themselves_where_prompts_are_not_cut_alike_or_engines_tell() {
    let (mut a, mut one) = among(1, &[5]);
    serve(&mut a, 0, 1, &turn(1), 1_000.0);
    let bytes = speak(&mut a, &mut one, 1_000.0);
    let mut b = fleet(&[5]);
    let mut none = Replicas::new(Settings { grain: 0, ..router(2).settings() });
    none.begin(&mut b);
    assert_eq!(none.hear(&bytes, 1.0), Heard::News);
    none.merge(&mut b, LATER, 64);
    assert_eq!(held(&b, 0, &turn(1)), 0);
    // By KV events every router knows it from the engine itself.
    let told = Some((Reported { tokens: 0.0, exact: true }, 0.0));
    let size = 16 * 10;
    a.chosen_by(0, &Prompt::new(turn(1), size, 16, Unit::Tokens), 0.0, told);
    a.sent(0, 2, 1_010.0);
    a.first_token(0, 2, 1_011.0);
    let mut placed = Prefixes::default();
    a.take_placed(&mut placed);
    assert!(placed.is_empty());
}

#[test]
fn more_than_a_router_may_tell_a_second_is_told_by_its_head() {
    let (mut a, mut one) = among(1, &[5]);
    let long: Vec<u64> = (1_000..200_000).collect();
    a.table.set(Stat::KvCapacity, 0, 1e9);
    serve(&mut a, 0, 1, &long, 1_000.0);
    let bytes = speak(&mut a, &mut one, 1_000.0);
    assert!(bytes.len() < 140_000, "{}", bytes.len());
    assert_eq!(one.placement_counts().lost, 1);
    let (mut b, mut two) = among(2, &[5]);
    b.table.set(Stat::KvCapacity, 0, 1e9);
    two.hear(&bytes, 1.0);
    two.merge(&mut b, LATER, 64);
    assert_eq!(held(&b, 0, &long), 16_384);
}

#[test]
fn a_router_that_joins_takes_over_what_another_has_learned() {
    let ((mut a, mut one), (mut b, mut two)) = (among(1, &[5, 6]), among(2, &[7, 6, 5]));
    for request in 0..40_u64 {
        let (chain, now) = (turn(1 + request % 4), 1_000.0 + 2.0 * request as f64);
        serve(&mut a, (request % 2) as u32, u128::from(request), &chain, now);
    }
    let cold = b.engine();
    assert_ne!(a.engine().prefill, cold.prefill);
    // The newcomer hears the other, asks, and is answered.
    let mut now = 1_100.0;
    for _ in 0..4 {
        now += EVERY;
        one.answer(&a);
        let bytes = speak(&mut a, &mut one, now);
        two.hear(&bytes, now);
        two.merge(&mut b, LATER, 64);
        let bytes = speak(&mut b, &mut two, now);
        one.hear(&bytes, now);
    }
    assert!(two.has_joined());
    assert_eq!(b.engine().prefill, a.engine().prefill);
    assert_eq!(b.engine().output_tokens, a.engine().output_tokens);
    assert_eq!((held(&b, 2, &turn(4)), held(&b, 0, &turn(4))), (held(&a, 0, &turn(4)), 0));
    assert!(held(&b, 2, &turn(4)) > 0);
    // And goes on from there: what it tells is known to the other.
    serve(&mut b, 0, 99, &turn(5), 1_200.0);
    one.hear(&speak(&mut b, &mut two, 1_200.0), 1_200.0);
    assert_eq!(one.placement_counts().unknown, 0);
}

#[test]
fn who_knows_more_takes_nothing_over_and_who_knows_nothing_says_nothing() {
    let ((mut a, mut one), (mut b, mut two)) = (among(1, &[5]), among(2, &[5]));
    for request in 0..30_u64 {
        serve(&mut b, 0, u128::from(request), &turn(1), 1_000.0 + 2.0 * request as f64);
    }
    let before = b.engine();
    let mut now = 1_100.0;
    for _ in 0..100 {
        now += EVERY;
        one.answer(&a);
        two.answer(&b);
        let (said, answer) = (speak(&mut a, &mut one, now), speak(&mut b, &mut two, now));
        two.hear(&said, now);
        one.hear(&answer, now);
        two.merge(&mut b, LATER, 64);
    }
    assert_eq!((b.engine().prefill, two.has_joined()), (before.prefill, false));
    assert!(one.has_joined());
}
