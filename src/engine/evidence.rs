//! Gathers an evidence bundle: what was recorded of a period, in the order of its files.
//!
//! The audit log and the rotations are read a page at a time; what the log tells of each rotation, the population, its
//! votes and its mails are held until the end. The export is a row of the audit log, and the bundle ends with that row or
//! a later one. The log, rotations, votes, journals, mails and keys are read from one view of the database, so that they
//! tell the same story; projects, passkeys and reviews are read beside it. What the files mean and how they are checked is
//! `evidence`'s.

mod rows;
mod turn;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom};

use serde_json::json;
pub use turn::{Turn, Turns};

use super::Engine;
use super::command::CommandError;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::evidence::{
    Approval, Bundle, Dossier, FORMAT, Finding, Heads, Installation, InventoryLine, KeyService, Mail,
    Manifest, Mark, PasskeyLine, Period, PolicyLine, Rotation, Stories, Versions, changes_rules, key_id,
};
use crate::store::{
    AuditEntry, BREAK_ACCEPTED, MailRecord, NewAudit, Population, RotationRow, Snapshot, StoreError,
    known_version,
};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The action of the row that records an export.
pub const EXPORTED: &str = "evidence.exported";

/// What a bundle is to be about.
#[derive(Clone, Debug)]
pub struct EvidenceRequest {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after.
    pub to: Timestamp,
    /// The one project; `None` for all.
    pub project: Option<GroupId>,
}

/// A bundle that was made.
#[derive(Debug)]
pub struct MadeBundle {
    /// Its bytes, from the first one on.
    pub bytes: Turn,
    /// How many they are.
    pub size: u64,
    /// A name for it.
    pub name: String,
}

/// What is gathered on the way.
#[derive(Default)]
struct Gathered {
    /// What the audit log tells of each rotation.
    stories: Stories,
    policies: BTreeMap<String, String>,
    changes: Vec<PolicyLine>,
    passkeys: BTreeMap<(String, String), PasskeyLine>,
    findings: Vec<Finding>,
    mails: BTreeMap<RotationId, Vec<Mail>>,
    known: Vec<Rotation>,
}

type Out = Bundle<BufWriter<File>>;

fn unwritten(error: &io::Error) -> CommandError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return CommandError::Invalid { field: "to", rule: error.to_string() };
    }
    tracing::error!(error = %error, "an evidence bundle cannot be written");
    CommandError::NoEvidence(format!(
        "the bundle cannot be written to the folder for temporary files ({error}); make room there, and ask again"
    ))
}

impl Engine {
    /// Makes the bundle of a period, and records that `by` asked for it.
    ///
    /// # Errors
    /// Fails when the period is empty or in the future, when the project is not known, while the database is in doubt or its
    /// audit log has a fault that nobody has accepted, and when the database cannot be read.
    pub async fn export_evidence(
        &self,
        by: &str,
        asked: &EvidenceRequest,
    ) -> Result<MadeBundle, CommandError> {
        if asked.from >= asked.to {
            let rule = format!(
                "must be after from ({}); it is the first day that is not in the period any more",
                asked.from
            );
            return Err(CommandError::Invalid { field: "to", rule });
        }
        if asked.from > self.clock.now() {
            let rule = "must not be in the future: nothing is recorded of it yet".to_owned();
            return Err(CommandError::Invalid { field: "from", rule });
        }
        if self.epoch.in_doubt() || !self.store.seals().is_followed() {
            return Err(CommandError::NoEvidence(
                "the database is in doubt, or its log was not read to its end, so nothing is signed; `keywheel doctor` \
                 says what to do"
                    .to_owned(),
            ));
        }
        let of = Population { from: asked.from, to: asked.to, project: asked.project.clone() };
        self.known_project(&of).await?;
        let turn = self.evidence.take(self.clock.now()).map_err(|since| {
            CommandError::NoEvidence(format!(
                "another bundle is being made or fetched since {since}, one at a time; ask again when it has arrived"
            ))
        })?;
        self.whole_log().await?;
        let now = self.clock.now();
        let row = NewAudit {
            actor: by.to_owned(),
            action: EXPORTED.to_owned(),
            subject: Subject::Installation.to_string(),
            detail: json!({ "from": of.from, "to": of.to, "project": of.project }).to_string(),
        };
        self.store.append(std::slice::from_ref(&row), now).await?;
        self.whole_log().await?;
        let file = tempfile::tempfile().map_err(|error| unwritten(&error))?;
        let file = self.gather(file, &of, by, now).await?;
        let (file, size) = rewound(file).map_err(|error| unwritten(&error))?;
        Ok(MadeBundle { bytes: turn.hold(file).await, size, name: of_name(&of) })
    }

