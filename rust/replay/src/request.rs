//! A request as a router sees it: what it may know of its prompt.

use routecore::hash::mix;

/// A request as a router sees it on arrival.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Number of the request in the trace.
    pub id: u32,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// The session, if the trace tells.
    pub session: Option<u64>,
    /// Identity of each block of the prompt, in order: equal number, equal prefix up to there.
    pub blocks: &'a [u32],
    /// Tokens a block stands for; the last may be partial.
    pub block: u32,
}

impl Request<'_> {
    /// Chained hashes of the prompt's full blocks of `tokens` each, as a router would compute
    /// them from the text. `tokens` must divide the trace's block, or be a multiple of it.
    pub fn block_hashes(&self, tokens: u32, into: &mut Vec<u64>) {
        into.clear();
        let full = self.input_tokens / tokens;
        for number in 0..full {
            let last = (u64::from(number) + 1) * u64::from(tokens) - 1;
            let Some(&id) = self.blocks.get((last / u64::from(self.block)) as usize) else {
                return;
            };
            let part = last % u64::from(self.block);
            into.push(mix((u64::from(id) << 32 | part) ^ 0x9E37_79B9_7F4A_7C15));
        }
    }
}
