//! The inbound hooks: `[[hooks]]`, one for each sender that may call `POST /hooks/{name}`.
//!
//! Each kind has the settings that verify its sender, and no hook exists without verification. The
//! verification itself is in `web::hooks`.

use std::path::PathBuf;

use url::Url;

use super::check::check_web_url;
use super::reader::Reader;
use crate::domain::address::is_loopback;
use crate::secret::Secret;

/// One configured endpoint.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name: the last part of its address, and `hook:NAME` as the trigger of a rotation.
    pub name: String,
    /// Its sender, with the settings that verify it.
    pub sender: Sender,
    /// Who has its secret: names of identities or mail addresses. They do not approve what it requests.
    pub owners: Vec<String>,
    /// Why it takes no events: a secret of it can be guessed.
    pub stopped: Option<String>,
}

/// The sender of a hook. Where several secrets are held, each is accepted.
#[derive(Clone, Debug)]
pub enum Sender {
    /// Atlas' alert webhooks: an HMAC-SHA-1 over the body.
    Atlas {
        /// The webhook's secret, and the previous one.
        secrets: Vec<Secret>,
        /// Whether the signature is hexadecimal instead of Base64.
        hex: bool,
    },
    /// Azure Event Grid, in either of its schemas.
    AzureEventGrid {
        /// The secret in the address or in `header`; none where only Entra is used.
        tokens: Vec<Secret>,
        /// The header that carries the secret instead of `?code=`.
        header: Option<String>,
        /// The token of Microsoft Entra that each delivery brings.
        entra: Option<Entra>,
        /// The origins that may request permission to send.
        allowed_origins: Vec<String>,
    },
    /// An API destination of Amazon EventBridge.
    AwsEventbridge(Connection),
    /// Amazon SNS over HTTP.
    AwsSns {
        /// The accepted topics, compared exactly.
        topics: Vec<String>,
        /// Hosts of signing certificates that are not AWS' own.
        cert_hosts: Vec<String>,
        /// Certificates that must have signed the signing certificate.
        trust_roots_file: Option<PathBuf>,
    },
    /// A push subscription of Google Cloud Pub/Sub.
    GcpPubsub {
        /// The audience of the token.
        audience: String,
        /// The service account that pushes.
        email: String,
        /// Where Google's keys are.
        jwks_url: String,
    },
    /// CloudEvents from any other system.
    CloudEvents {
        /// The bearer token.
        tokens: Vec<Secret>,
    },
    /// Standard Webhooks from any other system.
    Standard {
        /// The keys that sign, already decoded from `whsec_…`.
        keys: Vec<SigningKey>,
    },
}

impl Sender {
    /// The kind, as it is written.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Sender::Atlas { .. } => KINDS[0],
            Sender::AzureEventGrid { .. } => KINDS[1],
            Sender::AwsEventbridge(_) => KINDS[2],
            Sender::AwsSns { .. } => KINDS[3],
            Sender::GcpPubsub { .. } => KINDS[4],
            Sender::CloudEvents { .. } => KINDS[5],
            Sender::Standard { .. } => KINDS[6],
        }
    }
}

/// How an API destination's connection authenticates.
#[derive(Clone, Debug)]
pub enum Connection {
    /// A secret in a header.
    Header {
        /// The header's name, in lower case.
        name: String,
        /// Its accepted values.
        tokens: Vec<Secret>,
    },
    /// HTTP basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password, and the previous one.
        passwords: Vec<Secret>,
    },
}

/// The required issuer and audience of the token of an Event Grid delivery.
#[derive(Clone, Debug)]
pub struct Entra {
    /// The directory.
    pub tenant_id: String,
    /// The application that the token is for.
    pub audience: String,
    /// The application that may hold it: Event Grid's own.
    pub app_id: String,
    /// Where the directory's keys are.
    pub jwks_url: String,
}

/// The fewest bytes of a [`SigningKey`].
const SHORTEST_KEY: usize = 24;

