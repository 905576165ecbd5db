//! The packed stat table: a row per endpoint, an `f64` column per stat, eligibility per row.

mod parts;
mod shared;

use crate::error::{RouteError, fail};
use crate::min_index::MinIndex;
use parts::Parts;

/// How the values of a stat compare across endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A count or a duration; lower is better.
    Amount,
    /// A share 0..1; lower is better.
    Usage,
    /// A share 0..1; higher is better.
    Benefit,
}

macro_rules! stats {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $kind:ident;)*) => {
        /// A column of the table. `NaN` in a column means: not known.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Stat { $($(#[$doc])* $variant,)* }

        impl Stat {
            /// Every stat, in column order.
            pub const ALL: &[Stat] = &[$(Stat::$variant,)*];

            /// The name users write: the attribute of production-stack's stats where it has one.
            pub fn name(self) -> &'static str {
                match self { $(Stat::$variant => $name,)* }
            }

            /// How its values compare.
            pub fn kind(self) -> Kind {
                match self { $(Stat::$variant => Kind::$kind,)* }
            }
        }
    };
}

stats! {
    /// Requests the router has on the endpoint: chosen, in prefill or decoding.
    InFlight, "in_flight", Amount;
    /// Requests sent whose first token has not come back.
    InPrefill, "in_prefill_requests", Amount;
    /// Requests between first token and end.
    InDecoding, "in_decoding_requests", Amount;
    /// Uncached prompt tokens sent to the endpoint whose first token has not come back.
    QueuedTokens, "queued_tokens", Amount;
    /// Query-key pairs of these.
    QueuedPairs, "queued_pairs", Amount;
    /// Milliseconds that prefilling these should take, as expected when they were sent.
    QueuedMs, "queued_prefill_ms", Amount;
    /// Prompt tokens of the requests in flight; what they share counts each time.
    ContextTokens, "context_tokens", Amount;
    /// Distinct prompt tokens that requests in flight keep in the endpoint's KV cache.
    KvTokens, "kv_tokens", Amount;
    /// Requests a second over the sliding window.
    Qps, "qps", Amount;
    /// Mean time to first token over the window, seconds.
    Ttft, "ttft", Amount;
    /// Mean whole-request latency over the window, seconds.
    AvgLatency, "avg_latency", Amount;
    /// Requests the engine says it runs (scraped).
    Running, "num_running_requests", Amount;
    /// Requests the engine says are waiting (scraped).
    Queuing, "num_queuing_requests", Amount;
    /// Running plus waiting, or what the host calls active connections.
    ActiveConnections, "active_connections", Amount;
    /// Share of the engine's KV cache in use (scraped).
    KvUsage, "gpu_cache_usage_perc", Usage;
    /// Prefix-cache hit rate the engine reports (scraped).
    HitRate, "gpu_prefix_cache_hit_rate", Benefit;
    /// Tokens that the engine's KV cache has room for (scraped).
    KvCapacity, "kv_capacity_tokens", Benefit;
    /// Tokens of the longest request that the engine takes (reported by the endpoint).
    ContextLength, "max_model_len", Benefit;
    /// How many times longer than elsewhere a prefill takes (learned; 1 until it is sure).
    PrefillSlowness, "prefill_slowness", Amount;
    /// How many times longer than elsewhere a decode step takes (learned; 1 until it is sure).
    StepSlowness, "step_slowness", Amount;
    /// How often what waits on the endpoint counts: 2 for a newcomer, towards 1 as it answers.
    QueueCaution, "queue_caution", Amount;
    /// Milliseconds of prefill sent to the endpoint lately; the profile's `rate` makes it a rate.
    PrefillSent, "prefill_sent", Amount;
    /// Requests with a prompt that the endpoint was chosen for lately, likewise; a newcomer starts
    /// with the mean.
    RequestsSent, "requests_sent", Amount;
}

impl Stat {
    /// The stat of that name; the error lists the valid ones.
    ///
    /// # Errors
    /// When no stat has the name.
    pub fn named(name: &str) -> Result<Self, RouteError> {
        if let Some(&stat) = Self::ALL.iter().find(|s| s.name() == name) {
            return Ok(stat);
        }
        let names: Vec<_> = Self::ALL.iter().map(|s| s.name()).collect();
        fail!("unknown stat {name:?}: use one of {}", names.join(", "))
    }
}

