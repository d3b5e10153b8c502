//! The tables of a bundle: each column with what it means, in the order in which it is written.
//!
//! README.txt and docs/evidence.md list the same columns. A cell is text; an absent value is an empty cell.

use serde::{Deserialize, Serialize};

use super::{AuditLine, csv};

/// A table: one struct for each, with a field for each column.
pub trait Table: Sized {
    /// Its file.
    const FILE: &'static str;
    /// What its rows are.
    const ABOUT: &'static str;
    /// Each column, and what it means.
    const COLUMNS: &'static [(&'static str, &'static str)];

    /// The cells of a row.
    fn cells(&self) -> Vec<&str>;

    /// The row with these cells; `None` when their number is another one.
    fn of_cells(cells: Vec<String>) -> Option<Self>;
}

/// The first line of a table.
pub(super) fn heading<T: Table>() -> String {
    csv::line(T::COLUMNS.iter().map(|(name, _)| *name))
}

macro_rules! table {
    ($name:ident, $file:literal, $about:literal, { $($column:ident: $meaning:literal,)+ }) => {
        #[doc = concat!("A row of `", $file, "`.")]
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(#[doc = concat!("The column `", stringify!($column), "`.")] pub $column: String,)+
        }

        impl Table for $name {
            const FILE: &'static str = $file;
            const ABOUT: &'static str = $about;
            const COLUMNS: &'static [(&'static str, &'static str)] = &[$((stringify!($column), $meaning),)+];

            fn cells(&self) -> Vec<&str> {
                vec![$(self.$column.as_str(),)+]
            }

            fn of_cells(cells: Vec<String>) -> Option<Self> {
                let mut cells = cells.into_iter();
                let row = Self { $($column: cells.next()?,)+ };
                cells.next().is_none().then_some(row)
            }
        }
    };
}

table!(Rotation, "rotations.csv", "The population: every rotation that was open at any time in the period.", {
    rotation_id: "The rotation's id.",
    project_id: "The Atlas project's id.",
    project_name: "The project's name when the rotation was proposed.",
    provider: "AWS, AZURE or GCP.",
    old_key: "The key that Atlas held at the proposal.",
    new_key: "The key that was proposed.",
    trigger: "operator, emergency, or hook:NAME for an event of a key service.",
    reason: "The proposer's reason.",
    requested_by: "Who proposed it.",
    proposed_at: "When it was proposed.",
    planned_for: "No new key was to be sent before; empty for no such date.",
    policy_version: "The version of the policy that it runs under (policies.csv).",
    proposal_hash: "What approvals are bound to: project, provider, both keys, policy version.",
    approvals_required: "How many people had to approve.",
    approvals_given: "How many votes are in approvals.csv.",
    approved_at: "When enough had approved; empty where that was taken back.",
    first_sent_at: "When its new key was first about to be sent.",
    patched_at: "When Atlas first showed the new key.",
    finished_at: "When it ended; empty while it is open.",
    state: "Its state when the bundle was made.",
    cause: "Why it is in that state.",
    atlas_event: "found, not_found or awaited: Atlas' own event about the change; empty where it is not looked for.",
    atlas_event_id: "The id of that event in Atlas' activity feed.",
    atlas_event_at: "When it happened, by Atlas' clock.",
    atlas_event_by: "Who changed the key, as Atlas names it.",
    first_row: "The first row of the audit log about it.",
    last_row: "The last row of the audit log about it.",
});

table!(Approval, "approvals.csv", "Every vote that stood when the rotation was sent, or when it ended.", {
    rotation_id: "The rotation.",
    voter: "Who approved; policy:auto_approve where that setting did.",
    at: "When.",
    method: "link, session, api, passkey or auto_approve: how the vote was given.",
    comment: "What the voter wrote.",
    passkey: "The passkey that signed it (passkeys.csv).",
    nonce: "The random part of what the passkey signed.",
    proposal_hash: "The proposal that the vote is bound to.",
});

