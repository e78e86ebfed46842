//! Output that survives a reader who has gone: `println!` panics there, and `tollgate inspect FILE | head -1` is no
//! mistake.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use super::Failure;

/// Writes a line to stdout.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::run(
            anyhow::Error::new(error).context("cannot write to stdout"),
        )),
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Where that fails there is nowhere left to say so.
pub(super) fn complaint(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
