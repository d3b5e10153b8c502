//! Who gives a command, as far as its rights decide what the command may change.

use crate::domain::role::Role;

/// Who gives a command.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The identity in journal and audit log.
    pub name: &'a str,
    /// The most that it may.
    pub role: Role,
    /// Whether it is a user of this machine, over the local socket.
    pub on_machine: bool,
}

impl<'a> Actor<'a> {
    /// An admin from elsewhere.
    #[must_use]
    pub const fn admin(name: &'a str) -> Self {
        Self { name, role: Role::Admin, on_machine: false }
    }

    pub(in crate::engine) const fn is_admin(&self) -> bool {
        matches!(self.role, Role::Admin)
    }
}

/// An operator from elsewhere: the least that may keep projects.
impl<'a> From<&'a str> for Actor<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, role: Role::Operator, on_machine: false }
    }
}
