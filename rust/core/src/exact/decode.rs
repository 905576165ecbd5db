//! Bytes of a message → [`Batch`]: both event encodings, outer array or map, fields by name.
//!
//! What cannot be read costs its own event only; what is new (types, fields, trailing items) is
//! passed over. Formats: vLLM's `KVEventBatch`, as arrays until 2026-06 and as maps since.

use super::event::{Batch, Event, Kind, Place, Removed, Span, Stored};
use super::extras::{Tenant, extras};
use super::msgpack::{Item, Read, Reader, Unreadable};
use super::{Tier, keys};

/// Names in the order of the older, positional encoding.
const STORED: [&[u8]; 11] = [
    b"block_hashes",
    b"parent_block_hash",
    b"token_ids",
    b"block_size",
    b"lora_id",
    b"medium",
    b"lora_name",
    b"extra_keys",
    b"group_idx",
    b"kv_cache_spec_kind",
    b"kv_cache_spec_sliding_window",
];
const REMOVED: [&[u8]; 4] = [b"block_hashes", b"medium", b"group_idx", b"locality"];

/// Reads a message into `batch`, which is cleared first.
///
/// # Errors
/// If the frame around the events cannot be read: then none of it counts.
pub fn decode(payload: &[u8], batch: &mut Batch) -> Result<(), Unreadable> {
    batch.clear();
    let mut reader = Reader::new(payload);
    let read = outer(&mut reader, batch);
    if read.is_err() {
        batch.clear();
    }
    read
}

fn outer(reader: &mut Reader<'_>, batch: &mut Batch) -> Read<()> {
    let mut has_events = false;
    match reader.item()? {
        Item::Array(count) if count >= 2 => {
            reader.skip()?; // the time
            events(reader, batch)?;
            has_events = true;
            for at in 2..count {
                if at == 2 { batch.rank = reader.u32()? } else { reader.skip()? }
            }
        }
        Item::Map(count) => {
            for _ in 0..count {
                match name(reader)? {
                    b"events" if !has_events => {
                        events(reader, batch)?;
                        has_events = true;
                    }
                    b"data_parallel_rank" => batch.rank = reader.u32()?,
                    _ => reader.skip()?,
                }
            }
        }
        _ => return Err(Unreadable),
    }
    if has_events { Ok(()) } else { Err(Unreadable) }
}

fn name<'a>(reader: &mut Reader<'a>) -> Read<&'a [u8]> {
    match reader.item()? {
        Item::Text(text) | Item::Bytes(text) => Ok(text),
        _ => Err(Unreadable),
    }
}

fn events(reader: &mut Reader<'_>, batch: &mut Batch) -> Read<()> {
    for _ in 0..reader.array()?.ok_or(Unreadable)? {
        let start = reader.at();
        let marks = (batch.tokens.len(), batch.hashes.len(), batch.extras.len());
        match event(reader, batch) {
            Ok(Some(event)) => batch.events.push(event),
            Ok(None) => batch.unknown_types += 1,
            Err(Unreadable) => {
                batch.tokens.truncate(marks.0);
                batch.hashes.truncate(marks.1);
                batch.extras.truncate(marks.2);
                batch.malformed += 1;
                reader.rewind(start);
                reader.skip()?;
            }
        }
    }
    Ok(())
}

/// The fields of all types together: a type reads those that it has.
#[derive(Default)]
struct Draft<'a> {
    tag: Option<&'a [u8]>,
    hashes: Option<Span>,
    parent: Option<u64>,
    tokens: Span,
    block: u32,
    lora_id: Option<i128>,
    tenant: Tenant<'a>,
    medium: Option<&'a [u8]>,
    extra_keys: Option<&'a [u8]>,
    /// So many blocks, of which none has extra keys.
    plain: Option<usize>,
    group: Option<u32>,
    kind: Option<Kind>,
    remote: bool,
}

fn event(reader: &mut Reader<'_>, batch: &mut Batch) -> Read<Option<Event>> {
    let mut draft = Draft::default();
    match reader.item()? {
        Item::Map(count) => {
            for _ in 0..count {
                let name = name(reader)?;
                draft.field(name, reader, batch)?;
            }
        }
        Item::Array(count) if count > 0 => {
            let tag = name(reader)?;
            draft.tag = Some(tag);
            let (names, least): (&[&[u8]], usize) = match tag {
                b"BlockStored" => (&STORED, 4),
                b"BlockRemoved" => (&REMOVED, 1),
                _ => (&[], 0),
            };
            if count - 1 < least {
                return Err(Unreadable);
            }
            for at in 0..count - 1 {
                match names.get(at) {
                    Some(name) => draft.field(name, reader, batch)?,
                    None => reader.skip()?,
                }
            }
        }
        _ => return Err(Unreadable),
    }
    draft.build(batch)
}