/// Rows stay where they are while their endpoint lives; a freed row is given to the next newcomer.
#[derive(Debug, Clone, Default)]
pub struct StatTable {
    columns: Vec<Vec<f64>>,
    ids: Vec<Option<u64>>,
    eligible: Vec<bool>,
    free: Vec<u32>,
    epoch: u64,
    min_index: MinIndex,
    /// Own and others' parts of the sums; none where no other router is heard.
    parts: Option<Box<Parts>>,
}

impl StatTable {
    /// An empty table.
    pub fn new() -> Self {
        Self { columns: vec![Vec::new(); Stat::ALL.len()], ..Self::default() }
    }

    /// A table of `n` unnamed rows: scratch space for values read from elsewhere.
    pub fn scratch(n: usize) -> Self {
        let mut table = Self::new();
        for id in 0..n {
            table.add(id as u64);
        }
        table
    }

    /// Gives the endpoint a row: no known stats, nothing in flight, eligible.
    pub fn add(&mut self, id: u64) -> u32 {
        self.epoch += 1;
        if let Some(row) = self.free.pop() {
            self.ids[row as usize] = Some(id);
            self.eligible[row as usize] = true;
            self.blank(row);
            return row;
        }
        for (column, stat) in self.columns.iter_mut().zip(Stat::ALL) {
            column.push(blank(*stat));
        }
        let loads = &self.columns[Stat::InFlight as usize];
        self.min_index.update(loads, loads.len() - 1);
        self.ids.push(Some(id));
        self.eligible.push(true);
        (self.ids.len() - 1) as u32
    }

    /// Frees the row; an unknown or free row is left alone.
    pub fn remove(&mut self, row: u32) {
        if self.id(row).is_some() {
            self.epoch += 1;
            self.blank(row);
            self.ids[row as usize] = None;
            self.eligible[row as usize] = false;
            self.free.push(row);
        }
    }

    fn blank(&mut self, row: u32) {
        if let Some(parts) = &mut self.parts {
            parts.blank(row as usize);
        }
        for &stat in Stat::ALL {
            self.put(stat, row, |_| blank(stat));
        }
    }

    /// The endpoint that has the row, if any has.
    pub fn id(&self, row: u32) -> Option<u64> {
        self.ids.get(row as usize).copied().flatten()
    }

    /// Rows in the table, free ones included: the length of a column.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Rows that an endpoint has.
    pub fn live(&self) -> usize {
        self.ids.len() - self.free.len()
    }

    /// Rises whenever rows or eligibility change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the row may be chosen.
    pub fn is_eligible(&self, row: u32) -> bool {
        self.eligible.get(row as usize).copied().unwrap_or(false)
    }

    /// Lets the row be chosen, or not (unhealthy, asleep, draining).
    pub fn set_eligible(&mut self, row: u32, eligible: bool) {
        if self.id(row).is_some() && self.eligible[row as usize] != eligible {
            self.eligible[row as usize] = eligible;
            self.epoch += 1;
        }
    }

    /// The column, a value per row.
    pub fn column(&self, stat: Stat) -> &[f64] {
        &self.columns[stat as usize]
    }

    /// The value, `NaN` if not known.
    pub fn get(&self, stat: Stat, row: u32) -> f64 {
        self.columns[stat as usize].get(row as usize).copied().unwrap_or(f64::NAN)
    }

    /// Stores one value; what is not a finite number ≥ 0 is stored as not known.
    pub fn set(&mut self, stat: Stat, row: u32, value: f64) {
        let known = value.is_finite() && value >= 0.0;
        self.put(stat, row, |_| if known { value } else { f64::NAN });
    }

