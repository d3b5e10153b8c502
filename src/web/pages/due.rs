//! The due list: projects by when their key is to be replaced, filtered and paged in SQL.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::age::{Age, age};
use super::moment::{Moment, moment};
use super::parts::short;
use super::project::state;
use super::word::Word;
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::policy::Policy;
use crate::domain::project::Project;
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::domain::time::{Span, Timestamp};
use crate::store::{DueFilter, FleetCounts, StoreError};

/// Projects of a page.
pub(super) const PAGE: usize = 50;

/// The choices of a filter: value and text.
type Choices = &'static [(&'static str, &'static str)];

const DUE: Choices = &[
    ("30", "overdue or in 30 days"),
    ("overdue", "overdue"),
    ("7", "overdue or in 7 days"),
    ("90", "overdue or in 90 days"),
    ("any", "at any time"),
];
const PROVIDERS: Choices = &[("", "any"), ("AWS", "AWS KMS"), ("AZURE", "Key Vault"), ("GCP", "Cloud KMS")];
const OWNERS: Choices = &[("", "any"), ("none", "no owner")];
const STATES: Choices = &[
    ("", "any"),
    ("not_started", "no rotation is open"),
    ("awaiting_approval", "waits for approvals"),
    ("in_flight", "in flight"),
    ("needs_operator", "needs an operator"),
    ("drifted", "drifted"),
    ("invalid", "key invalid"),
    ("unreachable", "unreachable"),
];

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Asked {
    words: String,
    due: String,
    provider: String,
    environment: String,
    owner: String,
    state: String,
    page: String,
}

/// A project of the list.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) group: GroupId,
    pub(super) name: String,
    pub(super) word: Word,
    pub(super) due: Option<Moment>,
    /// The day until which its due date is acknowledged.
    pub(super) acknowledged: Option<Moment>,
    pub(super) age: Option<Age>,
    pub(super) service: &'static str,
    pub(super) key: String,
    pub(super) owners: String,
    pub(super) has_owner: bool,
    /// Why no new key can be proposed for it here.
    pub(super) closed: Option<&'static str>,
}

/// A field of the filter with its choices, and which of them is set.
struct Field {
    name: &'static str,
    label: &'static str,
    choices: Vec<(String, String, bool)>,
}

#[derive(Template)]
#[template(path = "due.html")]
struct DuePage {
    frame: Frame,
    form: String,
    heading: String,
    words: String,
    fields: Vec<Field>,
    set: Vec<(String, String)>,
    lines: Vec<Line>,
    first: usize,
    last: usize,
    total: u64,
    newer: Option<String>,
    older: Option<String>,
    empty: String,
    may_propose: bool,
    error: Option<&'static str>,
}

pub(super) async fn show(
    State(web): State<Web>,
    Signed(session): Signed,
    Query(asked): Query<Asked>,
) -> Response {
    listed(&web, &session, &asked, None).await
}

/// The list as a page; `error` says what is wrong with a form that was sent from it.
pub(super) async fn listed(
    web: &Web,
    session: &Session,
    asked: &Asked,
    error: Option<&'static str>,
) -> Response {
    let status = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    match shown(web, session, asked, error).await {
        Ok(it) => page(status, &it),
        Err(problem) => Trouble::new(problem, web, Some(session)).into_response(),
    }
}

/// Checks a choice of the filter; an empty one is the first.
fn chosen<'a>(name: &str, value: &'a str, choices: &'a [(&'a str, &'a str)]) -> Result<&'a str, Problem> {
    if value.is_empty() {
        return Ok(choices.first().map_or("", |(value, _)| value));
    }
    let known = choices.iter().find(|(it, _)| *it == value).map(|(it, _)| *it);
    known.ok_or_else(|| Problem::invalid(name, "it takes one of the choices of the list"))
}

fn filter(asked: &Asked, now: Timestamp) -> Result<DueFilter, Problem> {
    let days = match chosen("due", &asked.due, DUE)? {
        "overdue" => Some(0),
        "7" => Some(7),
        "90" => Some(90),
        "any" => None,
        _ => Some(30),
    };
    let provider = match chosen("provider", &asked.provider, PROVIDERS)? {
        "AWS" => Some(Provider::Aws),
        "AZURE" => Some(Provider::Azure),
        "GCP" => Some(Provider::Gcp),
        _ => None,
    };
    Ok(DueFilter {
        words: asked.words.trim().to_lowercase(),
        until: days.map(|days| now + Span::from_days(days).get()),
        provider,
        environment: asked.environment.clone(),
        without_owner: chosen("owner", &asked.owner, OWNERS)? == "none",
        state: chosen("state", &asked.state, STATES)?.to_owned(),
    })
}

/// The address of the list with these filters.
fn address(asked: &Asked) -> String {
    let fields = [
        ("words", &asked.words),
        ("due", &asked.due),
        ("provider", &asked.provider),
        ("environment", &asked.environment),
        ("owner", &asked.owner),
        ("state", &asked.state),
        ("page", &asked.page),
    ];
    super::address("/due", fields.into_iter().map(|(name, value)| (name, value.as_str())))
}

fn fields(asked: &Asked, environments: Vec<String>) -> Vec<Field> {
    let field = |name, label, choices: Choices, set: &str| Field {
        name,
        label,
        choices: choices
            .iter()
            .map(|(it, text)| ((*it).to_owned(), (*text).to_owned(), *it == set))
            .collect(),
    };
    let any = (String::new(), "any".to_owned(), asked.environment.is_empty());
    let tags = environments.into_iter().map(|tag| {
        let is_set = tag == asked.environment;
        (tag.clone(), visible(&tag), is_set)
    });
    vec![
        field("due", "Due", DUE, &asked.due),
        field("state", "State", STATES, &asked.state),
        field("provider", "Provider", PROVIDERS, &asked.provider),
        Field { name: "environment", label: "Environment", choices: [any].into_iter().chain(tags).collect() },
        field("owner", "Owner", OWNERS, &asked.owner),
    ]
}

