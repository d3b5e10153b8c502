//! The notices there are: what people and other systems are told of.
//!
//! A notice is named by its kind, in the outbox, in mails and, as `io.keywheel.KIND.v1`, in webhooks.
//! A kind is never renamed: receivers know it. What each says is decided where it is put into words.

/// Every kind of notice.
pub const KINDS: &[&str] = &[
    "approval_requested",
    "auto_approved",
    "completed",
    "rolled_back",
    "failed",
    "rejected",
    "cancelled",
    "expired",
    "superseded",
    "accepted",
    "closed",
    "needs_operator",
    "current_key_invalid",
    "preflight_failed",
    "late_apply",
    "not_deployed",
    "drifted",
    "key_alarm",
    "overwrote",
    "reminder",
];

/// A notice's kind as the type of a CloudEvent.
#[must_use]
pub fn event_type(kind: &str) -> String {
    format!("io.keywheel.{kind}.v1")
}

/// The kind behind a kind's name or the type of its CloudEvent.
#[must_use]
pub fn kind(text: &str) -> Option<&'static str> {
    KINDS.iter().copied().find(|kind| *kind == text || event_type(kind) == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rotation::state::State;

    #[test]
    fn every_end_of_a_rotation_is_a_notice() {
        for state in State::ALL.iter().filter(|state| state.is_final()) {
            assert_eq!(kind(state.as_str()), Some(state.as_str()));
            assert_eq!(kind(&event_type(state.as_str())), Some(state.as_str()));
        }
        assert_eq!(kind("io.keywheel.completed.v2"), None);
    }
}
