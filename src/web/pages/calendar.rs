//! The year ahead as twelve months: what falls due on which day, what cannot be kept, and one form that plans earlier
//! dates for it.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, Days, Months, NaiveDate};

use super::super::problem::Problem;
use super::due;
use super::moment::{Moment, moment};
use super::project::state;
use super::word::Word;
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::day::{day_of, midnight};
use crate::domain::freeze::Freeze;
use crate::domain::ids::GroupId;
use crate::domain::plan::{Conflict, Due};
use crate::domain::policy::Policy;
use crate::domain::project::Project;
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::domain::zone::Zone;
use crate::engine::plan::{Ahead, PER_DAY};

/// Months of the page.
const MONTHS: u32 = 12;

/// Due dates of the list of the next ones.
const NEXT: usize = 9;

/// A day of a month.
struct Day {
    number: u32,
    /// The class of the cell: how many are due, freeze, conflict, window, today.
    class: String,
    /// How many are due, where that is to be read in the cell.
    count: Option<usize>,
    /// What the cell says, where it says anything.
    said: String,
    is_today: bool,
}

struct Month {
    name: String,
    due: usize,
    /// Monday to Sunday; `None` outside the month.
    weeks: Vec<Vec<Option<Day>>>,
}

/// A due date of a list.
struct Line {
    group: GroupId,
    name: String,
    due: Moment,
    owners: String,
    word: Word,
    proposed: Option<Moment>,
    why: String,
}

struct Frozen {
    name: String,
    span: String,
}

#[derive(Template)]
#[template(path = "calendar.html")]
struct CalendarPage {
    frame: Frame,
    form: String,
    heading: String,
    sentences: Vec<String>,
    title: String,
    months: Vec<Month>,
    conflicts: Vec<Line>,
    more: usize,
    conflict_title: String,
    next: Vec<Line>,
    freezes: Vec<Frozen>,
    /// The projects with the dates that are proposed for them.
    dates: Vec<(GroupId, String)>,
    button: String,
    may_propose: bool,
    /// When the person's feed was made, where one is in force.
    feed: Option<Moment>,
}

