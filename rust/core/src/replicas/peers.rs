//! What was heard of the other routers: a register for each of them and each endpoint, and the sums.

use std::collections::{BTreeMap, HashMap};

use super::ignored::Ignored;
use super::message::{Head, MOST_ROWS, Message};
use crate::register::Register;

/// Seconds after its last word for which a router counts.
pub const GONE_AFTER: f64 = 3.0;
/// Routers that are listened to.
pub const MOST_PEERS: usize = 256;
/// Registers that are kept of all routers together.
pub const MOST_REGISTERS: usize = 1 << 18;

/// A register, and the message that wrote it.
#[derive(Debug, Clone, Copy)]
struct Kept {
    register: Register,
    sequence: u64,
}

/// One router, as it reports itself.
#[derive(Debug)]
struct Peer {
    epoch: u64,
    /// Its latest message, and its latest that had all of its registers.
    latest: u64,
    whole: u64,
    /// When its latest message was sent, seconds by our clock.
    heard: f64,
    /// It said that it leaves: what comes late of it counts no more.
    left: bool,
    rows: HashMap<u64, Kept>,
}

/// All routers' registers of one endpoint.
#[derive(Debug, Default)]
struct Sum {
    register: Register,
    registers: u32,
    changed: bool,
}

/// A router as others see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Its origin.
    pub origin: u64,
    /// When its last word was said, seconds by our clock.
    pub heard: f64,
    /// Endpoints that it reported.
    pub endpoints: usize,
}

/// All routers that are heard, and what they have on each endpoint together.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<u64, Peer>,
    sums: HashMap<u64, Sum>,
    changed: Vec<u64>,
    registers: usize,
}

impl Peers {
    /// Takes note of a message that was sent at `said`, seconds by our clock.
    ///
    /// # Errors
    /// Where it says nothing new, or there is no room for it.
    pub fn hear(&mut self, head: &Head, message: Message, said: f64) -> Result<(), Ignored> {
        match self.peers.get(&head.origin) {
            Some(peer) if head.epoch < peer.epoch => return Err(Ignored::Stale),
            Some(peer) if head.epoch > peer.epoch => self.forget(head.origin),
            Some(peer) if peer.left || head.sequence <= peer.whole => return Err(Ignored::Stale),
            None if self.peers.len() >= MOST_PEERS => return Err(Ignored::Full),
            Some(_) | None => {}
        }
        let Self { peers, sums, changed, registers } = self;
        let peer = peers.entry(head.origin).or_insert_with(|| Peer {
            epoch: head.epoch,
            latest: 0,
            whole: 0,
            heard: said,
            left: false,
            rows: HashMap::new(),
        });
        let is_late = head.sequence <= peer.latest;
        if !is_late {
            peer.latest = head.sequence;
            peer.heard = peer.heard.max(said);
        }
        let mut is_news = !is_late;
        let mut is_full = false;
        for (id, register) in message.rows {
            let known = peer.rows.get(&id).copied();
            if known.is_some_and(|kept| kept.sequence >= head.sequence) {
                continue;
            }
            if known.is_none() && (peer.rows.len() >= MOST_ROWS || *registers >= MOST_REGISTERS) {
                is_full = true;
                continue;
            }
            is_news = true;
            peer.rows.insert(id, Kept { register, sequence: head.sequence });
            let sum = sums.entry(id).or_default();
            match known {
                Some(kept) => sum.register.take(&kept.register),
                None => {
                    sum.registers += 1;
                    *registers += 1;
                }
            }
            sum.register.add(&register);
            note(sum, id, changed);
        }
        if message.whole {
            peer.whole = head.sequence;
            // What is empty was kept to tell what came before it: nothing can any more.
            peer.rows.retain(|&id, kept| {
                let stays = kept.sequence >= head.sequence && !kept.register.is_empty();
                if !stays {
                    *registers -= 1;
                    let_go(sums, id, &kept.register, changed);
                }
                stays
            });
        }
        if message.bye {
            self.forget(head.origin);
            let left = Peer {
                epoch: head.epoch,
                latest: head.sequence,
                whole: head.sequence,
                heard: said,
                left: true,
                rows: HashMap::new(),
            };
            self.peers.insert(head.origin, left);
        }
        if is_full {
            Err(Ignored::Full)
        } else if is_news {
            Ok(())
        } else {
            Err(Ignored::Stale)
        }
    }

    /// Routers that were silent for too long are gone, and all that they had with them.
    pub fn expire(&mut self, now: f64) {
        let is_gone = |peer: &Peer| now - peer.heard >= GONE_AFTER;
        let gone: Vec<u64> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_gone(peer))
            .map(|(&origin, _)| origin)
            .collect();
        for origin in gone {
            self.forget(origin);
        }
    }

    /// Nothing is known of anybody.
    pub fn clear(&mut self) {
        let all: Vec<u64> = self.peers.keys().copied().collect();
        for origin in all {
            self.forget(origin);
        }
    }

    /// Whether anything of the router is known.
    pub fn knows(&self, origin: u64) -> bool {
        self.peers.contains_key(&origin)
    }

    /// Whether a router of this name is heard that started later.
    pub fn is_later(&self, head: &Head) -> bool {
        self.peers.get(&head.origin).is_some_and(|peer| peer.epoch > head.epoch)
    }

    /// The routers that are there.
    pub fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        self.peers.iter().filter(|(_, peer)| !peer.left).map(|(&origin, peer)| Seen {
            origin,
            heard: peer.heard,
            endpoints: peer.rows.values().filter(|kept| !kept.register.is_empty()).count(),
        })
    }

    /// What all of them have on the endpoint.
    pub fn sum(&self, id: u64) -> Register {
        self.sums.get(&id).map_or_else(Register::default, |sum| sum.register)
    }

    /// The endpoints of which sums changed since the last call, each once: at most so many.
    pub fn take_changed(&mut self, most: usize) -> impl Iterator<Item = (u64, Register)> + '_ {
        let from = self.changed.len().saturating_sub(most);
        let sums = &mut self.sums;
        self.changed.drain(from..).map(|id| {
            let Some(sum) = sums.get_mut(&id) else { return (id, Register::default()) };
            sum.changed = false;
            let register = sum.register;
            if sum.registers == 0 {
                sums.remove(&id);
            }
            (id, register)
        })
    }

    /// Whether any sum changed that was not taken.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Every sum counts as changed: the endpoints are others.
    pub fn touch(&mut self) {
        for (&id, sum) in &mut self.sums {
            note(sum, id, &mut self.changed);
        }
    }

    fn forget(&mut self, origin: u64) {
        let Some(peer) = self.peers.remove(&origin) else { return };
        self.registers -= peer.rows.len();
        for (id, kept) in peer.rows {
            let_go(&mut self.sums, id, &kept.register, &mut self.changed);
        }
    }
}

fn let_go(sums: &mut HashMap<u64, Sum>, id: u64, register: &Register, changed: &mut Vec<u64>) {
    if let Some(sum) = sums.get_mut(&id) {
        sum.register.take(register);
        sum.registers = sum.registers.saturating_sub(1);
        note(sum, id, changed);
    }
}

fn note(sum: &mut Sum, id: u64, changed: &mut Vec<u64>) {
    if !sum.changed {
        sum.changed = true;
        changed.push(id);
    }
}
