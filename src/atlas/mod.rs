//! The Atlas Admin API, as far as rotations need it: observe a project's encryption configuration,
//! set its key, and read its name, clusters, open alerts, events and people.
//!
//! Every call is one or two requests under one deadline and ends in a value of
//! [`domain::rotation`](crate::domain::rotation): an observation, a reply or a failure with Atlas'
//! own words. A lost reply is such a value too. Nothing is retried here, except once with a new login
//! after a 401. The machine decides whether and when to send again, and what an observation means for a
//! rotation.
//!
//! `client` is one HTTP round trip, `auth` the login with `token` and `digest` for its two kinds,
//! `encryption` and `inventory` the calls, `error` the classes of failure, `limits` the rate limits.

mod api;
mod auth;
mod client;
mod digest;
mod encryption;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod inventory;
mod limits;
mod response;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::{self, PatchBody};
use crate::domain::time::{Clock, Timestamp};
use crate::net::client::BuildError;
pub use api::AtlasApi;
use auth::Account;
use client::Http;
pub use inventory::{Group, Groups, Team};
pub use limits::Level;
use limits::Levels;

/// Counts token requests, so that a process that restarts again and again cannot use up the 100 live
/// tokens of a service account. The count must outlive the process.
pub trait TokenBudget: Send + Sync {
    /// Takes one token request of `credential` at `now` from the budget.
    ///
    /// # Errors
    /// Fails when the budget is used up, with the instant of the next free request.
    fn take<'a>(&'a self, credential: &'a str, now: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>>;
}

/// Why no client could be made. All of these are found when the program starts.
#[derive(Debug, thiserror::Error)]
pub enum AtlasError {
    /// The base URL is not valid.
    #[error("atlas.base_url {url:?} {problem}: give scheme and host, such as https://cloud.mongodb.com")]
    BaseUrl {
        /// The URL, without user and password.
        url: String,
        /// The fault.
        problem: &'static str,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] BuildError),
}

/// The client. One per process: it holds the connections, the tokens and the nonces.
pub struct Atlas {
    http: Http,
    accounts: BTreeMap<String, Account>,
    levels: Levels,
    clock: Arc<dyn Clock>,
    budget: Arc<dyn TokenBudget>,
    patch_body: PatchBody,
}

impl Atlas {
    /// A client; it sends nothing yet.
    ///
    /// # Errors
    /// Fails when the base URL is not valid, or TLS cannot be set up; see [`AtlasError`].
    pub fn new(
        config: &config::Atlas,
        clock: Arc<dyn Clock>,
        budget: Arc<dyn TokenBudget>,
    ) -> Result<Atlas, AtlasError> {
        let http = Http::new(&config.base_url, config.request_timeout.get(), Arc::clone(&clock))?;
        let accounts = config.credentials.iter();
        let accounts = accounts.map(|(name, it)| (name.clone(), Account::new(name.clone(), it.clone())));
        let (accounts, levels) = (accounts.collect(), Levels::default());
        Ok(Atlas { http, accounts, levels, clock, budget, patch_body: config.patch_body })
    }

    /// Whether a credential of this name is configured.
    #[must_use]
    pub fn knows(&self, credential: &str) -> bool {
        self.accounts.contains_key(credential)
    }

    /// The level of each bucket that Atlas named in a reply, the lowest of the last minute for each credential and
    /// endpoint set.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        self.levels.all()
    }
}

/// Shows names only.
impl fmt::Debug for Atlas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Atlas").field("credentials", &self.accounts.keys()).finish_non_exhaustive()
    }
}
