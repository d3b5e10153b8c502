//! People who sign in with an identity provider: who they are there, and what its groups gave them last.
//!
//! A row is one account at one issuer. Its name is the identity that votes: `mail:ADDRESS` where the provider has
//! verified an address, so that two providers that verify the same one mean one person. Of one issuer only one account
//! can have, or have had, a name: an address that is given to somebody else there does not take the votes of its former
//! holder with it. All but the instant of the last sign-in is sealed. Which tokens, groups and roles are right is not
//! decided here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::readable;
use super::seal::Seal;
use super::types::{Instant, instant};
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read, urgent};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::domain::vote::{self, Identity};
use crate::seal::Digest;

/// What the name of a person with a verified address begins with.
pub(super) const BY_MAIL: &str = vote::BY_MAIL;

/// The names that one account may have had. Each change of an address at the provider adds one.
const MOST_NAMES: usize = 20;

macro_rules! columns {
    () => {
        "SELECT issuer, subject, name, former, mail, roles, groups, since, given_at, seen_at FROM people "
    };
}
const BY_NAME: Sql = Sql::same(concat!(columns!(), "WHERE issuer = $1 AND name = $2"));
const ACCOUNT: Sql = Sql::same(concat!(columns!(), "WHERE issuer = $1 AND subject = $2"));
const ALL: Sql = Sql {
    sqlite: concat!(columns!(), "ORDER BY issuer, subject"),
    postgres: concat!(columns!(), "ORDER BY issuer COLLATE \"C\", subject COLLATE \"C\""),
};
const WRITE: Sql = Sql::same(
    "INSERT INTO people (issuer, subject, name, former, mail, roles, groups, since, given_at, seen_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (issuer, subject) DO UPDATE SET \
     name = $3, former = $4, mail = $5, roles = $6, groups = $7, since = $8, given_at = $9, seen_at = $10",
);
const SEEN: Sql = Sql::same("UPDATE people SET seen_at = $3 WHERE issuer = $1 AND subject = $2");
const FORGET: Sql = Sql::same("DELETE FROM people");
const COUNT: Sql = Sql::same("SELECT COUNT(*) FROM people WHERE issuer = $1 AND subject = $2");

pub(super) const STATEMENTS: &[&Sql] = &[&BY_NAME, &ACCOUNT, &ALL, &WRITE, &SEEN, &FORGET, &COUNT];

/// A person of an identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The issuer.
    pub issuer: String,
    /// What the issuer calls the account, for ever.
    pub subject: String,
    /// The identity in journal and audit log: `mail:ADDRESS`, or `oidc:PROVIDER/SUBJECT`.
    pub name: String,
    /// Its identities before, the oldest first.
    pub former: Vec<String>,
    /// The verified mail address, in lower case.
    pub mail: Option<String>,
    /// The roles that its groups give.
    pub roles: Vec<Role>,
    /// Its groups.
    pub groups: Vec<String>,
    /// When it signed in first.
    pub since: Timestamp,
    /// Since when it has a role that approves, under this name; `None` without one.
    pub given_at: Option<Timestamp>,
    /// When it signed in last.
    pub seen_at: Timestamp,
}

/// What a provider says about who signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPerson {
    /// The issuer.
    pub issuer: String,
    /// The account.
    pub subject: String,
    /// The identity.
    pub name: String,
    /// The verified mail address, in lower case.
    pub mail: Option<String>,
    /// The roles that its groups give.
    pub roles: Vec<Role>,
    /// Its groups.
    pub groups: Vec<String>,
}

/// Why somebody whom a provider vouches for is not signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonRefusal {
    /// Another account has, or had, this name.
    OtherAccount,
    /// The account has had too many names.
    TooManyNames,
}

#[derive(FromRow)]
struct PersonRow {
    issuer: String,
    subject: String,
    name: String,
    former: String,
    mail: Option<String>,
    roles: String,
    groups: String,
    since: Instant,
    given_at: Option<Instant>,
    seen_at: Instant,
}

