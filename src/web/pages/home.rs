//! The first page: what needs this person, the fleet in numbers, its oldest keys, what ended since the visit before, and
//! whether Keywheel itself is well.
//!
//! Nothing here grows with the fleet: counts are one statement, and every list is short.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::due::{Line, line};
use super::health::{Sign, signs};
use super::live;
use super::moment::{Moment, clock, moment};
use super::rotation::Renewing;
use super::word::{self, Word};
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::approver::Strength;
use crate::domain::ids::RotationId;
use crate::domain::project::Status;
use crate::domain::role::Role;
use crate::domain::rotation::state::State as RotationState;
use crate::domain::text::visible;
use crate::engine::command::Voter;
use crate::store::{DueFilter, EndedRotation, FleetCounts, Review, RotationRow, StoreError};

/// The rotations of a state that are shown one by one.
const MOST: usize = 10;

/// The proposals that are read at once, to find those.
const AT_ONCE: usize = 50;

/// How often that many are read.
const PAGES: usize = 4;

/// The rotations that have ended which are shown.
const ENDED: usize = 10;

/// The rotations in flight that are shown.
const IN_FLIGHT: usize = 12;

/// The oldest keys that are shown.
const OLDEST: usize = 25;

/// Something that waits for this person.
struct Need {
    word: Word,
    project: String,
    sentence: String,
    since: Moment,
    to: String,
    button: &'static str,
}

/// A number of the fleet, with the list behind it.
struct Tile {
    count: i64,
    name: &'static str,
    detail: String,
    to: &'static str,
    word: Word,
}

/// A rotation that goes on by itself.
struct Flight {
    id: RotationId,
    project: String,
    word: Word,
    sentence: String,
}

/// What ended since the person was here before.
struct Since {
    at: Moment,
    ended: Vec<Outcome>,
    all: String,
}

/// How a rotation ended.
struct Outcome {
    id: RotationId,
    project: String,
    word: Word,
    at: Moment,
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    frame: Frame,
    heading: String,
    needs: Vec<Need>,
    is_empty: bool,
    tiles: Vec<Tile>,
    oldest: Vec<Line>,
    projects: u64,
    flights: Vec<Flight>,
    since: Option<Since>,
    signs: Vec<Sign>,
    /// What the stream of the page has to tell next to be news.
    seen: String,
    /// Now, exactly and as a time of day.
    now: (String, String),
    renews: bool,
}

pub(super) async fn show(
    State(web): State<Web>,
    Signed(session): Signed,
    Query(renewing): Query<Renewing>,
) -> Response {
    match home(&web, &session).await {
        Ok(home) => page(StatusCode::OK, &HomePage { renews: renewing.every == "15", ..home }),
        Err(error) => Trouble::new(error, &web, Some(&session)).into_response(),
    }
}

async fn in_state(web: &Web, state: RotationState, most: usize) -> Result<Vec<RotationRow>, StoreError> {
    web.engine.store.rotations(Some(state), None, None, most).await
}

/// What waits for this person, the worst first.
async fn needs(web: &Web, session: &Session, counts: &FleetCounts) -> Result<Vec<Need>, StoreError> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let may = |role| session.caller.must_be(role).is_ok();
    let need = |row: RotationRow, sentence: String, button| Need {
        word: word::state(row.rotation.state),
        project: visible(&row.project_name),
        sentence: visible(&sentence),
        since: moment(row.rotation.operator.paged_at.unwrap_or(row.rotation.created_at), now),
        to: format!("/rotations/{}", row.rotation.id),
        button,
    };
    let mut needs = Vec::new();
    if may(Role::Operator) {
        for row in in_state(web, RotationState::NeedsOperator, MOST).await? {
            let sentence = engine.why_waiting(&row).await?.into_iter().next().unwrap_or_default();
            needs.push(need(row, sentence, "See what to do"));
        }
    }
    if may(Role::Approver) {
        for row in approvable(web, session).await? {
            let sentence = format!("{} proposes a new {} key.", row.requested_by, row.rotation.provider);
            needs.push(need(row, sentence, "Review the change"));
        }
    }
    needs.extend(reviews(web, session).await?);
    if may(Role::Operator) {
        needs.extend(of_projects(web, counts).await?);
    }
    Ok(needs)
}

