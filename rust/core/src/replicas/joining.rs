//! What a router that joins asks of one that was there before: what it has learned.

use super::ignored::Ignored;
use super::message::Snapshot;
use crate::fleet::Fleet;
use crate::saved::{Hashing, Learned};

/// Seconds between two questions, and between two answers.
const PAUSE: f64 = 1.0;
/// Questions after which a router goes by what it learns itself.
const MOST_QUESTIONS: u32 = 8;
/// Blocks of a prefix index that is sent, at most: 1 MiB. A larger one is left out.
const MOST_BLOCKS: usize = 1 << 17;

/// Questions and answers of one router.
#[derive(Debug, Default)]
pub struct Joining {
    questions: u32,
    asks: Option<u64>,
    asked_at: Option<f64>,
    asked_by: Option<u64>,
    answered_at: Option<f64>,
    answer: Option<Snapshot>,
    taken: bool,
    learned: Option<(Vec<u64>, Box<Learned>)>,
}

/// What the index of a snapshot was hashed with: the grain stands for all of it, so that no secret
/// is sent.
pub fn hashing(grain: u64) -> Hashing {
    let known = u32::from(grain != 0);
    Hashing { seed: grain, block_chars: known, block_tokens: known }
}

impl Joining {
    /// This router was heard: it is asked, if there is anything to ask.
    pub fn meet(&mut self, origin: u64, now: f64) -> bool {
        let is_early = self.asked_at.is_some_and(|at| (0.0..PAUSE).contains(&(now - at)));
        if self.taken || self.questions >= MOST_QUESTIONS || is_early {
            return false;
        }
        self.asked_at = Some(now);
        self.questions += 1;
        self.asks = Some(origin);
        true
    }

    /// Whom to ask in the next message.
    pub fn take_question(&mut self) -> Option<u64> {
        self.asks.take()
    }

    /// The router asks this one.
    pub fn ask(&mut self, origin: u64, now: f64) -> bool {
        let is_early = self.answered_at.is_some_and(|at| (0.0..PAUSE).contains(&(now - at)));
        if is_early {
            return false;
        }
        self.answered_at = Some(now);
        self.asked_by = Some(origin);
        true
    }

    /// Puts together what was asked for, if anything was and there is anything to tell.
    pub fn prepare(&mut self, fleet: &Fleet, grain: u64) {
        let Some(to) = self.asked_by.take() else { return };
        if fleet.speed.samples() <= 0.0 {
            return;
        }
        let ids = |row: u32| Some((row, fleet.table.id(row)?));
        let (rows, ids): (Vec<u32>, Vec<u64>) =
            (0..fleet.table.rows() as u32).filter_map(ids).unzip();
        let state = fleet.save_within(&rows, hashing(grain), MOST_BLOCKS);
        self.answer = Some(Snapshot { to, ids, state });
    }

    /// What to answer in the next message.
    pub fn take_answer(&mut self) -> Option<Snapshot> {
        self.answer.take()
    }

    /// Whether there is something to be said beside registers.
    pub fn has_something(&self) -> bool {
        self.asks.is_some() || self.answer.is_some()
    }

    /// An answer came. The prefixes that are in it, by endpoint.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn hear(&mut self, told: Snapshot, grain: u64) -> Result<Vec<(u64, Vec<u64>)>, Ignored> {
        if self.taken {
            return Ok(Vec::new());
        }
        let mut learned = match Learned::of(&told.state, told.ids.len(), hashing(grain)) {
            Ok(learned) => learned,
            Err(true) => return Err(Ignored::Version),
            Err(false) => return Err(Ignored::Malformed),
        };
        let chains = learned.take_chains();
        let found = chains
            .into_iter()
            .filter_map(|(at, chain)| Some((*told.ids.get(at as usize)?, chain)))
            .collect();
        self.learned = Some((told.ids, Box::new(learned)));
        self.taken = true;
        Ok(found)
    }

    /// Takes what is to be taken over.
    pub fn take_learned(&mut self) -> Option<(Vec<u64>, Box<Learned>)> {
        self.learned.take()
    }

    /// Whether what another router learned was taken over.
    pub fn is_taken(&self) -> bool {
        self.taken
    }
}
