//! Hints: the events of key services and of Atlas, reduced to one form.
//!
//! An event is a reason to observe, never a fact to act on: it names a possible change and, at best, the
//! new key. Its content may be late, repeated, out of order or untrue, so a hint holds no conclusion. The
//! sender is verified before; the facts are read afterwards from Atlas and from the key service.

use serde::{Deserialize, Serialize};

use super::ids::GroupId;
use super::key::{KeyRef, Place};
use super::time::Timestamp;

/// One event in that form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hint {
    /// The sender's own name of the event.
    pub kind: String,
    /// Its subject.
    pub subject: Subject,
    /// The action that it calls for.
    pub meaning: Meaning,
    /// The new key.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    pub new_key: Option<KeyRef>,
    /// The actor that the sender names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The sender's explanation, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// Of an alarm: from when on the key cannot be used, when it still can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
}

/// The subject of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum Subject {
    /// An Atlas project.
    Project {
        /// Its id.
        group: GroupId,
    },
    /// One key, or one version of a key where the provider has versions.
    Key {
        /// The key.
        key: KeyRef,
    },
    /// An alias of AWS KMS.
    Alias {
        /// Its name, `alias/` included.
        name: String,
        /// Its region, when the event names it.
        region: Option<String>,
        /// Its account, when the event names it.
        account: Option<String>,
    },
    /// The keys of AWS KMS in one region and account: the event does not say which of them.
    Region {
        /// The region, when the event names it.
        region: Option<String>,
        /// The account, when the event names it.
        account: Option<String>,
    },
    /// All versions of a key in Azure Key Vault.
    AzureKey {
        /// The vault, in lower case.
        vault: String,
        /// The key's name.
        name: String,
    },
    /// All keys of an Azure Key Vault.
    Vault {
        /// The vault, in lower case.
        vault: String,
    },
    /// All versions of a key in Google Cloud KMS.
    GcpKey {
        /// Its path, `projects/…/cryptoKeys/NAME`.
        path: String,
    },
}

/// The action that an event calls for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum Meaning {
    /// A key may be new: observe, compare, propose.
    Look,
    /// A key in use may stop working: alert people now, and observe.
    Alarm {
        /// The identity of the trouble: the same text in every report of it.
        once: String,
    },
    /// A key can be used again: what was reported about it is over.
    Usable,
    /// AWS replaced the material inside a key; Atlas needs no change.
    InPlace,
    /// Another system requests a rotation.
    Requested,
}

/// The identifiers of a project that hints are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The project.
    pub group: GroupId,
    /// The key in force.
    pub key: Option<KeyRef>,
    /// Region or vault of its block.
    pub place: Place,
    /// The alias whose key it follows, at AWS.
    pub alias: Option<String>,
    /// Keys that served before.
    pub earlier: Vec<KeyRef>,
    /// The keys of the open rotation.
    pub in_play: Vec<KeyRef>,
    /// Whether that rotation has sent a PATCH: any of its keys may be in force.
    pub patched: bool,
}

/// How a project is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Its key in force, or the project itself.
    Now,
    /// The key that the open rotation is to bring.
    Proposed,
    /// A key that served before and that old backups still need.
    Earlier,
}

impl Hint {
    /// How this concerns the project behind `watch`; `None` when it does not.
    #[must_use]
    pub fn concerns(&self, watch: &Watch) -> Option<Concern> {
        let key = watch.key.as_ref();
        let now = match &self.subject {
            Subject::Project { group } => *group == watch.group,
            Subject::Key { key: named } => key.is_some_and(|it| it.is_same(named, &watch.place)),
            Subject::Alias { name, region, account } => {
                let own = watch.alias.as_deref() == Some(name.as_str());
                own && is_home(key, &watch.place, region.as_deref(), account.as_deref())
            }
            Subject::Region { region, account } => {
                is_home(key, &watch.place, region.as_deref(), account.as_deref())
            }
            subject => key.is_some_and(|key| subject.covers(key)),
        };
        if now {
            return Some(Concern::Now);
        }
        let in_play = |key: &KeyRef| match &self.subject {
            Subject::Key { key: named } => key.is_same(named, &watch.place),
            subject => subject.covers(key),
        };
        if watch.in_play.iter().any(in_play) {
            return Some(if watch.patched { Concern::Now } else { Concern::Proposed });
        }
        let Subject::Key { key: named } = &self.subject else { return None };
        watch.earlier.iter().any(|it| it.is_same(named, &watch.place)).then_some(Concern::Earlier)
    }
}

