//! Data of the key services beyond the state of each key: seeded with the world, shown by the services.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::time::Timestamp;

/// Data of the key services beyond the state of each key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KeyServices {
    /// AWS: alias, such as `alias/atlas-prod`, to the id of a key.
    pub aliases: BTreeMap<String, String>,
    /// By identifier, as in [`World::keys`](crate::sim::World::keys).
    pub facts: BTreeMap<String, Facts>,
    /// Google: key to its primary version; without one it is the version with the highest number.
    /// An empty text means that the key has none.
    pub primaries: BTreeMap<String, String>,
    /// AWS: access key id to secret.
    pub aws_keys: BTreeMap<String, String>,
    /// Azure: applications by client id.
    pub azure_apps: BTreeMap<String, App>,
    /// Google: service accounts' addresses to their public keys (PEM).
    pub gcp_accounts: BTreeMap<String, String>,
    /// Operations that are denied to the client's identity: `kms:DescribeKey`, `keys/get`,
    /// `cloudkms.cryptoKeys.get` and so on.
    pub denied: BTreeSet<String>,
    /// Vaults whose firewall keeps every client out.
    pub firewalled: BTreeSet<String>,
    /// Entries on a page of a list.
    pub page: usize,
    /// The address of the next page, instead of the service's own.
    pub next_page_at: Option<String>,
    /// Live tokens of Entra: the application and the end of each.
    #[serde(skip)]
    pub(in crate::sim) tokens: BTreeMap<String, (String, Timestamp)>,
}

impl Default for KeyServices {
    fn default() -> Self {
        Self {
            aliases: BTreeMap::new(),
            facts: BTreeMap::new(),
            primaries: BTreeMap::new(),
            aws_keys: BTreeMap::new(),
            azure_apps: BTreeMap::new(),
            gcp_accounts: BTreeMap::new(),
            denied: BTreeSet::new(),
            firewalled: BTreeSet::new(),
            page: 25,
            next_page_at: None,
            tokens: BTreeMap::new(),
        }
    }
}

impl KeyServices {
    /// Takes over from `old` the fields that a seed does not hold.
    pub(in crate::sim) fn go_on_from(&mut self, old: KeyServices) {
        self.tokens = old.tokens;
    }
}

/// The properties of a key that its service shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Facts {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it ends (Azure `exp`, AWS `ValidTo`).
    pub expires: Option<Timestamp>,
    /// The start of its use (Azure `nbf`).
    pub not_before: Option<Timestamp>,
    /// When it will be gone.
    pub deletion_date: Option<Timestamp>,
    /// AWS: the one region it exists in; all of them when no region is named.
    pub region: Option<String>,
    /// AWS: the key spec; Azure: the key type; Google: the purpose.
    pub kind: Option<String>,
    /// Azure: the permitted operations.
    pub operations: Option<Vec<String>>,
    /// AWS: the current key material.
    pub material: Option<String>,
}

/// An application of Entra.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct App {
    /// Its directory.
    pub tenant: String,
    /// Its client secret.
    pub secret: String,
    /// Whether the secret has expired.
    pub expired: bool,
    /// A federated token that it may log in with.
    pub federated: Option<String>,
}