pub(super) async fn show(State(web): State<Web>, Signed(session): Signed) -> Response {
    match shown(&web, &session).await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

async fn shown(web: &Web, session: &Session) -> Result<CalendarPage, Problem> {
    let now = web.engine.clock.now();
    let today = day_of(now, Zone::UTC);
    let first = today.with_day(1).unwrap_or(today);
    let end = first.checked_add_months(Months::new(MONTHS)).unwrap_or(today);
    let days = u64::try_from((end - today).num_days()).unwrap_or(365);
    let ahead = web.engine.ahead(days, PER_DAY).await?;
    let until = midnight(end, Zone::UTC);
    let dues: Vec<&Due> = ahead.plan.dues.iter().filter(|it| it.at < until).collect();
    let next_ones = || dues.iter().copied().filter(|it| it.is_next);
    let conflicting: Vec<&Due> = next_ones().filter(|it| it.conflict.is_some()).collect();
    let mut listed: Vec<&Due> = conflicting.iter().copied().take(due::PAGE).collect();
    listed.extend(next_ones().take(NEXT));
    let groups: BTreeSet<_> = listed.iter().map(|it| ahead.projects[it.key].group_id.clone()).collect();
    let projects = web.engine.store.projects_of(&groups.into_iter().collect::<Vec<_>>()).await?;
    let defaults = &web.engine.settings.policy;
    let line = |it: &Due| {
        let group = &ahead.projects[it.key].group_id;
        projects
            .iter()
            .find(|project| project.group_id == *group)
            .map(|project| line(it, project, defaults, now))
    };
    let dates: Vec<_> = conflicting
        .iter()
        .filter_map(|it| Some((ahead.projects[it.key].group_id.clone(), it.proposed?.to_string())))
        .take(due::PAGE)
        .collect();
    let (heading, sentences, conflict_title) = told(&ahead, &dues, &conflicting);
    let freezes: Vec<&Freeze> = {
        let mut all: Vec<_> =
            ahead.defaults.policy().freezes.iter().filter(|it| it.is_ahead(now) && it.from < end).collect();
        all.sort_by_key(|it| it.from);
        all
    };
    let last = end.pred_opt().unwrap_or(end);
    Ok(CalendarPage {
        frame: Frame::of(web, session, Here::Calendar).await?,
        form: session.form(),
        heading,
        sentences,
        title: format!("{} to {}", first.format("%b %Y"), last.format("%b %Y")),
        months: months(&ahead, &dues, first, today),
        conflicts: conflicting.iter().take(due::PAGE).filter_map(|it| line(it)).collect(),
        more: conflicting.len().saturating_sub(due::PAGE),
        conflict_title,
        next: next_ones().take(NEXT).filter_map(line).collect(),
        button: button(&ahead, &conflicting, dates.len()),
        dates,
        freezes: freezes.into_iter().map(frozen).collect(),
        may_propose: session.caller.must_be(Role::Operator).is_ok(),
        feed: web.engine.feed_made(&session.caller.name).await?.map(|at| moment(at, now)),
    })
}

fn frozen(it: &Freeze) -> Frozen {
    let zone = if it.timezone == "UTC" { String::new() } else { format!(" ({})", it.timezone) };
    Frozen { name: visible(&it.name), span: format!("{} to {}{zone}", date(it.from), date(it.to)) }
}

/// A day, such as `14 Dec 2026`.
fn date(day: NaiveDate) -> String {
    day.format("%-d %b %Y").to_string()
}

fn line(due: &Due, project: &Project, defaults: &Policy, now: Timestamp) -> Line {
    let owners = visible(&project.owners.join(", "));
    let why = match &due.conflict {
        None => String::new(),
        Some(Conflict::Freeze(name)) => format!("inside the freeze {}", visible(name)),
        Some(Conflict::NoWindow) => "no window opens before it".to_owned(),
        Some(Conflict::Crowded) => format!("more than {PER_DAY} on this day"),
    };
    Line {
        group: project.group_id.clone(),
        name: visible(&project.name),
        due: moment(due.at, now),
        owners: if owners.is_empty() { "no owner".to_owned() } else { owners },
        word: state(project, defaults, now),
        proposed: due.proposed.map(|at| moment(at, now)),
        why,
    }
}

/// The freeze that all of these lie in; `None` where it is not one.
fn one_freeze<'a>(ahead: &'a Ahead, conflicting: &[&Due]) -> Option<&'a Freeze> {
    let mut found = None;
    for due in conflicting {
        let Some(Conflict::Freeze(name)) = &due.conflict else { return None };
        let freezes = &ahead.keys[due.key].schedule.policy().freezes;
        let freeze = freezes.iter().find(|it| {
            let (from, end) = it.span();
            it.name == *name && from <= due.at && due.at < end
        })?;
        if *found.get_or_insert(freeze) != freeze {
            return None;
        }
    }
    found
}

