//! What blocks depend on beside their tokens: extra keys per block, and a tenant named in a map.

use super::keys;
use super::msgpack::{Item, Read, Reader, Unreadable};

/// Lists within lists of an extra key that are followed: engines use one level.
const MAX_NESTING: usize = 4;

/// The extra keys of a prompt, encoded as a stored event's `extra_keys` are: a list per block.
///
/// # Errors
/// If it is no list of lists (or nil) of texts, bytes, integers and pairs of these.
pub fn extra_keys(raw: &[u8], lora_name: Option<&[u8]>) -> Result<Vec<u64>, Unreadable> {
    let mut out = Vec::new();
    extras(&mut Reader::new(raw), lora_name.map(keys::text_key), &mut out)?;
    Ok(out)
}

/// One hash per block of what it depends on beside its tokens. The adapter, which leads each
/// list, is left out: the chain's root has it already.
pub(super) fn extras(
    reader: &mut Reader<'_>,
    adapter: Option<u64>,
    out: &mut Vec<u64>,
) -> Read<()> {
    for _ in 0..reader.array()?.unwrap_or(0) {
        let count = reader.array()?.unwrap_or(0);
        let (mut list, mut kept) = (keys::list_key([]), false);
        for at in 0..count {
            let item = extra(reader, 0)?;
            if at > 0 || Some(item) != adapter {
                (list, kept) = (keys::fold(list, item), true);
            }
        }
        out.push(if kept { list } else { 0 });
    }
    Ok(())
}

fn extra(reader: &mut Reader<'_>, depth: usize) -> Read<u64> {
    match reader.item()? {
        Item::Nil => Ok(0),
        Item::Int(number) => Ok(keys::number_key(number)),
        Item::Text(bytes) | Item::Bytes(bytes) => Ok(keys::text_key(bytes)),
        Item::Array(count) if depth < MAX_NESTING => {
            let mut list = keys::list_key([]);
            for _ in 0..count {
                list = keys::fold(list, extra(reader, depth + 1)?);
            }
            Ok(list)
        }
        _ => Err(Unreadable),
    }
}

/// What SGLang's events say of a tenant, in a map where vLLM's have the adapter's name.
#[derive(Default)]
pub(super) struct Tenant<'a> {
    /// The adapter's name.
    pub adapter: Option<&'a [u8]>,
    salt: Option<&'a [u8]>,
    /// Names that are not known, with their values: blocks under them are nobody else's.
    other: u64,
}

impl<'a> Tenant<'a> {
    /// Reads one name's value; false, and nothing read, where the name says nothing of tenants.
    pub fn field(&mut self, name: &[u8], reader: &mut Reader<'a>) -> Read<bool> {
        match name {
            b"cache_salt" | b"extra_key" => {
                if let Some(salt) = reader.text()?.filter(|salt| !salt.is_empty()) {
                    self.salt = Some(salt);
                }
            }
            b"lora_name" | b"lora_path" => self.adapter = reader.text()?.or(self.adapter),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads a map of such names.
    pub fn map(&mut self, names: usize, reader: &mut Reader<'a>) -> Read<()> {
        for _ in 0..names {
            let name = reader.text()?.ok_or(Unreadable)?;
            if !self.field(name, reader)? {
                let value = extra(reader, 0)?;
                if value != 0 {
                    self.other = keys::fold(keys::fold(self.other, keys::text_key(name)), value);
                }
            }
        }
        Ok(())
    }

    /// The extra key of the first block of a prompt; 0 for none.
    pub fn mark(&self) -> u64 {
        let salt = self.salt.map(keys::text_key);
        let marks = salt.into_iter().chain((self.other != 0).then_some(self.other));
        if self.salt.is_none() && self.other == 0 { 0 } else { keys::list_key(marks) }
    }
}
