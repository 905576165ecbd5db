//! The exact index of KV events: messages in, held prefixes out.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyString};
use routecore::exact::extras::extra_keys;
use routecore::exact::feed::Feed;
use routecore::exact::publisher::{Publisher, Work};
use routecore::exact::{ExactIndex, Scratch, TIERS, keys};
use routecore::hash::endpoint_id;

use crate::errors::{guarded, to_py};
use crate::locked::{Locked, Raw, Shared};
use crate::read::Read;
use crate::text::text;
use crate::threads::{Inside, detached};
use crate::token_ids::read_tokens;

/// Turns that a lookup waits for a writer before it sleeps: longer than any write lock is held.
const SPINS: usize = 2000;

/// Which token blocks the engines hold, by their own events.
///
/// The lock is std's: lookups take it shared, and writers hold it for some 256 edits only, so its
/// queue hardly matters; the spin before it sleeps spares a lookup the wake-up.
#[pyclass(frozen)]
pub struct KvIndex {
    index: Shared<ExactIndex>,
    feed: Locked<Feed>,
}

/// Memory of one thread's lookups.
#[derive(Default)]
struct Lookup {
    keys: Vec<u64>,
    rows: Vec<u32>,
    depths: Vec<[u32; TIERS]>,
    scratch: Scratch,
}

/// A prompt as its blocks are named.
struct Asked<'a> {
    /// What the chain starts from.
    root: u64,
    /// Per block, what it depends on beside its tokens.
    extras: &'a [u64],
    tokens: &'a [u32],
}

thread_local! {
    static LOOKUP: RefCell<Lookup> = RefCell::default();
    /// Room for the token ids of one prompt; taken out while in use.
    static TOKENS: RefCell<Vec<u32>> = RefCell::default();
}

fn id(url: &Bound<'_, PyString>) -> u64 {
    endpoint_id(text(url).as_bytes())
}

/// What a slower tier's token is worth beside one that the device holds (Dynamo's credits).
const CREDITS: [f64; TIERS] = [1.0, 0.75, 0.25];

/// What one engine holds of a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Of the endpoint.
    pub id: u64,
    /// Leading tokens, less for slower tiers.
    pub tokens: f64,
    /// Whether it surely holds no more.
    pub exact: bool,
}

impl KvIndex {
    /// What every engine with events holds of a prompt, by endpoint id.
    pub fn held(
        &self,
        tokens: &[u32],
        model: Option<&[u8]>,
        salt: Option<&[u8]>,
        out: &mut Vec<Held>,
    ) {
        out.clear();
        let salt = salt.map(|salt| keys::list_key([keys::text_key(salt)]));
        let extras = salt.as_slice();
        let (mut rows, mut matched) = (Vec::new(), Vec::new());
        self.read(|index| {
            for (id, row) in index.endpoints() {
                rows.push((out.len(), row, index.block(row)));
                matched.push((0, 0, 0));
                out.push(Held { id, tokens: 0.0, exact: index.is_complete(row) });
            }
            rows.retain(|&(_, _, block)| block > 0);
            let asked = Asked { root: index.root(model), extras, tokens };
            LOOKUP.with_borrow_mut(|lookup| lookup.answer(index, &asked, rows, &mut matched));
        });
        for (held, (device, host, disk)) in out.iter_mut().zip(matched) {
            let more = [device, host.saturating_sub(device), disk.saturating_sub(host)];
            held.tokens = more.iter().zip(CREDITS).map(|(&n, credit)| f64::from(n) * credit).sum();
        }
        out.sort_unstable_by_key(|held| held.id);
    }

    fn read<T: Send>(&self, f: impl FnOnce(&ExactIndex) -> T + Send) -> T {
        self.index.read(SPINS, f)
    }

    /// Forgets the blocks of endpoints that have lost their caches.
    pub fn lost(&self, py: Python<'_>, ids: &[u64]) {
        let forget = |feed: &mut Feed, &id: &u64| feed.forget(id, self.index.raw());
        detached(py, || self.feed.apart(|feed, _| ids.iter().for_each(|id| forget(feed, id))));
    }

