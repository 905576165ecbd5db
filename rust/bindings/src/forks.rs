//! What a fork means to routers and tables: the child draws otherwise, and has nothing in flight.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use pyo3::prelude::*;
use routecore::hash::mix;

use crate::desk::Desk;
use crate::locked::Locked;
use crate::rows::Inner;
use crate::threads;

/// Forks of this process so far.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Which child of which child this process is; 0 where none of ours was forked.
static LINEAGE: AtomicU64 = AtomicU64::new(0);

/// All there are of a kind, for as long as they live.
pub struct Known<T>(Locked<Vec<Weak<Locked<T>>>>);

pub static DESKS: Known<Desk> = Known(Locked::new(Vec::new()));
pub static TABLES: Known<Inner> = Known(Locked::new(Vec::new()));

impl<T: Send> Known<T> {
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

    fn each(&self, f: impl Fn(&mut T) + Sync) {
        let all: Vec<_> = self.0.apart(|all, _| all.iter().filter_map(Weak::upgrade).collect());
        for one in &all {
            one.apart(|one, _| f(one));
        }
    }
}

/// Before a fork: no lock of ours is held from now on.
#[pyfunction]
pub fn before_fork(py: Python<'_>) {
    threads::close_gate(py);
    FORKS.fetch_add(1, Relaxed);
}

/// After it, in the parent.
#[pyfunction]
pub fn after_fork_in_parent() {
    threads::open_gate();
}

/// After it, in the child. The k-th child of a process draws from its routers' seeds mixed with k,
/// and so do its own children with theirs.
#[pyfunction]
pub fn after_fork_in_child() {
    threads::open_gate();
    threads::alone();
    let lineage = mix(LINEAGE.load(Relaxed) ^ mix(FORKS.swap(0, Relaxed)));
    LINEAGE.store(lineage, Relaxed);
    DESKS.each(|desk| desk.router.reseed(mix(desk.seed ^ lineage)));
    TABLES.each(|inner| inner.fleet.forked());
}