impl TryFrom<PersonRow> for Person {
    type Error = StoreError;
    fn try_from(row: PersonRow) -> Result<Self, StoreError> {
        let bad = |column| StoreError::corrupt("people", column, &row.name);
        let roles = row.roles.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let list = |text: &str, column| serde_json::from_str(text).map_err(|_| bad(column));
        Ok(Self {
            roles: roles.map_err(|_| bad("roles"))?,
            former: list(&row.former, "former")?,
            groups: list(&row.groups, "groups")?,
            since: row.since.or(bad("since"))?,
            given_at: instant(row.given_at, || bad("given_at"))?,
            seen_at: row.seen_at.or(bad("seen_at"))?,
            issuer: row.issuer,
            subject: row.subject,
            name: row.name,
            mail: row.mail,
        })
    }
}

fn joined(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ")
}

fn approves(roles: &[Role]) -> bool {
    roles.iter().any(|role| role.includes(Role::Approver))
}

impl Person {
    /// Whether its roles approve.
    #[must_use]
    pub fn approves(&self) -> bool {
        approves(&self.roles)
    }

    /// The subject of its seal. An issuer has no `#`.
    #[must_use]
    pub fn log_subject(&self) -> String {
        format!("person/{}#{}", self.issuer, self.subject)
    }

    pub(super) fn seal(&self) -> Seal {
        let subject = self.log_subject();
        let texts = [
            self.name.clone(),
            json!(self.former).to_string(),
            joined(&self.roles),
            json!(self.groups).to_string(),
            self.since.to_string(),
        ];
        let given_at = self.given_at.map(|at| at.to_string());
        let mut fields: Vec<_> = texts.iter().map(|it| Some(it.as_str())).collect();
        fields.extend([self.mail.as_deref(), given_at.as_deref()]);
        let digest = Digest::of(&subject, &fields);
        Seal::new(subject, digest)
    }

    /// The account of somebody who was removed: it tells whose the names are, and lets nobody in.
    #[must_use]
    pub(super) fn without_roles(self) -> Self {
        Self { roles: Vec::new(), groups: Vec::new(), given_at: None, ..self }
    }

    /// Whether its person was removed. Nobody signs in without a role.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.roles.is_empty()
    }

    /// The names that it has and had.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.former.iter().chain([&self.name]).map(String::as_str)
    }

    /// What the provider says now, on top of what is known; `None` before the first sign-in.
    fn updated(before: Option<&Self>, seen: &SeenPerson, now: Timestamp) -> Self {
        let mut former = before.map_or_else(Vec::new, |it| it.former.clone());
        if let Some(before) = before.filter(|it| it.name != seen.name) {
            former.retain(|it| *it != seen.name);
            former.push(before.name.clone());
        }
        let gains = |before: &Self| {
            let groups: BTreeSet<_> = before.groups.iter().collect();
            before.name != seen.name
                || approves(&seen.roles) && !approves(&before.roles)
                || seen.groups.iter().any(|group| !groups.contains(group))
        };
        let kept = before.filter(|it| !gains(it)).and_then(|it| it.given_at);
        Self {
            issuer: seen.issuer.clone(),
            subject: seen.subject.clone(),
            name: seen.name.clone(),
            former,
            mail: seen.mail.clone(),
            roles: seen.roles.clone(),
            groups: seen.groups.clone(),
            // Who comes back after a removal begins anew.
            since: before.filter(|it| !it.is_removed()).map_or(now, |it| it.since),
            given_at: Some(kept.unwrap_or(now)),
            seen_at: now,
        }
    }
}

fn identity(it: &Person, issuers: &BTreeSet<String>) -> Identity {
    let own = |name: &String| name.strip_prefix("mail:").unwrap_or(name).to_owned();
    let is_known = issuers.contains(&it.issuer);
    Identity {
        may_approve: is_known && approves(&it.roles),
        person: Some(own(&it.name)),
        former: it.former.iter().map(own).collect(),
        made_by: None,
        given_at: it.given_at,
        given_by: None,
        groups: if is_known { it.groups.iter().cloned().collect() } else { BTreeSet::new() },
    }
}

