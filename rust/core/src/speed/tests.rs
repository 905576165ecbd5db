//! What is learned, of engines whose speed is known.

use super::*;
use crate::load::{FirstToken, Served, Work};
use crate::rng::Rng;

fn work(prompt: f64, uncached: f64) -> Work {
    let (prompt_tokens, uncached_tokens) = (prompt as u64, uncached as u64);
    Work { prompt_tokens, uncached_tokens, has_room: true, ..Work::default() }
}

/// Tells of a first token on an engine that was free before, and that it was all of its step.
fn report(speed: &mut Speed, table: &mut StatTable, row: u32, seen: &FirstToken, clock: &mut f64) {
    *clock += 1e6;
    speed.first_token(table, row, seen, *clock);
    speed.pass(table, row, *clock + 1.0);
}

#[test]
fn constants_converge_on_engines_of_known_speed() {
    for factor in [0.2, 1.0, 5.0] {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(4));
        let (mut rng, mut clock) = (Rng::new(3), 0.0);
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
                came_beside: true,
                batch,
                context_tokens,
                work: work(prompt, uncached),
            };
            report(&mut speed, &mut table, row, &seen, &mut clock);
            let generated = 50 + rng.below(300) as u64;
            let seen = Served {
                decode_ms: a_step * (generated - 1) as f64 * noise,
                prefilled: [0.0; 3],
                context_tokens,
                batch,
                generated: Some(generated),
                whole: None,
            };
            speed.served(&mut table, row, &seen, clock + 500.0);
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
        speed.profile(now).prefill_rate * table.get(Stat::PrefillSent, row) / 1e3
    };
    // Past the age at which counting starts afresh, and from a clock that starts anywhere.
    for second in 0..10_000 {
        let now = 1.7e9 + f64::from(second);
        speed.sent(&mut table, 0, &Work { prefill_us: 300_000, ..Work::default() }, now);
        if second > 200 {
            // Between two of them.
            let share = share(&speed, &table, 0, now + 0.5);
            assert!((0.28..0.32).contains(&share), "{share} after {second} s");
        }
    }
    assert_eq!(share(&speed, &table, 1, 1.7e9 + 1e4), 0.0);
    assert!(share(&speed, &table, 0, 1.7e9 + 1.03e4) < 1e-4);
    assert!(share(&speed, &table, 0, f64::NAN).is_finite());
}

#[test]
fn on_engines_that_take_thirty_times_as_long_all_is_the_same_thirty_times_slower() {
    let shares = |slower: u32| {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
        let (mut rng, mut now) = (Rng::new(7), 0.0);
        let mut shares = Vec::new();
        for n in 0..2_000 {
            now += f64::from(slower) * 0.2 * rng.below(100) as f64 / 100.0;
            let prefill_us = u64::from(slower) * 3_000 * (5 + rng.below(100) as u64);
            speed.sent(&mut table, n % 2, &Work { prefill_us, ..Work::default() }, now);
            let rate = speed.profile(now).prefill_rate;
            shares.push([0, 1].map(|row| rate * table.get(Stat::PrefillSent, row) / 1e3));
        }
        shares
    };
    for (quick, slow) in shares(1).into_iter().zip(shares(30)) {
        for (quick, slow) in quick.into_iter().zip(slow) {
            assert!((quick - slow).abs() < 1e-9, "{quick} {slow}");
        }
    }
}

#[test]
fn garbage_makes_nothing_negative_or_runaway() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let (mut rng, mut clock) = (Rng::new(5), 0.0);
    let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300, 5.0, 1e6];
    for _ in 0..20_000 {
        let mut any = || odd[rng.below(odd.len())];
        let seen = FirstToken {
            waited_ms: any(),
            ahead: [any(), any(), any()],
            came_beside: false,
            batch: any(),
            context_tokens: any(),
            work: work(any(), any()),
        };
        report(&mut speed, &mut table, 0, &seen, &mut clock);
        let seen = Served {
            decode_ms: any(),
            prefilled: [any(), any(), any()],
            context_tokens: any(),
            batch: any(),
            generated: Some(any() as u64),
            whole: None,
        };
        speed.served(&mut table, 0, &seen, clock + 500.0);
        let learned = speed.profile(0.0);
        let slower = [Stat::PrefillSlowness, Stat::StepSlowness].map(|stat| table.get(stat, 0));
        for value in learned.prefill.into_iter().chain(learned.step).chain(slower) {
            assert!((0.0..1e5).contains(&value), "{learned:?} {slower:?}");
        }
        assert!((0.0..=lengths::MOST as f64).contains(&learned.output_tokens));
    }
}

