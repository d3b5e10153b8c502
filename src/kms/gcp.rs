//! Google Cloud KMS over REST. Tokens come from Google's own crate, so a service-account file, a
//! workload identity, a user's credentials and the metadata server work as they do elsewhere.
//!
//! Versions sort as numbers. The primary version counts unless the lookup follows the newest; a key
//! may have no primary. Both directions of a probe are checked by CRC32C, as Google requires of its
//! clients: a bit that flipped on the way must not pass for a working key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use google_cloud_auth::credentials::service_account::{AccessSpecifier, Builder as ServiceAccount};
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder as DefaultCredentials};
use serde_json::{Value, json};
use url::Url;

use super::error::{ErrorKind, KmsError};
use super::http::{Http, KmsResponse, below, send};
use super::{Connected, Found, KeyService, KeyState, PROBE, SetupError, Unfit, Watched, came_back, within};
use crate::config::kms::{Follow, Kms, Login};
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::time::Timestamp;
use crate::net::cause::root_cause;
use crate::secret::Secret;

const SERVICE: &str = "Google Cloud KMS";
const BASE: &str = "https://cloudkms.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
const VERSIONS: &str = "/cryptoKeyVersions/";
/// Pages of a version list that are read; a key with more versions needs `follow = "primary"`.
const MOST_PAGES: usize = 100;

#[derive(Debug)]
pub(super) struct Gcp {
    http: Http,
    base: Url,
    timeout: Duration,
    follow: Follow,
    account: Option<Secret>,
    /// Created at the first use and dropped after a failure, because it caches the failure.
    credentials: Mutex<Option<Arc<AccessTokenCredentials>>>,
}

impl Gcp {
    pub(super) fn new(name: &str, options: Kms) -> Result<Self, SetupError> {
        let Kms { timeout, endpoint, login } = options;
        let timeout = timeout.get();
        let bad = |setting, problem| SetupError::Setting { name: name.to_owned(), setting, problem };
        let (account, follow) = match login {
            Login::Gcp { service_account, follow } => (service_account, follow),
            _ => (None, Follow::Primary),
        };
        if let Some(account) = &account {
            service_account(account).map_err(|problem| bad("service_account", problem.to_string()))?;
        }
        let base = match endpoint {
            Some(endpoint) => endpoint,
            None => Url::parse(BASE).map_err(|error| bad("endpoint", error.to_string()))?,
        };
        let http = Http::new(Some(&base), timeout).map_err(|problem| bad("kind", problem.to_string()))?;
        Ok(Self { http, base, timeout, follow, account, credentials: Mutex::default() })
    }

    async fn token(&self) -> Result<String, KmsError> {
        let credentials = self.credentials()?;
        match credentials.access_token().await {
            Ok(token) => Ok(token.token),
            Err(error) => {
                *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(no_log_in(&root_cause(&error)))
            }
        }
    }

