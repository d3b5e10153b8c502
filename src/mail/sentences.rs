//! Subject and sentences of each kind of notice.
//!
//! The match is exhaustive, so a new kind does not compile without its sentences. Texts that come from
//! outside pass [`visible`].

use super::age::Age;
use super::{authority, installation};
use crate::domain::condition::ConditionKind;
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::notice::{
    AuditHead, CheckedRotation, ConditionFacts, CurrentKeyInvalid, Drifted, KeyAlarm, NO_LONGER_OWNER,
    NO_LONGER_WATCHED, Notice, Overwrote, ProposalFacts, Reminder, ReminderDigest, RevokedTokenUsed,
    RotationFacts,
};
use crate::domain::text::visible;
use crate::domain::time::{Timestamp, lasted};

/// The project's name as a subject shows it; the id where Atlas has no name.
pub(super) fn name(name: &str, group: &GroupId) -> String {
    if name.is_empty() { group.to_string() } else { visible(name) }
}

/// Subject and paragraphs.
pub(super) fn sentences(notice: &Notice) -> (String, Vec<String>) {
    match notice {
        Notice::ApprovalRequested(it) => {
            of_rotation(&it.rotation, |project, _| approval_requested(project, it))
        }
        Notice::AutoApproved(it) => of_rotation(&it.rotation, auto_approved),
        Notice::Completed(it) => of_rotation(it, completed),
        Notice::RolledBack(it) => of_rotation(it, rolled_back),
        Notice::Failed(it) => of_rotation(it, failed),
        Notice::Rejected(it) => of_rotation(it, rejected),
        Notice::Cancelled(it) => of_rotation(it, cancelled),
        Notice::Expired(it) => of_rotation(it, expired),
        Notice::Superseded(it) => of_rotation(it, superseded),
        Notice::Accepted(it) => of_rotation(it, accepted),
        Notice::Closed(it) => of_rotation(it, closed),
        Notice::NeedsOperator(it) => of_rotation(it, needs_operator),
        Notice::CurrentKeyInvalid(CurrentKeyInvalid::Rotation(it)) => {
            of_rotation(it, |project, _| current_key_invalid(project))
        }
        Notice::CurrentKeyInvalid(CurrentKeyInvalid::Project(it)) => {
            let (subject, first) = current_key_invalid(&name(&it.project_name, &it.group_id));
            (subject, vec![first])
        }
        Notice::PreflightFailed(it) => of_rotation(&it.rotation, preflight_failed),
        Notice::LateApply(it) => of_rotation(it, late_apply),
        Notice::NotDeployed(it) => of_rotation(it, not_deployed),
        Notice::Drifted(it) => drifted(it),
        Notice::KeyAlarm(it) => key_alarm(it),
        Notice::Overwrote(it) => overwrote(it),
        Notice::Reminder(it) => reminder(it),
        Notice::ReminderDigest(it) => digest(it),
        Notice::Condition(it) => condition(it),
        Notice::Installation(it) => installation::sentences(it),
        Notice::Authority(it) => authority::sentences(it),
        Notice::RevokedTokenUsed(it) => revoked_token_used(it),
        Notice::AuditHead(it) => audit_head(it),
    }
}

/// What a copy of this message shows later.
fn audit_head(it: &AuditHead) -> (String, Vec<String>) {
    let state = if it.broken.is_some() { "a row does not fit" } else { "intact" };
    (
        format!("Keywheel: audit log of {} rows, {state}", it.seq),
        vec![
            "Keep this message where nobody who writes Keywheel's database can change it. A log that was shortened, replaced \
             or rewritten later does not have this row any more."
                .to_owned(),
        ],
    )
}

/// Somebody still holds a token that nobody should hold.
fn revoked_token_used(it: &RevokedTokenUsed) -> (String, Vec<String>) {
    let token = visible(it.token());
    (
        format!("Token {token}: used after it was revoked"),
        vec![format!(
            "A request with the token {token} came after its revocation and was refused. Find the program that still sends \
             it; where there is no such program, somebody else has the token, and how it was copied is worth knowing. \
             Further uses of this token today are counted and not told."
        )],
    )
}

