//! A pick allocates nothing once a strategy has seen its fleet and its windows are full; neither
//! does the look at the prefix index before it. Counted by thread: what the harness does beside a
//! test is not the test's.

use allocation_counter::measure;
use routecore::fleet::Lookup;
use routecore::hash::{PrefixHasher, endpoint_id, session_key};
use routecore::index::PrefixIndex;
use routecore::prompt::{BlockHasher, Unit};
use routecore::speed::Profile;
use routecore::strategy::Strategy;
use routecore::{Candidates, Fleet, Key, Params, Prompt, Router, Stat, StatTable, View};

fn key_of(name: &str, request: u32) -> Key {
    match name {
        "session_affinity" => Key::Session(session_key(&request.to_le_bytes(), 0)),
        _ => {
            let mut hasher = PrefixHasher::new(128, 0);
            hasher.feed(&[7; 128]);
            hasher.feed(&(request % 5000).to_le_bytes().repeat(200));
            Key::Prefix(hasher.finish())
        }
    }
}

#[test]
fn a_pick_allocates_nothing() {
    let n = 64;
    let mut table = StatTable::scratch(n);
    for row in 0..n as u32 {
        // Every third endpoint lacks its scraped stats: the neutral value is needed too.
        for &stat in Stat::ALL.iter().filter(|_| row % 3 > 0) {
            table.set(stat, row, f64::from(row % 5));
        }
    }
    let rows: Vec<u32> = (0..n as u32).collect();
    let ids = rows.iter().map(|row| endpoint_id(&row.to_le_bytes())).collect();
    let candidates = Candidates::new(rows.clone(), ids, Vec::new(), rows);
    for &name in Strategy::NAMES {
        let mut params = Params::default();
        if name == "weighted_score" {
            params.weights = ["qps", "gpu_cache_usage_perc"].map(|s| (s.to_owned(), 1.0)).into();
        }
        let mut router = Router::new(name, params, 7).unwrap();
        let view = View::new(&table, &candidates);
        for request in 0..10_000 {
            router.pick(view, &key_of(name, request));
        }
        let keys: Vec<Key> = (0..20_000).map(|request| key_of(name, request)).collect();
        let seen = measure(|| {
            for key in &keys {
                assert!(router.pick(view, key).is_some());
            }
        });
        assert_eq!(seen.count_total, 0, "{name}");
    }
}

fn prompt_of(request: u32) -> Prompt {
    let mut hasher = BlockHasher::new(64, Unit::Bytes, 0);
    hasher.feed(&[7; 1024]);
    hasher.feed(&(request % 500).to_le_bytes().repeat(512));
    hasher.finish()
}

#[test]
fn a_pick_by_prompt_allocates_nothing_its_lookup_included() {
    let n = 64;
    let mut table = StatTable::scratch(n);
    let mut index = PrefixIndex::new(1 << 20);
    let prompts: Vec<Prompt> = (0..500).map(prompt_of).collect();
    for row in 0..n as u32 {
        for &stat in Stat::ALL.iter().filter(|_| row % 3 > 0) {
            table.set(stat, row, f64::from(row % 5));
        }
        for prompt in prompts.iter().skip(row as usize).step_by(3) {
            index.pin(row, &prompt.chain);
        }
    }
    let rows: Vec<u32> = (0..n as u32).collect();
    let ids = rows.iter().map(|&row| u64::from(row)).collect();
    let candidates = Candidates::new(rows.clone(), ids, Vec::new(), rows.clone());
    let keys: Vec<Key> = prompts.iter().cloned().map(Key::Prompt).collect();
    for &name in Strategy::NAMES {
        let mut params = Params::default();
        if name == "weighted_score" {
            params.weights = [("qps".to_owned(), 1.0)].into();
        }
        let mut router = Router::new(name, params, 7).unwrap();
        let mut lookup = Lookup::default();
        let mut round = || {
            for (key, prompt) in keys.iter().zip(&prompts) {
                lookup.find(&index, prompt);
                lookup.look(rows.iter().copied(), &[], (5_000.0, 16.0), true);
                let asked = lookup.asked((5_000.0, 16.0));
                let view = View::new(&table, &candidates).asking(asked, Profile::default());
                assert!(router.pick(view, key).is_some());
            }
        };
        for _ in 0..5 {
            round(); // fills windows
        }
        let seen = measure(|| (0..5).for_each(|_| round()));
        assert_eq!(seen.count_total, 0, "{name}");
    }
}

#[test]
fn a_prompt_held_already_is_pinned_and_let_go_without_allocating() {
    let mut fleet = Fleet::new(60.0, 600.0);
    let row = fleet.add(1);
    fleet.advance(1.0);
    let prompt = prompt_of(1);
    let mut turn = |request: u128| {
        fleet.chosen_for(row, &prompt, 0.0);
        fleet.sent(row, request, 1.0);
        // Later than any error: what came at once would not be taken for computed.
        fleet.first_token(row, request, 3.0);
        fleet.end(row, request, 3.0, false);
    };
    for request in 0..5_000 {
        turn(request);
    }
    let seen = measure(|| (5_000..6_000).for_each(&mut turn));
    // One a request: the list of flights under its name; windows and queues grow now and then.
    assert!(seen.count_total >= 1_000 && seen.count_total <= 1_010, "{seen:?}");
}
