//! The sums of one endpoint.

use super::backlog::Backlog;
use super::flight::{Flight, Meter};
use super::others::Others;
use super::seen::{FirstToken, Served};
use super::waiting::Waiting;
use super::window::Window;
use super::work::Work;
use crate::index::Pin;
use crate::register::{Field, Register};
use crate::stats::{Stat, StatTable};

/// Prefills of others that may be over from one word of theirs to the next.
const MOST_PREFILLED: u64 = 1000;

/// Everything that is counted on one row. Whole numbers, so that nothing drifts.
#[derive(Debug, Default)]
pub(super) struct RowLoad {
    /// Choices that were not reported yet, oldest first.
    waiting: Waiting,
    unsent: Backlog,
    /// Choices already reported, still standing in the expiry queue.
    reported: u32,
    prefill: u32,
    decode: u32,
    /// In flight from other routers, as the endpoint last reported.
    pub elsewhere: u32,
    /// In flight from other routers, as these report.
    pub others: Others,
    /// What requests sent to the row from now on carry.
    pub generation: u32,
    /// Prompt tokens of the requests that decode, and of all in flight.
    decoding_tokens: u64,
    context_tokens: u64,
    queued: Backlog,
    finished: u64,
    pub swapped: u64,
    first_seen: Option<f64>,
    meter: Meter,
    /// Of the meter, what is others'.
    others_prefilled: Backlog,
    arrivals: Window,
    ttft: Window,
    latency: Window,
}

/// What one endpoint looks like from the router: production-stack's `RequestStats`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowStats {
    /// Arrivals a second over the window.
    pub qps: f64,
    /// Mean seconds to first token over the window.
    pub ttft: Option<f64>,
    /// Requests without a first token yet.
    pub in_prefill: u32,
    /// Requests between first token and end.
    pub in_decoding: u32,
    /// Requests that ended well.
    pub finished: u64,
    /// Seconds since the first request.
    pub uptime: f64,
    /// Mean seconds of a whole request over the window.
    pub avg_latency: Option<f64>,
    /// Requests reported as swapped.
    pub swapped: u64,
}

/// Between which times and durations figures are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Seconds of the sliding window.
    pub span: f64,
    /// The latest time that is not in doubt: what is too old by a later one is kept for now.
    pub sure: f64,
    /// Seconds that a request may last; what seems longer is a wrong timestamp.
    pub longest: f64,
}

impl Bounds {
    pub fn can_last(&self, seconds: f64) -> bool {
        (0.0..=self.longest).contains(&seconds)
    }
}

impl RowLoad {
    pub fn meter(&self) -> Meter {
        self.meter
    }

    /// Others reported how much of their prefill is over, by now and before. Where routers come and go
    /// between, these say nothing.
    pub fn hear_prefilled(&mut self, before: &Backlog, now: &Backlog) {
        let more = now.without(before);
        let goes_on = before.requests > 0 && now.requests >= before.requests;
        if goes_on && more.requests <= MOST_PREFILLED {
            self.meter.prefilled = self.meter.prefilled.with(&more);
            self.others_prefilled = self.others_prefilled.with(&more);
        }
    }

    pub fn set_meter(&mut self, meter: Meter) {
        self.meter = meter;
    }

    /// Brings the meter forward: until `now` the row was as it is.
    pub fn pass(&mut self, now: f64) {
        let seconds = now - self.meter.at;
        if seconds > 0.0 {
            self.meter.context_seconds += self.all_decoding_tokens() as f64 * seconds;
            self.meter.decode_seconds += self.all_decoding() as f64 * seconds;
            self.meter.at = now;
        }
    }

    /// Requests that decode there, whosever they are, and their prompt tokens.
    fn all_decoding(&self) -> u64 {
        u64::from(self.decode).saturating_add(self.others.decoding)
    }

    fn all_decoding_tokens(&self) -> u64 {
        self.decoding_tokens.saturating_add(self.others.decoding_tokens)
    }

    pub fn choose(&mut self, work: Work) {
        self.waiting.push(work);
        self.unsent.add(&work);
        self.queued.add(&work);
        self.context_tokens = self.context_tokens.saturating_add(work.prompt_tokens);
    }

