//! Tokens: made, given to other people or roles, and revoked, each with its notice.

use serde_json::{Value, json};

use super::super::Engine;
use super::super::authority::{plain, rows};
use super::{Actor, CommandError};
use crate::domain::loosening::{Change, Course};
use crate::domain::notice::{Authority, Kind};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::mail::is_address;
use crate::store::{Loosening, NewAudit, NewOutbox, Token};

/// The changes of a token; `None` leaves a part as it is.
#[derive(Clone, Debug, Default)]
pub struct TokenEdit {
    /// Its roles.
    pub roles: Option<Vec<Role>>,
    /// The mail address of its person.
    pub person: Option<String>,
}

/// A token after an edit.
#[derive(Clone, Debug)]
pub struct EditedToken {
    /// As it is now.
    pub token: Token,
    /// The change of its person that takes effect later.
    pub to_come: Option<Loosening>,
}

impl Engine {
    /// Stores a new token of this hash, which `by` made for `person`.
    ///
    /// # Errors
    /// Fails when the name is taken or a part is not valid, and when the database cannot be written.
    pub async fn create_token(
        &self,
        by: &str,
        (name, hash): (&str, &str),
        roles: &[Role],
        person: Option<&str>,
    ) -> Result<(), CommandError> {
        check_person(person)?;
        let now = self.clock.now();
        let changes =
            vec![change("roles", Value::Null, json!(roles)), change("person", Value::Null, json!(person))];
        let detail = json!({ "roles": roles, "person": person, "givenAt": now, "givenBy": by });
        let audit = [record(by, "token.created", name, &detail)];
        let outbox = self.token_rows(Kind::TokenCreated, (by, name), changes, now);
        self.store
            .insert_given_token((name, hash), roles, (Some(by), person), (&audit, &outbox), now)
            .await?;
        Ok(())
    }

    /// Gives a token other roles or another person. What it may newly do counts in votes only after a delay. The person of a
    /// token that has one changes later: that is a loosening.
    ///
    /// # Errors
    /// Fails when no token of this name is in force or a part is not valid, and when the database cannot be written.
    pub async fn edit_token(
        &self,
        by: Actor<'_>,
        name: &str,
        mut edit: TokenEdit,
    ) -> Result<EditedToken, CommandError> {
        check_person(edit.person.as_deref())?;
        let before = self.store.token(name).await?.filter(|it| it.revoked_at.is_none());
        let before = before.ok_or_else(|| CommandError::NoToken(name.to_owned()))?;
        let is_other = |to: &String| before.person.as_ref().is_some_and(|it| !it.eq_ignore_ascii_case(to));
        let to = edit.person.take_if(|to| is_other(to));
        let token = self.edit_at_once(by.name, before, edit).await?;
        let to_come = match (&token.person, to) {
            (Some(from), Some(to)) => {
                let it = self.separate(by, &format!("token/{name}"), from, Some(&to)).await?;
                Some(it).filter(|it| it.state.is_pending())
            }
            _ => None,
        };
        Ok(EditedToken { token, to_come })
    }

    async fn edit_at_once(&self, by: &str, before: Token, edit: TokenEdit) -> Result<Token, CommandError> {
        let name = before.name.as_str();
        let now = self.clock.now();
        let mut after = before.clone();
        after.roles = edit.roles.unwrap_or(after.roles);
        after.person = edit.person.or(after.person);
        let approves = |it: &Token| it.roles.iter().any(|role| role.includes(Role::Approver));
        if before.person != after.person || (approves(&after) && !approves(&before)) {
            (after.given_at, after.given_by) = (now, Some(by.to_owned()));
        }
        let mut changes = Vec::new();
        if before.roles != after.roles {
            changes.push(change("roles", json!(before.roles), json!(after.roles)));
        }
        if before.person != after.person {
            changes.push(change("person", json!(before.person), json!(after.person)));
        }
        if changes.is_empty() {
            return Ok(before);
        }
        let detail = json!({
            "roles": after.roles, "person": after.person, "givenAt": after.given_at, "givenBy": after.given_by,
            "changes": changes,
        });
        let audit = [record(by, "token.edited", name, &detail)];
        let outbox = self.token_rows(Kind::TokenRoles, (by, name), changes, now);
        self.store.edit_token(&before, &after, (&audit, &outbox), now).await?;
        Ok(after)
    }

    /// Revokes a token; returns whether one was in force.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn revoke_token(&self, by: &str, name: &str) -> Result<bool, CommandError> {
        let Some(token) = self.store.token(name).await? else { return Ok(false) };
        let now = self.clock.now();
        let detail = json!({ "roles": token.roles, "person": token.person, "revokedAt": now });
        let audit = [record(by, "token.revoked", name, &detail)];
        let changes = vec![change("roles", json!(token.roles), Value::Null)];
        let outbox = self.token_rows(Kind::TokenRevoked, (by, name), changes, now);
        Ok(self.store.revoke_told_token(name, (&audit, &outbox), now).await?)
    }

    /// The messages to `mail.security`.
    fn token_rows(
        &self,
        kind: Kind,
        (by, name): (&str, &str),
        changes: Vec<Change>,
        now: Timestamp,
    ) -> Vec<NewOutbox> {
        let facts = Authority { changes, ..plain(kind, format!("token/{name}"), by, now) };
        rows(self, &format!("token/{name}/{kind}/{}", now.as_micros()), facts, &self.settings.security, now)
    }
}

fn change(field: &str, from: Value, to: Value) -> Change {
    Change { field: field.to_owned(), course: Course::Looser, from, to }
}

fn check_person(person: Option<&str>) -> Result<(), CommandError> {
    match person.filter(|it| !is_address(it)) {
        Some(bad) => {
            let rule = format!("{bad:?} is not a mail address such as ada@example.com");
            Err(CommandError::Invalid { field: "person", rule })
        }
        None => Ok(()),
    }
}

fn record(by: &str, action: &str, name: &str, detail: &Value) -> NewAudit {
    NewAudit {
        actor: by.to_owned(),
        action: action.to_owned(),
        subject: format!("token/{name}"),
        detail: detail.to_string(),
    }
}
