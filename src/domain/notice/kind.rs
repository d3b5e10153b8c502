//! The kinds of notice, and how urgent each is.

use std::time::Duration;

use crate::domain::condition::{ConditionKind, Telling};
use crate::domain::named::named;

named! {
    /// The kinds of notice. A kind names the notice in the outbox and, as `io.keywheel.KIND.v1`, in
    /// webhooks; it is never renamed, because receivers depend on it.
    Kind, "kind of notice" {
        /// A rotation was proposed and waits for approvals.
        ApprovalRequested = "approval_requested",
        /// A rotation was proposed and the policy approved it.
        AutoApproved = "auto_approved",
        /// The new key is in force and verified.
        Completed = "completed",
        /// The old key is in force again and verified.
        RolledBack = "rolled_back",
        /// The key was not changed.
        Failed = "failed",
        /// An approver rejected the rotation.
        Rejected = "rejected",
        /// The rotation was cancelled.
        Cancelled = "cancelled",
        /// The rotation's time ran out before its PATCH.
        Expired = "expired",
        /// Another actor changed the key.
        Superseded = "superseded",
        /// An operator accepted the new key without verification.
        Accepted = "accepted",
        /// An operator closed the rotation and left the key as it is.
        Closed = "closed",
        /// The rotation stopped and an operator must decide.
        NeedsOperator = "needs_operator",
        /// Atlas cannot use the key in force.
        CurrentKeyInvalid = "current_key_invalid",
        /// An approved rotation is held because a pre-flight check fails.
        PreflightFailed = "preflight_failed",
        /// A PATCH took effect after its rotation had ended.
        LateApply = "late_apply",
        /// A cluster has not taken up the new key in time.
        NotDeployed = "not_deployed",
        /// The key was changed outside of Keywheel.
        Drifted = "drifted",
        /// An event reports trouble with a key that a project depends on.
        KeyAlarm = "key_alarm",
        /// A rotation replaced a change that another actor made right before the PATCH.
        Overwrote = "overwrote",
        /// A key reached a reminder's threshold.
        Reminder = "reminder",
        /// Several reminders for one recipient.
        ReminderDigest = "reminder_digest",
        /// The key in force cannot be read from Atlas.
        Unreachable = "unreachable",
        /// Atlas does not report whether the key in force is valid.
        ValidityUnknown = "validity_unknown",
        /// Atlas holds no customer-managed key any more.
        NoKey = "no_key",
        /// An approved rotation is held.
        Held = "held",
        /// The credential is not Project Owner any more.
        NotOwner = "not_owner",
        /// The end of `not_owner`.
        NotOwnerOver = "not_owner_over",
        /// The end of `key_alarm`.
        KeyAlarmOver = "key_alarm_over",
        /// The end of `needs_operator`.
        NeedsOperatorOver = "needs_operator_over",
        /// The end of `current_key_invalid`.
        CurrentKeyInvalidOver = "current_key_invalid_over",
        /// The end of `unreachable`.
        UnreachableOver = "unreachable_over",
        /// The end of `validity_unknown`.
        ValidityUnknownOver = "validity_unknown_over",
        /// The end of `no_key`.
        NoKeyOver = "no_key_over",
        /// The end of `drifted`.
        DriftedOver = "drifted_over",
        /// The end of `held`.
        HeldOver = "held_over",
        /// This daemon sends no new key to Atlas.
        NotSending = "not_sending",
        /// The database cannot be written.
        DatabaseUnwritable = "database_unwritable",
        /// Most projects of a credential cannot be read.
        AtlasUnreachable = "atlas_unreachable",
        /// Atlas does not accept a credential.
        CredentialRefused = "credential_refused",
        /// The secret of a credential expires soon.
        CredentialEnding = "credential_ending",
        /// No mail leaves.
        MailFailing = "mail_failing",
        /// A webhook target has answered that it is gone.
        WebhookDisabled = "webhook_disabled",
        /// Projects are read later than promised.
        SweepLate = "sweep_late",
        /// Rows of the database cannot be read.
        RowUnreadable = "row_unreadable",
        /// The end of `not_sending`.
        NotSendingOver = "not_sending_over",
        /// The end of `database_unwritable`.
        DatabaseUnwritableOver = "database_unwritable_over",
        /// The end of `atlas_unreachable`.
        AtlasUnreachableOver = "atlas_unreachable_over",
        /// The end of `credential_refused`.
        CredentialRefusedOver = "credential_refused_over",
        /// The end of `credential_ending`.
        CredentialEndingOver = "credential_ending_over",
        /// The end of `mail_failing`.
        MailFailingOver = "mail_failing_over",
        /// The end of `webhook_disabled`.
        WebhookDisabledOver = "webhook_disabled_over",
        /// The end of `sweep_late`.
        SweepLateOver = "sweep_late_over",
        /// The end of `row_unreadable`.
        RowUnreadableOver = "row_unreadable_over",
        /// A rule was loosened; the change takes effect later.
        LooseningAnnounced = "loosening_announced",
        /// A loosened rule was withdrawn before it took effect.
        LooseningWithdrawn = "loosening_withdrawn",
        /// A loosened rule has taken effect.
        LooseningEffective = "loosening_effective",
        /// The owners of a project were changed.
        OwnersChanged = "owners_changed",
        /// The mail server refuses the address of an owner for good.
        AddressRefused = "address_refused",
        /// Somebody proposed an emergency rotation: fewer people approve it, and it waits for no window.
        EmergencyRequested = "emergency_requested",
        /// The review of an emergency rotation was closed.
        ReviewClosed = "review_closed",
        /// A vote on an open rotation does not count any more.
        VoteVoid = "vote_void",
        /// A token was made.
        TokenCreated = "token_created",
        /// A token was revoked.
        TokenRevoked = "token_revoked",
        /// A token got other roles, or was given to another person.
        TokenRoles = "token_roles",
        /// A passkey was confirmed; the votes that it signs count later.
        PasskeyConfirmed = "passkey_confirmed",
        /// A passkey was removed.
        PasskeyRemoved = "passkey_removed",
        /// Somebody who may approve has signed in first, or may do so first.
        PersonJoined = "person_joined",
        /// The identity provider gives somebody another address.
        PersonRenamed = "person_renamed",
        /// A person was removed, with all by which it was known.
        PersonRemoved = "person_removed",
        /// The daemon started with other settings that decide.
        ConfigChanged = "config_changed",
        /// An older database or a broken audit row was accepted, or the installation key was changed.
        Acceptance = "acceptance",
        /// A token was used after its revocation.
        RevokedTokenUsed = "revoked_token_used",
        /// The signed end of the audit log, once a day.
        AuditHead = "audit_head",
    }
}

