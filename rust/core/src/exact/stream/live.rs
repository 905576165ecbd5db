//! Live messages: numbers that follow, are passed over, or fall.

use super::state::{Kept, Step, Stream, Then, step};

impl Stream {
    /// A message from the live stream. `print`: fingerprint of its payload. `can_replay`: whether
    /// the engine can be asked now.
    pub fn live(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        if self.away {
            return step(false, Then::Hold); // heard before the news of the new connection
        }
        let can_replay = can_replay && self.kept != Kept::Never;
        if let Some(replay) = &mut self.replay {
            match replay.live {
                Some(high) if seq == high => {
                    self.seen.duplicates += 1;
                    return step(false, Then::Drop);
                }
                Some(high) if seq < high => return self.fell(seq, print, can_replay),
                _ => {
                    replay.live = Some(seq);
                    return step(false, Then::Hold);
                }
            }
        }
        let Some((last, _)) = self.last else {
            if seq > 0 && can_replay {
                return self.replay_all(Some(seq));
            }
            // Nothing is held then, so a first message is all there is to know.
            self.partial = seq > 0;
            return self.apply(false, seq, print);
        };
        if seq == last + 1 {
            self.apply(false, seq, print)
        } else if seq == last {
            self.seen.duplicates += 1;
            step(false, Then::Drop)
        } else if seq < last {
            self.fell(seq, print, can_replay)
        } else {
            self.seen.gaps += 1;
            if can_replay {
                return self.replay_tail(Some(seq));
            }
            // A removal may be among the lost: what is held could be promised for ever.
            self.partial = true;
            self.apply(true, seq, print)
        }
    }

    /// A number that was passed already: a late copy, or another process that counts anew.
    fn fell(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        if can_replay && (self.last.is_some() || seq > 0) {
            return self.replay_tail(Some(seq)); // the answer tells which
        }
        self.replay = None;
        self.seen.restarts += 1;
        self.partial = seq > 0;
        self.apply(true, seq, print)
    }

    /// A message kept back, after the replay: like a live one, but may have been replayed already.
    pub fn held(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        if self.replay.is_none() && self.last.is_some_and(|(last, _)| seq <= last) {
            return step(false, Then::Drop);
        }
        self.live(seq, print, can_replay)
    }

    /// A live message cannot be read: its events are lost, as if its number had been passed over.
    pub fn unreadable(&mut self, seq: u64, can_replay: bool) -> Step {
        // While a replay runs, the numbers that follow will show what is missing.
        if self.is_resyncing() || self.last.is_some_and(|(last, _)| seq <= last) {
            return step(false, Then::Drop);
        }
        self.seen.gaps += 1;
        if can_replay {
            return self.replay_tail(Some(seq));
        }
        self.partial = true;
        self.last = Some((seq, 0));
        step(true, Then::Drop)
    }

    /// The engine said that it holds nothing: from here on everything is known.
    pub fn cleared(&mut self) {
        self.partial = false;
    }

    /// Something did not fit together although nothing seemed lost.
    pub fn distrust(&mut self) {
        self.partial = true;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A stream that applied 0..=3, each with its own number as fingerprint.
    pub fn at_three() -> Stream {
        let mut stream = Stream::default();
        for seq in 0..4 {
            assert_eq!(stream.live(seq, seq, true), step(false, Then::Apply));
        }
        assert!(stream.is_exact());
        stream
    }

    #[test]
    fn a_gap_is_asked_for_from_the_last_message_and_then_caught_up() {
        let mut stream = at_three();
        assert_eq!(stream.live(6, 6, true), step(false, Then::Replay(3)));
        assert!(stream.is_resyncing() && !stream.is_exact());
        assert_eq!(stream.live(7, 7, true), step(false, Then::Hold));
        assert_eq!(stream.replayed(3, 3), step(false, Then::Drop));
        for seq in 4..7 {
            assert_eq!(stream.replayed(seq, seq), step(false, Then::Apply));
        }
        assert_eq!(stream.replay_end(), step(false, Then::Drop));
        assert_eq!(stream.held(6, 6, true), step(false, Then::Drop));
        assert_eq!(stream.held(7, 7, true), step(false, Then::Apply));
        assert!(stream.is_exact());
    }

    #[test]
    fn a_gap_without_replay_forgets_and_goes_on_in_part() {
        let mut stream = at_three();
        assert_eq!(stream.live(6, 6, false), step(true, Then::Apply));
        assert!(!stream.is_exact());
        assert_eq!(stream.live(7, 7, false), step(false, Then::Apply));
        stream.cleared();
        assert!(stream.is_exact());
    }

    #[test]
    fn a_message_heard_twice_is_dropped() {
        let mut stream = at_three();
        assert_eq!(stream.live(3, 3, true), step(false, Then::Drop));
        assert_eq!(stream.seen.duplicates, 1);
    }

    #[test]
    fn a_restart_without_replay_forgets_at_once() {
        let mut stream = at_three();
        assert_eq!(stream.live(0, 90, false), step(true, Then::Apply));
        assert!(stream.is_exact());
        let mut stream = at_three();
        assert_eq!(stream.live(2, 92, false), step(true, Then::Apply));
        assert!(!stream.is_exact());
    }

    #[test]
    fn what_cannot_be_read_is_lost() {
        let mut stream = at_three();
        assert_eq!(stream.unreadable(4, true), step(false, Then::Replay(3)));
        let mut stream = at_three();
        assert_eq!(stream.unreadable(4, false), step(true, Then::Drop));
        assert_eq!(stream.live(5, 5, false), step(false, Then::Apply));
        assert!(!stream.is_exact());
        assert_eq!(at_three().unreadable(2, true), step(false, Then::Drop));
    }
}
