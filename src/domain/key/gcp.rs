//! GCP keys.
/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GcpKey(pub String);
