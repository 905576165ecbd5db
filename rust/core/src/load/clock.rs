//! One clock out of the timestamps that hosts pass.
//!
//! A host's clock may be set while requests run, a single timestamp may be wrong, and timestamps
//! may come from several machines. What runs out by time must not run out by any of that. So
//! timestamps are read with a *shift* that is changed where one cannot be right: a clock that is
//! behind was set back, and no time has passed; a clock far ahead has leapt, which is believed, as
//! after an idle night, until a later timestamp shows that it was wrong.

/// Seconds that timestamps may differ from the clock, either way, and be nothing out of the ordinary.
pub const FAR: f64 = 1.0;
/// Seconds ahead above which a leap is in doubt until a second timestamp agrees.
const DOUBT: f64 = 60.0;
/// Seconds ahead above which a request that outlives its lease shows that the clock was set.
const SET: f64 = 300.0;
/// Seconds for which a shift that is no longer used is remembered.
const KNOWN: f64 = 60.0;
/// From here on a timestamp is in milliseconds: as seconds this is the year 5138. A thousand times
/// that, it is in microseconds, and so on.
const MILLIS: f64 = 1e11;

/// A step ahead that nobody has shown to be wrong.
#[derive(Debug, Clone, Copy)]
struct Leap {
    from: f64,
    to: f64,
    agreed: bool,
}

/// A shift that was in use, and when it was last.
#[derive(Debug, Clone, Copy)]
struct Shift {
    by: f64,
    used: f64,
}

/// What became of the clock by one timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It stands or has moved on as clocks do.
    On,
    /// It has leapt.
    Leapt,
    /// It has gone back to before its leap.
    Undone,
}

/// Seconds since whenever; they stand still or go on, but for leaps that are undone.
#[derive(Debug, Clone)]
pub struct Clock {
    now: f64,
    shift: f64,
    others: [Shift; 3],
    leap: Option<Leap>,
}

impl Default for Clock {
    fn default() -> Self {
        let unused = Shift { by: 0.0, used: f64::NEG_INFINITY };
        Self { now: f64::NEG_INFINITY, shift: 0.0, others: [unused; 3], leap: None }
    }
}

impl Clock {
    /// The time; minus infinity before any timestamp.
    pub fn now(&self) -> f64 {
        self.now
    }

    /// The latest time that is not in doubt.
    pub fn sure(&self) -> f64 {
        match self.leap {
            Some(leap) if !leap.agreed && leap.to - leap.from > DOUBT => leap.from,
            _ => self.now,
        }
    }

    /// What the host's clock says now, in seconds.
    pub fn reported(&self) -> f64 {
        self.now - self.shift
    }

    /// A timestamp as a time of this clock, for figures; changes nothing.
    pub fn at(&self, timestamp: f64) -> f64 {
        let Some(timestamp) = seconds(timestamp) else { return self.now };
        if self.now == f64::NEG_INFINITY {
            return timestamp;
        }
        let time = timestamp + self.shift;
        if (time - self.now).abs() <= FAR { time } else { self.now }
    }