/// The bytes of a Standard Webhooks secret.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// A key of these bytes; `None` when they are fewer than 24. An empty or short key can be guessed.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SHORTEST_KEY).then(|| Self(bytes.to_vec()))
    }

    /// The bytes, for the call that signs or verifies.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The kinds, as they are written.
const KINDS: [&str; 7] =
    ["atlas", "azure-event-grid", "aws-eventbridge", "aws-sns", "gcp-pubsub", "cloudevents", "standard"];

/// Event Grid's own application, the same in every directory.
const EVENT_GRID: &str = "4962773b-9cdb-44cf-a8bf-237846a00ab7";

const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Below this a secret can be guessed: offline from one signed request, or in time by many senders.
const SHORTEST_SECRET: usize = 16;

/// All hooks; the reader collects the faults.
pub(super) fn read(r: &mut Reader) -> Vec<Hook> {
    let elements = r.names_below("hooks");
    elements.iter().filter_map(|element| read_one(r, element)).collect()
}

fn read_one(r: &mut Reader, element: &str) -> Option<Hook> {
    let at = format!("hooks.{element}");
    let name: String = r.optional(&format!("{at}.name")).unwrap_or_else(|| element.to_owned());
    if name != element {
        r.fault(&format!("{at}.name"), &format!("there are two hooks named {name:?}; rename one"));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty() || !name.bytes().all(plain) || name.bytes().all(|b| b.is_ascii_digit()) {
        r.fault(
            &at,
            "name takes lower-case letters, digits, \"-\" and \"_\": it is part of the hook's address",
        );
    }
    let owners = owners(r, &at);
    let kind: Option<String> = r.optional(&format!("{at}.kind"));
    let sender = match kind.as_deref() {
        Some("atlas") => atlas(r, &at),
        Some("azure-event-grid") => event_grid(r, &at),
        Some("aws-eventbridge") => eventbridge(r, &at),
        Some("aws-sns") => sns(r, &at),
        Some("gcp-pubsub") => pubsub(r, &at),
        Some("cloudevents") => needed(r, &at, "token").map(|tokens| Sender::CloudEvents { tokens }),
        Some("standard") => standard(r, &at),
        Some(odd) => {
            r.odd_word(&format!("{at}.kind"), odd, &KINDS, &format!("takes {}", KINDS.join(", ")));
            r.forgive(&at);
            None
        }
        None => {
            r.fault(&at, &format!("kind is missing: one of {}", KINDS.join(", ")));
            r.forgive(&at);
            None
        }
    }?;
    let stopped = short_secret(&at, &sender);
    // The daemon starts without this hook: one that did not start would watch nothing.
    r.unkept.extend(stopped.iter().cloned());
    Some(Hook { name, sender, owners, stopped })
}

fn owners(r: &mut Reader, at: &str) -> Vec<String> {
    let path = format!("{at}.owners");
    let owners: Vec<String> = r.take(&path, Vec::new());
    if owners.iter().any(|it| it.trim().is_empty() || it.chars().any(char::is_control)) {
        r.fault(&path, "takes names of tokens, local:USER, or mail addresses");
    }
    owners
}

/// The fault of a secret that can be guessed, with the setting that holds it.
fn short_secret(at: &str, sender: &Sender) -> Option<String> {
    let (name, secrets) = match sender {
        Sender::Atlas { secrets, .. } => ("secret", secrets),
        Sender::AzureEventGrid { tokens, .. }
        | Sender::AwsEventbridge(Connection::Header { tokens, .. })
        | Sender::CloudEvents { tokens } => ("token", tokens),
        Sender::AwsEventbridge(Connection::Basic { passwords, .. }) => ("basic.password", passwords),
        // A signing key has 24 bytes at least, and the others hold no secret.
        Sender::Standard { .. } | Sender::AwsSns { .. } | Sender::GcpPubsub { .. } => return None,
    };
    let short = secrets.iter().any(|secret| secret.expose().chars().count() < SHORTEST_SECRET);
    short.then(|| {
        format!(
            "{at}.{name}, or the previous one, has fewer than {SHORTEST_SECRET} characters and can be guessed; the hook answers 503 until it has a longer one: make one with `openssl rand -hex 32`"
        )
    })
}

fn atlas(r: &mut Reader, at: &str) -> Option<Sender> {
    let encoding = r.take(&format!("{at}.encoding"), "base64".to_owned());
    if !matches!(encoding.as_str(), "base64" | "hex") {
        r.fault(&format!("{at}.encoding"), "takes \"base64\" or \"hex\"");
    }
    let secrets = needed(r, at, "secret")?;
    Some(Sender::Atlas { secrets, hex: encoding == "hex" })
}

fn event_grid(r: &mut Reader, at: &str) -> Option<Sender> {
    let header = header_name(r, &format!("{at}.header"));
    let allowed_origins = r.take(&format!("{at}.allowed_origins"), vec!["eventgrid.azure.net".to_owned()]);
    if allowed_origins.iter().any(|it| it.is_empty() || it == "*") {
        r.fault(
            &format!("{at}.allowed_origins"),
            "takes host names; \"*\" would let any sender subscribe this address",
        );
    }
    let tokens = secrets(r, at, "token");
    let entra =
        if r.names_below(&format!("{at}.entra")).is_empty() { None } else { Some(read_entra(r, at)?) };
    let told = r.is_faulty(&format!("{at}.token"));
    if tokens.is_empty() && entra.is_none() && !told {
        r.fault(at, "token (or token_file), or entra = { tenant_id, audience }, is missing: without one any client could send");
        return None;
    }
    Some(Sender::AzureEventGrid { tokens, header, entra, allowed_origins })
}

fn read_entra(r: &mut Reader, at: &str) -> Option<Entra> {
    let at = format!("{at}.entra");
    let tenant_id = text(r, &at, "tenant_id");
    let audience = text(r, &at, "audience");
    let app_id = r.take(&format!("{at}.app_id"), EVENT_GRID.to_owned());
    let jwks_url = r.optional::<String>(&format!("{at}.jwks_url"));
    let tenant_id = tenant_id?;
    let jwks_url = match jwks_url {
        Some(url) => keys_url(r, &format!("{at}.jwks_url"), &url)?,
        None => format!("https://login.microsoftonline.com/{tenant_id}/discovery/v2.0/keys"),
    };
    Some(Entra { tenant_id, audience: audience?, app_id, jwks_url })
}

fn eventbridge(r: &mut Reader, at: &str) -> Option<Sender> {
    let basic = !r.names_below(&format!("{at}.basic")).is_empty();
    let name = header_name(r, &format!("{at}.header"));
    let tokens = secrets(r, at, "token");
    if basic {
        let at = format!("{at}.basic");
        let user = text(r, &at, "user");
        let passwords = needed(r, &at, "password")?;
        if !tokens.is_empty() {
            r.fault(&at, "token and basic are both set: keep the one that the connection in AWS uses");
        }
        return Some(Sender::AwsEventbridge(Connection::Basic { user: user?, passwords }));
    }
    let told = r.is_faulty(&format!("{at}.token"));
    if tokens.is_empty() {
        if !told {
            r.fault(at, "token (or token_file), or basic = { user, password }, is missing");
        }
        return None;
    }
    let name = name.unwrap_or_else(|| "x-api-key".to_owned());
    Some(Sender::AwsEventbridge(Connection::Header { name, tokens }))
}

fn sns(r: &mut Reader, at: &str) -> Option<Sender> {
    let topics: Vec<String> = r.take(&format!("{at}.topics"), Vec::new());
    let cert_hosts = r.take(&format!("{at}.cert_hosts"), Vec::new());
    let trust_roots_file = r.optional::<PathBuf>(&format!("{at}.trust_roots_file"));
    if let Some(file) = &trust_roots_file
        && let Err(error) = std::fs::metadata(file)
    {
        r.fault(&format!("{at}.trust_roots_file"), &format!("{} cannot be read: {error}", file.display()));
    }
    if topics.is_empty() {
        r.fault(
            at,
            "topics is missing: any AWS account can own a topic, so list the accepted topics by their ARN",
        );
        return None;
    }
    for topic in &topics {
        let parts: Vec<_> = topic.split(':').collect();
        let good = parts.len() == 6
            && parts[0] == "arn"
            && parts[2] == "sns"
            && parts.iter().all(|it| !it.is_empty());
        if !good {
            r.fault(
                &format!("{at}.topics"),
                &format!(
                    "{topic:?} is no ARN of a topic, such as arn:aws:sns:eu-central-1:111122223333:kms-events"
                ),
            );
        }
    }
    if !cert_hosts.is_empty() {
        r.warnings
            .push(format!("{at}.cert_hosts: signing certificates are taken from hosts that are not AWS'"));
    }
    Some(Sender::AwsSns { topics, cert_hosts, trust_roots_file })
}

fn pubsub(r: &mut Reader, at: &str) -> Option<Sender> {
    let audience = text(r, at, "audience");
    let email = text(r, at, "email");
    let url = r.take(&format!("{at}.jwks_url"), GOOGLE_KEYS.to_owned());
    let jwks_url = keys_url(r, &format!("{at}.jwks_url"), &url);
    Some(Sender::GcpPubsub { audience: audience?, email: email?, jwks_url: jwks_url? })
}

fn standard(r: &mut Reader, at: &str) -> Option<Sender> {
    let keys = needed(r, at, "secret")?
        .iter()
        .map(|secret| signing_key(secret))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| r.fault(&format!("{at}.secret"), why));
    Some(Sender::Standard { keys: keys.ok()? })
}

