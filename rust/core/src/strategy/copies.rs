//! When a prefix is worth a second holder.

/// Copies that are counted at once: so many sets of so many …
const SETS: usize = 256;
const WAYS: usize = 4;
/// How often a copy must have paid for its prefill before it is made: once for the prefill, the
/// rest for what it drives out of a cache that is full.
const PRICES: f64 = 3.0;
/// Requests per candidate over which what would have been saved is forgotten.
const MEMORY: f64 = 64.0;

/// A copy of a prefix that would help a request.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// The candidate that should hold it.
    pub pos: usize,
    /// Names the prefix and the endpoint.
    pub copy: u64,
    /// What the request would save, were it there already, milliseconds.
    pub saved: f64,
    /// What making it costs more than using it, milliseconds.
    pub price: f64,
}

/// What requests would have saved, had some endpoint held their prefix too.
///
/// A single request never pays for a copy: computing the prefix anew costs more than it saves that
/// one. Many pay together, so a copy is made once they would have saved its price several times (rent or buy:
/// Black and Sleator, "Competitive algorithms for replication and migration problems", 1989). Bounded:
/// in a full set the copy that saved least is displaced.
#[derive(Debug, Clone)]
pub struct Copies {
    sets: Box<[[Slot; WAYS]]>,
    requests: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    /// Prices of the copy that were saved: what a millisecond is worth changes while the speed of the
    /// engines is learned.
    paid: f64,
    /// Which request was the last to count.
    at: f64,
}

impl Default for Copies {
    fn default() -> Self {
        Self { sets: vec![[Slot::default(); WAYS]; SETS].into(), requests: 0.0 }
    }
}

impl Copies {
    /// One more request was routed.
    pub fn routed(&mut self) {
        self.requests += 1.0;
    }

    /// Whether the request should make the copy it wishes for.
    pub fn pays(&mut self, wish: &Wish, candidates: usize) -> bool {
        let (Self { sets, requests }, Wish { copy: key, saved, price, .. }) = (self, *wish);
        let set = &mut sets[key as usize % SETS];
        let memory = MEMORY * candidates.max(1) as f64;
        for slot in &mut *set {
            slot.paid *= (-(*requests - slot.at) / memory).exp();
            slot.at = *requests;
        }
        let mine = set.iter().position(|slot| slot.key == key).unwrap_or_else(|| {
            let by_paid = |a: &usize, b: &usize| set[*a].paid.total_cmp(&set[*b].paid);
            (0..WAYS).min_by(by_paid).unwrap_or(0)
        });
        let slot = &mut set[mine];
        if slot.key != key {
            *slot = Slot { key, paid: 0.0, at: *requests };
        }
        let paid = saved.max(0.0) / price.max(f64::MIN_POSITIVE);
        slot.paid += if price.is_nan() { 0.0 } else { paid };
        let pays = slot.paid >= PRICES;
        if pays {
            slot.paid = 0.0;
        }
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pays(copies: &mut Copies, copy: u64, saved: f64, price: f64) -> bool {
        copies.pays(&Wish { pos: 0, copy, saved, price }, 8)
    }

    #[test]
    fn a_copy_is_made_when_it_has_paid_three_times_and_starts_anew() {
        let mut copies = Copies::default();
        let mut made = Vec::new();
        for request in 0..20 {
            copies.routed();
            if pays(&mut copies, 7, 50.0, 100.0) {
                made.push(request);
            }
        }
        assert_eq!(made, [6, 13]);
    }

    #[test]
    fn what_was_saved_is_worth_as_much_when_all_turns_out_to_be_quicker() {
        let mut copies = Copies::default();
        assert!(!pays(&mut copies, 7, 50.0, 100.0));
        for _ in 0..4 {
            assert!(!pays(&mut copies, 7, 0.25, 0.5), "half a price, as before");
        }
        assert!(pays(&mut copies, 7, 0.25, 0.5));
    }

    #[test]
    fn what_was_saved_long_ago_counts_no_more() {
        let mut copies = Copies::default();
        for request in 0..100_000 {
            copies.routed();
            if request % 2_000 == 0 {
                assert!(!pays(&mut copies, 7, 100.0, 100.0));
            }
        }
    }

    #[test]
    fn in_a_full_set_the_least_claim_is_displaced() {
        let mut copies = Copies::default();
        let of_one_set = |n: u64| 7 + n * SETS as u64;
        for n in 0..4 {
            assert!(!pays(&mut copies, of_one_set(n), 250.0 - n as f64, 100.0));
        }
        assert!(!pays(&mut copies, of_one_set(9), 200.0, 100.0));
        assert!(
            !pays(&mut copies, of_one_set(3), 60.0, 100.0),
            "it was displaced, and starts anew"
        );
        assert!(pays(&mut copies, of_one_set(0), 60.0, 100.0));
        assert!(!pays(&mut copies, of_one_set(9), 60.0, 100.0), "so was this by the fourth");
        assert!(pays(&mut copies, of_one_set(1), 60.0, 100.0));
        assert!(!pays(&mut copies, 8, f64::NAN, f64::NAN));
    }
}
