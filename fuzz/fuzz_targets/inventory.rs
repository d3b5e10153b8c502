//! Inventory files of `project import`. The first byte, a digit, chooses CSV, YAML or JSON.
//!
//! Rows are numbered and lie where they say; a project that is taken has an id and reads the same
//! again when it is written as JSON.

#![no_main]

use keywheel::fuzzing::cli::inventory;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const JSON: u8 = 2;

fuzz_target!(|data: &[u8]| {
    let Some((format, rest)) = data.split_first() else { return };
    let format = format.wrapping_sub(b'0');
    let read = inventory(format, rest.to_owned());
    assert_eq!(read, inventory(format, rest.to_owned()));
    let Some((text, rows)) = read else { return };
    // YAML ends lines by either.
    let ends = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
    let is_csv = format % 3 == 0;
    let mut last = 0;
    for (place, (number, line, body)) in rows.into_iter().enumerate() {
        assert_eq!(number, place + 1);
        if let Some(line) = line {
            // A row of CSV has a line of its own, where lines end as the count of them has it.
            let first = if is_csv && !text.contains('\r') { last + 1 } else { last };
            assert!((first..=ends + 1).contains(&line), "row {number} lies on line {line} of {}", ends + 1);
            last = line;
        }
        let Some(body) = body else { continue };
        let id = body.get("groupId").and_then(Value::as_str).expect("an id");
        assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let again = json!([body]).to_string().into_bytes();
        let (_, rows) = inventory(JSON, again).expect("it reads again");
        assert_eq!(rows, [(1, None, Some(body))]);
    }
});
