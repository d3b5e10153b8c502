//! AWS KMS through Amazon's own client: one `DescribeKey` on the alias, and a probe.
//!
//! A key that AWS rotates in place keeps its ARN. So the newest key is the one that the alias points to;
//! without an alias it cannot be determined. The client's own retries are off: the caller decides about
//! retries. The region comes from the key's ARN, else from Atlas' block, else from the configuration, else
//! from environment or profile. An alias is looked up in the account of the key that Atlas holds, where
//! its ARN names one.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::{Credentials, ProvideCredentials};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::{Blob, DateTime};
use aws_sdk_kms::types::{KeyManagerType, KeyMetadata, KeySpec, KeyState as AwsState, KeyUsageType};
use aws_sdk_kms::{Client, config::Builder};
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use url::Url;

use super::error::{ErrorKind, KmsError};
use super::{
    Connected, Found, KeyService, KeyState, PROBE, SetupError, Unfit, Watched, came_back, from_seconds,
    within,
};
use crate::config::kms::{Kms, Login};
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::time::Timestamp;
use crate::net::cause::{causes, root_cause};
use crate::secret::Secret;

const SERVICE: &str = "AWS KMS";
const DESCRIBE: &str = "allow kms:DescribeKey on the key to our identity, in the key policy or by IAM";
const ENCRYPT: &str = "allow kms:Encrypt on the key to our identity, in the key policy or by IAM";
const DECRYPT: &str = "allow kms:Decrypt on the key to our identity, in the key policy or by IAM";

pub(super) struct Aws {
    region: Option<String>,
    profile: Option<String>,
    keys: Option<(String, Secret)>,
    endpoint: Option<Url>,
    timeout: Duration,
    /// The SDK's configuration (environment, profiles), read at the first lookup.
    shared: OnceCell<SdkConfig>,
    /// By region.
    clients: Mutex<BTreeMap<String, Client>>,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_ref().map(Url::as_str);
        f.debug_struct("Aws")
            .field("region", &self.region)
            .field("profile", &self.profile)
            .field("keys", &self.keys)
            .field("endpoint", &endpoint)
            .finish_non_exhaustive()
    }
}

impl Aws {
    pub(super) fn new(name: &str, options: Kms) -> Result<Self, SetupError> {
        let Kms { timeout, endpoint, login } = options;
        let timeout = timeout.get();
        let Login::Aws { region, profile, keys } = login else {
            return Err(SetupError::Setting {
                name: name.to_owned(),
                setting: "kind",
                problem: "names another cloud".to_owned(),
            });
        };
        Ok(Self {
            region,
            profile,
            keys,
            endpoint,
            timeout,
            shared: OnceCell::new(),
            clients: Mutex::default(),
        })
    }

    async fn shared(&self) -> &SdkConfig {
        let load = || async {
            let limits = TimeoutConfig::builder()
                .connect_timeout(self.timeout)
                .operation_timeout(self.timeout)
                .build();
            let mut loader = aws_config::defaults(BehaviorVersion::latest())
                .retry_config(RetryConfig::disabled())
                .timeout_config(limits);
            if let Ok(name) = AppName::new("keywheel") {
                loader = loader.app_name(name);
            }
            let mut shared_files = ProfileFileRegionProvider::builder();
            if let Some(profile) = &self.profile {
                loader = loader.profile_name(profile);
                shared_files = shared_files.profile_name(profile);
            }
            // Not the machine's own region: outside of AWS that request takes seconds, and most keys name
            // their region.
            let region = RegionProviderChain::first_try(self.region.clone().map(Region::new))
                .or_else(EnvironmentVariableRegionProvider::new())
                .or_else(shared_files.build());
            loader = loader.region(region);
            if let Some((id, secret)) = &self.keys {
                loader = loader.credentials_provider(Credentials::new(
                    id.clone(),
                    secret.expose(),
                    None,
                    None,
                    "keywheel configuration",
                ));
            }
            loader.load().await
        };
        self.shared.get_or_init(load).await
    }

