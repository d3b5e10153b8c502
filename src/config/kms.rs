//! Lookups at key services: `[kms.NAME]`.
//!
//! Which settings a lookup takes follows from its kind; one of another kind is an unknown setting. A
//! log-in that is left out comes from the cloud's own chain of sources, which is not read here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::check::{LONGEST_REQUEST, check_web_url};
use super::reader::Reader;
use crate::domain::address::is_loopback;
use crate::domain::key::Provider;
use crate::domain::time::Span;
use crate::secret::Secret;

/// A lookup at a key service.
#[derive(Clone, Debug)]
pub struct Kms {
    /// The longest a lookup may take; below 55 s.
    pub timeout: Span,
    /// The address to use instead of the cloud's. AWS and Google: the base of the API; Azure: the
    /// address below which the vaults' names stand.
    pub endpoint: Option<Url>,
    /// The cloud and how to log in to it.
    pub login: Login,
}

/// How to log in; a `None` is taken from the cloud's own chain of sources.
#[derive(Clone, Debug)]
pub enum Login {
    /// AWS: environment, profile, container, web identity, instance.
    Aws {
        /// The region for keys that name none, in projects whose block names none.
        region: Option<String>,
        /// A profile of the shared configuration.
        profile: Option<String>,
        /// Access key id and secret access key.
        keys: Option<(String, Secret)>,
    },
    /// Azure: environment, App Service, managed identity.
    Azure {
        /// The directory.
        tenant_id: Option<String>,
        /// The application, or the user-assigned managed identity.
        client_id: Option<String>,
        /// The credential of that application.
        proof: Option<AzureCredential>,
        /// Where tokens come from instead of the cloud's own authority.
        authority: Option<Url>,
    },
    /// Google: the application default credentials.
    Gcp {
        /// A service account's key, as JSON.
        service_account: Option<Secret>,
        /// Which version is the newest.
        follow: Follow,
    },
}

/// The credential of an application at Entra.
#[derive(Clone, Debug)]
pub enum AzureCredential {
    /// A client secret.
    Secret(Secret),
    /// A file with a token of another issuer, read anew for every log-in.
    TokenFile(PathBuf),
}

/// Which version of a Google key counts as the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// The key's primary version.
    #[default]
    Primary,
    /// The enabled version with the highest number.
    Newest,
}

impl Login {
    /// The provider of the keys.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Login::Aws { .. } => Provider::Aws,
            Login::Azure { .. } => Provider::Azure,
            Login::Gcp { .. } => Provider::Gcp,
        }
    }
}

/// The kinds: the name, whether this build has it, and the cloud.
const KINDS: [(&str, bool, &str); 3] = [
    ("aws", cfg!(feature = "aws"), "AWS KMS"),
    ("azure", cfg!(feature = "azure"), "Azure Key Vault"),
    ("gcp", cfg!(feature = "gcp"), "Google Cloud KMS"),
];

/// A lookup as read.
pub(super) struct RawKms {
    kind: Option<String>,
    timeout: Span,
    endpoint: Option<String>,
    texts: BTreeMap<&'static str, String>,
    secrets: BTreeMap<&'static str, Secret>,
    follow: Option<Follow>,
}

impl RawKms {
    pub(super) fn read_all(r: &mut Reader) -> Vec<(String, Self)> {
        let names = r.names_below("kms");
        names.into_iter().map(|name| (name.clone(), Self::read(r, &format!("kms.{name}")))).collect()
    }

