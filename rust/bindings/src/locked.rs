//! Locks under which nothing foreign can run.
//!
//! A finalizer, a getter or an `__eq__` may call this module again, or let another thread run that
//! does: with a lock held that is a deadlock. So what is locked is reached by a closure alone, and
//! the closure is [`Send`]: neither a `Python` token nor a bound object fits in, so nothing can be
//! called, compared, made or raised there. [`Quiet`] offers what is harmless. Python objects stored
//! under a lock are [`Kept`]: dropped there, they are put aside and freed once the lock is open.

#![allow(clippy::disallowed_types)] // here they are wrapped

use std::any::Any;
use std::mem::{swap, take};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::threads::Inside;

/// A mutex of this module's.
#[derive(Debug, Default)]
pub struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Runs `f` over what is locked, and frees afterwards what was dropped meanwhile.
    #[inline]
    pub fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut T, &Quiet<'_>) -> R + Send,
    ) -> R {
        let result = f(&mut self.open(), &Quiet { py, held: Held(()) });
        free(py);
        result
    }

    /// The same for threads that have left the interpreter, and for what has no Python object.
    pub fn apart<R: Send>(&self, f: impl FnOnce(&mut T, &Held) -> R + Send) -> R {
        f(&mut self.open(), &Held(()))
    }

    /// The same under another lock.
    #[inline]
    pub fn inside<R>(&self, _: &Held, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.open())
    }

    /// Locks even behind a thread that panicked: counts may be off by one, the router lives.
    #[inline]
    fn open(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A shared lock as the core has it.
pub type Raw<T> = RwLock<T>;

/// A lock that readers share.
#[derive(Debug)]
pub struct Shared<T>(RwLock<T>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// Runs `f` beside other readers. A reader tries `spins` times before it sleeps.
    pub fn read<R: Send>(&self, spins: usize, f: impl FnOnce(&T) -> R + Send) -> R {
        for _ in 0..spins {
            if let Ok(value) = self.0.try_read() {
                return f(&value);
            }
            std::hint::spin_loop();
        }
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `f` alone.
    pub fn write<R: Send>(&self, f: impl FnOnce(&mut T) -> R + Send) -> R {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// For the core, which writes in small steps and knows no Python.
    pub fn raw(&self) -> &Raw<T> {
        &self.0
    }
}

/// What may be done with Python objects under a lock: nothing that runs code or frees an object.
pub struct Quiet<'py> {
    py: Python<'py>,
    held: Held,
}

/// Says that a lock is held, and so that all around is [`Send`].
pub struct Held(());

impl Deref for Quiet<'_> {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Quiet<'_> {
    /// One more reference to an object that is kept.
    pub fn another<T>(&self, object: &Py<T>) -> Py<T> {
        object.clone_ref(self.py)
    }

    pub fn len(&self, list: &Py<PyList>) -> usize {
        list.bind(self.py).len()
    }

    /// Whether this very object stands at that place of the list.
    pub fn stands(&self, list: &Py<PyList>, at: usize, object: &Py<PyAny>) -> bool {
        let list = list.bind(self.py);
        // A place beyond the end would raise, which makes an object.
        at < list.len() && list.get_item(at).is_ok_and(|found| found.is(object.bind(self.py)))
    }
}

/// Python objects that are stored under a lock; what they are is up to `T`.
#[derive(Default)]
pub struct Kept<T: Foreign>(T);

/// Holds references to Python objects, and is nothing by default.
pub trait Foreign: Default + Send + 'static {
    fn is_nothing(&self) -> bool;
}

impl<T: Send + 'static> Foreign for Option<T> {
    fn is_nothing(&self) -> bool {
        self.is_none()
    }
}

impl<T: Foreign> Kept<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Exchanges what is kept; the caller frees what it gets, once no lock is held.
    pub fn swap(&mut self, value: &mut T) {
        swap(&mut self.0, value);
    }

    /// What was kept; there is nothing left. Free it once no lock is held.
    pub fn take(&mut self) -> T {
        take(&mut self.0)
    }
}

impl<T: Foreign> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Foreign> Drop for Kept<T> {
    fn drop(&mut self) {
        if !self.0.is_nothing() {
            let value = Box::new(self.take());
            ASIDE.lock().unwrap_or_else(PoisonError::into_inner).push(value);
            WAITING.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was dropped and is not freed yet, and how much that is.
static ASIDE: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Frees what was put aside. Runs anybody's code: a token says that it may.
#[inline]
pub fn free(py: Python<'_>) {
    if WAITING.load(Ordering::Relaxed) > 0 {
        free_now(py);
    }
}

#[cold]
fn free_now(py: Python<'_>) {
    let _inside = Inside::enter(py);
    let waiting = take(&mut *ASIDE.lock().unwrap_or_else(PoisonError::into_inner));
    WAITING.fetch_sub(waiting.len(), Ordering::Relaxed);
    drop(waiting);
}
