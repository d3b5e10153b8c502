//! Keys as Atlas names them, parsed once at the edge into a typed [`KeyRef`].
//!
//! Each provider has a file of its own for its grammar. Inside the program a key is never a bare string.
//! Nothing here asks a key service: a well-formed reference may name a key that does not exist.

mod aws;
mod azure;
mod gcp;

pub use aws::{AwsKey, aws_partition, aws_region};
pub use azure::AzureKey;
pub use gcp::GcpKey;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The cloud whose key service holds a project's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Provider {
    /// AWS KMS.
    Aws,
    /// Azure Key Vault.
    Azure,
    /// Google Cloud KMS.
    Gcp,
}

impl Provider {
    /// All three, in the order in which Atlas lists them.
    pub const ALL: [Provider; 3] = [Provider::Aws, Provider::Azure, Provider::Gcp];

    /// Atlas' name for the provider.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Provider::Aws => "AWS",
            Provider::Azure => "AZURE",
            Provider::Gcp => "GCP",
        }
    }

    /// The name of its key service.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Provider::Aws => "AWS KMS",
            Provider::Azure => "Key Vault",
            Provider::Gcp => "Cloud KMS",
        }
    }

    /// The block of `encryptionAtRest` that configures this provider.
    #[must_use]
    pub const fn block(self) -> &'static str {
        match self {
            Provider::Aws => "awsKms",
            Provider::Azure => "azureKeyVault",
            Provider::Gcp => "googleCloudKms",
        }
    }

    /// The field of that block that names the key.
    #[must_use]
    pub const fn key_field(self) -> &'static str {
        match self {
            Provider::Aws => "customerMasterKeyID",
            Provider::Azure => "keyIdentifier",
            Provider::Gcp => "keyVersionResourceID",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("provider {0:?} is not one of AWS, AZURE, GCP")]
pub struct BadProvider(String);

impl FromStr for Provider {
    type Err = BadProvider;
    fn from_str(text: &str) -> Result<Self, BadProvider> {
        Provider::ALL
            .into_iter()
            .find(|provider| provider.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| BadProvider(text.to_owned()))
    }
}

/// The place of the project's keys, as Atlas' configuration block names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// AWS: the region in AWS' own spelling (`us-east-1`), when the block names one.
    pub aws_region: Option<String>,
    /// Azure: the vault's name, when the block names one.
    pub azure_vault: Option<String>,
}

/// Why a text cannot be a project's new key. The message names the rule and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KeyError {
    /// The rule that is broken, as a stable word: `format`, `alias`, `provider`, `versionless`,
    /// `region`, `vault`.
    pub rule: &'static str,
    /// The text, its fault, and the form to give instead.
    pub message: String,
}

/// One key of one provider, as Atlas would hold it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRef {
    /// An AWS KMS key: bare id, `mrk-` id or ARN.
    Aws(AwsKey),
    /// An Azure Key Vault key URL, with or without a version.
    Azure(AzureKey),
    /// A Google Cloud KMS key version path.
    Gcp(GcpKey),
    /// A text that Atlas holds and that is not one of the above; never accepted as a new key.
    Unrecognised {
        /// The provider whose block holds it.
        provider: Provider,
        /// The text as Atlas sent it.
        text: String,
    },
}

impl KeyRef {
    /// Reads a new key for `provider`, without regard to surrounding space, in the provider's own
    /// spelling (host names and ids in lower case, no trailing slash).
    ///
    /// # Errors
    /// The error names the broken rule.
    pub fn parse(provider: Provider, text: &str) -> Result<Self, KeyError> {
        Self::read(provider, text).map(|key| match key {
            KeyRef::Aws(key) => KeyRef::Aws(key.canonical()),
            KeyRef::Azure(key) => KeyRef::Azure(key.canonical()),
            other => other,
        })
    }

