//! The pre-flight checklist: the checks before a change of the key, and their results.
//!
//! Each line states a fact and a verdict. A `fail` stops the PATCH, a `warn` is shown to the approvers.
//! The engine makes the lines.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::named::named;

named! {
    /// The lines of the checklist, in the order in which people read them.
    CheckName, "check" {
        /// The key reads as a key of this provider. Only stored checklists have this line: a proposal is refused
        /// without it, so it could not fail here.
        Format = "format",
        /// It lies in the region or vault of Atlas' block.
        Place = "place",
        /// The key service has it.
        KeyExists = "key_exists",
        /// The key service would use it.
        KeyEnabled = "key_enabled",
        /// It is of a kind that Atlas can use.
        KeySymmetric = "key_symmetric",
        /// It will not be deleted.
        KeyDeletion = "key_deletion",
        /// It may be used already, and for 48 hours more.
        KeyExpiry = "key_expiry",
        /// Encrypting and decrypting with it works, for our own identity.
        EncryptDecrypt = "encrypt_decrypt",
        /// No project of another environment uses it.
        SharedKey = "shared_key",
        /// The Atlas credential is Project Owner.
        ProjectOwner = "project_owner",
        /// Atlas calls the key in force valid; else it refuses any change.
        CurrentKeyValid = "current_key_valid",
        /// No cluster is being repaired or updated.
        Clusters = "clusters",
        /// Our clock agrees with Atlas'.
        ClockSkew = "clock_skew",
    }
}

named! {
    /// The verdict of a line.
    Verdict, "verdict" {
        /// The check passed.
        Pass = "pass",
        /// The approvers should consider the finding.
        Warn = "warn",
        /// No PATCH is sent while it lasts.
        Fail = "fail",
        /// The check could not be made; the line gives the reason.
        NotChecked = "not_checked",
    }
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Check {
    /// The check.
    pub name: CheckName,
    /// Its result.
    pub result: Verdict,
    /// The finding, or the reason why the check could not be made, and the remedy; no secret.
    pub detail: String,
}

/// The first line that stops a PATCH.
#[must_use]
pub fn failed(checks: &[Check]) -> Option<&Check> {
    checks.iter().find(|check| check.result == Verdict::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_checklist_with_the_former_line_still_reads() {
        let stored = r#"[{"name":"format","result":"pass","detail":"it reads as a key of AZURE"}]"#;
        let checks: Vec<Check> = serde_json::from_str(stored).unwrap();
        assert_eq!(checks[0].name, CheckName::Format);
        assert_eq!(serde_json::to_string(&checks).unwrap(), stored);
    }
}
