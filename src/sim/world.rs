//! The simulated world: credentials, projects, their clusters, the keys behind them, and the log.
//!
//! It is data and values computed from data alone. Everything that may be seeded has a default, so that
//! a seed names only the fields it needs; an unknown field is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use super::demo_names::{DEMO_APP, DEMO_TENANT, demo_key};
use super::fault::Fault;
pub use super::kms::facts::{App, Facts, KeyServices};
pub use super::senders::subscription::Subscription;
use crate::domain::time::Timestamp;

/// The whole world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct World {
    /// By group id.
    pub projects: BTreeMap<String, Project>,
    /// The organisation's teams, by id.
    pub teams: BTreeMap<String, Team>,
    /// The people of the organisation; `roles` are those they have there, such as `ORG_OWNER`.
    pub org_users: Vec<User>,
    /// Credentials that may not read the organisation.
    pub no_org: BTreeSet<String>,
    /// By identifier as its key service has it; a key that is not here does not exist.
    pub keys: BTreeMap<String, KeyState>,
    /// The key services' own side.
    pub kms: KeyServices,
    /// The subscribers to changes; see the senders.
    pub subscriptions: Vec<Subscription>,
    /// Client id to client secret.
    pub service_accounts: BTreeMap<String, String>,
    /// When the secrets of service accounts expire, by client id; one that is not here does not tell.
    pub secret_ends: BTreeMap<String, Timestamp>,
    /// Seconds a token lives.
    pub token_life: u64,
    /// Public key to private key.
    pub api_keys: BTreeMap<String, String>,
    /// The algorithm of Digest challenges.
    pub digest_algorithm: DigestAlgorithm,
    /// Seconds a nonce lives.
    pub nonce_life: u64,
    /// Whether a challenge for an old nonce says `stale=true`. Atlas was only observed with `false`.
    pub says_stale: bool,
    /// Credentials that are no longer good, and their tokens with them.
    pub revoked: BTreeSet<String>,
    /// Roles of credentials on every project; a credential that is not here is an owner.
    pub roles: BTreeMap<String, Role>,
    /// Addresses that may call the API; empty: all. Asking for a token is always allowed.
    pub access_list: Vec<String>,
    /// Rate limits by set: `encryption`, `clusters`, `alerts`, `events`, `backups`, `groups`, `users`,
    /// `teams`. A bucket whose capacity is 0 is drained until it gets another.
    pub rate_limits: BTreeMap<String, Bucket>,
    /// Odd but legal replies that a client must tolerate.
    pub odd: Odd,
    /// The script.
    pub faults: Vec<Fault>,
    /// Every request, in order.
    #[serde(skip)]
    pub log: Vec<LogEntry>,
    /// Live tokens: the service account and the end of each.
    #[serde(skip)]
    pub(super) tokens: BTreeMap<String, (String, Timestamp)>,
    /// Nonces and their ends.
    #[serde(skip)]
    pub(super) nonces: BTreeMap<String, Timestamp>,
    /// The present levels of the rate limits.
    #[serde(skip)]
    pub(super) levels: BTreeMap<(&'static str, String), Level>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            projects: BTreeMap::new(),
            teams: BTreeMap::new(),
            org_users: Vec::new(),
            no_org: BTreeSet::new(),
            keys: BTreeMap::new(),
            kms: KeyServices::default(),
            subscriptions: Vec::new(),
            service_accounts: BTreeMap::new(),
            secret_ends: BTreeMap::new(),
            token_life: 3600,
            api_keys: BTreeMap::new(),
            digest_algorithm: DigestAlgorithm::default(),
            nonce_life: 60,
            says_stale: false,
            revoked: BTreeSet::new(),
            roles: BTreeMap::new(),
            access_list: Vec::new(),
            rate_limits: BTreeMap::new(),
            odd: Odd::default(),
            faults: Vec::new(),
            log: Vec::new(),
            tokens: BTreeMap::new(),
            nonces: BTreeMap::new(),
            levels: BTreeMap::new(),
        }
    }
}

/// The hash that a challenge demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// Commercial Atlas.
    #[default]
    #[serde(rename = "MD5")]
    Md5,
    /// Atlas for Government.
    #[serde(rename = "SHA-256")]
    Sha256,
}

/// The size of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// How many requests it holds.
    pub capacity: u32,
    /// How many come back in 60 seconds.
    pub refill: u32,
}

/// The present level of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) tokens: f64,
    pub(super) at: Timestamp,
}

/// The rights of a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Project Owner.
    #[default]
    Owner,
    /// Project Read Only.
    ReadOnly,
    /// No member at all.
    None,
}

