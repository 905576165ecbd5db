//! Bytes of memory per block and endpoint in the prefix index, by what the system says: filled to
//! its capacity, then after as many further inserts. Linux only.
//!
//! `cargo run --release -p routecore --example index_memory -- [entries] [blocks of a prompt]`

use std::error::Error;

use routecore::hash::mix;
use routecore::index::PrefixIndex;

const ROWS: u32 = 64;

/// Resident bytes of this process.
fn resident() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kib * 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let entries: u64 = args.next().map_or(Ok(10_000_000), |arg| arg.parse())?;
    let blocks: u64 = args.next().map_or(Ok(64), |arg| arg.parse())?;
    let mut index = PrefixIndex::new((entries / u64::from(ROWS)) as u32);
    let mut chain = Vec::new();
    let mut requests = 0_u64;
    let before = resident()?;
    let mut insert = |upto: u64| {
        let mut inserted = 0;
        while inserted < upto {
            chain.clear();
            // Half of a prompt is one of 1,000 heads.
            let head = mix(requests % 1_000);
            chain.extend((0..blocks / 2).map(|at| mix(head ^ at)));
            chain.extend((blocks / 2..blocks).map(|at| mix(mix(requests | 1 << 40) ^ at)));
            let row = (mix(requests) % u64::from(ROWS)) as u32;
            let held = index.held(row);
            if let Some(pin) = index.pin(row, &chain) {
                index.confirm(row, pin);
                index.release(row, pin);
            }
            requests += 1;
            inserted += u64::from(index.held(row).saturating_sub(held)).max(blocks / 2);
        }
        (0..ROWS).map(|row| u64::from(index.held(row))).sum::<u64>()
    };
    let held = insert(entries + entries / 20);
    let full = resident()?;
    println!("{held} blocks held, {:.1} bytes each", (full - before) / held as f64);
    for round in 1..=4 {
        let held = insert(entries / 4);
        let now = resident()?;
        println!(
            "after {} further inserts: {held} held, resident {:+.2} %",
            round * entries / 4,
            100.0 * (now / full - 1.0)
        );
    }
    Ok(())
}
