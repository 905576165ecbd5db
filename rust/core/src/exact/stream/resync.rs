//! Losses made good: replays, and connections that broke.
//!
//! A replay is always asked for from the last message that was applied, not behind it: if that one
//! comes back changed, another process answers.

use super::state::{Kept, Replay, Step, Stream, Then, step};

impl Stream {
    /// Asks for all messages that the engine still has, as after a start.
    pub(super) fn replay_all(&mut self, live: Option<u64>) -> Step {
        self.last = None;
        self.partial = false;
        self.ask(0, None, live);
        step(true, Then::Replay(0))
    }

    fn ask(&mut self, from: u64, anchor: Option<u64>, live: Option<u64>) {
        self.seen.replays += 1;
        self.replay = Some(Replay { from, anchor, heard: false, live });
    }

    /// Replays from the last message applied, or from the start where there is none.
    pub(super) fn replay_tail(&mut self, live: Option<u64>) -> Step {
        match self.last {
            Some((seq, print)) => {
                self.ask(seq, Some(print), live);
                step(false, Then::Replay(seq))
            }
            None => self.replay_all(live),
        }
    }

    /// One answer of a replay.
    pub fn replayed(&mut self, seq: u64, print: u64) -> Step {
        let Some(replay) = &mut self.replay else { return step(false, Then::Drop) };
        let first = !std::mem::replace(&mut replay.heard, true);
        let Replay { from, anchor, live, .. } = *replay;
        if !first {
            return match self.last {
                Some((last, _)) if seq <= last => step(false, Then::Drop),
                Some((last, _)) if seq > last + 1 => {
                    self.partial = true;
                    self.apply(true, seq, print)
                }
                _ => self.apply(false, seq, print),
            };
        }
        match anchor {
            Some(anchor) if seq == from && print == anchor => step(false, Then::Drop),
            Some(_) if seq <= from => {
                self.seen.restarts += 1;
                self.replay_all(live)
            }
            None if seq == from => self.apply(false, seq, print),
            _ => {
                self.seen.overruns += 1;
                self.partial = true;
                self.apply(true, seq, print)
            }
        }
    }

    /// The replay has ended in good order. Messages kept back follow, through [`held`](Self::held).
    pub fn replay_end(&mut self) -> Step {
        match self.replay {
            Some(Replay { heard: false, anchor: Some(_), live, .. }) => {
                // Not even the message that we know: a younger process has not come so far.
                self.seen.restarts += 1;
                self.replay_all(live)
            }
            Some(Replay { heard: false, live: None, .. }) => {
                self.replay = None;
                self.kept = Kept::Nothing;
                step(false, Then::Drop)
            }
            Some(Replay { heard: false, .. }) => {
                self.kept = Kept::Never; // it has spoken, and does not keep what it said
                self.replay_failed()
            }
            _ => {
                self.replay = None;
                step(false, Then::Drop)
            }
        }
    }

    /// The replay gave nothing in time. What was held is forgotten; go on with what comes.
    pub fn replay_failed(&mut self) -> Step {
        if self.replay.take().is_none() {
            return step(false, Then::Drop);
        }
        self.last = None;
        self.partial = true;
        step(true, Then::Drop)
    }

    /// The connection broke, so that a restart could pass unseen.
    pub fn disconnected(&mut self, can_replay: bool) -> Step {
        self.kept = Kept::Some;
        self.away = can_replay && self.last.is_some();
        if self.away {
            return step(false, Then::Drop);
        }
        self.replay = None;
        self.last = None;
        self.partial = true;
        step(true, Then::Drop)
    }

