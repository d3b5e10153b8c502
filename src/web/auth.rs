//! Authentication of callers, and the roles that they hold.
//!
//! Over TCP a caller sends a bearer token, of which only the SHA-256 is stored. On the local socket
//! the kernel names the user, who has the role `server.socket_role`, whatever token the request carries. A sender
//! of unknown tokens is slowed down by its address; a valid token is never refused for others' guesses. Refused
//! senders are counted, and the use of a revoked token is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::rand;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{Extensions, header};
use sha2::{Digest, Sha256};

use super::Web;
use super::problem::Problem;
use super::sender::{self, Origin};
use crate::api::problem::Code;
use crate::domain::role::Role;
use crate::engine::command::Actor;
use crate::store::StoreError;

/// Whether a sender on this connection was authenticated, among a request's extensions. Such a
/// connection is not closed to make room for others.
#[derive(Clone, Debug, Default)]
pub struct Authenticated(pub Arc<AtomicBool>);

impl Authenticated {
    /// Notes that the sender of a request is known.
    pub(super) fn note(extensions: &Extensions) {
        if let Some(Self(known)) = extensions.get() {
            known.store(true, Ordering::Relaxed);
        }
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity written into journal and audit log.
    pub name: String,
    roles: Vec<Role>,
    on_machine: bool,
    /// The hash of the token; `None` on the local socket.
    token: Option<String>,
}

impl Caller {
    /// The holder of a token, or a person, signed in to the pages.
    pub(super) fn signed_in(name: String, roles: Vec<Role>) -> Self {
        Self { name, roles, on_machine: false, token: None }
    }

    /// The roles, as text for people.
    pub(super) fn roles(&self) -> String {
        self.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The caller as the giver of a command.
    #[must_use]
    pub fn actor(&self) -> Actor<'_> {
        let has = |role: &Role| self.roles.iter().any(|it| it.includes(*role));
        let role = [Role::Admin, Role::Operator].into_iter().find(has).unwrap_or(Role::Viewer);
        Actor { name: &self.name, role, on_machine: self.on_machine }
    }

    /// Refuses unless the caller holds `needed` or a role that includes it.
    ///
    /// # Errors
    /// 403 with the role that is needed.
    pub fn must_be(&self, needed: Role) -> Result<(), Problem> {
        self.must_be_one_of(&[needed])
    }

    /// The same where one of several roles is enough.
    ///
    /// # Errors
    /// 403 with the roles.
    pub fn must_be_one_of(&self, needed: &[Role]) -> Result<(), Problem> {
        if self.roles.iter().any(|role| needed.iter().any(|it| role.includes(*it))) {
            return Ok(());
        }
        let names = needed.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(" or ");
        Err(Problem::new(
            Code::Forbidden,
            format!("{} lacks the role {names}, which this operation needs", self.name),
        ))
    }

    /// Identifies the caller of a request.
    ///
    /// # Errors
    /// 401 without a stored token; 429 after too many unknown ones.
    pub async fn identify(parts: &Parts, web: &Web) -> Result<Self, Problem> {
        if let Some(ConnectInfo(Origin::Local { user })) = parts.extensions.get::<ConnectInfo<Origin>>() {
            let roles = vec![web.engine.settings.socket_role];
            return Ok(Self { name: format!("local:{user}"), roles, on_machine: true, token: None });
        }
        let bearer = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let hash = bearer.map(token_hash);
        if let Some(hash) = &hash
            && let Some(token) = web.engine.store.token_by_hash(hash).await?
        {
            Authenticated::note(&parts.extensions);
            return Ok(Self {
                name: token.name,
                roles: token.roles,
                on_machine: false,
                token: Some(hash.clone()),
            });
        }
        Err(refuse(parts, web, hash.as_deref()).await)
    }

    /// Whether the caller is still who it was and holds `needed`: a long answer ends with its token.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn is_still(&self, needed: Role, web: &Web) -> Result<bool, StoreError> {
        let Some(hash) = &self.token else { return Ok(true) };
        let token = web.engine.store.token_by_hash(hash).await?;
        Ok(token.is_some_and(|it| it.roles.iter().any(|role| role.includes(needed))))
    }
}

/// Counts a request without a valid token, and tells the use of a revoked one.
pub(super) async fn refuse(parts: &Parts, web: &Web, hash: Option<&str>) -> Problem {
    let (now, from) =
        (web.engine.clock.now(), sender::network(&parts.extensions, &parts.headers, &web.proxies));
    let unauthenticated = Problem::new(
        Code::Unauthenticated,
        "the request has no valid bearer token; `keywheel token create` creates one",
    );
    let Some(hash) = hash else {
        web.engine.refused_stranger("no-token", from);
        return unauthenticated;
    };
    let revoked = match web.engine.store.revoked_token_by_hash(hash).await {
        Ok(Some(token)) => web.engine.revoked_token_used(&token, from).await.map(|()| true),
        found => found.map(|_| false),
    };
    let reason = match revoked {
        Ok(true) => "revoked-token",
        Ok(false) => "unknown-token",
        Err(error) => {
            tracing::error!(error = %error, "the use of a revoked token cannot be told");
            "unknown-token"
        }
    };
    web.engine.refused_stranger(reason, from);
    match from {
        Some(from) if web.guesses.is_slowed(from, now) => {
            Problem::new(Code::TooManyFailures, "too many unknown tokens; wait a few seconds")
        }
        Some(from) => {
            web.guesses.wrong(from, now);
            unauthenticated
        }
        None => unauthenticated,
    }
}

/// Counts a link that was not made here; the refusal of a sender who has shown too many.
pub(super) fn wrong_link(parts: &Parts, web: &Web) -> Option<Problem> {
    let now = web.engine.clock.now();
    let from = sender::network(&parts.extensions, &parts.headers, &web.proxies);
    web.engine.refused_stranger("unknown-link", from);
    let from = from?;
    if web.guesses.is_slowed(from, now) {
        return Some(Problem::new(
            Code::TooManyFailures,
            "too many links that are not known; wait a few seconds",
        ));
    }
    web.guesses.wrong(from, now);
    None
}

/// The stored form of a token: its SHA-256 in hexadecimal.
#[must_use]
pub fn token_hash(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

/// A fresh token: `kw_` and 256 random bits.
///
/// # Errors
/// When the system's random source fails.
pub fn new_token() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bits = [0u8; 32];
    rand::fill(&mut bits)?;
    Ok(format!("kw_{}", hex::encode(bits)))
}
