//! Whether Keywheel itself is well, from what it knows already: nothing is asked to make this page.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::moment::{Moment, moment};
use super::word::{Word, sign};
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::text::visible;
use crate::store::{ConditionRow, StoreError};

/// A sentence about a part, and whether it is well.
pub(super) struct Sign {
    pub(super) word: Word,
    pub(super) text: String,
}

/// A condition of the installation.
struct Holding {
    name: String,
    subject: String,
    cause: String,
    since: Moment,
    told: String,
}

/// A hook and what it has heard.
struct Hook {
    name: String,
    kind: String,
    seen: Option<Moment>,
    accepted: Option<Moment>,
    counts: String,
    stopped: Option<String>,
}

/// A credential of Atlas.
struct Credential {
    name: String,
    projects: usize,
    expires: Option<Moment>,
    word: Word,
    text: &'static str,
}

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage {
    frame: Frame,
    heading: &'static str,
    signs: Vec<Sign>,
    conditions: Vec<Holding>,
    credentials: Vec<Credential>,
    hooks: Vec<Hook>,
    lookups: Vec<String>,
    targets: Vec<String>,
    database: &'static str,
    daemon: String,
    way_out: Option<String>,
}

pub(super) async fn show(State(web): State<Web>, Signed(session): Signed) -> Response {
    match shown(&web, &session).await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(error) => Trouble::new(error, &web, Some(&session)).into_response(),
    }
}

fn skew(name: &str, millis: Option<i64>) -> Sign {
    match millis {
        None => Sign { word: sign(None), text: format!("The clock was not compared with {name} yet") },
        Some(millis) => {
            let (whole, tenths) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000 / 100);
            let text = format!("The clock is {whole}.{tenths} s from {name}");
            Sign { word: sign(Some(millis.unsigned_abs() < 60_000)), text }
        }
    }
}

/// The parts in a sentence each.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn signs(web: &Web) -> Result<Vec<Sign>, StoreError> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let mut signs = Vec::new();
    let swept = *engine.last_sweep.lock().unwrap_or_else(PoisonError::into_inner);
    signs.push(match swept {
        Some(at) => Sign {
            word: sign(Some(now.since(at) <= web.sweep_patience)),
            text: format!("Projects were read {}", moment(at, now).relative),
        },
        None => Sign { word: sign(None), text: "No sweep has finished yet".to_owned() },
    });
    let shown = engine.epoch.shown();
    signs.push(match &shown.doubt {
        Some(doubt) => {
            Sign { word: sign(Some(false)), text: format!("The database is in doubt: {}", doubt.detail) }
        }
        None => Sign { word: sign(Some(true)), text: "The database is not in doubt".to_owned() },
    });
    signs.push(skew("Atlas", shown.clock_skew_ms.atlas));
    let mails = engine.store.mail_counts().await?;
    let oldest = mails.oldest_waiting.map(|at| format!(", the oldest {}", moment(at, now).relative));
    signs.push(match (engine.settings.mails, mails.failed) {
        (false, _) => {
            Sign { word: sign(None), text: "No mail server is configured: nobody is mailed".to_owned() }
        }
        (true, failed) => Sign {
            word: sign(Some(failed == 0)),
            text: format!("Mail: {} waiting{}, {failed} failed", mails.waiting, oldest.unwrap_or_default()),
        },
    });
    let holding = engine.installation().await?;
    signs.extend(holding.iter().map(|row| Sign {
        word: sign(Some(false)),
        text: format!("{} since {}", row.kind.as_str().replace('_', " "), moment(row.since, now).absolute),
    }));
    Ok(signs)
}

async fn credentials(web: &Web, holding: &[ConditionRow]) -> Result<Vec<Credential>, StoreError> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let ends: BTreeMap<String, _> = engine.secret_ends.known().into_iter().collect();
    let counts = engine.store.credential_counts().await?;
    Ok((counts.into_iter())
        .map(|(name, projects)| {
            let subject = format!("credential/{name}");
            let is_well = holding.iter().all(|row| row.subject.to_string() != subject);
            Credential {
                projects,
                expires: ends.get(&name).map(|at| moment(*at, now)),
                word: sign(Some(is_well)),
                text: if is_well { "accepted, as far as it was used" } else { "see what holds" },
                name: visible(&name),
            }
        })
        .collect())
}

fn hooks(web: &Web) -> Vec<Hook> {
    let now = web.engine.clock.now();
    let tallies = web.engine.intake.tallies().into_iter();
    tallies
        .map(|(name, tally)| {
            let (seen, accepted) = tally.last();
            let [received, accepted_count, ..] = tally.counts();
            let refused: u64 = tally.refusals().values().sum();
            Hook {
                kind: tally.kind.to_owned(),
                seen: seen.map(|at| moment(at, now)),
                accepted: accepted.map(|at| moment(at, now)),
                counts: format!("{received} received, {accepted_count} accepted, {refused} refused"),
                stopped: web.hooks.stopped(&name).as_deref().map(visible),
                name: visible(&name),
            }
        })
        .collect()
}

async fn shown(web: &Web, session: &Session) -> Result<HealthPage, StoreError> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let holding = engine.installation().await?;
    let mut signs = signs(web).await?;
    // SQLite has this machine's clock.
    if engine.store.is_shared() {
        signs.push(skew("the database", engine.epoch.shown().clock_skew_ms.database));
    }
    let told = |row: &ConditionRow| match row.told {
        0 => "nobody was told yet".to_owned(),
        1 => "told once".to_owned(),
        times => format!("told {times} times"),
    };
    let conditions: Vec<Holding> = (holding.iter())
        .map(|row| Holding {
            name: row.kind.as_str().replace('_', " "),
            subject: visible(&row.subject.to_string()),
            cause: row.cause.as_deref().map(visible).unwrap_or_default(),
            since: moment(row.since, now),
            told: told(row),
        })
        .collect();
    Ok(HealthPage {
        frame: Frame::of(web, session, Here::Health).await?,
        heading: match conditions.len() {
            0 if signs.iter().all(|it| it.word != sign(Some(false))) => "Keywheel is well",
            _ => "Keywheel needs attention",
        },
        signs,
        conditions,
        credentials: credentials(web, &holding).await?,
        hooks: hooks(web),
        lookups: engine.kms.keys().map(|it| visible(it)).collect(),
        targets: engine.webhooks.all().iter().map(|it| visible(it.name())).collect(),
        database: if engine.store.is_shared() { "PostgreSQL" } else { "SQLite" },
        daemon: visible(&engine.settings.daemon),
        way_out: engine.epoch.shown().doubt.map(|it| visible(&it.way_out)),
    })
}