    /// Calls `f` on a publisher without the GIL.
    fn feed<T: Send>(
        &self,
        url: &Bound<'_, PyString>,
        rank: u32,
        f: impl FnOnce(&mut Publisher, &mut Work, &Raw<ExactIndex>) -> T + Send,
    ) -> PyResult<T> {
        let id = id(url);
        guarded(|| {
            Ok(detached(url.py(), || {
                self.feed.apart(|feed, _| {
                    let (publisher, work) = feed.publisher(id, rank, self.index.raw());
                    f(publisher, work, self.index.raw())
                })
            }))
        })
    }
}

#[pymethods]
impl KvIndex {
    #[new]
    fn new(seed: u64, max_blocks: usize) -> Self {
        Self { index: Shared::new(ExactIndex::new(seed)), feed: Locked::new(Feed::new(max_blocks)) }
    }

    fn live(
        &self,
        url: &Bound<'_, PyString>,
        rank: u32,
        messages: Read<Vec<(u64, PyBackedBytes)>>,
        can_replay: bool,
    ) -> PyResult<Option<u64>> {
        self.feed(url, rank, |publisher, work, index| {
            let each = |(seq, payload): &(u64, PyBackedBytes)| {
                publisher.live(*seq, payload, can_replay, work, index)
            };
            messages.0.iter().filter_map(each).last()
        })
    }

    fn replayed(
        &self,
        url: &Bound<'_, PyString>,
        rank: u32,
        messages: Read<Vec<(u64, PyBackedBytes)>>,
    ) -> PyResult<Option<u64>> {
        self.feed(url, rank, |publisher, work, index| {
            // What follows a new request belongs to the old one: another process' answers.
            messages.0.iter().find_map(|(seq, m)| publisher.replayed(*seq, m, work, index))
        })
    }

    fn replay_end(
        &self,
        url: &Bound<'_, PyString>,
        rank: u32,
        complete: bool,
    ) -> PyResult<Option<u64>> {
        self.feed(url, rank, |publisher, work, index| publisher.replay_end(complete, work, index))
    }

    fn disconnected(&self, url: &Bound<'_, PyString>, rank: u32, can_replay: bool) -> PyResult<()> {
        self.feed(url, rank, |publisher, work, index| {
            publisher.disconnected(can_replay, work, index);
        })
    }

    fn reconnected(
        &self,
        url: &Bound<'_, PyString>,
        rank: u32,
        can_replay: bool,
    ) -> PyResult<Option<u64>> {
        self.feed(url, rank, |publisher, work, index| {
            publisher.reconnected(can_replay, work, index)
        })
    }

    fn expect(&self, url: &Bound<'_, PyString>, ranks: u32) {
        let (id, index) = (id(url), self.index.raw());
        detached(url.py(), || self.feed.apart(|feed, _| feed.expect(id, ranks, index)));
    }

    #[pyo3(signature = (url=None))]
    pub fn forget(&self, py: Python<'_>, url: Option<&Bound<'_, PyString>>) {
        match url {
            Some(url) => self.lost(py, &[id(url)]),
            None => detached(py, || self.feed.apart(|feed, _| feed.forget_all(self.index.raw()))),
        }
    }

    fn set_doubted(&self, url: &Bound<'_, PyString>, doubted: bool) -> bool {
        let id = id(url);
        detached(url.py(), || {
            self.index.write(|index| {
                let Some(row) = index.row(id) else { return false };
                index.set_doubted(row, doubted);
                true
            })
        })
    }

    fn set_shared(&self, url: &Bound<'_, PyString>, shared: bool) {
        let id = id(url);
        detached(url.py(), || {
            self.index.write(|index| {
                if let Some(row) = index.row(id) {
                    index.set_shared(row, shared);
                }
            });
        });
    }

    fn drop_endpoint(&self, url: &Bound<'_, PyString>) -> PyResult<bool> {
        let id = id(url);
        let drop = || self.feed.apart(|feed, _| feed.drop_endpoint(id, self.index.raw()));
        guarded(|| Ok(detached(url.py(), drop)))
    }