    fn credentials(&self) -> Result<Arc<AccessTokenCredentials>, KmsError> {
        let mut held = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = held.as_ref() {
            return Ok(Arc::clone(credentials));
        }
        let made = match &self.account {
            Some(account) => service_account(account).map_err(|problem| problem.to_string()),
            None => DefaultCredentials::default()
                .with_scopes([SCOPE])
                .build_access_token_credentials()
                .map_err(|error| root_cause(&error)),
        };
        let made = Arc::new(made.map_err(|why| no_log_in(&why))?);
        *held = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, KmsError> {
        let mut url = self.url(path, "");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let token = self.token().await?;
        let reply = send(self.http.get(url).bearer_auth(&token), SERVICE).await?;
        read(reply, "cloudkms.viewer", &token)
    }

    async fn act(&self, path: &str, verb: &str, body: &Value) -> Result<Value, KmsError> {
        let url = self.url(path, verb);
        let token = self.token().await?;
        let reply = send(self.http.post(url).bearer_auth(&token).json(body), SERVICE).await?;
        read(reply, "cloudkms.cryptoKeyEncrypterDecrypter", &token)
    }

    /// The URL of a resource; `verb` is `:encrypt` or another.
    fn url(&self, path: &str, verb: &str) -> Url {
        let path = format!("{path}{verb}");
        below(&self.base, ["v1"].into_iter().chain(path.split('/')))
    }

    async fn newest_of(&self, key: &str) -> Result<Found, KmsError> {
        let crypto_key = self.ask(key, &[]).await?;
        let version = match self.follow {
            Follow::Primary => primary(&crypto_key, key)?,
            Follow::Newest => self.newest_enabled(key).await?,
        };
        found(&version, &crypto_key)
    }

    async fn newest_enabled(&self, key: &str) -> Result<Value, KmsError> {
        let path = format!("{key}/cryptoKeyVersions");
        let mut newest: Option<(u64, Value)> = None;
        let mut page = String::new();
        for _ in 0..MOST_PAGES {
            let mut query = vec![("filter", "state=ENABLED"), ("pageSize", "100")];
            if !page.is_empty() {
                query.push(("pageToken", &page));
            }
            let body = self.ask(&path, &query).await?;
            for version in body["cryptoKeyVersions"].as_array().into_iter().flatten() {
                let number = number(version)?;
                // The service filters the list; the state is checked here all the same.
                if version["state"] == "ENABLED" && newest.as_ref().is_none_or(|(best, _)| number > *best) {
                    newest = Some((number, version.clone()));
                }
            }
            body["nextPageToken"].as_str().unwrap_or_default().clone_into(&mut page);
            if page.is_empty() {
                return newest.map(|(_, version)| version).ok_or_else(|| {
                    KmsError::new(
                        ErrorKind::Unusable,
                        format!("{key} has no ENABLED version"),
                        "enable a version, or make one: gcloud kms keys versions create",
                    )
                });
            }
        }
        Err(KmsError::new(
            ErrorKind::Broken,
            format!("the list of the versions of {key} does not end after {MOST_PAGES} pages"),
            "destroy unused versions, or set follow = \"primary\"",
        ))
    }

    async fn describe_version(&self, version: &str, key: &str) -> Result<Found, KmsError> {
        let body = self.ask(version, &[]).await?;
        if body["name"].as_str() != Some(version) {
            return Err(KmsError::broken(format!(
                "{SERVICE} described {} instead of {version}",
                body["name"]
            )));
        }
        let crypto_key = self.ask(key, &[]).await?;
        found(&body, &crypto_key)
    }

    async fn try_out(&self, version: &str, key: &str) -> Result<(), KmsError> {
        let body =
            json!({ "plaintext": STANDARD.encode(PROBE), "plaintextCrc32c": crc32c(&PROBE).to_string() });
        let sealed = self.act(version, ":encrypt", &body).await?;
        if sealed["name"].as_str() != Some(version) {
            return Err(KmsError::broken(format!(
                "{SERVICE} encrypted with {} instead of {version}",
                sealed["name"]
            )));
        }
        if sealed["verifiedPlaintextCrc32c"] != true {
            return Err(KmsError::broken("the plaintext did not arrive as it was sent (CRC32C)"));
        }
        let ciphertext = checked(&sealed, "ciphertext")?;
        let body = json!({
            "ciphertext": STANDARD.encode(&ciphertext),
            "ciphertextCrc32c": crc32c(&ciphertext).to_string(),
        });
        // Decryption takes the key, never one of its versions: the ciphertext names the version.
        let opened = self.act(key, ":decrypt", &body).await?;
        came_back(Some(&checked(&opened, "plaintext")?))
    }
}

impl KeyService for Gcp {
    fn provider(&self) -> Option<Provider> {
        Some(Provider::Gcp)
    }

    fn newest<'a>(
        &'a self,
        of: Watched<'a>,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<Found>, KmsError>> {
        Box::pin(async move {
            let (_, key) = paths(of.key)?;
            within(self.timeout, SERVICE, self.newest_of(&key)).await.map(Some)
        })
    }

    fn describe<'a>(&'a self, key: &'a KeyRef, _: &'a Place) -> BoxFuture<'a, Result<Found, KmsError>> {
        Box::pin(async move {
            let (version, key) = paths(key)?;
            within(self.timeout, SERVICE, self.describe_version(&version, &key)).await
        })
    }

    fn probe<'a>(&'a self, key: &'a KeyRef, _: &'a Place) -> BoxFuture<'a, Result<(), KmsError>> {
        Box::pin(async move {
            let (version, key) = paths(key)?;
            within(self.timeout, SERVICE, self.try_out(&version, &key)).await
        })
    }
}

