//! Tokens for Key Vault: from Entra for an application with a secret or a federated token, or from
//! the machine's managed identity (App Service, virtual machine).
//!
//! Written here, with one request each, because Microsoft's crate takes no authority over plain http and
//! so could not be tested against a simulator. The environment variables are those of Azure's own tools.
//! A token is kept for four fifths of its lifetime.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::super::error::{ErrorKind, KmsError};
use super::super::http::{Http, KmsResponse, below, send};
use crate::config::kms::{AzureCredential, Login};
use crate::domain::text::decoded;
use crate::domain::time::monotonic;
use crate::secret::Secret;

pub(super) const SERVICE: &str = "Microsoft Entra";
const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// Timeout for the metadata service: outside of Azure its address never answers.
const METADATA_PATIENCE: Duration = Duration::from_secs(3);
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Clouds: the domain of their vaults, and the host of their tokens. The first host of a cloud is used.
pub(super) const CLOUDS: [(&str, &str); 4] = [
    ("vault.azure.net", "login.microsoftonline.com"),
    ("vault.azure.cn", "login.chinacloudapi.cn"),
    ("vault.azure.cn", "login.partner.microsoftonline.cn"),
    ("vault.usgovcloudapi.net", "login.microsoftonline.us"),
];

/// The current tokens and their source. Each cloud has a lock of its own, so that a slow login to one
/// cloud does not delay the others.
pub(super) struct Tokens {
    http: Http,
    source: Source,
    pub(super) authority: Option<Url>,
    held: std::sync::Mutex<BTreeMap<String, Slot>>,
}

/// One cloud's token.
type Slot = Arc<Mutex<Option<Held>>>;

struct Held {
    token: Secret,
    until: Instant,
}

enum Source {
    Application { tenant: String, client: String, proof: AzureCredential },
    AppService { at: Url, header: Secret, client: Option<String> },
    Metadata { at: Url, client: Option<String> },
}

