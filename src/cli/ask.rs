//! Questions to the person at the terminal.
//!
//! Only a person answers: where standard input or standard error is no terminal, a verb must do without, by a flag or not
//! at all. Secrets are not asked here: what is typed is seen.

use std::io::{self, BufRead, IsTerminal, Write};

use super::failure::Failure;
use crate::domain::text::visible;

/// Whether a person can be asked.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The answer to `question` in one line, without blanks around it; `None` at the end of the input.
pub(super) fn line(question: &str) -> Result<Option<String>, Failure> {
    let mut out = io::stderr();
    let mut answer = String::new();
    let read = write!(out, "{} ", visible(question))
        .and_then(|()| out.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    match read {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(answer.trim().to_owned())),
        Err(error) => Err(Failure::Failed(
            anyhow::Error::new(error).context("the answer cannot be read from the terminal"),
        )),
    }
}
