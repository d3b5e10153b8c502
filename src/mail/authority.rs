//! Subject and sentences of news about who may decide.

use crate::domain::notice::{Authority, Kind};
use crate::domain::text::visible;

/// What happened, and what it means for the next rotation.
pub(super) fn sentences(it: &Authority) -> (String, Vec<String>) {
    let about = about(it);
    let by = visible(&it.by);
    let fields: Vec<_> = it.changes.iter().map(|change| visible(&change.field)).collect();
    let fields = fields.join(", ");
    let (subject, first) = match it.kind {
        Kind::LooseningAnnounced => (
            format!("{about}: a rule is to be loosened"),
            format!(
                "{by} has changed {fields}. The change takes effect a while after this message has reached those who must \
                 hear of it, and not for a rotation that is proposed already. Until then it can be withdrawn."
            ),
        ),
        Kind::LooseningWithdrawn => (
            format!("{about}: a loosened rule was withdrawn"),
            format!("{by} has withdrawn the change of {fields}. The rule stays as it was."),
        ),
        Kind::LooseningEffective => (
            format!("{about}: a loosened rule is in effect"),
            format!(
                "The change of {fields} by {by} has taken effect. {by} counts as no approver of what it concerns for a \
                 while longer."
            ),
        ),
        Kind::AddressRefused => (
            format!("Keywheel: mail to {} is refused", visible(&it.subject)),
            format!(
                "The mail server refuses every mail to {}, so nobody may hear at this address. Name another owner (`keywheel \
                 project edit PROJECT --owner ADDRESS`), or have the mailbox put right; the next mail that the server takes \
                 ends this. You are told once, in its place.",
                visible(&it.subject)
            ),
        ),
        Kind::OwnersChanged => (
            format!("{about}: other owners"),
            format!(
                "{by} has changed the owners. New owners get the messages from now on. {by} counts as no approver of \
                 this project for a while."
            ),
        ),
        Kind::EmergencyRequested | Kind::ReviewClosed => emergency(it.kind, &about, &by),
        Kind::VoteVoid => (
            format!("{about}: a vote does not count any more"),
            "A vote on the open rotation was taken out of the count. If too few are left, the rotation waits for other \
             approvers; nothing is sent to Atlas before."
                .to_owned(),
        ),
        Kind::TokenCreated
        | Kind::TokenRevoked
        | Kind::TokenRoles
        | Kind::PasskeyConfirmed
        | Kind::PasskeyRemoved
        | Kind::PersonJoined
        | Kind::PersonRenamed
        | Kind::PersonRemoved => identity(it.kind, &about, &by),
        Kind::Acceptance => (
            format!("{about}: an operator has accepted what Keywheel did not vouch for"),
            format!(
                "{by} has done this on the machine. If nobody expects it, look at that machine and at the audit log."
            ),
        ),
        _ => (
            format!("{about}: started with other settings"),
            format!(
                "The daemon was started with other settings that decide: {fields}. Who may change the configuration and \
                 restart the daemon can do what the daemon can; if nobody expects this, look at that machine."
            ),
        ),
    };
    let detail = it.detail.iter().map(|text| visible(text));
    (subject, std::iter::once(first).chain(detail).collect())
}

/// What happened to a token, a passkey or a person.
/// What happened about an emergency rotation.
fn emergency(kind: Kind, about: &str, by: &str) -> (String, String) {
    if kind == Kind::ReviewClosed {
        let subject = format!("{about}: the review of an emergency rotation was closed");
        return (subject, format!("{by} has closed it."));
    }
    (
        format!("{about}: an emergency rotation was proposed"),
        format!(
            "{by} has proposed it: fewer people than usual approve it, and it waits for no window. Atlas gets nothing \
             before they do. If nobody expects it, reject it. Its review stays open until another person than {by} \
             closes it (`keywheel review list`)."
        ),
    )
}

fn identity(kind: Kind, about: &str, by: &str) -> (String, String) {
    match kind {
        Kind::TokenCreated => (
            format!("{about}: a token was made"),
            format!("{by} has made it. Its votes count only after a delay; if nobody expects it, revoke it."),
        ),
        Kind::TokenRevoked => (
            format!("{about}: a token was revoked"),
            format!("{by} has revoked it. Its votes on open rotations do not count any more."),
        ),
        Kind::TokenRoles => (
            format!("{about}: a token got other rights"),
            format!(
                "{by} has changed its roles or its person. What it may newly do, it may in a vote only after a delay."
            ),
        ),
        Kind::PasskeyConfirmed => (
            format!("{about}: a passkey was confirmed"),
            format!(
                "{by} has confirmed it. Votes that it signs count a while after this message has reached those who must \
                 hear of it. If nobody expects it, remove it: `keywheel passkey remove ID`."
            ),
        ),
        Kind::PersonJoined => (
            format!("{about}: somebody who may approve is new here"),
            "The identity provider gives this account a role or a group that approves. Its votes count only after a delay. \
             If nobody expects it, look at the groups there, and remove it: `keywheel person remove MAIL`."
                .to_owned(),
        ),
        Kind::PersonRenamed => (
            format!("{about}: the identity provider gives another address"),
            "The account is the same and counts as the same person. Its votes count only after a delay. Sessions, the \
             calendar feed and the passkeys of the former address count for nothing any more."
                .to_owned(),
        ),
        Kind::PersonRemoved => (
            format!("{about}: a person was removed"),
            format!(
                "{by} has removed it: it is signed out everywhere, and its votes on rotations that have sent nothing do not \
                 count any more. Who signs in again begins anew, and votes only after a delay."
            ),
        ),
        _ => (
            format!("{about}: a passkey was removed"),
            format!(
                "{by} has removed it. Votes that it signed for rotations that have sent nothing do not count any more. \
                 Whose last one it was begins anew with one that an admin confirms."
            ),
        ),
    }
}

/// The project's name, `Token ci`, or `Keywheel`.
fn about(it: &Authority) -> String {
    match (&it.group_id, &it.project_name, it.subject.split_once('/')) {
        (Some(_), Some(name), _) if !name.is_empty() => visible(name),
        (Some(group), ..) => group.to_string(),
        (None, _, Some(("person", name))) => visible(name),
        (None, _, Some(("token", name))) => format!("Token {}", visible(name)),
        _ => "Keywheel".to_owned(),
    }
}