/// The reviews of emergency rotations that this person may close.
async fn reviews(web: &Web, session: &Session) -> Result<Vec<Need>, StoreError> {
    if session.caller.must_be(Role::Approver).is_err() {
        return Ok(Vec::new());
    }
    let now = web.engine.clock.now();
    let open = match web.engine.reviews().await {
        Ok(all) => all.into_iter().filter(Review::is_open),
        // That page says what is wrong with them.
        Err(StoreError::Tampered { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let others = open.filter(|it| it.requested_by != session.caller.name).take(MOST);
    Ok(others
        .map(|it| Need {
            word: word::state(RotationState::AwaitingApproval),
            project: visible(&it.project_name),
            sentence: visible(&format!("{} proposed an emergency rotation: {}", it.requested_by, it.reason)),
            since: moment(it.requested_at, now),
            to: format!("/reviews#review-{}", it.rotation_id),
            button: "Review the emergency",
        })
        .collect())
}

/// The proposals that this person may approve, up to [`MOST`]. Those that others must approve do not hide them.
async fn approvable(web: &Web, session: &Session) -> Result<Vec<RotationRow>, StoreError> {
    let (engine, mut before) = (&web.engine, None);
    let (mut found, mut voters) = (Vec::new(), None);
    // Each costs a count of its votes, so a page does not go through a thousand of them.
    for _ in 0..PAGES {
        let rows =
            engine.store.rotations(Some(RotationState::AwaitingApproval), None, before, AT_ONCE).await?;
        let Some(last) = rows.last().map(|row| row.rotation.id) else { break };
        before = Some(last);
        let own = |row: &RotationRow| {
            row.requested_by == session.caller.name && !row.rotation.rules.policy.self_approval
        };
        for row in rows.into_iter().filter(|row| !own(row)) {
            // Who has no passkey yet learns of it on the rotation's page.
            let strength = row.rotation.rules.policy.approval_method.max(Strength::Session);
            let voter = Voter { method: strength.as_str(), ..session.voter() };
            let among = match &voters {
                Some(among) => among,
                None => voters.insert(engine.voters().await?),
            };
            if engine.may_say_among(&row, voter, among).await?.refused.is_none() {
                found.push(row);
            }
            if found.len() == MOST {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// The projects that wait for an operator without a rotation that says so.
async fn of_projects(web: &Web, counts: &FleetCounts) -> Result<Vec<Need>, StoreError> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let defaults = &engine.settings.policy;
    let of = |state: &str| DueFilter { state: state.to_owned(), ..DueFilter::default() };
    let overdue = DueFilter { until: Some(now), ..of("not_started") };
    let mut needs = Vec::new();
    for (count, filter, status, button) in [
        (counts.invalid, of("invalid"), Status::Invalid, "See what to do"),
        (counts.drifted, of("drifted"), Status::Drifted, "See what changed"),
        (counts.overdue_idle, overdue, Status::Overdue, "Propose a new key"),
    ] {
        if count == 0 {
            continue;
        }
        for project in engine.store.due_list(&filter, defaults.interval, 0, MOST).await?.projects {
            // Its rotation says so itself.
            if status == Status::Invalid && project.open_rotation.is_some() {
                continue;
            }
            let read = project.last_checked_at.unwrap_or(project.created_at);
            let (sentence, since) = match status {
                Status::Invalid => {
                    ("Atlas reports its key as invalid. Re-enable it in its key service.", read)
                }
                Status::Drifted => ("Another actor changed the key outside of Keywheel.", read),
                _ => (
                    "Its cryptoperiod has ended and no new key is proposed.",
                    project.due(defaults).unwrap_or(read),
                ),
            };
            needs.push(Need {
                word: word::status(status),
                project: visible(&project.name),
                sentence: sentence.to_owned(),
                since: moment(since, now),
                to: format!("/projects/{}", project.group_id),
                button,
            });
        }
    }
    Ok(needs)
}

fn tiles(counts: &FleetCounts) -> Vec<Tile> {
    let tile = |count, name, detail: String, to, word| Tile { count, name, detail, to, word };
    let idle = |count: i64| format!("{count} not started");
    let due = word::status(Status::DueSoon);
    let nobody = if counts.without_owner == 0 { "" } else { "nobody is told" };
    vec![
        tile(
            counts.overdue,
            "Overdue",
            idle(counts.overdue_idle),
            "/due?due=overdue",
            word::status(Status::Overdue),
        ),
        tile(counts.in_7, "Due in 7 days", idle(counts.in_7_idle), "/due?due=7", due),
        tile(counts.in_30, "Due in 30 days", idle(counts.in_30_idle), "/due?due=30", due),
        tile(
            counts.to_approve,
            "To approve",
            String::new(),
            "/due?due=any&state=awaiting_approval",
            word::state(RotationState::AwaitingApproval),
        ),
        tile(
            counts.in_flight,
            "In flight",
            String::new(),
            "/due?due=any&state=in_flight",
            word::state(RotationState::Applying),
        ),
        tile(
            counts.need_operator,
            "Needs operator",
            String::new(),
            "/due?due=any&state=needs_operator",
            word::status(Status::NeedsOperator),
        ),
        tile(
            counts.drifted,
            "Drifted",
            String::new(),
            "/due?due=any&state=drifted",
            word::status(Status::Drifted),
        ),
        tile(
            counts.without_owner,
            "No owner",
            nobody.to_owned(),
            "/due?due=any&owner=none",
            word::state(RotationState::AwaitingApproval),
        ),
    ]
}

/// The rotations that go on by themselves, the most urgent first.
async fn flights(web: &Web) -> Result<Vec<Flight>, StoreError> {
    let mut flights = Vec::new();
    for row in web.engine.store.rotations_in_flight(IN_FLIGHT).await? {
        let sentence = web.engine.why_waiting(&row).await?.into_iter().next().unwrap_or_default();
        flights.push(Flight {
            id: row.rotation.id,
            project: visible(&row.project_name),
            word: word::state(row.rotation.state),
            sentence: visible(&sentence),
        });
    }
    Ok(flights)
}

/// What ended since this person was here before this visit; `None` on the first.
async fn since(web: &Web, session: &Session) -> Result<Option<Since>, StoreError> {
    let (store, now) = (&web.engine.store, web.engine.clock.now());
    let missed = store.missed(&session.caller.name, session.issuer.as_deref(), ENDED).await?;
    let outcome = |it: EndedRotation| Outcome {
        id: it.id,
        project: visible(&it.project_name),
        word: word::state(it.state),
        at: moment(it.at, now),
    };
    Ok(missed.map(|it| Since {
        at: moment(it.since, now),
        all: format!("/audit?what=rotation.moved&from={}", it.since.as_chrono().format("%Y-%m-%d")),
        ended: it.ended.into_iter().map(outcome).collect(),
    }))
}

fn heading(needs: &[Need], next: Option<&Line>, stopped: i64) -> String {
    match (needs.len(), stopped) {
        (0, 1) => return "Nothing waits for you; 1 rotation needs an operator".to_owned(),
        (0, 2..) => return format!("Nothing waits for you; {stopped} rotations need an operator"),
        _ => {}
    }
    match (needs.len(), next.and_then(|it| Some((it, it.due.as_ref()?)))) {
        (0, Some((next, due))) if due.is_past => {
            format!("Nothing waits for you; {} is overdue", next.name)
        }
        (0, Some((next, due))) => format!("Nothing needs you. Next: {}, due {}.", next.name, due.relative),
        (0, None) => "Nothing needs you".to_owned(),
        (1, _) => "1 thing needs you".to_owned(),
        (count, _) => format!("{count} things need you"),
    }
}

async fn home(web: &Web, session: &Session) -> Result<HomePage, StoreError> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let defaults = &engine.settings.policy;
    // Before the rest, so that what changes meanwhile is news.
    let seen = live::open(web).await?;
    let every = DueFilter::default();
    // Each goes through every project, so they go at the same time.
    let (counts, oldest) = tokio::try_join!(
        engine.store.fleet_counts(defaults.interval, now),
        engine.store.due_list(&every, defaults.interval, 0, OLDEST),
    )?;
    web.counted.keep(now, counts);
    let (needs, flights, since, signs) = tokio::try_join!(
        Box::pin(needs(web, session, &counts)),
        Box::pin(flights(web)),
        since(web, session),
        signs(web),
    )?;
    let lines: Vec<Line> = oldest.projects.iter().map(|it| line(it, defaults, now)).collect();
    Ok(HomePage {
        frame: Frame::counted(web, session, Here::Home, &counts),
        heading: if counts.projects == 0 {
            "Keywheel watches no project yet".to_owned()
        } else {
            heading(&needs, lines.first(), counts.need_operator)
        },
        needs,
        is_empty: counts.projects == 0,
        tiles: tiles(&counts),
        projects: oldest.total,
        oldest: lines,
        flights,
        since,
        signs,
        seen,
        now: (now.to_string(), clock(now)),
        renews: false,
    })
}
