//! Signing in with an identity provider: OpenID Connect's authorization code flow with PKCE, as a confidential client.
//!
//! A start leaves nothing on the server: state, nonce and verifier travel in an encrypted cookie of the browser, so
//! strangers cannot fill the database, and any daemon of the installation can take the answer. The answer counts only
//! with that cookie. Whether the person may come in is decided from the claims (`claims.rs`); what the provider is and
//! says is fetched by `provider.rs`. Sessions and pages are not made here.

mod claims;
mod provider;

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::config::Oidc;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::net::client::BuildError;
use crate::store::{PersonRefusal, SeenPerson, Store};
use claims::Known;
pub use provider::Provider;

/// How long a person may take at the provider.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);

/// What the cookie of a start is for.
const PURPOSE: &str = "signing in with an identity provider";

/// The longest text of a provider that a page shows, in characters.
const LONGEST_TEXT: usize = 200;

/// Why nobody was signed in, for the person who tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    #[error(
        "This sign-in was not begun in this browser, or it was begun more than ten minutes ago, or once more since."
    )]
    NotBegunHere,
    #[error("The answer does not come from {0}, where this sign-in was begun.")]
    OtherIssuer(String),
    #[error("{provider} did not sign you in. It says: {said}")]
    Refused { provider: String, said: String },
    #[error(
        "{0} does not answer as it should just now; the server's log has the reason. A token signs in without it."
    )]
    Unavailable(String),
    #[error("{0} did not take the code that it had given: it was used before, or is too old.")]
    Code(String),
    #[error("What {provider} says about you cannot be accepted: {why}.")]
    Claims { provider: String, why: &'static str },
    #[error(
        "{provider} knows you, and none of your groups there has a role here. Ask who runs this server to give a role to one of them, under `roles` of [oidc.{provider}], or to add you to a group that has one."
    )]
    NoRole { provider: String },
    #[error(
        "Another account at {0} has signed in with your name or address before, and its votes are not yours. Ask who runs this server for a token."
    )]
    OtherAccount(String),
    #[error("Your account at {0} has had too many addresses. Ask who runs this server for a token.")]
    TooManyNames(String),
    #[error("The system gives no random bits.")]
    Random,
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// The configured providers.
#[derive(Debug, Default)]
pub struct Providers(Vec<Provider>);

/// What the browser keeps from the start to the answer.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    to: String,
    ends: Timestamp,
}

/// The answer that the browser brings from the provider.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Providers {
    /// The providers of a configuration, whose people come back to `public_url`.
    ///
    /// # Errors
    /// Fails when TLS cannot be set up.
    pub fn new(all: &[Oidc], public_url: &str) -> Result<Self, BuildError> {
        Ok(Self(all.iter().map(|it| Provider::new(it, public_url)).collect::<Result<_, _>>()?))
    }

    /// Takes the secrets over from a configuration that was read again.
    pub fn take_secrets(&self, all: &[Oidc]) {
        for provider in &self.0 {
            if let Some(fresh) =
                all.iter().find(|it| it.name == provider.name() && it.issuer == provider.issuer())
            {
                provider.take_secret(fresh.client_secret.clone());
            }
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Provider::name)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Provider> {
        self.0.iter().find(|it| it.name() == name)
    }

    pub(super) fn of_issuer(&self, issuer: &str) -> Option<&Provider> {
        self.0.iter().find(|it| it.issuer() == issuer)
    }
}

/// 256 random bits, as text.
fn random() -> Result<String, SignInError> {
    let mut bits = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bits).map_err(|_| SignInError::Random)?;
    Ok(BASE64.encode(bits))
}

/// What is shown of a provider's own words.
fn shown(text: &str) -> String {
    visible(&text.chars().take(LONGEST_TEXT).collect::<String>())
}