    async fn client(&self, key: &KeyRef, place: &Place) -> Result<Client, KmsError> {
        let KeyRef::Aws(aws) = key else { return Err(KmsError::foreign(SERVICE, key)) };
        let shared = self.shared().await;
        let region = aws
            .region()
            .or(place.aws_region.as_deref())
            .or(shared.region().map(AsRef::as_ref))
            .ok_or_else(|| {
                KmsError::new(
                    ErrorKind::Broken,
                    format!("no region is known for the key {key}"),
                    "set the lookup's region, or give the key by its ARN",
                )
            })?
            .to_owned();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(region.clone()).or_insert_with(|| {
            let mut builder = Builder::from(shared).region(Region::new(region));
            if let Some(endpoint) = &self.endpoint {
                builder = builder.endpoint_url(endpoint.as_str().trim_end_matches('/'));
            }
            Client::from_conf(builder.build())
        });
        Ok(client.clone())
    }

    async fn look(&self, id: &str, key: &KeyRef, place: &Place) -> Result<Found, KmsError> {
        let client = self.client(key, place).await?;
        let reply = client.describe_key().key_id(id).send().await;
        let reply = reply.map_err(|error| failure(&error, DESCRIBE))?;
        let data = reply.key_metadata();
        found(data.ok_or_else(|| KmsError::broken(format!("the reply of {SERVICE} describes no key")))?)
    }

    async fn try_out(&self, key: &KeyRef, place: &Place) -> Result<(), KmsError> {
        let client = self.client(key, place).await?;
        let id = key.to_string();
        let sealed = client
            .encrypt()
            .key_id(&id)
            .plaintext(Blob::new(PROBE))
            .encryption_context("keywheel", "probe")
            .send()
            .await
            .map_err(|error| failure(&error, ENCRYPT))?;
        let blob = sealed.ciphertext_blob().cloned();
        let blob =
            blob.ok_or_else(|| KmsError::broken(format!("the reply of {SERVICE} has no ciphertext")))?;
        let opened = client
            .decrypt()
            .key_id(&id)
            .ciphertext_blob(blob)
            .encryption_context("keywheel", "probe")
            .send()
            .await
            .map_err(|error| failure(&error, DECRYPT))?;
        came_back(opened.plaintext().map(AsRef::as_ref))
    }
}

impl KeyService for Aws {
    fn provider(&self) -> Option<Provider> {
        Some(Provider::Aws)
    }

    fn newest<'a>(
        &'a self,
        of: Watched<'a>,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<Found>, KmsError>> {
        Box::pin(async move {
            let Some(alias) = of.alias else { return Ok(None) };
            let id = alias_of(of.key, alias);
            within(self.timeout, SERVICE, self.look(&id, of.key, of.place)).await.map(Some)
        })
    }

    fn describe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<Found, KmsError>> {
        Box::pin(async move {
            let id = key.to_string();
            let found = within(self.timeout, SERVICE, self.look(&id, key, place)).await?;
            if found.key.is_same(key, place) {
                Ok(found)
            } else {
                Err(KmsError::broken(format!("{SERVICE} described {} instead of {id}", found.key)))
            }
        })
    }

    fn probe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<(), KmsError>> {
        Box::pin(within(self.timeout, SERVICE, self.try_out(key, place)))
    }
}

impl Connected for Aws {
    fn log_in(&self) -> BoxFuture<'_, Result<String, KmsError>> {
        Box::pin(within(self.timeout, "the source of AWS credentials", async {
            let Some(provider) = self.shared().await.credentials_provider() else {
                return Err(no_log_in("no source of credentials is configured"));
            };
            match provider.provide_credentials().await {
                // The id is no secret; only the first lookup shows whether AWS accepts it.
                Ok(found) => Ok(format!("access key {} was found", found.access_key_id())),
                Err(error) => Err(no_log_in(&root_cause(&error))),
            }
        }))
    }
}

/// The alias in the account and region of the key that Atlas holds, where it is an ARN.
fn alias_of(key: &KeyRef, alias: &str) -> String {
    match key.to_string().rsplit_once(":key/") {
        Some((home, _)) => format!("{home}:{alias}"),
        None => alias.to_owned(),
    }
}

