//! A member of a PATCH: left out, null, or a value.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One field of a PATCH. Read it with `#[serde(default)]`, and write it with `skip_serializing_if =
/// "Patch::is_absent"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The member is left out: the field stays as it is.
    #[default]
    Absent,
    /// The member is null.
    Null,
    /// The field's new value.
    Value(T),
}

impl<T> Patch<T> {
    /// Whether the member is left out.
    pub const fn is_absent(&self) -> bool {
        matches!(self, Patch::Absent)
    }

    /// Sets a field that null clears.
    pub fn apply(self, field: &mut Option<T>) {
        match self {
            Patch::Absent => {}
            Patch::Null => *field = None,
            Patch::Value(value) => *field = Some(value),
        }
    }

    /// The new value, for a field that null leaves as it is.
    pub fn value(self) -> Option<T> {
        match self {
            Patch::Absent | Patch::Null => None,
            Patch::Value(value) => Some(value),
        }
    }
}

/// A member that is there: `None` is null.
impl<T> From<Option<T>> for Patch<T> {
    fn from(member: Option<T>) -> Self {
        member.map_or(Patch::Null, Patch::Value)
    }
}

impl<T: Serialize> Serialize for Patch<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Patch::Absent | Patch::Null => to.serialize_none(),
            Patch::Value(value) => value.serialize(to),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Edit {
        #[serde(default, skip_serializing_if = "Patch::is_absent")]
        field: Patch<u8>,
    }

    #[test]
    fn absent_null_and_value_are_three_things_in_both_directions() {
        for (text, field) in
            [("{}", Patch::Absent), (r#"{"field":null}"#, Patch::Null), (r#"{"field":1}"#, Patch::Value(1))]
        {
            let edit: Edit = serde_json::from_str(text).unwrap();
            assert_eq!(edit, Edit { field });
            assert_eq!(serde_json::to_string(&edit).unwrap(), text);
        }
        assert!(serde_json::from_str::<Edit>(r#"{"field":"x"}"#).is_err());
    }
}
