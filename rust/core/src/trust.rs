//! Whether an engine's KV events are believed, by what its answers say of its cache.
//!
//! Events can be complete and still be of no use: the engine tokenises otherwise than the router,
//! keeps tenants apart that the router does not know, or is another one. What it promised by them
//! is compared with what `usage` says it found; contradicted again and again, it is not believed
//! until as many promises were kept. An endpoint whose events never match a prompt that was sent
//! there before is not believed either, be it that no answer tells of cached tokens.

use crate::fleet::Reported;

/// Contradictions more than kept promises after which events are not believed.
const DOUBT: u8 = 8;
/// As many kept promises more bring belief back.
const MOST: u8 = 16;
/// Prompts in a row that were sent there before, and of which the events know nothing.
const SILENCE: u8 = 32;
/// Share of a prompt by which a promise may be off: evictions and siblings in flight.
const SLACK: f64 = 0.1;

/// What became of an endpoint's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Less was found than they promised.
    Overstated,
    /// More was found than they promised.
    Understated,
    /// They match nothing that is sent there.
    NeverMatch,
    /// Their promises are kept again.
    Believed,
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overstated => "overstated",
            Self::Understated => "understated",
            Self::NeverMatch => "never_match",
            Self::Believed => "believed",
        }
    }
}

/// One endpoint's events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust {
    score: u8,
    silence: u8,
    doubted: bool,
    news: Option<Verdict>,
}

impl Trust {
    /// Whether they count.
    pub fn believes(&self) -> bool {
        !self.doubted
    }

    /// What is new since it was asked last.
    pub fn news(&mut self) -> Option<Verdict> {
        self.news.take()
    }

    /// A prompt goes there, of which they reported this; by what was sent there before, `learned`
    /// tokens of it should be there.
    pub fn chosen(&mut self, reported: Reported, learned: f64, block: f64) {
        if reported.tokens > 0.0 {
            if self.silence >= SILENCE {
                self.believe();
            }
            self.silence = 0;
        } else if reported.exact && learned >= 4.0 * block {
            self.silence = self.silence.saturating_add(1).min(SILENCE);
            if self.silence == SILENCE && !self.doubted {
                self.doubt(Verdict::NeverMatch);
            }
        }
    }

    /// An answer: tokens that they promised, that were predicted with what was in flight, and that
    /// were found, of a prompt of so many; `block`: tokens of a block.
    pub fn check(&mut self, promised: f64, predicted: f64, found: f64, prompt: f64, block: f64) {
        if promised == 0.0 && found == 0.0 {
            return; // a promise of nothing is no promise
        }
        let slack = (2.0 * block).max(SLACK * prompt);
        let expected = if self.doubted { promised } else { promised.max(predicted) };
        let verdict = if promised > found + slack {
            Verdict::Overstated
        } else if found > expected + slack {
            Verdict::Understated
        } else {
            self.score = self.score.saturating_sub(1);
            if self.score == 0 && self.doubted && self.silence < SILENCE {
                self.believe();
            }
            return;
        };
        self.score = (self.score + 1).min(MOST);
        if self.score >= DOUBT && !self.doubted {
            self.score = MOST;
            self.doubt(verdict);
        }
    }

    fn doubt(&mut self, verdict: Verdict) {
        self.doubted = true;
        self.news = Some(verdict);
    }

    fn believe(&mut self) {
        if self.doubted {
            *self = Self { news: Some(Verdict::Believed), ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(trust: &mut Trust, promised: f64, found: f64, times: usize) -> Option<Verdict> {
        for _ in 0..times {
            trust.check(promised, promised, found, 1000.0, 16.0);
        }
        trust.news()
    }

    #[test]
    fn broken_promises_end_belief_and_kept_ones_bring_it_back() {
        let mut trust = Trust::default();
        assert_eq!(checked(&mut trust, 900.0, 0.0, 7), None);
        assert!(trust.believes());
        assert_eq!(checked(&mut trust, 900.0, 0.0, 1), Some(Verdict::Overstated));
        assert!(!trust.believes());
        assert_eq!(checked(&mut trust, 900.0, 900.0, 15), None);
        assert_eq!(checked(&mut trust, 900.0, 900.0, 1), Some(Verdict::Believed));
        assert!(trust.believes());
    }

    #[test]
    fn a_promise_broken_now_and_then_or_by_little_is_none_broken() {
        let mut trust = Trust::default();
        for _ in 0..100 {
            checked(&mut trust, 900.0, 0.0, 1);
            checked(&mut trust, 900.0, 900.0, 2);
            checked(&mut trust, 900.0, 840.0, 3);
        }
        assert!(trust.believes());
    }

    #[test]
    fn what_is_found_and_was_never_promised_ends_belief_too() {
        let mut trust = Trust::default();
        assert_eq!(checked(&mut trust, 0.0, 0.0, 100), None);
        assert_eq!(checked(&mut trust, 0.0, 960.0, 8), Some(Verdict::Understated));
        // Siblings in flight were predicted: their cache is no surprise.
        let mut burst = Trust::default();
        (0..100).for_each(|_| burst.check(0.0, 960.0, 960.0, 1000.0, 16.0));
        assert!(burst.believes());
    }

    #[test]
    fn events_that_never_match_what_was_sent_there_are_not_believed_until_they_do() {
        let mut trust = Trust::default();
        let reported = |tokens| Reported { tokens, exact: true };
        (0..31).for_each(|_| trust.chosen(reported(0.0), 500.0, 16.0));
        trust.chosen(reported(0.0), 0.0, 16.0); // never sent there: says nothing
        assert!(trust.believes());
        trust.chosen(reported(0.0), 500.0, 16.0);
        assert_eq!(trust.news(), Some(Verdict::NeverMatch));
        trust.chosen(reported(64.0), 500.0, 16.0);
        assert_eq!(trust.news(), Some(Verdict::Believed));
        assert!(trust.believes());
    }
}