    /// Checks that the key is one of `provider`, with which Atlas encrypts the project.
    ///
    /// # Errors
    /// Rule `provider`.
    pub fn check_provider(&self, provider: Provider) -> Result<(), KeyError> {
        let own = self.provider();
        if own == provider { Ok(()) } else { Err(foreign(provider, own, &self.to_string())) }
    }

    fn read(provider: Provider, text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(KeyError { rule: "format", message: format!("the {provider} key is empty") });
        }
        if let Some(owner) = looks_like(text).filter(|owner| *owner != provider) {
            return Err(foreign(provider, owner, text));
        }
        if text.len() > LONGEST {
            return Err(broken("format", provider, text, "is longer than any key", "give one key"));
        }
        match provider {
            Provider::Aws => AwsKey::parse(text).map(KeyRef::Aws),
            Provider::Azure => AzureKey::parse(text).map(KeyRef::Azure),
            Provider::Gcp => GcpKey::parse(text).map(KeyRef::Gcp),
        }
    }

    /// Reads the key that Atlas holds. The spelling is kept, so that a rollback sends the text that Atlas
    /// had. A text that no grammar matches is kept too.
    #[must_use]
    pub fn observed(provider: Provider, text: &str) -> Self {
        Self::read(provider, text)
            .unwrap_or_else(|_| KeyRef::Unrecognised { provider, text: text.to_owned() })
    }

    /// The provider of the key.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            KeyRef::Aws(_) => Provider::Aws,
            KeyRef::Azure(_) => Provider::Azure,
            KeyRef::Gcp(_) => Provider::Gcp,
            KeyRef::Unrecognised { provider, .. } => *provider,
        }
    }

    /// Whether it is an Azure identifier that names no version.
    #[must_use]
    pub fn is_versionless(&self) -> bool {
        matches!(self, KeyRef::Azure(key) if key.version().is_none())
    }

    /// Whether both name the same key, however they are spelt. A bare AWS `mrk-` id is completed
    /// with `place`'s region; an account or region that one side does not name is no difference.
    ///
    /// Reflexive and symmetric, not transitive: a bare id equals two ARNs of different accounts.
    #[must_use]
    pub fn is_same(&self, other: &KeyRef, place: &Place) -> bool {
        match (self, other) {
            (KeyRef::Aws(a), KeyRef::Aws(b)) => a.is_same(b, place),
            (KeyRef::Azure(a), KeyRef::Azure(b)) => a.is_same(b),
            (KeyRef::Gcp(a), KeyRef::Gcp(b)) => a.is_same(b),
            _ => self == other,
        }
    }

    /// Whether both are versions of one key. Region and account of an ARN make no difference: an id
    /// occurs once in the world, and replicas of a multi-Region key share their material.
    #[must_use]
    pub fn shares_key(&self, other: &KeyRef) -> bool {
        match (self, other) {
            (KeyRef::Aws(a), KeyRef::Aws(b)) => a.tail() == b.tail(),
            (KeyRef::Azure(a), KeyRef::Azure(b)) => {
                a.vault() == b.vault() && a.cloud() == b.cloud() && a.name().eq_ignore_ascii_case(b.name())
            }
            (KeyRef::Gcp(a), KeyRef::Gcp(b)) => a.path() == b.path(),
            _ => self == other,
        }
    }

    /// A part of every spelling of every version of this key, in lower case.
    #[must_use]
    pub fn stem(&self) -> String {
        match self {
            KeyRef::Aws(key) => key.tail().to_owned(),
            KeyRef::Azure(key) => key.name().to_ascii_lowercase(),
            KeyRef::Gcp(key) => key.name().to_ascii_lowercase(),
            KeyRef::Unrecognised { text, .. } => text.to_ascii_lowercase(),
        }
    }

    /// Checks that the key lies where Atlas' block says (region, vault).
    ///
    /// # Errors
    /// Rule `region` or `vault`.
    pub fn check_place(&self, place: &Place) -> Result<(), KeyError> {
        match self {
            KeyRef::Aws(key) => key.check_place(place),
            KeyRef::Azure(key) => key.check_place(place),
            KeyRef::Gcp(_) | KeyRef::Unrecognised { .. } => Ok(()),
        }
    }

    /// Its parts with a label each, the most particular last. A bare id of AWS leaves out region and account.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        let text = self.to_string();
        match self {
            KeyRef::Aws(key) => {
                let id = text.rsplit(['/', ':']).next().unwrap_or(&text).to_owned();
                let region = key.region().map(|it| ("Region", it.to_owned()));
                let account = key.account().map(|it| ("Account", it.to_owned()));
                region.into_iter().chain(account).chain([("Key id", id)]).collect()
            }
            KeyRef::Azure(key) => {
                let version = key.version().map(|it| ("Version", it.to_owned()));
                let of = [("Vault", key.vault().to_owned()), ("Key", key.name().to_owned())];
                of.into_iter().chain(version).collect()
            }
            KeyRef::Gcp(_) => {
                let labels = ["Project", "Location", "Key ring", "Key", "Version"];
                labels.into_iter().zip(text.split('/').skip(1).step_by(2).map(str::to_owned)).collect()
            }
            KeyRef::Unrecognised { .. } => vec![("Key", text)],
        }
    }

    /// The text that a person types to approve: the last six characters; for GCP, the key's name and
    /// version.
    #[must_use]
    pub fn tail(&self) -> String {
        match self {
            KeyRef::Aws(key) => last_six(key.tail()),
            KeyRef::Azure(key) => last_six(key.tail()),
            KeyRef::Gcp(key) => key.tail(),
            KeyRef::Unrecognised { text, .. } => last_six(text.trim()),
        }
    }
}

