//! What happened on one publisher's stream: silence and drift must be visible.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts since the publisher was first heard of.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            /// Names and counts.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Messages whose events were applied.
    batches,
    /// Blocks that stored events named.
    stored,
    /// Blocks that removed events named.
    removed,
    /// Removals of blocks that were not known in that place.
    unknown_removed,
    /// `AllBlocksCleared` events.
    cleared,
    /// Messages heard twice.
    duplicates,
    /// Losses seen: a number was passed over, or a message could not be read.
    gaps,
    /// Replays asked for.
    replays,
    /// Replays that began later than asked: the engine keeps a limited number of messages.
    overruns,
    /// Engine restarts seen.
    restarts,
    /// Times that all blocks were forgotten because the view could no longer be trusted.
    resets,
    /// Messages that cannot be read at all.
    unreadable,
    /// Events with a field that cannot be read, or whose lengths contradict one another.
    malformed,
    /// Events of a type that is not known.
    unknown_types,
    /// Events that continue a block which is not known: they cannot be placed.
    unknown_parents,
    /// Blocks reported by hash only that are not known.
    unknown_hashes,
    /// Events on a medium that is not known.
    unknown_media,
    /// Events on storage that all replicas share.
    shared,
    /// Events of cache groups that keep no whole prefixes (sliding window, mamba, …).
    skipped_groups,
    /// Changes of the block size; all that was held before is forgotten.
    block_sizes,
    /// Blocks not taken because the publisher's share of memory is full.
    over_capacity,
    /// Messages that name another data-parallel rank than their publisher's.
    other_ranks,
}
