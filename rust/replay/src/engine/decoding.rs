//! Steps that only decode, between two looks at them.

/// How far steps that only decode have got: time, steps, blocks taken after the first step, and
/// what the next step depends on.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    pub begun: f64,
    pub time: f64,
    pub steps: u64,
    pub blocks: u32,
    pub context: f64,
    pub phase: usize,
}