/// How soon a message is sent and read: urgent ones are claimed first and marked as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A person must act at once.
    Urgent,
    /// Sent after the urgent ones.
    Normal,
}

/// The waits after each attempt at an urgent message; the last one repeats.
pub const URGENT_WAITS: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_mins(1),
    Duration::from_mins(2),
    Duration::from_mins(5),
];

impl Urgency {
    /// The wait after this many attempts at an urgent message; `None` for the others.
    #[must_use]
    pub fn wait_after(self, attempts: i64) -> Option<Duration> {
        let tried = usize::try_from(attempts.max(1) - 1).unwrap_or(usize::MAX);
        (self == Urgency::Urgent).then(|| URGENT_WAITS[tried.min(URGENT_WAITS.len() - 1)])
    }

    /// The value of the outbox's column: the lower, the earlier.
    #[must_use]
    pub const fn rank(self) -> i64 {
        match self {
            Urgency::Urgent => 0,
            Urgency::Normal => 1,
        }
    }
}

impl Kind {
    /// The urgency of every notice of this kind.
    #[must_use]
    pub const fn urgency(self) -> Urgency {
        match self {
            Kind::NeedsOperator
            | Kind::LateApply
            | Kind::CurrentKeyInvalid
            | Kind::KeyAlarm
            | Kind::Unreachable
            | Kind::NotSending
            | Kind::DatabaseUnwritable
            | Kind::AtlasUnreachable
            | Kind::CredentialRefused
            | Kind::SweepLate
            | Kind::EmergencyRequested => Urgency::Urgent,
            Kind::ApprovalRequested
            | Kind::AutoApproved
            | Kind::Completed
            | Kind::RolledBack
            | Kind::Failed
            | Kind::Rejected
            | Kind::Cancelled
            | Kind::Expired
            | Kind::Superseded
            | Kind::Accepted
            | Kind::Closed
            | Kind::PreflightFailed
            | Kind::NotDeployed
            | Kind::Drifted
            | Kind::Overwrote
            | Kind::Reminder
            | Kind::ReminderDigest
            | Kind::ValidityUnknown
            | Kind::NoKey
            | Kind::Held
            | Kind::NeedsOperatorOver
            | Kind::CurrentKeyInvalidOver
            | Kind::UnreachableOver
            | Kind::ValidityUnknownOver
            | Kind::NoKeyOver
            | Kind::DriftedOver
            | Kind::HeldOver
            | Kind::NotOwner
            | Kind::NotOwnerOver
            | Kind::KeyAlarmOver
            | Kind::CredentialEnding
            | Kind::MailFailing
            | Kind::WebhookDisabled
            | Kind::RowUnreadable
            | Kind::NotSendingOver
            | Kind::DatabaseUnwritableOver
            | Kind::AtlasUnreachableOver
            | Kind::CredentialRefusedOver
            | Kind::CredentialEndingOver
            | Kind::MailFailingOver
            | Kind::WebhookDisabledOver
            | Kind::SweepLateOver
            | Kind::RowUnreadableOver
            | Kind::LooseningAnnounced
            | Kind::LooseningWithdrawn
            | Kind::LooseningEffective
            | Kind::OwnersChanged
            | Kind::AddressRefused
            | Kind::ReviewClosed
            | Kind::VoteVoid
            | Kind::TokenCreated
            | Kind::TokenRevoked
            | Kind::TokenRoles
            | Kind::PasskeyConfirmed
            | Kind::PasskeyRemoved
            | Kind::PersonJoined
            | Kind::PersonRenamed
            | Kind::PersonRemoved
            | Kind::ConfigChanged
            | Kind::Acceptance
            | Kind::RevokedTokenUsed
            | Kind::AuditHead => Urgency::Normal,
        }
    }

