//! One project: its key, why its state is what it is, its keys so far, its rotations, and who hears of it.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::problem::Problem;
use super::age::{Age, age};
use super::moment::{Moment, day, moment};
use super::parts::{listed, short};
use super::word::{self, Word};
use super::{Frame, Here, Session, Signed, Trouble, Web, onward, page};
use crate::domain::condition::{ConditionKind, Telling};
use crate::domain::escalation::Escalation;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Provider};
use crate::domain::policy::{Policy, Window};
use crate::domain::project::{Project, SinceSource};
use crate::domain::reminder;
use crate::domain::role::Role;
use crate::domain::rotation::state::State as RotationState;
use crate::domain::text::visible;
use crate::domain::time::{DayOffset, Timestamp};
use crate::engine::command::CommandError;
use crate::store::{ConditionRow, KeySpan, RotationRow};

/// Rotations of the history.
const ROTATIONS: usize = 20;

/// Mails that are announced.
const MAILS: usize = 3;

/// A key that serves or served.
struct Served {
    key: String,
    whole: String,
    since: String,
    until: Option<String>,
    source: &'static str,
}

/// A rotation of the history.
struct Past {
    id: RotationId,
    day: String,
    word: Word,
    old: String,
    new: String,
    by: String,
    happened: String,
}

/// A rule, and whether it is the project's own.
struct Rule {
    name: &'static str,
    value: String,
    is_own: bool,
}

/// A condition that holds.
struct Holding {
    kind: &'static str,
    name: String,
    cause: String,
    since: Moment,
    /// When people are paged again.
    again: Option<Moment>,
    can_acknowledge: bool,
    acknowledged: Option<(String, Moment)>,
}

/// An acknowledgement.
#[derive(Debug, Deserialize)]
pub(super) struct Given {
    form: String,
    kind: String,
    #[serde(default)]
    comment: String,
}

/// The one thing to do.
struct Action {
    to: String,
    text: &'static str,
}