    pub fn choose_bare(&mut self) {
        self.waiting.push_bare();
    }

    pub fn unpin_last(&mut self) -> Option<Pin> {
        self.waiting.unpin_last()
    }

    pub fn unpin(&mut self) {
        self.waiting.unpin();
    }

    /// The oldest choice leaves the expiry queue; it is returned if it was never reported.
    pub fn drop_oldest_choice(&mut self) -> Option<Work> {
        if self.reported > 0 {
            self.reported -= 1;
            return None;
        }
        let work = self.waiting.pop()?;
        self.unsent.take(&work);
        self.context_tokens = self.context_tokens.saturating_sub(work.prompt_tokens);
        self.queued.take(&work);
        Some(work)
    }

    pub fn send(&mut self, row: u32, time: f64, bounds: Bounds) -> Flight {
        self.pass(time);
        let work = self.waiting.pop();
        if work.is_some() {
            self.reported += 1;
        }
        let mut work = work.unwrap_or_default();
        // When others' prefill ahead of it is over, is known too late to learn from.
        work.has_room &= self.others.queued.requests == 0;
        self.prefill += 1;
        self.first_seen.get_or_insert(time);
        self.arrivals.push(time, 0.0, bounds.span, bounds.sure);
        self.unsent.take(&work);
        // Choices made after this one stand in the queue behind it.
        let mut ahead = self.queued.without(&self.unsent);
        ahead.take(&work);
        ahead = ahead.with(&self.others.queued);
        Flight {
            row,
            start: time,
            since: time,
            first_token: None,
            reserved: false,
            presumed: false,
            work,
            ahead,
            came_beside: self.all_decoding() > 0,
            mark: Meter::default(),
            generated: None,
            generation: self.generation,
            deferred: None,
        }
    }

    /// All that was on the row is gone, choices too; its windows stay.
    pub fn empty(&mut self) {
        self.waiting.clear();
        (self.unsent, self.queued) = (Backlog::default(), Backlog::default());
        (self.reported, self.prefill, self.decode) = (0, 0, 0);
        (self.decoding_tokens, self.context_tokens) = (0, 0);
    }

    /// Its prefill is over, and it decodes.
    pub fn decodes(&mut self, flight: &mut Flight, time: f64) {
        self.prefill = self.prefill.saturating_sub(1);
        self.queued.take(&flight.work);
        self.meter.prefilled.add(&flight.work);
        self.decode += 1;
        self.decoding_tokens = self.decoding_tokens.saturating_add(flight.work.prompt_tokens);
        flight.first_token = Some(time);
        flight.mark = self.meter;
    }

    pub fn first_token(&mut self, flight: &mut Flight, time: f64, bounds: Bounds) -> FirstToken {
        if !flight.presumed {
            self.decodes(flight, time);
        }
        flight.first_token = Some(time);
        flight.presumed = false;
        let waited = time - flight.start;
        if bounds.can_last(waited) {
            self.ttft.push(time, waited, bounds.span, bounds.sure);
        }
        self.waited(flight, time)
    }

    /// What its wait until now teaches.
    fn waited(&self, flight: &Flight, time: f64) -> FirstToken {
        let decodes = flight.first_token.is_some();
        let own = if decodes { flight.work.prompt_tokens } else { 0 };
        let batch = self.all_decoding().saturating_sub(u64::from(decodes));
        FirstToken {
            waited_ms: (time - flight.start) * 1e3,
            ahead: flight.ahead.features(),
            came_beside: flight.came_beside,
            batch: batch as f64,
            context_tokens: self.all_decoding_tokens().saturating_sub(own) as f64,
            work: flight.work,
        }
    }

    /// The request is on the row no longer.
    pub fn release(&mut self, flight: &Flight) {
        let tokens = flight.work.prompt_tokens;
        self.context_tokens = self.context_tokens.saturating_sub(tokens);
        if flight.first_token.is_some() {
            self.decode = self.decode.saturating_sub(1);
            self.decoding_tokens = self.decoding_tokens.saturating_sub(tokens);
        } else {
            self.prefill = self.prefill.saturating_sub(1);
            self.queued.take(&flight.work);
        }
    }

