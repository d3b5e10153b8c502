//! Tables of a bundle: RFC 4180 in one spelling, so that there is one text for each table.
//!
//! Every field is quoted, every line ends with CR LF. A field that begins with `=`, `+`, `-`, `@`, a tab, CR or an
//! apostrophe gets an apostrophe before it, so that no spreadsheet computes it; the reader takes that apostrophe off.

/// What a spreadsheet may take for the beginning of a formula, and the mark itself.
const MARKED: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// One line.
pub(super) fn line<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let field = |text: &str| {
        let mark = if text.starts_with(MARKED) { "'" } else { "" };
        format!("\"{mark}{}\"", text.replace('"', "\"\""))
    };
    fields.into_iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

/// The lines of a table with at most so many `columns`: a line of a stranger's may have millions.
///
/// # Errors
/// The line that [`line`] would not have written so, counted from 1, line breaks within fields included.
pub(super) fn read(text: &str, columns: usize) -> Result<Vec<Vec<String>>, usize> {
    let mut lines = Vec::new();
    let (mut rest, mut number) = (text, 1);
    while !rest.is_empty() {
        let mut fields = Vec::new();
        loop {
            let mut field = String::new();
            rest = rest.strip_prefix('"').ok_or(number)?;
            loop {
                let (part, after) = rest.split_once('"').ok_or(number)?;
                field.push_str(part);
                number += part.matches('\n').count();
                let Some(more) = after.strip_prefix('"') else {
                    rest = after;
                    break;
                };
                field.push('"');
                rest = more;
            }
            fields.push(match field.strip_prefix('\'') {
                Some(marked) if marked.starts_with(MARKED) => marked.to_owned(),
                None if !field.starts_with(MARKED) => field,
                _ => return Err(number),
            });
            match rest.strip_prefix(',') {
                Some(more) if fields.len() < columns => rest = more,
                Some(_) => return Err(number),
                None => break,
            }
        }
        rest = rest.strip_prefix("\r\n").ok_or(number)?;
        number += 1;
        lines.push(fields);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_comes_back_and_no_field_is_a_formula(rows in proptest::collection::vec(proptest::collection::vec("[=+@'\",\r\n\t a-zé-]{0,6}", 1..4), 0..4)) {
            let text: String = rows.iter().map(|row| line(row.iter().map(String::as_str))).collect();
            prop_assert_eq!(read(&text, 4).unwrap(), rows);
            for start in ["\"=", "\"+", "\"-", "\"@", "\"\t", "\"\r"] {
                prop_assert!(!text.starts_with(start));
            }
        }
    }

    #[test]
    fn another_spelling_is_no_table() {
        for (text, at) in [
            ("\"a\"\r\n\"a\",\"b\",\"c\"\r\n", 2),
            ("a\r\n", 1),
            ("\"a\"\n", 1),
            ("\"a\"\r\n\"=b\"\r\n", 2),
            ("\"a", 1),
            ("\"'a\"\r\n", 1),
        ] {
            assert_eq!(read(text, 2), Err(at), "{text:?}");
        }
    }
}
