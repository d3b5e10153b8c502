//! The names of the demo's keys, directory and application.

/// The demo's directory in Entra.
pub const DEMO_TENANT: &str = "00000000-0000-4000-8000-000000000002";
/// The demo's application in it.
pub const DEMO_APP: &str = "00000000-0000-4000-8000-000000000009";

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
