//! What `usage` of answers teaches: how many tokens a prompt has, and how far a cache is believed.

use crate::load::Work;
use crate::prompt::{Prompt, Unit};
use crate::trust::Trust;

/// Tokens of a byte of text, until answers tell.
const TOKENS_PER_BYTE: f64 = 0.25;
/// Shorter prompts say more of the template than of the text.
const FEWEST_TOKENS: u64 = 64;
/// Tokens that a prompt counts for, at most: ten times the longest context of any model. Sums over
/// all requests in flight stay far from their ends, whatever a request says of its size.
const MAX_TOKENS: f64 = (1_u64 << 27) as f64;
/// Promises in a row that found nothing at all, after which a cache is taken for none.
const MISSES: u32 = 3;

/// Tokens of prompts whose ids are not known.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    tokens_per_byte: f64,
    /// Tokens of an image, of audio or of a file, over what it was guessed to have.
    media_scale: f64,
}
crate::bytes::saved!(Sizes { tokens_per_byte, media_scale });

impl Default for Sizes {
    fn default() -> Self {
        Self { tokens_per_byte: TOKENS_PER_BYTE, media_scale: 1.0 }
    }
}

impl Sizes {
    /// Tokens of the prompt, and of one of its blocks: their mean where images are among them.
    pub fn of(&self, prompt: &Prompt) -> (f64, f64) {
        let scale = self.scale(prompt);
        let (size, block) = (prompt.size as f64, f64::from(prompt.block));
        if prompt.media == 0 {
            return ((size * scale).min(MAX_TOKENS), block * scale);
        }
        let text = prompt.size.saturating_sub(prompt.media) as f64;
        let tokens = (text * scale + self.media(prompt)).min(MAX_TOKENS);
        (tokens, block * tokens / size.max(1.0))
    }

    /// Tokens of a block of text.
    pub fn text_block(&self, prompt: &Prompt) -> f64 {
        f64::from(prompt.block) * self.scale(prompt)
    }

    /// Tokens of its images, audio and files.
    pub fn media(&self, prompt: &Prompt) -> f64 {
        (prompt.media_tokens() * self.media_scale).min(MAX_TOKENS)
    }

    /// The engine counted so many tokens in the prompt.
    pub fn learn(&mut self, work: &Work, reported: u64) {
        if work.prompt_tokens < FEWEST_TOKENS || reported == 0 {
            return;
        }
        let ratio = |reported: f64, expected: u64| (reported / expected as f64).clamp(0.1, 10.0);
        if 8 * work.media_tokens > work.prompt_tokens {
            // Where images are much of it, what is not as expected is theirs.
            let text = work.prompt_tokens.saturating_sub(work.media_tokens) as f64;
            let ratio = ratio(reported as f64 - text, work.media_tokens);
            self.media_scale = (self.media_scale * (1.0 + 0.1 * (ratio - 1.0))).clamp(0.05, 20.0);
        } else if work.text && work.media_tokens == 0 {
            let ratio = ratio(reported as f64, work.prompt_tokens);
            let moved = self.tokens_per_byte * (1.0 + 0.05 * (ratio - 1.0));
            self.tokens_per_byte = moved.clamp(0.02, 2.0);
        }
    }

    fn scale(&self, prompt: &Prompt) -> f64 {
        match prompt.unit {
            Unit::Bytes => self.tokens_per_byte,
            Unit::Tokens => 1.0,
        }
    }
}

/// How far what was sent to an endpoint is taken to be in its cache.
#[derive(Debug, Clone, Copy)]
pub struct Belief {
    /// Share of its KV cache that prefixes were seen to last for.
    share: f64,
    /// Whether its engine tells of cached tokens.
    pub tells: bool,
    /// Whether its KV events are believed.
    pub events: Trust,
    /// Promises in a row that found nothing.
    misses: u32,
}
crate::bytes::saved!(Belief { share, tells, misses; events });

impl Default for Belief {
    fn default() -> Self {
        Self { share: 1.0, tells: false, events: Trust::default(), misses: 0 }
    }
}

impl Belief {
    /// An answer: tokens that were predicted to be cached and that were; `over`: more than a
    /// block less than promised.
    pub fn learn(&mut self, predicted: u64, cached: u64, over: bool) {
        if cached > 0 {
            self.misses = 0;
        }
        if predicted == 0 {
            return;
        }
        self.misses = self.misses.saturating_add(u32::from(cached == 0));
        // What was promised and gone: the cache lasts for less than its size says. Each promise
        // that was kept lets the estimate grow back by far less, so it stays near the edge.
        self.share = (self.share * if over { 0.97 } else { 1.002 }).clamp(0.05, 1.0);
    }

    /// Share of its KV cache that prefixes last for. An engine that never caches is believed less
    /// with each answer, until one finds something: one that caches does so now and then.
    pub fn retention(&self) -> f64 {
        let beyond = self.misses.saturating_sub(MISSES).min(64);
        self.share * 0.125_f64.powi(beyond as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(prompt_tokens: u64, media_tokens: u64) -> Work {
        Work { prompt_tokens, media_tokens, text: true, ..Work::default() }
    }

    #[test]
    fn the_size_of_images_is_learned_apart_from_that_of_text() {
        let mut sizes = Sizes::default();
        let text = Prompt::new(Vec::new(), 4000, 128, Unit::Bytes);
        let both = Prompt { media: 4000, size: 8000, ..text.clone() };
        assert_eq!(sizes.of(&both), (2000.0, 32.0));
        for _ in 0..200 {
            let (tokens, media) = (sizes.of(&both).0 as u64, sizes.media(&both) as u64);
            sizes.learn(&work(tokens, media), 1000 + 250);
        }
        assert_eq!(sizes.of(&text).0, 1000.0);
        assert!((sizes.media(&both) - 250.0).abs() < 5.0);
        assert!((sizes.of(&both).0 - 1250.0).abs() < 5.0);
    }

    #[test]
    fn impossible_counts_move_nothing_far() {
        let mut sizes = Sizes::default();
        for reported in [0, 1, u64::MAX] {
            sizes.learn(&work(1000, 0), reported);
            sizes.learn(&work(1000, 900), reported);
        }
        assert!(sizes.tokens_per_byte > 0.1 && sizes.tokens_per_byte < 1.0);
        assert!(sizes.media_scale > 0.1 && sizes.media_scale < 4.0);
    }

    #[test]
    fn an_engine_that_never_caches_is_believed_less_with_each_answer() {
        let mut belief = Belief::default();
        let mut before = belief.retention();
        for _ in 0..30 {
            belief.learn(960, 0, true);
            assert!(belief.retention() < before);
            before = belief.retention();
        }
        assert!(before < 1e-12);
        belief.learn(0, 960, false);
        assert!(belief.retention() > 0.3);
    }

    #[test]
    fn a_miss_now_and_then_says_how_long_a_cache_lasts() {
        let mut belief = Belief::default();
        for k in 0..300 {
            belief.learn(960, if k % 2 == 0 { 0 } else { 960 }, k % 2 == 0);
        }
        assert!(belief.retention() >= 0.05);
    }
}
