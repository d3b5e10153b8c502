//! One target of webhooks, and one attempt to deliver to it.
//!
//! Its URL is a secret: anyone who has it can send in the server's name. Only its host is shown, and it
//! is removed from every reply, because servers tend to repeat the request. No redirect is followed, and
//! no proxy is used but the one that the target names. Unless allowed, only public addresses are connected to. Each connection uses the
//! address that was checked, so a name that resolves differently a moment later gains nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, RequestBuilder, Response};
use url::Url;

use super::body::{Sending, body};
use super::incident;
use super::note::Note;
use super::reply;
use super::sign::signatures;
use crate::config::Webhook;
use crate::config::hooks::SigningKey;
use crate::config::webhooks::Format;
use crate::domain::address::{AddressError, check_url};
use crate::domain::notice::{Kind, Notice};
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::net::body::fill;
use crate::net::cause::root_cause;
use crate::net::client::BuildError;
use crate::net::resolver::Public;
use crate::net::{client, header};
use crate::secret::Secret;

/// How long one attempt may take, the reply included.
pub const LIMIT: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(10);

/// The most bytes of a reply that are read, and the most characters that are kept.
const READ: usize = 4096;
const KEPT: usize = 300;

/// Parts of a URL that are shorter than this are words rather than secrets.
const SECRET_PART: usize = 6;

/// A target with its client and keys.
pub struct Target {
    name: String,
    url: Url,
    host: String,
    format: Format,
    keys: Vec<SigningKey>,
    authorization: Option<HeaderValue>,
    service_key: Option<Secret>,
    kinds: Vec<Kind>,
    secret_parts: Vec<String>,
    client: reqwest::Client,
    /// When it answered 410, as microseconds; 0 while it is in service.
    retired_at: AtomicI64,
    rests_until: AtomicI64,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}, {} at {})", self.name, self.format.as_str(), self.host)
    }
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetResponse {
    /// Accepted; the reply's text.
    Taken(String),
    /// 410: the target takes no message any more; the reply's text.
    Gone(String),
    /// Not delivered, or not known to be.
    Failed {
        /// The reply's text, or the error.
        said: String,
        /// The delay that it requested (`Retry-After`).
        retry_after: Option<Duration>,
    },
}

/// Why a target cannot be used. Names the webhook and the setting, and never shows a secret.
#[derive(Debug, thiserror::Error)]
#[error("webhooks.{name}{}: {fault}", fault.setting())]
pub struct TargetError {
    name: String,
    #[source]
    fault: TargetFault,
}

