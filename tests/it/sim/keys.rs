//! Which keys a PATCH takes: form, place, and what the key service says of them.

use keywheel::sim::world::{KeyState, demo_key};

use super::Site;
use crate::support::{group, new_key, old_key};

use KeyState as K;

/// A state, and status and code of the refusal.
type KeyCase = (Option<KeyState>, u16, &'static str);

fn aws(key: &str) -> String {
    format!(r#"{{"awsKms":{{"customerMasterKeyID":"{key}"}}}}"#)
}

fn azure(key: &str) -> String {
    format!(r#"{{"azureKeyVault":{{"keyIdentifier":"{key}"}}}}"#)
}

fn gcp(key: &str) -> String {
    format!(r#"{{"googleCloudKms":{{"keyVersionResourceID":"{key}"}}}}"#)
}

/// Whatever is refused changes nothing.
async fn refused(site: &Site, number: u64, body: &str, status: u16, code: &str) {
    let before = site.sim.with(|world| world.projects[&group(number)].key());
    site.patch(number, body).await.refused(status, code);
    assert_eq!(site.sim.with(|world| world.projects[&group(number)].key()), before);
}

#[tokio::test]
async fn an_aws_key_must_be_an_id_or_an_arn() {
    let site = Site::new().await;
    for key in [
        "nonsense",
        "alias/mine",
        "arn:aws:kms:eu-central-1:123456789012:alias/mine",
        "arn:aws:s3:eu-central-1:123456789012:key/00000001-aaaa-4aaa-8aaa-000000000002",
        "mrk-123",
        "00000001aaaa4aaa8aaa000000000002",
    ] {
        refused(&site, 1, &aws(key), 404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND").await;
    }
    refused(&site, 1, &aws(""), 400, "INVALID_ATTRIBUTE").await;
    refused(&site, 1, &aws(&"a".repeat(2049)), 400, "INVALID_ATTRIBUTE").await;
}

#[tokio::test]
async fn an_aws_key_may_be_an_arn_or_multi_region() {
    let site = Site::new().await;
    let mrk = "mrk-00000000000000000000000000000001";
    site.sim.with(|world| world.keys.insert(mrk.to_owned(), K::Enabled));
    for key in [format!("arn:aws:kms:eu-central-1:123456789012:key/{}", new_key()), mrk.to_owned()] {
        let reply = site.patch(1, &aws(&key)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["awsKms"]["customerMasterKeyID"], key);
        assert_eq!(reply.json()["awsKms"]["valid"], true);
    }
}

#[tokio::test]
async fn an_aws_key_of_another_region_is_refused() {
    let site = Site::new().await;
    let key = format!("arn:aws:kms:us-east-1:123456789012:key/{}", new_key());
    refused(&site, 1, &aws(&key), 400, "AWS_KMS_REGION_NOT_SUPPORTED").await;
    let moved = aws(&key).replace("}}", r#","region":"US_EAST_1"}}"#);
    assert_eq!(site.patch(1, &moved).await.status, 200);
}

#[tokio::test]
async fn an_azure_identifier_must_be_a_full_url() {
    let site = Site::new().await;
    let good = demo_key("AZURE", "identity-prod", 5, 2);
    for key in [
        good.replace("https://", "http://"),
        good.replace("https://", ""),
        good.replace("/keys/", "/secrets/"),
        good.replace("vault.azure.net", "example.com"),
        format!("{good}00"),
        format!("{good}/more"),
        good.rsplit_once('/').unwrap().0.to_owned(),
    ] {
        refused(&site, 5, &azure(&key), 400, "AZURE_KEY_VAULT_KEY_IDENTIFIER_INVALID_FORMAT").await;
    }
}

#[tokio::test]
async fn a_versionless_azure_identifier_is_taken_only_where_that_is_set() {
    let site = Site::new().await;
    let key = "https://kw-demo.vault.azure.net/keys/identity-prod";
    site.sim.with(|world| world.keys.insert(key.to_owned(), K::Enabled));
    refused(&site, 5, &azure(key), 400, "AZURE_KEY_VAULT_KEY_IDENTIFIER_INVALID_FORMAT").await;
    let set = r#"{"versionlessKeys":true}"#;
    site.control(&format!("POST /sim/v1/projects/{}", group(5)), set).await;
    assert_eq!(site.patch(5, &azure(key)).await.status, 200);
}

#[tokio::test]
async fn an_azure_key_of_another_vault_is_refused_unless_the_vault_changes_too() {
    let site = Site::new().await;
    let key = demo_key("AZURE", "identity-prod", 5, 2).replace("kw-demo", "other");
    site.sim.with(|world| world.keys.insert(key.clone(), K::Enabled));
    refused(&site, 5, &azure(&key), 400, "INVALID_AZURE_API_REQUEST").await;
    let moved = azure(&key).replace("}}", r#","keyVaultName":"other"}}"#);
    let reply = site.patch(5, &moved).await;
    assert_eq!((reply.status, &reply.json()["azureKeyVault"]["keyVaultName"]), (200, &"other".into()));
}

#[tokio::test]
async fn a_google_cloud_key_must_be_the_path_of_a_version() {
    let site = Site::new().await;
    let good = demo_key("GCP", "analytics-prod", 9, 2);
    for key in [
        "nonsense".to_owned(),
        good.rsplit_once("/cryptoKeyVersions").unwrap().0.to_owned(),
        good.replace("/keyRings/atlas", "/keyRings/"),
        good.replace("cryptoKeyVersions/2", "cryptoKeyVersions/primary"),
        format!("{good}/more"),
    ] {
        refused(&site, 9, &gcp(&key), 400, "GOOGLE_CLOUD_KMS_KEY_VERSION_NOT_FOUND").await;
    }
    assert_eq!(site.patch(9, &gcp(&good)).await.status, 200);
}

#[tokio::test]
async fn every_state_of_a_key_has_its_code() {
    let site = Site::new().await;
    let aws_rows: [KeyCase; 6] = [
        (None, 404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND"),
        (Some(K::Destroyed), 404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND"),
        (Some(K::Disabled), 400, "AWS_KMS_CUSTOMER_MASTER_KEY_NOT_ENABLED"),
        (Some(K::PendingDeletion), 400, "AWS_KMS_CUSTOMER_MASTER_KEY_PENDING_DELETION"),
        (Some(K::Pending), 400, "AWS_KMS_CUSTOMER_MASTER_KEY_PENDING_IMPORT"),
        (Some(K::NoPermission), 400, "NO_PERMISSION_TO_ENCRYPT_DECRYPT"),
    ];
    let azure_rows: [KeyCase; 8] = [
        (None, 400, "AZURE_KEY_VAULT_KEY_NOT_FOUND"),
        (Some(K::Destroyed), 400, "AZURE_KEY_VAULT_KEY_NOT_FOUND"),
        (Some(K::Disabled), 400, "AZURE_KEY_VAULT_KEY_NOT_ENABLED"),
        (Some(K::PendingDeletion), 400, "AZURE_KEY_VAULT_KEY_NOT_ENABLED"),
        (Some(K::Expiring), 400, "AZURE_KEY_VAULT_KEY_EXPIRING"),
        (Some(K::Expired), 400, "AZURE_KEY_VAULT_KEY_EXPIRED"),
        (Some(K::NotYetActive), 400, "AZURE_KEY_VAULT_KEY_NOT_ACTIVE"),
        (Some(K::NoPermission), 400, "NO_PERMISSION_TO_ENCRYPT_DECRYPT"),
    ];
    let gcp_rows: [KeyCase; 6] = [
        (None, 400, "GOOGLE_CLOUD_KMS_KEY_VERSION_NOT_FOUND"),
        (Some(K::Disabled), 400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DISABLED"),
        (Some(K::Destroyed), 400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROYED"),
        (Some(K::PendingDeletion), 400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROY_SCHEDULED"),
        (Some(K::Pending), 400, "GOOGLE_CLOUD_KMS_KEY_VERSION_PENDING_GENERATION"),
        (Some(K::NoPermission), 400, "NO_PERMISSION_TO_ENCRYPT_DECRYPT"),
    ];
    let azure_key = demo_key("AZURE", "identity-prod", 5, 2);
    let gcp_key = demo_key("GCP", "analytics-prod", 9, 2);
    for (number, key, body, rows) in [
        (1, new_key(), aws(&new_key()), &aws_rows[..]),
        (5, azure_key.clone(), azure(&azure_key), &azure_rows[..]),
        (9, gcp_key.clone(), gcp(&gcp_key), &gcp_rows[..]),
    ] {
        for (state, status, code) in rows {
            site.sim.with(|world| match state {
                Some(state) => world.keys.insert(key.clone(), *state),
                None => world.keys.remove(&key),
            });
            refused(&site, number, &body, *status, code).await;
        }
    }
}

#[tokio::test]
async fn a_key_that_fails_on_the_nodes_is_taken_and_then_not_valid() {
    let site = Site::new().await;
    site.sim.with(|world| world.keys.insert(new_key(), K::FailsOnNodes));
    let reply = site.patch(1, &aws(&new_key())).await;
    assert_eq!((reply.status, &reply.json()["awsKms"]["valid"]), (200, &false.into()));
}

#[tokio::test]
async fn nothing_changes_while_the_key_in_force_cannot_be_used() {
    let site = Site::new().await;
    site.sim.with(|world| world.keys.insert(old_key(), K::Disabled));
    assert_eq!(site.encryption(1).await["awsKms"]["valid"], false);
    refused(&site, 1, &aws(&new_key()), 400, "ENCRYPTION_AT_REST_SETTINGS_INVALID").await;
    // A key that is no better is not even looked at.
    refused(&site, 1, &aws("nonsense"), 400, "ENCRYPTION_AT_REST_SETTINGS_INVALID").await;
    let project = format!("POST /sim/v1/projects/{}", group(1));
    site.control(&project, r#"{"changeWhileInvalid":true}"#).await;
    assert_eq!(site.patch(1, &aws(&new_key())).await.status, 200);
}