    #[pyo3(signature = (token_ids, urls, lora_name=None, extras=None, /))]
    fn matched<'py>(
        &self,
        token_ids: &Bound<'py, PyAny>,
        urls: Read<Vec<Bound<'py, PyString>>>,
        lora_name: Option<&Bound<'py, PyString>>,
        extras: Option<&[u8]>,
    ) -> PyResult<Vec<(u32, u32, u32)>> {
        let lora = lora_name.map(|name| text(name));
        let lora = lora.as_ref().map(|name| name.as_bytes());
        let extras = match extras {
            Some(raw) => extra_keys(raw, lora)
                .map_err(|_| to_py("extra_keys: expected a list, or None, per block"))?,
            None => Vec::new(),
        };
        guarded(|| {
            let _inside = Inside::enter(token_ids.py());
            // Reading may run Python, which may ask again: nothing is borrowed meanwhile.
            let mut tokens = TOKENS.take();
            read_tokens(token_ids, &mut tokens)?;
            let mut out = vec![(0, 0, 0); urls.0.len()];
            let lora = lora.map_or(0, keys::text_key);
            let ids: Vec<u64> = urls.0.iter().map(id).collect();
            self.read(|index| {
                let root = keys::root(index.seed(), lora);
                let rows = ids.iter().enumerate().filter_map(|(at, &id)| {
                    let row = index.row(id)?;
                    Some((at, row, index.block(row)))
                });
                let rows = rows.filter(|&(_, _, block)| block > 0).collect();
                let asked = Asked { root, extras: &extras, tokens: &tokens };
                LOOKUP.with_borrow_mut(|lookup| lookup.answer(index, &asked, rows, &mut out));
            });
            TOKENS.set(tokens);
            Ok(out)
        })
    }

    fn exact(&self, urls: Read<Vec<Bound<'_, PyString>>>) -> Vec<bool> {
        let ids: Vec<u64> = urls.0.iter().map(id).collect();
        let is_exact =
            |index: &ExactIndex, id| index.row(id).is_some_and(|row| index.is_exact(row));
        self.read(|index| ids.into_iter().map(|id| is_exact(index, id)).collect())
    }

    fn block_size(&self, url: &Bound<'_, PyString>) -> u32 {
        let id = id(url);
        self.read(|index| index.row(id).map_or(0, |row| index.block(row)))
    }

    fn counters<'py>(
        &self,
        url: &Bound<'py, PyString>,
        rank: u32,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let id = id(url);
        let read = self.feed.apart(|feed, _| {
            let publisher = feed.get(id, rank)?;
            let (stream, counters) = (publisher.stream(), publisher.counters());
            let shape = (publisher.blocks(), publisher.block());
            Some((counters, shape, stream.last(), stream.is_exact()))
        });
        let Some((counters, (blocks, block), last, exact)) = read else { return Ok(None) };
        let out = PyDict::new(url.py());
        for (name, count) in counters.iter() {
            out.set_item(name, count)?;
        }
        out.set_item("blocks", blocks)?;
        out.set_item("block_size", block)?;
        out.set_item("last_seq", last)?;
        out.set_item("exact", exact)?;
        Ok(Some(out))
    }

    #[getter]
    fn blocks(&self) -> usize {
        self.read(ExactIndex::blocks)
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.feed.apart(|feed, _| feed.bytes()) + self.read(ExactIndex::bytes)
    }
}

impl Lookup {
    /// Tokens held per tier, for rows of any block sizes: each size is hashed once.
    fn answer(
        &mut self,
        index: &ExactIndex,
        asked: &Asked<'_>,
        mut rows: Vec<(usize, u32, u32)>,
        out: &mut [(u32, u32, u32)],
    ) {
        rows.sort_unstable_by_key(|&(at, _, block)| (block, at));
        for group in rows.chunk_by(|a, b| a.2 == b.2) {
            let block = group[0].2;
            let blocks = keys::usable(asked.tokens.len(), block as usize);
            let tokens = &asked.tokens[..blocks * block as usize];
            self.keys.clear();
            let extra = |i: usize| asked.extras.get(i).copied().unwrap_or(0);
            keys::chain(asked.root, tokens, block as usize, extra, &mut self.keys);
            self.rows.clear();
            self.rows.extend(group.iter().map(|&(_, row, _)| row));
            self.depths.clear();
            self.depths.resize(group.len(), [0; TIERS]);
            index.match_tiers_into(&self.keys, &self.rows, &mut self.depths, &mut self.scratch);
            for (&(at, _, _), depth) in group.iter().zip(&self.depths) {
                let [device, host, disk] = depth.map(|blocks| blocks * block);
                out[at] = (device, host, disk);
            }
        }
    }
}
