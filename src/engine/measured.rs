//! Atlas as the engine calls it: every call is counted and timed. After Atlas refused an endpoint set, no
//! request to it leaves until the wait is over (`waits`).

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::Instrument;

use super::metrics::Metrics;
use super::waits::{Scope, Waits};
use crate::atlas::{AtlasApi, Group, Groups, Level, Team};
use crate::domain::event::KeyEvent;
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::rotation::outcome::{Class, Cluster, EndpointSet, Failure, Observation, PatchReply};
use crate::domain::time::{Clock, Span, Timestamp};

/// Atlas, with every call counted and timed. Its client can be replaced while calls are under way.
#[derive(Debug)]
pub struct Measured {
    inner: RwLock<Arc<dyn AtlasApi>>,
    metrics: Arc<Metrics>,
    waits: Waits,
    clock: Arc<dyn Clock>,
}

/// A call: its operation in the metrics, and the rate limit that it counts against.
struct Asked<'a> {
    operation: &'static str,
    set: EndpointSet,
    credential: &'a str,
    of: &'a str,
}

impl Measured {
    /// Counts the calls to `inner` in `metrics`. `floor` is the first wait after a refusal without `Retry-After`.
    #[must_use]
    pub fn new(inner: Arc<dyn AtlasApi>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>, floor: Span) -> Self {
        Self { inner: RwLock::new(inner), metrics, waits: Waits::new(floor), clock }
    }

    /// Directs calls to `client` from now on; calls under way end at the client where they began.
    pub fn replace(&self, client: Arc<dyn AtlasApi>) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = client;
        self.waits.clear();
    }

    /// The waits of endpoint sets that Atlas refused.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    fn client(&self) -> Arc<dyn AtlasApi> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = T>,
        class: impl FnOnce(&T) -> &'static str,
    ) -> T {
        let started = crate::domain::time::monotonic();
        let done = call.instrument(tracing::info_span!("atlas", operation)).await;
        self.metrics.call(operation, class(&done), started.elapsed());
        done
    }

    /// [`Measured::timed`] for all calls but those on the encryption configuration: not before the wait of
    /// the endpoint set is over.
    async fn patiently<T>(
        &self,
        Asked { operation, set, credential, of }: Asked<'_>,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let scope = Scope { set, credential: credential.to_owned(), of: of.to_owned() };
        if let Some(refusal) = self.waits.refusal(&scope, self.clock.now()) {
            return Err(refusal);
        }
        let answer = self.timed(operation, call, class).await;
        self.waits.note(scope, answer.as_ref().err(), self.clock.now());
        answer
    }
}

fn class<T>(answer: &Result<T, Failure>) -> &'static str {
    match answer.as_ref().map_err(|failure| failure.class) {
        Ok(_) => "ok",
        Err(Class::Auth) => "auth",
        Err(Class::Gone) => "gone",
        Err(Class::TooOld) => "too_old",
        Err(Class::Transient) => "transient",
        Err(Class::Unknown) => "unknown",
        Err(Class::BadKey | Class::Refused | Class::Config) => "refused",
    }
}

impl AtlasApi for Measured {
    fn knows(&self, credential: &str) -> bool {
        self.client().knows(credential)
    }

    fn observe<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Observation, Failure>> {
        Box::pin(async move {
            let client = self.client();
            self.timed("observe", client.observe(credential, group, timeout), class).await
        })
    }

    fn set_key<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        key: &'a KeyRef,
        timeout: Duration,
    ) -> BoxFuture<'a, PatchReply> {
        Box::pin(async move {
            let client = self.client();
            let class = |reply: &PatchReply| match reply {
                PatchReply::Accepted => "ok",
                PatchReply::Unknown(_) => "unknown",
                PatchReply::Refused(_) => "refused",
                PatchReply::NotTaken(_) => "transient",
                PatchReply::Auth(_) => "auth",
                PatchReply::Gone(_) => "gone",
            };
            self.timed("set_key", client.set_key(credential, group, key, timeout), class).await
        })
    }

    fn credentials(&self) -> Vec<String> {
        self.client().credentials()
    }

    fn levels(&self) -> Vec<Level> {
        self.client().levels()
    }

    fn identity(&self, credential: &str) -> Option<String> {
        self.client().identity(credential)
    }

    fn secret_end<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked { operation: "secret", set: EndpointSet::Groups, credential, of: org };
            self.patiently(asked, client.secret_end(credential, org, timeout)).await
        })
    }

    fn group<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Group, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked =
                Asked { operation: "group", set: EndpointSet::Groups, credential, of: group.as_str() };
            self.patiently(asked, client.group(credential, group, timeout)).await
        })
    }

    fn cmk_clusters<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        provider: Provider,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Cluster>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked =
                Asked { operation: "clusters", set: EndpointSet::Clusters, credential, of: group.as_str() };
            self.patiently(asked, client.cmk_clusters(credential, group, provider, timeout)).await
        })
    }

    fn may_change<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked {
                operation: "may_change",
                set: EndpointSet::PrivateEndpoints,
                credential,
                of: group.as_str(),
            };
            self.patiently(asked, client.may_change(credential, group, timeout)).await
        })
    }

    fn network_denied<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked =
                Asked { operation: "alerts", set: EndpointSet::Alerts, credential, of: group.as_str() };
            self.patiently(asked, client.network_denied(credential, group, timeout)).await
        })
    }

    fn groups<'a>(
        &'a self,
        credential: &'a str,
        number: u32,
        size: u32,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Groups, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked { operation: "groups", set: EndpointSet::Groups, credential, of: "" };
            self.patiently(asked, client.groups(credential, number, size, timeout)).await
        })
    }

    fn key_events<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        since: Timestamp,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<KeyEvent>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked =
                Asked { operation: "key_events", set: EndpointSet::Events, credential, of: group.as_str() };
            self.patiently(asked, client.key_events(credential, group, since, timeout)).await
        })
    }

    fn project_owners<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked {
                operation: "project_owners",
                set: EndpointSet::Users,
                credential,
                of: group.as_str(),
            };
            self.patiently(asked, client.project_owners(credential, group, timeout)).await
        })
    }

    fn teams<'a>(
        &'a self,
        credential: &'a str,
        group: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Team>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked { operation: "teams", set: EndpointSet::Teams, credential, of: group.as_str() };
            self.patiently(asked, client.teams(credential, group, timeout)).await
        })
    }

    fn team_members<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        team: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked { operation: "team_members", set: EndpointSet::Users, credential, of: org };
            self.patiently(asked, client.team_members(credential, org, team, timeout)).await
        })
    }

    fn team_name<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        team: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked { operation: "team_name", set: EndpointSet::Teams, credential, of: org };
            self.patiently(asked, client.team_name(credential, org, team, timeout)).await
        })
    }

    fn org_owners<'a>(
        &'a self,
        credential: &'a str,
        org: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let client = self.client();
            let asked = Asked { operation: "org_owners", set: EndpointSet::Users, credential, of: org };
            self.patiently(asked, client.org_owners(credential, org, timeout)).await
        })
    }
}