/// Atlas takes no longer value in any key field.
const LONGEST: usize = 2048;

fn last_six(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(6);
    text.chars().skip(skip).collect()
}

fn looks_like(text: &str) -> Option<Provider> {
    if aws::looks_like(text) {
        Some(Provider::Aws)
    } else if azure::looks_like(text) {
        Some(Provider::Azure)
    } else if gcp::looks_like(text) {
        Some(Provider::Gcp)
    } else {
        None
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The start of a text from outside that a message shows: enough to recognise it.
fn excerpt(text: &str) -> String {
    let mut start: String = text.chars().take(160).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

fn broken(rule: &'static str, provider: Provider, text: &str, what: &str, way_out: &str) -> KeyError {
    KeyError { rule, message: format!("the {provider} key {:?} {what}: {way_out}", excerpt(text)) }
}

fn foreign(provider: Provider, owner: Provider, text: &str) -> KeyError {
    broken(
        "provider",
        provider,
        text,
        &format!("looks like a key of {owner}, and Atlas encrypts this project with {provider}"),
        &format!("give a key of {provider}"),
    )
}

/// A new key, of the provider that the text's own form names; read as [`KeyRef::parse`] reads it.
impl FromStr for KeyRef {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let provider = looks_like(text).ok_or_else(|| KeyError {
            rule: "format",
            message: format!(
                "{:?} is not a key: give the id or ARN of an AWS key, the URL of an Azure key \
                 (https://VAULT.vault.azure.net/keys/NAME/VERSION), or the path of a Google key version \
                 (projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N)",
                excerpt(text)
            ),
        })?;
        Self::parse(provider, text)
    }
}

/// The identifier, as Atlas would hold it.
impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRef::Aws(key) => f.write_str(&key.text),
            KeyRef::Azure(key) => f.write_str(&key.text),
            KeyRef::Gcp(key) => f.write_str(&key.text),
            KeyRef::Unrecognised { text, .. } => f.write_str(text),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    provider: Provider,
    id: String,
}

impl Serialize for KeyRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { provider: self.provider(), id: self.to_string() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        Ok(KeyRef::observed(stored.provider, &stored.id))
    }
}

#[cfg(test)]
mod tests;
