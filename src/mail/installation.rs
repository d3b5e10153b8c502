//! Subject and sentences of what holds for the installation and for no single project.

use crate::domain::condition::ConditionKind;
use crate::domain::notice::{InstallationCondition, NO_LONGER_RUNS};
use crate::domain::text::visible;
use crate::domain::time::lasted;

/// What holds, what it means for the keys, and the way out; or that it is over.
pub(super) fn sentences(it: &InstallationCondition) -> (String, Vec<String>) {
    let about = about(it);
    let Some(over) = it.over_at else {
        let (subject, first) = start(it, &about);
        return (subject, vec![first]);
    };
    let after = lasted(over.since(it.since).as_secs());
    match it.cause.as_deref().filter(|cause| *cause == NO_LONGER_RUNS) {
        Some(cause) => (
            format!("{about}: {cause}"),
            vec![format!(
                "That daemon has ended, or has not reported for three minutes. What it alone could see is over with it, \
                 after {after}."
            )],
        ),
        None => {
            (format!("{about}: {} after {after}", over_now(it.condition)), vec![end(it.condition).to_owned()])
        }
    }
}

/// `Credential default`, `Daemon host:8440`, or `Keywheel`.
fn about(it: &InstallationCondition) -> String {
    match it.subject.split_once('/') {
        Some(("credential", name)) => format!("Credential {}", visible(name)),
        Some(("daemon", name)) => format!("Daemon {}", visible(name)),
        _ => "Keywheel".to_owned(),
    }
}

const fn over_now(condition: ConditionKind) -> &'static str {
    match condition {
        ConditionKind::NotSending => "new keys are sent again",
        ConditionKind::DatabaseUnwritable => "the database can be written again",
        ConditionKind::AtlasUnreachable => "most projects can be read again",
        ConditionKind::CredentialRefused => "accepted again",
        ConditionKind::CredentialEnding => "its secret does not expire soon any more",
        ConditionKind::MailFailing => "mail leaves again",
        ConditionKind::WebhookDisabled => "no webhook target is disabled any more",
        ConditionKind::SweepLate => "keys are read in time again",
        ConditionKind::RowUnreadable => "every row can be read again",
        _ => "over",
    }
}

const fn end(condition: ConditionKind) -> &'static str {
    match condition {
        ConditionKind::NotSending => {
            "The database was accepted, or the clocks agree again. Approved rotations continue by themselves."
        }
        ConditionKind::DatabaseUnwritable => {
            "The database can be written again. Rotations continue, and what was waiting is sent."
        }
        ConditionKind::AtlasUnreachable => {
            "Most projects of the credential can be read again. Those that cannot are told one by one."
        }
        ConditionKind::CredentialRefused => "Atlas accepts the credential again.",
        ConditionKind::CredentialEnding => {
            "The credential has a secret that expires later, or does not tell it any more."
        }
        ConditionKind::MailFailing => "The mail server takes mails again.",
        ConditionKind::WebhookDisabled => {
            "Every target is in service again. What ended meanwhile is sent by `keywheel outbox retry --failed`."
        }
        ConditionKind::SweepLate => "Every project is read in time again.",
        ConditionKind::RowUnreadable => "Every row of a project and of an open rotation can be read again.",
        _ => "",
    }
}

fn start(it: &InstallationCondition, about: &str) -> (String, String) {
    let cause = it.cause.as_deref().map(visible).unwrap_or_default();
    match it.condition {
        ConditionKind::NotSending if cause == "clock_skew" => (
            format!("{about}: no new key is sent, the clocks differ"),
            "This machine's clock and another one differ by more than two minutes, so no new key is sent to Atlas: a \
             deadline could be missed. Keys are read all the same. Check NTP on this machine and on the database's."
                .to_owned(),
        ),
        ConditionKind::NotSending => (
            format!("{about}: no new key is sent, the database is in doubt"),
            "The database is not the one that this daemon has written, or its audit log is broken. No new key is sent to \
             Atlas until an operator has decided; `keywheel doctor` on that machine says how. Keys are read, and pages \
             leave, all the same. A rotation that was under way is not continued: look at it in Atlas."
                .to_owned(),
        ),
        ConditionKind::DatabaseUnwritable if cause == "disk_full" => (
            format!("{about}: the disk that holds the database is full"),
            "The reserve beside the database was given up, so rotations under way, conditions and messages are still \
             written, for a while. Hooks and commands are refused. Make room on the disk; the rest follows by itself."
                .to_owned(),
        ),
        ConditionKind::DatabaseUnwritable => (
            format!("{about}: the database cannot be written"),
            "Rotations stand still where they are, also between their PATCH and their verification, and other messages \
             wait. Atlas shuts clusters down about 15 minutes after a key turns bad: look at open rotations in Atlas, and \
             make room for the database or bring it back. This message was sent without the database."
                .to_owned(),
        ),
        ConditionKind::AtlasUnreachable => (
            format!("{about}: Keywheel cannot read most of its projects"),
            "Most projects of this credential have not been read for a while, so a key that goes bad would not be seen. \
             Check that Atlas can be reached from here, and the credential's role and IP access list. Where Atlas says that a version is gone, this Keywheel is too old: \
             install a newer one. One notice stands \
             for all these projects."
                .to_owned(),
        ),
        ConditionKind::CredentialRefused => (
            format!("{about}: Atlas does not accept it"),
            "Atlas refuses the credential, so its projects are not read and their rotations wait. Check whether its secret \
             was replaced or has expired, write the new one into the configuration, and reload (SIGHUP)."
                .to_owned(),
        ),
        ConditionKind::CredentialEnding => (
            format!("{about}: {cause}"),
            "Atlas gives the secret of a service account a year at most. Once it has expired, the projects of this credential are not \
             read and their rotations wait. Make a second secret in Atlas (Access Manager, Service Accounts), write it into the \
             configuration and reload (SIGHUP; a file that changes is read by itself), then revoke the old one."
                .to_owned(),
        ),
        ConditionKind::MailFailing => (
            format!("{about}: no mail leaves"),
            "Mails wait, and the mail server has taken none of them. Pages by mail do not arrive. Check mail.smtp_url and \
             what the server says; `keywheel outbox list` shows the mails."
                .to_owned(),
        ),
        ConditionKind::WebhookDisabled => (
            format!("{about}: webhook target disabled ({cause})"),
            "The target has answered 410 (gone) and gets no webhooks, but for one a day that tries it. Remove it from the \
             configuration, or fix it and run `keywheel webhook enable NAME`."
                .to_owned(),
        ),
        ConditionKind::SweepLate => (
            format!("{about}: keys are read late"),
            "Projects are due that nobody has read for more than two minutes beyond their time, so a key that goes bad is \
             seen late. Check the load of the machine, the database, and how long Atlas takes to answer; the metric \
             keywheel_sweep_lag_seconds shows the delay."
                .to_owned(),
        ),
        ConditionKind::RowUnreadable => (
            format!("{about}: rows of the database cannot be read"),
            format!(
                "Somebody or something has changed the database by other means than Keywheel: {cause}. Such a project is \
                 not watched and such a rotation is not continued. `keywheel doctor` lists the rows; restore them from a \
                 backup."
            ),
        ),
        other => (format!("{about}: {other}"), format!("{other}: {cause}.")),
    }
}
