//! One identity provider: its document, its keys, and the calls that a sign-in makes to it.
//!
//! The document is what the issuer publishes under its own address; it counts only when it names that issuer. No
//! redirect is followed, answers are bounded, and whatever fails is logged here with its reason: people are told only
//! that it failed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};

use super::super::fetch::Fetcher;
use super::super::keys::{KeyError, Keys};
use super::claims::{self, Expected, Known};
use super::{SignInError, shown};
use crate::config::Oidc;
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::net::body;
use crate::net::cause::with_causes;
use crate::net::client::{self, BuildError};
use crate::secret::Secret;

/// Timeout of a call. A sign-in makes four at most, within the time that a page has.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the document is used without another fetch.
const FRESH: Duration = Duration::from_hours(1);
/// How long it is used when it cannot be fetched.
const OLDEST: Duration = Duration::from_hours(24);
/// The shortest time between two fetches of the document or of the keys. The tokens come from the provider itself, so
/// strangers cannot name unknown keys.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const ANSWER_LIMIT: usize = 256 * 1024;

/// What an issuer publishes about itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Document {
    issuer: String,
    pub(super) authorization_endpoint: Url,
    token_endpoint: Url,
    jwks_uri: Url,
    userinfo_endpoint: Option<Url>,
    end_session_endpoint: Option<Url>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// The tokens as they are sent; they show nowhere.
#[derive(Deserialize)]
struct RawGiven {
    id_token: String,
    access_token: Option<String>,
}

/// What a code is worth.
#[derive(Debug)]
pub(super) struct Given {
    id_token: Secret,
    access_token: Option<Secret>,
}

#[derive(Debug, Default)]
struct Found {
    asked: Option<Timestamp>,
    got: Option<(Timestamp, Arc<Document>)>,
}

/// An identity provider.
#[derive(Debug)]
pub struct Provider {
    config: Oidc,
    secret: RwLock<Secret>,
    redirect_uri: String,
    signed_out: String,
    http: reqwest::Client,
    keys: Keys,
    found: Mutex<Found>,
}

impl Provider {
    /// # Errors
    /// Fails when TLS cannot be set up.
    pub fn new(config: &Oidc, public_url: &str) -> Result<Self, BuildError> {
        let issuer = Url::parse(&config.issuer).ok();
        let http = client::build(client::builder(issuer.as_ref(), LIMIT).timeout(LIMIT))?;
        Ok(Self {
            secret: RwLock::new(config.client_secret.clone()),
            redirect_uri: format!("{public_url}/login/oidc/{}/callback", config.name),
            signed_out: format!("{public_url}/login"),
            config: config.clone(),
            http,
            keys: Keys::new(PAUSE),
            found: Mutex::default(),
        })
    }

    /// Its name.
    pub(in crate::web) fn name(&self) -> &str {
        &self.config.name
    }

    /// Its issuer.
    pub(in crate::web) fn issuer(&self) -> &str {
        &self.config.issuer
    }

    pub(super) fn client_id(&self) -> &str {
        &self.config.client_id
    }

    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    pub(super) fn scopes(&self) -> String {
        self.config.scopes.join(" ")
    }

    pub(super) fn roles(&self) -> &BTreeMap<Role, Vec<String>> {
        &self.config.roles
    }

