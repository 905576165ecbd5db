//! What is learned, of engines whose speed is known.

use super::*;
use crate::load::Work;
use crate::rng::Rng;

fn work(prompt: f64, uncached: f64) -> Work {
    let (prompt_tokens, uncached_tokens) = (prompt as u64, uncached as u64);
    Work { prompt_tokens, uncached_tokens, has_room: true, ..Work::default() }
}

#[test]
fn constants_converge_on_engines_of_known_speed() {
    for factor in [0.2, 1.0, 5.0] {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(4));
        let mut rng = Rng::new(3);
        let prefill = [10.0, 0.02, 8e-7].map(|c| c * factor);
        let step = [6.4, 0.05, 5e-5].map(|c| c * factor);
        let time = |c: [f64; 3], x: [f64; 3]| c[0] * x[0] + c[1] * x[1] + c[2] * x[2];
        for _ in 0..20_000 {
            let row = rng.below(4) as u32;
            let slow = if row == 3 { 3.0 } else { 1.0 };
            let prompt = 500.0 + 20_000.0 * rng.unit();
            let uncached = (prompt * rng.unit()).max(1.0).floor();
            let (batch, context_tokens) = (1.0 + 60.0 * rng.unit(), 400_000.0 * rng.unit());
            let x = [1.0, uncached, pairs(prompt, uncached)];
            let noise = 0.9 + 0.2 * rng.unit();
            let a_step = slow * time(step, [1.0, batch, context_tokens]);
            let seen = FirstToken {
                waited_ms: slow * time(prefill, x) * noise + 1.5 * a_step,
                ahead: [0.0; 3],
                batch,
                context_tokens,
                work: work(prompt, uncached),
            };
            speed.first_token(&mut table, row, &seen);
            let generated = 50 + rng.below(300) as u64;
            let seen = Served {
                decode_ms: a_step * (generated - 1) as f64 * noise,
                prefill_ms: 0.0,
                context_tokens,
                batch,
                generated: Some(generated),
            };
            speed.served(&mut table, row, &seen);
        }
        for (row, slow) in [(0, 1.0), (3, 3.0)] {
            let near = |what: &str, learned: f64, truth: f64| {
                let off = learned / truth - 1.0;
                assert!(off.abs() < 0.15, "{what} of row {row}: {off:+.2} off, ×{factor}");
            };
            let learned = speed.profile(0.0);
            let slower = [Stat::PrefillSlowness, Stat::StepSlowness];
            let [slow_prefill, slow_step] = slower.map(|stat| table.get(stat, row));
            near("a token", slow_prefill * learned.prefill[1], slow * prefill[1]);
            near("a pair", slow_prefill * learned.prefill[2], slow * prefill[2]);
            near("a step", slow_step * learned.step[0], slow * step[0]);
            near("context", slow_step * learned.step[2], slow * step[2]);
        }
        assert!((speed.profile(0.0).output_tokens / 200.0 - 1.0).abs() < 0.15);
    }
}

#[test]
fn what_was_sent_is_a_share_of_the_time_of_its_row_and_fades() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
    let share = |speed: &Speed, table: &StatTable, row, now| {
        speed.profile(now).rate * table.get(Stat::PrefillSent, row) / 1e3
    };
    // Past the age at which counting starts afresh, and from a clock that starts anywhere.
    for second in 0..10_000 {
        let now = 1.7e9 + f64::from(second);
        speed.sent(&mut table, 0, &Work { prefill_us: 300_000, ..Work::default() }, now);
        if second > 200 {
            let share = share(&speed, &table, 0, now);
            assert!((0.28..0.32).contains(&share), "{share} after {second} s");
        }
    }
    assert_eq!(share(&speed, &table, 1, 1.7e9 + 1e4), 0.0);
    assert!(share(&speed, &table, 0, 1.7e9 + 1.03e4) < 1e-4);
    assert!(share(&speed, &table, 0, f64::NAN).is_finite());
}

