//! Choices that wait for their report.

use std::collections::VecDeque;

use super::work::Work;
use crate::index::Pin;

/// In the order of the choices; those without a prompt, one after another, take one place.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// What each asks for, or how many there are of which nothing is known.
    choices: VecDeque<(Work, u32)>,
    len: u32,
}

impl Waiting {
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn push(&mut self, work: Work) {
        self.choices.push_back((work, 0));
        self.len += 1;
    }

    /// A choice of which nothing is known but that it was made.
    pub fn push_bare(&mut self) {
        match self.choices.back_mut() {
            Some((_, times)) if *times > 0 => *times += 1,
            _ => self.choices.push_back((Work::default(), 1)),
        }
        self.len += 1;
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Work> {
        let (work, times) = self.choices.front_mut()?;
        let work = *work;
        if *times > 1 {
            *times -= 1;
        } else {
            self.choices.pop_front();
        }
        self.len -= 1;
        Some(work)
    }

    /// Takes the pin from the latest.
    pub fn unpin_last(&mut self) -> Option<Pin> {
        self.choices.back_mut().and_then(|(work, _)| work.pin.take())
    }

    pub fn unpin(&mut self) {
        self.choices.iter_mut().for_each(|(work, _)| work.pin = None);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_leave_in_their_order_whether_anything_is_known_of_them() {
        let mut waiting = Waiting::default();
        let known = |prompt_tokens| Work { prompt_tokens, ..Work::default() };
        for prompt_tokens in [0, 0, 7, 0, 8, 9, 0, 0, 0] {
            if prompt_tokens == 0 {
                waiting.push_bare();
            } else {
                waiting.push(known(prompt_tokens));
            }
        }
        assert_eq!((waiting.len(), waiting.choices.len()), (9, 6));
        let left: Vec<u64> =
            std::iter::from_fn(|| waiting.pop()).map(|w| w.prompt_tokens).collect();
        assert_eq!(left, [0, 0, 7, 0, 8, 9, 0, 0, 0]);
        assert_eq!((waiting.len(), waiting.choices.len()), (0, 0));
        waiting.push_bare();
        waiting.clear();
        assert_eq!(waiting.pop(), None);
    }
}