/// The identities of these people, by name. Who has accounts at several configured providers has the roles of all, and
/// the latest of the instants from which they count; a former name approves nothing, and stays the same person.
pub(super) fn identities(people: &[&Person], issuers: &BTreeSet<String>) -> BTreeMap<String, Identity> {
    let mut found: BTreeMap<String, Identity> = BTreeMap::new();
    // A present name says more about its holder than a former one.
    for it in people {
        let identity = identity(it, issuers);
        found.entry(it.name.clone()).and_modify(|it| it.join(identity.clone())).or_insert(identity);
    }
    for it in people {
        for name in &it.former {
            let identity = Identity { may_approve: false, groups: BTreeSet::new(), ..identity(it, issuers) };
            found.entry(name.clone()).and_modify(|it| it.join(identity.clone())).or_insert(identity);
        }
    }
    found
}

/// The addresses in lower case, and names, that accounts had before and none has now.
pub(super) fn former_addresses<'a>(people: impl Iterator<Item = &'a Person> + Clone) -> BTreeSet<String> {
    let own = |name: &String| name.strip_prefix(BY_MAIL).unwrap_or(name).to_ascii_lowercase();
    let mut former: BTreeSet<String> = people.clone().flat_map(|it| it.former.iter().map(own)).collect();
    for it in people {
        former.remove(&own(&it.name));
    }
    former
}

impl Store {
    /// Writes down what a provider says about who signs in, with an audit row and the messages about it where that is new.
    /// `before` is what was known when they were written. The sessions and the feed of a former name end.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when something else is known meanwhile; fails when the database cannot be written, and with [`StoreError::Tampered`] when what is known of the person is
    /// not what Keywheel wrote.
    pub async fn sign_in_person(
        &self,
        seen: &SeenPerson,
        before: Option<&Person>,
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<Result<Person, PersonRefusal>, StoreError> {
        let args = (seen.clone(), before.cloned(), outbox.to_vec());
        self.transact("person.sign_in", Lane::Command, args, move |tx, (seen, before, outbox), unsure| {
            Box::pin(async move { tx.sign_in_person((seen, before.as_ref()), outbox, now, unsure).await })
        })
        .await
    }

    /// What the table says about an account.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn account(&self, issuer: &str, subject: &str) -> Result<Option<Person>, StoreError> {
        let row: Option<PersonRow> = read!(self, ACCOUNT, |pool, text| sqlx::query_as(text)
            .bind(issuer)
            .bind(subject)
            .fetch_optional(pool)
            .await)?;
        row.map(Person::try_from).transpose()
    }

    /// The addresses in lower case that accounts had before, and none has now.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn former_addresses(&self) -> Result<BTreeSet<String>, StoreError> {
        Ok(former_addresses(self.people().await?.iter()))
    }

    /// The person of this name at an issuer. A row that Keywheel did not write does not count.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn person(&self, issuer: &str, name: &str) -> Result<Option<Person>, StoreError> {
        let row: Option<PersonRow> = read!(self, BY_NAME, |pool, text| sqlx::query_as(text)
            .bind(issuer)
            .bind(name)
            .fetch_optional(pool)
            .await)?;
        let Some(person) = row.map(Person::try_from).transpose()?.filter(|it| !it.is_removed()) else {
            return Ok(None);
        };
        let Seal { subject, digest: Some(digest) } = person.seal() else { return Ok(None) };
        if self.is_sealed(&subject, digest).await? {
            return Ok(Some(person));
        }
        tracing::error!(person = person.name, "a person is not as Keywheel wrote it; it is signed out");
        Ok(None)
    }

    /// Everybody who has signed in with an identity provider, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let rows: Vec<PersonRow> =
            urgent!(self, ALL, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(Person::try_from))
    }
}

