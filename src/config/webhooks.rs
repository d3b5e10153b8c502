//! The outgoing webhooks: `[[webhooks]]`, one for each target.
//!
//! A target's address is a secret like its signing secret: anyone who has it can send in the server's
//! name. Both are masked, and faults never contain them. Nothing here resolves names or connects.

use std::path::PathBuf;

use url::Url;

use super::hooks::{SigningKey, signing_key};
use super::reader::Reader;
use crate::domain::address::check_url;
use crate::domain::notice::Kind;
use crate::secret::{Secret, SecretUrl};

/// One configured target.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its name, as shown everywhere.
    pub name: String,
    /// Its URL.
    pub url: Secret,
    /// The format of its bodies.
    pub format: Format,
    /// The signing keys, the newest first; never empty for CloudEvents.
    pub keys: Vec<SigningKey>,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<Secret>,
    /// `PagerDuty`'s routing key or Opsgenie's API key; `None` for the other formats.
    pub service_key: Option<Secret>,
    /// The kinds of notice it is sent; all that its format can express, when empty.
    pub kinds: Vec<Kind>,
    /// Whether it may have an address that is not public, and use plain http.
    pub allow_private: bool,
    /// The proxy through which it is called; the proxy resolves its name.
    pub proxy: Option<SecretUrl>,
    /// Certificates to trust beside the system's own.
    pub ca_file: Option<PathBuf>,
}

/// The format of a target's bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A signed CloudEvent.
    CloudEvents,
    /// A message for an incoming webhook of Slack.
    Slack,
    /// A card for a workflow of Microsoft Teams.
    Teams,
    /// An event for the Events API v2 of `PagerDuty`.
    PagerDuty,
    /// An alert for the Alert API of Opsgenie.
    Opsgenie,
    /// An alert for Alertmanager.
    Alertmanager,
}

impl Format {
    /// The format as it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudEvents => "cloudevents",
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::PagerDuty => "pagerduty",
            Self::Opsgenie => "opsgenie",
            Self::Alertmanager => "alertmanager",
        }
    }

    /// Whether it opens and closes incidents: it can express conditions and nothing else.
    #[must_use]
    pub const fn has_incidents(self) -> bool {
        matches!(self, Self::PagerDuty | Self::Opsgenie | Self::Alertmanager)
    }

    /// The URL that the service documents.
    const fn usual_url(self) -> Option<&'static str> {
        match self {
            Self::PagerDuty => Some("https://events.pagerduty.com/v2/enqueue"),
            Self::Opsgenie => Some("https://api.opsgenie.com/v2/alerts"),
            Self::CloudEvents | Self::Slack | Self::Teams | Self::Alertmanager => None,
        }
    }

    /// The end of every URL that the service takes such bodies at.
    const fn path(self) -> Option<&'static str> {
        match self {
            Self::PagerDuty => Some("/v2/enqueue"),
            Self::Opsgenie => Some("/v2/alerts"),
            Self::Alertmanager => Some("/api/v2/alerts"),
            Self::CloudEvents | Self::Slack | Self::Teams => None,
        }
    }

    /// The setting of the service's key, and where the service shows it.
    pub(crate) const fn service_key(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::PagerDuty => {
                Some(("routing_key", "PagerDuty shows it under the service's integration \"Events API V2\""))
            }
            Self::Opsgenie => {
                Some(("api_key", "Opsgenie shows it under the team's integration of the type \"API\""))
            }
            Self::CloudEvents | Self::Slack | Self::Teams | Self::Alertmanager => None,
        }
    }
}

/// All targets; the reader collects the faults.
pub(super) fn read(r: &mut Reader) -> Vec<Webhook> {
    let elements = r.names_below("webhooks");
    elements.iter().filter_map(|element| read_one(r, element)).collect()
}