/// The fault of a setting of a target.
#[derive(Debug, thiserror::Error)]
enum TargetFault {
    #[error(transparent)]
    Url(#[from] AddressError),
    #[error("is missing: a CloudEvent is always signed")]
    NoSecret,
    #[error("is missing: without it the service takes nothing")]
    NoServiceKey(&'static str),
    #[error("holds a character that no header can carry")]
    Header(&'static str),
    #[error("{} cannot be read: {source}", file.display())]
    CaFile { file: PathBuf, source: std::io::Error },
    #[error("{} holds no PEM certificate", file.display())]
    NoCertificate { file: PathBuf },
    #[error("names a proxy that cannot be used: {0}")]
    Proxy(String),
    #[error(transparent)]
    Client(#[from] BuildError),
}

impl TargetFault {
    fn setting(&self) -> String {
        let name = match self {
            Self::NoServiceKey(name) | Self::Header(name) => name,
            Self::Url(_) => "url",
            Self::NoSecret => "secret",
            Self::Proxy(_) => "proxy",
            Self::CaFile { .. } | Self::NoCertificate { .. } => "ca_file",
            Self::Client(_) => return String::new(),
        };
        format!(".{name}")
    }
}

impl Target {
    /// Reads the options.
    ///
    /// # Errors
    /// Fails when a setting cannot be used.
    pub fn new(options: &Webhook) -> Result<Self, TargetError> {
        Self::configured(options).map_err(|fault| TargetError { name: options.name.clone(), fault })
    }

    fn configured(options: &Webhook) -> Result<Self, TargetFault> {
        let url = check_url(options.url.expose(), options.allow_private)?;
        if options.format == Format::CloudEvents && options.keys.is_empty() {
            return Err(TargetFault::NoSecret);
        }
        let service_key = options.format.service_key().map(|(name, _)| (name, options.service_key.as_ref()));
        let authorization = match (service_key, &options.token) {
            (Some((name, None)), _) => return Err(TargetFault::NoServiceKey(name)),
            (Some((name, Some(key))), _) if options.format == Format::Opsgenie => {
                Some(secret_header(name, &format!("GenieKey {}", key.expose()))?)
            }
            (None, Some(token)) => Some(secret_header("token", &format!("Bearer {}", token.expose()))?),
            (Some(_), _) | (None, None) => None,
        };
        Ok(Self {
            client: connections(options, &url)?,
            host: url.host_str().unwrap_or_default().to_owned(),
            secret_parts: secret_parts(&url, &[options.token.as_ref(), options.service_key.as_ref()]),
            name: options.name.clone(),
            format: options.format,
            keys: options.keys.clone(),
            authorization,
            service_key: options.service_key.clone(),
            kinds: options.kinds.clone(),
            url,
            retired_at: AtomicI64::new(0),
            rests_until: AtomicI64::new(0),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The format of its bodies.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether it is sent notices of this kind.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        let expressible = !self.format.has_incidents() || kind.tells_condition();
        // Nobody reads it where people chat, so it is sent there when it is named.
        let by_default = kind != Kind::AuditHead || self.format == Format::CloudEvents;
        expressible && ((self.kinds.is_empty() && by_default) || self.kinds.contains(&kind))
    }

    /// Whether it is sent this notice: a format for incidents takes only one that tells a condition.
    #[must_use]
    pub fn takes(&self, notice: &Notice) -> bool {
        self.wants(notice.kind()) && (!self.format.has_incidents() || notice.condition().is_some())
    }

    /// When it answered 410; `None` while it is in service.
    #[must_use]
    pub fn retired_at(&self) -> Option<Timestamp> {
        let at = self.retired_at.load(Ordering::Relaxed);
        (at != 0).then(|| Timestamp::from_micros(at))
    }

    /// Takes it out of service; true for the first caller since it was in service.
    pub fn retire(&self, now: Timestamp) -> bool {
        self.retired_at.swap(now.as_micros(), Ordering::Relaxed) == 0
    }

    /// Puts it back into service; true when it was not.
    pub fn revive(&self) -> bool {
        self.retired_at.swap(0, Ordering::Relaxed) != 0
    }

    /// The end of the delay that it requested since it was configured; the past when it requested none.
    #[must_use]
    pub fn rests_until(&self) -> Timestamp {
        Timestamp::from_micros(self.rests_until.load(Ordering::Relaxed))
    }

    /// Records the end of the delay that it requested.
    pub fn rest(&self, until: Timestamp) {
        self.rests_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// The host of its URL, which is all of the URL that is shown.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// One line about it for people, without a secret.
    #[must_use]
    pub fn described(&self) -> String {
        let signed = match self.keys.len() {
            0 => "not signed",
            1 => "signed",
            _ => "signed by two secrets",
        };
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.as_str()).collect();
        let kinds = match kinds[..] {
            [] if self.format.has_incidents() => "every condition".to_owned(),
            [] => "everything".to_owned(),
            _ => kinds.join(", "),
        };
        format!("{} to {}, {signed}: {kinds}", self.format.as_str(), self.host)
    }

    /// Sends `note` once, at the instant `now`; `None` when its format has no body for this notice.
    pub async fn send(&self, note: &Note<'_>, now: Timestamp) -> Option<TargetResponse> {
        let body = body(self.format, note, Sending { now, key: self.service_key.as_ref() })?;
        let seconds = now.as_chrono().timestamp();
        let mut request = self
            .request(self.url_for(note.notice))
            .header("webhook-id", note.id)
            .header("webhook-timestamp", seconds);
        if !self.keys.is_empty() {
            let signatures = signatures(&self.keys, note.id, seconds, body.as_bytes());
            request = request.header("webhook-signature", signatures);
        }
        Some(self.answer(request.body(body), now).await)
    }

    /// Sends these alerts to Alertmanager, at the instant `now`: conditions that hold on or have just ended.
    pub async fn send_alerts(&self, notes: &[Note<'_>], now: Timestamp) -> TargetResponse {
        let body = incident::alerts(notes, now).to_string();
        self.answer(self.request(self.url.clone()).body(body), now).await
    }

    fn request(&self, url: Url) -> RequestBuilder {
        let request = self.client.post(url).header(CONTENT_TYPE, self.format.content_type());
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// The URL for this notice. Opsgenie closes an alert at a URL of its own.
    fn url_for(&self, notice: &Notice) -> Url {
        let mut url = self.url.clone();
        if self.format == Format::Opsgenie
            && let Some(over) = notice.condition().filter(|it| it.over_at.is_some())
        {
            if let Ok(mut path) = url.path_segments_mut() {
                // The id holds a "/", which is encoded here.
                path.push(over.id).push("close");
            }
            url.query_pairs_mut().append_pair("identifierType", "alias");
        }
        url
    }

    async fn answer(&self, request: RequestBuilder, now: Timestamp) -> TargetResponse {
        match request.send().await {
            Ok(response) => self.read(response, now).await,
            Err(error) => TargetResponse::Failed { said: self.broken(error), retry_after: None },
        }
    }

    async fn read(&self, mut response: Response, now: Timestamp) -> TargetResponse {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let retry_after = retry_after.and_then(|text| header::retry_after(text, now));
        let mut bytes = Vec::new();
        // The status decides where the body cannot be read.
        let _ = fill(&mut response, READ, &mut bytes).await;
        let words = self.cleaned(&String::from_utf8_lossy(&bytes));
        let said = format!("{} {words}", status.as_u16());
        let said = said.trim_end().to_owned();
        match status.as_u16() {
            200..=299 if reply::is_failure(self.format, &bytes) => {
                TargetResponse::Failed { said: format!("{said} (the body reports a failure)"), retry_after }
            }
            200..=299 => TargetResponse::Taken(said),
            410 => TargetResponse::Gone(said),
            300..=399 => TargetResponse::Failed {
                said: format!(
                    "{} is a redirect, and none is followed: configure the address it leads to",
                    status.as_u16()
                ),
                retry_after,
            },
            _ => TargetResponse::Failed { said, retry_after },
        }
    }

    fn broken(&self, error: reqwest::Error) -> String {
        let error = error.without_url();
        if error.is_timeout() {
            return format!("no answer within {} s", LIMIT.as_secs());
        }
        let why = self.cleaned(&root_cause(&error));
        if error.is_connect() {
            format!("cannot connect to {}: {why}", self.host)
        } else {
            format!("no answer from {}: {why}", self.host)
        }
    }

    /// One line of a foreign text, without the secret parts of the target's URL.
    pub(super) fn cleaned(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for part in &self.secret_parts {
            text = text.replace(part, "***");
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut kept: String = visible(&words).chars().take(KEPT).collect();
        if kept.len() < words.len() && words.chars().count() > KEPT {
            kept.push('…');
        }
        kept
    }
}

/// A header's value that is never logged; `name` is the setting that it is made of.
fn secret_header(name: &'static str, text: &str) -> Result<HeaderValue, TargetFault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| TargetFault::Header(name))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Everything in a URL beyond its host, in the forms in which servers repeat it: whole, in parts,
/// decoded. The longest comes first, so that no part hides a whole.
fn secret_parts(url: &Url, secrets: &[Option<&Secret>]) -> Vec<String> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = url.path().trim_matches('/');
    let query = url.query().unwrap_or_default();
    let mut parts = vec![path.to_owned(), query.to_owned(), format!("{path}?{query}")];
    parts.extend(path.split('/').map(ToOwned::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    parts.extend(query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value.to_owned()));
    parts.extend(secrets.iter().flatten().map(|it| it.expose().to_owned()));
    let plain: Vec<_> = parts.iter().map(|part| decoded(part)).collect();
    parts.extend(plain);
    parts.retain(|part| part.len() >= SECRET_PART);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.dedup();
    parts
}

fn connections(options: &Webhook, url: &Url) -> Result<reqwest::Client, TargetFault> {
    // Behind the environment's proxy, the called address could not be checked.
    let mut builder = client::builder(Some(url), CONNECT).no_proxy().no_gzip().timeout(LIMIT);
    match &options.proxy {
        // The proxy resolves the name; an address that stands in the URL was checked.
        Some(proxy) => {
            let proxy = reqwest::Proxy::all(proxy.expose())
                .map_err(|error| TargetFault::Proxy(root_cause(&error.without_url())))?;
            builder = builder.proxy(proxy);
        }
        None if options.allow_private => {}
        None => builder = builder.dns_resolver(Arc::new(Public)),
    }
    if let Some(file) = options.ca_file.as_ref().filter(|_| url.scheme() == "https") {
        let pem = std::fs::read(file).map_err(|source| TargetFault::CaFile { file: file.clone(), source })?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|it| !it.is_empty())
            .ok_or_else(|| TargetFault::NoCertificate { file: file.clone() })?;
        builder = builder.tls_certs_merge(certificates);
    }
    Ok(client::build(builder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Webhook {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Webhook {
            name: "ops".to_owned(),
            url: Secret::new(url),
            format: Format::CloudEvents,
            keys: vec![SigningKey::new(&[7; 32]).unwrap()],
            token: Some(Secret::new("canary-token")),
            service_key: None,
            kinds: Vec::new(),
            allow_private: false,
            proxy: None,
            ca_file: None,
        }
    }

    #[test]
    fn an_address_inside_is_refused_however_it_is_written() {
        for inside in [
            "https://127.0.0.1/x",
            "https://127.1/x",
            "https://2130706433/x",
            "https://0x7f000001/x",
            "https://0177.0.0.1/x",
            "https://0/x",
            "https://10.1.2.3/x",
            "https://172.16.0.1/x",
            "https://192.168.0.1/x",
            "https://100.64.0.1/x",
            "https://169.254.169.254/latest/meta-data",
            "https://224.0.0.1/x",
            "https://[::]/x",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://[::ffff:a9fe:a9fe]/x",
            "https://[fd00:ec2::254]/x",
            "https://[fe80::1]/x",
            "https://[ff02::1]/x",
            "https://[64:ff9b::7f00:1]/x",
            "https://１２７.0.0.1/x",
        ] {
            let refused = Target::new(&options(inside)).unwrap_err().to_string();
            assert!(refused.starts_with("webhooks.ops.url: names "), "{inside}: {refused}");
            assert!(refused.contains("allow_private = true"), "{refused}");
            let mut allowed = options(inside);
            allowed.allow_private = true;
            Target::new(&allowed).unwrap();
        }
        for (url, wanted) in [
            ("http://hooks.example/x", "only with allow_private = true"),
            ("ftp://hooks.example/x", "begins with https://"),
            ("https://user@hooks.example/x", "without a user"),
            ("https://:canary@hooks.example/x", "without a user"),
            ("https://hooks.example/x#canary", "and a \"#\""),
            ("canary", "begins with https://"),
        ] {
            let refused = Target::new(&options(url)).unwrap_err().to_string();
            assert!(refused.contains(wanted) && !refused.contains("canary"), "{url}: {refused}");
        }
    }

    #[test]
    fn what_is_shown_of_a_target_shows_no_secret() {
        let target =
            Target::new(&options("https://hooks.example/services/canary-path?key=canary-key")).unwrap();
        assert_eq!(format!("{target:?}"), "Target(ops, cloudevents at hooks.example)");
        assert_eq!(target.described(), "cloudevents to hooks.example, signed: everything");
        let echo =
            "Cannot POST /services/canary-path?key=canary-key\r\n\x1b[31m canary-key Bearer canary-token";
        assert_eq!(target.cleaned(echo), "Cannot POST /*** \\u{1b}[31m *** Bearer ***");
        assert_eq!(target.cleaned(&"é".repeat(1000)).chars().count(), KEPT + 1);
    }

    #[test]
    fn a_target_for_incidents_needs_its_key_and_shows_it_nowhere() {
        let opsgenie = |key: Option<&str>| Webhook {
            format: Format::Opsgenie,
            keys: Vec::new(),
            token: None,
            service_key: key.map(Secret::new),
            ..options("https://api.opsgenie.com/v2/alerts")
        };
        let target = Target::new(&opsgenie(Some("canary-key"))).unwrap();
        assert_eq!(target.described(), "opsgenie to api.opsgenie.com, not signed: every condition");
        assert!(!format!("{target:?}").contains("canary"));
        assert_eq!(target.cleaned("Key [canary-key] is not valid"), "Key [***] is not valid");
        assert!(target.wants(Kind::Held) && target.wants(Kind::HeldOver) && !target.wants(Kind::Completed));
        for (key, wanted) in [
            (None, "webhooks.ops.api_key: is missing"),
            (Some("canary\n"), "webhooks.ops.api_key: holds a character"),
        ] {
            let refused = Target::new(&opsgenie(key)).unwrap_err().to_string();
            assert!(refused.starts_with(wanted) && !refused.contains("canary"), "{refused}");
        }
    }

    #[test]
    fn a_filter_names_kinds() {
        let mut options = options("https://hooks.example/x");
        options.kinds = vec![Kind::Completed, Kind::Drifted];
        let target = Target::new(&options).unwrap();
        assert!(target.wants(Kind::Completed) && target.wants(Kind::Drifted) && !target.wants(Kind::Failed));
    }

    #[test]
    fn a_secret_in_an_address_is_cut_out_however_it_comes_back() {
        for (written, echoes) in [
            ("a%26b%3Dcanary", &["a%26b%3Dcanary", "a&b=canary"][..]),
            ("can+ary", &["can+ary", "can ary"]),
            ("can%2Bary", &["can%2Bary", "can+ary"]),
            ("can%20ary", &["can%20ary", "can ary"]),
            ("canary%25x", &["canary%25x", "canary%x"]),
            ("can:ary%3A", &["can:ary%3A", "can:ary:"]),
        ] {
            for at in ["path", "query"] {
                let url = match at {
                    "path" => format!("https://hooks.example/x/{written}"),
                    _ => format!("https://hooks.example/x?key={written}"),
                };
                let target = Target::new(&options(&url)).unwrap();
                for echo in echoes
                    .iter()
                    .filter(|echo| at == "query" || !echo.contains(' ') || written.contains("%20"))
                {
                    let shown = target.cleaned(&format!("no such key {echo}!"));
                    assert_eq!(shown, "no such key ***!", "{url} came back as {echo:?}");
                }
            }
        }
    }
}