/// Begins a sign-in that ends at the path `to`: the address to go to, and the value of the browser's cookie.
///
/// # Errors
/// Fails when the provider's document cannot be read, and without random bits.
pub(super) async fn begin(
    provider: &Provider,
    store: &Store,
    to: &str,
    now: Timestamp,
) -> Result<(String, String), SignInError> {
    let document = provider.document(now).await?;
    let begun = Begun {
        provider: provider.name().to_owned(),
        state: random()?,
        nonce: random()?,
        verifier: random()?,
        to: to.to_owned(),
        ends: now + PATIENCE,
    };
    let mut url: Url = document.authorization_endpoint.clone();
    let challenge = BASE64.encode(Sha256::digest(&begun.verifier));
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", provider.client_id()),
        ("redirect_uri", provider.redirect_uri()),
        ("scope", &provider.scopes()),
        ("state", &begun.state),
        ("nonce", &begun.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let text = serde_json::to_string(&begun).map_err(|_| SignInError::NotBegunHere)?;
    let cookie = store.seals().key()?.close(PURPOSE, &text).ok_or(SignInError::Random)?;
    Ok((url.into(), cookie))
}

/// Ends a sign-in: who it is by the provider, and where the person wanted to go.
///
/// # Errors
/// Fails when the answer does not belong to a start of this browser, and when the provider does not vouch for somebody
/// who has a role here.
pub(super) async fn finish(
    provider: &Provider,
    store: &Store,
    (cookie, answer): (Option<&str>, Answer),
    now: Timestamp,
) -> Result<(SeenPerson, String), SignInError> {
    let name = || provider.name().to_owned();
    let begun = cookie.and_then(|cookie| store.seals().key().ok()?.open(PURPOSE, cookie));
    let begun: Option<Begun> = begun.and_then(|text| serde_json::from_str(&text).ok());
    let is_own = |it: &Begun| {
        it.provider == provider.name() && now < it.ends && answer.state.as_deref() == Some(it.state.as_str())
    };
    let begun = begun.filter(is_own).ok_or(SignInError::NotBegunHere)?;
    let document = provider.document(now).await?;
    let names_itself = document.authorization_response_iss_parameter_supported;
    match &answer.iss {
        Some(issuer) if issuer != provider.issuer() => return Err(SignInError::OtherIssuer(name())),
        None if names_itself => return Err(SignInError::OtherIssuer(name())),
        _ => {}
    }
    if let Some(error) = &answer.error {
        let said = answer
            .error_description
            .as_ref()
            .map_or_else(|| shown(error), |more| format!("{} ({})", shown(more), shown(error)));
        return Err(SignInError::Refused { provider: name(), said });
    }
    let Some(code) = &answer.code else { return Err(SignInError::NotBegunHere) };
    let given = provider.redeem(&document, code, &begun.verifier).await?;
    let claims = provider.identity(&document, &given, &begun.nonce, now).await?;
    Ok((person(provider, &claims)?, begun.to))
}

/// Who the claims describe.
fn person(provider: &Provider, claims: &Known) -> Result<SeenPerson, SignInError> {
    let all: BTreeSet<&str> = claims.groups.iter().map(String::as_str).collect();
    let has = |groups: &Vec<String>| groups.iter().any(|it| all.contains(it.as_str()));
    let roles: Vec<_> =
        provider.roles().iter().filter(|(_, groups)| has(groups)).map(|(role, _)| *role).collect();
    let name = match &claims.mail {
        Some(mail) => format!("mail:{mail}"),
        None => format!("oidc:{}/{}", provider.name(), claims.subject),
    };
    if roles.is_empty() {
        tracing::warn!(
            provider = provider.name(),
            person = name,
            groups = claims.groups.join(", "),
            "nobody was signed in: none of the groups has a role in the configuration"
        );
        return Err(SignInError::NoRole { provider: provider.name().to_owned() });
    }
    Ok(SeenPerson {
        issuer: provider.issuer().to_owned(),
        subject: claims.subject.clone(),
        name,
        mail: claims.mail.clone(),
        roles,
        groups: claims.groups.clone(),
    })
}

/// Why a person whom the provider vouches for is not let in.
pub(super) fn refusal(provider: &Provider, why: PersonRefusal) -> SignInError {
    let name = provider.name().to_owned();
    match why {
        PersonRefusal::OtherAccount => SignInError::OtherAccount(name),
        PersonRefusal::TooManyNames => SignInError::TooManyNames(name),
    }
}
