//! What the kernel says of a program that it refuses.

use std::io;

use aya::programs::ProgramError;

/// Lines of the verifier's log that tell what it disliked; it prints thousands.
const LAST_LINES: usize = 12;

/// An error and the last lines of the verifier's log.
pub(crate) fn last_lines(error: &io::Error, log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("{error}\n  {}", last.join("\n  "))
}

/// What the kernel said, and why.
pub(crate) fn refusal(error: ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => last_lines(&io_error, &verifier_log.to_string()),
        other => format!("{:#}", anyhow::Error::new(other)),
    }
}