impl Tokens {
    /// # Errors
    /// Names the setting that cannot be used, and the reason.
    pub(super) fn new(login: Login, timeout: Duration) -> Result<Self, (&'static str, String)> {
        Self::from(login, timeout, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(
        login: Login,
        timeout: Duration,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, (&'static str, String)> {
        let Login::Azure { tenant_id, client_id, proof, authority } = login else {
            return Err(("kind", "names another cloud".to_owned()));
        };
        let url = |name: &'static str, text: String| {
            Url::parse(&text).map_err(|error| ("authority", format!("{name} in the environment: {error}")))
        };
        let authority = match authority {
            Some(authority) => Some(authority),
            None => env("AZURE_AUTHORITY_HOST").map(|text| url("AZURE_AUTHORITY_HOST", text)).transpose()?,
        };
        let given = proof.is_some();
        let tenant = tenant_id.or_else(|| env("AZURE_TENANT_ID"));
        let client = client_id.or_else(|| env("AZURE_CLIENT_ID"));
        let proof = proof
            .or_else(|| env("AZURE_CLIENT_SECRET").map(|secret| AzureCredential::Secret(Secret::new(secret))))
            .or_else(|| {
                env("AZURE_FEDERATED_TOKEN_FILE").map(|file| AzureCredential::TokenFile(file.into()))
            });
        let source = match (tenant, client, proof) {
            (Some(tenant), Some(client), Some(proof)) => Source::Application { tenant, client, proof },
            (None, _, Some(_)) if given => {
                return Err(("tenant_id", "is missing: an application logs in to a directory".to_owned()));
            }
            (_, None, Some(_)) if given => {
                return Err(("client_id", "is missing: it names the application that logs in".to_owned()));
            }
            (_, client, _) => match (env("IDENTITY_ENDPOINT"), env("IDENTITY_HEADER")) {
                (Some(at), Some(header)) => Source::AppService {
                    at: url("IDENTITY_ENDPOINT", at)?,
                    header: Secret::new(header),
                    client,
                },
                _ => Source::Metadata { at: url("metadata", METADATA.to_owned())?, client },
            },
        };
        let (at, timeout) = match &source {
            Source::Application { .. } => (authority.as_ref(), timeout),
            Source::AppService { at, .. } => (Some(at), timeout),
            Source::Metadata { at, .. } => (Some(at), METADATA_PATIENCE.min(timeout / 2)),
        };
        let http = Http::new(at, timeout).map_err(|problem| ("kind", problem.to_string()))?;
        Ok(Self { http, source, authority, held: std::sync::Mutex::default() })
    }

    fn slot(&self, cloud: &str) -> Slot {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(cloud.to_owned()).or_default())
    }

    /// A token for the vaults of `cloud`, such as `vault.azure.net`.
    pub(super) async fn token(&self, cloud: &str) -> Result<Secret, KmsError> {
        let slot = self.slot(cloud);
        let mut held = slot.lock().await;
        if let Some(it) = held.as_ref().filter(|it| monotonic() < it.until) {
            return Ok(it.token.clone());
        }
        let (token, life) = self.ask(cloud).await?;
        let until = monotonic() + life * 4 / 5;
        *held = Some(Held { token: token.clone(), until });
        Ok(token)
    }

    /// Drops a token that the vault refused.
    pub(super) async fn forget(&self, cloud: &str) {
        *self.slot(cloud).lock().await = None;
    }

    async fn ask(&self, cloud: &str) -> Result<(Secret, Duration), KmsError> {
        let (reply, secret) = match &self.source {
            Source::Application { tenant, client, proof } => {
                let (name, secret) = match proof {
                    AzureCredential::Secret(secret) => ("client_secret", secret.clone()),
                    AzureCredential::TokenFile(file) => ("client_assertion", federated(file)?),
                };
                let scope = format!("https://{cloud}/.default");
                let mut form = vec![
                    ("grant_type", "client_credentials"),
                    ("client_id", client),
                    ("scope", &scope),
                    (name, secret.expose()),
                ];
                if matches!(proof, AzureCredential::TokenFile(_)) {
                    form.push(("client_assertion_type", ASSERTION));
                }
                let url = below(&self.authority(cloud)?, [tenant.as_str(), "oauth2", "v2.0", "token"]);
                (send(self.http.post(url).form(&form), SERVICE).await?, Some(secret))
            }
            Source::AppService { at, header, client } => {
                let url = managed(at, cloud, "2019-08-01", client.as_deref());
                let request = self.http.get(url).header("x-identity-header", header.expose());
                (send(request, "the managed identity's endpoint").await?, Some(header.clone()))
            }
            Source::Metadata { at, client } => {
                let url = managed(at, cloud, "2018-02-01", client.as_deref());
                let request = self.http.get(url).header("metadata", "true");
                let reply = send(request, "the machine's metadata service").await;
                (reply.map_err(|error| no_identity(&error))?, None)
            }
        };
        if !reply.is_success() {
            let reply = match secret {
                Some(secret) => reply.without(secret.expose()),
                None => reply,
            };
            return Err(failure(&reply, &self.source));
        }
        let body = reply.object(SERVICE)?;
        let token = body["access_token"].as_str().filter(|token| !token.is_empty());
        let token =
            token.ok_or_else(|| KmsError::broken(format!("the reply of {SERVICE} holds no token")))?;
        // The managed identity's endpoint sends the number as a string.
        let life = match &body["expires_in"] {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        };
        Ok((Secret::new(token), Duration::from_secs(life.unwrap_or(300).min(86_400))))
    }

    /// The authority of the cloud's tokens.
    fn authority(&self, cloud: &str) -> Result<Url, KmsError> {
        if let Some(authority) = &self.authority {
            return Ok(authority.clone());
        }
        let known = CLOUDS.iter().find(|(vaults, _)| *vaults == cloud);
        let host = known.map_or("login.microsoftonline.com", |(_, host)| host);
        Url::parse(&format!("https://{host}")).map_err(|error| KmsError::broken(error.to_string()))
    }
}

/// The kind of login, without secrets.
impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Application { client, proof: AzureCredential::Secret(_), .. } => {
                write!(f, "the application {client} with its secret")
            }
            Source::Application { client, .. } => {
                write!(f, "the application {client} with a federated token")
            }
            Source::AppService { .. } | Source::Metadata { .. } => f.write_str("the managed identity"),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({self})")
    }
}

