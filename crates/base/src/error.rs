//! One line for a whole chain of causes.
use std::{error::Error, fmt::Write as _};

/// The error and its causes, outermost first, joined by `: `. For operators, never for API users.
pub fn chain(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let _ = write!(out, ": {e}");
        next = e.source();
    }
    out
}