impl Connected for Gcp {
    fn log_in(&self) -> BoxFuture<'_, Result<String, KmsError>> {
        Box::pin(async move {
            within(self.timeout, "the source of Google's tokens", self.token()).await?;
            Ok(if self.account.is_some() {
                // Such a token is signed here; only the first lookup shows whether Google accepts it.
                "the service account's key can sign".to_owned()
            } else {
                "the application default credentials gave a token".to_owned()
            })
        })
    }
}

fn read(reply: KmsResponse, role: &str, token: &str) -> Result<Value, KmsError> {
    if reply.is_success() { reply.object(SERVICE) } else { Err(failure(&reply.without(token), role)) }
}

/// Why a service account's key cannot be used. The text never holds the key.
#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error("it is no JSON object; {WANTED}")]
    NoObject,
    #[error("its member {0:?} is no text; {WANTED}")]
    NoText(String),
    #[error("{}; {WANTED}", root_cause(.0))]
    Refused(#[source] google_cloud_auth::build_errors::Error),
}

const WANTED: &str = "give the JSON of a service account's key, as the console writes it";

/// The login of a service account.
fn service_account(account: &Secret) -> Result<AccessTokenCredentials, AccountError> {
    // Checked to be an object of strings: the crate's own message would quote any other shape, and with
    // it the key.
    let key: serde_json::Map<String, Value> =
        serde_json::from_str(account.expose()).map_err(|_| AccountError::NoObject)?;
    if let Some((name, _)) = key.iter().find(|(_, value)| !value.is_string()) {
        return Err(AccountError::NoText(name.clone()));
    }
    let key = Value::Object(key);
    ServiceAccount::new(key)
        .with_access_specifier(AccessSpecifier::from_scopes([SCOPE]))
        .build_access_token_credentials()
        .map_err(AccountError::Refused)
}

/// The paths of the version and of its key.
fn paths(key: &KeyRef) -> Result<(String, String), KmsError> {
    let KeyRef::Gcp(_) = key else { return Err(KmsError::foreign(SERVICE, key)) };
    let version = key.to_string().trim().to_owned();
    let key = version.split(VERSIONS).next().unwrap_or_default().to_owned();
    Ok((version, key))
}

pub(super) fn primary(crypto_key: &Value, key: &str) -> Result<Value, KmsError> {
    let primary = &crypto_key["primary"];
    let (name, state) = (primary["name"].as_str(), primary["state"].as_str());
    let message = match (name, state) {
        (Some(_), Some("ENABLED")) => return Ok(primary.clone()),
        (Some(name), state) => format!("the primary version {name} is {}", state.unwrap_or("in no state")),
        (None, _) => format!("{key} has no primary version"),
    };
    Err(KmsError::new(
        ErrorKind::Unusable,
        message,
        "make an enabled version primary (gcloud kms keys set-primary-version), or set follow = \"newest\"",
    ))
}

pub(super) fn number(version: &Value) -> Result<u64, KmsError> {
    let name = version["name"].as_str().unwrap_or_default();
    let number = name.rsplit(VERSIONS).next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| KmsError::broken(format!("{SERVICE} lists a version without a number: {name:?}")))
}