#[test]
fn engines_alike_do_not_look_different() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(8));
    let (mut rng, mut clock) = (Rng::new(9), 0.0);
    let mut ratios = Vec::new();
    for _ in 0..8_000 {
        let row = rng.below(8) as u32;
        let uncached = 100.0 + 8_000.0 * rng.unit();
        let waited_ms = (5.0 + 0.03 * uncached) * (0.5 + 1.5 * rng.unit());
        let (batch, context_tokens, ahead) = (0.0, 0.0, [0.0; 3]);
        let work = work(uncached, uncached);
        let seen = FirstToken { waited_ms, ahead, came_beside: false, batch, context_tokens, work };
        report(&mut speed, &mut table, row, &seen, &mut clock);
        ratios.push(speed.rows[row as usize].slow_prefill());
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
    assert_eq!(speed.profile(1.0).reuse, 100.0);
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
    let mut clock = 0.0;
    for batch in [12.0, 299.0, 40.0, f64::NAN] {
        let (waited_ms, context_tokens, ahead) = (50.0, 0.0, [0.0; 3]);
        let seen = FirstToken {
            waited_ms,
            ahead,
            came_beside: false,
            batch,
            context_tokens,
            work: work(100.0, 100.0),
        };
        report(&mut speed, &mut table, 0, &seen, &mut clock);
    }
    assert_eq!((speed.profile(0.0).sequences * 1e3).round(), 299_700.0);
}

/// A request alone on an engine of these constants, which waited so long before its turn.
fn alone(c: [f64; 3], tokens: f64, before_ms: f64) -> FirstToken {
    let x = [1.0, tokens, pairs(tokens, tokens)];
    let waited_ms = before_ms + (0..3).map(|k| c[k] * x[k]).sum::<f64>();
    FirstToken {
        waited_ms,
        ahead: [0.0; 3],
        came_beside: false,
        batch: 0.0,
        context_tokens: 0.0,
        work: work(tokens, tokens),
    }
}

#[test]
fn a_queue_teaches_what_each_of_its_steps_took() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let (mut rng, truth, mut clock) = (Rng::new(4), [10.0, 0.02, 8e-7], 0.0);
    for _ in 0..4_000 {
        // Short ones behind long ones: what they wait for is not their own work.
        let mut waited = 0.0;
        clock += 1e5;
        for tokens in [4_000.0 + 20_000.0 * rng.unit(), 60.0 + 200.0 * rng.unit()] {
            let seen = alone(truth, tokens, waited);
            speed.first_token(&mut table, 0, &seen, clock + seen.waited_ms / 1e3);
            waited = seen.waited_ms;
        }
        speed.pass(&mut table, 0, clock + 1e4);
    }
    let [base, token, pair, _] = speed.profile(0.0).prefill;
    assert!((base / truth[0] - 1.0).abs() < 0.15, "{base}");
    assert!((token / truth[1] - 1.0).abs() < 0.15, "{token}");
    assert!((pair / truth[2] - 1.0).abs() < 0.15, "{pair}");
}

#[test]
fn prompts_of_one_step_are_one_sample() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let (mut rng, truth, mut clock) = (Rng::new(6), [10.0, 0.02, 0.0], 0.0);
    for _ in 0..300 {
        clock += 1e5;
        let each: [f64; 3] = std::array::from_fn(|_| 100.0 + (900.0 * rng.unit()).floor());
        let step = alone(truth, each.iter().sum(), 0.0).waited_ms;
        for tokens in each {
            let seen = FirstToken { waited_ms: step, ..alone(truth, tokens, 0.0) };
            speed.first_token(&mut table, 0, &seen, clock);
        }
        let seen = alone(truth, 3_000.0 * rng.unit() + 10.0, 0.0);
        report(&mut speed, &mut table, 0, &seen, &mut clock);
    }
    let [base, token, _, _] = speed.profile(0.0).prefill;
    assert!((base / truth[0] - 1.0).abs() < 0.1, "{base}");
    assert!((token / truth[1] - 1.0).abs() < 0.1, "{token}");
}

