//! Mistakes of set-up and feeding. Selection itself returns an `Option`.

use std::fmt;

/// A mistake in how a table or a strategy was set up or fed; the text names thing and fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError(pub String);

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouteError {}

/// `Err(RouteError)` from a format string.
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::error::RouteError(format!($($arg)*))) };
}
pub(crate) use fail;