table!(PasskeyLine, "passkeys.csv", "The passkeys that have signed votes.", {
    passkey: "The id of the credential, as browsers send it.",
    algorithm: "ES256, EdDSA or RS256.",
    public_key: "The key as the authenticator wrote it (COSE, base64url).",
    pem: "The same key as other programs read it (SubjectPublicKeyInfo, PEM).",
    holder: "Whose it is: a mail address or an account; empty where it was removed since.",
    enrolled_at: "When it was enrolled.",
    confirmed_by: "Who confirmed it.",
    counts_from: "From when on its signatures count.",
});

table!(KeyService, "keys.csv", "Every key that served a project in the period: its cryptoperiod.", {
    project_id: "The project.",
    project_name: "Its name when the bundle was made.",
    key: "The key.",
    since: "Since when it served.",
    source: "Where that date comes from: operator, rotation, atlas_event, first_seen (at least since then).",
    until: "Until when it served; empty for the one in force.",
    interval: "How long a key of this project may serve, such as 90d, by the rules when the bundle was made.",
    due: "When it had to be replaced.",
    days: "How many whole days it served until the end of the period, or until the bundle was made.",
    days_late: "How many whole days of them were after it was due.",
    exception: "Until when and by whom the due date was acknowledged, where it was.",
});

table!(InventoryLine, "inventory.csv", "The projects that were tracked when the bundle was made.", {
    project_id: "The project.",
    project_name: "Its name in Atlas.",
    environment: "A tag such as prod.",
    owners: "Who is responsible, by mail address, with spaces between them.",
    provider: "AWS, AZURE or GCP.",
    place: "The region, or the key vault.",
    key: "The key in force.",
    key_since: "Since when it serves.",
    valid: "true or false: whether Atlas could use it at the last observation.",
    due: "When it is to be replaced.",
    policy_version: "The version of the rules in force (policies.csv).",
    credential: "The name of the Atlas credential.",
    lookup: "The name of the lookup at the key service.",
    tracked_since: "When it was added to Keywheel.",
    observed_at: "When Atlas was read last.",
});

table!(PolicyLine, "policies.csv", "Rules, and who changed them: each policy that a rotation or a project names, and each change in the rows of audit.jsonl.", {
    kind: "rules for a policy, change for a row of the audit log.",
    version: "The version of a policy: the first 16 digits of the SHA-256 of its content.",
    at: "When a change was made.",
    who: "Who made it.",
    action: "What was done, as the audit log names it.",
    subject: "The project, or settings.",
    row: "The row of the audit log.",
    content: "The policy, or the change, as JSON.",
});

table!(Mail, "mails.csv", "Mails about the rotations of the population, and all others written in the period. The text of a mail is not kept here.", {
    message_id: "Its Message-ID.",
    kind: "What it says (docs/webhooks.md lists the kinds).",
    project_id: "The project, or the part of the installation.",
    rotation_id: "The rotation.",
    recipient: "To whom it goes.",
    created_at: "When its cause was written.",
    state: "waiting, sent or failed.",
    attempts: "How often it was tried.",
    sent_at: "When the recipient's server accepted it.",
    answer: "The last answer of that server, or why it is missing.",
});

table!(Finding, "findings.csv", "What an auditor would ask about, as Keywheel found it.", {
    kind: "overdue, drifted, key_in_two_environments, emergency, review_open, atlas_event_missing, overwrote, broken_row, break_accepted, records_removed.",
    project_id: "The project.",
    rotation_id: "The rotation.",
    at: "When it began, or was found.",
    row: "The row of the audit log.",
    count: "How many it stands for.",
    detail: "What was found.",
});

impl PolicyLine {
    /// A row of the audit log that changes rules.
    #[must_use]
    pub fn change(row: &AuditLine) -> Self {
        Self {
            kind: "change".to_owned(),
            at: row.at.clone(),
            who: row.actor.clone(),
            action: row.action.clone(),
            subject: row.subject.clone(),
            row: row.seq.to_string(),
            content: row.detail.clone(),
            ..Self::default()
        }
    }
}
