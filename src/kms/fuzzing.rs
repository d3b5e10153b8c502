//! The functions of the lookups that the fuzz targets call: the readers of replies, without a request.
//!
//! AWS is missing here, because Amazon's own crate reads its replies.

use serde_json::Value;
use url::Url;

use super::http::KmsResponse;
use super::{Found, KmsError, azure, gcp};
use crate::domain::key::AzureKey;

/// The key in Cloud KMS' description of a version and of its key.
///
/// # Errors
/// As in the lookup.
pub fn gcp(version: &Value, crypto_key: &Value) -> Result<Found, KmsError> {
    gcp::found(version, crypto_key)
}

/// The primary version of a key in Cloud KMS, with its number.
///
/// # Errors
/// As in the lookup.
pub fn gcp_primary(crypto_key: &Value) -> Result<(u64, Found), KmsError> {
    let version = gcp::primary(crypto_key, "the key")?;
    Ok((gcp::number(&version)?, gcp::found(&version, crypto_key)?))
}

/// The ciphertext of a reply, when it agrees with its checksum.
///
/// # Errors
/// As in the probe.
pub fn gcp_ciphertext(reply: &Value) -> Result<Vec<u8>, KmsError> {
    gcp::checked(reply, "ciphertext")
}

/// The failures in Cloud KMS' and Key Vault's refusals.
#[must_use]
pub fn refusals(status: u16, body: &[u8]) -> [KmsError; 2] {
    let reply = KmsResponse { status, body: body.to_owned() };
    [gcp::failure(&reply, "cloudkms.viewer"), azure::failure(&reply, "get and list")]
}

/// The id of a version of `key` in Key Vault's reply.
///
/// # Errors
/// As in the lookup.
pub fn azure(item: &Value, key: &AzureKey) -> Result<String, KmsError> {
    azure::version(item, item["kid"].as_str(), key).map(|version| version.id)
}

/// The next page of a list, when our token may be sent there.
#[must_use]
pub fn azure_next(first: &Url, link: &str) -> Option<Url> {
    azure::same_list(first, link).ok()
}
