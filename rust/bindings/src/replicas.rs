//! This router among those beside it: bytes in, bytes out, and the fleet between.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use routecore::Stat;
use routecore::fleet::Prefixes;
use routecore::hash::endpoint_id;
use routecore::register::{Field, Register};
use routecore::replicas::{self, Heard, Ignored, Settings};

use crate::errors::{guarded, to_py};
use crate::locked::Locked;
use crate::rows::Inner as Rows;
use crate::table::Table;
use crate::views::ResidentRequestStats;

/// Endpoints whose sums are brought up to date under one turn of the table's lock: a pick waits
/// for no more than these.
const AT_ONCE: usize = 32;

/// What other routers of a group have in flight, added to a table.
#[pyclass(frozen)]
pub struct Replicas {
    inner: Locked<Inner>,
    rows: Arc<Locked<Rows>>,
}

struct Inner {
    replicas: replicas::Replicas,
    own: Vec<(u64, Register)>,
    placed: Prefixes,
}

#[pymethods]
impl Replicas {
    #[new]
    #[pyo3(signature = (table, *, group, grain=0, origin, epoch, every=0.05))]
    fn new(
        table: &Bound<'_, Table>,
        group: &str,
        grain: u64,
        origin: u64,
        epoch: u64,
        every: f64,
    ) -> PyResult<Self> {
        if !(0.001..=1.0).contains(&every) {
            return Err(to_py(format!("every: expected from 0.001 to 1 second, got {every}")));
        }
        let settings =
            Settings { group: endpoint_id(group.as_bytes()), grain, origin, epoch, every };
        let mut replicas = replicas::Replicas::new(settings);
        let rows = Arc::clone(&table.get().inner);
        guarded(|| {
            rows.apart(|rows, _| replicas.begin(&mut rows.fleet));
            Ok(Self {
                inner: Locked::new(Inner {
                    replicas,
                    own: Vec::new(),
                    placed: Prefixes::default(),
                }),
                rows,
            })
        })
    }