    /// Whether its delivery decides when something takes effect.
    #[must_use]
    pub const fn announces(self) -> bool {
        matches!(self, Self::LooseningAnnounced | Self::PasskeyConfirmed)
    }

    /// The notice of a condition's start, or of its end; `None` when the condition is only shown.
    #[must_use]
    pub const fn of_condition(condition: ConditionKind, over: bool) -> Option<Self> {
        let (start, end) = match condition {
            ConditionKind::NeedsOperator => (Kind::NeedsOperator, Kind::NeedsOperatorOver),
            ConditionKind::Invalid => (Kind::CurrentKeyInvalid, Kind::CurrentKeyInvalidOver),
            ConditionKind::KeyEnding => (Kind::KeyAlarm, Kind::KeyAlarmOver),
            ConditionKind::Unreachable => (Kind::Unreachable, Kind::UnreachableOver),
            ConditionKind::NotOwner => (Kind::NotOwner, Kind::NotOwnerOver),
            ConditionKind::ValidityUnknown => (Kind::ValidityUnknown, Kind::ValidityUnknownOver),
            ConditionKind::NoKey => (Kind::NoKey, Kind::NoKeyOver),
            ConditionKind::Drifted => (Kind::Drifted, Kind::DriftedOver),
            ConditionKind::Held => (Kind::Held, Kind::HeldOver),
            ConditionKind::NotSending => (Kind::NotSending, Kind::NotSendingOver),
            ConditionKind::DatabaseUnwritable => (Kind::DatabaseUnwritable, Kind::DatabaseUnwritableOver),
            ConditionKind::AtlasUnreachable => (Kind::AtlasUnreachable, Kind::AtlasUnreachableOver),
            ConditionKind::CredentialRefused => (Kind::CredentialRefused, Kind::CredentialRefusedOver),
            ConditionKind::CredentialEnding => (Kind::CredentialEnding, Kind::CredentialEndingOver),
            ConditionKind::MailFailing => (Kind::MailFailing, Kind::MailFailingOver),
            ConditionKind::WebhookDisabled => (Kind::WebhookDisabled, Kind::WebhookDisabledOver),
            ConditionKind::SweepLate => (Kind::SweepLate, Kind::SweepLateOver),
            ConditionKind::RowUnreadable => (Kind::RowUnreadable, Kind::RowUnreadableOver),
            ConditionKind::Rotating
            | ConditionKind::Overdue
            | ConditionKind::DueSoon
            | ConditionKind::UnmanagedVersion => return None,
        };
        Some(if over { end } else { start })
    }

    /// Whether it tells a condition: several to one recipient become one list.
    #[must_use]
    pub fn tells_condition(self) -> bool {
        let told = |it: &ConditionKind| [false, true].map(|over| Kind::of_condition(*it, over));
        ConditionKind::ALL.iter().any(|it| told(it).contains(&Some(self)))
    }

    /// The end of a start, and the start of an end; `None` for a kind that tells no condition.
    #[must_use]
    pub fn counterpart(self) -> Option<Kind> {
        ConditionKind::ALL.iter().find_map(|it| {
            let [start, end] = [false, true].map(|over| Kind::of_condition(*it, over));
            match Some(self) {
                me if me == start => end,
                me if me == end => start,
                _ => None,
            }
        })
    }

    /// Whether it pages: people who look after the installation get it too.
    #[must_use]
    pub fn pages(self) -> bool {
        let repeated = |it: &&ConditionKind| it.telling() == Telling::Repeated;
        let mut paging = ConditionKind::ALL.iter().filter(repeated);
        self.urgency() == Urgency::Urgent || paging.any(|it| Kind::of_condition(*it, true) == Some(self))
    }

    /// The type of a CloudEvent of this kind.
    #[must_use]
    pub fn event_type(self) -> String {
        format!("io.keywheel.{self}.v1")
    }

    /// The kinds that a webhook target can subscribe to. A digest is not among them: a channel with
    /// reminders gets several as one list.
    pub fn choices() -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(|kind| *kind != Kind::ReminderDigest)
    }

    /// The choice with this name or this type of CloudEvent.
    #[must_use]
    pub fn choice(text: &str) -> Option<Self> {
        Kind::choices().find(|kind| kind.as_str() == text || kind.event_type() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_chosen_by_its_name_or_by_the_type_of_its_event() {
        for kind in Kind::choices() {
            assert_eq!(Kind::choice(kind.as_str()), Some(kind));
            assert_eq!(Kind::choice(&kind.event_type()), Some(kind));
        }
        assert_eq!(Kind::choice("io.keywheel.completed.v2"), None);
        assert_eq!(Kind::choice("reminder_digest"), None);
    }
}