fn read_one(r: &mut Reader, element: &str) -> Option<Webhook> {
    let at = format!("webhooks.{element}");
    let name = r.optional::<String>(&format!("{at}.name")).unwrap_or_else(|| element.to_owned());
    if name != element {
        r.fault(&format!("{at}.name"), &format!("there are two webhooks named {name:?}; rename one"));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty()
        || name.len() > 64
        || !name.bytes().all(plain)
        || name.bytes().all(|b| b.is_ascii_digit())
    {
        r.fault(
            &at,
            "name is missing or not valid: it takes up to 64 lower-case letters, digits, \"-\" and \"_\"",
        );
    }
    let format = read_format(r, &at);
    let allow_private = r.take(&format!("{at}.allow_private"), false);
    let url = read_url(r, &at, format, allow_private);
    let proxy = read_proxy(r, &at);
    let keys = read_keys(r, &at, format);
    let token = read_token(r, &at, format);
    let service_key = read_service_key(r, &at, format);
    let kinds = read_kinds(r, &at, format);
    let ca_file = r.optional::<PathBuf>(&format!("{at}.ca_file")).filter(|it| !it.as_os_str().is_empty());
    if ca_file.as_ref().is_some_and(|file| !file.is_file()) {
        r.fault(&format!("{at}.ca_file"), "takes a file with PEM certificates; that file does not exist");
    }
    Some(Webhook {
        name,
        url: url?,
        format: format?,
        keys: keys?,
        token,
        service_key: service_key?,
        kinds,
        allow_private,
        proxy,
        ca_file,
    })
}

/// The target's proxy. A proxy that only the environment names is passed over, with a warning.
fn read_proxy(r: &mut Reader, at: &str) -> Option<SecretUrl> {
    let path = format!("{at}.proxy");
    let proxy = r.secret_url(&path);
    if let Some(proxy) = &proxy {
        let url = Url::parse(proxy.expose()).ok();
        let known = url.is_some_and(|it| matches!(it.scheme(), "http" | "https") && it.has_host());
        if !known {
            r.fault(&path, "takes the address of an HTTP proxy, such as http://proxy.example:3128");
            return None;
        }
    } else if let Some(name) = r.proxy_variable.clone() {
        r.warnings.push(format!(
            "{at} is called without the proxy that {name} names; where that is the only way out, set {path}"
        ));
    }
    proxy
}

fn read_format(r: &mut Reader, at: &str) -> Option<Format> {
    let path = format!("{at}.format");
    match r.take(&path, "cloudevents".to_owned()).as_str() {
        "cloudevents" => Some(Format::CloudEvents),
        "slack" => Some(Format::Slack),
        "teams" => Some(Format::Teams),
        "pagerduty" => Some(Format::PagerDuty),
        "opsgenie" => Some(Format::Opsgenie),
        "alertmanager" => Some(Format::Alertmanager),
        odd => {
            let known = ["cloudevents", "slack", "teams", "pagerduty", "opsgenie", "alertmanager"];
            r.odd_word(
                &path,
                odd,
                &known,
                "takes \"cloudevents\", \"slack\", \"teams\", \"pagerduty\", \"opsgenie\" or \"alertmanager\"",
            );
            None
        }
    }
}

fn read_url(r: &mut Reader, at: &str, format: Option<Format>, allow_private: bool) -> Option<Secret> {
    let path = format!("{at}.url");
    let set = r.secret(&path);
    // A URL that is set but cannot be read has its own message already.
    if set.is_none() && r.is_faulty(&path) {
        return None;
    }
    let Some(url) = set.or_else(|| format?.usual_url().map(Secret::new)) else {
        if format == Some(Format::Alertmanager) {
            r.fault(at, "url or url_file is missing: it takes Alertmanager's address, such as https://alertmanager.example/api/v2/alerts");
        } else {
            r.fault(at, "url or url_file is missing");
        }
        return None;
    };
    match check_url(url.expose(), allow_private) {
        Ok(parsed) => {
            if let Some(end) = format.and_then(Format::path).filter(|end| !parsed.path().ends_with(end)) {
                r.fault(&path, &format!("the path of its URL must end in {end}"));
            }
            Some(url)
        }
        Err(why) => {
            r.fault(&path, &why.to_string());
            None
        }
    }
}

fn read_keys(r: &mut Reader, at: &str, format: Option<Format>) -> Option<Vec<SigningKey>> {
    let told = r.fault_count();
    let mut keys = Vec::new();
    for name in ["secret", "previous_secret"] {
        let path = format!("{at}.{name}");
        match r.secret(&path).as_ref().map(signing_key) {
            Some(Ok(key)) => keys.push(key),
            Some(Err(why)) => r.fault(&path, why),
            None if name == "secret" && r.fault_count() == told && format == Some(Format::CloudEvents) => {
                r.fault(
                    at,
                    "secret or secret_file is missing: without it a receiver cannot verify the sender; make one with `echo whsec_$(openssl rand -base64 32)`",
                );
            }
            None => {}
        }
    }
    (r.fault_count() == told).then_some(keys)
}

/// The bearer token. A service with a key of its own takes no other.
fn read_token(r: &mut Reader, at: &str, format: Option<Format>) -> Option<Secret> {
    let path = format!("{at}.token");
    let token = r.secret(&path);
    if let (Some(_), Some((name, _))) = (&token, format.and_then(Format::service_key)) {
        r.fault(&path, &format!("this format is sent with {name} and no token; remove it"));
    }
    token
}

/// The key of the service, where the format has one; `None` after a fault.
#[expect(clippy::option_option, reason = "a fault, no key, a key")]
fn read_service_key(r: &mut Reader, at: &str, format: Option<Format>) -> Option<Option<Secret>> {
    let Some(format) = format else {
        // Neither is unknown; which one is right depends on the format.
        for name in ["routing_key", "api_key"] {
            r.secret(&format!("{at}.{name}"));
        }
        return None;
    };
    let Some((name, where_from)) = format.service_key() else { return Some(None) };
    let path = format!("{at}.{name}");
    let key = r.secret(&path);
    if key.is_none() && !r.is_faulty(&path) {
        r.fault(at, &format!("{name} or {name}_file is missing: {where_from}"));
    }
    key.map(Some)
}

fn read_kinds(r: &mut Reader, at: &str, format: Option<Format>) -> Vec<Kind> {
    let path = format!("{at}.types");
    let types: Vec<String> = r.take(&path, Vec::new());
    let mut kinds = Vec::new();
    for text in types {
        if let Some(kind) = Kind::choice(&text) {
            kinds.push(kind);
            if format.is_some_and(Format::has_incidents) && !kind.tells_condition() {
                let all: Vec<_> =
                    Kind::choices().filter(|it| it.tells_condition()).map(Kind::as_str).collect();
                r.fault(
                    &path,
                    &format!(
                        "{text:?} has no end, so nothing would close its incident; send it to a target of another format, or choose among {}",
                        all.join(", ")
                    ),
                );
            }
        } else {
            let all: Vec<_> = Kind::choices().map(Kind::as_str).collect();
            r.fault(&path, &format!("there is no type {text:?}; there are {}", all.join(", ")));
        }
    }
    if format.is_some_and(Format::has_incidents) {
        let others: Vec<_> = kinds.iter().filter_map(|kind| kind.counterpart()).collect();
        kinds.extend(others);
        kinds.sort();
        kinds.dedup();
    }
    kinds
}