    /// The request is on the row again, after its release was a mistake.
    pub fn restore(&mut self, flight: &Flight) {
        let tokens = flight.work.prompt_tokens;
        self.context_tokens = self.context_tokens.saturating_add(tokens);
        if flight.first_token.is_some() {
            self.decode += 1;
            self.decoding_tokens = self.decoding_tokens.saturating_add(tokens);
        } else {
            self.prefill += 1;
            self.queued.add(&flight.work);
        }
    }

    /// It was served to its end.
    pub fn serve(&mut self, flight: &Flight, time: f64, bounds: Bounds) -> Option<Served> {
        self.finished += 1;
        let lasted = time - flight.start;
        if !bounds.can_last(lasted) {
            return None;
        }
        self.latency.push(time, lasted, bounds.span, bounds.sure);
        let whole = flight.waits().then(|| self.waited(flight, time));
        let first_token = flight.first_token.filter(|_| whole.is_none());
        let (from, to) = (&flight.mark, &self.meter);
        let seconds = first_token.map_or(0.0, |first| time - first);
        let over = |sum: f64| if seconds > 0.0 { sum / seconds } else { 0.0 };
        Some(Served {
            decode_ms: seconds * 1e3,
            prefilled: to.prefilled.without(&from.prefilled).features(),
            context_tokens: over(to.context_seconds - from.context_seconds),
            batch: over(to.decode_seconds - from.decode_seconds),
            generated: flight.generated,
            whole,
        })
    }

    pub fn stats(&mut self, now: f64, span: f64) -> Option<RowStats> {
        let first_seen = self.first_seen?;
        for window in [&mut self.arrivals, &mut self.ttft, &mut self.latency] {
            window.trim(now, span);
        }
        Some(RowStats {
            qps: self.arrivals.len() as f64 / span,
            ttft: self.ttft.mean(),
            in_prefill: self.prefill,
            in_decoding: self.decode,
            finished: self.finished,
            uptime: (now - first_seen).max(0.0),
            avg_latency: self.latency.mean(),
            swapped: self.swapped,
        })
    }

    /// What this router has there.
    pub fn tell(&self, into: &mut Register) {
        let (prefill, decode) = (u64::from(self.prefill), u64::from(self.decode));
        let own = self.meter.prefilled.without(&self.others_prefilled);
        let requests = u64::from(self.waiting.len()) + prefill + decode;
        for (field, value) in [
            (Field::Routers, u64::from(requests > 0)),
            (Field::Requests, requests),
            (Field::Prefilling, prefill),
            (Field::Decoding, decode),
            (Field::QueuedRequests, self.queued.requests),
            (Field::QueuedTokens, self.queued.tokens),
            (Field::QueuedPairs, self.queued.pairs),
            (Field::QueuedUs, self.queued.us),
            (Field::ContextTokens, self.context_tokens),
            (Field::DecodingTokens, self.decoding_tokens),
            (Field::PrefilledRequests, own.requests),
            (Field::PrefilledTokens, own.tokens),
            (Field::PrefilledPairs, own.pairs),
        ] {
            into.set(field, value);
        }
    }

    pub fn publish(&self, table: &mut StatTable, row: u32) {
        let (prefill, decode) = (f64::from(self.prefill), f64::from(self.decode));
        // What the endpoint said beyond what the others did: nobody counts twice.
        let elsewhere = u64::from(self.elsewhere).saturating_sub(self.others.requests);
        let unseen = f64::from(self.waiting.len()) + elsewhere as f64;
        table.set(Stat::InFlight, row, unseen + prefill + decode);
        table.set(Stat::InPrefill, row, prefill);
        table.set(Stat::InDecoding, row, decode);
        table.set(Stat::QueuedTokens, row, self.queued.tokens as f64);
        table.set(Stat::QueuedPairs, row, self.queued.pairs as f64);
        table.set(Stat::QueuedMs, row, self.queued.us as f64 / 1e3);
        table.set(Stat::ContextTokens, row, self.context_tokens as f64);
    }
}
