//! Places that requests hold before they are sent.

use super::flight::Flight;
use super::state::Load;
use crate::stats::StatTable;

impl Load {
    /// The latest choice on the row is for this request: it holds its place until it ends, or until
    /// its lease runs out. The host may report it as sent all the same, once.
    pub fn reserve(&mut self, table: &mut StatTable, row: u32, request: u128, time: f64) {
        self.sent(table, row, request, time);
        let flights = self.flights.get_mut(&request);
        if let Some(flight) = flights.and_then(|fs| fs.iter_mut().rfind(|f| f.row == row)) {
            flight.reserved = true;
        }
    }

    /// The request holds its place already, and is sent now.
    pub(super) fn adopt(&mut self, row: u32, request: u128, time: f64) -> bool {
        let Some(flights) = self.flights.get_mut(&request) else { return false };
        let reserved = |f: &&mut Flight| f.row == row && f.reserved;
        let Some(flight) = flights.iter_mut().find(reserved) else { return false };
        flight.reserved = false;
        if flight.first_token.is_none() {
            (flight.start, flight.since) = (time, time);
            self.leases.push_back((time, request));
        }
        true
    }
}