    pub(super) fn take_secret(&self, fresh: Secret) {
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn unavailable(&self, what: &str, why: &dyn Display) -> SignInError {
        tracing::warn!(provider = self.name(), "{what}: {why}");
        SignInError::Unavailable(self.name().to_owned())
    }

    /// The document in force.
    pub(super) async fn document(&self, now: Timestamp) -> Result<Arc<Document>, SignInError> {
        let mut found = self.found.lock().await;
        if let Some((at, document)) = &found.got
            && now.since(*at) < FRESH
        {
            return Ok(Arc::clone(document));
        }
        if found.asked.is_none_or(|at| now.since(at) >= PAUSE) {
            found.asked = Some(now);
            match self.fetch_document().await {
                Ok(document) => found.got = Some((now, Arc::new(document))),
                Err(why) => _ = self.unavailable("the provider's document cannot be read", &why),
            }
        }
        match &found.got {
            Some((at, document)) if now.since(*at) < OLDEST => Ok(Arc::clone(document)),
            _ => Err(SignInError::Unavailable(self.name().to_owned())),
        }
    }

    async fn fetch_document(&self) -> Result<Document, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer().trim_end_matches('/'));
        let body = Fetcher::body(self.http.get(&url), ANSWER_LIMIT).await;
        let body = body.map_err(|why| format!("{url}: {why}"))?;
        let document: Document = serde_json::from_slice(&body).map_err(|why| format!("{url}: {why}"))?;
        if document.issuer != self.issuer() {
            return Err(format!(
                "{url} is of the issuer {}; write that into oidc.{}.issuer, to the letter, if it is the right one",
                shown(&document.issuer),
                self.name()
            ));
        }
        let calls = [&document.authorization_endpoint, &document.token_endpoint, &document.jwks_uri];
        let optional = [&document.userinfo_endpoint, &document.end_session_endpoint];
        let is_plain = self.issuer().starts_with("http:");
        for it in calls.into_iter().chain(optional.into_iter().flatten()) {
            if !(it.scheme() == "https" || (is_plain && it.scheme() == "http")) {
                return Err(format!("{url} names the address {}, which is not https", shown(it.as_str())));
            }
        }
        Ok(document)
    }

    /// Whether the provider can be used: its document and its keys.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub async fn check(&self, now: Timestamp) -> Result<String, String> {
        let document = self.fetch_document().await?;
        let fetcher = Fetcher::over(self.http.clone());
        let url = document.jwks_uri.as_str();
        let keys = self
            .keys
            .count(&fetcher, url, now)
            .await
            .map_err(|_| format!("its keys at {url} cannot be read"))?;
        if keys == 0 {
            return Err(format!("it has no keys at {url}"));
        }
        Ok(format!(
            "{} answers and has {keys} keys; enter {} there as the redirect URI",
            self.issuer(),
            self.redirect_uri
        ))
    }

    /// Where a person signs out at the provider too; `None` where it has no such page.
    pub(in crate::web) async fn sign_out_url(&self, now: Timestamp) -> Option<String> {
        let mut url = self.document(now).await.ok()?.end_session_endpoint.clone()?;
        let pairs = [("client_id", self.client_id()), ("post_logout_redirect_uri", &self.signed_out)];
        url.query_pairs_mut().extend_pairs(pairs);
        Some(url.into())
    }

    /// Exchanges a code for tokens.
    pub(super) async fn redeem(
        &self,
        document: &Document,
        code: &str,
        verifier: &str,
    ) -> Result<Given, SignInError> {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", verifier),
        ];
        let mut request = self.http.post(document.token_endpoint.clone());
        let methods = document.token_endpoint_auth_methods_supported.as_deref();
        let takes = |method: &str| methods.is_none_or(|all| all.iter().any(|it| it == method));
        if takes("client_secret_basic") {
            // Both are form-encoded before Base64 (RFC 6749, 2.3.1).
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            request = request.basic_auth(encoded(self.client_id()), Some(encoded(secret.expose())));
        } else {
            form.extend([("client_id", self.client_id()), ("client_secret", secret.expose())]);
        }
        let what = "the code of a sign-in cannot be exchanged";
        let sent = request.form(&form).send().await;
        let mut answer = sent.map_err(|why| self.unavailable(what, &with_causes(&why.without_url())))?;
        let status = answer.status();
        let body = body::read(&mut answer, ANSWER_LIMIT).await;
        let body = body.map_err(|_| self.unavailable(what, &"the answer is too long or broke off"))?;
        if status.is_success() {
            let raw: RawGiven = serde_json::from_slice(&body)
                .map_err(|_| self.unavailable(what, &"the answer has no id_token"))?;
            let (id_token, access_token) = (Secret::new(raw.id_token), raw.access_token.map(Secret::new));
            return Ok(Given { id_token, access_token });
        }
        let error = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let error = error.get("error").and_then(Value::as_str).unwrap_or_default();
        tracing::warn!(provider = self.name(), %status, error = shown(error), "{what}");
        match (status, error) {
            // Of the person's answer; everything else is between the two servers.
            (StatusCode::BAD_REQUEST, "invalid_grant") => Err(SignInError::Code(self.name().to_owned())),
            _ => Err(SignInError::Unavailable(self.name().to_owned())),
        }
    }

    /// What is known of the person who brought a code.
    pub(super) async fn identity(
        &self,
        document: &Document,
        given: &Given,
        nonce: &str,
        now: Timestamp,
    ) -> Result<Known, SignInError> {
        let refuse = |why: &'static str| {
            tracing::warn!(provider = self.name(), "nobody was signed in: {why}");
            SignInError::Claims { provider: self.name().to_owned(), why }
        };
        let token = given.id_token.expose();
        let (algorithm, kid) = claims::key_id(token).map_err(refuse)?;
        let fetcher = Fetcher::over(self.http.clone());
        let key = self.keys.key(&fetcher, document.jwks_uri.as_str(), kid.as_deref(), now).await;
        let key = key.map_err(|why| match why {
            KeyError::Unknown => refuse("its token is signed with a key that it does not publish"),
            KeyError::Unavailable => SignInError::Unavailable(self.name().to_owned()),
        })?;
        let expected = Expected { issuer: self.issuer(), client_id: self.client_id(), nonce, now };
        let mut known = claims::verified(token, (algorithm, &key), expected).map_err(refuse)?;
        if let (Some(url), Some(access)) = (&document.userinfo_endpoint, &given.access_token)
            && claims::lacks(&known, &self.config.groups_claim)
        {
            let request = self.http.get(url.clone()).bearer_auth(access.expose());
            let what = "more about a person cannot be read (userinfo)";
            let body =
                Fetcher::body(request, ANSWER_LIMIT).await.map_err(|why| self.unavailable(what, &why))?;
            let more: Map<String, Value> = serde_json::from_slice(&body)
                .map_err(|_| self.unavailable(what, &"the answer is not JSON"))?;
            if more.get("sub") != known.get("sub") {
                return Err(refuse("it describes another account than the one that signed in"));
            }
            complete(&mut known, more);
        }
        let has_role = |group: &str| self.roles().values().flatten().any(|it| it == group);
        claims::known(&known, &self.config.groups_claim, has_role).map_err(refuse)
    }
}

/// Adds what the signed claims do not say. Whether an address is verified is said of the address beside it.
fn complete(known: &mut Map<String, Value>, mut more: Map<String, Value>) {
    let without = if known.contains_key("email") { &mut more } else { &mut *known };
    without.remove("email_verified");
    for (name, value) in more {
        known.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_verified_only_where_it_is_named() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let completed = |known: Value, more: Value| {
            let mut known = object(known);
            complete(&mut known, object(more));
            Value::Object(known)
        };
        let both = json!({ "email": "b@example.com", "email_verified": true });
        assert_eq!(completed(json!({}), both.clone()), both);
        assert_eq!(completed(json!({ "email": "a@example.com" }), both), json!({ "email": "a@example.com" }));
        let bare = json!({ "email": "b@example.com", "groups": ["x"] });
        assert_eq!(completed(json!({ "email_verified": true }), bare.clone()), bare);
        assert_eq!(
            completed(json!({ "groups": ["y"] }), json!({ "groups": ["x"] })),
            json!({ "groups": ["y"] })
        );
    }
}
