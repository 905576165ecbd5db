//! Messages between routers: what is in one, as bytes and back.
//!
//! A head (`rcL`, version, group, grain, origin, epoch, sequence) and sections. A section of an unknown
//! kind is passed over, so that a kind can be added without a new version. Nothing of a message
//! counts unless all of it can be read.

use super::ignored::Ignored;
use super::wire::{Reader, put_section, put_u64, put_varint};
use crate::register::{FIELDS, Register};

/// Version of the format; peers of another one are ignored.
pub const VERSION: u8 = 1;
/// Bytes of the longest message that is read.
pub const LONGEST: usize = 4 << 20;
/// Registers of one message at most.
pub const MOST_ROWS: usize = 1 << 14;

const MAGIC: &[u8; 3] = b"rcL";
const SOME_ROWS: u8 = 1;
const ALL_ROWS: u8 = 2;
const BYE: u8 = 3;
const PLACED: u8 = 4;
const QUESTION: u8 = 5;
const SNAPSHOT: u8 = 6;

/// Keys of one message at most.
const MOST_KEYS: usize = 1 << 16;

/// Who says it, and when in the order of what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Hash of the name of the routers that belong together.
    pub group: u64,
    /// Says how prompts are cut and named; 0 for who does not read any.
    pub grain: u64,
    /// The router, drawn at random unless it is named.
    pub origin: u64,
    /// Unix nanoseconds when it started: a name that comes back later is another router.
    pub epoch: u64,
    /// Rises with each message.
    pub sequence: u64,
}

/// A prefix that an endpoint's engine has computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The endpoint.
    pub id: u64,
    /// Key of the last block that was known before; 0 for none.
    pub parent: u64,
    /// Keys of the blocks behind it.
    pub keys: Vec<u64>,
}

/// What a router has learned, for one that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Who asked.
    pub to: u64,
    /// The endpoints that it has learned of.
    pub ids: Vec<u64>,
    /// Their state, as `saved.rs` has it.
    pub state: Vec<u8>,
}

/// What is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Endpoint ids and their registers.
    pub rows: Vec<(u64, Register)>,
    /// Whether these are all: whatever is not among them is empty.
    pub whole: bool,
    /// Whether the router leaves.
    pub bye: bool,
    /// Prefixes that were computed, oldest first.
    pub placed: Vec<Placement>,
    /// Tokens of one of their blocks.
    pub block_tokens: f64,
    /// The router that is asked what it has learned.
    pub question: Option<u64>,
    /// The answer to another router's question.
    pub snapshot: Option<Snapshot>,
}

impl Message {
    /// As bytes, appended.
    pub fn encode(&self, head: &Head, into: &mut Vec<u8>) {
        into.extend_from_slice(MAGIC);
        into.push(VERSION);
        for value in [head.group, head.grain, head.origin, head.epoch] {
            put_u64(into, value);
        }
        put_varint(into, head.sequence);
        if self.whole || !self.rows.is_empty() {
            let kind = if self.whole { ALL_ROWS } else { SOME_ROWS };
            put_section(into, kind, |body| {
                self.rows.iter().for_each(|(id, register)| put_row(body, *id, register));
            });
        }
        if self.bye {
            put_section(into, BYE, |_| {});
        }
        if let Some(asked) = self.question {
            put_section(into, QUESTION, |body| put_u64(body, asked));
        }
        if let Some(Snapshot { to, ids, state }) = &self.snapshot {
            put_section(into, SNAPSHOT, |body| {
                put_u64(body, *to);
                put_varint(body, ids.len() as u64);
                for &id in ids {
                    put_u64(body, id);
                }
                body.extend_from_slice(state);
            });
        }
        let with_prefixes = !self.placed.is_empty() || self.snapshot.is_some();
        if with_prefixes && self.block_tokens > 0.0 {
            put_section(into, PLACED, |body| {
                put_u64(body, self.block_tokens.to_bits());
                self.placed.iter().for_each(|placement| put_placement(body, placement));
            });
        }
    }

