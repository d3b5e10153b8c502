//! The outgoing webhooks: `[[webhooks]]`, one for each target.
//!
//! A target's address is a secret like its signing secret: anyone who has it can send in the server's
//! name. Both are masked, and faults never contain them. Nothing here resolves names or connects.

use std::path::PathBuf;

use super::hooks::{SigningKey, signing_key};
use super::reader::Reader;
use crate::domain::address::check_url;
use crate::domain::notice::Kind;
use crate::secret::Secret;

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
    /// The kinds of notice it is sent; all, when empty.
    pub kinds: Vec<Kind>,
    /// Whether it may have an address that is not public, and use plain http.
    pub allow_private: bool,
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
    let url = read_url(r, &at, allow_private);
    let keys = read_keys(r, &at, format);
    let token = r.secret(&format!("{at}.token"));
    let kinds = read_kinds(r, &at);
    let ca_file = r.optional::<PathBuf>(&format!("{at}.ca_file")).filter(|it| !it.as_os_str().is_empty());
    if ca_file.as_ref().is_some_and(|file| !file.is_file()) {
        r.fault(&format!("{at}.ca_file"), "takes a file with PEM certificates; that file does not exist");
    }
    Some(Webhook { name, url: url?, format: format?, keys: keys?, token, kinds, allow_private, ca_file })
}

fn read_format(r: &mut Reader, at: &str) -> Option<Format> {
    let path = format!("{at}.format");
    match r.take(&path, "cloudevents".to_owned()).as_str() {
        "cloudevents" => Some(Format::CloudEvents),
        "slack" => Some(Format::Slack),
        "teams" => Some(Format::Teams),
        _ => {
            r.fault(&path, "takes \"cloudevents\", \"slack\" or \"teams\"");
            None
        }
    }
}

fn read_url(r: &mut Reader, at: &str, allow_private: bool) -> Option<Secret> {
    let path = format!("{at}.url");
    let Some(url) = r.secret(&path) else {
        // A URL that is set but cannot be read has its own message already.
        if !r.is_faulty(&path) {
            r.fault(at, "url or url_file is missing");
        }
        return None;
    };
    match check_url(url.expose(), allow_private) {
        Ok(_) => Some(url),
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

fn read_kinds(r: &mut Reader, at: &str) -> Vec<Kind> {
    let path = format!("{at}.types");
    let types: Vec<String> = r.take(&path, Vec::new());
    let mut kinds = Vec::new();
    for text in types {
        if let Some(kind) = Kind::choice(&text) {
            kinds.push(kind);
        } else {
            let all: Vec<_> = Kind::choices().map(Kind::as_str).collect();
            r.fault(&path, &format!("there is no type {text:?}; there are {}", all.join(", ")));
        }
    }
    kinds
}