/// The kind's own sentence, then the remedy.
fn of_rotation(
    it: &RotationFacts,
    first: impl Fn(&str, &RotationFacts) -> (String, String),
) -> (String, Vec<String>) {
    let (subject, first) = first(&name(&it.project_name, &it.group_id), it);
    (subject, with(first, it.remedy.as_ref()))
}

fn with(first: String, more: Option<&String>) -> Vec<String> {
    let more = more.into_iter().filter(|text| !text.is_empty()).map(|text| visible(text));
    std::iter::once(first).chain(more).collect()
}

fn approval_requested(project: &str, it: &CheckedRotation) -> (String, String) {
    let (by, proposal) = (visible(&it.rotation.requested_by), it.proposal.as_ref());
    let about = about(proposal.and_then(|it| it.environment.as_deref()), Some(it.rotation.provider));
    let clusters = proposal.and_then(|it| it.clusters.as_deref()).map(sentence).unwrap_or_default();
    let before = match proposal {
        Some(ProposalFacts { approvals: count @ 2.., approved, .. }) => {
            let given = if *approved > 0 { format!("; {approved} of them have") } else { String::new() };
            format!("{count} people have approved{given}")
        }
        _ => "another person has approved".to_owned(),
    };
    let emergency = proposal.is_some_and(|it| it.emergency);
    let (mark, hurry) = if emergency {
        (
            "Emergency: ",
            " This is an emergency: it waits for no window, and another person reviews it afterwards.",
        )
    } else {
        ("", "")
    };
    (
        format!("{mark}{project}: approve a new encryption key?"),
        format!(
            "{by} proposes to move the Atlas project {project}{about} to a new key.{hurry}{clusters} Nothing happens before {before}{}.",
            it.rotation
                .planned_for
                .map(|at| format!(", and nothing before {at}, the planned date"))
                .unwrap_or_default()
        ),
    )
}

/// ` (prod, AWS KMS)`: what is known of a project beside its name.
fn about(environment: Option<&str>, provider: Option<Provider>) -> String {
    let known: Vec<_> =
        environment.map(visible).into_iter().chain(provider.map(|it| it.service().to_owned())).collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}

/// A line of the checklist as a sentence after another.
fn sentence(line: &str) -> String {
    let line = visible(line);
    let mut letters = line.chars();
    letters.next().map_or_else(String::new, |first| format!(" {}{}.", first.to_uppercase(), letters.as_str()))
}

fn auto_approved(project: &str, it: &RotationFacts) -> (String, String) {
    (
        format!("{project}: a key rotation was approved by the policy"),
        format!(
            "{} found a newer key for the Atlas project {project}, every check passed, and the policy approved the \
             rotation without a person. It begins as soon as a window is open; an approver can stop it before.",
            visible(&it.requested_by)
        ),
    )
}

fn completed(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: key rotated"),
        format!(
            "The Atlas project {project} is encrypted with its new key, and Atlas reports it as valid. The old key \
             still protects older backup snapshots: do not delete it."
        ),
    )
}

fn rolled_back(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: rotation rolled back"),
        format!(
            "Atlas could not use the new key of {project}. The old one is back in force, and Atlas reports it as valid."
        ),
    )
}

fn failed(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: rotation failed, the old key stays"),
        format!("The key of {project} was not changed."),
    )
}

fn rejected(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: rotation rejected"),
        "An approver rejected the proposal. Nothing was changed.".to_owned(),
    )
}

fn cancelled(project: &str, _: &RotationFacts) -> (String, String) {
    (format!("{project}: rotation cancelled"), "The rotation was cancelled. Nothing was changed.".to_owned())
}

fn expired(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: rotation expired"),
        "The rotation's time ran out before it could run. Nothing was changed; propose it again.".to_owned(),
    )
}

fn superseded(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: rotation superseded"),
        format!("The key of {project} was changed outside of Keywheel, so Keywheel left it as it is."),
    )
}

fn accepted(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: new key accepted by an operator"),
        "An operator accepted the new key as it is, without Keywheel's verification.".to_owned(),
    )
}

fn closed(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: rotation closed by an operator"),
        "An operator ended the rotation and left the key as it is.".to_owned(),
    )
}