    /// Reads the sections of a message.
    ///
    /// # Errors
    /// Where any of it cannot be read.
    pub fn decode(mut sections: Reader<'_>) -> Result<Self, Ignored> {
        let mut found = Self::default();
        while !sections.is_done() {
            let (kind, mut body) = sections.section().ok_or(Ignored::Malformed)?;
            match kind {
                SOME_ROWS | ALL_ROWS => {
                    found.whole |= kind == ALL_ROWS;
                    while !body.is_done() {
                        if found.rows.len() >= MOST_ROWS {
                            return Err(Ignored::TooLarge);
                        }
                        found.rows.push(row(&mut body).ok_or(Ignored::Malformed)?);
                    }
                }
                BYE => found.bye = true,
                PLACED => found.take_placed(&mut body)?,
                QUESTION => found.question = Some(body.u64().ok_or(Ignored::Malformed)?),
                SNAPSHOT => found.snapshot = Some(snapshot(body).ok_or(Ignored::Malformed)?),
                _ => {}
            }
        }
        Ok(found)
    }

    fn take_placed(&mut self, body: &mut Reader<'_>) -> Result<(), Ignored> {
        let tokens = body.u64().map(f64::from_bits).filter(|&tokens| tokens > 0.0 && tokens < 1e6);
        self.block_tokens = tokens.ok_or(Ignored::Malformed)?;
        let mut keys = 0;
        while !body.is_done() {
            let placement = placement(body).ok_or(Ignored::Malformed)?;
            keys += 1 + placement.keys.len();
            if keys > MOST_KEYS {
                return Err(Ignored::TooLarge);
            }
            self.placed.push(placement);
        }
        Ok(())
    }
}

/// Takes the head off a message; what is left are the sections.
///
/// # Errors
/// Where it is none, or of another version.
pub fn open(bytes: &[u8]) -> Result<(Head, Reader<'_>), Ignored> {
    if bytes.len() > LONGEST {
        return Err(Ignored::TooLarge);
    }
    let mut reader = Reader(bytes);
    if reader.take(MAGIC.len()) != Some(MAGIC) {
        return Err(Ignored::Malformed);
    }
    match reader.byte() {
        Some(VERSION) => {}
        Some(_) => return Err(Ignored::Version),
        None => return Err(Ignored::Malformed),
    }
    let mut head = || {
        Some(Head {
            group: reader.u64()?,
            grain: reader.u64()?,
            origin: reader.u64()?,
            epoch: reader.u64()?,
            sequence: reader.varint()?,
        })
    };
    let head = head().ok_or(Ignored::Malformed)?;
    Ok((head, reader))
}

/// An endpoint's id, which values are not 0, and these.
fn put_row(into: &mut Vec<u8>, id: u64, register: &Register) {
    let values = register.values();
    let mask = (0..FIELDS).fold(0, |mask, at| mask | u64::from(values[at] != 0) << at);
    put_u64(into, id);
    put_varint(into, mask);
    values.iter().filter(|&&value| value != 0).for_each(|&value| put_varint(into, value));
}

fn snapshot(mut from: Reader<'_>) -> Option<Snapshot> {
    let (to, count) = (from.u64()?, usize::try_from(from.varint()?).ok()?);
    let ids = keys(from.take(count.checked_mul(8)?)?);
    Some(Snapshot { to, ids, state: from.0.to_vec() })
}

fn keys(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|&key| u64::from_le_bytes(key)).collect()
}

fn put_placement(into: &mut Vec<u8>, placement: &Placement) {
    put_u64(into, placement.id);
    put_u64(into, placement.parent);
    put_varint(into, placement.keys.len() as u64);
    for &key in &placement.keys {
        put_u64(into, key);
    }
}