/// The heading, what follows from it, and the name of the list of conflicts.
fn told(ahead: &Ahead, dues: &[&Due], conflicting: &[&Due]) -> (String, Vec<String>, String) {
    let count = keys(conflicting.len());
    let fall = if conflicting.len() == 1 { "falls" } else { "fall" };
    let assumed =
        "Dates after the next one of a key assume that it is replaced on the day it is due.".to_owned();
    if let Some(freeze) = one_freeze(ahead, conflicting) {
        let said = format!(
            "Nothing is sent from {} to {}. Replace these before {}, or they become overdue.",
            date(freeze.from),
            date(freeze.to),
            freeze.from.format("%-d %b"),
        );
        let name = visible(&freeze.name);
        return (
            format!("{count} {fall} due inside the freeze {name}"),
            vec![said, assumed],
            "Due inside the freeze".to_owned(),
        );
    }
    if conflicting.is_empty() {
        let later = dues.iter().filter(|it| matches!(it.conflict, Some(Conflict::Freeze(_)))).count();
        let heading = match (dues.len(), later) {
            (0, _) => "No key falls due in 12 months".to_owned(),
            (1, 0) => "1 key falls due in 12 months, not inside a freeze".to_owned(),
            (all, 0) => format!("{all} keys fall due in 12 months, none inside a freeze"),
            (all, later) => {
                format!("{} due in 12 months, {later} of the later ones inside a freeze", keys_fall(all))
            }
        };
        return (heading, vec![assumed], String::new());
    }
    let frozen = conflicting.iter().filter(|it| matches!(it.conflict, Some(Conflict::Freeze(_)))).count();
    let closed = conflicting.iter().filter(|it| it.conflict == Some(Conflict::NoWindow)).count();
    let crowded = conflicting.len() - frozen - closed;
    let parts = [
        (frozen, "inside a freeze".to_owned()),
        (closed, "without a window before".to_owned()),
        (crowded, format!("on a day with more than {PER_DAY}")),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let said = "Replace these earlier, or they become overdue or come all at once.".to_owned();
    let heading = match &parts[..] {
        [_] => format!("{count} {fall} due {}", parts[0].split_once(' ').map_or("", |(_, what)| what)),
        _ => format!("{count} cannot be replaced on their dates: {}", parts.join(", ")),
    };
    (heading, vec![said, assumed], "These cannot stay".to_owned())
}

fn keys(count: usize) -> String {
    if count == 1 { "1 key".to_owned() } else { format!("{count} keys") }
}

fn keys_fall(count: usize) -> String {
    if count == 1 { "1 key falls".to_owned() } else { format!("{count} keys fall") }
}

fn button(ahead: &Ahead, conflicting: &[&Due], count: usize) -> String {
    let these = if count == 1 { "Plan this one".to_owned() } else { format!("Plan these {count}") };
    match one_freeze(ahead, conflicting) {
        Some(freeze) => format!("{these} before {}…", freeze.from.format("%-d %b")),
        None => format!("{these} earlier…"),
    }
}

fn months(ahead: &Ahead, dues: &[&Due], first: NaiveDate, today: NaiveDate) -> Vec<Month> {
    let mut on: BTreeMap<NaiveDate, (usize, usize)> = BTreeMap::new();
    for due in dues {
        let (count, frozen) = on.entry(day_of(due.at, Zone::UTC)).or_default();
        *count += 1;
        *frozen += usize::from(matches!(due.conflict, Some(Conflict::Freeze(_))));
    }
    let windows: BTreeSet<NaiveDate> = ahead.defaults.window_days().collect();
    let freezes = &ahead.defaults.policy().freezes;
    let day = |day: NaiveDate| {
        let (due, inside) = on.get(&day).copied().unwrap_or_default();
        let is_frozen = freezes.iter().any(|it| (it.from..=it.to).contains(&day));
        let (opens, is_today) = (windows.contains(&day), day == today);
        let step = match due {
            0 => "",
            1 => "one",
            2 => "two",
            _ => "many",
        };
        let marks = [
            (true, step),
            (is_frozen, "frozen"),
            (inside > 0, "inside"),
            (opens, "opens"),
            (is_today, "today"),
        ];
        let marks: Vec<_> =
            marks.iter().filter(|(is, mark)| *is && !mark.is_empty()).map(|(_, mark)| *mark).collect();
        let mut said: Vec<String> = Vec::new();
        said.extend((due > 0).then(|| format!("{} due", keys(due))));
        said.extend(match (inside > 0, is_frozen) {
            (true, _) => Some("inside the freeze".to_owned()),
            (false, true) => Some("freeze".to_owned()),
            (false, false) => None,
        });
        said.extend(opens.then(|| "a window opens".to_owned()));
        said.extend(is_today.then(|| "today".to_owned()));
        let said = if said.is_empty() {
            String::new()
        } else {
            format!("{}, {}", day.format("%-d %B"), said.join(", "))
        };
        Day {
            number: day.day(),
            class: marks.join(" "),
            count: Some(due).filter(|due| *due > 1),
            said,
            is_today,
        }
    };
    (0..MONTHS)
        .filter_map(|number| first.checked_add_months(Months::new(number)))
        .map(|start| {
            let next = start.checked_add_months(Months::new(1)).unwrap_or(start);
            let lead = usize::try_from(start.weekday().num_days_from_monday()).unwrap_or_default();
            let mut cells: Vec<Option<Day>> = (0..lead).map(|_| None).collect();
            let all = (0..31).filter_map(|it| start.checked_add_days(Days::new(it))).filter(|it| *it < next);
            cells.extend(all.map(|it| Some(day(it))));
            while !cells.len().is_multiple_of(7) {
                cells.push(None);
            }
            let mut weeks = Vec::new();
            while !cells.is_empty() {
                let rest = cells.split_off(7);
                weeks.push(std::mem::replace(&mut cells, rest));
            }
            let is_named = start == first || start.month() == 1;
            Month {
                name: start.format(if is_named { "%B %Y" } else { "%B" }).to_string(),
                due: on.range(start..next).map(|(_, (count, _))| count).sum(),
                weeks,
            }
        })
        .collect()
}