    /// Stores a value for each row from row 0 on, as [`StatTable::set`] does.
    pub fn fill(&mut self, stat: Stat, values: impl Iterator<Item = f64>) {
        if self.parts.is_some() {
            return (0..self.rows() as u32).zip(values).for_each(|(row, x)| self.set(stat, row, x));
        }
        let column = &mut self.columns[stat as usize];
        for (slot, value) in column.iter_mut().zip(values) {
            *slot = if value.is_finite() && value >= 0.0 { value } else { f64::NAN };
        }
        if stat == Stat::InFlight {
            self.min_index.rebuild(column);
        }
    }

    /// The least of the loads (in flight), block by block.
    pub fn min_index(&self) -> &MinIndex {
        &self.min_index
    }

    /// Stores columns of one value for each of `rows`, all or none.
    ///
    /// # Errors
    /// On a wrong length, or a value that is not finite and ≥ 0; names column and position.
    pub fn load(&mut self, columns: &[(Stat, Vec<f64>)], rows: &[u32]) -> Result<(), RouteError> {
        for (stat, values) in columns {
            let name = stat.name();
            if values.len() != rows.len() {
                fail!("column {name:?}: expected {} values, got {}", rows.len(), values.len());
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite() || *v < 0.0) {
                let value = values[at];
                fail!("column {name:?}: value {at} is {value}; expected a finite number ≥ 0");
            }
        }
        for (stat, values) in columns {
            for (&row, &value) in rows.iter().zip(values) {
                self.set(*stat, row, value);
            }
        }
        Ok(())
    }

    /// Gives the rows that lack the stat the lower median of the others; 0 where all lack it.
    pub fn fill_unknown(&mut self, stat: Stat, rows: &[u32]) {
        if !rows.iter().any(|&row| self.get(stat, row).is_nan()) {
            return;
        }
        let values = rows.iter().map(|&row| self.get(stat, row));
        let mut known: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        known.sort_unstable_by(f64::total_cmp);
        let neutral = known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
        for &row in rows {
            if self.get(stat, row).is_nan() {
                self.set(stat, row, neutral);
            }
        }
    }

    /// Adds to a count; it never falls below 0.
    pub fn bump(&mut self, stat: Stat, row: u32, by: f64) {
        self.put(stat, row, |value| (value + by).max(0.0));
    }
}

/// Counts start at 0; what only a producer can know starts as not known.
fn blank(stat: Stat) -> f64 {
    match stat {
        Stat::InFlight
        | Stat::InPrefill
        | Stat::InDecoding
        | Stat::QueuedTokens
        | Stat::QueuedMs
        | Stat::QueuedPairs
        | Stat::ContextTokens
        | Stat::KvTokens
        | Stat::PrefillSent
        | Stat::RequestsSent
        | Stat::Qps => 0.0,
        Stat::PrefillSlowness | Stat::StepSlowness | Stat::QueueCaution => 1.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_row_forgets_and_is_used_again() {
        let mut table = StatTable::new();
        table.add(1);
        let row = table.add(2);
        table.set(Stat::KvUsage, row, 0.5);
        table.remove(row);
        assert_eq!((table.rows(), table.live(), table.is_eligible(row)), (2, 1, false));
        assert_eq!(table.add(3), row);
        assert!(table.get(Stat::KvUsage, row).is_nan());
        for id in 0..10_000 {
            let row = table.add(id);
            table.remove(row);
            table.remove(row);
        }
        assert_eq!((table.rows(), table.live()), (3, 2));
    }

    #[test]
    fn a_bad_column_names_itself_and_changes_nothing() {
        let mut table = StatTable::scratch(2);
        let fine = (Stat::Queuing, vec![1.0, 2.0]);
        let wrong = table.load(&[fine.clone(), (Stat::KvUsage, vec![0.1])], &[0, 1]);
        assert_eq!(
            wrong.unwrap_err().0,
            "column \"gpu_cache_usage_perc\": expected 2 values, got 1"
        );
        assert!(table.load(&[fine, (Stat::KvUsage, vec![0.1, f64::NAN])], &[0, 1]).is_err());
        assert!(table.get(Stat::KvUsage, 0).is_nan() && table.get(Stat::Queuing, 0).is_nan());
        assert!(Stat::named("kv").unwrap_err().0.contains("in_flight"));
    }
}
