//! Holds CloudEvents against the schema that the documentation gives out.

use std::path::Path;
use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.schema.json");
    let text = std::fs::read_to_string(file).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    let name = "https://keywheel.invalid/events.schema.json";
    compiler.add_resource(name, serde_json::from_str(&text).unwrap()).unwrap();
    let index = compiler.compile(name, &mut schemas).unwrap();
    (schemas, index)
});

/// Whether the event is one of those that `docs/events.schema.json` describes; else why not.
pub(crate) fn described(event: &Value) -> Result<(), String> {
    let (schemas, index) = &*SCHEMA;
    schemas.validate(event, *index).map_err(|why| format!("{why:#}\n{event:#}"))
}