/// The filters that are set, each with the address without it.
fn set(asked: &Asked) -> Vec<(String, String)> {
    let mut set = Vec::new();
    let mut add = |text: String, without: fn(&mut Asked)| {
        let mut rest = Asked { page: String::new(), ..asked.clone() };
        without(&mut rest);
        set.push((text, address(&rest)));
    };
    let text = |choices: Choices, value: &str| {
        choices.iter().find(|(it, _)| *it == value).map_or(String::new(), |(_, text)| (*text).to_owned())
    };
    if !asked.words.trim().is_empty() {
        add(format!("“{}”", visible(asked.words.trim())), |it| it.words.clear());
    }
    if !asked.due.is_empty() && asked.due != "30" {
        add(format!("due {}", text(DUE, &asked.due)), |it| it.due.clear());
    }
    if !asked.state.is_empty() {
        add(text(STATES, &asked.state), |it| it.state.clear());
    }
    if !asked.provider.is_empty() {
        add(text(PROVIDERS, &asked.provider), |it| it.provider.clear());
    }
    if !asked.environment.is_empty() {
        add(format!("environment {}", visible(&asked.environment)), |it| it.environment.clear());
    }
    if !asked.owner.is_empty() {
        add(text(OWNERS, &asked.owner), |it| it.owner.clear());
    }
    set
}

/// A project as lists show it.
pub(super) fn line(project: &Project, defaults: &Policy, now: Timestamp) -> Line {
    let closed = if project.open_rotation.is_some() {
        Some("a rotation is open")
    } else if project.current_key.is_none() {
        Some("Atlas shows no key")
    } else if project.kms.is_none() {
        Some("no lookup is set for this project")
    } else {
        None
    };
    Line {
        group: project.group_id.clone(),
        name: visible(&project.name),
        word: state(project, defaults, now),
        due: project.due(defaults).map(|at| moment(at, now)),
        acknowledged: project.acknowledged(defaults, now).map(|it| moment(it.until, now)),
        age: age(project, defaults, &[], now),
        service: project.provider.map_or("unknown", Provider::service),
        key: project.current_key.as_ref().map_or_else(|| "none".to_owned(), short),
        owners: visible(&project.owners.join(", ")),
        has_owner: !project.owners.is_empty(),
        closed,
    }
}

fn keys(count: i64) -> String {
    if count == 1 { "1 key".to_owned() } else { format!("{count} keys") }
}

fn heading(counts: &FleetCounts) -> String {
    let soon = counts.in_30;
    match (counts.overdue, soon) {
        (0, 0) => "Nothing is due in 30 days".to_owned(),
        (0, _) => format!("{} due in 30 days", keys(soon)),
        (1, _) => format!("1 key is overdue, {soon} due in 30 days"),
        (overdue, _) => format!("{} are overdue, {soon} due in 30 days", keys(overdue)),
    }
}

/// Why the list is empty.
async fn empty(web: &Web, has_filter: bool, counts: &FleetCounts) -> Result<String, StoreError> {
    if counts.projects == 0 {
        return Ok("Keywheel watches no project yet.".to_owned());
    }
    if has_filter {
        return Ok("No project fits. Remove a filter.".to_owned());
    }
    let engine = &web.engine;
    let interval = engine.settings.policy.interval;
    let next = engine.store.due_list(&DueFilter::default(), interval, 0, 1).await?;
    let next = next.projects.first().and_then(|it| Some((it, it.due(&engine.settings.policy)?)));
    Ok(match next {
        Some((it, due)) => {
            let due = moment(due, engine.clock.now());
            format!(
                "Nothing is due in 30 days. The next is {}, {} ({}).",
                visible(&it.name),
                due.relative,
                due.absolute
            )
        }
        None => "No project has a due date yet.".to_owned(),
    })
}

async fn shown(
    web: &Web,
    session: &Session,
    asked: &Asked,
    error: Option<&'static str>,
) -> Result<DuePage, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let defaults = &engine.settings.policy;
    let number = super::page_number(&asked.page)?;
    let skip = (number - 1) * PAGE;
    let filter = filter(asked, now)?;
    let (counts, listed) = tokio::try_join!(
        engine.store.fleet_counts(defaults.interval, now),
        engine.store.due_list(&filter, defaults.interval, skip, PAGE),
    )?;
    let other = |number: usize| address(&Asked { page: number.to_string(), ..asked.clone() });
    let set = set(asked);
    let is_last = u64::try_from(skip + PAGE).unwrap_or(u64::MAX) >= listed.total;
    let empty = match (listed.projects.is_empty(), number) {
        (false, _) => String::new(),
        (true, 1) => empty(web, !set.is_empty(), &counts).await?,
        (true, _) => format!("The list has no page {number}."),
    };
    Ok(DuePage {
        frame: Frame::counted(web, session, Here::Due, &counts),
        form: session.form(),
        heading: heading(&counts),
        words: asked.words.clone(),
        fields: fields(asked, engine.store.environments().await?),
        set,
        first: skip + 1,
        last: skip + listed.projects.len(),
        newer: (number > 1).then(|| other(number - 1)),
        older: (!is_last && !listed.projects.is_empty()).then(|| other(number + 1)),
        empty,
        lines: listed.projects.iter().map(|it| line(it, defaults, now)).collect(),
        total: listed.total,
        may_propose: session.caller.must_be(Role::Operator).is_ok(),
        error,
    })
}
