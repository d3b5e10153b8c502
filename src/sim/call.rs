//! One request on its way through the simulator: logged, admitted, maybe struck by a fault, handled,
//! answered, and logged again.
//!
//! Faults strike only requests that passed log-in and limits, so that a script does not depend on how
//! many challenges a client needs. The handler alone interprets the request.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::answer::SimResult;
use super::ask::Ask;
use super::fault::{self, Kind};
use super::operation::Operation;
use super::wire::Peer;
use super::world::World;
use super::{Shared, encryption, events, login, reply};

/// The longest body that is read.
const BODY_CAP: usize = 1024 * 1024;

/// A request with everything needed to answer it.
pub(super) struct Call {
    pub(super) sim: Shared,
    pub(super) peer: Peer,
    pub(super) ask: Ask,
}

impl FromRequest<Shared> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, sim: &Shared) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let ConnectInfo(peer) = ConnectInfo::<Peer>::from_request_parts(&mut parts, sim)
            .await
            .map_err(IntoResponse::into_response)?;
        let raw = RawPathParams::from_request_parts(&mut parts, sim).await;
        let raw = raw.map_err(IntoResponse::into_response)?;
        let params = raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = axum::body::to_bytes(body, BODY_CAP)
            .await
            .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
        let query = parts.uri.query().unwrap_or_default();
        let ask = Ask {
            now: sim.clock.now(),
            who: String::new(),
            uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            params,
            query: joined(query),
            method: parts.method,
            headers: parts.headers,
            body,
        };
        Ok(Self { sim: sim.clone(), peer, ask })
    }
}

/// The values of a parameter that is given more than once are joined by commas.
fn joined(query: &str) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let known = all.entry(name.into_owned()).or_default();
        if !known.is_empty() {
            known.push(',');
        }
        known.push_str(&value);
    }
    all
}

impl Call {
    /// Runs the request through all steps.
    pub(super) async fn answer(mut self, operation: Operation) -> Response {
        let (index, admitted, fault) = self.arrive(operation);
        if let Some(Kind::Delay(ms)) = fault {
            #[expect(clippy::disallowed_methods, reason = "a scripted delay")]
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        self.ask.now = self.sim.clock.now();
        let mut standing = None;
        let mut applied = false;
        let mut response = match (admitted, &fault) {
            (Err(refusal), _) => refusal.into_response(),
            (Ok(_), Some(Kind::DropRequest)) => {
                self.peer.cut();
                return StatusCode::OK.into_response();
            }
            (Ok(_), Some(Kind::LateApply(ms))) => {
                self.peer.cut();
                self.apply_later(index, operation, Duration::from_millis(*ms));
                return StatusCode::OK.into_response();
            }
            (Ok(_), Some(Kind::Status { status, code, retry_after })) => {
                reply::scripted(*status, code.as_deref(), *retry_after)
            }
            (Ok(found), _) => {
                standing = found;
                let mut world = self.sim.world();
                let answer = handle(&mut world, &self.ask, operation);
                applied = answer.is_ok();
                reply::render(answer, operation, &self.ask, &world.odd)
            }
        };
        match fault {
            Some(Kind::DropReply) => self.peer.cut(),
            Some(Kind::AppliedStatus(status)) => reply::restate(&mut response, status),
            Some(Kind::Truncate) => response = reply::truncate(response).await,
            Some(Kind::Huge(bytes)) => response = reply::swell(response, bytes, false).await,
            Some(Kind::GzipBomb(bytes)) => response = reply::swell(response, bytes, true).await,
            _ => {}
        }
        let mut world = self.sim.world();
        reply::dress(&mut response, self.ask.now, standing, &world.odd);
        self.peer.hide_date(world.odd.omit_headers.contains("date"));
        if let Some(entry) = world.log.get_mut(index) {
            entry.applied_at = applied.then_some(self.ask.now);
            entry.replied_at = Some(self.sim.clock.now());
            entry.status = Some(response.status().as_u16());
        }
        response
    }

    /// Logs the request, admits or refuses it, and finds its fault.
    fn arrive(&mut self, operation: Operation) -> (usize, login::Admission, Option<Kind>) {
        let mut world = self.sim.world();
        let key = if operation.writes { encryption::named_key(&self.ask.body) } else { None };
        let index = world.note(self.ask.now, operation.name, self.ask.group(), key);
        let who = login::claimed(&world, &self.ask);
        if let Some(entry) = world.log.get_mut(index) {
            entry.credential.clone_from(&who);
        }
        self.ask.who = who.unwrap_or_default();
        let admitted = login::admit(&mut world, &self.ask, self.peer.ip(), operation);
        let mut fault = None;
        if admitted.is_ok() {
            fault = fault::strike(&mut world.faults, operation.name, self.ask.group());
        }
        if let (Some(Kind::HumanEdit(key)), Some(group)) = (&fault, self.ask.group()) {
            events::human_edit(&mut world, group, key, None, self.ask.now);
        }
        (index, admitted, fault)
    }

    fn apply_later(&self, index: usize, operation: Operation, wait: Duration) {
        let (sim, mut ask) = (self.sim.clone(), self.ask.clone());
        self.sim.tasks.spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "a scripted delay")]
            tokio::time::sleep(wait).await;
            ask.now = sim.clock.now();
            let mut world = sim.world();
            if handle(&mut world, &ask, operation).is_ok()
                && let Some(entry) = world.log.get_mut(index)
            {
                entry.applied_at = Some(ask.now);
            }
        });
    }
}

/// Handles a request. The project's key is checked before and after, as Atlas' own checks would.
fn handle(world: &mut World, ask: &Ask, operation: Operation) -> SimResult {
    let group = ask.group().unwrap_or_default();
    events::look(world, group, ask.now);
    let answer = (operation.handle)(world, ask);
    events::look(world, group, ask.now);
    answer
}