#[test]
fn garbage_makes_nothing_negative_or_runaway() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let mut rng = Rng::new(5);
    let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300, 5.0, 1e6];
    for _ in 0..20_000 {
        let mut any = || odd[rng.below(odd.len())];
        let seen = FirstToken {
            waited_ms: any(),
            ahead: [any(), any(), any()],
            batch: any(),
            context_tokens: any(),
            work: work(any(), any()),
        };
        speed.first_token(&mut table, 0, &seen);
        let seen = Served {
            decode_ms: any(),
            prefill_ms: any(),
            context_tokens: any(),
            batch: any(),
            generated: Some(any() as u64),
        };
        speed.served(&mut table, 0, &seen);
        let learned = speed.profile(0.0);
        let slower = [Stat::PrefillSlowness, Stat::StepSlowness].map(|stat| table.get(stat, 0));
        for value in learned.prefill.into_iter().chain(learned.step).chain(slower) {
            assert!((0.0..1e5).contains(&value), "{learned:?} {slower:?}");
        }
        assert!((0.0..=MOST_OUTPUT as f64).contains(&learned.output_tokens));
    }
}

#[test]
fn engines_alike_do_not_look_different() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(8));
    let mut rng = Rng::new(9);
    let mut ratios = Vec::new();
    for _ in 0..8_000 {
        let row = rng.below(8) as u32;
        let uncached = 100.0 + 8_000.0 * rng.unit();
        let waited_ms = (5.0 + 0.03 * uncached) * (0.5 + 1.5 * rng.unit());
        let (batch, context_tokens, ahead) = (0.0, 0.0, [0.0; 3]);
        let work = work(uncached, uncached);
        let seen = FirstToken { waited_ms, ahead, batch, context_tokens, work };
        speed.first_token(&mut table, row, &seen);
        ratios.push(speed.rows[row as usize].prefill.value());
    }
    let equal = ratios.iter().filter(|ratio| (*ratio - 1.0).abs() < 0.02).count();
    assert!(equal * 10 > ratios.len() * 9, "{equal} of {}", ratios.len());
}

#[test]
fn what_is_computed_counts_as_often_as_it_is_asked_for_again() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    assert_eq!(speed.profile(0.0).reuse, 0.0);
    for _ in 0..3_000 {
        speed.sent(&mut table, 0, &work(1_000.0, 100.0), 1.0);
    }
    assert!((speed.profile(1.0).reuse - 9.0).abs() < 0.01);
    for _ in 0..30_000 {
        speed.sent(&mut table, 0, &work(1_000.0, 1.0), 1.0);
    }
    assert_eq!(speed.profile(1.0).reuse, MOST_REUSE);
}

#[test]
fn a_newcomer_is_taken_to_have_had_its_share() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
    for (row, requests) in [(0, 30), (1, 10)] {
        (0..requests).for_each(|_| speed.sent(&mut table, row, &work(100.0, 100.0), 5.0));
    }
    let row = table.add(7);
    speed.join(&mut table, row);
    let sent = |row| table.get(Stat::RequestsSent, row);
    assert!((sent(row) / f64::midpoint(sent(0), sent(1)) - 1.0).abs() < 1e-9);
}

#[test]
fn a_batch_is_as_large_as_it_was_seen() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    for batch in [12.0, 299.0, 40.0, f64::NAN] {
        let (waited_ms, context_tokens, ahead) = (50.0, 0.0, [0.0; 3]);
        let seen = FirstToken { waited_ms, ahead, batch, context_tokens, work: work(100.0, 100.0) };
        speed.first_token(&mut table, 0, &seen);
    }
    assert_eq!((speed.profile(0.0).sequences * 1e3).round(), 299_700.0);
}

#[test]
fn a_queue_teaches_what_those_in_it_cost() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let (mut rng, truth) = (Rng::new(4), [10.0, 0.02, 8e-7]);
    for _ in 0..4_000 {
        // Short ones behind long ones: what they wait for is not their own work, times so many.
        let (mut ahead, own) = ([0.0; 3], 60.0 + 200.0 * rng.unit());
        for _ in 0..rng.below(4) {
            let tokens = 4_000.0 + 20_000.0 * rng.unit();
            let long = [1.0, tokens, pairs(tokens, tokens)];
            ahead = std::array::from_fn(|k| ahead[k] + long[k]);
        }
        let x = [1.0, own, pairs(own, own)];
        let steps = STEPS_WAITED * Profile::default().step[0];
        let waited_ms = steps + (0..3).map(|k| truth[k] * (ahead[k] + x[k])).sum::<f64>();
        let (batch, context_tokens) = (0.0, 0.0);
        let seen = FirstToken { waited_ms, ahead, batch, context_tokens, work: work(own, own) };
        speed.first_token(&mut table, 0, &seen);
    }
    let [_, token, pair] = speed.profile(0.0).prefill;
    assert!((token / truth[1] - 1.0).abs() < 0.15, "{token}");
    assert!((pair / truth[2] - 1.0).abs() < 0.15, "{pair}");
}
