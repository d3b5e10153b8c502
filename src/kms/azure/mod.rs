//! Azure Key Vault over REST: the list of a key's versions, one version, and a probe.
//!
//! The newest version is the one with the latest `created` among those that may be used now; the order
//! of the list is ignored. The key without a version is never requested: its result is not documented
//! when the newest version is disabled. A page's link is followed only within the same key of the same
//! vault, because our token is sent with it. A 401's challenge is not followed: the source of tokens is
//! configured, never taken from a reply.

mod login;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use url::Url;

use super::error::{ErrorKind, KmsError};
use super::http::{Http, KmsResponse, below, send};
use super::{
    Connected, Found, KeyService, KeyState, PROBE, SetupError, Unfit, Watched, came_back, from_seconds,
    within,
};
use crate::config::kms::Kms;
use crate::domain::key::{AzureKey, KeyRef, Place, Provider};
use crate::domain::time::Timestamp;
use login::{CLOUDS, Tokens};

const SERVICE: &str = "Azure Key Vault";
const API: (&str, &str) = ("api-version", "7.4");
const ALGORITHM: &str = "RSA-OAEP-256";
/// Pages of 25 versions that are read, far more than the versions of a key.
const MOST_PAGES: usize = 100;
/// The cloud of a login when neither authority nor endpoint determines it.
const USUAL_CLOUD: &str = "vault.azure.net";
/// Codes for an expired and for a wrong secret: Entra has the application, so it was the right cloud.
const KNOWN_THERE: [&str; 2] = ["AADSTS7000222", "AADSTS7000215"];

const READ: &str =
    "give our identity get and list on keys in the vault's access policy, or the role Key Vault Reader";
const USE: &str = "give our identity encrypt and decrypt on keys in the vault's access policy, or the role Key Vault Crypto User";

#[derive(Debug)]
pub(super) struct Azure {
    http: Http,
    endpoint: Option<Url>,
    timeout: Duration,
    tokens: Tokens,
}

/// One version, from a list or a key.
pub(super) struct Version {
    pub(super) id: String,
    enabled: bool,
    created: Option<Timestamp>,
    not_before: Option<Timestamp>,
    expires: Option<Timestamp>,
}

impl Azure {
    pub(super) fn new(name: &str, options: Kms) -> Result<Self, SetupError> {
        let Kms { timeout, endpoint, login } = options;
        let timeout = timeout.get();
        let bad = |setting, problem| SetupError::Setting { name: name.to_owned(), setting, problem };
        let http =
            Http::new(endpoint.as_ref(), timeout).map_err(|problem| bad("kind", problem.to_string()))?;
        let tokens = Tokens::new(login, timeout).map_err(|(setting, problem)| bad(setting, problem))?;
        Ok(Self { http, endpoint, timeout, tokens })
    }

