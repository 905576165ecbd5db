//! Who of a known list may be chosen while some of its endpoints fail.

use routecore::Fleet;
use routecore::health::State as Health;

use crate::chosen::Chosen;
use crate::endpoint_list::EndpointList;
use crate::source::Kind;

/// The candidates without those that are out; kept until somebody leaves or comes back.
#[derive(Default)]
pub struct Around {
    /// Those that are in, on probation or doubted.
    pub open: Chosen,
    /// Those that are in; nobody where that are all of `open`.
    pub steady: Chosen,
    /// Health's epoch, the table's, which path, and the set of all.
    stamp: Option<(u64, u64, Kind, u64)>,
    /// Whether anybody of the list is not in.
    any: bool,
}

impl Around {
    /// Brings it up to date, for the list with these rows and candidates; whether anybody of the
    /// list is not in.
    pub fn refresh(
        &mut self,
        known: &EndpointList,
        (rows, all): (&[u32], &Chosen),
        Fleet { health, table, .. }: &Fleet,
        kind: Kind,
    ) -> bool {
        let stamp = Some((health.epoch(), table.epoch(), kind, all.candidates.set));
        if self.stamp != stamp {
            let health = |at: u32| health.state(rows[at as usize]);
            let not_in = |&&at: &&u32| health(at) != Health::In;
            let away = all.positions.iter().filter(not_in).count();
            let out = all.positions.iter().filter(|&&at| matches!(health(at), Health::Out { .. }));
            let limited = away - out.count();
            *self = Self { stamp, any: away > 0, ..Self::default() };
            if self.any {
                self.open = known.part(all, |at| !matches!(health(at), Health::Out { .. }));
            }
            if limited > 0 {
                self.steady = known.part(all, |at| health(at) == Health::In);
            }
        }
        self.any
    }
}