fn found(data: &KeyMetadata) -> Result<Found, KmsError> {
    let arn = data.arn().unwrap_or_default();
    let key = KeyRef::parse(Provider::Aws, arn).map_err(|error| KmsError::broken(error.message))?;
    let state = match data.key_state() {
        Some(AwsState::Enabled) => KeyState::Enabled,
        Some(AwsState::Disabled) => KeyState::Disabled,
        Some(AwsState::PendingDeletion) => {
            KeyState::PendingDeletion { at: data.deletion_date().and_then(instant) }
        }
        Some(other) => KeyState::Other(other.as_str().to_owned()),
        None => return Err(KmsError::broken(format!("the reply of {SERVICE} has no state of {key}"))),
    };
    let usage = data.key_usage().unwrap_or(&KeyUsageType::EncryptDecrypt);
    let spec = data.key_spec().map_or("SYMMETRIC_DEFAULT", KeySpec::as_str);
    let suits = if *usage != KeyUsageType::EncryptDecrypt || spec != "SYMMETRIC_DEFAULT" {
        Err(Unfit::AwsKind { spec: spec.to_owned(), usage: usage.as_str().to_owned() })
    } else if data.key_manager() == Some(&KeyManagerType::Aws) {
        Err(Unfit::AwsManaged)
    } else {
        Ok(())
    };
    let region = match &key {
        KeyRef::Aws(key) => key.region().map(str::to_owned),
        _ => None,
    };
    Ok(Found {
        key,
        state,
        suits,
        created: data.creation_date().and_then(instant),
        expires: data.valid_to().and_then(instant),
        not_before: None,
        region,
        material: data.current_key_material_id().map(str::to_owned),
    })
}

fn instant(at: &DateTime) -> Option<Timestamp> {
    from_seconds(at.secs())
}

fn no_log_in(why: &str) -> KmsError {
    KmsError::new(
        ErrorKind::Credential,
        why,
        "set access_key_id and secret_access_key_file or profile, or give this machine a role (environment, web identity, container, instance)",
    )
}

fn failure<E>(error: &SdkError<E, HttpResponse>, grant: &str) -> KmsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (service, status) = match error {
        SdkError::ServiceError(service) => (service.err(), service.raw().status().as_u16()),
        SdkError::TimeoutError(_) => {
            return KmsError::unreachable(format!("{SERVICE} did not answer in time"));
        }
        SdkError::DispatchFailure(_) if names_credentials(error) => return no_log_in(&source(error)),
        SdkError::DispatchFailure(_) => {
            return KmsError::unreachable(format!("{SERVICE} cannot be reached: {}", source(error)));
        }
        SdkError::ConstructionFailure(_) => {
            return KmsError::broken(format!("the request could not be put together: {}", source(error)));
        }
        _ => return KmsError::broken(format!("the reply of {SERVICE} cannot be read: {}", source(error))),
    };
    let code = service.code().map(str::to_owned);
    let message = service.message().map_or_else(|| root_cause(service), str::to_owned);
    let (kind, advice) = match code.as_deref().unwrap_or_default() {
        "AccessDeniedException" => (ErrorKind::Denied, grant),
        "NotFoundException" => (
            ErrorKind::NotFound,
            "check the alias or key id, its region and its account; a deleted key does not come back",
        ),
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException" => (
            ErrorKind::Throttled,
            "raise the account's KMS request quota, or poll less often (sweep.poll_every)",
        ),
        "ExpiredTokenException" | "ExpiredToken" => (
            ErrorKind::Credential,
            "the session has expired: renew it, or give this machine a role of its own",
        ),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "NotAuthorized" => (
            ErrorKind::Credential,
            "check access_key_id and its secret, that the key was not deactivated, and this machine's clock",
        ),
        "DisabledException" => (ErrorKind::Unusable, "enable the key: aws kms enable-key"),
        "KMSInvalidStateException" => (
            ErrorKind::Unusable,
            "bring the key into the state Enabled (aws kms cancel-key-deletion, import its material), or choose another",
        ),
        "InvalidKeyUsageException" | "IncorrectKeyException" | "InvalidGrantTokenException" => {
            (ErrorKind::Unusable, "choose a symmetric key for ENCRYPT_DECRYPT that is Enabled")
        }
        "KMSInternalException"
        | "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "InternalFailure" => {
            return KmsError::unreachable(message).with_code(code);
        }
        _ if status == 429 => (ErrorKind::Throttled, "poll less often (sweep.poll_every)"),
        _ if status >= 500 => {
            return KmsError::unreachable(format!("{SERVICE} answered {status}: {message}")).with_code(code);
        }
        _ => {
            return KmsError::broken(format!("{SERVICE} answered {status}: {message}")).with_code(code);
        }
    };
    KmsError::new(kind, message, advice).with_code(code)
}

/// Whether it failed before anything was sent, because there was no login.
fn names_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<CredentialsError>)
}

fn source<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    root_cause(error)
}