impl<'a> Draft<'a> {
    fn field(&mut self, name: &[u8], reader: &mut Reader<'a>, batch: &mut Batch) -> Read<()> {
        match name {
            b"lora_name" => match reader.item()? {
                Item::Nil => {}
                Item::Text(name) | Item::Bytes(name) => self.tenant.adapter = Some(name),
                Item::Map(names) => self.tenant.map(names, reader)?, // SGLang's
                _ => return Err(Unreadable),
            },
            b"type" => self.tag = reader.text()?,
            b"block_hashes" => {
                let start = batch.hashes.len();
                for _ in 0..reader.array()?.ok_or(Unreadable)? {
                    let hash = match reader.wide() {
                        Some(hash) => hash,
                        None => hash(reader)?.ok_or(Unreadable)?,
                    };
                    batch.hashes.push(hash);
                }
                self.hashes = Some(start..batch.hashes.len());
            }
            b"parent_block_hash" => self.parent = hash(reader)?,
            b"token_ids" => {
                let start = batch.tokens.len();
                let count = reader.array()?.unwrap_or(0);
                let at = reader.at();
                if reader.tokens(count, &mut batch.tokens).is_err() {
                    batch.tokens.truncate(start);
                    reader.rewind(at);
                    pairs(reader, count, &mut batch.tokens)?;
                }
                self.tokens = start..batch.tokens.len();
            }
            b"block_size" => self.block = reader.u32()?.unwrap_or(0),
            b"lora_id" => {
                self.lora_id = match reader.item()? {
                    Item::Int(id) => Some(id),
                    Item::Nil => None,
                    _ => return Err(Unreadable),
                }
            }
            b"medium" => self.medium = reader.text()?,
            // Read at the end: the adapter's name is given in both, and may come later.
            b"extra_keys" => {
                let start = reader.at();
                let count = reader.array()?.unwrap_or(0);
                if reader.nils(count) {
                    self.plain = Some(count);
                } else {
                    reader.rewind(start);
                    self.extra_keys = Some(reader.raw()?);
                }
            }
            b"group_idx" => self.group = reader.u32()?,
            b"kv_cache_spec_kind" => self.kind = reader.text()?.map(kind),
            b"locality" => {
                self.remote = reader.text()?.is_some_and(|locality| locality != b"LOCAL");
            }
            _ => {
                if !self.tenant.field(name, reader)? {
                    reader.skip()?;
                }
            }
        }
        Ok(())
    }

    fn build(self, batch: &mut Batch) -> Read<Option<Event>> {
        let place = if self.remote { Place::Shared } else { place(self.medium) };
        Ok(Some(match self.tag.ok_or(Unreadable)? {
            b"BlockStored" => {
                let hashes = self.hashes.ok_or(Unreadable)?;
                let start = batch.extras.len();
                if self.plain.is_some_and(|count| ![0, hashes.len()].contains(&count)) {
                    return Err(Unreadable);
                }
                if let Some(raw) = self.extra_keys {
                    let name = self.tenant.adapter.map(keys::text_key);
                    let adapter = name.or(self.lora_id.map(keys::number_key));
                    extras(&mut Reader::new(raw), adapter, &mut batch.extras)?;
                    if ![0, hashes.len()].contains(&(batch.extras.len() - start)) {
                        return Err(Unreadable);
                    }
                }
                let mark = self.tenant.mark();
                if mark != 0 && self.parent.is_none() && !hashes.is_empty() {
                    // Further blocks have it by their parents.
                    batch.extras.resize(start + hashes.len(), 0);
                    if batch.extras[start] == 0 {
                        batch.extras[start] = mark;
                    }
                }
                Event::Stored(Stored {
                    hashes,
                    parent: self.parent,
                    tokens: self.tokens,
                    block: self.block,
                    lora: match (self.tenant.adapter, self.lora_id) {
                        (Some(name), _) => keys::text_key(name),
                        (None, Some(id)) => keys::number_key(id).max(1),
                        (None, None) => 0,
                    },
                    extras: start..batch.extras.len(),
                    keyed: self.extra_keys.is_some()
                        || self.plain.is_some_and(|count| count > 0)
                        || self.tenant.adapter.is_some()
                        || mark != 0,
                    place,
                    group: self.group,
                    kind: self.kind,
                })
            }
            b"BlockRemoved" => {
                let hashes = self.hashes.ok_or(Unreadable)?;
                Event::Removed(Removed { hashes, place, group: self.group })
            }
            b"AllBlocksCleared" => Event::Cleared,
            _ => return Ok(None),
        }))
    }
}

/// An engine's hash: unsigned, or the same bits signed, or a digest of which the tail counts.
fn hash(reader: &mut Reader<'_>) -> Read<Option<u64>> {
    match reader.item()? {
        Item::Nil => Ok(None),
        Item::Int(number) if i64::try_from(number).is_ok() || u64::try_from(number).is_ok() => {
            Ok(Some(number as u64))
        }
        Item::Bytes(bytes) | Item::Text(bytes) => {
            let tail = &bytes[bytes.len().saturating_sub(8)..];
            Ok(Some(tail.iter().fold(0, |hash, &byte| hash << 8 | u64::from(byte))))
        }
        _ => Err(Unreadable),
    }
}

/// Tokens in the pairs that a cache for EAGLE keeps: each with the one behind it.
fn pairs(reader: &mut Reader<'_>, count: usize, out: &mut Vec<u32>) -> Read<()> {
    for _ in 0..count {
        let items = reader.array()?.ok_or(Unreadable)?;
        out.push(reader.u32()?.ok_or(Unreadable)?);
        for _ in 1..items {
            reader.skip()?;
        }
    }
    Ok(())
}

fn kind(name: &[u8]) -> Kind {
    match name {
        b"full_attention" | b"mla_attention" | b"sink_full_attention" => Kind::Full,
        _ => Kind::Other,
    }
}

/// The tier of a medium as vLLM, its offload connectors and SGLang name them.
fn place(medium: Option<&[u8]>) -> Place {
    let Some(medium) = medium else { return Place::Own(Tier::Device) };
    match medium.to_ascii_uppercase().as_slice() {
        b"GPU" | b"DEVICE" => Place::Own(Tier::Device),
        b"CPU" | b"CPU_PINNED" | b"CPU_TIER1" => Place::Own(Tier::Host),
        b"CPU_TIER2" | b"DISK" | b"NVME" | b"STORAGE" | b"FS" | b"OBJ" => Place::Own(Tier::Disk),
        b"EXTERNAL" | b"NETWORK" | b"REMOTE" | b"SHARED" => Place::Shared,
        _ => Place::Unknown,
    }
}