#[test]
fn the_scale_is_learned_at_once_and_outliers_do_not_move_it() {
    for factor in [1.0 / 3.0, 8.0, 30.0] {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
        let (mut rng, mut clock) = (Rng::new(7), 0.0);
        let [alone_ms, token, pair, _] = Profile::default().prefill;
        let truth = [alone_ms, token, pair].map(|c| c * factor);
        for n in 0..200 {
            let mut seen = alone(truth, 100.0 + 3_000.0 * rng.unit(), 0.0);
            if n >= 10 {
                // One in eight waits for something that nobody knows of, or finds it all done.
                seen.waited_ms *= if n % 8 == 0 { 50.0 } else { 1.0 };
                seen.waited_ms *= if n % 8 == 4 { 0.001 } else { 1.0 };
            }
            report(&mut speed, &mut table, 0, &seen, &mut clock);
            let off = speed.prefill_ms(0, 1_000.0, 1_000.0) / alone(truth, 1_000.0, 0.0).waited_ms;
            let bound = if n < 4 {
                2.0
            } else if n < 10 {
                1.25
            } else {
                1.6
            };
            assert!((1.0 / bound..bound).contains(&off), "{off} after {n}, ×{factor}");
        }
    }
}

#[test]
fn an_engine_that_changes_is_learned_anew_within_some_samples() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let mut clock = 0.0;
    // Quick errors that look like answers, then the engine itself again.
    for (factor, samples) in [(1.0, 400), (0.01, 40), (1.0, 40)] {
        let truth = [3.5, 0.05, 1.6e-6].map(|c| c * factor);
        for n in 0..samples {
            report(&mut speed, &mut table, 0, &alone(truth, 500.0 + f64::from(n), 0.0), &mut clock);
        }
        let off = speed.prefill_ms(0, 700.0, 700.0) / alone(truth, 700.0, 0.0).waited_ms;
        assert!((0.75..1.35).contains(&off), "{off} at ×{factor}");
    }
}

#[test]
fn what_is_mostly_a_step_says_little_of_prefill() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
    let (mut rng, mut clock) = (Rng::new(8), 0.0);
    for n in 0..2_000 {
        // Row 1 gets prompts of 59 tokens, and waits for whole steps where half of one is due.
        let row = n % 2;
        let tokens = if row == 1 { 59.0 } else { 4_000.0 * rng.unit() + 500.0 };
        let step = 13.7 * if row == 1 { 2.0 } else { 1.5 };
        let mut seen = alone([0.0, 0.05, 1.6e-6], tokens, step);
        (seen.batch, seen.came_beside) = (1.0, true);
        report(&mut speed, &mut table, row, &seen, &mut clock);
    }
    let slower = table.get(Stat::PrefillSlowness, 1) / table.get(Stat::PrefillSlowness, 0);
    assert!(slower < 1.15, "{slower}");
}

#[test]
fn answers_are_as_long_as_the_first_few_were() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    for n in 1..=400_u32 {
        let seen = Served {
            decode_ms: 500.0,
            prefilled: [0.0; 3],
            context_tokens: 0.0,
            batch: 1.0,
            generated: Some(if n % 2 == 0 { 30 } else { 42 }),
            whole: None,
        };
        speed.served(&mut table, 0, &seen, f64::from(n));
        if n >= 10 {
            let mean = speed.profile(0.0).output_tokens;
            assert!((mean / 36.0 - 1.0).abs() < 0.1, "{mean} after {n}");
        }
    }
}

#[test]
fn answers_in_one_piece_teach_how_quick_an_engine_is_in_all_and_nothing_drifts() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    let mut clock = 0.0;
    for n in 0..3_000 {
        clock += 1.0;
        // 400 ms for 800 tokens and an answer of eight, reported at its end.
        let seen = FirstToken { waited_ms: 400.0, ..alone([0.0; 3], 800.0, 0.0) };
        speed.first_token(&mut table, 0, &seen, clock);
        let seen = Served {
            decode_ms: 0.1,
            prefilled: [0.0; 3],
            context_tokens: 0.0,
            batch: 1.0,
            generated: Some(8),
            whole: None,
        };
        speed.served(&mut table, 0, &seen, clock);
        if n > 20 {
            let engine = speed.profile(0.0);
            let whole = speed.prefill_ms(0, 800.0, 800.0) + 7.0 * engine.step[0];
            assert!((whole / 400.0 - 1.0).abs() < 0.1, "{whole} after {n}");
            let shape = engine.prefill[1] / engine.step[0];
            assert!((shape / (0.05 / 13.7) - 1.0).abs() < 1e-6, "one scale for all: {shape}");
        }
    }
}

