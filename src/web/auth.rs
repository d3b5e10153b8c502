//! Authentication of callers, and the roles that they hold.
//!
//! Over TCP a caller sends a bearer token, of which only the SHA-256 is stored. On the local socket
//! the kernel names the user, who has the role `server.socket_role`,
//! whatever token the request carries. Unknown tokens are counted for the whole server and
//! slowed down: a guess must cost more than it can gain. A count for each address would not help,
//! because addresses are easily changed.

use std::num::NonZeroU32;

use aws_lc_rs::rand;
use axum::extract::ConnectInfo;
use axum::http::header;
use axum::http::request::Parts;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;

use super::Web;
use super::problem::Problem;
use crate::api::problem::Code;
use crate::domain::role::Role;
use crate::engine::command::Actor;

/// Where a connection came from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The TCP port: nothing is known of the caller.
    Network,
    /// The local socket, whose user the kernel names.
    Local {
        /// The user's name, or `uid-N` when it has none.
        user: String,
    },
}

impl Origin {
    /// The user of a connection to the local socket. A connection whose user the kernel does not name counts
    /// as one from the network, so it needs a token.
    #[must_use]
    pub fn local(stream: &UnixStream) -> Self {
        match stream.peer_cred() {
            Ok(peer) => Origin::Local { user: user_name(peer.uid()) },
            Err(_) => Origin::Network,
        }
    }
}

/// The name of a user of this machine, or `uid-N` when it has none.
#[must_use]
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid-{uid}"))
}

/// The limiter for unknown tokens.
#[derive(Debug)]
pub struct Guesses(DefaultDirectRateLimiter);

impl Default for Guesses {
    fn default() -> Self {
        let burst = NonZeroU32::new(20).unwrap_or(NonZeroU32::MIN);
        Self(RateLimiter::direct(Quota::per_second(NonZeroU32::MIN).allow_burst(burst)))
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity written into journal and audit log.
    pub name: String,
    roles: Vec<Role>,
    on_machine: bool,
}

impl Caller {
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
        if self.roles.iter().any(|role| role.includes(needed)) {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            format!("{} lacks the role {needed}, which this operation needs", self.name),
        ))
    }

    /// Identifies the caller of a request.
    ///
    /// # Errors
    /// 401 without a stored token; 429 after too many unknown ones.
    pub async fn identify(parts: &Parts, web: &Web) -> Result<Self, Problem> {
        if let Some(ConnectInfo(Origin::Local { user })) = parts.extensions.get::<ConnectInfo<Origin>>() {
            let roles = vec![web.engine.settings.socket_role];
            return Ok(Self { name: format!("local:{user}"), roles, on_machine: true });
        }
        let bearer = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let found = match bearer {
            Some(token) => web.engine.store.token_by_hash(&token_hash(token)).await?,
            None => None,
        };
        match found {
            Some(token) => Ok(Self { name: token.name, roles: token.roles, on_machine: false }),
            None if bearer.is_some() && web.guesses.0.check().is_err() => {
                Err(Problem::new(Code::TooManyFailures, "too many unknown tokens; wait a few seconds"))
            }
            None => Err(Problem::new(
                Code::Unauthenticated,
                "the request has no valid bearer token; `keywheel token create` creates one",
            )),
        }
    }
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