    /// The cloud of the configured authority or endpoint, where these determine one.
    fn cloud(&self) -> Option<&'static str> {
        let endpoint = self.endpoint.as_ref().and_then(Url::host_str).unwrap_or_default();
        let authority = self.tokens.authority.as_ref().and_then(Url::host_str);
        let known =
            CLOUDS.iter().find(|(vaults, host)| endpoint.ends_with(vaults) || authority == Some(*host));
        known.map(|(vaults, _)| *vaults).or(authority.map(|_| USUAL_CLOUD))
    }

    /// The URL of the key's vault.
    fn vault(&self, key: &AzureKey) -> Result<Url, KmsError> {
        match &self.endpoint {
            Some(endpoint) => Ok(below(endpoint, [key.vault()])),
            None => Url::parse(&format!("https://{}.{}", key.vault(), key.cloud()))
                .map_err(|error| KmsError::broken(error.to_string())),
        }
    }

    /// `{vault}/keys/{name}` and what follows.
    fn url(&self, key: &AzureKey, rest: &[&str]) -> Result<Url, KmsError> {
        let path = ["keys", key.name()].into_iter().chain(rest.iter().copied());
        let mut url = below(&self.vault(key)?, path);
        url.query_pairs_mut().append_pair(API.0, API.1);
        Ok(url)
    }

    async fn ask(&self, key: &AzureKey, url: Url, body: Option<&Value>) -> Result<Value, KmsError> {
        let token = self.tokens.token(key.cloud()).await?;
        let request = match body {
            None => self.http.get(url),
            Some(body) => self.http.post(url).json(body),
        };
        let reply = send(request.bearer_auth(token.expose()), SERVICE).await?;
        if reply.is_success() {
            return reply.object(SERVICE);
        }
        if reply.status == 401 {
            self.tokens.forget(key.cloud()).await;
        }
        let grant = if body.is_some() { USE } else { READ };
        Err(failure(&reply.without(token.expose()), grant))
    }

    async fn newest_of(&self, key: &AzureKey, now: Timestamp) -> Result<Found, KmsError> {
        let mut first = self.url(key, &["versions"])?;
        first.query_pairs_mut().append_pair("maxresults", "25");
        let (mut next, mut newest, mut seen) = (Some(first.clone()), None::<Version>, 0_usize);
        for _ in 0..MOST_PAGES {
            let Some(url) = next.take() else { break };
            let page = self.ask(key, url, None).await?;
            for item in page["value"].as_array().into_iter().flatten() {
                seen += 1;
                let version = version(item, item["kid"].as_str(), key)?;
                let usable = version.enabled
                    && version.not_before.is_none_or(|at| at <= now)
                    && version.expires.is_none_or(|at| at > now);
                if usable && newest.as_ref().is_none_or(|best| rank(&version, key) > rank(best, key)) {
                    newest = Some(version);
                }
            }
            next = match page["nextLink"].as_str().filter(|link| !link.is_empty()) {
                Some(link) => Some(same_list(&first, link)?),
                None => None,
            };
        }
        if next.is_some() {
            return Err(KmsError::broken(format!(
                "the list of the versions of {} does not end after {MOST_PAGES} pages",
                key.name()
            )));
        }
        let Some(newest) = newest else {
            return Err(KmsError::new(
                ErrorKind::Unusable,
                format!(
                    "none of the {seen} versions of the key {} in vault {} is enabled, active and not expired",
                    key.name(),
                    key.vault()
                ),
                "enable a version or make a new one in the vault",
            ));
        };
        self.one(key, &newest.id).await
    }

    async fn one(&self, key: &AzureKey, id: &str) -> Result<Found, KmsError> {
        let body = self.ask(key, self.url(key, &[id])?, None).await?;
        let jwk = &body["key"];
        let version = version(&body, jwk["kid"].as_str(), key)?;
        if !version.id.eq_ignore_ascii_case(id) {
            return Err(KmsError::broken(format!(
                "{SERVICE} described version {} instead of {id}",
                version.id
            )));
        }
        let kty = jwk["kty"].as_str().unwrap_or("no type");
        let ops: Vec<&str> =
            jwk["key_ops"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let suits = if !matches!(kty, "RSA" | "RSA-HSM") {
            Err(Unfit::AzureKind(kty.to_owned()))
        } else if let Some(missing) = ["encrypt", "decrypt"].into_iter().find(|op| !ops.contains(op)) {
            Err(Unfit::AzureOperation(missing))
        } else {
            Ok(())
        };
        let url = format!("https://{}.{}/keys/{}/{}", key.vault(), key.cloud(), key.name(), version.id);
        let found = KeyRef::parse(Provider::Azure, &url).map_err(|error| KmsError::broken(error.message))?;
        Ok(Found {
            key: found,
            state: if version.enabled { KeyState::Enabled } else { KeyState::Disabled },
            suits,
            created: version.created,
            expires: version.expires,
            not_before: version.not_before,
            region: None,
            material: None,
        })
    }

    async fn try_out(&self, key: &AzureKey, id: &str) -> Result<(), KmsError> {
        let body = json!({ "alg": ALGORITHM, "value": URL_SAFE_NO_PAD.encode(PROBE) });
        let sealed = self.ask(key, self.url(key, &[id, "encrypt"])?, Some(&body)).await?;
        let value = sealed["value"].as_str().filter(|value| !value.is_empty());
        let value =
            value.ok_or_else(|| KmsError::broken(format!("the reply of {SERVICE} has no ciphertext")))?;
        let body = json!({ "alg": ALGORITHM, "value": value });
        let opened = self.ask(key, self.url(key, &[id, "decrypt"])?, Some(&body)).await?;
        let plain = opened["value"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        came_back(plain.as_deref())
    }
}

impl KeyService for Azure {
    fn provider(&self) -> Option<Provider> {
        Some(Provider::Azure)
    }

    fn newest<'a>(
        &'a self,
        of: Watched<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<Found>, KmsError>> {
        Box::pin(async move {
            let key = azure(of.key)?;
            within(self.timeout, SERVICE, self.newest_of(key, now)).await.map(Some)
        })
    }

    fn describe<'a>(&'a self, key: &'a KeyRef, _: &'a Place) -> BoxFuture<'a, Result<Found, KmsError>> {
        Box::pin(async move {
            let (key, id) = versioned(key)?;
            within(self.timeout, SERVICE, self.one(key, id)).await
        })
    }

    fn probe<'a>(&'a self, key: &'a KeyRef, _: &'a Place) -> BoxFuture<'a, Result<(), KmsError>> {
        Box::pin(async move {
            let (key, id) = versioned(key)?;
            within(self.timeout, SERVICE, self.try_out(key, id)).await
        })
    }
}

