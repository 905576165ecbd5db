//! Learned state as bytes: the endpoints by their URLs, and what the core says of their rows.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use routecore::saved::{Hashing, hashing};

use crate::errors::{guarded, to_py};
use crate::table::Table;
use crate::threads::{Inside, detached};

/// Endpoints that are taken from a file, at most.
const MOST_ENDPOINTS: usize = 1 << 20;

/// Seed of the hashes, bytes of a block, token ids of a block.
type Tag = (u64, u32, u32);

fn hashing_of((seed, block_chars, block_tokens): Tag) -> Hashing {
    Hashing { seed, block_chars, block_tokens }
}

/// What the index of a saved state was hashed with.
#[pyfunction]
pub fn saved_hashing(state: &[u8]) -> PyResult<Tag> {
    let found = hashing(state).map_err(to_py)?;
    Ok((found.seed, found.block_chars, found.block_tokens))
}

/// The URLs of a table's endpoints, and what was learned of them.
#[pyfunction]
pub fn save_table<'py>(
    py: Python<'py>,
    table: &Bound<'py, Table>,
    hashing: Tag,
) -> PyResult<(Vec<String>, Bound<'py, PyBytes>)> {
    let _inside = Inside::enter(py);
    let inner = &table.get().inner;
    let (urls, bytes) = guarded(|| {
        let saved = detached(py, || {
            inner.apart(|inner, _| {
                let named = inner.urls().iter().enumerate();
                let live = named.filter_map(|(row, url)| Some((row as u32, url.clone()?)));
                let (rows, urls): (Vec<u32>, Vec<String>) = live.unzip();
                let bytes = inner.fleet.save(&rows, hashing_of(hashing));
                (urls, bytes)
            })
        });
        Ok(saved)
    })?;
    Ok((urls, PyBytes::new(py, &bytes)))
}

/// Takes over what `save_table` gave; returns the blocks of the index that were taken.
#[pyfunction]
pub fn load_table(
    table: &Bound<'_, Table>,
    urls: Vec<String>,
    state: &[u8],
    hashing: Tag,
) -> PyResult<usize> {
    if urls.len() > MOST_ENDPOINTS {
        return Err(to_py(format!("saved state has {} endpoints, too many", urls.len())));
    }
    let table = table.get();
    guarded(|| {
        table.inner.apart(|inner, _| {
            inner.tick();
            let rows: Vec<u32> = urls.iter().map(|url| inner.add(url)).collect();
            inner.fleet.load(state, &rows, hashing_of(hashing)).map_err(to_py)
        })
    })
}
