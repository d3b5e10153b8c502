//! The world of the demo and of most tests: a dozen projects on three providers.
//!
//! Only a seed; it holds no behaviour.

use serde_json::{Map, Value, json};

use super::demo_names::{DEMO_APP, DEMO_TENANT, demo_key};
use super::world::{App, Cluster, Facts, KeyState, Project, User, World};

impl World {
    /// A dozen projects on three providers, in the states a fleet has, and fresh keys to move to.
    #[must_use]
    pub fn demo() -> Self {
        let mut world = World::default();
        world.service_accounts.insert("mdb_sa_id_demo".to_owned(), "mdb_sa_sk_demo".to_owned());
        world.kms.aws_keys.insert("AKIAKEYWHEELDEMO0000".to_owned(), "keywheel-demo-aws".to_owned());
        let app = App {
            tenant: DEMO_TENANT.to_owned(),
            secret: "keywheel-demo-azure".to_owned(),
            ..App::default()
        };
        world.kms.azure_apps.insert(DEMO_APP.to_owned(), app);
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
            for (key, month) in keys.iter().zip([1, 2]) {
                world.keys.insert(key.clone(), KeyState::Enabled);
                let created = format!("2026-{month:02}-01T00:00:00Z").parse().ok();
                world.kms.facts.insert(key.clone(), Facts { created, ..Facts::default() });
            }
            if provider == "AWS" {
                world.kms.aliases.insert(format!("alias/{name}"), keys[0].clone());
            }
            let mut project = Project {
                name: name.to_owned(),
                provider: provider.to_owned(),
                block: demo_block(provider, &keys[0]),
                clusters: vec![Cluster { name: format!("{name}-0"), ..Cluster::default() }],
                users: owners(name),
                tags: [("environment".to_owned(), name.rsplit('-').next().unwrap_or_default().to_owned())]
                    .into(),
                update_after_ms: 200,
                update_takes_ms: 900,
                ..Project::default()
            };
            if name == "search-prod" {
                // Accepted by the PATCH, unusable on the nodes. This Atlas allows a change away from a
                // bad key; the documented one may not.
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

fn owners(project: &str) -> Vec<User> {
    // One project has no owner: real fleets have such projects too.
    if project == "catalog-prod" {
        return Vec::new();
    }
    let team = project.split('-').next().unwrap_or_default();
    vec![User {
        username: format!("{team}-owners@example.com"),
        roles: vec!["GROUP_OWNER".to_owned()],
        ..User::default()
    }]
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
