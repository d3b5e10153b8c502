//! What the fuzz targets call of the key services: what is made of a reply, without asking for it.
//!
//! AWS is not here, because Amazon's own crate reads its replies.

use serde_json::Value;
use url::Url;

use super::http::KmsResponse;
use super::{Found, KmsError, azure, gcp};
use crate::domain::key::AzureKey;

/// What Cloud KMS' description of a version and of its key comes to.
///
/// # Errors
/// As the lookup has it.
pub fn gcp(version: &Value, crypto_key: &Value) -> Result<Found, KmsError> {
    gcp::found(version, crypto_key)
}

/// The primary version of a key in Cloud KMS, with its number.
///
/// # Errors
/// As the lookup has it.
pub fn gcp_primary(crypto_key: &Value) -> Result<(u64, Found), KmsError> {
    let version = gcp::primary(crypto_key, "the key")?;
    Ok((gcp::number(&version)?, gcp::found(&version, crypto_key)?))
}

/// The ciphertext of a reply, when it agrees with its checksum.
///
/// # Errors
/// As the probe has it.
pub fn gcp_ciphertext(reply: &Value) -> Result<Vec<u8>, KmsError> {
    gcp::checked(reply, "ciphertext")
}

/// What Cloud KMS' and Key Vault's refusals come to.
#[must_use]
pub fn refusals(status: u16, body: &[u8]) -> [KmsError; 2] {
    let reply = KmsResponse { status, body: body.to_owned() };
    [gcp::failure(&reply, "cloudkms.viewer"), azure::failure(&reply, "get and list")]
}

/// The id of a version that Key Vault shows of `key`.
///
/// # Errors
/// As the lookup has it.
pub fn azure(item: &Value, key: &AzureKey) -> Result<String, KmsError> {
    azure::version(item, item["kid"].as_str(), key).map(|version| version.id)
}

/// The next page of a list, when it may be asked for with our token.
#[must_use]
pub fn azure_next(first: &Url, link: &str) -> Option<Url> {
    azure::same_list(first, link).ok()
}
