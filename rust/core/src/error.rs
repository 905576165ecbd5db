//! Mistakes of set-up and feeding. Selection itself returns an `Option`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A mistake in how a table or a strategy was set up or fed; the text names thing and fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError(pub String);

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouteError {}

/// A number for the text of an error: short, however large it is.
pub struct Shown(pub f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = self;
        match value.abs() {
            1e16..f64::INFINITY => write!(f, "{value:e}"),
            _ => write!(f, "{value}"),
        }
    }
}

/// Runs `f`. A panic, a fault of ours, becomes an error like any other: the host must live.
///
/// # Errors
/// When `f` panics; the text of the panic is in it.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, RouteError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "no text".to_owned());
        RouteError(format!("internal error in the routing core, please report it: {text}"))
    })
}

/// `Err(RouteError)` from a format string.
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::error::RouteError(format!($($arg)*))) };
}
pub(crate) use fail;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_says_what_happened() {
        assert_eq!(caught(|| 7), Ok(7));
        let none: [u8; 0] = [];
        let at = none.len() + 3;
        let error = caught(|| none[at]).unwrap_err();
        assert!(error.0.contains("please report it: index out of bounds"), "{error}");
        let error = caught(|| panic!("plain words")).unwrap_err();
        assert!(error.0.ends_with(": plain words"), "{error}");
    }
}
