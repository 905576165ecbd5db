//! Maps over small dense keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use routecore::hash::mix;

/// Spreads small dense keys; not for keys an adversary chooses.
#[derive(Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, key: u32) {
        self.write_u64(u64::from(key));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = mix(self.0.rotate_left(32) ^ key);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map over such keys.
pub type MixedMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixed>>;