    fn read(r: &mut Reader, at: &str) -> Self {
        let kind: Option<String> = r.optional(&format!("{at}.kind"));
        // For an unknown kind the settings of every kind are read: otherwise each would be reported as
        // unknown beside the fault of the kind.
        let is = |wanted: &str| {
            kind.as_deref() == Some(wanted) || !KINDS.iter().any(|(it, ..)| kind.as_deref() == Some(it))
        };
        let (mut texts, mut secrets) = (Vec::new(), Vec::new());
        if is("aws") {
            texts.extend(["region", "profile", "access_key_id"]);
            secrets.push("secret_access_key");
        }
        if is("azure") {
            texts.extend(["tenant_id", "client_id", "federated_token_file", "authority"]);
            secrets.push("client_secret");
        }
        if is("gcp") {
            secrets.push("service_account");
        }
        let follow = if is("gcp") { r.optional(&format!("{at}.follow")) } else { None };
        let text = |r: &mut Reader, name: &'static str| {
            let value: Option<String> = r.optional(&format!("{at}.{name}"));
            value.filter(|it| !it.trim().is_empty()).map(|it| (name, it))
        };
        Self {
            timeout: r.optional(&format!("{at}.timeout")).unwrap_or(Span::from_secs(10)),
            endpoint: text(r, "endpoint").map(|(_, it)| it),
            texts: texts.into_iter().filter_map(|name| text(r, name)).collect(),
            secrets: secrets
                .into_iter()
                .filter_map(|name| Some((name, r.secret(&format!("{at}.{name}"))?)))
                .collect(),
            follow,
            kind,
        }
    }

    /// The lookup, or `None` when an error keeps it from being built.
    pub(super) fn check(&self, name: &str, r: &mut Reader) -> Option<Kms> {
        let at = format!("kms.{name}");
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_') {
            r.fault(&at, "a lookup's name takes lower-case letters, digits, \"-\" and \"_\"");
            return None;
        }
        let Some(kind) = &self.kind else {
            r.fault(&at, "kind is missing: write kind = \"aws\", kind = \"azure\" or kind = \"gcp\"");
            return None;
        };
        let Some((_, built, cloud)) = KINDS.into_iter().find(|(it, ..)| it == kind) else {
            let known = KINDS.map(|(name, ..)| name);
            r.odd_word(&format!("{at}.kind"), kind, &known, "takes \"aws\", \"azure\" or \"gcp\"");
            return None;
        };
        if !built {
            let why = format!(
                "this build has no lookups at {cloud}: build it with the feature {kind:?}, or take the section out"
            );
            r.fault(&format!("{at}.kind"), &why);
            return None;
        }
        if self.timeout >= LONGEST_REQUEST {
            let why = format!("{} must be less than 55s: a rotation's step waits for it", self.timeout);
            r.fault(&format!("{at}.timeout"), &why);
        }
        let endpoint = address(&format!("{at}.endpoint"), self.endpoint.as_deref(), r)?;
        let login = match kind.as_str() {
            "aws" => self.aws(&at, r),
            "azure" => self.azure(&at, r),
            _ => Some(Login::Gcp {
                service_account: self.secrets.get("service_account").cloned(),
                follow: self.follow.unwrap_or_default(),
            }),
        };
        Some(Kms { timeout: self.timeout, endpoint, login: login? })
    }

    fn text(&self, name: &str) -> Option<String> {
        self.texts.get(name).map(|it| it.trim().to_owned())
    }

    fn aws(&self, at: &str, r: &mut Reader) -> Option<Login> {
        let (id, secret) = (self.text("access_key_id"), self.secrets.get("secret_access_key").cloned());
        let profile = self.text("profile");
        if profile.is_some() && id.is_some() {
            r.fault(at, "profile and access_key_id are two log-ins: keep one");
            return None;
        }
        let keys = match (id, secret) {
            (Some(id), Some(secret)) => Some((id, secret)),
            (None, None) => None,
            (Some(_), None) => {
                needs(at, "access_key_id", "secret_access_key", r);
                return None;
            }
            (None, Some(_)) => {
                needs(at, "secret_access_key", "access_key_id", r);
                return None;
            }
        };
        Some(Login::Aws { region: self.text("region"), profile, keys })
    }

    fn azure(&self, at: &str, r: &mut Reader) -> Option<Login> {
        let (tenant_id, client_id) = (self.text("tenant_id"), self.text("client_id"));
        let client_secret = self.secrets.get("client_secret").cloned();
        let federated_token_file = self.text("federated_token_file").map(PathBuf::from);
        if client_secret.is_some() && federated_token_file.is_some() {
            r.fault(at, "client_secret and federated_token_file are two log-ins: keep one");
            return None;
        }
        let given = match (&client_secret, &federated_token_file) {
            (Some(_), _) => Some("client_secret"),
            (_, Some(_)) => Some("federated_token_file"),
            _ => None,
        };
        if let Some(given) = given {
            for (name, value) in [("tenant_id", &tenant_id), ("client_id", &client_id)] {
                if value.is_none() {
                    needs(at, given, name, r);
                    return None;
                }
            }
        }
        let authority = address(&format!("{at}.authority"), self.text("authority").as_deref(), r)?;
        let proof = client_secret.map(AzureCredential::Secret);
        let proof = proof.or(federated_token_file.map(AzureCredential::TokenFile));
        Some(Login::Azure { tenant_id, client_id, proof, authority })
    }
}

/// Reports that `there` needs `missing`, unless `missing` has a fault of its own.
fn needs(at: &str, there: &str, missing: &str, r: &mut Reader) {
    if !r.is_faulty(&format!("{at}.{missing}")) {
        r.fault(at, &format!("{there} needs {missing} beside it"));
    }
}

/// An address to use instead of the cloud's own. The outer `None` is a fault.
#[expect(clippy::option_option, reason = "a fault and an address that is not set are two things")]
fn address(path: &str, text: Option<&str>, r: &mut Reader) -> Option<Option<Url>> {
    let Some(text) = text else { return Some(None) };
    let url = Url::parse(&check_web_url(path, text, r)?).ok()?;
    if url.scheme() == "http" && !is_loopback(&url) {
        r.warnings
            .push(format!("{path} is plain http: tokens cross the network readable; production value https"));
    }
    Some(Some(url))
}