impl Watch {
    /// The keys in force and in play that `subject` names.
    #[must_use]
    pub fn named_by(&self, subject: &Subject) -> Vec<&KeyRef> {
        let keys = self.key.iter().chain(&self.in_play);
        let named = |key: &&KeyRef| match subject {
            Subject::Project { .. } | Subject::Alias { .. } | Subject::Region { .. } => {
                self.key.as_ref() == Some(*key)
            }
            Subject::Key { key: named } => key.is_same(named, &self.place),
            subject => subject.covers(key),
        };
        keys.filter(named).collect()
    }
}

impl Subject {
    /// Whether `key` is a version of the key, or lies in the vault, that this names.
    #[must_use]
    pub fn covers(&self, key: &KeyRef) -> bool {
        match (self, key) {
            (Subject::AzureKey { vault, name }, KeyRef::Azure(key)) => {
                key.vault() == vault && key.name().eq_ignore_ascii_case(name)
            }
            (Subject::Vault { vault }, KeyRef::Azure(key)) => key.vault() == vault,
            (Subject::GcpKey { path }, KeyRef::Gcp(key)) => key.path() == path,
            _ => false,
        }
    }
}

/// A key is stored in the inbox as its identifier.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::KeyRef;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(key: &Option<KeyRef>, serializer: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => serializer.collect_str(key),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<KeyRef>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(|error| de::Error::custom(format_args!("newKey: {error}"))))
            .transpose()
    }
}

/// Formatted for journals and mails.
impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Project { group } => write!(f, "project {group}"),
            Subject::Key { key } => write!(f, "key {key}"),
            Subject::Alias { name, .. } => f.write_str(name),
            Subject::Region { region, account } => {
                f.write_str("keys")?;
                region.iter().try_for_each(|region| write!(f, " in {region}"))?;
                account.iter().try_for_each(|account| write!(f, " of account {account}"))
            }
            Subject::AzureKey { vault, name } => write!(f, "key {name} in vault {vault}"),
            Subject::Vault { vault } => write!(f, "vault {vault}"),
            Subject::GcpKey { path } => write!(f, "key {path}"),
        }
    }
}

