//! The checked-in document of the API, as a judge of every answer that a test gets.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use keywheel::domain::role::Role;
use serde_json::Value;

/// Where it lies.
pub(crate) fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json")
}

/// The document.
pub(crate) fn checked_in() -> Value {
    serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap()
}

/// The roles of which an operation needs one; `None` for one that takes no token.
pub(crate) fn required(operation: &Value) -> Option<Vec<Role>> {
    let role = |it: &Value| it.as_str().unwrap().parse().unwrap();
    match &operation["x-required-role"] {
        Value::Null => None,
        Value::Array(all) => Some(all.iter().map(role).collect()),
        one => Some(vec![role(one)]),
    }
}

/// Fails when an operation of the document answers what the document does not say.
#[track_caller]
pub(crate) fn judge(method: &str, path: &str, status: u16, answer: &Value) {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(checked_in);
    let path = path.split('?').next().unwrap_or_default();
    let matches = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(one, two)| one == two || one.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A path without a parameter goes before one with.
    let mut named: Vec<_> = paths.iter().filter(|(template, _)| matches(template)).collect();
    named.sort_by_key(|(template, _)| template.matches('{').count());
    let operation = named.first().map(|(_, methods)| &methods[method.to_lowercase()]);
    let Some(operation) = operation.filter(|it| !it.is_null()) else {
        assert!(matches!(status, 404 | 405), "{method} {path} is not in the document and answers {status}");
        return;
    };
    let response = &operation["responses"][status.to_string()];
    assert!(!response.is_null(), "{method} {path} does not document {status}: {answer}");
    let problem = &response["content"]["application/problem+json"]["schema"];
    if let Some(codes) = problem["allOf"][1]["properties"]["code"]["enum"].as_array() {
        assert!(
            codes.contains(&answer["code"]),
            "{method} {path} does not document {status} {}",
            answer["code"]
        );
    }
}