    /// A timestamp came; its time by this clock, and what that did. `late`: seconds that it may be
    /// behind because it is reported late.
    pub fn observe(&mut self, timestamp: f64, late: f64) -> (f64, Turn) {
        let Some(timestamp) = seconds(timestamp) else {
            return (if self.now.is_finite() { self.now } else { 0.0 }, Turn::On);
        };
        if self.now == f64::NEG_INFINITY {
            self.now = timestamp;
            return (timestamp, Turn::On);
        }
        let mut time = timestamp + self.shift;
        if (time - self.now).abs() <= FAR {
            self.pass(time);
            return (time, Turn::On);
        }
        // Of the clocks that are known, the one by which the least time has passed.
        let step = |by: f64| Some(timestamp + by - self.now).filter(|step| *step >= -FAR);
        let known = (0..self.others.len())
            .filter(|&at| self.now - self.others[at].used <= KNOWN)
            .filter_map(|at| Some((at, step(self.others[at].by)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((at, least)) = known
            && step(self.shift).is_none_or(|step| least < step)
            && (time > self.now || time < self.now - late)
        {
            let other = self.others[at];
            self.others[at] = Shift { by: self.shift, used: self.now };
            self.shift = other.by;
            time = timestamp + other.by;
        }
        if time > self.now + FAR {
            self.leap = Some(Leap { from: self.now, to: time, agreed: false });
            self.now = time;
            return (time, Turn::Leapt);
        }
        if let Some(leap) = self.leap
            && time < self.now - FAR
            && late.is_finite()
            && is_before(time, leap)
        {
            self.undo(time.max(leap.from));
            return (time, Turn::Undone);
        }
        if time < self.now - late {
            self.keep_shift();
            self.shift += self.now - time;
            time = self.now;
        }
        self.pass(time);
        (time, Turn::On)
    }

    /// Whether there is a leap that may yet be undone.
    pub fn has_leapt(&self) -> bool {
        self.leap.is_some()
    }

    /// A request for which the leap was too long proves to be alive at `time`: the leap was wrong.
    /// Returns that time by the clock as it then is; `None` where the leap was too short to tell.
    pub fn disprove(&mut self, time: f64) -> Option<f64> {
        let leap = self.leap.filter(|leap| leap.to - leap.from > SET)?;
        if is_before(time, leap) {
            self.undo(time.max(leap.from));
            return Some(time);
        }
        // The host's clock was set ahead, and stays there.
        self.keep_shift();
        self.shift -= leap.to - leap.from;
        let time = time - (leap.to - leap.from);
        self.undo(time.max(leap.from));
        Some(time)
    }

    /// Whether the leap is so long ago that it must have been right. It is forgotten then.
    pub fn settle(&mut self) -> bool {
        let over = self.leap.is_some_and(|leap| self.now > leap.to + KNOWN);
        if over {
            self.leap = None;
        }
        over
    }

    fn pass(&mut self, time: f64) {
        self.now = self.now.max(time);
        if let Some(leap) = &mut self.leap
            && time >= leap.to - FAR
        {
            leap.agreed = true;
        }
    }

    fn undo(&mut self, now: f64) {
        self.leap = None;
        self.now = now;
        for other in &mut self.others {
            other.used = other.used.min(now);
        }
    }

    fn keep_shift(&mut self) {
        let oldest = (0..self.others.len())
            .min_by(|&a, &b| self.others[a].used.total_cmp(&self.others[b].used));
        if let Some(oldest) = oldest {
            self.others[oldest] = Shift { by: self.shift, used: self.now };
        }
    }
}

/// Whether the time is nearer to the leap's start than to its end.
fn is_before(time: f64, leap: Leap) -> bool {
    (time - leap.from).abs() < leap.to - time
}

/// A timestamp in seconds, whatever unit it came in; `None` for what cannot be one.
fn seconds(timestamp: f64) -> Option<f64> {
    if !(-MILLIS..MILLIS * 1e9).contains(&timestamp) {
        return None;
    }
    let mut seconds = timestamp;
    while seconds >= MILLIS {
        seconds /= 1e3;
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(at: f64) -> Clock {
        let mut clock = Clock::default();
        clock.observe(at, FAR);
        clock
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_from_where_it_was() {
        let mut clock = clock(10_000.0);
        assert_eq!(clock.observe(6_400.0, FAR), (10_000.0, Turn::On));
        assert_eq!(clock.observe(6_401.0, FAR), (10_001.0, Turn::On));
        assert_eq!(clock.observe(7_100.0, FAR), (10_700.0, Turn::Leapt));
    }

    #[test]
    fn a_leap_is_believed_until_time_goes_on_from_before_it() {
        let mut clock = clock(100.0);
        assert_eq!(clock.observe(3_700.0, FAR), (3_700.0, Turn::Leapt));
        assert_eq!(clock.sure(), 100.0);
        assert_eq!(clock.observe(101.0, FAR), (101.0, Turn::Undone));
        assert_eq!((clock.now(), clock.sure()), (101.0, 101.0));
        clock.observe(3_700.0, FAR);
        clock.observe(3_700.5, FAR);
        assert_eq!(clock.sure(), 3_700.5);
    }

    #[test]
    fn a_clock_set_ahead_is_found_out_by_a_request_that_lives() {
        let mut clock = clock(100.0);
        let (time, _) = clock.observe(3_700.0, FAR);
        assert_eq!(clock.disprove(time), Some(100.0));
        assert_eq!(clock.observe(3_700.75, FAR), (100.75, Turn::On));
    }

    #[test]
    fn machines_whose_clocks_differ_are_distinguished() {
        let mut clock = clock(50_000.0);
        for second in 0..1_000 {
            let second = f64::from(second) * 0.5;
            let (here, _) = clock.observe(50_000.0 + second, FAR);
            let (there, _) = clock.observe(46_400.0 + second, FAR);
            assert!((here - (50_000.0 + second)).abs() < 1e-6, "{second}");
            assert!((there - (50_000.0 + second)).abs() < 1e-6, "{second}");
        }
    }

    #[test]
    fn other_units_and_no_numbers() {
        let mut clock = clock(1_700_000_000.0);
        for timestamp in [1_700_000_000_500.0, 1_700_000_000_500_000.0, 1_700_000_000_500_000_000.0]
        {
            assert!((clock.observe(timestamp, FAR).0 - 1_700_000_000.5).abs() < 1e-3);
        }
        for timestamp in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e12] {
            assert_eq!(clock.observe(timestamp, FAR), (1_700_000_000.5, Turn::On));
        }
    }
}