impl Tx {
    async fn sign_in_person(
        &mut self,
        (seen, expected): (&SeenPerson, Option<&Person>),
        outbox: &[NewOutbox],
        now: Timestamp,
        unsure: bool,
    ) -> Result<Result<Person, PersonRefusal>, StoreError> {
        // Nobody removes the person meanwhile.
        self.audit_head().await?;
        let people = self.people().await?;
        let own = |it: &&Person| it.issuer == seen.issuer && it.subject == seen.subject;
        let before = people.iter().find(own);
        // Names without an address carry the provider's name, which another issuer may have had before.
        let is_shared = seen.name.starts_with("mail:");
        let others = people.iter().filter(|it| !own(it) && (it.issuer == seen.issuer || !is_shared));
        if others.into_iter().any(|it| it.names().any(|name| name == seen.name)) {
            return Ok(Err(PersonRefusal::OtherAccount));
        }
        let after = Person::updated(before, seen, now);
        let same = |it: Option<&Person>, other: Option<&Person>| {
            let without = |it: Option<&Person>| it.map(|it| Person { seen_at: now, ..it.clone() });
            without(it) == without(other)
        };
        // An attempt whose answer was lost has written this already.
        let is_expected = same(before, expected) || unsure && same(before, Some(&after));
        if !is_expected {
            return Err(StoreError::Conflict);
        }
        if after.former.len() > MOST_NAMES {
            return Ok(Err(PersonRefusal::TooManyNames));
        }
        // A row that somebody removed, too, is not written anew as if it had never been there.
        let known = before.map_or_else(|| Seal::end(after.log_subject()), Person::seal);
        self.check_seals(&[known]).await?;
        if before.is_some_and(|it| Person { seen_at: now, ..it.clone() } == after) {
            each!(self, SEEN, |conn, text| sqlx::query(text)
                .bind(seen.issuer.as_str())
                .bind(seen.subject.as_str())
                .bind(now)
                .execute(conn)
                .await
                .map(drop))?;
            return Ok(Ok(after));
        }
        self.write_person(&after).await?;
        for name in after.names() {
            self.wake_voted(name, now).await?;
        }
        let mut seals = vec![after.seal()];
        if let Some(left) = before.map(|it| &it.name).filter(|name| **name != after.name) {
            seals.extend(self.end_web_sessions_of(left, &format!("person/{left}"), now).await?);
            self.end_feed(left, now).await?;
        }
        self.write_outbox(outbox, now).await?;
        let described =
            |it: &Person| json!({ "name": it.name, "mail": it.mail, "roles": it.roles, "groups": it.groups });
        let audit = NewAudit {
            actor: after.name.clone(),
            action: "person.signed_in".to_owned(),
            subject: format!("person/{}", after.name),
            detail: json!({
                "issuer": after.issuer, "subject": after.subject, "now": described(&after),
                "before": before.map(described), "givenAt": after.given_at,
            })
            .to_string(),
        };
        self.append_sealing(std::slice::from_ref(&audit), seals, now).await?;
        Ok(Ok(after))
    }

    pub(super) async fn write_person(&mut self, it: &Person) -> Result<(), StoreError> {
        each!(self, WRITE, |conn, text| sqlx::query(text)
            .bind(it.issuer.as_str())
            .bind(it.subject.as_str())
            .bind(it.name.as_str())
            .bind(json!(it.former).to_string())
            .bind(it.mail.as_deref())
            .bind(joined(&it.roles))
            .bind(json!(it.groups).to_string())
            .bind(it.since)
            .bind(it.given_at)
            .bind(it.seen_at)
            .execute(conn)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Everybody, without those that cannot be read.
    pub(super) async fn people(&mut self) -> Result<Vec<Person>, StoreError> {
        let rows: Vec<PersonRow> = each!(self, ALL, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        readable(rows.into_iter().map(Person::try_from))
    }

    /// The seals of everybody.
    pub(super) async fn seals_of_people(&mut self) -> Result<Vec<Seal>, StoreError> {
        Ok(self.people().await?.iter().map(Person::seal).collect())
    }

    /// Forgets everybody: the next sign-in describes each anew. Returns the seals that say so.
    pub(super) async fn forget_people(&mut self) -> Result<Vec<Seal>, StoreError> {
        let all = self.people().await?;
        each!(self, FORGET, |conn, text| sqlx::query(text).execute(conn).await.map(drop))?;
        Ok(all.iter().map(|it| Seal::end(it.log_subject())).collect())
    }

    /// Whether the row of a sealed person is there, whatever it says.
    pub(super) async fn is_person_there(&mut self, of: &str) -> Result<bool, StoreError> {
        let Some((issuer, subject)) = of.split_once('#') else { return Ok(false) };
        let (found,): (i64,) = each!(self, COUNT, |conn, text| sqlx::query_as(text)
            .bind(issuer)
            .bind(subject)
            .fetch_one(conn)
            .await)?;
        Ok(found > 0)
    }
}
