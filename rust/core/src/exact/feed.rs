//! All publishers: the writing side of the exact index.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::ExactIndex;
use super::publisher::{Publisher, Work};

/// Publishers by endpoint id and data-parallel rank. One caller at a time; lookups never wait
/// for it, only for the edits that it makes.
#[derive(Debug)]
pub struct Feed {
    publishers: HashMap<(u64, u32), Publisher>,
    work: Work,
    max_blocks: usize,
}

impl Feed {
    /// `max_blocks`: most blocks kept per publisher.
    pub fn new(max_blocks: usize) -> Self {
        Self { publishers: HashMap::new(), work: Work::default(), max_blocks }
    }

    /// The publisher, made where there is none, and the working memory for a call of it.
    pub fn publisher(
        &mut self,
        id: u64,
        rank: u32,
        index: &RwLock<ExactIndex>,
    ) -> (&mut Publisher, &mut Work) {
        let max_blocks = self.max_blocks;
        let publisher = self.publishers.entry((id, rank)).or_insert_with(|| {
            let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
            Publisher::new(index.add_row(id), rank, index.seed(), max_blocks)
        });
        (publisher, &mut self.work)
    }

    /// Makes these ranks of an endpoint known: until all were heard it is not exact.
    pub fn expect(&mut self, id: u64, ranks: u32, index: &RwLock<ExactIndex>) {
        for rank in 0..ranks {
            self.publisher(id, rank, index).0.tell(index);
        }
    }

    /// Forgets the blocks of an endpoint, which has lost its cache, on all ranks.
    pub fn forget(&mut self, id: u64, index: &RwLock<ExactIndex>) {
        let ranks = self.publishers.iter_mut().filter(|((known, _), _)| *known == id);
        ranks.for_each(|(_, publisher)| publisher.forget(&mut self.work, index));
    }

    /// Forgets the blocks of all endpoints.
    pub fn forget_all(&mut self, index: &RwLock<ExactIndex>) {
        self.publishers.values_mut().for_each(|publisher| publisher.forget(&mut self.work, index));
    }

    /// The publisher, if it was heard of.
    pub fn get(&self, id: u64, rank: u32) -> Option<&Publisher> {
        self.publishers.get(&(id, rank))
    }

    /// All publishers, by endpoint id and rank.
    pub fn iter(&self) -> impl Iterator<Item = (&(u64, u32), &Publisher)> {
        self.publishers.iter()
    }

    /// Forgets an endpoint with all its ranks and gives their memory back.
    pub fn drop_endpoint(&mut self, id: u64, index: &RwLock<ExactIndex>) -> bool {
        let row = index.read().unwrap_or_else(PoisonError::into_inner).row(id);
        let Some(row) = row else { return false };
        let mut gone = self.publishers.extract_if(|(known, _), _| *known == id);
        gone.by_ref().for_each(|(_, mut publisher)| publisher.leave(&mut self.work, index));
        index.write().unwrap_or_else(PoisonError::into_inner).free_row(row);
        true
    }

    /// Bytes on the heap, without the index's.
    pub fn bytes(&self) -> usize {
        self.publishers.values().map(Publisher::bytes).sum()
    }
}
