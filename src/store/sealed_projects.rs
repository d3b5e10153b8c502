//! The seals of projects: what decides who must agree and who is told.

use futures_util::TryStreamExt;
use sqlx::FromRow;

use super::seal::Seal;
use super::types::{json, storable};
use super::{FormerProject, Sql, Store, StoreError, Tx, each, urgent};
use crate::domain::ids::GroupId;
use crate::domain::project::{PolicyOverride, Project};
use crate::seal::Digest;

// A row for each owner, so that one statement reads all that the seal covers.
const SEALED: Sql = Sql::same(
    "SELECT p.group_id, p.credential, p.kms, p.alias, p.environment, p.policy, o.mail FROM projects p \
     LEFT JOIN owners o ON o.group_id = p.group_id WHERE p.group_id = $1 ORDER BY o.position",
);
const ALL_SEALED: Sql = Sql::same(
    "SELECT p.group_id, p.credential, p.kms, p.alias, p.environment, p.policy, o.mail FROM projects p \
     LEFT JOIN owners o ON o.group_id = p.group_id ORDER BY p.group_id, o.position",
);

pub(super) const STATEMENTS: &[&Sql] = &[&SEALED, &ALL_SEALED];

/// What a project's seal covers: whatever decides who must agree, and who is told.
pub(super) struct SealedProject {
    group_id: String,
    credential: String,
    kms: Option<String>,
    alias: Option<String>,
    environment: Option<String>,
    policy: Option<PolicyOverride>,
    owners: Vec<String>,
}

impl SealedProject {
    pub(super) fn of(it: &Project) -> Self {
        Self::former(&it.group_id, &FormerProject::from(it))
    }

    /// A project that is removed.
    pub(super) fn former(group: &GroupId, it: &FormerProject) -> Self {
        Self {
            group_id: group.to_string(),
            credential: it.credential.clone(),
            kms: it.kms.clone(),
            alias: it.alias.clone(),
            environment: it.environment.as_deref().map(|tag| storable(tag).into_owned()),
            policy: it.policy.clone(),
            owners: it.owners.clone(),
        }
    }

    fn subject(&self) -> String {
        format!("project/{}", self.group_id)
    }

    pub(super) fn seal(&self) -> Result<Seal, StoreError> {
        let policy =
            self.policy.as_ref().map(|it| json("projects", "policy", &self.group_id, it)).transpose()?;
        let owners = json("projects", "owners", &self.group_id, &self.owners)?;
        let rest = [&self.kms, &self.alias, &self.environment, &policy].map(Option::as_deref);
        let fields = [&[Some(self.credential.as_str())], rest.as_slice(), &[Some(&owners)]].concat();
        Ok(Seal::new(self.subject(), Digest::of(&self.subject(), &fields)))
    }
}

#[derive(FromRow)]
struct SealedProjectRow {
    group_id: String,
    credential: String,
    kms: Option<String>,
    alias: Option<String>,
    environment: Option<String>,
    policy: Option<String>,
}

impl SealedProjectRow {
    fn with(self, owners: Vec<String>) -> Result<SealedProject, StoreError> {
        let policy = self.policy.as_deref().map(serde_json::from_str).transpose();
        Ok(SealedProject {
            policy: policy.map_err(|_| StoreError::corrupt("projects", "policy", &self.group_id))?,
            group_id: self.group_id,
            credential: self.credential,
            kms: self.kms,
            alias: self.alias,
            environment: self.environment,
            owners,
        })
    }
}

/// A project with one of its owners.
#[derive(FromRow)]
struct OwnedRow {
    #[sqlx(flatten)]
    row: SealedProjectRow,
    mail: Option<String>,
}

/// The project of these rows.
fn owned(rows: Vec<OwnedRow>) -> Result<Option<SealedProject>, StoreError> {
    let (mut first, mut owners) = (None, Vec::new());
    for OwnedRow { row, mail } in rows {
        owners.extend(mail);
        first.get_or_insert(row);
    }
    first.map(|row: SealedProjectRow| row.with(owners)).transpose()
}

