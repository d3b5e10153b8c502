//! Messages that leave late: whether what they say is still so.
//!
//! A message may wait for a silence, for a mail server or for a target, and its condition may end or begin anew
//! meanwhile. What no longer helps is not sent, and its row says why.

use super::Engine;
use crate::domain::condition::parts_of_id;
use crate::domain::notice::{Content, Notice, Reminder};
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;
use crate::store::{OutboxRow, RotationRow, StoreError};

/// Whether a notice is still true of its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is, or it tells no condition.
    Current,
    /// It tells a start or a repetition, and the condition has ended.
    Over,
    /// It tells an end, and the condition holds again.
    HoldsAgain,
}

/// Whether `notice`, written at `at`, is still true.
pub(super) async fn standing(
    engine: &Engine,
    notice: &Notice,
    at: Timestamp,
) -> Result<Standing, StoreError> {
    let told = notice.condition();
    let Some((told, (subject, kind))) = told.and_then(|told| Some((told, parts_of_id(told.id)?))) else {
        return Ok(Standing::Current);
    };
    let starts = engine.store.starts_of_condition(subject, kind, at).await?;
    let mut holding = starts.iter().filter(|it| it.ended_at.is_none());
    Ok(match told.over_at {
        // One that was not told anew has no end of its own.
        Some(_) if holding.any(|it| it.told > 0) => Standing::HoldsAgain,
        // The first page of a rotation is written before its condition.
        None if !starts.is_empty() && holding.next().is_none() => Standing::Over,
        _ => Standing::Current,
    })
}

/// Whether a mail leaves now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It does.
    Now,
    /// Not before this instant: its project is silenced.
    At(Timestamp, String),
    /// It does not, for this reason.
    Never(&'static str),
}

/// Whether each of these due dates has gone: the key was replaced, the date moved, or its project is not tracked any more.
async fn all_are_over(engine: &Engine, reminders: &[Reminder]) -> Result<bool, StoreError> {
    let groups: Vec<_> = reminders.iter().map(|it| it.group_id.clone()).collect();
    let projects = engine.store.projects_of(&groups).await?;
    let holds = |it: &Reminder| {
        let project = projects.iter().find(|project| project.group_id == it.group_id);
        project.is_some_and(|project| project.due(&engine.settings.policy) == Some(it.due))
    };
    Ok(!reminders.iter().any(holds))
}

/// Whether the mail `row` leaves at `now`. A condition that ended before its start could leave is told by its end
/// alone; and of repetitions that wait, the last leaves. What began and ended within a silence is not mailed at all.
pub(super) async fn leave(
    engine: &Engine,
    row: &OutboxRow,
    content: &Content,
    now: Timestamp,
) -> Result<Leave, StoreError> {
    let reminders = match &content.notice {
        Notice::Reminder(it) => std::slice::from_ref(it),
        Notice::ReminderDigest(it) => &it.items,
        _ => &[],
    };
    if !reminders.is_empty() && all_are_over(engine, reminders).await? {
        return Ok(Leave::Never("not sent: no date that it tells was still due when it could leave"));
    }
    // A list of reminders concerns several projects.
    let Some(group) = content.notice.about().project else { return Ok(Leave::Now) };
    let silence = engine.store.silence(group).await?;
    if let Some(silence) = silence.as_ref().filter(|it| it.lasts(now)) {
        let said = format!("silenced until {} by {}", silence.ends_at, silence.by);
        return Ok(Leave::At(silence.ends_at, said));
    }
    // One that ended before the mail was written decides nothing, nor one from a clock that was wrong.
    let silence = silence.filter(|it| row.created_at < it.ends_at && it.ends_at <= now);
    if let Notice::ApprovalRequested(it) = &content.notice {
        let row = engine.store.rotation(it.rotation.rotation_id).await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "a rotation cannot be read; the request to approve it is mailed all the same");
            None
        });
        // A vote on an approved one may be taken back or become void, and nobody would be asked again.
        let waits =
            |row: RotationRow| matches!(row.rotation.state, State::AwaitingApproval | State::Approved);
        return Ok(if row.is_none_or(waits) {
            Leave::Now
        } else {
            Leave::Never("not sent: it was decided before the mail could leave")
        });
    }
    let Some(told) = content.notice.condition() else { return Ok(Leave::Now) };
    let standing = standing(engine, &content.notice, row.created_at).await?;
    // Two alarms about one project, or two findings, may say different things.
    let is_repeated = !matches!(content.notice, Notice::KeyAlarm(_) | Notice::Drifted(_));
    Ok(match (standing, told.over_at, silence) {
        (Standing::Over, _, Some(_)) => Leave::Never("not sent: it ended while the project was silenced"),
        (Standing::Over, _, None) => {
            Leave::Never("not sent: it was over before it could leave; the mail about its end says so")
        }
        // A page goes before its end: sent after it, the end of what was before would calm.
        (Standing::HoldsAgain, ..) => Leave::Never("not sent: it holds again; a later mail says so"),
        (Standing::Current, Some(_), Some(silence))
            if told.since.is_some_and(|since| since >= silence.began_at) =>
        {
            Leave::Never("not sent: it began and ended while the project was silenced")
        }
        (Standing::Current, None, _) if is_repeated && engine.store.has_later_mail(row).await? => {
            Leave::Never("not sent: it was repeated before it could leave; the last mail says the same")
        }
        (Standing::Current, ..) => Leave::Now,
    })
}