fn needs_operator(project: &str, it: &RotationFacts) -> (String, String) {
    let cause = it.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    (
        format!("{project}: rotation stopped{cause}"),
        format!(
            "Keywheel cannot verify that the key of {project} works, and does not guess. If the key in force is bad, \
             Atlas shuts the clusters down within 15 minutes of finding out."
        ),
    )
}

fn current_key_invalid(project: &str) -> (String, String) {
    (
        format!("{project}: Atlas cannot use the current key"),
        format!(
            "Atlas reports the key in force for {project} as invalid and refuses any change until it works again. Re-enable it \
             in its key service at once."
        ),
    )
}

fn preflight_failed(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: an approved rotation waits, a check fails"),
        "The rotation was approved, but a check right before the change fails. Nothing was changed. The rotation \
         continues by itself once the check passes, until its approval expires."
            .to_owned(),
    )
}

fn late_apply(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: a change took effect after its rotation had ended"),
        format!(
            "Atlas applied a request of the rotation after its end. Compare the key it holds for {project} with the ones below."
        ),
    )
}

fn not_deployed(project: &str, _: &RotationFacts) -> (String, String) {
    (
        format!("{project}: clusters have not taken up the new key yet"),
        "The key is valid, but Keywheel did not see every cluster take it up in time.".to_owned(),
    )
}

fn drifted(it: &Drifted) -> (String, Vec<String>) {
    let first = "Atlas holds a key that Keywheel did not put there. If that was you, record since when it serves; if a Terraform file \
         still names the old one, change it there.";
    (
        format!("{}: the key was changed outside of Keywheel", name(&it.project_name, &it.group_id)),
        findings(first.to_owned(), &it.sentences),
    )
}

fn findings(first: String, sentences: &[String]) -> Vec<String> {
    let sentences = sentences.iter().filter(|text| !text.is_empty()).map(|text| visible(text));
    std::iter::once(first).chain(sentences).collect()
}

/// A report is not verified, so the mail names the reporter.
fn key_alarm(it: &KeyAlarm) -> (String, Vec<String>) {
    let (project, event) = (name(&it.project_name, &it.group_id), visible(&it.event));
    let after = if it.earlier {
        "That key served this project before, and older backup snapshots still need it. Undo it in the key service before \
         the key is gone for good."
    } else if it.proposed {
        "An open rotation is to bring that key into force. Undo it in the key service, or cancel the rotation."
    } else {
        "Atlas shuts the clusters down within 15 minutes of finding a key that it cannot use. Undo it in the key service at \
         once, or rotate to another key."
    };
    let (hook, subject) = (visible(&it.hook), visible(&it.subject));
    if it.looked_up {
        let first = format!("The lookup {hook} reports that {subject} {event}. {after}");
        return (format!("{project}: a key it depends on {event}"), vec![first]);
    }
    (
        format!("{project}: {event} is reported for a key it depends on"),
        vec![format!("The hook {hook} received {event} about {subject}. {after}")],
    )
}

fn overwrote(it: &Overwrote) -> (String, Vec<String>) {
    let project = name(&it.project_name, &it.group_id);
    let first = format!(
        "The rotation of {project} is done and its new key is verified, but the key had been changed outside of Keywheel just before."
    );
    (
        format!("{project}: a rotation replaced a change by {}", visible(&it.by)),
        findings(first, &it.sentences),
    )
}

fn days(count: i64) -> String {
    if count.abs() == 1 { "1 day".to_owned() } else { format!("{} days", count.abs()) }
}

/// `due in 3 days`, `due today`, `8 days overdue`.
pub(super) fn when(left: i64) -> String {
    match left {
        0 => "due today".to_owned(),
        1.. => format!("due in {}", days(left)),
        _ => format!("{} overdue", days(left)),
    }
}

fn reminder(it: &Reminder) -> (String, Vec<String>) {
    let (project, when) = (name(&it.project_name, &it.group_id), when(it.days_left));
    let about = about(it.environment.as_deref(), it.provider);
    let first = it.key_ends_at.map(|ends| {
        format!(
            "The encryption key of the Atlas project {project}{about} ends at {ends}, as its key service says, and Atlas cannot use \
             it from then on. A new key is {when}."
        )
    });
    let first = first.unwrap_or_else(|| {
        let served = Age::of(it).map(|age| format!(" It has served for {}.", days(age.served)));
        format!(
            "The encryption key of the Atlas project {project}{about} is to be replaced every {}.{} A new one is {when}.",
            visible(&it.interval),
            served.unwrap_or_default()
        )
    });
    let day = date(it.due);
    let on = match it.days_left {
        0 => String::new(),
        1.. => format!(", on {day}"),
        _ => format!(", since {day}"),
    };
    let mut told = with(first, it.open_note.as_ref());
    told.extend(it.copied_because.as_ref().map(|why| visible(why)));
    (format!("{project}: encryption key {when}{on}"), told)
}

