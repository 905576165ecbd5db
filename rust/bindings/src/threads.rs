//! Threads outside the interpreter, and how they end: when the process exits, and when it forks.
//!
//! Exit. A thread that comes back to an interpreter that is gone is killed in the middle of Rust,
//! which takes the process down. So nothing comes back once the exit has begun: such a thread
//! sleeps, and dies with the process. The exit waits for those that are inside already.
//!
//! Fork. Only the forking thread lives on in the child. So work that may hold a lock passes a gate
//! that the fork closes: no lock is held, and nothing is half done, at that moment.

// No Python object is behind these locks, and nothing of it is touched under them.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long a thread sleeps at exit: longer than exits take. It wakes in case it is waited for.
const SLEEP: Duration = Duration::from_secs(30);

/// Threads inside a call that may leave the interpreter, or run Python. Written by whoever holds
/// the interpreter alone, so that to count costs next to nothing.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Of these, how many sleep until the process ends.
static ASLEEP: AtomicUsize = AtomicUsize::new(0);
/// Woken when one of them leaves during an exit.
static LEFT: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
static EXITING: AtomicBool = AtomicBool::new(false);
/// The thread that ends the interpreter, which may do as it likes.
static EXITS: Mutex<Option<ThreadId>> = Mutex::new(None);
/// Open to work that may hold locks; closed while the process forks.
static GATE: RwLock<()> = RwLock::new(());

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static CLOSED: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

fn exiting() -> bool {
    EXITING.load(SeqCst)
}

/// Whether long work of this thread should stop: the process is about to end, by another.
pub fn must_stop() -> bool {
    exiting() && !exits()
}

/// A call in which this thread may leave the interpreter, or run Python: an exit waits for its end.
/// Held by threads that hold the interpreter, and so not [`Send`].
pub struct Inside(PhantomData<*const ()>);

impl Inside {
    #[inline]
    pub fn enter(py: Python<'_>) -> Self {
        let depth = DEPTH.get();
        if depth == 0 {
            if exiting() && !exits() {
                py.detach(|| thread::sleep(SLEEP));
            }
            count(1);
        }
        DEPTH.set(depth + 1);
        Self(PhantomData)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let depth = DEPTH.get().saturating_sub(1);
        DEPTH.set(depth);
        if depth == 0 {
            count(-1);
            if exiting() {
                notify();
            }
        }
    }
}

/// One more inside, or one less.
#[inline]
fn count(change: isize) {
    INSIDE.store(INSIDE.load(Relaxed).wrapping_add_signed(change), Release);
}

/// Tells the exit that there may be fewer.
#[cold]
fn notify() {
    let _held = LEFT.0.lock().unwrap_or_else(PoisonError::into_inner);
    LEFT.1.notify_all();
}

/// Whether this is the thread that ends the interpreter.
fn exits() -> bool {
    *EXITS.lock().unwrap_or_else(PoisonError::into_inner) == Some(thread::current().id())
}

/// Runs `f` outside the interpreter. It may hold locks, and should take milliseconds at most: a
/// fork waits for it.
pub fn detached<T: Send>(py: Python<'_>, f: impl FnOnce() -> T + Send) -> T {
    detached_long(py, || {
        let _open = GATE.read().unwrap_or_else(PoisonError::into_inner);
        f()
    })
}

/// Runs `f`, which holds no lock that others know, outside the interpreter. It should look at
/// [`must_stop`] now and then.
pub fn detached_long<T: Send>(py: Python<'_>, f: impl FnOnce() -> T + Send) -> T {
    let _inside = Inside::enter(py);
    if exiting() {
        return f(); // whoever leaves now might find nothing to come back to
    }
    py.detach(|| {
        let result = f();
        if exiting() {
            ASLEEP.fetch_add(1, SeqCst);
            notify();
            thread::sleep(SLEEP);
            ASLEEP.fetch_sub(1, SeqCst);
        }
        result
    })
}

/// Runs `f` in the interpreter again, in the middle of detached work that holds no lock.
pub fn attached<T>(f: impl FnOnce(Python<'_>) -> T) -> T {
    Python::attach(f)
}

/// The process is about to end: waits until no other thread is inside, so many seconds at most.
/// Returns how many still are.
#[pyfunction]
pub fn leave_interpreter(py: Python<'_>, seconds: f64) -> usize {
    *EXITS.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
    EXITING.store(true, SeqCst);
    let own = usize::from(DEPTH.get() > 0);
    let end = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    py.detach(|| {
        let mut held = LEFT.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let inside = INSIDE.load(Acquire).saturating_sub(own + ASLEEP.load(SeqCst));
            let left = end.saturating_duration_since(Instant::now());
            if inside == 0 || left.is_zero() {
                return inside;
            }
            held = LEFT.1.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    })
}

/// Closes the gate before a fork: waits for work that holds locks.
pub fn close_gate(py: Python<'_>) {
    py.detach(|| {
        let closed = GATE.write().unwrap_or_else(PoisonError::into_inner);
        CLOSED.set(Some(closed));
    });
}

/// Opens it again, in the parent and in the child.
pub fn open_gate() {
    CLOSED.take();
}

/// In the child of a fork: there is no thread but this one.
pub fn alone() {
    INSIDE.store(usize::from(DEPTH.get() > 0), Release);
    ASLEEP.store(0, SeqCst);
}
