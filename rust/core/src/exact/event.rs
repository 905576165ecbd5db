//! Events as numbers: what is left of a message when names and encodings are gone.

use std::ops::Range;

use super::Tier;

/// Part of a batch's arrays.
pub type Span = Range<usize>;

/// What kind of cache a group of layers has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keeps every block of a prefix: full attention, MLA, sinks with full attention.
    Full,
    /// Sliding window, state space, cross attention, or a name that is not known.
    Other,
}

/// Where a stored block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The engine's own memory.
    Own(Tier),
    /// A pool that every replica reaches alike: it favours none.
    Shared,
    /// A name that is not known: never taken for the device.
    Unknown,
}

/// Blocks that an engine now has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The engine's own hashes, one per block.
    pub hashes: Span,
    /// Hash of the block before the first; none for the first of a prompt.
    pub parent: Option<u64>,
    /// All blocks' token ids; empty where the engine tells hashes only.
    pub tokens: Span,
    /// Tokens of a block; 0 where not reported.
    pub block: u32,
    /// Hash of the LoRA adapter's name, 0 for the base model.
    pub lora: u64,
    /// Extra keys, one per block, 0 for none; or empty.
    pub extras: Span,
    /// Whether adapter, extra keys or salt were reported, if only as absent.
    pub keyed: bool,
    /// Where it is.
    pub place: Place,
    /// Cache group, and its kind where reported.
    pub group: Option<u32>,
    /// Kind of the group.
    pub kind: Option<Kind>,
}

/// Blocks that an engine no longer has in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The engine's own hashes.
    pub hashes: Span,
    /// From where.
    pub place: Place,
    /// Cache group.
    pub group: Option<u32>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `BlockStored`.
    Stored(Stored),
    /// `BlockRemoved`.
    Removed(Removed),
    /// `AllBlocksCleared`.
    Cleared,
}

/// The events of one message, and the arrays that their spans lie in. Made once, filled often.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In the order of the message.
    pub events: Vec<Event>,
    /// Token ids of all events.
    pub tokens: Vec<u32>,
    /// Engine hashes of all events.
    pub hashes: Vec<u64>,
    /// Extra keys of all events.
    pub extras: Vec<u64>,
    /// The rank that the message names.
    pub rank: Option<u32>,
    /// Events with a field that cannot be read: passed over.
    pub malformed: u64,
    /// Events of a type that is not known: passed over.
    pub unknown_types: u64,
}

impl Batch {
    /// Empty again; its memory stays.
    pub fn clear(&mut self) {
        self.events.clear();
        self.tokens.clear();
        self.hashes.clear();
        self.extras.clear();
        self.rank = None;
        self.malformed = 0;
        self.unknown_types = 0;
    }
}