/// `Fri 4 Dec`.
fn date(at: Timestamp) -> String {
    at.as_chrono().format("%a %-d %b").to_string()
}

/// What follows a reminder, and who gets it; `None` where nothing does.
pub(super) fn to_come(it: &Reminder) -> Option<String> {
    let dates: Vec<_> = it.next_reminders.iter().map(|at| date(*at)).collect();
    let told = match &it.told[..] {
        [] | [_] => String::new(),
        all => format!(" Each goes to {}.", all.iter().map(|it| visible(it)).collect::<Vec<_>>().join(", ")),
    };
    (!dates.is_empty()).then(|| format!("Next reminders, unless it is rotated: {}.{told}", dates.join(", ")))
}

/// What holds, what Atlas does about it, and the way out; or that it is over.
fn condition(it: &ConditionFacts) -> (String, Vec<String>) {
    let project = name(&it.project_name, &it.group_id);
    if let Some(over) = it.over_at {
        let after = lasted(over.since(it.since).as_secs());
        return match it.cause.as_deref() {
            Some(NO_LONGER_WATCHED) => (
                format!("{project}: {NO_LONGER_WATCHED}"),
                vec![format!("{project} was removed after {after}. Keywheel does not look at it any more.")],
            ),
            Some(NO_LONGER_OWNER) => (
                format!("{project}: {NO_LONGER_OWNER}"),
                vec![format!(
                    "You are not among the owners of {project} any more, so you hear no more of this. It has held for {after} and \
                     holds on; the owners of today are told."
                )],
            ),
            _ => (
                format!("{project}: {} after {after}", over_now(it.condition)),
                vec![end(&project, it.condition)],
            ),
        };
    }
    let (subject, first) = start(&project, it);
    (subject, vec![first])
}

/// A condition that is over, in a few words.
const fn over_now(condition: ConditionKind) -> &'static str {
    match condition {
        ConditionKind::NeedsOperator => "no operator is needed any more",
        ConditionKind::Invalid => "valid again",
        ConditionKind::KeyEnding => "the key is to stay",
        ConditionKind::NotOwner => "the credential is Project Owner again",
        ConditionKind::Unreachable => "can be read again",
        ConditionKind::ValidityUnknown => "Atlas reports again whether the key is valid",
        ConditionKind::NoKey => "has a customer-managed key again",
        ConditionKind::Drifted => "the key of another actor is on record",
        ConditionKind::Held => "the rotation is no longer held",
        ConditionKind::Rotating
        | ConditionKind::Overdue
        | ConditionKind::DueSoon
        | ConditionKind::UnmanagedVersion
        | ConditionKind::NotSending
        | ConditionKind::DatabaseUnwritable
        | ConditionKind::AtlasUnreachable
        | ConditionKind::CredentialRefused
        | ConditionKind::CredentialEnding
        | ConditionKind::MailFailing
        | ConditionKind::WebhookDisabled
        | ConditionKind::SweepLate
        | ConditionKind::RowUnreadable => "over",
    }
}

