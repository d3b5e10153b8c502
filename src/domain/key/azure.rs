//! Azure Key Vault keys: `https://VAULT.vault.azure.net/keys/NAME/VERSION`, on every cloud's host.
//!
//! An identifier without a version is read and marked; whether one may be used is policy and is decided
//! elsewhere. Vault, name and version compare without case, as Azure treats them; a trailing slash and an
//! explicit port 443 mean nothing. Managed HSM is refused: Atlas' configuration names a Key Vault, and it
//! is not known to take anything else.

use super::{KeyError, Place, Provider, broken, excerpt, is_hex};

const VAULT_HOSTS: [&str; 3] = [".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net"];
const HSM_HOSTS: [&str; 3] =
    [".managedhsm.azure.net", ".managedhsm.azure.cn", ".managedhsm.usgovcloudapi.net"];

const WANTED: &str = "give the key's full URL, https://VAULT.vault.azure.net/keys/NAME/VERSION";

/// An Azure Key Vault key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AzureKey {
    pub(super) text: String,
    vault: String,
    host: String,
    name: String,
    version: Option<String>,
}

impl AzureKey {
    /// Reads a key URL; the text is kept as it came, without surrounding space.
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bad = |what: &str| broken("format", Provider::Azure, text, what, WANTED);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("is not a URL"))?;
        if scheme.eq_ignore_ascii_case("http") {
            return Err(bad("is not https"));
        }
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(bad("is not an https URL"));
        }
        let (authority, path) = rest.split_once('/').ok_or_else(|| bad("names no key"))?;
        let (vault, host) = parse_host(text, authority)?;
        let (name, version) = parse_path(text, path.strip_suffix('/').unwrap_or(path))?;
        Ok(Self { text: text.to_owned(), vault, host: host.to_owned(), name, version })
    }

    /// The text as Azure itself writes it.
    pub(super) fn canonical(mut self) -> Self {
        let version = self.version.as_deref().map(|it| format!("/{it}")).unwrap_or_default();
        self.text = format!("https://{}{}/keys/{}{version}", self.vault, self.host, self.name);
        self
    }

    /// The vault's name, in lower case.
    #[must_use]
    pub fn vault(&self) -> &str {
        &self.vault
    }

    /// The domain of the vaults in this vault's cloud, such as `vault.azure.net`.
    #[must_use]
    pub fn cloud(&self) -> &str {
        self.host.trim_start_matches('.')
    }

    /// The key's name within its vault.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version, in lower case; `None` for a versionless identifier.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub(super) fn is_same(&self, other: &AzureKey) -> bool {
        self.vault == other.vault
            && self.host == other.host
            && self.name.eq_ignore_ascii_case(&other.name)
            && self.version == other.version
    }

    pub(super) fn check_place(&self, place: &Place) -> Result<(), KeyError> {
        match place.azure_vault.as_deref() {
            Some(block) if !self.vault.eq_ignore_ascii_case(block) => Err(KeyError {
                rule: "vault",
                message: format!(
                    "the Azure key {:?} lies in vault {:?}, but Atlas' configuration of this project names {:?}: \
                     give a key in that vault, or change the vault in Atlas first",
                    excerpt(&self.text),
                    self.vault,
                    excerpt(block)
                ),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn tail(&self) -> &str {
        self.version.as_deref().unwrap_or(&self.name)
    }
}

fn parse_host(text: &str, authority: &str) -> Result<(String, &'static str), KeyError> {
    let bad = |what: &str| broken("format", Provider::Azure, text, what, WANTED);
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(":443").unwrap_or(&authority);
    if HSM_HOSTS.iter().any(|host| authority.ends_with(host)) {
        return Err(broken(
            "format",
            Provider::Azure,
            text,
            "is a key of a Managed HSM, and Atlas takes keys of a Key Vault",
            WANTED,
        ));
    }
    let (vault, host) = VAULT_HOSTS
        .iter()
        .find_map(|host| authority.strip_suffix(host).map(|vault| (vault, *host)))
        .ok_or_else(|| {
            bad("is not at a Key Vault host (vault.azure.net, vault.azure.cn, vault.usgovcloudapi.net)")
        })?;
    let letters = vault.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !(3..=24).contains(&vault.len()) || !letters {
        return Err(bad("names a vault with an impossible name (3 to 24 letters, digits and hyphens)"));
    }
    Ok((vault.to_owned(), host))
}

fn parse_path(text: &str, path: &str) -> Result<(String, Option<String>), KeyError> {
    let bad = |what: &str| broken("format", Provider::Azure, text, what, WANTED);
    let mut parts = path.split('/');
    match parts.next() {
        Some("keys") => {}
        Some("secrets" | "certificates") => return Err(bad("is a secret or certificate, not a key")),
        _ => return Err(bad("does not lead to /keys/")),
    }
    let name = parts.next().unwrap_or_default();
    if !(1..=127).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(bad("has an impossible key name (1 to 127 letters, digits and hyphens)"));
    }
    let version = parts.next();
    if version.is_some_and(|version| !is_hex(version, 32)) {
        return Err(bad("has a version that is not 32 hexadecimal digits"));
    }
    if parts.next().is_some() {
        return Err(bad("goes on after the version"));
    }
    Ok((name.to_owned(), version.map(str::to_ascii_lowercase)))
}

/// Whether the text resembles an Azure key, well formed or not.
pub(super) fn looks_like(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("http")
        && [".vault.azure.", ".vault.usgovcloudapi.", ".managedhsm."].iter().any(|host| lower.contains(host))
}