    /// The message that is to be sent now, if there is one.
    fn tell<'py>(&self, py: Python<'py>, now: f64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let message = guarded(|| {
            Ok(self.inner.apart(|inner, held| {
                let Inner { replicas, own, placed } = inner;
                if !replicas.is_due(now) {
                    return None;
                }
                own.clear();
                self.rows.inside(held, |rows| {
                    replicas::own(&mut rows.fleet, own);
                    rows.fleet.take_placed(placed);
                    replicas.answer(&rows.fleet);
                });
                let mut bytes = Vec::new();
                replicas.tell(own.iter().copied(), placed, now, &mut bytes).then_some(bytes)
            }))
        })?;
        Ok(message.map(|bytes| PyBytes::new(py, &bytes)))
    }

    /// A message came. What it was worth: "news", "own", or why it is ignored; whose it was; and
    /// whether that should be logged.
    fn hear(&self, message: PyBackedBytes, now: f64) -> PyResult<(&'static str, u64, bool)> {
        let heard =
            guarded(|| Ok(self.inner.apart(|inner, _| inner.replicas.hear(&message, now))))?;
        self.pass_time(now)?;
        Ok(match heard {
            Heard::News => ("news", 0, false),
            Heard::Own => ("own", 0, false),
            Heard::Ignored { why, origin, first } => (why.name(), origin, first),
        })
    }

    /// Time passes: who fell silent is gone, and sums are brought up to date.
    fn pass_time(&self, now: f64) -> PyResult<()> {
        guarded(|| {
            self.inner.apart(|inner, _| inner.replicas.expire(now));
            self.merge(now);
            Ok(())
        })
    }

    /// The message that this router leaves.
    fn bye<'py>(&self, py: Python<'py>, now: f64) -> PyResult<Bound<'py, PyBytes>> {
        let mut bytes = Vec::new();
        guarded(|| {
            self.inner.apart(|inner, _| inner.replicas.bye(now, &mut bytes));
            Ok(())
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// What others reported counts no more.
    fn clear(&self) -> PyResult<()> {
        guarded(|| {
            self.inner.apart(|inner, _| inner.replicas.clear());
            self.merge(0.0);
            Ok(())
        })
    }

    /// Each router that is heard: its origin, seconds since its last word, and endpoints on which
    /// it has anything.
    fn peers(&self, now: f64) -> PyResult<Vec<(u64, f64, usize)>> {
        guarded(|| {
            Ok(self.inner.apart(|inner, _| {
                let seen = inner.replicas.seen();
                seen.map(|peer| (peer.origin, (now - peer.heard).max(0.0), peer.endpoints))
                    .collect()
            }))
        })
    }

    /// By name: messages sent, their bytes, messages that counted, bytes of all that came, conflicts,
    /// placements sent, heard, unknown and lost; seconds that a message is under way; and ignored
    /// messages by reason.
    #[allow(clippy::type_complexity)]
    fn counts(&self) -> PyResult<(Vec<(&'static str, u64)>, f64, Vec<(&'static str, u64)>)> {
        guarded(|| {
            Ok(self.inner.apart(|inner, _| {
                let (counts, delay) = (inner.replicas.counts(), inner.replicas.delay());
                let placed = inner.replicas.placement_counts();
                let ignored =
                    Ignored::ALL.iter().map(|&why| (why.name(), counts.ignored[why as usize]));
                let named = vec![
                    ("sent", counts.sent),
                    ("sent_bytes", counts.sent_bytes),
                    ("heard", counts.heard),
                    ("heard_bytes", counts.heard_bytes),
                    ("conflicts", counts.conflicts),
                    ("placements_sent", placed.sent),
                    ("placements_heard", placed.heard),
                    ("placements_unknown", placed.unknown),
                    ("placements_lost", placed.lost),
                ];
                (named, delay, ignored.collect())
            }))
        })
    }

    /// Whether what another router had learned was taken over.
    fn has_joined(&self) -> PyResult<bool> {
        guarded(|| Ok(self.inner.apart(|inner, _| inner.replicas.has_joined())))
    }

    /// What became of others' hints at endpoints that fail: doubted now, doubts since the start, of these
    /// confirmed, refuted and faded, and hints that were passed over.
    fn hints(&self) -> PyResult<Vec<(&'static str, u64)>> {
        guarded(|| {
            let hints = self.rows.apart(|rows, _| rows.fleet.health.hints());
            Ok(vec![
                ("doubted", hints.doubted),
                ("heard", hints.heard),
                ("confirmed", hints.confirmed),
                ("refuted", hints.refuted),
                ("faded", hints.faded),
                ("passed_over", hints.passed_over),
            ])
        })
    }

    /// What others reported that they have on an endpoint: requests, of these without a first token,
    /// milliseconds of prefill that wait, and prompt tokens of all.
    fn others(&self, url: &str) -> PyResult<(u64, u64, f64, u64)> {
        guarded(|| {
            Ok(self.inner.apart(|inner, _| {
                let sum = inner.replicas.sum(endpoint_id(url.as_bytes()));
                let [requests, prefilling, us, tokens] =
                    [Field::Requests, Field::Prefilling, Field::QueuedUs, Field::ContextTokens]
                        .map(|field| sum.get(field));
                (requests, prefilling, us as f64 * 1e-3, tokens)
            }))
        })
    }
}

impl Replicas {
    fn merge(&self, now: f64) {
        while self.inner.apart(|inner, held| {
            self.rows.inside(held, |rows| inner.replicas.merge(&mut rows.fleet, now, AT_ONCE))
        }) {}
    }
}

/// Requests in flight on each endpoint: this router's own, and all others'. None where the table is
/// of a router on its own.
#[pyfunction]
pub fn own_and_others(
    stats: &Bound<'_, ResidentRequestStats>,
    urls: Vec<String>,
) -> PyResult<Option<Vec<(f64, f64)>>> {
    let table = stats.get().table.get();
    guarded(|| {
        Ok(table.inner.apart(|inner, _| {
            let known = &inner.fleet.table;
            let parts = |row| (known.own(Stat::InFlight, row), known.others(Stat::InFlight, row));
            let of = |url: &String| inner.row(url).map_or((0.0, 0.0), parts);
            known.is_shared().then(|| urls.iter().map(of).collect())
        }))
    })
}
