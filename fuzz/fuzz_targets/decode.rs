//! One KV event message: whatever its bytes, no panic, and nothing that lies outside of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routecore::exact::decode::decode;
use routecore::exact::event::{Batch, Event};

fuzz_target!(|bytes: &[u8]| {
    let mut batch = Batch::default();
    if decode(bytes, &mut batch).is_err() {
        return;
    }
    assert!(batch.tokens.len() + batch.hashes.len() + batch.extras.len() <= 3 * bytes.len());
    for event in &batch.events {
        if let Event::Stored(stored) = event {
            assert!(batch.tokens.get(stored.tokens.clone()).is_some());
            assert!(batch.hashes.get(stored.hashes.clone()).is_some());
            assert!(batch.extras.get(stored.extras.clone()).is_some());
        }
    }
});