impl Store {
    /// Refuses a project that is not as Keywheel wrote it.
    ///
    /// # Errors
    /// [`StoreError::Tampered`], or when the database cannot be read.
    pub async fn check_project(&self, it: &Project) -> Result<(), StoreError> {
        self.check_sealed_project(&SealedProject::of(it)).await
    }

    /// The same for the project as it is stored now. One that was removed is not refused.
    ///
    /// # Errors
    /// As [`Store::check_project`].
    pub async fn check_stored_project(&self, group: &GroupId) -> Result<(), StoreError> {
        let rows: Vec<OwnedRow> = urgent!(self, SEALED, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_all(pool)
            .await)?;
        match owned(rows)? {
            Some(stored) => self.check_sealed_project(&stored).await,
            None => Ok(()),
        }
    }

    async fn check_sealed_project(&self, it: &SealedProject) -> Result<(), StoreError> {
        let Seal { subject, digest: Some(digest) } = it.seal()? else { return Ok(()) };
        // What fits the log as far as it was followed is not read anew for each step; each sweep follows it.
        let seals = self.seals();
        if (seals.is_followed() && seals.fits(&subject, digest)) || self.is_sealed(&subject, digest).await? {
            return Ok(());
        }
        let why = "its rules, owners, credential, lookup or environment are not what was written there last. Put them \
                   back, or remove the project and add it again";
        Err(StoreError::tampered(&subject, why))
    }
}

impl Tx {
    /// The seal of a project after an edit; none where the edit changes nothing that it covers. What is stored now must
    /// fit: otherwise the edit would seal what somebody else wrote.
    pub(super) async fn new_seal(&mut self, it: &Project) -> Result<Vec<Seal>, StoreError> {
        let seal = SealedProject::of(it).seal()?;
        if self.sealed(&seal.subject).await? == seal.digest {
            return Ok(Vec::new());
        }
        let Some(before) = self.stored_project(&it.group_id).await? else { return Ok(Vec::new()) };
        if let Seal { subject, digest: Some(digest) } = before.seal()? {
            self.check_seal(&subject, digest).await?;
        }
        Ok(vec![seal])
    }

    async fn stored_project(&mut self, group: &GroupId) -> Result<Option<SealedProject>, StoreError> {
        let rows: Vec<OwnedRow> = each!(self, SEALED, |conn, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_all(conn)
            .await)?;
        owned(rows)
    }

    /// The owners of a project; refuses a project that is not as Keywheel wrote it.
    pub(super) async fn sealed_owners(&mut self, group: &GroupId) -> Result<Vec<String>, StoreError> {
        let Some(it) = self.stored_project(group).await? else { return Ok(Vec::new()) };
        self.check_seals(&[it.seal()?]).await?;
        Ok(it.owners)
    }

    /// Gives the seal of each project that can be read to `take`, one after the other: there may be very many.
    pub(super) async fn each_seal_of_projects(
        &mut self,
        mut take: impl FnMut(Seal) + Send,
    ) -> Result<(), StoreError> {
        let mut seal = |rows: Vec<OwnedRow>| match owned(rows)
            .and_then(|it| it.map(|it| it.seal()).transpose())
        {
            Ok(seal) => seal.into_iter().for_each(&mut take),
            Err(error) => tracing::error!(error = %error, "a project cannot be read, so it is not sealed"),
        };
        each!(self, ALL_SEALED, |conn, text| {
            let mut rows = sqlx::query_as::<_, OwnedRow>(text).fetch(conn);
            let mut of_one: Vec<OwnedRow> = Vec::new();
            while let Some(next) = rows.try_next().await? {
                if of_one.first().is_some_and(|it| it.row.group_id != next.row.group_id) {
                    seal(std::mem::take(&mut of_one));
                }
                of_one.push(next);
            }
            seal(of_one);
        });
        Ok(())
    }
}
