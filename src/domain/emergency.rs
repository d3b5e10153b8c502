//! Emergency rotations: who may propose one, and how many people must then approve.
//!
//! An emergency waits for no window and takes fewer approvals, never none. Freezes bind it, too. What it leaves behind
//! is a review, which another person closes; that is kept elsewhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::approver::Approver;

/// The trigger of an emergency rotation.
pub const EMERGENCY: &str = "emergency";

/// Who may propose an emergency rotation, and how many people must approve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Emergency {
    /// How many people must approve, beside who proposes it; the policy's own number where that is lower.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub approvals: u32,
    /// Who may propose one: `owners`, `mail:ann@example.com` or `group:payments`; empty means nobody.
    #[serde(default)]
    pub by: Vec<Approver>,
}

fn one() -> u32 {
    1
}

impl Default for Emergency {
    fn default() -> Self {
        Self { approvals: one(), by: Vec::new() }
    }
}

impl Emergency {
    /// Whether it is as where nothing is set: nobody may.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it, as a rule; `most` people can be asked to approve.
    #[must_use]
    pub fn fault(&self, most: u32) -> Option<String> {
        if !(1..=most).contains(&self.approvals) {
            return Some(format!("approvals takes 1 to {most} people"));
        }
        if let Some(it) = self.by.iter().find(|it| it.once) {
            return Some(format!("by takes {:?} without \"one:\"", it.to_string()));
        }
        (self.by.len() > 50).then(|| "by takes at most 50 entries".to_owned())
    }

    /// Whether a change to `new` lets nobody do more than before.
    #[must_use]
    pub fn is_tightened_by(&self, new: &Self) -> bool {
        new.approvals >= self.approvals && new.by.iter().all(|it| self.by.contains(it))
    }

    /// Whom it names, for people.
    #[must_use]
    pub fn names(&self) -> String {
        self.by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emergency(approvals: u32, by: &[&str]) -> Emergency {
        Emergency { approvals, by: by.iter().map(|it| it.parse().unwrap()).collect() }
    }

    #[test]
    fn faults_name_their_field() {
        assert!(emergency(0, &["owners"]).fault(10).unwrap().contains("1 to 10"));
        assert!(emergency(1, &["one:owners"]).fault(10).unwrap().contains("without \"one:\""));
        assert_eq!(emergency(10, &["group:night", "mail:ann@example.com"]).fault(10), None);
    }

    #[test]
    fn fewer_names_and_more_people_are_tighter() {
        let old = emergency(2, &["owners", "group:night"]);
        assert!(old.is_tightened_by(&emergency(2, &["owners"])));
        assert!(old.is_tightened_by(&emergency(3, &["owners", "group:night"])));
        assert!(!old.is_tightened_by(&emergency(1, &["owners"])));
        assert!(!old.is_tightened_by(&emergency(2, &["group:day"])));
    }
}