fn federated(file: &Path) -> Result<Secret, KmsError> {
    let text = std::fs::read(file).and_then(decoded).map(|text| text.trim().to_owned());
    match text {
        Ok(text) if !text.is_empty() => Ok(Secret::new(text)),
        Ok(_) => Err("is empty".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
    .map_err(|what| {
        KmsError::new(
            ErrorKind::Credential,
            format!("the federated token file {} {what}", file.display()),
            "check federated_token_file, and that the workload identity mounts it",
        )
    })
}

fn managed(at: &Url, cloud: &str, version: &str, client: Option<&str>) -> Url {
    let mut url = at.clone();
    url.query_pairs_mut()
        .append_pair("api-version", version)
        .append_pair("resource", &format!("https://{cloud}"))
        .extend_pairs(client.map(|client| ("client_id", client)));
    url
}

fn no_identity(error: &KmsError) -> KmsError {
    KmsError::new(
        ErrorKind::Credential,
        format!("no Azure credential is given, and {}", error.message),
        "set tenant_id, client_id and client_secret_file (or federated_token_file), or give this machine a managed identity",
    )
}

fn failure(reply: &KmsResponse, source: &Source) -> KmsError {
    let who = match source {
        Source::Application { .. } => SERVICE,
        _ => "the managed identity's endpoint",
    };
    let body = reply.json();
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let message = text("error_description")
        .or_else(|| text("message"))
        .unwrap_or_else(|| format!("{who} answered {} without a reason", reply.status));
    let number = body["error_codes"].as_array().and_then(|codes| codes.first()).and_then(Value::as_u64);
    let code = number.map(|number| format!("AADSTS{number}")).or_else(|| text("error"));
    match reply.status {
        429 => {
            return KmsError::new(ErrorKind::Throttled, message, "log in less often").with_code(code);
        }
        500..=599 => return KmsError::unreachable(message).with_code(code),
        _ => {}
    }
    let advice = match (number, source) {
        (Some(7_000_222), _) => {
            "the client secret has expired: make a new one for the application and put it into client_secret_file"
        }
        (Some(7_000_215), _) => "the client secret is wrong: give the secret's value, not its id",
        (Some(700_016), _) => "there is no such application in this directory: check client_id and tenant_id",
        (Some(90_002 | 900_023), _) => "there is no such directory: check tenant_id",
        (Some(70_021 | 700_211..=700_213), _) => {
            "no federated credential of the application fits this token: check its issuer, subject and audience"
        }
        (_, Source::Application { .. }) => {
            "check tenant_id, client_id and the secret or federated token of the application"
        }
        _ => "assign a managed identity to this machine, and name a user-assigned one by client_id",
    };
    KmsError::new(ErrorKind::Credential, message, advice).with_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of a server that accepts connections and never answers.
    async fn hung() -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a server of a test")]
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Ok(it) = listener.accept().await {
                taken.push(it);
            }
        });
        url
    }

    #[tokio::test]
    async fn an_authority_that_hangs_for_one_cloud_holds_up_no_other() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let proof = Some(AzureCredential::Secret(Secret::new("canary")));
        let Login::Azure { tenant_id, client_id, proof, .. } = login(Some("t"), Some("c"), proof) else {
            unreachable!()
        };
        let authority = Some(hung().await);
        let login = Login::Azure { tenant_id, client_id, proof, authority };
        let tokens = Tokens::from(login, Duration::from_secs(60), |_| None).unwrap();
        let held = Held { token: Secret::new("t"), until: monotonic() + Duration::from_secs(60) };
        *tokens.slot("vault.azure.cn").lock().await = Some(held);
        tokio::select! {
            biased;
            _ = tokens.token("vault.azure.net") => panic!("nobody answers"),
            token = tokens.token("vault.azure.cn") => assert_eq!(token.unwrap().expose(), "t"),
        }
    }

    fn source(login: Login, env: &[(&str, &str)]) -> Result<String, (&'static str, String)> {
        let look = |name: &str| env.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
        Tokens::from(login, Duration::from_secs(1), look).map(|tokens| tokens.to_string())
    }

    fn login(tenant: Option<&str>, client: Option<&str>, proof: Option<AzureCredential>) -> Login {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Login::Azure { tenant_id: own(tenant), client_id: own(client), proof, authority: None }
    }

    #[tokio::test]
    async fn what_is_given_beats_the_environment_which_beats_the_machine() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let env = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "canary")];
        let nothing = || login(None, None, None);
        let file = || Some(AzureCredential::TokenFile("/token".into()));
        assert_eq!(source(nothing(), &env).unwrap(), "the application c with its secret");
        assert_eq!(
            source(login(Some("t"), Some("own"), file()), &env).unwrap(),
            "the application own with a federated token"
        );
        assert_eq!(source(nothing(), &[]).unwrap(), "the managed identity");
        assert_eq!(source(nothing(), &env[..1]).unwrap(), "the managed identity");
        let service = [("IDENTITY_ENDPOINT", "http://127.0.0.1:9"), ("IDENTITY_HEADER", "canary")];
        assert_eq!(source(nothing(), &service).unwrap(), "the managed identity");
        assert_eq!(source(login(None, Some("c"), file()), &[]).unwrap_err().0, "tenant_id");
        assert_eq!(source(login(Some("t"), None, file()), &[]).unwrap_err().0, "client_id");
    }
}
