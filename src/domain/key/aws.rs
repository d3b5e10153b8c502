//! AWS keys.
/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsKey(pub String);