    /// Refuses while the audit log has a fault that nobody has accepted.
    async fn whole_log(&self) -> Result<(), CommandError> {
        self.store.follow_seals().await?;
        let Some(broken) = self.store.seals().fault() else { return Ok(()) };
        Err(CommandError::NoEvidence(format!(
            "audit row {0} is broken ({1}), so nothing is signed and nothing was exported; find out who changed it, then \
             `keywheel doctor --accept-broken-chain {0}`",
            broken.seq, broken.why
        )))
    }

    async fn known_project(&self, of: &Population) -> Result<(), CommandError> {
        let Some(group) = &of.project else { return Ok(()) };
        if self.store.project(group).await?.is_some()
            || self.store.snapshot().await?.open_since(of).await?.1 > 0
        {
            return Ok(());
        }
        Err(CommandError::NoProject(group.clone()))
    }

    async fn gather(
        &self,
        file: File,
        of: &Population,
        by: &str,
        now: Timestamp,
    ) -> Result<File, CommandError> {
        let mut view = self.store.snapshot().await?;
        let began = view.open_since(of).await?.0.map_or(of.from, |at| at.min(of.from));
        let (first, before) = view.first_row(began).await?;
        let manifest = self.manifest(&mut view, of, (by, now), (first, before)).await?;
        let wrong = |error: io::Error| unwritten(&error);
        let mut out = Bundle::new(BufWriter::with_capacity(1 << 16, file), manifest).map_err(wrong)?;
        let mut it = Gathered::default();
        let mut last = first - 1;
        loop {
            let rows = view.audit(last).await?;
            let Some(end) = rows.last() else { break };
            last = end.seq;
            for row in rows {
                it.take(&row, of);
                let line = rows::audit(row);
                it.stories.take(&line);
                if changes_rules(&line.action) {
                    it.changes.push(PolicyLine::change(&line));
                }
                out.audit(&line).map_err(wrong)?;
            }
        }
        self.rotations(&mut out, &mut view, of, &mut it).await?;
        self.tables(&mut out, &mut view, of, (&mut it, now)).await?;
        self.dossiers(&mut out, &mut view, of, &mut it).await?;
        let key = self.store.seals().key()?;
        let out = out.finish(key).map_err(wrong)?;
        out.into_inner().map_err(|error| unwritten(error.error()))
    }

    async fn manifest(
        &self,
        view: &mut Snapshot,
        of: &Population,
        (by, now): (&str, Timestamp),
        (first, before): (i64, String),
    ) -> Result<Manifest, CommandError> {
        let key = self.store.seals().key()?;
        let (seq, hash) = view.head.clone();
        let keys = view.key_changes().await?;
        Ok(Manifest {
            format: FORMAT.to_owned(),
            made_at: now,
            made_by: by.to_owned(),
            period: period(of),
            project: of.project.as_ref().map(ToString::to_string),
            installation: Installation {
                fingerprint: key.fingerprint(),
                public_key: STANDARD.encode(key.public_key()),
                key_id: key_id(key.public_key()),
            },
            versions: Versions { keywheel: env!("CARGO_PKG_VERSION").to_owned(), schema: known_version() },
            head: Heads { before: Mark { seq: first - 1, hash: before }, after: Mark { seq, hash } },
            keys: keys.iter().map(rows::key_link).collect(),
            counts: BTreeMap::new(),
            files: Vec::new(),
        })
    }

    /// rotations.csv and approvals.csv.
    async fn rotations(
        &self,
        out: &mut Out,
        view: &mut Snapshot,
        of: &Population,
        it: &mut Gathered,
    ) -> Result<(), CommandError> {
        let wrong = |error: io::Error| unwritten(&error);
        let mut last = None;
        let mut approvals = Vec::new();
        out.begin::<Rotation>().map_err(wrong)?;
        loop {
            let page = view.population(of, last).await?;
            let Some(end) = page.last() else { break };
            last = Some(end.rotation.id);
            for row in page {
                let id = row.rotation.id;
                let (votes, proof) = (view.votes(id).await?, view.proof(id).await?);
                let Some(story) = it.stories.of(&id.to_string()) else { continue };
                if !story.began_at().is_some_and(|began| period(of).covers(began, story.ended_at)) {
                    continue;
                }
                let rotation = rows::rotation(&row, votes.len(), proof.as_ref(), story);
                out.row(&rotation).map_err(wrong)?;
                it.findings.extend(rows::findings(&row, proof.as_ref()));
                it.policies.insert(row.policy_version.clone(), policy(&row)?);
                let mut dossier = Dossier::new(rotation);
                dossier.votes = votes.into_iter().map(rows::vote).collect();
                for signed in dossier.votes.iter().filter_map(crate::evidence::Vote::signed) {
                    let key = (signed.passkey.clone(), signed.public_key.clone());
                    it.passkeys.entry(key).or_insert_with(|| rows::passkey(signed));
                }
                approvals.extend(dossier.approvals());
                it.known.push(dossier.rotation);
            }
        }
        out.begin::<Approval>().map_err(wrong)?;
        approvals.iter().try_for_each(|row| out.row(row)).map_err(wrong)
    }

