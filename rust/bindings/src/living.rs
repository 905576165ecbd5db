//! All there are of a kind, for as long as they live.

use std::sync::{Arc, Weak};

use crate::locked::Locked;

/// Those that live, each behind its lock.
pub struct Living<T>(Locked<Vec<Weak<Locked<T>>>>);

impl<T: Send> Living<T> {
    pub const fn new() -> Self {
        Self(Locked::new(Vec::new()))
    }

    /// Behind a lock, and known.
    pub fn add(&self, value: T) -> Arc<Locked<T>> {
        let made = Arc::new(Locked::new(value));
        let weak = Arc::downgrade(&made);
        self.0.apart(|all, _| {
            if all.len() == all.capacity() {
                all.retain(|other| other.strong_count() > 0);
            }
            all.push(weak);
        });
        made
    }

    pub fn each(&self, f: impl Fn(&mut T) + Sync) {
        let all: Vec<_> = self.0.apart(|all, _| all.iter().filter_map(Weak::upgrade).collect());
        for one in &all {
            one.apart(|one, _| f(one));
        }
    }
}