fn placement(from: &mut Reader<'_>) -> Option<Placement> {
    let (id, parent, count) = (from.u64()?, from.u64()?, usize::try_from(from.varint()?).ok()?);
    let keys = keys(from.take(count.checked_mul(8)?)?);
    Some(Placement { id, parent, keys })
}

fn row(from: &mut Reader<'_>) -> Option<(u64, Register)> {
    let id = from.u64()?;
    let mask = from.varint()?;
    if mask >> FIELDS != 0 {
        return None;
    }
    let mut register = Register::default();
    for &field in crate::register::Field::ALL {
        if mask >> (field as usize) & 1 == 1 {
            register.set(field, from.varint()?);
        }
    }
    Some((id, register))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Field;

    fn message() -> (Head, Message) {
        let head = Head { group: 1, grain: 2, origin: 3, epoch: 1 << 60, sequence: 300 };
        let mut register = Register::default();
        register.set(Field::Requests, 7);
        register.set(Field::QueuedPairs, 1 << 40);
        let rows = vec![(u64::MAX, register), (5, Register::default())];
        let placed = vec![
            Placement { id: 5, parent: 0, keys: vec![1, u64::MAX, 3] },
            Placement { id: 6, parent: 3, keys: Vec::new() },
        ];
        let snapshot = Some(Snapshot { to: 9, ids: vec![4, 5], state: b"learned".to_vec() });
        let question = Some(8);
        let whole = true;
        (head, Message { rows, whole, bye: false, placed, block_tokens: 27.5, question, snapshot })
    }

    #[test]
    fn what_is_said_comes_back_and_nothing_of_a_part_of_it() {
        let (head, said) = message();
        let mut bytes = Vec::new();
        said.encode(&head, &mut bytes);
        let (found, read) = open(&bytes).unwrap();
        assert_eq!((found, Message::decode(read)), (head, Ok(said.clone())));
        // A head alone says nothing, and whole sections say something.
        let mut ends = vec![3 + 1 + 32 + 2];
        let mut cut = Message { placed: Vec::new(), block_tokens: 0.0, ..said.clone() };
        for _ in 0..3 {
            let mut bytes = Vec::new();
            cut.encode(&head, &mut bytes);
            ends.push(bytes.len());
            cut.question = cut.question.filter(|_| cut.snapshot.is_some());
            cut.snapshot = None;
        }
        let sections = |end: usize| ends.contains(&end);
        for end in (0..bytes.len()).filter(|&end| !sections(end)) {
            let part = open(&bytes[..end]).and_then(|(_, sections)| Message::decode(sections));
            assert_eq!(part, Err(Ignored::Malformed), "{end}");
        }
    }

    #[test]
    fn another_version_is_distinguished_from_noise_and_an_unknown_section_is_passed_over() {
        let (head, said) = message();
        let mut bytes = Vec::new();
        said.encode(&head, &mut bytes);
        put_section(&mut bytes, 200, |body| body.extend([1, 2, 3]));
        let (_, sections) = open(&bytes).unwrap();
        assert_eq!(Message::decode(sections), Ok(said));
        bytes[3] = VERSION + 1;
        assert_eq!(open(&bytes).err(), Some(Ignored::Version));
        assert_eq!(open(b"HTTP/1.1 200 OK").err(), Some(Ignored::Malformed));
        assert_eq!(open(&vec![0; LONGEST + 1]).err(), Some(Ignored::TooLarge));
    }

    #[test]
    fn a_claim_of_more_than_there_is_room_for_is_refused() {
        let mut bytes = Vec::new();
        Message::default().encode(&Head::default(), &mut bytes);
        let mut body = Vec::new();
        for id in 0..=MOST_ROWS as u64 {
            put_row(&mut body, id, &Register::default());
        }
        put_section(&mut bytes, SOME_ROWS, |into| into.extend(body));
        let (_, sections) = open(&bytes).unwrap();
        assert_eq!(Message::decode(sections), Err(Ignored::TooLarge));
    }
}
