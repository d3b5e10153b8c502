//! Identifiers: Atlas' own project id and the ids that Keywheel makes itself.
//!
//! Our own ids are UUIDs of version 7. They are made here and never by a database, so that they sort by
//! time and exist before a row is written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of an Atlas project ("group"): 24 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupId(String);

impl GroupId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that is not a group id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "groupId {0:?} is not an Atlas project id: it takes exactly 24 hexadecimal digits, as shown in the project's settings in Atlas"
)]
pub struct BadGroupId(String);

impl FromStr for GroupId {
    type Err = BadGroupId;
    fn from_str(text: &str) -> Result<Self, BadGroupId> {
        if text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(BadGroupId(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for GroupId {
    type Error = BadGroupId;
    fn try_from(text: String) -> Result<Self, BadGroupId> {
        text.parse()
    }
}

impl From<GroupId> for String {
    fn from(id: GroupId) -> String {
        id.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not one of our ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an id: it takes 32 hexadecimal digits with dashes, such as 0198c5a0-0000-7000-8000-000000000001"
)]
pub struct BadId(String);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id; later ids sort after earlier ones.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                text.parse().map(Self).map_err(|_| BadId(text.to_owned()))
            }
        }
    };
}

uuid_id!(
    /// The id of one rotation.
    RotationId
);
uuid_id!(
    /// The id of one row of the outbox.
    OutboxId
);
uuid_id!(
    /// The id of one event in the inbox.
    EventId
);
uuid_id!(
    /// The id of one change of a project's rules.
    LooseningId
);
uuid_id!(
    /// The random token of one claim: only its holder may write the rotation.
    LeaseToken
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_id_is_24_hex_digits() {
        assert_eq!(
            "32B6E34B3D91647ABB20E7B8".parse::<GroupId>().unwrap().as_str(),
            "32b6e34b3d91647abb20e7b8"
        );
        for bad in [
            "",
            "32b6e34b3d91647abb20e7b",
            "32b6e34b3d91647abb20e7b8a",
            "32b6e34b3d91647abb20e7bz",
            "é2b6e34b3d91647abb20e7b",
        ] {
            assert!(bad.parse::<GroupId>().is_err(), "{bad:?}");
        }
    }
}