    /// The tables from passkeys.csv to findings.csv.
    async fn tables(
        &self,
        out: &mut Out,
        view: &mut Snapshot,
        of: &Population,
        (it, now): (&mut Gathered, Timestamp),
    ) -> Result<(), CommandError> {
        let wrong = |error: io::Error| unwritten(&error);
        for passkey in self.store.passkeys().await? {
            rows::held(&mut it.passkeys, &passkey);
        }
        out.begin::<PasskeyLine>().map_err(wrong)?;
        it.passkeys.values().try_for_each(|row| out.row(row)).map_err(wrong)?;
        let projects = self.tracked(of).await?;
        let served = view.served(of).await?;
        out.begin::<KeyService>().map_err(wrong)?;
        let until = of.to.min(now);
        for (group, span) in served {
            let project = projects.iter().find(|it| it.group_id.as_str() == group);
            let line = rows::key_service(&group, &span, project, &self.settings.policy, until);
            it.findings.extend(rows::overdue(&line));
            out.row(&line).map_err(wrong)?;
        }
        out.begin::<InventoryLine>().map_err(wrong)?;
        for project in &projects {
            let policy = project.policy(&self.settings.policy);
            let version = policy.version().unwrap_or_default();
            it.policies.entry(version.clone()).or_insert(serde_json::to_string(&policy).unwrap_or_default());
            out.row(&rows::inventory(project, &self.settings.policy, version)).map_err(wrong)?;
        }
        it.findings.extend(rows::shared_keys(&projects));
        out.begin::<PolicyLine>().map_err(wrong)?;
        for (version, content) in &it.policies {
            out.row(&rows::rules(version, content)).map_err(wrong)?;
        }
        it.changes.iter().try_for_each(|row| out.row(row)).map_err(wrong)?;
        self.mails(out, view, of, it).await?;
        self.more_findings(of, it, now).await?;
        out.begin::<Finding>().map_err(wrong)?;
        it.findings.iter().try_for_each(|row| out.row(row)).map_err(wrong)
    }

