//! A key on a page: its parts with a label each, and where in them the tail lies that people type.

use crate::domain::key::KeyRef;
use crate::domain::text::visible;

/// One part of a key, old beside new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) label: &'static str,
    pub(super) old: String,
    pub(super) new: String,
    /// The end of `new` that is to be typed, where this part has it.
    pub(super) tail: String,
}

impl Part {
    pub(super) fn is_same(&self) -> bool {
        self.old == self.new
    }

    /// Whether both keys state it, and differently. What one of them leaves out is that of Atlas' configuration.
    pub(super) fn is_changed(&self) -> bool {
        !self.is_same() && self.old != UNSTATED && self.new != UNSTATED
    }

    /// `new` without its tail.
    pub(super) fn stem(&self) -> &str {
        self.new.strip_suffix(&self.tail).unwrap_or(&self.new)
    }
}

/// What stands for a part that a bare id of AWS leaves out.
const UNSTATED: &str = "not stated";

/// The same labels for all keys of one provider, so that two can be compared.
fn split(key: &KeyRef) -> Vec<(&'static str, String)> {
    let labels: &[&'static str] = match key {
        KeyRef::Aws(_) => &["Region", "Account", "Key id"],
        KeyRef::Azure(_) => &["Vault", "Key", "Version"],
        KeyRef::Gcp(_) => &["Project", "Location", "Key ring", "Key", "Version"],
        KeyRef::Unrecognised { .. } => &["Key"],
    };
    let parts = key.parts();
    let absent = if matches!(key, KeyRef::Azure(_)) { "none" } else { UNSTATED };
    let part = |label| parts.iter().find(|(it, _)| *it == label).map_or(absent, |(_, text)| text);
    labels.iter().map(|label| (*label, visible(part(*label)))).collect()
}

/// A key in a list: `version 15` at Google, else its last eight characters.
pub(super) fn short(key: &KeyRef) -> String {
    if let KeyRef::Gcp(gcp) = key {
        return format!("version {}", gcp.version());
    }
    let text = key.to_string();
    let skipped = text.chars().count().saturating_sub(8);
    let tail: String = text.chars().skip(skipped).collect();
    if skipped == 0 { visible(&tail) } else { format!("…{}", visible(&tail)) }
}

/// One key part by part.
pub(super) fn listed(key: &KeyRef) -> Vec<(&'static str, String)> {
    split(key)
}

/// Both keys part by part. Keys of different kinds are one part each.
pub(super) fn compared(old: &KeyRef, new: &KeyRef) -> Vec<Part> {
    let (before, after) = (split(old), split(new));
    if old.provider() != new.provider() || before.len() != after.len() {
        let (old, new, tail) = (visible(&old.to_string()), visible(&new.to_string()), new.tail());
        let tail = if new.ends_with(&tail) { tail } else { String::new() };
        return vec![Part { label: "Key", old, new, tail }];
    }
    let mut parts: Vec<_> = (before.into_iter().zip(after))
        .map(|((label, old), (_, new))| Part { label, old, new, tail: String::new() })
        .collect();
    // At Google the name and the version are typed, each whole.
    let tails = new.tail();
    for (part, tail) in
        parts.iter_mut().rev().zip(tails.rsplit('/')).filter(|(part, tail)| part.new.ends_with(tail))
    {
        tail.clone_into(&mut part.tail);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> KeyRef {
        text.parse().unwrap()
    }

    #[test]
    fn the_part_that_differs_has_the_tail() {
        let old = key("arn:aws:kms:eu-central-1:418273905561:key/8f1c2b7e-4d90-4a3b-9c55-0e7ad1f2b6c4");
        let new = key("arn:aws:kms:eu-central-1:418273905561:key/b27e9d04-c1f8-4e6a-8d23-5f90ab7c31de");
        let parts = compared(&old, &new);
        let same: Vec<_> = parts.iter().map(Part::is_same).collect();
        assert_eq!(same, [true, true, false]);
        assert_eq!((parts[2].tail.as_str(), parts[2].stem()), ("7c31de", "b27e9d04-c1f8-4e6a-8d23-5f90ab"));
    }

    #[test]
    fn what_a_bare_id_leaves_out_is_not_called_changed() {
        let id = "8f1c2b7e-4d90-4a3b-9c55-0e7ad1f2b6c4";
        let new = key("arn:aws:kms:eu-central-1:418273905561:key/b27e9d04-c1f8-4e6a-8d23-5f90ab7c31de");
        let parts = compared(&key(id), &new);
        let changed: Vec<_> = parts.iter().map(Part::is_changed).collect();
        assert_eq!(changed, [false, false, true]);
        assert!(parts.iter().all(|part| !part.is_same()));
    }

    #[test]
    fn at_google_name_and_version_are_typed() {
        let path =
            "projects/p/locations/europe-west3/keyRings/atlas/cryptoKeys/ledger-cmk/cryptoKeyVersions/";
        let parts = compared(&key(&format!("{path}8")), &key(&format!("{path}9")));
        assert_eq!(key(&format!("{path}9")).tail(), "ledger-cmk/9");
        assert_eq!(
            parts.iter().map(|it| it.label).collect::<Vec<_>>(),
            ["Project", "Location", "Key ring", "Key", "Version"]
        );
        assert_eq!(parts.iter().filter(|it| !it.is_same()).count(), 1);
        assert_eq!(
            parts.iter().map(|it| it.tail.as_str()).collect::<Vec<_>>(),
            ["", "", "", "ledger-cmk", "9"]
        );
    }
}
