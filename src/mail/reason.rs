//! Why a mail comes to its reader, and how it goes to another person instead. No notice can be switched off.

use super::sentences::name;
use crate::domain::notice::{CurrentKeyInvalid, Kind, Notice, Reminder};

/// Why the reader gets this mail, and how to hand it over.
pub(super) fn reason(notice: &Notice) -> String {
    format!("{} {}", because(notice), hand_over(notice))
}

fn because(notice: &Notice) -> String {
    let owner = |project: String| {
        let more = if notice.kind().pages() { ", or because mail.operators names you" } else { "" };
        format!("You get this because you own {project} in Keywheel{more}.")
    };
    if let Some(it) = notice.rotation() {
        let project = name(&it.project_name, &it.group_id);
        return match notice {
            Notice::ApprovalRequested(_) => format!(
                "You get this because you own {project} in Keywheel, or because its policy names you among the approvers."
            ),
            _ => owner(project),
        };
    }
    match notice {
        Notice::CurrentKeyInvalid(CurrentKeyInvalid::Project(it)) => {
            owner(name(&it.project_name, &it.group_id))
        }
        Notice::Drifted(it) => owner(name(&it.project_name, &it.group_id)),
        Notice::KeyAlarm(it) => owner(name(&it.project_name, &it.group_id)),
        Notice::Overwrote(it) => owner(name(&it.project_name, &it.group_id)),
        Notice::Reminder(Reminder { copied_because: Some(_), .. }) => {
            "You get this copy because policy.escalate names you.".to_owned()
        }
        Notice::ReminderDigest(it) if it.items.iter().any(|it| it.copied_because.is_some()) => {
            "You get this because you own some of these projects, or because policy.escalate names you.".to_owned()
        }
        Notice::Reminder(it) => owner(name(&it.project_name, &it.group_id)),
        Notice::Condition(it) => owner(name(&it.project_name, &it.group_id)),
        Notice::ReminderDigest(_) => "You get this because you own these projects in Keywheel.".to_owned(),
        Notice::Installation(_) => {
            "You get this because mail.operators names you, or because it names no one and you own a project."
                .to_owned()
        }
        Notice::Authority(it) if it.kind == Kind::AddressRefused => {
            "You get this because you own a project together with that address, or because you look after this installation (mail.security, mail.operators).".to_owned()
        }
        Notice::Authority(it) => match (&it.group_id, &it.project_name) {
            (Some(group), project) => format!(
                "You get this because you own {} in Keywheel, or because mail.security or the policy names you.",
                name(project.as_deref().unwrap_or_default(), group)
            ),
            (None, _) => SECURITY.to_owned(),
        },
        _ => SECURITY.to_owned(),
    }
}

const SECURITY: &str =
    "You get this because mail.security names you, or because it names no one and you look after Keywheel.";

/// How to hand it over.
fn hand_over(notice: &Notice) -> String {
    let group = match (notice, notice.about().project) {
        (Notice::ReminderDigest(_), _) => "PROJECT",
        (_, Some(group)) => group.as_str(),
        _ => return "Another address there hands it over.".to_owned(),
    };
    format!(
        "It cannot be switched off, but handed over: keywheel project edit {group} --owner ADDRESS names the owners anew."
    )
}
