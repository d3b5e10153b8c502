//! Identity providers: `[oidc.NAME]`, one for each OpenID Connect issuer whose people may sign in to the pages.
//!
//! Only what is written here is checked; whether the provider answers is the business of `web::oidc` and of
//! `keywheel doctor`.

use std::collections::BTreeMap;

use url::Url;

use super::reader::Reader;
use crate::domain::address::is_loopback;
use crate::domain::role::Role;
use crate::secret::Secret;

/// An identity provider.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// Its name: on the page to sign in, and in the redirect URI.
    pub name: String,
    /// Its issuer, exactly as its tokens name it.
    pub issuer: String,
    /// The id that it knows Keywheel by, which is no secret.
    pub client_id: String,
    /// The secret of that client.
    pub client_secret: Secret,
    /// What is asked for; `openid` is among them.
    pub scopes: Vec<String>,
    /// The claim that lists a person's groups.
    pub groups_claim: String,
    /// The groups that give each role.
    pub roles: BTreeMap<Role, Vec<String>>,
}

/// A provider as read.
pub(super) struct RawOidc {
    name: String,
    issuer: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    scopes: Vec<String>,
    groups_claim: String,
    roles: BTreeMap<Role, Vec<String>>,
}

impl RawOidc {
    pub(super) fn read_all(r: &mut Reader) -> Vec<Self> {
        r.names_below("oidc").into_iter().map(|name| Self::read(r, name)).collect()
    }

    fn read(r: &mut Reader, name: String) -> Self {
        let at = format!("oidc.{name}");
        let text = |r: &mut Reader, part: &str| {
            let value: Option<String> = r.optional(&format!("{at}.{part}"));
            value.filter(|it| !it.trim().is_empty())
        };
        let groups = |role: &Role| Some((*role, r.optional(&format!("{at}.roles.{role}"))?));
        let roles = Role::ALL.iter().filter_map(groups).collect();
        Self {
            issuer: text(r, "issuer"),
            client_id: text(r, "client_id"),
            client_secret: r.secret(&format!("{at}.client_secret")),
            scopes: r.take(&format!("{at}.scopes"), vec!["openid".to_owned(), "email".to_owned()]),
            groups_claim: r.take(&format!("{at}.groups_claim"), "groups".to_owned()),
            roles,
            name,
        }
    }
}

/// The providers without a fault.
pub(super) fn check(raw: Vec<RawOidc>, r: &mut Reader) -> Vec<Oidc> {
    let mut all: Vec<Oidc> = Vec::new();
    for one in raw {
        let Some(one) = check_one(one, r) else { continue };
        if let Some(other) = all.iter().find(|it| it.issuer == one.issuer) {
            let why = format!("oidc.{} has the same issuer; keep one, with the roles of both", other.name);
            r.fault(&format!("oidc.{}.issuer", one.name), &why);
        }
        all.push(one);
    }
    all
}

fn check_one(raw: RawOidc, r: &mut Reader) -> Option<Oidc> {
    let at = format!("oidc.{}", raw.name);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if !raw.name.bytes().all(plain) {
        r.fault(
            &at,
            "a provider's name takes lower-case letters, digits, \"-\" and \"_\": it is part of the redirect URI",
        );
        return None;
    }
    for (name, is_given) in [
        ("issuer", raw.issuer.is_some()),
        ("client_id", raw.client_id.is_some()),
        ("client_secret or client_secret_file", raw.client_secret.is_some()),
    ] {
        // What is set and cannot be read has its own message already.
        let told = name.split(' ').next().is_some_and(|it| r.is_faulty(&format!("{at}.{it}")));
        if !is_given && !told {
            r.fault(&at, &format!("{name} is missing"));
        }
    }
    if !raw.scopes.iter().any(|it| it == "openid") {
        r.fault(
            &format!("{at}.scopes"),
            "takes \"openid\" among others: without it the provider gives no identity",
        );
    }
    if raw.scopes.iter().any(|it| it.is_empty() || !it.bytes().all(|b| b.is_ascii_graphic())) {
        r.fault(
            &format!("{at}.scopes"),
            "takes a list of scopes without blanks, such as [\"openid\", \"email\"]",
        );
    }
    if raw.roles.values().flatten().next().is_none() {
        r.fault(&at, "roles is missing: write the groups that give each role, such as roles = { approver = [\"key-approvers\"] }; without it nobody could sign in");
    }
    if raw.roles.values().flatten().any(|it| it.trim().is_empty()) {
        r.fault(&format!("{at}.roles"), "a group has a name");
    }
    let issuer = check_issuer(&format!("{at}.issuer"), &raw.issuer?, r)?;
    Some(Oidc {
        name: raw.name,
        issuer,
        client_id: raw.client_id?,
        client_secret: raw.client_secret?,
        scopes: raw.scopes,
        groups_claim: raw.groups_claim,
        roles: raw.roles,
    })
}

/// The issuer as it was written: a slash at its end is part of it.
fn check_issuer(path: &str, text: &str, r: &mut Reader) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else {
        r.fault(path, "takes the issuer's address, such as \"https://id.example.com/realms/acme\"");
        return None;
    };
    let has_more = !url.username().is_empty() || url.password().is_some() || text.contains(['?', '#']);
    if has_more || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        r.fault(path, "takes an address without a user, a password, a query or a fragment");
        return None;
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        r.fault(path, "takes https: over plain http anybody on the way could sign in as anybody");
        return None;
    }
    Some(text.to_owned())
}
