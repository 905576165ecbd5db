//! The Mooncake conversation trace, where it is at hand.

use std::io::{BufRead, BufReader};

use routecore_replay::{Row, Trace};

/// Beside the repository; not part of it.
pub const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/traces/mooncake_conversation_trace.jsonl.gz"
);

/// Reads a gzipped Mooncake trace; the error says what is wrong with the file.
pub fn load(path: &str) -> Result<Trace, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let mut trace = Trace::new(512).map_err(|error| error.to_string())?;
    for (at, line) in BufReader::new(flate2::read::GzDecoder::new(file)).lines().enumerate() {
        let line = line.map_err(|error| format!("{path}:{}: {error}", at + 1))?;
        let row: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| format!("{path}:{}: {error}", at + 1))?;
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        let ids = row["hash_ids"].as_array().map_or(&[][..], Vec::as_slice);
        let ids: Vec<u64> = ids.iter().filter_map(serde_json::Value::as_u64).collect();
        let row = Row {
            arrival: number("timestamp") as f64,
            input: number("input_length") as u32,
            output: number("output_length") as u32,
            ids: &ids,
            ..Row::default()
        };
        trace.push(row).map_err(|error| format!("{path}:{}: {error}", at + 1))?;
    }
    Ok(trace)
}