#[test]
fn answers_in_one_piece_do_not_look_quicker_where_there_are_more_of_them() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
    for n in 1..4_000_u32 {
        // Both take 400 ms, whatever else they do; row 0 has eight at once, row 1 two.
        let now = f64::from(n) * 0.05;
        for (row, at_once) in [(0, 8.0), (1, 2.0)] {
            if row == 1 && n % 4 != 0 {
                continue;
            }
            let seen = FirstToken {
                waited_ms: 400.0,
                ahead: [0.0; 3],
                came_beside: true,
                batch: at_once - 1.0,
                context_tokens: 500.0 * at_once,
                work: work(800.0, 800.0),
            };
            speed.first_token(&mut table, row, &seen, now);
            let seen = Served {
                decode_ms: 0.1,
                prefilled: [0.0; 3],
                context_tokens: 0.0,
                batch: at_once,
                generated: Some(8),
                whole: None,
            };
            speed.served(&mut table, row, &seen, now);
        }
    }
    for stat in [Stat::PrefillSlowness, Stat::StepSlowness] {
        let [often, seldom] = [0, 1].map(|row| table.get(stat, row));
        assert!((seldom / often - 1.0).abs() < 0.1, "{often} {seldom}");
    }
}

#[test]
fn the_first_burst_counts_as_the_load_it_is() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    for start in [0.0, 1.7e9] {
        for tenth in 0..50 {
            let now = start + 0.1 * f64::from(tenth);
            speed.sent(&mut table, 0, &Work { prefill_us: 60_000, ..Work::default() }, now);
        }
        let share = speed.profile(start + 5.0).prefill_rate * table.get(Stat::PrefillSent, 0) / 1e3;
        assert!((0.5..0.7).contains(&share), "{share}");
        (speed, table) = (Speed::new(Profile::default()), StatTable::scratch(1));
    }
}

#[test]
fn a_prefill_reported_just_after_an_answer_of_the_same_step_was_in_its_last_step() {
    for after in [true, false] {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
        let mut clock = 1.0;
        for n in 0..400_u32 {
            clock += 10.0;
            // Seven steps of 20 ms, and a prefill beside the last of them or after it.
            let tokens = 1_600.0 + f64::from(n % 7) * 100.0;
            let decode_ms = 140.0 + if after { 0.0625 * tokens } else { 0.0 };
            let seen = Served {
                decode_ms,
                prefilled: [0.0; 3],
                context_tokens: 0.0,
                batch: 1.0,
                generated: Some(8),
                whole: None,
            };
            speed.served(&mut table, 0, &seen, clock);
            let seen = alone([0.0, 0.0625, 0.0], tokens, 0.0);
            let came = if after { clock + 5e-4 } else { clock + 0.1 };
            speed.first_token(&mut table, 0, &seen, came);
            speed.pass(&mut table, 0, clock + 5.0);
        }
        let step = speed.profile(0.0).step;
        let ms = step[0] + step[1];
        assert!((ms / 20.0 - 1.0).abs() < 0.15, "{ms} {after}");
    }
}

#[test]
fn an_engine_that_works_on_several_prompts_at_once_is_as_quick_as_it_is_however_many_there_are() {
    let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
    let mut rng = Rng::new(3);
    for n in 0..4_000_u32 {
        // Each takes 200 ms, whatever else is there; row 0 has three times as many.
        let row = u32::from(rng.below(4) == 3);
        let now = f64::from(n) * 0.15;
        let seen = FirstToken { waited_ms: 200.0, ..alone([0.0; 3], 300.0, 0.0) };
        speed.first_token(&mut table, row, &seen, now);
    }
    let [often, seldom] = [0, 1].map(|row| table.get(Stat::PrefillSlowness, row));
    assert!((seldom / often - 1.0).abs() < 0.1, "{often} {seldom}");
    let took = speed.prefill_ms(0, 300.0, 300.0);
    assert!((150.0..250.0).contains(&took), "{took}");
}

#[test]
fn answers_that_outlive_their_lease_are_as_long_as_they_are() {
    let mut fleet = crate::Fleet::new(60.0, 600.0);
    let row = fleet.add(7);
    for n in 0..20_u32 {
        let at = 2_000.0 * f64::from(n);
        fleet.advance(at);
        fleet.sent(row, u128::from(n), at);
        fleet.first_token(row, u128::from(n), at + 1.0);
        fleet.advance(at + 900.0);
        assert_eq!(fleet.load.in_flight(), 0, "its lease ran out");
        fleet.usage(row, u128::from(n), None, None, Some(2_000));
        fleet.end(row, u128::from(n), at + 901.0, crate::health::Outcome::Served);
    }
    let learned = fleet.engine().output_tokens;
    assert!((learned - 2_000.0).abs() < 50.0, "{learned}");
    fleet.usage(row + 1, 99, None, None, Some(1));
    assert!((fleet.engine().output_tokens - learned).abs() < 1e-9, "of no endpoint");
}