    /// The connection is back.
    pub fn reconnected(&mut self, can_replay: bool) -> Step {
        self.away = false;
        if can_replay { self.replay_tail(None) } else { self.disconnected(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::tests::at_three;
    use super::*;

    #[test]
    fn a_late_copy_is_distinguished_from_a_restart_by_the_replay() {
        let mut stream = at_three();
        assert_eq!(stream.live(1, 1, true), step(false, Then::Replay(3)));
        assert_eq!(stream.replayed(3, 3), step(false, Then::Drop));
        stream.replay_end();
        assert_eq!(stream.held(1, 1, true), step(false, Then::Drop));
        assert!(stream.is_exact());
        assert_eq!(stream.seen.restarts, 0);
    }

    #[test]
    fn a_restart_is_seen_by_a_number_that_fell() {
        let mut stream = at_three();
        assert_eq!(stream.live(1, 91, true), step(false, Then::Replay(3)));
        // The young process has no message 3 yet.
        assert_eq!(stream.replay_end(), step(true, Then::Replay(0)));
        assert_eq!(stream.replayed(0, 90), step(false, Then::Apply));
        assert_eq!(stream.replayed(1, 91), step(false, Then::Apply));
        stream.replay_end();
        assert!(stream.is_exact());
        assert_eq!((stream.last(), stream.seen.restarts), (Some(1), 1));
    }

    #[test]
    fn a_restart_beyond_the_old_number_is_seen_when_the_connection_returns() {
        let mut stream = at_three();
        assert_eq!(stream.disconnected(true), step(false, Then::Drop));
        assert!(stream.is_resyncing());
        assert_eq!(stream.live(4, 94, true), step(false, Then::Hold));
        assert_eq!(stream.reconnected(true), step(false, Then::Replay(3)));
        assert_eq!(stream.replayed(3, 93), step(true, Then::Replay(0)));
        for seq in 0..6 {
            assert_eq!(stream.replayed(seq, 90 + seq), step(false, Then::Apply));
        }
        stream.replay_end();
        assert!(stream.is_exact());
    }

    #[test]
    fn a_lost_connection_without_replay_forgets() {
        let mut stream = at_three();
        assert_eq!(stream.disconnected(false), step(true, Then::Drop));
        assert_eq!(stream.live(4, 4, false), step(false, Then::Apply));
        assert!(!stream.is_exact());
    }

    #[test]
    fn a_ring_that_ran_over_forgets_and_takes_what_came() {
        let mut stream = at_three();
        stream.live(90, 90, true);
        assert_eq!(stream.replayed(50, 50), step(true, Then::Apply));
        assert_eq!(stream.replayed(51, 51), step(false, Then::Apply));
        stream.replay_end();
        assert!(!stream.is_exact());
        assert_eq!((stream.last(), stream.seen.overruns), (Some(51), 1));
    }

    #[test]
    fn a_replay_with_a_hole_of_its_own_leaves_a_partial_view() {
        let mut stream = at_three();
        stream.live(9, 9, true);
        stream.replayed(3, 3);
        assert_eq!(stream.replayed(4, 4), step(false, Then::Apply));
        assert_eq!(stream.replayed(6, 6), step(true, Then::Apply));
        assert_eq!(stream.replayed(6, 6), step(false, Then::Drop));
        stream.replay_end();
        assert_eq!((stream.last(), stream.is_exact()), (Some(6), false));
    }

    #[test]
    fn who_joins_late_asks_from_the_start() {
        let mut stream = Stream::default();
        assert_eq!(stream.live(9, 9, true), step(true, Then::Replay(0)));
        assert_eq!(stream.replayed(0, 0), step(false, Then::Apply));
        let mut alone = Stream::default();
        assert_eq!(alone.live(9, 9, false), step(false, Then::Apply));
        assert!(!alone.is_exact());
    }

    #[test]
    fn a_failed_replay_forgets_and_starts_from_what_comes() {
        let mut stream = at_three();
        stream.live(6, 6, true);
        assert_eq!(stream.replay_failed(), step(true, Then::Drop));
        assert_eq!(stream.held(6, 6, false), step(false, Then::Apply));
        assert!(!stream.is_exact() && !stream.is_resyncing());
    }

    #[test]
    fn a_fresh_engine_with_nothing_to_replay_becomes_exact_with_its_first_message() {
        let mut stream = Stream::default();
        assert_eq!(stream.reconnected(true), step(true, Then::Replay(0)));
        assert_eq!(stream.replay_end(), step(false, Then::Drop));
        assert!(stream.is_fresh() && !stream.is_exact());
        assert_eq!(stream.live(0, 0, true), step(false, Then::Apply));
        assert!(stream.is_exact());
    }

    #[test]
    fn an_engine_that_keeps_nothing_to_replay_is_not_asked_again_until_it_is_another() {
        let mut stream = Stream::default();
        assert_eq!(stream.live(7, 7, true), step(true, Then::Replay(0)));
        assert_eq!(stream.replay_end(), step(true, Then::Drop));
        assert_eq!(stream.held(7, 7, true), step(false, Then::Apply));
        assert_eq!(stream.live(9, 9, true), step(true, Then::Apply));
        assert!(!stream.is_exact() && !stream.is_fresh());
        stream.disconnected(true);
        assert_eq!(stream.reconnected(true), step(false, Then::Replay(9)));
    }
}