impl Connected for Azure {
    fn log_in(&self) -> BoxFuture<'_, Result<String, KmsError>> {
        Box::pin(async move {
            let cloud = self.cloud().unwrap_or(USUAL_CLOUD);
            match within(self.timeout, login::SERVICE, self.tokens.token(cloud)).await {
                Ok(_) => Ok(format!("{} gave a token for {cloud}", self.tokens)),
                Err(mut error) => {
                    if !self.is_telling(&error) {
                        error.advice += "; for keys outside of ";
                        error.advice += cloud;
                        error.advice += ", which was tried, set authority";
                    }
                    Err(error)
                }
            }
        })
    }

    fn is_telling(&self, failed: &KmsError) -> bool {
        self.cloud().is_some() || failed.code.as_deref().is_some_and(|code| KNOWN_THERE.contains(&code))
    }
}

fn azure(key: &KeyRef) -> Result<&AzureKey, KmsError> {
    match key {
        KeyRef::Azure(key) => Ok(key),
        other => Err(KmsError::foreign(SERVICE, other)),
    }
}

fn versioned(key: &KeyRef) -> Result<(&AzureKey, &str), KmsError> {
    let it = azure(key)?;
    let id = it.version().ok_or_else(|| {
        KmsError::new(
            ErrorKind::Broken,
            format!("{key} names no version"),
            "look up one version, such as the newest",
        )
    })?;
    Ok((it, id))
}

/// The order of versions by age. Of two versions of the same second the one in use is newer, so that no
/// rotation is proposed; beyond that the order is only stable.
fn rank<'a>(version: &'a Version, watched: &AzureKey) -> (Option<Timestamp>, bool, &'a str) {
    (version.created, watched.version() == Some(version.id.as_str()), &version.id)
}

/// Reads a version whose id, `kid`, must lie in the requested key.
pub(super) fn version(body: &Value, kid: Option<&str>, key: &AzureKey) -> Result<Version, KmsError> {
    let kid = kid.unwrap_or_default();
    let Ok(KeyRef::Azure(found)) = KeyRef::parse(Provider::Azure, kid) else {
        return Err(KmsError::broken(format!("{SERVICE} names a version that is not valid: {kid:?}")));
    };
    let same = found.vault() == key.vault()
        && found.cloud() == key.cloud()
        && found.name().eq_ignore_ascii_case(key.name());
    let Some(id) = found.version().filter(|_| same) else {
        return Err(KmsError::broken(format!("{SERVICE} described {kid:?} instead of {}", key.name())));
    };
    let attributes = &body["attributes"];
    let instant = |name: &str| attributes[name].as_i64().and_then(from_seconds);
    Ok(Version {
        id: id.to_owned(),
        enabled: attributes["enabled"] == true,
        created: instant("created"),
        not_before: instant("nbf"),
        expires: instant("exp"),
    })
}

/// The next page, which must be one of the same list: the request for it carries our token.
pub(super) fn same_list(first: &Url, link: &str) -> Result<Url, KmsError> {
    let next = Url::parse(link).ok();
    let good = next.filter(|next| {
        next.origin() == first.origin()
            && next.username().is_empty()
            && next.password().is_none()
            && next.path().eq_ignore_ascii_case(first.path())
    });
    good.ok_or_else(|| {
        KmsError::new(
            ErrorKind::Broken,
            "the next page of the versions lies at another address, which is not followed",
            "check the endpoint: nothing but the vault itself may answer there",
        )
    })
}

