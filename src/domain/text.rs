//! Text from outside: made safe to display, and compared with known names.

use std::fmt::Write as _;

/// Whether a character acts on what is around it, or is not seen at all: control characters, marks that turn
/// the direction of text, characters without width, and separators of lines and paragraphs.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Shows hidden characters as `\u{...}` instead of letting them act.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

/// The same for each line of a text: its line feeds stay.
#[must_use]
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// JSON with hidden characters as `\uXXXX`, which a parser reads as the same text. Its line feeds stay.
#[must_use]
pub fn visible_json(json: &str) -> String {
    let mut units = [0; 2];
    json.chars().fold(String::new(), |mut out, c| {
        if is_hidden(c) && c != '\n' {
            c.encode_utf16(&mut units).iter().for_each(|unit| {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            });
        } else {
            out.push(c);
        }
        out
    })
}

/// A parser's words about a name that is not known, with the known name that is most similar in the place of all of them.
/// Other words stay as they are.
#[must_use]
pub fn with_nearest(words: &str) -> String {
    let unknown = words.strip_prefix("unknown field `").or_else(|| words.strip_prefix("unknown variant `"));
    let parts = unknown.and_then(|rest| rest.split_once("`, expected "));
    let Some((given, known)) = parts else { return words.to_owned() };
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    match nearest(given, known.iter().copied()) {
        Some(near) => format!("there is no `{given}`; did you mean `{near}`?"),
        None => format!("there is no `{given}`; known are {}", known.join(", ")),
    }
}

/// The known name that is most similar to `given`, where one is similar.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let close = known.into_iter().map(|name| (distance(&given, &name.to_lowercase()), name)).min();
    close.filter(|(far, _)| *far <= given.chars().count().div_ceil(2)).map(|(_, name)| name)
}

/// The end of a message about a name that is not known: the most similar known name, or else all of them.
#[must_use]
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> String {
    let known = known.into_iter();
    if let Some(near) = nearest(given, known.clone()) {
        return format!("did you mean {near}?");
    }
    let all: Vec<&str> = known.collect();
    if all.is_empty() { "none is known".to_owned() } else { format!("known are {}", all.join(", ")) }
}

/// Levenshtein's edit distance.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A text as editors write it: PowerShell and Notepad begin one with a byte order mark, in UTF-8 or UTF-16.
///
/// # Errors
/// Fails when it is no text.
pub fn decoded(bytes: Vec<u8>) -> std::io::Result<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().map_err(std::io::Error::other)
    };
    match bytes.as_slice() {
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8(rest.to_vec()).map_err(std::io::Error::other),
        [0xFF, 0xFE, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => String::from_utf8(bytes).map_err(|_| std::io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let said = |given: &str| {
            with_nearest(&format!(
                "unknown field `{given}`, expected one of `interval`, `approvals`, `windows`"
            ))
        };
        assert_eq!(said("aprovals"), "there is no `aprovals`; did you mean `approvals`?");
        assert_eq!(said("Approval"), "there is no `Approval`; did you mean `approvals`?");
        assert_eq!(said("x"), "there is no `x`; known are interval, approvals, windows");
        assert_eq!(
            with_nearest("unknown field `a`, expected `b` at line 1"),
            "there is no `a`; did you mean `b`?"
        );
        assert_eq!(with_nearest("invalid type: map"), "invalid type: map");
    }

    #[test]
    fn a_name_that_is_like_no_other_is_answered_with_all() {
        let said = |given: &str| did_you_mean(given, ["azure-prod", "aws-prod"]);
        assert_eq!(said("azure-prd"), "did you mean azure-prod?");
        assert_eq!(said("AWS-PROD"), "did you mean aws-prod?");
        assert_eq!(said("vault"), "known are azure-prod, aws-prod");
        assert_eq!(did_you_mean("vault", []), "none is known");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        for bytes in [
            b"s3\xc3\xbc".to_vec(),
            b"\xef\xbb\xbfs3\xc3\xbc".to_vec(),
            b"\xff\xfes\x003\x00\xfc\x00".to_vec(),
            b"\xfe\xff\x00s\x003\x00\xfc".to_vec(),
        ] {
            assert_eq!(decoded(bytes).unwrap(), "s3\u{fc}");
        }
        assert!(decoded(vec![0xc3, 0x28]).is_err());
    }

    #[test]
    fn hidden_characters_are_shown_and_others_stay() {
        for hidden in [
            "\u{0}",
            "\u{7}",
            "\u{1b}",
            "\n",
            "\r",
            "\t",
            "\u{7f}",
            "\u{85}",
            "\u{9b}",
            "\u{ad}",
            "\u{61c}",
            "\u{180e}",
            "\u{200b}",
            "\u{200c}",
            "\u{200d}",
            "\u{200e}",
            "\u{200f}",
            "\u{2028}",
            "\u{2029}",
            "\u{202a}",
            "\u{202e}",
            "\u{2060}",
            "\u{2066}",
            "\u{2069}",
            "\u{feff}",
            "\u{e0041}",
        ] {
            let text = format!("a{hidden}b");
            let shown = visible(&text);
            assert!(
                shown.is_ascii() && shown.starts_with("a\\u{") && !shown.chars().any(is_hidden),
                "{shown}"
            );
            assert_eq!(visible(&shown), shown, "what is shown stays as it is");
            let json = serde_json::to_string(&text).unwrap();
            let safe = visible_json(&json);
            assert!(safe.is_ascii() && !safe.chars().any(is_hidden), "{safe}");
            assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
        for plain in ["", "payments-prod", "Zahlungen für Köln", "日本語", "قاعدة", "🔑", "a b"] {
            assert_eq!(visible(plain), plain);
            assert_eq!(visible_json(plain), plain);
        }
        assert_eq!(visible_lines("a\nb\r\u{202e}"), "a\nb\\u{d}\\u{202e}");
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        for (a, b, wanted) in
            [("", "abc", 3), ("listen", "listne", 2), ("url", "url", 0), ("every", "ever", 1)]
        {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }
}
