//! Several routers in front of one fleet that route as one.
//!
//! Each tells the others, as absolute values, what it has on each endpoint: a last-writer
//! [`Register`] per router and endpoint. A router's own figures are exact and immediate; to these
//! come the sums of what was heard. No request ids, no acknowledgements, nothing on the way of a
//! request: a message that is lost is healed by the next, and a router that falls silent is gone
//! [`GONE_AFTER`] seconds later with all that it had. Times are arguments, and only ever of one clock:
//! what others' clocks say counts for nothing but the order of restarts.
//!
//! Read next: `register.rs` (what is sent), `outbox.rs` (when), `message.rs` (as bytes), `peers.rs`
//! (what was heard), `placements.rs` (prefixes),
//! `joining.rs` (what was learned), `lean.rs` (what nobody said yet), `merge.rs` (how it reaches the strategies).

mod chains;
mod ignored;
mod joining;
mod lean;
mod merge;
mod message;
mod outbox;
mod peers;
mod placements;
mod wire;

use std::collections::HashMap;

pub use ignored::Ignored;
use joining::Joining;
use lean::Lean;
pub use merge::own;
pub use message::{Head, LONGEST, VERSION};
use message::{Message, open};
pub use outbox::HEARTBEAT;
use outbox::Outbox;
use peers::Peers;
pub use peers::{GONE_AFTER, MOST_PEERS, Seen};
pub use placements::PlacementCounts;
use placements::Placements;

use crate::fleet::{Fleet, Prefixes};
use crate::register::{Field, Register};

/// Seconds between two messages that say what changed, at least, unless it is set.
pub const EVERY: f64 = 0.05;
/// Whose messages are ignored, as far as that is remembered.
const REMEMBERED: usize = 64;

/// Who this router is, and how often it speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Hash of the name of the routers that belong together.
    pub group: u64,
    /// How prompts are cut and named; 0 where none are read.
    pub grain: u64,
    /// This router.
    pub origin: u64,
    /// Unix nanoseconds when it started.
    pub epoch: u64,
    /// Seconds between two messages, at least.
    pub every: f64,
}

/// Messages and bytes since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were made to be sent, and their bytes.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Others' messages that counted.
    pub heard: u64,
    /// Bytes of all that came.
    pub heard_bytes: u64,
    /// Messages of another router, or of another start of one, that has the name of a live one.
    pub conflicts: u64,
    /// Messages that were ignored, in the order of [`Ignored::ALL`].
    pub ignored: [u64; Ignored::ALL.len()],
}

/// What a message was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It counts.
    News,
    /// It is this router's own, come back.
    Own,
    /// It is ignored; `first`: for the first time of this router for this reason.
    Ignored {
        /// Why.
        why: Ignored,
        /// Whose it was, as far as that could be read; 0 otherwise.
        origin: u64,
        /// Whether that should be logged.
        first: bool,
    },
}

/// This router among the others.
#[derive(Debug)]
pub struct Replicas {
    settings: Settings,
    outbox: Outbox,
    peers: Peers,
    placements: Placements,
    joining: Joining,
    counts: Counts,
    /// Seconds that messages are under way, by those of this router that come back to it.
    delay: f64,
    /// Whose messages were ignored, and why.
    logged: Vec<(u64, Ignored)>,
    /// Row of each endpoint, as of this epoch of the table.
    rows: HashMap<u64, u32>,
    epoch: Option<u64>,
    lean: Lean,
}