pub(super) fn failure(reply: &KmsResponse, grant: &str) -> KmsError {
    let body = reply.json();
    let error = &body["error"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let inner = text(&error["innererror"]["code"]);
    let code = inner.clone().or_else(|| text(&error["code"]));
    let message = text(&error["message"])
        .unwrap_or_else(|| format!("{SERVICE} answered {} without a reason", reply.status));
    let lower = message.to_lowercase();
    let is = |codes: &[&str]| inner.as_deref().is_some_and(|inner| codes.contains(&inner));
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (kind, advice) = match reply.status {
        401 => (
            ErrorKind::Credential,
            "check that tenant_id is the vault's own directory, and that the application exists in it",
        ),
        403 if is(&["ForbiddenByFirewall", "ForbiddenByConnection"]) => (
            ErrorKind::Unreachable,
            "the vault's firewall keeps this machine out: allow its address or network in the vault's networking, or go through a private endpoint",
        ),
        403 if is(&["KeyDisabled", "KeyExpired", "KeyNotYetValid"])
            || says(&["disabled key", "expired key", "not yet valid"]) =>
        {
            (ErrorKind::Unusable, "enable this version of the key, or move its dates; or choose another")
        }
        403 if is(&["KeyOperationForbidden"]) => (
            ErrorKind::Unusable,
            "allow encrypt and decrypt in the key's permitted operations, or make a key that has them",
        ),
        403 => (ErrorKind::Denied, grant),
        404 => (
            ErrorKind::NotFound,
            "check vault, key and version; a deleted key can be recovered while its retention lasts",
        ),
        429 => (
            ErrorKind::Throttled,
            "the vault has a limit for each ten seconds; poll less often (sweep.poll_every)",
        ),
        500..=599 => return KmsError::unreachable(message).with_code(code),
        _ => return KmsError::broken(message).with_code(code),
    };
    KmsError::new(kind, message, advice).with_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kms::{AzureCredential, Login};
    use crate::domain::time::Span;
    use crate::secret::Secret;

    fn azure(endpoint: Option<&str>, authority: Option<&str>) -> Azure {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let login = Login::Azure {
            tenant_id: Some("t".to_owned()),
            client_id: Some("c".to_owned()),
            proof: Some(AzureCredential::Secret(Secret::new("canary"))),
            authority: url(authority),
        };
        let timeout = Span::from_secs(1);
        Azure::new("x", Kms { timeout, endpoint: url(endpoint), login }).unwrap()
    }

    #[tokio::test]
    async fn a_log_in_is_tried_in_the_cloud_that_is_configured() {
        for (endpoint, authority, cloud) in [
            (None, Some("https://login.microsoftonline.us"), Some("vault.usgovcloudapi.net")),
            (None, Some("https://login.chinacloudapi.cn/"), Some("vault.azure.cn")),
            (None, Some("https://login.partner.microsoftonline.cn"), Some("vault.azure.cn")),
            (Some("https://kv.vault.usgovcloudapi.net"), None, Some("vault.usgovcloudapi.net")),
            (None, Some("https://login.microsoftonline.com"), Some("vault.azure.net")),
            (None, Some("http://127.0.0.1:9/entra"), Some("vault.azure.net")),
            (Some("http://127.0.0.1:9/vaults"), None, None),
            (None, None, None),
        ] {
            assert_eq!(azure(endpoint, authority).cloud(), cloud, "{endpoint:?} {authority:?}");
        }
    }

    #[tokio::test]
    async fn a_log_in_in_a_cloud_that_was_guessed_is_not_telling() {
        let failed =
            |code: &str| KmsError::new(ErrorKind::Credential, "no", "do").with_code(Some(code.to_owned()));
        let unsure = azure(None, None);
        assert!(!unsure.is_telling(&failed("AADSTS90002")) && !unsure.is_telling(&failed("AADSTS700016")));
        assert!(unsure.is_telling(&failed("AADSTS7000222")));
        assert!(azure(None, Some("https://login.microsoftonline.us")).is_telling(&failed("AADSTS90002")));
    }

    #[test]
    fn a_next_page_is_followed_only_within_the_list() {
        let first = Url::parse("https://kv-prod.vault.azure.net/keys/cmk/versions?api-version=7.4").unwrap();
        let link = "https://kv-prod.vault.azure.net:443/keys/cmk/versions?api-version=7.4&$skiptoken=x";
        assert!(same_list(&first, link).is_ok());
        for link in [
            "https://kv-prod.vault.azure.net.evil.example/keys/cmk/versions?$skiptoken=x",
            "https://evil.example/keys/cmk/versions",
            "http://kv-prod.vault.azure.net/keys/cmk/versions",
            "https://kv-prod.vault.azure.net:444/keys/cmk/versions",
            "https://kv-prod.vault.azure.net@evil.example/keys/cmk/versions",
            "https://u:p@kv-prod.vault.azure.net/keys/cmk/versions",
            "https://kv-prod.vault.azure.net/keys/other/versions",
            "https://kv-prod.vault.azure.net/secrets/cmk/versions",
            "/keys/cmk/versions",
            "",
        ] {
            assert_eq!(same_list(&first, link).unwrap_err().kind, ErrorKind::Broken, "{link}");
        }
    }
}
