//! Standard output and standard error: who reads them, whether in colour, and what happens when nobody does.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use crate::cli::Color;

/// Whether alerts and answers go to a terminal.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person sits at both ends: keys come from standard input, pictures go to standard output.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether to colour standard output.
pub(super) fn colour_stdout(color: Color) -> bool {
    decide(color, io::stdout().is_terminal())
}

/// Whether to colour standard error.
pub(super) fn colour_stderr(color: Color) -> bool {
    decide(color, io::stderr().is_terminal())
}

fn decide(color: Color, terminal: bool) -> bool {
    // https://no-color.org: any value but the empty one.
    let no_color = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !no_color() && !dumb(),
    }
}

/// Writes an answer to standard output.
///
/// # Errors
/// When it cannot be written, but not when the reader has gone away.
pub(super) fn answer(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes to standard error; if that cannot be, there is nobody left to tell.
pub(super) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether the cause of everything is a reader that went away.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == ErrorKind::BrokenPipe)
}
