//! See `routecore_fuzz::peers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| routecore_fuzz::peers::live(bytes));
