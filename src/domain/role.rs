//! The rights of tokens.

use super::named::named;

named! {
    /// A token's right. A token may hold several.
    Role, "role" {
        /// Read.
        Viewer = "viewer",
        /// Propose and steer rotations, and keep projects.
        Operator = "operator",
        /// Vote on rotations.
        Approver = "approver",
        /// Read and export.
        Auditor = "auditor",
        /// Everything.
        Admin = "admin",
    }
}

impl Role {
    /// Whether a holder of this role may do what `needed` may. Every role reads, and `admin` does
    /// everything; operator and approver exclude each other, so that a rotation takes two people.
    #[must_use]
    pub fn includes(self, needed: Role) -> bool {
        self == needed || self == Role::Admin || needed == Role::Viewer
    }

    /// The role's rights in one line, for help texts and the document of the API.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Role::Viewer => "Read",
            Role::Operator => {
                "Read; track projects; propose, cancel, resume, roll back, accept and close rotations"
            }
            Role::Approver => "Read; approve and reject rotations, and withdraw an approval",
            Role::Auditor => "Read and export",
            Role::Admin => "Everything, except approving its own proposals",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_admin_may_both_propose_and_approve() {
        let both = Role::ALL
            .iter()
            .filter(|role| role.includes(Role::Operator) && role.includes(Role::Approver))
            .collect::<Vec<_>>();
        assert_eq!(both, [&Role::Admin]);
        assert!(Role::ALL.iter().all(|role| role.includes(Role::Viewer)));
        assert!(!Role::Operator.includes(Role::Admin) && !Role::Viewer.includes(Role::Auditor));
    }
}