/// The key behind `whsec_…`.
pub(crate) fn signing_key(secret: &Secret) -> Result<SigningKey, &'static str> {
    use base64::Engine as _;
    let encoded = secret.expose().strip_prefix("whsec_").unwrap_or(secret.expose());
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| "takes whsec_ and Base64, as Standard Webhooks write it")?;
    SigningKey::new(&bytes).ok_or("takes whsec_ and the Base64 of at least 24 random bytes")
}

/// The secret `name` and the one before it, newest first; none when it is not set.
fn secrets(r: &mut Reader, at: &str, name: &str) -> Vec<Secret> {
    let now = r.secret(&format!("{at}.{name}"));
    let previous = r.secret(&format!("{at}.previous_{name}"));
    now.into_iter().chain(previous).collect()
}

fn needed(r: &mut Reader, at: &str, name: &str) -> Option<Vec<Secret>> {
    let found = secrets(r, at, name);
    // A secret that is set but cannot be read has its own message already.
    let told = r.is_faulty(&format!("{at}.{name}"));
    if found.is_empty() && !told {
        r.fault(at, &format!("{name} or {name}_file is missing: without it any client could send"));
    }
    Some(found).filter(|found| !found.is_empty())
}

fn text(r: &mut Reader, at: &str, name: &str) -> Option<String> {
    let found: Option<String> = r.optional(&format!("{at}.{name}"));
    let found = found.filter(|text| !text.trim().is_empty());
    if found.is_none() && !r.is_faulty(&format!("{at}.{name}")) {
        r.fault(at, &format!("{name} is missing"));
    }
    found
}

fn header_name(r: &mut Reader, path: &str) -> Option<String> {
    let name: String = r.optional(path)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || !name.bytes().all(token) {
        r.fault(path, "takes the name of a header, such as \"x-api-key\"");
    }
    Some(name.to_ascii_lowercase())
}

fn keys_url(r: &mut Reader, path: &str, url: &str) -> Option<String> {
    let url = check_web_url(path, url, r)?;
    if Url::parse(&url).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
        r.fault(path, "takes https: anyone who can change these keys in transit can forge every event");
    }
    Some(url)
}
