//! A fleet's life behind every strategy; see `src/fleet.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| routecore_fuzz::fleet::live(bytes));