/// Whether an alias of this region and account can be that of the project whose key is `current`. A
/// region or account that one side does not name is no difference.
fn is_home(current: Option<&KeyRef>, place: &Place, region: Option<&str>, account: Option<&str>) -> bool {
    let Some(KeyRef::Aws(key)) = current else { return false };
    let agree = |a: Option<&str>, b: Option<&str>| !matches!((a, b), (Some(a), Some(b)) if a != b);
    agree(region, key.region().or(place.aws_region.as_deref())) && agree(account, key.account())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::Provider;

    fn key(provider: Provider, text: &str) -> KeyRef {
        KeyRef::parse(provider, text).unwrap()
    }

    #[test]
    fn a_subject_covers_every_version_of_its_key_and_no_other_key() {
        let v1 =
            key(Provider::Azure, "https://KV-a.vault.azure.net/keys/Atlas/9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10");
        let covers = |vault: &str, name: &str| {
            Subject::AzureKey { vault: vault.to_owned(), name: name.to_owned() }.covers(&v1)
        };
        assert!(covers("kv-a", "atlas"));
        assert!(!covers("kv-b", "atlas"));
        assert!(!covers("kv-a", "atlas2"));
        assert!(Subject::Vault { vault: "kv-a".to_owned() }.covers(&v1));
        let path = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
        let version = key(Provider::Gcp, &format!("{path}/cryptoKeyVersions/7"));
        assert!(Subject::GcpKey { path: path.to_owned() }.covers(&version));
        assert!(!Subject::GcpKey { path: format!("{path}2") }.covers(&version));
        assert!(!Subject::GcpKey { path: path.to_owned() }.covers(&v1));
    }

    #[test]
    fn the_keys_of_an_open_rotation_are_concerned() {
        let arn = |end: &str| {
            key(
                Provider::Aws,
                &format!("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890{end}"),
            )
        };
        let watch = |patched| Watch {
            group: "0123456789abcdef01234567".parse().unwrap(),
            key: Some(arn("ab")),
            place: Place::default(),
            alias: None,
            earlier: vec![arn("00")],
            in_play: vec![arn("ab"), arn("cd")],
            patched,
        };
        let about = |end: &str, patched| {
            let hint = Hint {
                kind: "DisableKey".to_owned(),
                subject: Subject::Key { key: arn(end) },
                meaning: Meaning::Look,
                new_key: None,
                by: None,
                words: None,
                ends_at: None,
            };
            hint.concerns(&watch(patched))
        };
        assert_eq!((about("ab", false), about("ab", true)), (Some(Concern::Now), Some(Concern::Now)));
        assert_eq!((about("cd", false), about("cd", true)), (Some(Concern::Proposed), Some(Concern::Now)));
        assert_eq!((about("00", true), about("ee", true)), (Some(Concern::Earlier), None));
    }

    #[test]
    fn an_alias_of_another_region_or_account_is_another_alias() {
        let current =
            key(Provider::Aws, "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab");
        let home = |region, account| is_home(Some(&current), &Place::default(), region, account);
        assert!(home(Some("us-west-2"), Some("111122223333")));
        assert!(home(None, None));
        assert!(!home(Some("us-east-1"), None));
        assert!(!home(None, Some("999988887777")));
        assert!(!is_home(None, &Place::default(), None, None));
    }

    #[test]
    fn an_event_about_a_region_concerns_its_keys() {
        let arn = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let of = |region: &str, account: &str| Subject::Region {
            region: Some(region.to_owned()),
            account: Some(account.to_owned()),
        };
        let watch = Watch {
            group: "0123456789abcdef01234567".parse().unwrap(),
            key: Some(key(Provider::Aws, arn)),
            place: Place::default(),
            alias: None,
            earlier: Vec::new(),
            in_play: Vec::new(),
            patched: false,
        };
        let concern = |subject| {
            let hint = Hint {
                kind: "DisconnectCustomKeyStore".to_owned(),
                subject,
                meaning: Meaning::Look,
                new_key: None,
                by: None,
                words: None,
                ends_at: None,
            };
            hint.concerns(&watch)
        };
        assert_eq!(concern(of("us-west-2", "111122223333")), Some(Concern::Now));
        assert_eq!(concern(of("us-east-1", "111122223333")), None);
        assert_eq!(concern(of("us-west-2", "999988887777")), None);
        assert_eq!(of("us-west-2", "1").to_string(), "keys in us-west-2 of account 1");
    }

    #[test]
    fn a_new_key_is_stored_as_its_text() {
        let text = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7";
        let stored = serde_json::json!({
            "kind": "UpdateCryptoKeyPrimaryVersion", "subject": { "is": "project", "group": "0123456789abcdef01234567" },
            "meaning": { "is": "look" }, "newKey": text,
        });
        let hint: Hint = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(hint.new_key, Some(key(Provider::Gcp, text)));
        assert_eq!(serde_json::to_value(&hint).unwrap(), stored);
        let spoilt = |key: &str| {
            let mut stored = stored.clone();
            stored["newKey"] = key.into();
            serde_json::from_value::<Hint>(stored).unwrap_err().to_string()
        };
        assert!(
            spoilt("<script>").starts_with("newKey: \"<script>\" is not a key"),
            "{}",
            spoilt("<script>")
        );
        assert!(spoilt("alias/a").starts_with("newKey: "));
    }
}