fn end(project: &str, condition: ConditionKind) -> String {
    match condition {
        ConditionKind::NeedsOperator => {
            format!("The rotation of {project} goes on, or has ended; its own notices say how.")
        }
        ConditionKind::Invalid => format!("Atlas reports the key in force for {project} as valid again."),
        ConditionKind::KeyEnding => format!(
            "What was reported about a key of {project} is over: the key is enabled again, is not used any more, or Atlas calls it valid."
        ),
        ConditionKind::NotOwner => format!("The credential may change the key of {project} again."),
        ConditionKind::Unreachable => {
            format!("Atlas answers again when it is asked for the key of {project}.")
        }
        ConditionKind::ValidityUnknown => {
            format!("Atlas reports again whether it can use the key in force for {project}.")
        }
        ConditionKind::NoKey => format!("Atlas encrypts {project} with a customer-managed key again."),
        ConditionKind::Drifted => {
            format!(
                "A person has recorded the key that was set outside of Keywheel, or a rotation has replaced it in {project}."
            )
        }
        ConditionKind::Held => format!("The approved rotation of {project} is no longer held."),
        ConditionKind::Rotating
        | ConditionKind::Overdue
        | ConditionKind::DueSoon
        | ConditionKind::UnmanagedVersion
        | ConditionKind::NotSending
        | ConditionKind::DatabaseUnwritable
        | ConditionKind::AtlasUnreachable
        | ConditionKind::CredentialRefused
        | ConditionKind::CredentialEnding
        | ConditionKind::MailFailing
        | ConditionKind::WebhookDisabled
        | ConditionKind::SweepLate
        | ConditionKind::RowUnreadable => String::new(),
    }
}

fn start(project: &str, it: &ConditionFacts) -> (String, String) {
    let cause = it.cause.as_deref().map(visible).unwrap_or_default();
    match it.condition {
        ConditionKind::Unreachable => (
            format!("{project}: Keywheel cannot read the key from Atlas"),
            format!(
                "Keywheel has not been able to read the encryption configuration of {project} for a while, so it would \
                 not see a key that goes bad. {}",
                match cause.as_str() {
                    "auth" =>
                        "Atlas does not accept the credential: check its secret, its Project Owner role and its IP access list.",
                    "too_old" =>
                        "This Keywheel is too old: Atlas no longer serves the version of its API that it asks for. Install a newer one.",
                    "gone" =>
                        "Atlas reports that the project does not exist: remove it from Keywheel, or give its credential access.",
                    _ =>
                        "Check that Atlas can be reached from here; its own words are shown by the command below.",
                }
            ),
        ),
        ConditionKind::NotOwner => (
            format!("{project}: the credential is not Project Owner any more"),
            format!(
                "Atlas would refuse a rotation of {project}, and a roll-back, too. Grant the credential the role Project Owner in \
                 the project's settings in Atlas."
            ),
        ),
        ConditionKind::ValidityUnknown => (
            format!("{project}: Atlas does not report whether the key is valid"),
            format!(
                "Atlas answers for {project} without saying whether it can use the key in force. Check the key and its \
                 policy in the key service, and the project in Atlas."
            ),
        ),
        ConditionKind::NoKey => (
            format!("{project}: no customer-managed key any more"),
            format!(
                "Atlas no longer encrypts {project} with a customer-managed key. If that was intended, remove the project from Keywheel."
            ),
        ),
        ConditionKind::Held => (
            format!("{project}: an approved rotation waits ({cause})"),
            format!(
                "The rotation of {project} is approved and waits: {}. It continues by itself once that passes, until its \
                 approval expires.",
                cause.replace('_', " ")
            ),
        ),
        ConditionKind::NeedsOperator => (
            format!("{project}: rotation stopped ({cause})"),
            format!("The rotation of {project} stopped, and an operator must decide."),
        ),
        ConditionKind::Invalid => current_key_invalid(project),
        ConditionKind::Drifted => (
            format!("{project}: the key was changed outside of Keywheel"),
            format!(
                "Atlas holds a key in {project} that Keywheel did not put there, and no person has recorded it."
            ),
        ),
        other => (format!("{project}: {other}"), format!("{project}: {other} {cause}.")),
    }
}

fn digest(it: &ReminderDigest) -> (String, Vec<String>) {
    let count = it.items.len();
    let first = if it.items.iter().all(|it| it.copied_because.is_some()) {
        format!(
            "You get copies for {count} Atlas projects: nobody replaced their keys in time, and policy.escalate names you."
        )
    } else {
        format!("{count} Atlas projects reached a reminder, the most urgent first.")
    };
    (format!("{count} projects need a new encryption key"), vec![first])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_said_as_people_say_them() {
        assert_eq!(
            [when(0), when(1), when(30), when(-1), when(-8)],
            ["due today", "due in 1 day", "due in 30 days", "1 day overdue", "8 days overdue"]
        );
    }
}
