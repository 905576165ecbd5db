//! Prompts as blocks: the pieces that they come in change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routecore::prompt::{BlockHasher, Unit};
use routecore_fuzz::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let block = u32::from(input.byte());
    let unit = if input.byte() & 1 == 0 { Unit::Bytes } else { Unit::Tokens };
    let (mut pieces, mut text) = (BlockHasher::new(block, unit, 7), Vec::new());
    while !input.is_over() {
        let piece = input.part();
        pieces.feed(piece);
        text.extend_from_slice(piece);
    }
    let mut whole = BlockHasher::new(block, unit, 7);
    whole.reserve(text.len());
    whole.feed(&text);
    assert_eq!(pieces.finish(), whole.finish());
});