#[derive(Template)]
#[template(path = "project.html")]
struct ProjectPage {
    frame: Frame,
    group: GroupId,
    name: String,
    word: Word,
    about: String,
    action: Option<Action>,
    no_action: Option<&'static str>,
    on_record: Option<String>,
    parts: Vec<(&'static str, String)>,
    key: Option<String>,
    age: Option<Age>,
    since: Option<String>,
    due: Option<Moment>,
    read: Option<Moment>,
    failed: Option<String>,
    why: Vec<String>,
    keys: Vec<Served>,
    history: Vec<Past>,
    conditions: Vec<Holding>,
    is_operator: bool,
    form: String,
    owners: Vec<String>,
    rules: Vec<Rule>,
    mails: Vec<(Moment, String)>,
    no_mails: &'static str,
}

pub(super) async fn show(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
) -> Response {
    match shown(&web, &session, &id).await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

/// The project that an address names.
///
/// # Errors
/// Fails when it names no project, or when the database cannot be read.
pub(super) async fn find(web: &Web, id: &str) -> Result<Project, Problem> {
    let group: GroupId = id.parse().map_err(CommandError::from)?;
    Ok(web.engine.store.project(&group).await?.ok_or(CommandError::NoProject(group))?)
}

/// What a project's state is called: the rotation's own word while one is open.
pub(super) fn state(project: &Project, defaults: &Policy, now: Timestamp) -> Word {
    use crate::domain::project::Status;
    match (project.status(defaults, now), project.open_rotation) {
        (Status::Rotating, Some(open)) => word::state(open.state),
        (status, _) => word::status(status),
    }
}

async fn shown(web: &Web, session: &Session, id: &str) -> Result<ProjectPage, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let (project, defaults) = (find(web, id).await?, &engine.settings.policy);
    let why = engine.why(&project).await?;
    let sent = match project.cycle(defaults) {
        Some(cycle) => engine.store.reminders(&project.group_id, &cycle).await?,
        None => Vec::new(),
    };
    let mut sent: Vec<i32> = sent.into_iter().map(|(days, _)| days).collect();
    sent.dedup();
    let keys = engine.store.list_keys(&project.group_id).await?;
    let history = engine.store.list_rotations(None, Some(&project.group_id), None, ROTATIONS).await?;
    let history: Vec<RotationRow> = history.into_iter().flatten().collect();
    let subject = (&project.group_id).into();
    let conditions = engine.store.conditions_of(&subject, &subject).await?;
    let (action, no_action) = action(&project, session);
    let mails = mails(&project, defaults, now);
    Ok(ProjectPage {
        frame: Frame::of(web, session, Here::Elsewhere).await?,
        name: visible(&project.name),
        word: state(&project, defaults, now),
        about: about(&project),
        action,
        no_action,
        on_record: on_record(&project, &history),
        parts: parts(&project),
        key: project.current_key.as_ref().map(|key| visible(&key.to_string())),
        age: age(&project, defaults, &sent, now),
        since: project.key_since.map(day),
        due: project.due(defaults).map(|at| moment(at, now)),
        read: project.last_checked_at.map(|at| moment(at, now)),
        failed: project.last_error.as_deref().map(visible),
        why: why.sentences.iter().map(|it| visible(it)).collect(),
        keys: keys.into_iter().flatten().rev().map(|it| served(&it, &project)).collect(),
        history: history.iter().map(past).collect(),
        conditions: conditions.iter().filter(|it| it.ended_at.is_none()).map(|it| holding(it, now)).collect(),
        is_operator: session.caller.must_be(Role::Operator).is_ok(),
        form: session.form(),
        owners: project.owners.iter().map(|it| visible(it)).collect(),
        rules: rules(&project, defaults),
        no_mails: match () {
            () if project.owners.is_empty() => "None: it has no owner.",
            () if project.open_rotation.is_some() => "The outcome of the open rotation, when it ends.",
            () => "None: no due date is known.",
        },
        mails,
        group: project.group_id,
    })
}

/// Stops the repetitions of a condition's page.
pub(super) async fn acknowledge(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(given): Form<Given>,
) -> Response {
    let done = async {
        session.check(&given.form)?;
        session.caller.must_be(Role::Operator)?;
        let group: GroupId = id.parse().map_err(CommandError::from)?;
        let kind: ConditionKind =
            given.kind.parse().map_err(|_| Problem::invalid("kind", "it is no condition"))?;
        let comment = Some(given.comment.trim()).filter(|it| !it.is_empty());
        web.engine.acknowledge(&session.caller.name, &group, kind, comment).await?;
        Ok::<_, Problem>(onward(&format!("/projects/{group}"), None))
    };
    done.await.unwrap_or_else(|problem| Trouble::new(problem, &web, Some(&session)).into_response())
}

fn about(project: &Project) -> String {
    let network = if project.private_networking { ", private network" } else { "" };
    let service = project.provider.map_or("provider unknown", Provider::service);
    let environment = project.environment.as_deref().map(|it| format!(" · {}", visible(it)));
    format!("{service}{network}{}", environment.unwrap_or_default())
}

fn parts(project: &Project) -> Vec<(&'static str, String)> {
    let parts = project.current_key.as_ref().map(listed).unwrap_or_default();
    parts.into_iter().map(|(label, text)| (label, visible(&text))).collect()
}

/// The button of a state, or why it has no button.
fn action(project: &Project, session: &Session) -> (Option<Action>, Option<&'static str>) {
    let may = |role| session.caller.must_be(role).is_ok();
    if let Some(open) = project.open_rotation {
        let text = match open.state {
            RotationState::AwaitingApproval => "Review the change",
            RotationState::NeedsOperator => "See what to do",
            _ => "Watch the rotation",
        };
        return (Some(Action { to: format!("/rotations/{}", open.id), text }), None);
    }
    if !may(Role::Operator) {
        return (None, Some("An operator proposes new keys; your roles do not include operator."));
    }
    if project.provider.is_none() {
        return (None, Some("Atlas was not read yet, so no key can be proposed."));
    }
    (Some(Action { to: format!("/projects/{}/propose", project.group_id), text: "Propose a new key…" }), None)
}

/// What Atlas holds while the record still names the old key.
fn on_record(project: &Project, history: &[RotationRow]) -> Option<String> {
    let open = project.open_rotation?;
    let row = history.iter().find(|row| row.rotation.id == open.id)?;
    let seen = row.rotation.observing.last.as_ref()?;
    let key = seen.key.as_ref().filter(|key| Some(*key) != project.current_key.as_ref())?;
    Some(format!("on record until the open rotation has ended; Atlas holds {}", short(key)))
}

fn served(it: &KeySpan, project: &Project) -> Served {
    let key = project.provider.map(|provider| KeyRef::observed(provider, &it.key));
    Served {
        key: key.as_ref().map_or_else(|| visible(&it.key), short),
        whole: visible(&it.key),
        since: day(it.since),
        until: it.until.map(day),
        source: match it.source {
            SinceSource::Operator => "entered by an operator",
            SinceSource::Rotation => "rotated by Keywheel",
            SinceSource::AtlasEvent => "by Atlas' event",
            SinceSource::FirstSeen => "at least since then",
        },
    }
}

fn past(row: &RotationRow) -> Past {
    let it = &row.rotation;
    let happened = it.cause.map(|cause| cause.to_string().replace('_', " ")).unwrap_or_default();
    Past {
        id: it.id,
        day: day(it.created_at),
        word: word::state(it.state),
        old: short(&it.old_key),
        new: short(&it.new_key),
        by: visible(&row.requested_by),
        happened,
    }
}

fn holding(row: &ConditionRow, now: Timestamp) -> Holding {
    let pages = row.kind.telling() == Telling::Repeated && row.told > 0;
    let acknowledged = row.acknowledged_at.zip(row.acknowledged_by.as_deref());
    Holding {
        kind: row.kind.as_str(),
        name: row.kind.as_str().replace('_', " "),
        cause: row.cause.as_deref().map(visible).unwrap_or_default(),
        since: moment(row.since, now),
        again: row.tell_at.filter(|_| pages).map(|at| moment(at, now)),
        can_acknowledge: pages && acknowledged.is_none(),
        acknowledged: acknowledged.map(|(at, by)| (visible(by), moment(at, now))),
    }
}

fn windows(all: &[Window]) -> String {
    if all.is_empty() {
        return "any time".to_owned();
    }
    let one = |it: &Window| format!("{} for {} ({})", it.cron, it.duration, it.timezone);
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn days(all: &[DayOffset]) -> String {
    all.iter().map(|it| it.days().to_string()).collect::<Vec<_>>().join(", ")
}

fn rules(project: &Project, defaults: &Policy) -> Vec<Rule> {
    let policy = project.policy(defaults);
    let own = project.policy.clone().unwrap_or_default();
    let people =
        if policy.approvals == 1 { "1 person".to_owned() } else { format!("{} people", policy.approvals) };
    let proposer = if policy.self_approval { "the proposer counts" } else { "never the proposer" };
    let by_itself = match policy.auto_approve.join(", ") {
        none if none.is_empty() => "never without a person".to_owned(),
        triggers => format!("approved without a person from {}", visible(&triggers)),
    };
    let reminders =
        format!("{} days before, {} after", days(&policy.remind_before), days(&policy.remind_overdue));
    let lookup = match (&project.kms, &project.alias) {
        (Some(name), Some(alias)) => format!("{}, alias {}", visible(name), visible(alias)),
        (Some(name), None) => visible(name),
        (None, _) => "none is set".to_owned(),
    };
    let rule = |name, value, is_own| Rule { name, value, is_own };
    vec![
        rule("Period", policy.interval.to_string(), own.interval.is_some()),
        rule(
            "Approvals",
            format!("{people}, {proposer}"),
            own.approvals.is_some() || own.self_approval.is_some(),
        ),
        rule("Windows", windows(&policy.windows), own.windows.is_some()),
        rule("By itself", by_itself, own.auto_approve.is_some()),
        rule("Reminders", reminders, own.remind_before.is_some() || own.remind_overdue.is_some()),
        rule("Copies", copies(&policy.escalate), own.escalate.is_some()),
        rule("Lookup", lookup, false),
        rule("Credential", visible(&project.credential), false),
    ]
}

fn copies(steps: &[Escalation]) -> String {
    let one =
        |it: &Escalation| format!("{} days after due to {}", it.after.days(), visible(&it.to.join(", ")));
    if steps.is_empty() {
        "nobody but the owners".to_owned()
    } else {
        steps.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// The reminders that follow when nothing changes.
fn mails(project: &Project, defaults: &Policy, now: Timestamp) -> Vec<(Moment, String)> {
    let Some(due) = project.due(defaults).filter(|_| !project.owners.is_empty()) else { return Vec::new() };
    let policy = project.policy(defaults);
    let following = |at: &Timestamp| reminder::next(&policy, due, *at);
    // Nobody is reminded before an acknowledged day.
    let from = project.acknowledged(defaults, now).map_or(now, |it| it.until);
    let days = |from: Timestamp, to: Timestamp| from.until(to).as_secs() / 86_400;
    std::iter::successors(following(&from), following)
        .take(MAILS)
        .map(|at| {
            let text = match (days(at, due), days(due, at)) {
                (0, 0) => "Due today".to_owned(),
                (1, _) => "Due in 1 day".to_owned(),
                (before @ 1.., _) => format!("Due in {before} days"),
                (_, 1) => "1 day overdue".to_owned(),
                (_, after) => format!("{after} days overdue"),
            };
            (moment(at, now), text)
        })
        .collect()
}
