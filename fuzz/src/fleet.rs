//! A fleet's life behind every strategy, with times that may be anything: counts stay right, and
//! whoever leaves leaves nothing. Also a test of the core, with the corpus.

use routecore::fleet::Lookup;
use routecore::prompt::Unit;
use routecore::strategy::Strategy;
use routecore::{Asked, Candidates, Fleet, Key, Params, Prompt, Router, Stat, View};

use super::Input;

fn prompt(input: &mut Input<'_>) -> Prompt {
    let mut last = 7_u64;
    let chain: Vec<u64> = (0..input.below(24))
        .map(|_| {
            last = routecore::hash::mix(last ^ u64::from(input.byte() & 1));
            last
        })
        .collect();
    let unit = if input.byte() & 1 == 0 { Unit::Bytes } else { Unit::Tokens };
    let size = if input.byte() == 0 { input.number() } else { 17 * chain.len() as u64 };
    Prompt::new(chain, size, 16, unit)
}

fn pick(router: &mut Router, fleet: &mut Fleet, ids: &[(u64, u32)], key: &Key) -> Option<u32> {
    let rows: Vec<u32> = ids.iter().map(|&(_, row)| row).collect();
    let order = (0..rows.len() as u32).collect();
    let candidates =
        Candidates::new(rows.clone(), ids.iter().map(|&(id, _)| id).collect(), Vec::new(), order);
    let mut lookup = Lookup::default();
    let mut asked = Asked::default();
    if let Key::Prompt(prompt) = key {
        lookup.find(&fleet.index().read(), prompt);
        let sizes = fleet.tokens(prompt);
        lookup.look(rows.iter().copied(), candidates.runs(), sizes, router.needs_in_use());
        asked = lookup.asked(sizes);
    }
    let view = View::new(&fleet.table, &candidates).asking(asked, fleet.engine());
    let (explained, scores) = router.explain(view, key);
    assert_eq!(scores.len(), rows.len());
    let at = router.pick(view, key)?;
    assert_eq!(explained, Some(at));
    let row = rows[at];
    match key {
        Key::Prompt(prompt) => fleet.chosen_for(row, prompt, view.cached(at)),
        _ => fleet.chosen(row),
    }
    Some(row)
}

/// One life, as the bytes say.
pub fn live(bytes: &[u8]) {
    let mut input = Input(bytes);
    let names = Strategy::NAMES;
    let name = names[usize::from(input.byte()) % names.len()];
    let mut params = Params::default();
    if name == "weighted_score" {
        params.weights = [("in_flight".to_owned(), 1.0), ("qps".to_owned(), -2.0)].into();
    }
    let Ok(mut router) = Router::new(name, params, 1) else { return };
    let mut fleet = Fleet::new(60.0, 50.0);
    fleet.set_kv_tokens(f64::from(input.byte()) * 8.0);
    let mut ids: Vec<(u64, u32)> = Vec::new();
    let mut now = 1_000.0;
    while !input.is_over() {
        now += f64::from(input.below(16)) / 8.0;
        let turn = input.byte();
        let time = if turn & 128 == 0 { now } else { input.float() };
        let request = u128::from(input.below(8));
        let some =
            |at: u8, ids: &[(u64, u32)]| ids.get(usize::from(at) % ids.len().max(1)).copied();
        let row = some(input.byte(), &ids).map(|(_, row)| row);
        match (turn % 16, row) {
            (0, _) | (_, None) => {
                let id = u64::from(input.below(6));
                if !ids.iter().any(|&(other, _)| other == id) {
                    ids.push((id, fleet.add(id)));
                }
            }
            (1, Some(row)) => {
                fleet.remove(row);
                ids.retain(|&(_, other)| other != row);
            }
            (2, Some(row)) => fleet.first_token(row, request, time),
            (3, Some(row)) => fleet.end(row, request, time, true),
            (4, Some(row)) => fleet.end(row, request, time, false),
            (5, Some(row)) => {
                let counts = [input.number(), input.number(), input.number()].map(Some);
                fleet.usage(row, request, counts[0], counts[1], counts[2]);
            }
            (6, Some(row)) => {
                let (table, load) = (&mut fleet.table, &mut fleet.load);
                load.elsewhere(table, row, u32::from(input.byte()));
            }
            (7, Some(row)) => fleet.table.set(Stat::KvCapacity, row, input.float()),
            (8, Some(row)) => fleet.cache_lost(row),
            (9, Some(row)) => fleet.restarted(row),
            (10, Some(row)) => fleet.reserve(row, request, time),
            (11, _) => fleet.advance(time),
            (_, Some(_)) => {
                let key = match turn >> 4 & 3 {
                    0 => Key::None,
                    1 => Key::Session(input.number()),
                    _ => Key::Prompt(prompt(&mut input)),
                };
                if let Some(row) = pick(&mut router, &mut fleet, &ids, &key)
                    && turn & 64 == 0
                {
                    fleet.sent(row, request, time);
                }
            }
        }
        for &(_, row) in &ids {
            let count = fleet.table.get(Stat::InFlight, row);
            assert!((0.0..1e6).contains(&count), "{count}");
            let index = fleet.index();
            assert!(index.read().pinned(row) <= index.read().held(row));
        }
    }
    for (_, row) in ids {
        fleet.remove(row);
    }
    assert_eq!(fleet.load.in_flight(), 0);
    assert_eq!(fleet.index().read().runs(), 0);
}