/// Odd but legal replies.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Odd {
    /// Fields that are not set are sent as null.
    pub nulls: bool,
    /// Objects have unknown fields; alerts and events have unknown types.
    pub extras: bool,
    /// `Date` has no leading zero in its day.
    pub unpadded_dates: bool,
    /// Links point at another host.
    pub links_elsewhere: bool,
    /// Headers that are left out, in lower case.
    pub omit_headers: BTreeSet<String>,
}

/// The state of a key at its key service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Switched off.
    Disabled,
    /// To be deleted.
    PendingDeletion,
    /// Made, but its material is not there yet (AWS, Google Cloud).
    Pending,
    /// Its time has not come (Azure).
    NotYetActive,
    /// Atlas may not use it.
    NoPermission,
    /// Its end is less than 48 hours away (Azure).
    Expiring,
    /// Its end has passed (Azure).
    Expired,
    /// Gone for good.
    Destroyed,
    /// Passes the check at the PATCH, and fails on the data nodes.
    FailsOnNodes,
}

/// One Atlas project.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// `AWS`, `AZURE`, `GCP`; empty when no customer-managed key is configured.
    pub provider: String,
    /// The provider's block, without `valid`. With `requirePrivateNetworking` a PATCH is accepted before
    /// the key is checked.
    pub block: Map<String, Value>,
    /// Blocks of other providers that are shown as they are, by their names. Whether Atlas ever enables two is not
    /// known.
    pub beside: Map<String, Value>,
    /// Its clusters.
    pub clusters: Vec<Cluster>,
    /// Its people.
    pub users: Vec<User>,
    /// Its teams: id to roles.
    pub teams: BTreeMap<String, Vec<String>>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Roles of credentials on this project, where they differ from the world's.
    pub roles: BTreeMap<String, Role>,
    /// Whether the block may be changed while its key is unusable. Documented: no.
    pub change_while_invalid: bool,
    /// Whether an Azure identifier may lack its version. Documented: no; seen in use: yes.
    pub versionless_keys: bool,
    /// With private networking: milliseconds after a change for which `valid` is true in any case.
    pub node_check_ms: u64,
    /// Whether Atlas cannot reach the key service: `valid` is false and an alert is open.
    pub kms_unreachable: bool,
    /// The `valid` of successive GETs, the last one for good; empty: the computed one.
    pub valid_sequence: Vec<Option<bool>>,
    /// Alert types that are open, beside those that follow from the key's state.
    pub open_alerts: BTreeSet<String>,
    /// Milliseconds for which GETs show the key from before a PATCH.
    pub stale_read_ms: u64,
    /// Milliseconds until clusters begin to update after a key change.
    pub update_after_ms: u64,
    /// Milliseconds an update takes.
    pub update_takes_ms: u64,
    /// Its events, oldest first.
    pub events: Vec<Event>,
    /// Alerts that were ever open, oldest first.
    pub alerts: Vec<Alert>,
    /// When the key last changed, and from which.
    #[serde(skip)]
    pub changed: Option<(Timestamp, String)>,
}

/// One cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    pub paused: bool,
    /// Its tier; `M30` without one.
    pub tier: Option<String>,
    /// A state it is held in, such as `REPAIRING`.
    pub held: Option<String>,
    /// Its backups.
    pub snapshots: Vec<Snapshot>,
}

/// One backup of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// When it was made.
    pub created_at: Timestamp,
    /// When it goes.
    pub expires_at: Timestamp,
    /// The key it is encrypted with; shown only when it is one of AWS.
    pub key: Option<String>,
}

/// One team of the organisation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Team {
    /// Its name.
    pub name: String,
    /// Its members.
    pub members: Vec<User>,
}

/// One person of a project.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct User {
    /// The mail address.
    pub username: String,
    /// Such as `GROUP_OWNER`.
    pub roles: Vec<String>,
    /// `ACTIVE`, `PENDING`, `INVITATION_EXPIRED` or `INVITATION_REJECTED`.
    pub status: String,
    /// Where the membership comes from.
    pub via: Via,
}

impl Default for User {
    fn default() -> Self {
        Self { username: String::new(), roles: Vec::new(), status: "ACTIVE".to_owned(), via: Via::Project }
    }
}

/// Where a person's membership comes from; lists show teams and organisation only when asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The project itself.
    #[default]
    Project,
    /// A team.
    Team,
    /// The organisation.
    Org,
}

/// One event of a project.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// 24 hex digits.
    pub id: String,
    /// When it happened.
    pub created: Timestamp,
    /// Such as `AWS_ENCRYPTION_KEY_ROTATED`.
    pub event_type_name: String,
    /// The credential that did it.
    pub public_key: Option<String>,
    /// The person who did it.
    pub username: Option<String>,
}

/// One alert of a project.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alert {
    /// 24 hex digits.
    pub id: String,
    /// Such as `AWS_ENCRYPTION_KEY_INVALID`.
    pub event_type_name: String,
    /// When it opened.
    pub created: Timestamp,
    /// When it closed, if it did.
    pub resolved: Option<Timestamp>,
}

