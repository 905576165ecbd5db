//! Prefixes between routers: what one of them knows that a row holds, told and heard.

use super::runs::NONE;
use super::{Pin, PrefixIndex};

impl PrefixIndex {
    /// Appends the keys of the prefix that ends with what was pinned, if the row holds it and its
    /// engine has computed it.
    pub(crate) fn append_chain(&self, row: u32, pin: Pin, into: &mut Vec<u64>) -> bool {
        let entry = self.runs.entry_id(pin.0, row).map(|id| self.runs.entries[id]);
        if !entry.is_some_and(|entry| entry.confirmed) {
            return false;
        }
        let (start, last) = (into.len(), self.runs.run(pin.0));
        into.resize(start + (last.start + last.len()) as usize, 0);
        let mut id = pin.0;
        while id != NONE {
            let run = self.runs.run(id);
            let at = start + run.start as usize;
            into[at..at + run.blocks.len()].copy_from_slice(&run.blocks);
            id = run.parent;
        }
        true
    }

    /// The prefixes that rows hold: row by row, each in the order in which they leave.
    pub(crate) fn chains(&self) -> Vec<(u32, Vec<u64>)> {
        let mut found = Vec::new();
        for (row, cache) in self.row_caches.iter().enumerate() {
            let entries = cache.idle.iter(&self.runs.entries);
            let mut inner = std::collections::HashSet::new();
            let runs: Vec<u32> = entries.map(|entry| entry.run).collect();
            inner.extend(runs.iter().map(|&run| self.runs.run(run).parent));
            for &run in runs.iter().filter(|run| !inner.contains(run)) {
                let mut chain = Vec::new();
                self.append_chain(row as u32, Pin(run), &mut chain);
                found.push((row as u32, chain));
            }
        }
        found
    }

    /// The row's engine has computed the prefix: as a request does that is over at once.
    pub(crate) fn place(&mut self, row: u32, chain: &[u64]) {
        if let Some(pin) = self.pin(row, chain) {
            self.confirm(row, pin);
            self.release(row, pin);
        }
    }
}
