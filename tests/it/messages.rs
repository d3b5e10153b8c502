//! Everything that the program can say to a person, in snapshots: a change of words is seen as one.
//!
//! Mails are rendered from a stored row of each kind. Errors, log lines and the rest are read from the sources, because
//! no test could bring about every one of them: each string literal outside tests that has two words is listed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use keywheel::domain::notice::Content;
use keywheel::mail::Letter;
use serde_json::Value;

/// The string literals of a source file, as the compiler reads them.
fn literals(text: &str) -> Vec<String> {
    // Tests stand at the end of a file.
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, here) = rest.split_at(at);
        rest = if here.starts_with("//") {
            here.split_once('\n').map_or("", |(_, rest)| rest)
        } else if here.starts_with("/*") {
            here.split_once("*/").map_or("", |(_, rest)| rest)
        } else if here.starts_with("'\"'") || here.starts_with("'/'") {
            &here[3..]
        } else if let Some(escaped) = here.strip_prefix("'\\") {
            &escaped[escaped.find('\'').unwrap()..]
        } else if let Some(quoted) = here.strip_prefix('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let raw = before.trim_end_matches('#').ends_with('r');
            let (literal, rest) = if raw { until_raw(quoted, hashes) } else { until_quote(quoted) };
            if !before.trim_end().ends_with("reason =") {
                found.push(literal);
            }
            rest
        } else {
            &here[1..]
        };
    }
    found
}

fn until_raw(text: &str, hashes: usize) -> (String, &str) {
    let (literal, rest) = text.split_once(&format!("\"{}", "#".repeat(hashes))).unwrap();
    (literal.to_owned(), rest)
}

fn until_quote(text: &str) -> (String, &str) {
    let mut literal = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (literal, &text[at + 1..]),
            '\\' if chars.next_if(|(_, c)| *c == '\n').is_some() => {
                while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
            }
            '\\' => {
                literal.push('\\');
                literal.extend(chars.next().map(|(_, c)| c));
            }
            c => literal.push(c),
        }
    }
    panic!("a literal without an end: {text}")
}

/// Whether a person could read it as words; statements for the database are not.
fn is_prose(text: &str) -> bool {
    let sql = [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE ",
        "CREATE ",
        "WHERE ",
        "RETURNING ",
        "ORDER BY ",
        "PRAGMA ",
        "AND ",
        "SET ",
    ];
    let words = |text: &str| {
        text.split_whitespace()
            .filter(|it| it.chars().all(|c| c.is_alphabetic() || ",.;:'".contains(c)))
            .count()
    };
    words(text) >= 2 && !sql.iter().any(|it| text.contains(it))
}

fn walk(dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                walk(&path, files);
            }
        } else if path.extension().is_some_and(|it| it == "rs")
            && !["tests.rs", "fuzzing.rs", "fake.rs"].contains(&name.as_str())
        {
            let below = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
            files.insert(below.to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn what_the_sources_can_say() {
    let mut files = BTreeMap::new();
    walk(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    let mut rooms: BTreeMap<String, String> = BTreeMap::new();
    for (file, text) in &files {
        let room = file.split('/').next().unwrap().trim_end_matches(".rs");
        let said: Vec<_> = literals(text).into_iter().filter(|it| is_prose(it)).collect();
        if said.is_empty() {
            continue;
        }
        let all = rooms.entry(room.to_owned()).or_default();
        let _ = writeln!(all, "{file}");
        for text in said {
            let _ = writeln!(all, "    {}", text.replace('\n', "\n    | "));
        }
    }
    for (room, text) in rooms {
        insta::assert_snapshot!(format!("sources_{room}"), text);
    }
}

#[test]
fn literals_are_read_as_the_compiler_reads_them() {
    let text = r##"
        // "a comment" and it's over
        let a = "one \"two\" \
                 three"; let b = '"'; let c: &'static str = r#"raw "x" y"#; let d = '\''; /* "no" */
        #[expect(lint, reason = "not said")]
        let e = b'/'; let f = "last";
        #[cfg(test)]
        "##;
    assert_eq!(literals(text), ["one \\\"two\\\" three", "raw \"x\" y", "last"]);
    assert!(is_prose("the disk is full") && !is_prose("SELECT id FROM a") && !is_prose("content-type: x"));
}

#[test]
fn what_mails_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notices");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let row: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let content = Content::read(row["kind"].as_str().unwrap(), &row["model"]).unwrap();
        let letter = Letter::new(&content);
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_snapshot!(
            format!("mail_{name}"),
            format!("Subject: {}\n\n{}", letter.subject, letter.text())
        );
        insta::assert_snapshot!(format!("mail_{name}_html"), letter.html().unwrap());
        count += 1;
    }
    assert!(count >= keywheel::domain::notice::Kind::ALL.len());
}
