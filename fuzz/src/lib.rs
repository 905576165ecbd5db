//! What the targets share.

pub mod fleet;
mod input;
pub mod peers;

pub use input::Input;
