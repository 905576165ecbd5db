//! What the targets share.

pub mod fleet;
mod input;

pub use input::Input;
