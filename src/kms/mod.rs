//! Lookups at the key services: the newest usable key or version, and whether our own identity can
//! use it.
//!
//! One trait, three clients: AWS KMS through Amazon's crate, Key Vault and Cloud KMS by a few REST
//! calls. Each is a cargo feature; without it [`connect`] fails. Base URLs can be replaced. The result of
//! a lookup holds for *our* identity: Atlas uses one of its own, so Atlas' `valid` decides about a key.
//! Every call ends within the configured timeout and is made once; the caller decides about retries.
//! Nothing here changes a key, rotates one, or decides about a rotation.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(any(feature = "azure", feature = "gcp"))]
mod http;

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::Kms;
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::time::Timestamp;
pub use error::{ErrorKind, KmsError};

/// The parameters of a lookup for a project.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The key Atlas holds now.
    pub key: &'a KeyRef,
    /// Region or vault of Atlas' block.
    pub place: &'a Place,
    /// AWS only: the alias that always points at the key to use.
    pub alias: Option<&'a str>,
}

/// A key, as its key service describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key, as Atlas would hold it.
    pub key: KeyRef,
    /// Its state.
    pub state: KeyState,
    /// Whether Atlas can use a key of this kind at all (symmetric, or able to encrypt and decrypt);
    /// otherwise the reason.
    pub suits: Result<(), Unfit>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it expires: Azure's `exp`, AWS' `ValidTo` of imported material.
    pub expires: Option<Timestamp>,
    /// Azure: the start of its validity, `nbf`.
    pub not_before: Option<Timestamp>,
    /// AWS: its region; Google: its location.
    pub region: Option<String>,
    /// AWS: `CurrentKeyMaterialId`, which changes when the key is rotated in place.
    pub material: Option<String>,
}

impl Found {
    /// When it can be used no longer, as far as its key service says: it expires or is destroyed.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self.state {
            KeyState::PendingDeletion { at } => at,
            KeyState::Enabled | KeyState::Disabled | KeyState::Other(_) => self.expires,
        }
    }
}

/// Why Atlas cannot use a key, whatever its state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// AWS: another specification or another use.
    #[error("it is a {spec} key for {usage}; Atlas needs SYMMETRIC_DEFAULT for ENCRYPT_DECRYPT")]
    AwsKind {
        /// The specification.
        spec: String,
        /// The use.
        usage: String,
    },
    /// AWS: a key that AWS manages.
    #[error("it belongs to AWS itself; Atlas needs a customer-managed key")]
    AwsManaged,
    /// Azure: another type.
    #[error("it is a key of type {0}; Atlas needs RSA")]
    AzureKind(String),
    /// Azure: an operation that is not permitted.
    #[error("its permitted operations lack {0}; Atlas needs encrypt and decrypt")]
    AzureOperation(&'static str),
    /// Google: another purpose or algorithm.
    #[error(
        "its purpose is {purpose} with {algorithm}; Atlas needs a symmetric key with purpose ENCRYPT_DECRYPT"
    )]
    GcpKind {
        /// The purpose.
        purpose: String,
        /// The algorithm.
        algorithm: String,
    },
}

/// The state of a key at its key service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is enabled.
    Enabled,
    /// It is disabled.
    Disabled,
    /// It will be deleted.
    PendingDeletion {
        /// The instant, where the service names it.
        at: Option<Timestamp>,
    },
    /// Any other state, in the service's own word.
    Other(String),
}

/// A key service, for the engine. Every call fails after the configured timeout.
pub trait KeyService: Debug + Send + Sync {
    /// The provider of its keys; `None` for a service that takes any key, as in tests.
    fn provider(&self) -> Option<Provider> {
        None
    }

    /// The newest usable version of the watched key; AWS: the key that the alias points to. `None`
    /// when no key can be determined (AWS without an alias).
    fn newest<'a>(
        &'a self,
        of: Watched<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<Found>, KmsError>>;

    /// The service's description of exactly this key.
    fn describe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<Found, KmsError>>;

    /// Encrypts eight bytes with the key and decrypts them again.
    fn probe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<(), KmsError>>;
}

/// A key service whose credential can be checked without a key.
pub trait Connected: KeyService {
    /// Logs in, and returns the identity as far as it is known. A login proves nothing about permissions.
    fn log_in(&self) -> BoxFuture<'_, Result<String, KmsError>>;

    /// Whether this failure of a login means that lookups fail as well. It does not where only a key
    /// determines the cloud of the login, and another cloud was tried.
    fn is_telling(&self, _failed: &KmsError) -> bool {
        true
    }
}

/// Why no client could be made. All of these are found when the program starts.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The program was built without this cloud.
    #[error(
        "kms.{name}: this build has no lookups at {provider}; build it with the feature {feature:?}, or take the section out"
    )]
    NotBuiltIn {
        /// The lookup.
        name: String,
        /// The cloud.
        provider: Provider,
        /// The cargo feature that is missing.
        feature: &'static str,
    },
    /// A setting or a file that cannot be used.
    #[error("kms.{name}.{setting}: {problem}")]
    Setting {
        /// The lookup.
        name: String,
        /// The setting.
        setting: &'static str,
        /// The fault and its fix; no secret.
        problem: String,
    },
}

/// A client for the lookup `name`; it sends nothing yet. Call it inside a Tokio runtime.
///
/// # Errors
/// Fails when the cloud is not built in, or a setting cannot be used; see [`SetupError`].
#[cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "gcp")),
    expect(clippy::needless_pass_by_value, reason = "a build with a cloud takes it apart")
)]
pub fn connect(name: &str, options: Kms) -> Result<Arc<dyn Connected>, SetupError> {
    match options.login.provider() {
        #[cfg(feature = "aws")]
        Provider::Aws => Ok(Arc::new(aws::Aws::new(name, options)?)),
        #[cfg(feature = "azure")]
        Provider::Azure => Ok(Arc::new(azure::Azure::new(name, options)?)),
        #[cfg(feature = "gcp")]
        Provider::Gcp => Ok(Arc::new(gcp::Gcp::new(name, options)?)),
        #[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp")))]
        provider => Err(SetupError::NotBuiltIn {
            name: name.to_owned(),
            provider,
            feature: match provider {
                Provider::Aws => "aws",
                Provider::Azure => "azure",
                Provider::Gcp => "gcp",
            },
        }),
    }
}

/// The plaintext of a probe. It is no secret.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const PROBE: [u8; 8] = *b"keywheel";

/// The last step of a probe: the decrypted text must be [`PROBE`].
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn came_back(plain: Option<&[u8]>) -> Result<(), KmsError> {
    if plain == Some(&PROBE[..]) {
        return Ok(());
    }
    Err(KmsError::broken("the decrypted text differs from the encrypted one"))
}

/// The result of a lookup, or a failure after `limit`.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
async fn within<T>(
    limit: std::time::Duration,
    service: &str,
    look: impl Future<Output = Result<T, KmsError>>,
) -> Result<T, KmsError> {
    tokio::time::timeout(limit, look).await.unwrap_or_else(|_| {
        let span =
            crate::domain::time::Span::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        Err(KmsError::unreachable(format!("{service} did not answer within {span}")))
    })
}

/// Seconds since 1970, as all three services write instants in one place or another.
#[cfg(any(feature = "aws", feature = "azure"))]
fn from_seconds(seconds: i64) -> Option<Timestamp> {
    seconds.checked_mul(1_000_000).map(Timestamp::from_micros)
}
