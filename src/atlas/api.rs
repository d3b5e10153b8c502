//! The engine's calls to Atlas, as a trait: implemented by the HTTP client, and by a simulated world with
//! a simulated clock. It adds nothing to the client's own methods.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::inventory::{Group, Groups, Team};
use super::{Atlas, Level};
use crate::domain::event::KeyEvent;
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::rotation::outcome::{Cluster, Failure, Observation, PatchReply};
use crate::domain::time::Timestamp;

/// Atlas, for the engine. Every call names a credential and fails after `timeout`.
pub trait AtlasApi: Debug + Send + Sync {
    /// Whether a credential of this name is configured.
    fn knows(&self, credential: &str) -> bool;

    /// [`Atlas::observe`].
    fn observe<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Observation, Failure>>;

    /// [`Atlas::set_key`].
    fn set_key<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        key: &'a KeyRef,
        timeout: Duration,
    ) -> BoxFuture<'a, PatchReply>;

    /// [`Atlas::group`].
    fn group<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Group, Failure>>;

    /// [`Atlas::may_change`].
    fn may_change<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>>;

    /// [`Atlas::cmk_clusters`].
    fn cmk_clusters<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        provider: Provider,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Cluster>, Failure>>;

    /// [`Atlas::network_denied`].
    fn network_denied<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>>;

    /// [`Atlas::credentials`].
    fn credentials(&self) -> Vec<String>;

    /// [`Atlas::levels`].
    fn levels(&self) -> Vec<Level>;

    /// [`Atlas::identity`].
    fn identity(&self, credential: &str) -> Option<String>;

    /// [`Atlas::secret_end`].
    fn secret_end<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Failure>> {
        let _ = (credential, org, timeout);
        Box::pin(async { Ok(None) })
    }

    /// [`Atlas::groups`].
    fn groups<'a>(
        &'a self,
        credential: &'a str,
        number: u32,
        size: u32,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Groups, Failure>>;

    /// [`Atlas::key_events`].
    fn key_events<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        since: Timestamp,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<KeyEvent>, Failure>>;

    /// [`Atlas::project_owners`].
    fn project_owners<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>>;

    /// [`Atlas::teams`].
    fn teams<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Team>, Failure>>;

    /// [`Atlas::team_members`].
    fn team_members<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        team: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>>;

    /// [`Atlas::team_name`].
    fn team_name<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        team: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>>;

    /// [`Atlas::org_owners`].
    fn org_owners<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>>;
}

impl AtlasApi for Atlas {
    fn knows(&self, credential: &str) -> bool {
        self.knows(credential)
    }

    fn observe<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Observation, Failure>> {
        Box::pin(self.observe(credential, group, timeout))
    }

    fn set_key<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        key: &'a KeyRef,
        timeout: Duration,
    ) -> BoxFuture<'a, PatchReply> {
        Box::pin(self.set_key(credential, group, key, timeout))
    }

    fn group<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Group, Failure>> {
        Box::pin(self.group(credential, group, timeout))
    }

    fn may_change<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.may_change(credential, group, timeout))
    }

    fn cmk_clusters<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        provider: Provider,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Cluster>, Failure>> {
        Box::pin(self.cmk_clusters(credential, group, provider, timeout))
    }

    fn network_denied<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.network_denied(credential, group, timeout))
    }

    fn credentials(&self) -> Vec<String> {
        self.credentials()
    }

    fn levels(&self) -> Vec<Level> {
        self.levels()
    }

    fn identity(&self, credential: &str) -> Option<String> {
        self.identity(credential)
    }

    fn secret_end<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Failure>> {
        Box::pin(self.secret_end(credential, org, timeout))
    }

    fn groups<'a>(
        &'a self,
        credential: &'a str,
        number: u32,
        size: u32,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Groups, Failure>> {
        Box::pin(self.groups(credential, number, size, timeout))
    }

    fn key_events<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        since: Timestamp,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<KeyEvent>, Failure>> {
        Box::pin(self.key_events(credential, group, since, timeout))
    }

    fn project_owners<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(self.project_owners(credential, group, timeout))
    }

    fn teams<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Team>, Failure>> {
        Box::pin(self.teams(credential, group, timeout))
    }

    fn team_members<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        team: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(self.team_members(credential, org, team, timeout))
    }

    fn team_name<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        team: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(self.team_name(credential, org, team, timeout))
    }

    fn org_owners<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(self.org_owners(credential, org, timeout))
    }
}