impl Replicas {
    /// Nobody was heard yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            outbox: Outbox::new(settings.every),
            peers: Peers::default(),
            placements: Placements::default(),
            joining: Joining::default(),
            counts: Counts::default(),
            delay: 0.0,
            logged: Vec::new(),
            rows: HashMap::new(),
            epoch: None,
            lean: Lean::new(settings.origin),
        }
    }

    /// Nothing that others were ever said to have counts in the fleet: this router is new in it, be
    /// it that it was forked off one that was not.
    pub fn begin(&mut self, fleet: &mut Fleet) {
        fleet.table.share();
        if self.settings.grain != 0 {
            fleet.keep_placed();
        }
        for row in 0..fleet.table.rows() as u32 {
            merge::others(fleet, row, &Register::default(), 0.0, 0.0);
        }
    }

    /// Puts together what another router asked for, if one did. Before [`Self::tell`].
    pub fn answer(&mut self, fleet: &Fleet) {
        self.joining.prepare(fleet, self.settings.grain);
    }

    /// Whether what another router had learned was taken over.
    pub fn has_joined(&self) -> bool {
        self.joining.is_taken()
    }

    /// Whether it is time to ask for [own] registers and to [tell](Self::tell) them.
    pub fn is_due(&self, now: f64) -> bool {
        self.outbox.is_due(now)
    }

    /// Appends the message that is to be sent now, if there is one.
    pub fn tell(
        &mut self,
        own: impl Iterator<Item = (u64, Register)>,
        placed: &Prefixes,
        now: f64,
        into: &mut Vec<u8>,
    ) -> bool {
        let more = !placed.is_empty() || self.joining.has_something();
        let Some((sequence, mut message)) = self.outbox.next(own, more, now) else { return false };
        message.question = self.joining.take_question();
        message.snapshot = self.joining.take_answer();
        message.block_tokens = placed.block_tokens;
        if self.settings.grain != 0 {
            message.placed = self.placements.tell(placed, now);
        }
        self.write(sequence, &message, into);
        true
    }

    /// Appends the message that this router leaves.
    pub fn bye(&mut self, now: f64, into: &mut Vec<u8>) {
        let sequence = self.outbox.number(now);
        self.write(sequence, &Message { bye: true, ..Message::default() }, into);
    }

    fn write(&mut self, sequence: u64, message: &Message, into: &mut Vec<u8>) {
        let Settings { group, grain, origin, epoch, .. } = self.settings;
        let before = into.len();
        message.encode(&Head { group, grain, origin, epoch, sequence }, into);
        self.counts.sent += 1;
        self.counts.sent_bytes += (into.len() - before) as u64;
    }

    /// Takes note of a message that came at `now`.
    pub fn hear(&mut self, bytes: &[u8], now: f64) -> Heard {
        self.counts.heard_bytes += bytes.len() as u64;
        let mut origin = 0;
        match self.read(bytes, now, &mut origin) {
            Ok(heard) => heard,
            Err(why) => {
                self.counts.ignored[why as usize] += 1;
                let first = why != Ignored::Stale
                    && self.logged.len() < REMEMBERED
                    && !self.logged.contains(&(origin, why));
                if first {
                    self.logged.push((origin, why));
                }
                Heard::Ignored { why, origin, first }
            }
        }
    }

    fn read(&mut self, bytes: &[u8], now: f64, origin: &mut u64) -> Result<Heard, Ignored> {
        let (head, sections) = open(bytes)?;
        *origin = head.origin;
        let Settings { group, grain, origin: own, epoch, .. } = self.settings;
        if head.group != group {
            return Err(Ignored::Group);
        }
        if head.origin == own {
            if head.epoch != epoch {
                self.counts.conflicts += 1;
            }
            if head.epoch > epoch {
                return Err(Ignored::SameName);
            } else if head.epoch < epoch {
                return Err(Ignored::Stale);
            }
            if let Some(age) = self.outbox.age(head.sequence, now) {
                self.delay = age;
            }
            return Ok(Heard::Own);
        }
        if head.grain != grain && head.grain != 0 && grain != 0 {
            return Err(Ignored::Grain);
        }
        let mut message = Message::decode(sections)?;
        let (placed, block_tokens) = (std::mem::take(&mut message.placed), message.block_tokens);
        let (question, snapshot) = (message.question, message.snapshot.take());
        let is_new = !self.peers.knows(head.origin);
        self.counts.conflicts += u64::from(self.peers.is_later(&head));
        self.peers.hear(&head, message, now - self.delay)?;
        self.counts.heard += 1;
        if head.grain == grain && grain != 0 {
            self.placements.hear(placed, block_tokens);
        }
        // Who is new has not heard of this one either.
        let asks = self.joining.meet(head.origin, now);
        let is_asked = question == Some(own) && self.joining.ask(head.origin, now);
        if is_new || asks || is_asked {
            self.outbox.again();
        }
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.to == own) {
            let known = self.joining.hear(snapshot, grain)?;
            self.placements.join(known, block_tokens);
        }
        Ok(Heard::News)
    }

    /// Time passes: who was silent for too long is gone.
    pub fn expire(&mut self, now: f64) {
        self.peers.expire(now);
    }

    /// Nobody is heard any more: what others reported counts no longer.
    pub fn clear(&mut self) {
        self.peers.clear();
    }

    /// Lets the fleet know what changed of others' sums, at most so many endpoints at once, and as
    /// many of the prefixes that they placed. Whether there are more.
    pub fn merge(&mut self, fleet: &mut Fleet, now: f64, most: usize) -> bool {
        fleet.table.share();
        fleet.health.fade(now);
        let epoch = fleet.table.epoch();
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            let rows = 0..fleet.table.rows() as u32;
            self.rows = rows.filter_map(|row| Some((fleet.table.id(row)?, row))).collect();
            self.peers.touch();
        }
        let peers = &self.peers;
        let rate = |id: &u64| peers.sum(*id).get(Field::PrefillRate);
        self.lean.look(
            now,
            self.settings.every,
            || self.rows.keys().map(rate).sum(),
            self.rows.len(),
        );
        for (id, sum) in self.peers.take_changed(most) {
            if let Some(&row) = self.rows.get(&id) {
                merge::others(fleet, row, &sum, self.lean.ms(id), now);
            }
        }
        if let Some((ids, learned)) = self.joining.take_learned() {
            let row = |id: &u64| self.rows.get(id).copied().unwrap_or(u32::MAX);
            let rows: Vec<u32> = ids.iter().map(row).collect();
            fleet.warm(*learned, &rows);
        }
        let more = self.placements.apply(fleet, &self.rows, most);
        more || self.peers.has_changed()
    }

    /// What all others have on the endpoint.
    pub fn sum(&self, id: u64) -> Register {
        self.peers.sum(id)
    }

    /// The routers that are heard.
    pub fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        self.peers.seen()
    }

    /// Messages and bytes since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Placements since the start.
    pub fn placement_counts(&self) -> PlacementCounts {
        self.placements.counts()
    }

    /// Seconds that messages are under way, as far as that is known.
    pub fn delay(&self) -> f64 {
        self.delay
    }

    /// Who this router is.
    pub fn settings(&self) -> Settings {
        self.settings
    }
}