pub(super) fn found(version: &Value, crypto_key: &Value) -> Result<Found, KmsError> {
    let name = version["name"].as_str().unwrap_or_default();
    let key = KeyRef::parse(Provider::Gcp, name).map_err(|error| KmsError::broken(error.message))?;
    let instant = |field: &str| version[field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let state = match version["state"].as_str().unwrap_or_default() {
        "ENABLED" => KeyState::Enabled,
        "DISABLED" => KeyState::Disabled,
        "DESTROY_SCHEDULED" => KeyState::PendingDeletion { at: instant("destroyTime") },
        other => KeyState::Other(other.to_owned()),
    };
    let purpose = crypto_key["purpose"].as_str().unwrap_or_default();
    let algorithm = version["algorithm"].as_str().unwrap_or("GOOGLE_SYMMETRIC_ENCRYPTION");
    let suits = if purpose == "ENCRYPT_DECRYPT"
        && matches!(algorithm, "GOOGLE_SYMMETRIC_ENCRYPTION" | "EXTERNAL_SYMMETRIC_ENCRYPTION")
    {
        Ok(())
    } else {
        Err(Unfit::GcpKind { purpose: purpose.to_owned(), algorithm: algorithm.to_owned() })
    };
    let mut parts = name.split('/').skip_while(|part| *part != "locations");
    Ok(Found {
        state,
        suits,
        created: instant("createTime"),
        expires: None,
        not_before: None,
        region: parts.nth(1).map(str::to_owned),
        material: None,
        key,
    })
}

/// The bytes of a field that match the checksum beside it.
pub(super) fn checked(body: &Value, field: &str) -> Result<Vec<u8>, KmsError> {
    let bytes = body[field].as_str().and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or_else(|| KmsError::broken(format!("the reply of {SERVICE} has no {field}")))?;
    let told = match &body[format!("{field}Crc32c")] {
        // An int64, which is a string in JSON.
        Value::String(text) => text.parse::<u64>().ok(),
        number => number.as_u64(),
    };
    if told == Some(u64::from(crc32c(&bytes))) {
        Ok(bytes)
    } else {
        Err(KmsError::broken(format!("the {field} did not arrive as it was sent (CRC32C)")))
    }
}

/// CRC-32C (Castagnoli), reflected, as RFC 3720 has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _: u32| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn no_log_in(why: &str) -> KmsError {
    KmsError::new(
        ErrorKind::Credential,
        why,
        "set service_account_file of the lookup, or give this machine application default credentials (a workload identity, GOOGLE_APPLICATION_CREDENTIALS)",
    )
}

pub(super) fn failure(reply: &KmsResponse, role: &str) -> KmsError {
    let body = reply.json();
    let error = &body["error"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reason = error["details"].as_array().into_iter().flatten().find_map(|it| it["reason"].as_str());
    let code = text(&error["status"]);
    let message = text(&error["message"])
        .unwrap_or_else(|| format!("{SERVICE} answered {} without a reason", reply.status));
    let grant = format!("grant our identity roles/{role} on the key");
    let (kind, advice) = match (reply.status, reason) {
        (401, _) => (
            ErrorKind::Credential,
            "check that the service account and its key exist and are enabled, and this machine's clock; make a new key if it was deleted".to_owned(),
        ),
        (403, Some("SERVICE_DISABLED")) => (
            ErrorKind::Denied,
            "enable the Cloud KMS API in the project: gcloud services enable cloudkms.googleapis.com".to_owned(),
        ),
        (403, Some("SECURITY_POLICY_VIOLATED")) => (
            ErrorKind::Unreachable,
            "a VPC Service Controls perimeter keeps this machine out: add an ingress rule for our identity and network".to_owned(),
        ),
        (403, _) => (ErrorKind::Denied, grant),
        (404, _) => (
            ErrorKind::NotFound,
            "check project, location, ring, key and version; a resource that our identity may not see is reported as missing too".to_owned(),
        ),
        (429, _) => (ErrorKind::Throttled, "raise the project's Cloud KMS quota, or poll less often (sweep.poll_every)".to_owned()),
        (400, _) if code.as_deref() == Some("FAILED_PRECONDITION") => {
            (ErrorKind::Unusable, "enable or restore the key version, or choose another".to_owned())
        }
        (500..=599, _) => return KmsError::unreachable(message).with_code(code),
        _ => return KmsError::broken(message).with_code(code),
    };
    KmsError::new(kind, message, advice).with_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_agrees_with_the_published_vectors() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, wanted) in [
            (&b"123456789"[..], 0xE306_9283),
            (&[0; 32], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&ascending, 0x46DD_794E),
            (&[], 0),
        ] {
            assert_eq!(crc32c(bytes), wanted);
        }
    }

    #[test]
    fn a_primary_that_is_absent_or_not_enabled_is_unusable() {
        for key in [json!({}), json!({ "primary": { "name": "k/cryptoKeyVersions/1", "state": "DISABLED" } })]
        {
            assert_eq!(primary(&key, "k").unwrap_err().kind, ErrorKind::Unusable);
        }
    }
}
