//! Messages as vLLM's publisher writes them: maps, in an array of time, events and rank.
#![allow(dead_code, missing_docs)] // each user takes what it needs

fn head(out: &mut Vec<u8>, len: usize, short: u8, fix: usize, long: u8) {
    if len <= fix {
        out.push(short | len as u8);
    } else {
        out.push(long);
        out.extend((len as u16).to_be_bytes());
    }
}

pub fn array(out: &mut Vec<u8>, len: usize) {
    head(out, len, 0x90, 15, 0xDC);
}

pub fn map(out: &mut Vec<u8>, len: usize) {
    head(out, len, 0x80, 15, 0xDE);
}

pub fn text(out: &mut Vec<u8>, text: &str) {
    if text.len() < 32 {
        out.push(0xA0 | text.len() as u8);
    } else {
        out.extend([0xD9, text.len() as u8]);
    }
    out.extend(text.as_bytes());
}

pub fn uint(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x7F => out.push(number as u8),
        0x80..=0xFF => out.extend([0xCC, number as u8]),
        0x100..=0xFFFF => {
            out.push(0xCD);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..=0xFFFF_FFFF => {
            out.push(0xCE);
            out.extend((number as u32).to_be_bytes());
        }
        _ => {
            out.push(0xCF);
            out.extend(number.to_be_bytes());
        }
    }
}

pub fn uints(out: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = u64>) {
    array(out, numbers.len());
    numbers.for_each(|number| uint(out, number));
}

/// A whole message of these events.
pub fn message(events: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    array(&mut out, 3);
    out.push(0xCB);
    out.extend(1.5_f64.to_be_bytes());
    array(&mut out, events.len());
    for event in events {
        out.extend(event);
    }
    uint(&mut out, 0);
    out
}

fn medium(out: &mut Vec<u8>, medium: &str) {
    text(out, "medium");
    text(out, medium);
}

pub fn stored(
    hashes: &[u64],
    parent: Option<u64>,
    tokens: &[u32],
    block: u64,
    on: &str,
) -> Vec<u8> {
    let mut out = Vec::new();
    map(&mut out, 9);
    text(&mut out, "type");
    text(&mut out, "BlockStored");
    text(&mut out, "block_hashes");
    uints(&mut out, hashes.iter().copied());
    text(&mut out, "parent_block_hash");
    match parent {
        Some(parent) => uint(&mut out, parent),
        None => out.push(0xC0),
    }
    text(&mut out, "token_ids");
    uints(&mut out, tokens.iter().map(|&token| u64::from(token)));
    text(&mut out, "block_size");
    uint(&mut out, block);
    medium(&mut out, on);
    text(&mut out, "extra_keys");
    array(&mut out, hashes.len());
    out.extend(vec![0xC0; hashes.len()]);
    text(&mut out, "group_idx");
    uint(&mut out, 0);
    text(&mut out, "kv_cache_spec_kind");
    text(&mut out, "full_attention");
    out
}

pub fn removed(hashes: &[u64], on: &str) -> Vec<u8> {
    let mut out = Vec::new();
    map(&mut out, 4);
    text(&mut out, "type");
    text(&mut out, "BlockRemoved");
    text(&mut out, "block_hashes");
    uints(&mut out, hashes.iter().copied());
    medium(&mut out, on);
    text(&mut out, "group_idx");
    uint(&mut out, 0);
    out
}

pub fn cleared() -> Vec<u8> {
    let mut out = Vec::new();
    map(&mut out, 1);
    text(&mut out, "type");
    text(&mut out, "AllBlocksCleared");
    out
}
