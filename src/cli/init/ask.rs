//! Questions with defaults on a terminal; without one, a value that no flag gives is missing by the flag's name.

use std::io::{self, BufRead, Write};

use super::super::failure::Failure;

/// Asks a question whose answer is not shown.
type Hidden = fn(&str) -> io::Result<String>;

/// Who answers what the flags leave open.
pub(super) struct Questions {
    /// `None` when nothing may be asked.
    terminal: Option<Terminal>,
    missing: Vec<&'static str>,
}

struct Terminal {
    input: Box<dyn BufRead>,
    out: Box<dyn Write>,
    hidden: Hidden,
}

impl Questions {
    /// A person at standard input and standard error, or nobody.
    pub(super) fn new(asks: bool) -> Self {
        let terminal = asks.then(|| Terminal {
            input: Box::new(io::BufReader::new(io::stdin())),
            out: Box::new(io::stderr()),
            hidden: |text| rpassword::prompt_password(text),
        });
        Self { terminal, missing: Vec::new() }
    }

    /// Whether a person answers.
    pub(super) fn asks(&self) -> bool {
        self.terminal.is_some()
    }

    /// The answer, or the default for an empty one.
    ///
    /// # Errors
    /// Fails when the input ends.
    pub(super) fn optional(
        &mut self,
        given: Option<&str>,
        question: &str,
        default: &str,
    ) -> Result<String, Failure> {
        let (Some(Terminal { input, out, .. }), None) = (&mut self.terminal, given) else {
            return Ok(given.unwrap_or(default).to_owned());
        };
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let mut line = String::new();
        write!(out, "{question}{shown}: ").and_then(|()| out.flush()).map_err(|error| unasked(&error))?;
        if input.read_line(&mut line).map_err(|error| unasked(&error))? == 0 {
            return Err(ended());
        }
        let line = line.trim();
        Ok(if line.is_empty() { default } else { line }.to_owned())
    }

    /// The answer, which must not be empty; without a terminal, `flag` is missing.
    ///
    /// # Errors
    /// Fails when the input ends.
    pub(super) fn required(
        &mut self,
        given: Option<&str>,
        flag: &'static str,
        question: &str,
    ) -> Result<String, Failure> {
        loop {
            let answer = self.optional(given, question, "")?;
            if !answer.is_empty() {
                return Ok(answer);
            }
            if given.is_some() || !self.asks() {
                self.missing.push(flag);
                return Ok(answer);
            }
        }
    }

    /// A secret, which is not shown; without a terminal, `flag` is missing.
    ///
    /// # Errors
    /// Fails when the input ends.
    pub(super) fn secret(&mut self, flag: &'static str, question: &str) -> Result<String, Failure> {
        let Some(Terminal { hidden, .. }) = &self.terminal else {
            self.missing.push(flag);
            return Ok(String::new());
        };
        loop {
            let answer = hidden(&format!("{question} (it is not shown): ")).map_err(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof { ended() } else { unasked(&error) }
            })?;
            let answer = answer.trim();
            if !answer.is_empty() {
                return Ok(answer.to_owned());
            }
        }
    }

    /// Ends the questions.
    ///
    /// # Errors
    /// Fails with all flags that are missing.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "missing: {}; nothing is asked without a terminal, and nothing was written",
            self.missing.join(", ")
        )))
    }
}

fn ended() -> Failure {
    Failure::Usage("the input ended before the last question; nothing was written".to_owned())
}

fn unasked(error: &io::Error) -> Failure {
    Failure::Failed(anyhow::anyhow!("the question cannot be asked: {error}; nothing was written"))
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::Shared;
    use super::*;

    fn answered(lines: &'static str) -> (Questions, Shared) {
        let out = Shared::default();
        let terminal = Terminal {
            input: Box::new(lines.as_bytes()),
            out: Box::new(out.clone()),
            hidden: |_| Ok(" s3cret\n".to_owned()),
        };
        (Questions { terminal: Some(terminal), missing: Vec::new() }, out)
    }

    #[test]
    fn an_empty_answer_is_the_default_and_a_required_one_is_asked_again() {
        let (mut asked, out) = answered("\n b \n\n\nc\n");
        let mut optional = |given: Option<&str>| asked.optional(given, "Where", "a").ok().unwrap();
        assert_eq!(
            (optional(None), optional(None), optional(Some("d"))),
            ("a".into(), "b".into(), "d".into())
        );
        assert_eq!(asked.required(None, "--who", "Who").ok().unwrap(), "c");
        assert_eq!(asked.secret("--secret", "Secret").ok().unwrap(), "s3cret");
        assert_eq!(out.text(), "Where [a]: Where [a]: Who: Who: Who: ");
        let Err(ended) = asked.required(None, "--who", "Who") else { panic!("an answer") };
        assert!(ended.to_string().starts_with("the input ended"), "{ended}");
    }

    #[test]
    fn without_a_terminal_all_missing_flags_are_named_at_once() {
        let mut nobody = Questions { terminal: None, missing: Vec::new() };
        assert_eq!(nobody.optional(None, "Where", "a").ok().unwrap(), "a");
        nobody.required(None, "--who", "Who").ok().unwrap();
        nobody.required(Some("x"), "--why", "Why").ok().unwrap();
        nobody.secret("--secret-file", "Secret").ok().unwrap();
        let Err(missing) = nobody.end() else { panic!("nothing is missing") };
        assert!(missing.to_string().starts_with("missing: --who, --secret-file; "), "{missing}");
    }
}
