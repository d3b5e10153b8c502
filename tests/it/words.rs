//! The vocabulary of the house: words that the field does not use stand nowhere.
//!
//! Prose (comments, messages, documents, settings) is searched without regard to case, names of
//! types with it. Applied migrations are exempt, because they are never edited. What a fence of a
//! document quotes counts like the rest.

use std::fs;
use std::path::{Path, PathBuf};

/// Words and phrases that are banned in prose and code, with the word to use.
const PROSE: [(&str, &str); 12] = [
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("whoever", "anyone who"),
    ("whomever", "anyone whom"),
    ("what is over", "finished records"),
    ("is none", "name what is missing or not valid"),
    ("take down the figures", "record the figures"),
    ("taken down the figures", "recorded the figures"),
    ("courier", "mail sender"),
    ("couriers", "mail senders"),
];

/// Names of types that are banned, with the kind of name to use.
const TYPES: [(&str, &str); 5] = [
    ("Crowd", "ConnectionLimiter"),
    ("Guest", "a connection's permit"),
    ("Office", "EventSource"),
    ("Desk", "what the fixture is"),
    ("Hall", "HookServer"),
];

/// Where text of ours lies.
const ROOTS: [&str; 11] = [
    "src",
    "tests",
    "benches",
    "fuzz/fuzz_targets",
    "docs",
    "config",
    "deploy",
    "scripts",
    "README.md",
    "Cargo.toml",
    "clippy.toml",
];

fn files(at: &Path, found: &mut Vec<PathBuf>) {
    if at.is_file() {
        found.push(at.to_owned());
        return;
    }
    for entry in fs::read_dir(at).unwrap_or_else(|why| panic!("{}: {why}", at.display())) {
        files(&entry.unwrap().path(), found);
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric()
}

/// Whether `text` holds `word` with nothing of a word on either side. An underscore separates words.
fn holds(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The parts of a name with underscores are words of their own; lines become one text, so
/// that a phrase that is wrapped over two of them is found.
fn faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let next =
            lines.get(number + 1).map_or("", |next| next.trim_start_matches([' ', '/', '!', '#', '*', '-']));
        let lower = line.to_lowercase();
        let joined = format!("{} {}", lower.trim_end(), next.to_lowercase());
        for (word, instead) in PROSE {
            let wrapped = word.contains(' ') && holds(&joined, word) && !holds(&next.to_lowercase(), word);
            if holds(&lower, word) || wrapped {
                faults.push(format!("{name}:{}: {word:?}; write: {instead}", number + 1));
            }
        }
        for (word, instead) in TYPES {
            if holds(line, word) {
                faults.push(format!("{name}:{}: {word:?}; name it: {instead}", number + 1));
            }
        }
    }
    faults
}

#[test]
fn words_that_the_field_does_not_use_stand_nowhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for place in ROOTS {
        files(&root.join(place), &mut found);
    }
    let mut read = 0;
    let mut wrong = Vec::new();
    for file in found {
        let name = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        // This file must hold the words, and what is stored keeps the words it was written with.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if name == "tests/it/words.rs"
            || name.starts_with("tests/notices/")
            || name.contains("/it__messages__mail_")
            || name.contains("__pycache__")
        {
            continue;
        }
        read += 1;
        wrong.extend(faults(&name, &text));
    }
    assert!(read > 200, "the test read {read} files only");
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_banned_word_is_found_however_it_is_written_and_a_part_of_another_is_not() {
    for bad in
        ["// Mend it.", "the id\n// is none", "fn courier_of()", "//! what is\n//! over", "Whoever asks"]
    {
        assert!(!faults("x", bad).is_empty(), "{bad:?}");
    }
    for bad in ["struct Crowd;", "let it = Hall::open();"] {
        assert_eq!(faults("x", bad).len(), 1, "{bad:?}");
    }
    for good in ["a recommendation", "the hallway", "post office hours", "amendment", "this nonetheless"] {
        assert!(faults("x", good).is_empty(), "{good:?}");
    }
}
