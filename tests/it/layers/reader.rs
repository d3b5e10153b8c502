//! Reads which source file uses which, from the text of the files alone.
//!
//! Read are `use` items with nested groups, globs and aliases, and paths inside code: those that begin
//! with `crate`, `super` or `self`, with a child module, or with a module that a `use` has named. A name
//! that a file only re-exports is looked up where it is defined, so that no `mod.rs` hides an arrow.
//! Not seen is what needs types: methods, fields, and names that a macro of the tree would write.

use std::collections::{BTreeMap, BTreeSet};

/// Files by their path below `src`, such as `engine/mod.rs`.
pub(crate) type Tree = BTreeMap<String, String>;

/// Which file uses which, and the first name that it uses there.
pub(crate) type Arrows = BTreeMap<(String, String), String>;

type Path = Vec<String>;

/// One `use`, or one path in code.
struct Use {
    path: Path,
    /// The name that it binds; none for a path in code.
    name: Option<String>,
    glob: bool,
    /// The inline modules around it.
    depth: usize,
    in_test: bool,
}

struct Module {
    file: String,
    children: BTreeSet<String>,
    defines: BTreeSet<String>,
    uses: Vec<Use>,
}

pub(crate) struct Sources(BTreeMap<Path, Module>);

impl Sources {
    pub(crate) fn read(tree: &Tree) -> Self {
        let mut modules: BTreeMap<Path, Module> = BTreeMap::new();
        for (file, text) in tree {
            let (defines, uses) = Scanner::new(text).scan();
            let module = Module { file: file.clone(), children: BTreeSet::new(), defines, uses };
            modules.insert(module_path(file), module);
        }
        let paths: Vec<Path> = modules.keys().cloned().collect();
        for path in paths {
            if let Some((last, parent)) = path.split_last()
                && let Some(parent) = modules.get_mut(parent)
            {
                parent.children.insert(last.clone());
            }
        }
        Self(modules)
    }

    /// All arrows between files; those of `#[cfg(test)]` items only where `tests` says so.
    pub(crate) fn arrows(&self, tests: bool) -> Arrows {
        let mut arrows = Arrows::new();
        for (here, module) in &self.0 {
            for it in module.uses.iter().filter(|it| tests || !it.in_test) {
                let Some(path) = self.absolute(here, it) else { continue };
                let file = self.definition(&path, it.glob, 0);
                if file != module.file {
                    let name = path.last().cloned().unwrap_or_default();
                    arrows.entry((module.file.clone(), file)).or_insert(name);
                }
            }
        }
        arrows
    }

