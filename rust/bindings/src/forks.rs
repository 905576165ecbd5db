//! What a fork means to routers and tables: the child draws otherwise, has nothing in flight, and
//! nobody waits there.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pyo3::prelude::*;
use routecore::hash::mix;

use crate::router_state::{ROUTER_STATES, RouterState};
use crate::rows::FLEETS;
use crate::threads;
use crate::tries::{HOLDS, Waiters};

/// Forks of this process so far.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Which child of which child this process is; 0 where none of ours was forked.
static LINEAGE: AtomicU64 = AtomicU64::new(0);

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
/// and so do its own children with theirs. Turns begin k places behind one that all children of the
/// process share, so that as many as there are endpoints begin at different ones.
#[pyfunction]
pub fn after_fork_in_child() {
    threads::open_gate();
    threads::alone();
    let (parent, nth) = (LINEAGE.load(Relaxed), FORKS.swap(0, Relaxed));
    let lineage = mix(parent ^ mix(nth));
    LINEAGE.store(lineage, Relaxed);
    ROUTER_STATES.each(|RouterState { router, seed, .. }| {
        router.reseed(mix(*seed ^ lineage), mix(*seed ^ parent).wrapping_add(nth));
    });
    FLEETS.each(|inner| inner.fleet.forked());
    HOLDS.each(Waiters::forked);
}
