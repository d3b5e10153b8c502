//! Login: the credential of a call, and the second attempt after a 401.
//!
//! A request is sent once, and after a 401 once more: with a new token of a service account (`token`),
//! or with the nonce that came with the 401 for an API key (`digest`). A second 401 is the result. This
//! holds for a PATCH too: Atlas refuses a login before it reads the request, so a request with a 401 was
//! not applied, and the reply to the second attempt is valid for both. A request without a reply is never
//! repeated here.

use std::sync::Arc;

use super::Atlas;
use super::client::{Broken, Deadline, Request};
use super::digest::{ApiKey, Session};
use super::error::{failure, is_about_the_login, told};
use super::response::AtlasResponse;
use super::token::ServiceAccount;
use crate::config::Credential;
use crate::domain::rotation::outcome::{Class, EndpointSet, Failure};

/// A credential with its state: token or nonces.
pub(super) enum Account {
    Service(ServiceAccount),
    Key(String, ApiKey),
}

impl Account {
    pub(super) fn new(name: String, credential: Credential) -> Self {
        match credential {
            Credential::ServiceAccount { client_id, client_secret } => {
                Self::Service(ServiceAccount::new(name, client_id, client_secret))
            }
            Credential::ApiKey { public_key, private_key } => {
                Self::Key(name, ApiKey::new(public_key, private_key))
            }
        }
    }
}

impl Atlas {
    /// Sends `request`, which counts against the rate limit of `set`, with `credential`; after a 401 once
    /// more with a new login.
    pub(super) async fn call(
        &self,
        credential: &str,
        set: EndpointSet,
        request: &Request,
        deadline: Deadline,
    ) -> Result<AtlasResponse, Broken> {
        let answer = self.call_in_its_name(credential, request, deadline).await?;
        self.levels.note(credential, set, &answer);
        Ok(answer)
    }

    async fn call_in_its_name(
        &self,
        credential: &str,
        request: &Request,
        deadline: Deadline,
    ) -> Result<AtlasResponse, Broken> {
        match self.accounts.get(credential) {
            Some(Account::Service(account)) => self.call_with_token(account, request, deadline).await,
            Some(Account::Key(name, key)) => self.call_with_key(name, key, request, deadline).await,
            None => {
                let detail = format!(
                    "the credential {credential:?} is not configured: add [atlas.credentials.{credential}], or name another in the project"
                );
                Err(Broken::NotSent(told(Class::Auth, detail)))
            }
        }
    }

    /// Sends with the nonce at hand; after a 401 once more with the nonce that came with it.
    async fn call_with_key(
        &self,
        name: &str,
        key: &ApiKey,
        request: &Request,
        deadline: Deadline,
    ) -> Result<AtlasResponse, Broken> {
        let in_its_name = |why: &str| format!("no login with the API key of the credential {name:?}: {why}");
        let prove = |session: &Session| {
            let header = self.http.request_target(request).and_then(|uri| {
                key.authorization(session, &request.method, &uri)
                    .map_err(|why| told(Class::Auth, in_its_name(&why.to_string())))
            });
            header.map_err(Broken::NotSent)
        };
        let known = key.current();
        // Without a nonce the request leaves without a login; the 401 brings a nonce.
        let header = known.as_deref().map(prove).transpose()?;
        let answer = self.http.send(request, header.as_ref(), deadline).await?;
        match &known {
            Some(known) if !is_about_the_login(&answer) => {
                key.accepted(known, &answer);
                return Ok(answer);
            }
            None if answer.status != 401 => return Ok(answer),
            Some(known) => key.refused(known),
            None => {}
        }
        let challenged = key.challenged(&answer).map_err(|why| {
            let detail = in_its_name(&format!("Atlas answered 401 {why}"));
            Broken::NotSent(Failure { detail, class: Class::Auth, ..failure(&answer) })
        })?;
        let is_known = known.is_some_and(|known| Arc::ptr_eq(&known, &challenged.session));
        if is_known && !challenged.stale {
            // The nonce is still valid, so Atlas refuses the key itself.
            return Ok(answer);
        }
        let header = prove(&challenged.session)?;
        let answer = self.http.send(request, Some(&header), deadline).await?;
        if !is_about_the_login(&answer) {
            key.accepted(&challenged.session, &answer);
        }
        Ok(answer)
    }
}
