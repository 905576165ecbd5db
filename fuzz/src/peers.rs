//! What other routers say, and what a file of an earlier run does: any bytes behind a right head,
//! at any time. Also a test of the core, with the corpus.

use routecore::Fleet;
use routecore::Stat;
use routecore::fleet::Prefixes;
use routecore::hash::digest;
use routecore::replicas::{Replicas, Settings, own};
use routecore::saved::Hashing;

use super::Input;

/// This router, its group, how it cuts prompts, and its endpoints.
const SELF: u64 = 1;
const GROUP: u64 = 5;
const GRAIN: u64 = 7;
const ENDPOINTS: u64 = 4;
const HASHING: Hashing = Hashing { seed: 7, block_chars: 64, block_tokens: 16 };

/// A number of varying length, as messages have it.
fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// A message of another router, with sections of any bytes.
fn message(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = b"rcL\x01".to_vec();
    let origin = u64::from(input.below(4)); // this router's own name too
    for value in [GROUP, GRAIN, origin, 100 + u64::from(input.below(2))] {
        bytes.extend(value.to_le_bytes());
    }
    varint(&mut bytes, u64::from(input.byte()));
    for _ in 0..input.below(4) {
        let kind = input.below(8);
        let mut body = Vec::new();
        if kind == 6 && input.byte() & 1 == 0 {
            body.extend(SELF.to_le_bytes());
            varint(&mut body, ENDPOINTS);
            (1..=ENDPOINTS).for_each(|id| body.extend(id.to_le_bytes()));
            body.extend(state(input));
        } else {
            body.extend(input.part());
        }
        bytes.push(kind);
        varint(&mut bytes, body.len() as u64);
        bytes.extend(body);
    }
    bytes
}

/// A saved state of any bytes, with the sum that fits them.
fn state(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = input.part().to_vec();
    bytes.extend(digest(&bytes, 0).to_le_bytes());
    bytes
}

/// One life, as the bytes say.
pub fn live(bytes: &[u8]) {
    let mut input = Input(bytes);
    let settings = Settings { group: GROUP, grain: GRAIN, origin: SELF, epoch: 100, every: 0.05 };
    let (mut replicas, mut fleet) = (Replicas::new(settings), Fleet::new(60.0, 50.0));
    let rows: Vec<u32> = (1..=ENDPOINTS).map(|id| fleet.add(id)).collect();
    replicas.begin(&mut fleet);
    let (mut now, mut out, mut sent) = (0.0, Vec::new(), 0_u128);
    let mut placed = Prefixes::default();
    let mut live = Vec::new();
    while !input.is_over() {
        match input.below(10) {
            0..=3 => drop(replicas.hear(&message(&mut input), now)),
            4 => drop(replicas.hear(input.part(), now)),
            5 => now = input.float(),
            6 => {
                let mut mine = Vec::new();
                own(&mut fleet, &mut mine);
                fleet.take_placed(&mut placed);
                replicas.answer(&fleet);
                out.clear();
                replicas.tell(mine.into_iter(), &placed, now, &mut out);
            }
            7 => {
                if let Ok(blocks) = fleet.load(&state(&mut input), &rows, HASHING) {
                    assert!(blocks < 1 << 24);
                }
            }
            8 => {
                sent += 1;
                let row = rows[usize::from(input.byte()) % rows.len()];
                fleet.sent(row, sent, now);
                live.push((row, sent));
            }
            _ => replicas.expire(now),
        }
        while replicas.merge(&mut fleet, now, 2) {}
        for &row in &rows {
            assert!(fleet.table.get(Stat::InFlight, row) >= 0.0);
        }
    }
    for (row, request) in live {
        fleet.end(row, request, now, routecore::health::Outcome::Served);
    }
    replicas.clear();
    while replicas.merge(&mut fleet, now, 2) {}
    assert_eq!(fleet.load.in_flight(), 0);
    for (row, id) in rows.into_iter().zip(1..) {
        assert!(replicas.sum(id) == routecore::register::Register::default());
        assert!(fleet.table.get(Stat::InFlight, row) <= 0.0, "of others, or of those who ended");
    }
}