/// One request, as received; secrets are not kept.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Counts from 1.
    pub seq: usize,
    /// When it was received.
    pub at: Timestamp,
    /// Which operation.
    pub operation: String,
    /// On which project.
    pub group_id: Option<String>,
    /// The key a PATCH carried.
    pub key: Option<String>,
    /// The known client id or public key that it named, whether or not it was let in.
    pub credential: Option<String>,
    /// When it took effect, if it did.
    pub applied_at: Option<Timestamp>,
    /// When it was answered, if it was.
    pub replied_at: Option<Timestamp>,
    /// With which status.
    pub status: Option<u16>,
}

/// The providers, in Atlas' order.
pub(super) const PROVIDERS: [&str; 3] = ["AWS", "AZURE", "GCP"];

/// The block's name in the API and its field that names the key.
pub(super) fn names(provider: &str) -> Option<(&'static str, &'static str)> {
    match provider {
        "AWS" => Some(("awsKms", "customerMasterKeyID")),
        "AZURE" => Some(("azureKeyVault", "keyIdentifier")),
        "GCP" => Some(("googleCloudKms", "keyVersionResourceID")),
        _ => None,
    }
}

impl Project {
    /// The key in force.
    #[must_use]
    pub fn key(&self) -> String {
        let field = names(&self.provider).map_or("", |(_, field)| field);
        self.block.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(super) fn set_key(&mut self, key: &str, now: Timestamp) {
        if let Some((_, field)) = names(&self.provider) {
            self.changed = Some((now, self.key()));
            self.block.insert(field.to_owned(), json!(key));
        }
    }

    /// How long ago the key changed.
    pub(super) fn since_change(&self, now: Timestamp) -> Option<Duration> {
        self.changed.as_ref().map(|(at, _)| now.since(*at))
    }

    pub(super) fn is_private(&self) -> bool {
        self.block.get("requirePrivateNetworking") == Some(&json!(true))
    }

    /// The state of `cluster` at `now`.
    pub(super) fn cluster_state(&self, cluster: &Cluster, now: Timestamp) -> String {
        if let Some(held) = &cluster.held {
            return held.clone();
        }
        let (from, takes) =
            (Duration::from_millis(self.update_after_ms), Duration::from_millis(self.update_takes_ms));
        match self.since_change(now) {
            Some(since) if !cluster.paused && since >= from && since < from + takes => "UPDATING".to_owned(),
            _ => "IDLE".to_owned(),
        }
    }
}

impl World {
    /// Whether Atlas could use `key` on its nodes.
    #[must_use]
    pub fn usable(&self, key: &str) -> bool {
        matches!(self.state(key), Some(KeyState::Enabled | KeyState::Expiring))
    }

    /// The state at the key service; an ARN and the bare id behind it are the same key.
    #[must_use]
    pub fn state(&self, key: &str) -> Option<KeyState> {
        let bare = key.rsplit("key/").next().unwrap_or(key);
        self.keys.get(key).or_else(|| self.keys.get(bare)).copied()
    }

    /// The access tokens that are valid now, for tests that search for them in places where they must
    /// not be.
    #[must_use]
    pub fn live_tokens(&self) -> Vec<String> {
        self.tokens.keys().cloned().collect()
    }

    /// The `valid` that Atlas has for the key of `project`. With private networking, it follows a change
    /// with a delay.
    pub(super) fn believed_valid(&self, project: &Project, now: Timestamp) -> bool {
        let unlooked = project.is_private()
            && project
                .since_change(now)
                .is_some_and(|since| since < Duration::from_millis(project.node_check_ms));
        !project.kms_unreachable && (unlooked || self.usable(&project.key()))
    }

    pub(super) fn role(&self, who: &str, project: &Project) -> Role {
        project.roles.get(who).or_else(|| self.roles.get(who)).copied().unwrap_or_default()
    }

    /// Takes over from `old` the fields that a seed does not hold.
    pub(super) fn go_on_from(&mut self, old: World) {
        (self.log, self.tokens, self.nonces, self.levels) = (old.log, old.tokens, old.nonces, old.levels);
        self.kms.go_on_from(old.kms);
        for (id, project) in old.projects {
            if let Some(own) = self.projects.get_mut(&id) {
                own.changed = project.changed;
            }
        }
    }

    pub(super) fn note(
        &mut self,
        at: Timestamp,
        operation: &str,
        group: Option<&str>,
        key: Option<String>,
    ) -> usize {
        let seq = self.log.len() + 1;
        self.log.push(LogEntry {
            seq,
            at,
            operation: operation.to_owned(),
            group_id: group.map(str::to_owned),
            key,
            credential: None,
            applied_at: None,
            replied_at: None,
            status: None,
        });
        seq - 1
    }
}
