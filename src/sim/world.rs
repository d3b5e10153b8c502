//! The simulated world: projects, their clusters, the keys behind them, and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fault::Fault;
use crate::domain::time::Timestamp;

/// Everything there is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct World {
    /// By group id.
    pub projects: BTreeMap<String, Project>,
    /// By identifier as a key service knows it; what is not here does not exist.
    pub keys: BTreeMap<String, KeyState>,
    /// Client id to client secret.
    pub service_accounts: BTreeMap<String, String>,
    /// Seconds a token lives.
    pub token_life: u64,
    /// The script.
    pub faults: Vec<Fault>,
    /// Every request, in order.
    #[serde(skip)]
    pub log: Vec<LogEntry>,
    /// Live tokens.
    #[serde(skip)]
    pub(super) tokens: BTreeMap<String, Timestamp>,
}

/// What a key service says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Switched off.
    Disabled,
    /// To be deleted.
    PendingDeletion,
    /// Atlas may not use it.
    NoPermission,
    /// Its end is less than 48 hours away (Azure).
    Expiring,
    /// Gone for good.
    Destroyed,
    /// Passes the check at the PATCH, and fails on the data nodes.
    FailsOnNodes,
}

/// One Atlas project.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// `AWS`, `AZURE`, `GCP`; empty when no customer-managed key is configured.
    pub provider: String,
    /// The provider's block, without `valid`.
    pub block: Map<String, Value>,
    /// Its clusters.
    pub clusters: Vec<Cluster>,
    /// Whether the block may be changed while its key is unusable. Documented: no.
    pub change_while_invalid: bool,
    /// What GETs say of `valid`, one after another, the last one for good; empty: the truth.
    pub valid_sequence: Vec<Option<bool>>,
    /// Alert types that are open.
    pub open_alerts: BTreeSet<String>,
    /// Milliseconds for which GETs show the key from before a PATCH.
    pub stale_read_ms: u64,
    /// Milliseconds until clusters begin to update after a key change.
    pub update_after_ms: u64,
    /// Milliseconds an update takes.
    pub update_takes_ms: u64,
    /// When the key last changed, and from which.
    #[serde(skip)]
    pub changed: Option<(Timestamp, String)>,
}

/// One cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    pub paused: bool,
    /// A state it is held in, such as `REPAIRING`.
    pub held: Option<String>,
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
    /// When it took effect, if it did.
    pub applied_at: Option<Timestamp>,
    /// When it was answered, if it was.
    pub replied_at: Option<Timestamp>,
    /// With which status.
    pub status: Option<u16>,
}

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

    /// The state of cluster `index` at `now`.
    pub(super) fn cluster_state(&self, cluster: &Cluster, now: Timestamp) -> String {
        if let Some(held) = &cluster.held {
            return held.clone();
        }
        let since = self.changed.as_ref().map(|(at, _)| now.since(*at));
        let (from, takes) =
            (Duration::from_millis(self.update_after_ms), Duration::from_millis(self.update_takes_ms));
        match since {
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

    /// What the key service says; an ARN and the bare id behind it are the same key.
    #[must_use]
    pub fn state(&self, key: &str) -> Option<KeyState> {
        let bare = key.rsplit("key/").next().unwrap_or(key);
        self.keys.get(key).or_else(|| self.keys.get(bare)).copied()
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
            applied_at: None,
            replied_at: None,
            status: None,
        });
        seq - 1
    }

    /// A dozen projects on three providers, in the states a fleet has, and fresh keys to move to.
    #[must_use]
    pub fn demo() -> Self {
        let mut world = World { token_life: 3600, ..World::default() };
        world.service_accounts.insert("mdb_sa_id_demo".to_owned(), "mdb_sa_sk_demo".to_owned());
        let names = [
            ("payments-prod", "AWS"),
            ("payments-staging", "AWS"),
            ("ledger-prod", "AWS"),
            ("search-prod", "AWS"),
            ("identity-prod", "AZURE"),
            ("identity-test", "AZURE"),
            ("claims-prod", "AZURE"),
            ("mobile-prod", "AZURE"),
            ("analytics-prod", "GCP"),
            ("analytics-test", "GCP"),
            ("catalog-prod", "GCP"),
            ("billing-prod", "GCP"),
        ];
        for (number, (name, provider)) in (1u32..).zip(names) {
            let group = format!("{:024x}", 0x0065_aa00_0000_u64 + u64::from(number));
            let keys = [1, 2].map(|version| demo_key(provider, name, number, version));
            for key in &keys {
                world.keys.insert(key.clone(), KeyState::Enabled);
            }
            let mut project = Project {
                name: name.to_owned(),
                provider: provider.to_owned(),
                block: demo_block(provider, &keys[0]),
                clusters: vec![Cluster { name: format!("{name}-0"), ..Cluster::default() }],
                update_after_ms: 200,
                update_takes_ms: 900,
                ..Project::default()
            };
            if name == "search-prod" {
                // Accepted at first, bad on the nodes; this Atlas lets go of a bad key, the documented one may not.
                world.keys.insert(keys[1].clone(), KeyState::FailsOnNodes);
                project.change_while_invalid = true;
            }
            if name == "mobile-prod" {
                world.keys.insert(keys[0].clone(), KeyState::Disabled);
            }
            world.projects.insert(group, project);
        }
        world
    }
}

/// The identifier of a demo project's key; version 1 is in force, version 2 is the one to move to.
#[must_use]
pub fn demo_key(provider: &str, name: &str, number: u32, version: u32) -> String {
    match provider {
        "AWS" => format!("{number:08x}-aaaa-4aaa-8aaa-{version:012x}"),
        "AZURE" => format!("https://kw-demo.vault.azure.net/keys/{name}/{version:032x}"),
        _ => format!(
            "projects/kw-demo/locations/europe-west3/keyRings/atlas/cryptoKeys/{name}/cryptoKeyVersions/{version}"
        ),
    }
}

fn demo_block(provider: &str, key: &str) -> Map<String, Value> {
    let block = match provider {
        "AWS" => json!({
            "enabled": true, "customerMasterKeyID": key, "region": "EU_CENTRAL_1",
            "roleId": "65aa00000000000000000001", "requirePrivateNetworking": false,
        }),
        "AZURE" => json!({
            "enabled": true, "keyIdentifier": key, "azureEnvironment": "AZURE", "keyVaultName": "kw-demo",
            "clientID": "00000000-0000-4000-8000-000000000001", "tenantID": "00000000-0000-4000-8000-000000000002",
            "subscriptionID": "00000000-0000-4000-8000-000000000003", "resourceGroupName": "kw",
            "requirePrivateNetworking": false,
        }),
        _ => json!({ "enabled": true, "keyVersionResourceID": key, "roleId": "65aa00000000000000000002" }),
    };
    block.as_object().cloned().unwrap_or_default()
}
