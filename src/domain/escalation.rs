//! Who hears of a key that stays overdue, beside its owners.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::approver::is_mail_address;
use super::time::DayOffset;

/// Who gets a copy of the reminders when a key stays overdue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// Days after the due date from which on they get it.
    pub after: DayOffset,
    /// Their mail addresses.
    #[schema(examples(json!(["security@example.com"])))]
    pub to: Vec<String>,
}

/// Why steps of an escalation cannot be used.
#[must_use]
pub fn escalation_fault(steps: &[Escalation]) -> Option<String> {
    for (number, it) in (1..).zip(steps) {
        let named = |what: &str| Some(format!("step {number}: {what}"));
        if it.to.is_empty() || it.to.len() > MOST_COPIED {
            return named("to takes 1 to 20 mail addresses");
        }
        if let Some(mail) = it.to.iter().find(|mail| !is_mail_address(mail)) {
            return named(&format!(
                "to takes mail addresses such as security@example.com, which {mail:?} is not"
            ));
        }
        if it.after.days() > LATEST_STEP {
            return named("after takes at most 365d");
        }
        if steps.iter().take(number - 1).any(|before| before.after >= it.after) {
            return named("after is not later than that of the step before");
        }
    }
    None
}

/// The most addresses of a step.
const MOST_COPIED: usize = 20;

/// The latest step, in days after the due date.
const LATEST_STEP: u32 = 365;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escalation_that_cannot_be_is_named() {
        let steps = |text: &str| -> Vec<Escalation> { serde_json::from_str(text).unwrap() };
        let fault = |text: &str| escalation_fault(&steps(text)).unwrap_or_default();
        for (text, said) in [
            (r#"[{"after": "1d", "to": []}]"#, "step 1: to takes 1 to 20"),
            (r#"[{"after": "1d", "to": ["team"]}]"#, "\"team\" is not"),
            (r#"[{"after": "366d", "to": ["a@b"]}]"#, "365d"),
            (
                r#"[{"after": "3d", "to": ["a@b"]}, {"after": "3d", "to": ["c@d"]}]"#,
                "step 2: after is not later",
            ),
        ] {
            assert!(fault(text).contains(said), "{text}: {}", fault(text));
        }
        assert_eq!(fault(r#"[{"after": "0d", "to": ["a@b"]}, {"after": "3d", "to": ["c@d"]}]"#), "");
    }
}