    /// The path from the root of the crate; `None` for what is not of this crate.
    fn absolute(&self, here: &Path, it: &Use) -> Option<Path> {
        let module = self.0.get(here)?;
        let mut depth = it.depth;
        let mut base = here.clone();
        let mut rest = it.path.as_slice();
        match rest.first()?.as_str() {
            // The binary names the library as a foreign crate.
            "crate" | "keywheel" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|it| it == "super") {
                    rest = &rest[1..];
                    if depth > 0 { depth -= 1 } else { _ = base.pop() }
                }
            }
            first if module.children.contains(first) => {}
            first => {
                // A name that a `use` of this file has bound to a module.
                let bound = module.uses.iter().find(|it| it.name.as_deref() == Some(first))?;
                if it.name.is_some() || bound.path == it.path || bound.path[0] == first {
                    return None;
                }
                base = self.absolute(here, bound)?;
                if !self.0.contains_key(&base) {
                    return None;
                }
                rest = &rest[1..];
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file in which a path ends: of a module, or of what defines the item behind it.
    fn definition(&self, path: &[String], glob: bool, hops: usize) -> String {
        let known = (0..=path.len()).rev().find(|len| self.0.contains_key(&path[..*len])).unwrap_or(0);
        let here = path[..known].to_vec();
        let Some(module) = self.0.get(&here) else { return "lib.rs".to_owned() };
        let Some(item) = path.get(known) else { return module.file.clone() };
        if glob && known == path.len() || module.defines.contains(item) || hops > 8 {
            return module.file.clone();
        }
        if let Some(it) = module.uses.iter().find(|it| it.name.as_ref() == Some(item) && it.depth == 0)
            && let Some(path) = self.absolute(&here, it)
        {
            return self.definition(&path, false, hops + 1);
        }
        for it in module.uses.iter().filter(|it| it.glob && it.depth == 0) {
            if let Some(mut path) = self.absolute(&here, it)
                && self.0.get(&path).is_some_and(|behind| behind.defines.contains(item))
            {
                path.push(item.clone());
                return self.definition(&path, false, hops + 1);
            }
        }
        module.file.clone()
    }
}

/// `engine/mod.rs` and `engine.rs` are the module `engine`; `lib.rs` is the root.
fn module_path(file: &str) -> Path {
    let stem = file.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if matches!(stem, "lib") { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

/// Circles: files that reach each other, the largest set of each.
pub(crate) fn circles(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        next.entry(from).or_default().insert(to);
    }
    let reached = |from: &str| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = todo.pop() {
            for to in next.get(file.as_str()).into_iter().flatten() {
                if seen.insert((*to).to_owned()) {
                    todo.push((*to).to_owned());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<String>> = next.keys().map(|file| (*file, reached(file))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (file, reached) in &all {
        if !reached.contains(*file) || circles.iter().any(|circle| circle.contains(*file)) {
            continue;
        }
        let back = |it: &String| all.get(it.as_str()).is_some_and(|from| from.contains(*file));
        circles.push(reached.iter().filter(|it| back(it)).cloned().collect());
    }
    circles
}

/// Takes a source text apart into words and signs, without comments and literals.
struct Scanner {
    tokens: Vec<String>,
}

impl Scanner {
    fn new(text: &str) -> Self {
        Self { tokens: tokens(text) }
    }

    fn at(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", String::as_str)
    }

    /// The names of its items, and what it uses.
    fn scan(&self) -> (BTreeSet<String>, Vec<Use>) {
        let (mut defines, mut uses) = (BTreeSet::new(), Vec::new());
        // Per brace: whether it is that of an inline module, and whether of a test.
        let mut open: Vec<(bool, bool)> = Vec::new();
        let mut test_item = false;
        let mut index = 0;
        while index < self.tokens.len() {
            let depth = open.iter().filter(|(module, _)| *module).count();
            let in_test = test_item || open.iter().any(|(_, test)| *test);
            match self.at(index) {
                "#" => {
                    let end = self.group_end(index + 1);
                    test_item |= self.tokens[index..end].join("").starts_with("#[cfg(test)");
                    index = end;
                }
                "{" => {
                    let module = index >= 2 && self.at(index - 2) == "mod";
                    open.push((module, std::mem::take(&mut test_item)));
                    index += 1;
                }
                "}" => {
                    open.pop();
                    index += 1;
                }
                ";" => {
                    test_item = false;
                    index += 1;
                }
                "use" => {
                    let mut found = Vec::new();
                    index = self.use_tree(index + 1, &Vec::new(), &mut found);
                    uses.extend(found.into_iter().map(|(path, name, glob)| Use {
                        path,
                        name: (!glob).then_some(name),
                        glob,
                        depth,
                        in_test,
                    }));
                }
                word @ ("struct" | "enum" | "trait" | "type" | "const" | "static" | "union" | "fn"
                | "mod")
                    if is_word(self.at(index + 1)) =>
                {
                    if open.is_empty() && !(word == "mod" && self.at(index + 2) == ";") {
                        let name = if self.at(index + 1) == "fn" { index + 2 } else { index + 1 };
                        defines.insert(self.at(name).to_owned());
                    }
                    index += 2;
                }
                word if is_word(word) && self.at(index + 1) == "::" => {
                    let mut path = vec![word.to_owned()];
                    index += 1;
                    while self.at(index) == "::" && is_word(self.at(index + 1)) {
                        path.push(self.at(index + 1).to_owned());
                        index += 2;
                    }
                    uses.push(Use { path, name: None, glob: false, depth, in_test });
                    index += usize::from(self.at(index) == "::");
                }
                _ => index += 1,
            }
        }
        (defines, uses)
    }

    /// Reads one branch of a `use` and says where it ends.
    fn use_tree(&self, mut index: usize, before: &Path, found: &mut Vec<(Path, String, bool)>) -> usize {
        let mut path = before.clone();
        loop {
            match self.at(index) {
                "{" => {
                    index += 1;
                    while !matches!(self.at(index), "}" | "") {
                        index = self.use_tree(index, &path, found);
                        index += usize::from(self.at(index) == ",");
                    }
                    return index + 1;
                }
                "*" => {
                    found.push((path, String::new(), true));
                    return index + 1;
                }
                "::" => {
                    index += 1;
                    continue;
                }
                // `{self, …}` names the module itself.
                "self" if !path.is_empty() => index += 1,
                word if is_word(word) => {
                    path.push(word.to_owned());
                    index += 1;
                }
                _ => return index,
            }
            match self.at(index) {
                "::" => {}
                "as" => {
                    found.push((path, self.at(index + 1).to_owned(), false));
                    return index + 2;
                }
                _ => {
                    let name = path.last().cloned().unwrap_or_default();
                    found.push((path, name, false));
                    return index;
                }
            }
        }
    }

    /// Where the brackets that open at `index` (after a `!` perhaps) have closed.
    fn group_end(&self, mut index: usize) -> usize {
        let mut depth = 0;
        while index < self.tokens.len() {
            match self.at(index) {
                "[" => depth += 1,
                "]" => depth -= 1,
                _ => {}
            }
            index += 1;
            if depth == 0 && self.at(index - 1) != "!" {
                break;
            }
        }
        index
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut index = 0;
    while index < chars.len() {
        match (at(index), at(index + 1)) {
            ('/', '/') => {
                while index < chars.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            ('/', '*') => index = after_comment(&chars, index),
            ('"', _) => index = after_string(&chars, index),
            ('r' | 'b' | 'c', _) if raw_string(&chars, index).is_some() => {
                index = raw_string(&chars, index).unwrap_or(index + 1);
            }
            ('\'', '\\') => {
                index += 3;
                while index < chars.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            // A character; otherwise it is a lifetime.
            ('\'', _) if at(index + 2) == '\'' => index += 3,
            (':', ':') => {
                tokens.push("::".to_owned());
                index += 2;
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let start = index;
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
                tokens.push(chars[start..index].iter().collect());
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                index += 1;
            }
        }
    }
    tokens
}

fn after_comment(chars: &[char], mut index: usize) -> usize {
    let mut depth = 0;
    while index < chars.len() {
        match (chars[index], chars.get(index + 1)) {
            ('/', Some('*')) => (depth, index) = (depth + 1, index + 2),
            ('*', Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// Where a string with a prefix (`r"…"`, `br#"…"#`, `b"…"`) ends; `None` when it is a word.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    if start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_') {
        return None;
    }
    let letters = chars[start..].iter().take_while(|it| matches!(it, 'r' | 'b' | 'c')).count();
    let raw = chars[start..start + letters].contains(&'r');
    let hashes = chars[start + letters..].iter().take_while(|it| **it == '#').count();
    let quote = start + letters + hashes;
    if letters > 2 || chars.get(quote) != Some(&'"') || (hashes > 0 && !raw) {
        return None;
    }
    if !raw {
        return Some(after_string(chars, quote));
    }
    let ends = |index: usize| {
        chars[index] == '"'
            && chars[index + 1..].iter().take(hashes).filter(|it| **it == '#').count() == hashes
    };
    (quote + 1..chars.len()).find(|index| ends(*index)).map(|index| index + 1 + hashes)
}