    async fn tracked(&self, of: &Population) -> Result<Vec<crate::domain::project::Project>, StoreError> {
        if let Some(group) = &of.project {
            return Ok(self.store.project(group).await?.into_iter().collect());
        }
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|it: &crate::domain::project::Project| it.group_id.clone());
            let page =
                self.store.projects(&crate::store::ProjectFilter::default(), after.as_ref(), 500).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    async fn mails(
        &self,
        out: &mut Out,
        view: &mut Snapshot,
        of: &Population,
        it: &mut Gathered,
    ) -> Result<(), CommandError> {
        let wrong = |error: io::Error| unwritten(&error);
        let ours: std::collections::BTreeSet<_> =
            it.known.iter().map(|known| known.rotation_id.clone()).collect();
        out.begin::<Mail>().map_err(wrong)?;
        let mut last: Option<MailRecord> = None;
        loop {
            let page = view.mails(last.as_ref()).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.clone());
            for mail in page {
                let rotation = mail.rotation();
                let is_ours = rotation.is_some_and(|id| ours.contains(&id.to_string()));
                let is_in = mail.created_at >= of.from && mail.created_at < of.to;
                let is_meant = of.project.as_ref().is_none_or(|group| mail.group_id == group.as_str());
                if !(is_ours || (is_in && is_meant)) {
                    continue;
                }
                let line = rows::mail(mail, |id| self.wire_id(id));
                out.row(&line).map_err(wrong)?;
                if let Some(id) = rotation.filter(|_| is_ours) {
                    it.mails.entry(id).or_default().push(line);
                }
            }
        }
    }

    /// What is found beside the rotations and the keys.
    async fn more_findings(
        &self,
        of: &Population,
        it: &mut Gathered,
        now: Timestamp,
    ) -> Result<(), CommandError> {
        for review in self.store.reviews().await?.iter().filter(|review| review.is_open()) {
            let id = review.rotation_id.to_string();
            if it.known.iter().any(|known| known.rotation_id == id) {
                it.findings.push(rows::open_review(review));
            }
        }
        for broken in self.store.seals().report().broken {
            it.findings.push(Finding {
                kind: "broken_row".to_owned(),
                row: broken.seq.to_string(),
                count: "1".to_owned(),
                detail: broken.why,
                ..Finding::default()
            });
        }
        let kept = now - self.settings.retention.messages.get();
        if of.from < kept {
            it.findings.push(Finding {
                kind: "records_removed".to_owned(),
                at: kept.to_string(),
                detail:
                    "mails that were written before this instant are not kept any more (retention.messages)"
                        .to_owned(),
                ..Finding::default()
            });
        }
        it.findings.sort_by(|one, other| {
            let key = |it: &Finding| {
                [&it.kind, &it.project_id, &it.rotation_id, &it.at, &it.row].map(String::clone)
            };
            key(one).cmp(&key(other))
        });
        Ok(())
    }

    async fn dossiers(
        &self,
        out: &mut Out,
        view: &mut Snapshot,
        of: &Population,
        it: &mut Gathered,
    ) -> Result<(), CommandError> {
        let reviews = self.store.reviews().await?;
        let mut known = std::mem::take(&mut it.known).into_iter().peekable();
        let mut last = None;
        loop {
            let page = view.population(of, last).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.rotation.id);
            for row in page {
                let id = row.rotation.id;
                // The others lie beside the period.
                let Some(rotation) = known.next_if(|it| it.rotation_id == id.to_string()) else { continue };
                let rows = it.stories.of(&rotation.rotation_id).map(|it| it.rows.clone()).unwrap_or_default();
                let mut dossier = Dossier::new(rotation);
                dossier.votes = view.votes(id).await?.into_iter().map(rows::vote).collect();
                dossier.policy = policy(&row)?;
                dossier.checks = json!(row.rotation.observing.checks);
                dossier.journal = view.journal(id).await?.into_iter().map(rows::journal).collect();
                dossier.audit_rows = rows;
                dossier.overwrote = rows::overwrote(view.proof(id).await?.as_ref());
                dossier.mails = it.mails.remove(&id).unwrap_or_default();
                dossier.review = reviews.iter().find(|it| it.rotation_id == id).map(rows::review);
                out.dossier(&dossier).map_err(|error| unwritten(&error))?;
            }
        }
    }
}

/// A file that is read from its first byte on, and how many there are. It has no name and goes with its handle.
fn rewound(mut file: File) -> io::Result<(File, u64)> {
    let size = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok((file, size))
}

fn of_name(of: &Population) -> String {
    let day = |at: Timestamp| at.as_chrono().format("%Y-%m-%d").to_string();
    let project = of.project.as_ref().map(|it| format!("-{it}")).unwrap_or_default();
    format!("keywheel-evidence-{}-{}{project}.zip", day(of.from), day(of.to))
}

const fn period(of: &Population) -> Period {
    Period { from: of.from, to: of.to }
}

/// The policy that a rotation runs under, as its version covers it.
fn policy(row: &RotationRow) -> Result<String, StoreError> {
    let id = row.rotation.id;
    serde_json::to_string(&row.rotation.rules.policy).map_err(|source| StoreError::Unwritable {
        table: "rotations",
        column: "machine",
        id: id.to_string(),
        source,
    })
}

impl Gathered {
    /// Takes over what a row of the audit log says.
    fn take(&mut self, row: &AuditEntry, of: &Population) {
        let group = row.subject.strip_prefix("project/").unwrap_or_default();
        let is_meant = of.project.as_ref().is_none_or(|it| it.as_str() == group);
        let is_in = row.at >= of.from && row.at < of.to;
        let kind = match row.action.as_str() {
            "project.drifted" if is_in && is_meant => "drifted",
            BREAK_ACCEPTED => "break_accepted",
            _ => return,
        };
        self.findings.push(Finding {
            kind: kind.to_owned(),
            project_id: group.to_owned(),
            at: row.at.to_string(),
            row: row.seq.to_string(),
            count: "1".to_owned(),
            detail: row.detail.clone(),
            ..Finding::default()
        });
    }
}
