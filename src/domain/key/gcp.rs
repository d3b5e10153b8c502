//! Google Cloud KMS keys: the full path of one key version.
//!
//! Atlas holds a version and does not follow a key's primary version, so a path without one is refused.
//! Paths compare exactly; a project named once by id and once by number counts as two different projects,
//! because the number of an id is not known here.

use super::{KeyError, Provider, broken};

const WANTED: &str = "give the version's full path, \
                      projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N";
const LABELS: [&str; 4] = ["projects", "locations", "keyRings", "cryptoKeys"];

/// One version of a Google Cloud KMS key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GcpKey {
    pub(super) text: String,
    key: String,
    version: String,
}

impl GcpKey {
    /// Reads a version's path; the text is kept as it came, without surrounding space.
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bad = |what: &str| broken("format", Provider::Gcp, text, what, WANTED);
        let mut parts = text.split('/');
        let mut key = "";
        for label in LABELS {
            if parts.next() != Some(label) {
                return Err(bad(&format!("has no {label}/… where it belongs")));
            }
            key = parts
                .next()
                .filter(|name| is_name(label, name))
                .ok_or_else(|| bad(&format!("has no readable name after {label}/")))?;
        }
        let version = match (parts.next(), parts.next()) {
            (None, _) | (Some("cryptoKeyVersions"), None | Some("")) => return Err(versionless(text)),
            (Some("cryptoKeyVersions"), Some(version)) => version,
            _ => return Err(bad("has no cryptoKeyVersions/… after the key")),
        };
        if parts.next().is_some() {
            return Err(bad("goes on after the version"));
        }
        if !is_version(version) {
            return Err(bad("has a version that is not a number from 1"));
        }
        Ok(Self { text: text.to_owned(), key: key.to_owned(), version: version.to_owned() })
    }

    /// The key's name within its ring.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key
    }

    /// The path of the key without the version.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.trim().rsplit_once("/cryptoKeyVersions/").map_or("", |(path, _)| path)
    }

    /// The version's number.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn is_same(&self, other: &GcpKey) -> bool {
        self.text.trim() == other.text.trim()
    }

    pub(super) fn tail(&self) -> String {
        format!("{}/{}", self.key, self.version)
    }
}

fn versionless(text: &str) -> KeyError {
    broken(
        "versionless",
        Provider::Gcp,
        text,
        "names a key but no version, and Atlas does not follow a key's primary version",
        "add /cryptoKeyVersions/N: gcloud kms keys versions list --key KEY --keyring RING --location LOCATION",
    )
}

fn is_name(label: &str, name: &str) -> bool {
    // A project may belong to a domain ("example.com:payments").
    let extra: &[u8] = if label == "projects" { b"-.:" } else { b"-_" };
    (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

fn is_version(text: &str) -> bool {
    (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}

/// Whether the text resembles a Google key, well formed or not.
pub(super) fn looks_like(text: &str) -> bool {
    text.starts_with("projects/") || text.contains("cloudkms.googleapis.com")
}
