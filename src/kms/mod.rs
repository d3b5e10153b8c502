//! Lookups at the key services: which key or version is newest and usable, and whether our own
//! identity can use it.
//!
//! One trait, three clients: AWS KMS through Amazon's crate, Key Vault and Cloud KMS by a few REST
//! calls. Each is a cargo feature; without it [`connect`] says so. Base URLs can be replaced. What a
//! lookup says is true of *our* identity: Atlas uses one of its own, so the last word on a key is
//! Atlas' `valid`. Every call ends within the configured timeout and is made once; when to ask again
//! is the caller's decision. Nothing here changes a key, rotates one, or decides about a rotation.

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

/// How a project's key is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The key Atlas holds now.
    pub key: &'a KeyRef,
    /// Region or vault of Atlas' block.
    pub place: &'a Place,
    /// AWS only: the alias that always points at the key to use.
    pub alias: Option<&'a str>,
}

/// What a key service says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key, as Atlas would hold it.
    pub key: KeyRef,
    /// Its state.
    pub state: KeyState,
    /// Whether it is a key that Atlas can use at all (symmetric, or able to encrypt and decrypt);
    /// else why not.
    pub suits: Result<(), Unfit>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it ends: Azure's `exp`, AWS' `ValidTo` of imported material.
    pub expires: Option<Timestamp>,
    /// Before when it may not be used (Azure).
    pub not_before: Option<Timestamp>,
    /// AWS: its region; Google: its location.
    pub region: Option<String>,
    /// AWS: `CurrentKeyMaterialId`, which changes when the key is rotated in place.
    pub material: Option<String>,
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

/// Whether a key service would use a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It would.
    Enabled,
    /// It is switched off.
    Disabled,
    /// It will be deleted.
    PendingDeletion {
        /// When, if the service says.
        at: Option<Timestamp>,
    },
    /// Anything else, in the service's own word.
    Other(String),
}

/// A key service, as the engine sees it. Every call gives up after the configured timeout.
pub trait KeyService: Debug + Send + Sync {
    /// Whose keys it knows; `None` for one that takes any, as in tests.
    fn provider(&self) -> Option<Provider> {
        None
    }

    /// The newest usable version of the watched key; AWS: the key that the alias points to. `None`
    /// when nothing names one (AWS without an alias).
    fn newest<'a>(
        &'a self,
        of: Watched<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<Found>, KmsError>>;

    /// What the service says of exactly this key.
    fn describe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<Found, KmsError>>;

    /// Encrypts eight bytes with the key and decrypts them again.
    fn probe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<(), KmsError>>;
}

/// A key service that can also say whether our credential is good, without naming a key.
pub trait Connected: KeyService {
    /// Logs in, and says as whom as far as that is known. A log-in proves nothing about permissions.
    fn log_in(&self) -> BoxFuture<'_, Result<String, KmsError>>;

    /// Whether a log-in that failed like this shows that lookups fail as well. Not so where only a key
    /// says which cloud to log in to, and another one was tried.
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
        /// What is wrong and what to do; no secret.
        problem: String,
    },
}

/// A client for the lookup `name` that has not asked anything yet. Call it inside a Tokio runtime.
///
/// # Errors
/// The cloud is not built in, or a setting cannot be used; see [`SetupError`].
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

/// What is encrypted and decrypted to see whether a key works. It is no secret.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const PROBE: [u8; 8] = *b"keywheel";

/// The last step of a probe: what was decrypted must be what was encrypted.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn came_back(plain: Option<&[u8]>) -> Result<(), KmsError> {
    if plain == Some(&PROBE[..]) {
        return Ok(());
    }
    Err(KmsError::broken("what was decrypted is not what was encrypted"))
}

/// The end of a lookup: what came of it, or that nothing came in time.
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
