//! Azure keys.
/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AzureKey(pub String);
