//! Between the fleet and its registers: what this router has, and what all others have.

use crate::fleet::Fleet;
use crate::register::{Field, Register};
use crate::speed::Profile;
use crate::stats::Stat;

/// What this router has on each of its endpoints, appended.
pub fn own(fleet: &mut Fleet, into: &mut Vec<(u64, Register)>) {
    let engine = fleet.engine();
    let rows = fleet.table.rows() as u32;
    let failing = (0..rows).filter(|&row| fleet.health.points(row) > 0).count();
    // Where most fail it may well be this router's own network: that is nobody else's concern.
    let hints = failing > 0 && 2 * failing <= fleet.table.live();
    for row in 0..rows {
        let Some(id) = fleet.table.id(row) else { continue };
        let mut register = Register::default();
        fleet.load.tell(row, &mut register);
        if hints {
            register.set(Field::Failing, fleet.health.points(row));
        }
        let table = &fleet.table;
        let rate = |unit: f64, stat| 1e3 * unit * table.own(stat, row);
        register.round(Field::KvTokens, table.own(Stat::KvTokens, row));
        register.round(Field::PrefillRate, rate(engine.prefill_rate, Stat::PrefillSent));
        register.round(Field::RequestRate, rate(engine.request_rate, Stat::RequestsSent));
        register.round(Field::Qps, 1e3 * fleet.load.qps(row));
        into.push((id, register));
    }
}

/// All other routers have this on the row from `now` on, and should have sent so many milliseconds
/// of prefill there since.
pub fn others(fleet: &mut Fleet, row: u32, sum: &Register, unsaid_ms: f64, now: f64) {
    let live = fleet.table.live();
    fleet.health.hear(row, sum.get(Field::Failing), live, now);
    fleet.load.hear_others(&mut fleet.table, row, sum);
    if unsaid_ms > 0.0 {
        let [_, per_token, ..] = fleet.engine().prefill;
        for (stat, unsaid) in
            [(Stat::QueuedMs, unsaid_ms), (Stat::QueuedTokens, unsaid_ms / per_token)]
        {
            let said = fleet.table.others(stat, row);
            fleet.table.set_others(stat, row, said + unsaid);
        }
    }
    let Profile { prefill_rate, request_rate, .. } = fleet.engine();
    for (stat, field, rate) in [
        (Stat::PrefillSent, Field::PrefillRate, prefill_rate),
        (Stat::RequestsSent, Field::RequestRate, request_rate),
    ] {
        fleet.table.set_others(stat, row, sum.get(field) as f64 * 1e-3 / rate);
    }
    let kv_tokens = kv_tokens(fleet, row, sum);
    fleet.table.set_others(Stat::KvTokens, row, kv_tokens);
}

/// Tokens that others keep in the row's KV cache beside this router's. What requests of several
/// routers share is there once: how much that is, is taken from what each router's own requests
/// share, as if that were one prefix of them all. And a cache holds no more than it has room for.
fn kv_tokens(fleet: &Fleet, row: u32, sum: &Register) -> f64 {
    let table = &fleet.table;
    let all = |field, stat| sum.get(field) as f64 + table.own(stat, row);
    let own = table.own(Stat::KvTokens, row);
    let requests = all(Field::Requests, Stat::InFlight);
    let routers = sum.get(Field::Routers) as f64 + f64::from(table.own(Stat::InFlight, row) > 0.0);
    let kept = all(Field::KvTokens, Stat::KvTokens);
    let saved = (all(Field::ContextTokens, Stat::ContextTokens) - kept).max(0.0);
    let shared = saved / (requests - routers).max(1.0);
    let reported = table.get(Stat::KvCapacity, row);
    let capacity = if reported > 0.0 { reported } else { fleet.engine().kv_tokens };
    let others = sum.get(Field::KvTokens) as f64 - (routers - 1.0).max(0.0) * shared;
    others.min(capacity - own).max(0.0)
}
