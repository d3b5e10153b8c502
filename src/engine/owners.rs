//! What people hear when they become owners of a project, or cease to be.
//!
//! The owners of a project hear the start of a condition and its end. Somebody who joins in between has missed the
//! start, and somebody who leaves would wait for an end in vain.

use super::Engine;
use super::announce::{News, content};
use super::conditions;
use crate::domain::condition::condition_id;
use crate::domain::notice::{Content, Kind, NO_LONGER_OWNER};
use crate::domain::project::Project;
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::store::{Channel, NewOutbox, StoreError};

/// The mails to those who are owners in only one of `before` and `after`: what was told and holds on, as it was told
/// last, and its end.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn changed(
    engine: &Engine,
    before: &Project,
    after: &Project,
    now: Timestamp,
) -> Result<Vec<NewOutbox>, StoreError> {
    let only_in = |one: &Project, other: &Project| -> Vec<String> {
        one.owners.iter().filter(|mail| !other.owners.contains(mail)).cloned().collect()
    };
    let (joined, left) = (only_in(after, before), only_in(before, after));
    let mut messages = Vec::new();
    if joined.is_empty() && left.is_empty() {
        return Ok(messages);
    }
    let subject = Subject::from(&after.group_id);
    for row in engine.store.conditions_of(&subject, &subject).await?.iter().filter(|row| row.told > 0) {
        let id = condition_id(&subject, row.kind);
        let mut say = |content: Content, what: &str, people: &[String]| {
            let news = News {
                identity: format!("{id}/{}/{what}/{now}", row.since),
                subject: subject.clone(),
                content,
            };
            let mails = news.rows(engine, people, now).into_iter();
            messages.extend(mails.filter(|it| it.channel == Channel::Mail && people.contains(&it.recipient)));
        };
        if let Some(start) = Kind::of_condition(row.kind, false)
            && !joined.is_empty()
        {
            let told = engine.store.last_mails(start, &after.group_id).await?;
            // An alarm about a key that served before is one of no condition.
            let of_this = |it: &Content| it.notice.condition().is_some_and(|told| told.id == id);
            if let Some(last) = told.into_iter().find(of_this) {
                say(last, "joined", &joined);
            }
        }
        if let Some(end) = Kind::of_condition(row.kind, true)
            && !left.is_empty()
        {
            let why = Some(NO_LONGER_OWNER.to_owned());
            let over = conditions::plain(end, Some(after), row, Some(now), why, None);
            say(content(&engine.settings, over), "left", &left);
        }
    }
    Ok(messages)
}
