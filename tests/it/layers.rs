//! The rooms of the house: which may use which, as the picture in docs/architecture.md draws it, and that
//! no files use each other in a circle.
//!
//! What counts as an arrow is said in [`reader`]. For circles, three arrows do not count: those of tests,
//! those from a file to a `mod.rs` (or `room.rs`) above it, because a folder's own types stand there and
//! parent and child are one unit to the compiler, and those of `lib.rs`, which only lists the rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use reader::{Arrows, Sources, Tree, circles};

mod reader;

/// A room: its layer, and the rooms that the picture lets it use.
type Picture = BTreeMap<String, (u32, BTreeSet<String>)>;

/// Reads lines such as `L2  store -> domain, secret`; a line without a layer belongs to the one above.
fn picture(text: &str) -> Picture {
    let block = text.split("```text\n").nth(1).and_then(|it| it.split("```").next()).unwrap();
    let mut rooms = Picture::new();
    let mut layer = None;
    for line in block.lines() {
        let (head, uses) = line.split_once("->").unwrap_or((line, ""));
        let mut words: Vec<&str> = head.split_whitespace().collect();
        if let Some(number) = words.first().and_then(|it| it.strip_prefix('L')?.parse().ok()) {
            layer = Some(number);
            words.remove(0);
        }
        let [name] = words[..] else { panic!("a line of the picture names one room: {line}") };
        let uses = uses.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect();
        rooms.insert(name.to_owned(), (layer.unwrap(), uses));
    }
    rooms
}

/// `engine/step.rs` and `engine/mod.rs` are of the room `engine`, `secret.rs` is its own.
fn room(file: &str) -> &str {
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Whether `above` is the file of a module that contains `file`'s.
fn is_above(above: &str, file: &str) -> bool {
    let folder = above.strip_suffix("mod.rs").or_else(|| above.strip_suffix(".rs"));
    above == "lib.rs" || folder.is_some_and(|it| file.starts_with(&format!("{}/", it.trim_end_matches('/'))))
}

/// What keeps the arrows from being those of the picture.
fn differences(arrows: &Arrows, picture: &Picture) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for ((from, to), name) in arrows.iter().filter(|((from, _), _)| from != "lib.rs") {
        let (here, there) = (room(from), room(to));
        if here == there {
            continue;
        }
        used.insert((here, there));
        match picture.get(here) {
            None => wrong.push(format!("{from}: the picture has no room {here}")),
            Some((_, allowed)) if !allowed.contains(there) => {
                wrong.push(format!("{from} uses {name} of {to}: the picture has no arrow {here} -> {there}"));
            }
            Some(_) => {}
        }
    }
    for (here, (layer, allowed)) in picture {
        for there in allowed {
            if !used.contains(&(here.as_str(), there.as_str())) {
                wrong.push(format!("the picture draws {here} -> {there}, and no file has it"));
            }
            if picture.get(there).is_none_or(|(below, _)| below >= layer) {
                wrong.push(format!("the picture draws {here} -> {there}, which does not go down"));
            }
        }
    }
    wrong
}

/// The circles, each with its arrows.
fn circles_of(sources: &Sources) -> Vec<String> {
    let mut arrows = sources.arrows(false);
    arrows.retain(|(from, to), _| !is_above(to, from) && from != "lib.rs");
    let shown = |circle: &BTreeSet<String>| {
        let inside = arrows.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
        let lines = inside.map(|((from, to), name)| format!("  {from} -> {to}: {name}"));
        format!("a circle of {} files:\n{}", circle.len(), lines.collect::<Vec<_>>().join("\n"))
    };
    circles(&arrows).iter().map(shown).collect()
}

fn walk(dir: &Path, root: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, root, tree);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            tree.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn sources() -> (Tree, Sources) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut tree = Tree::new();
    walk(&src, &src, &mut tree);
    let sources = Sources::read(&tree);
    (tree, sources)
}

#[test]
fn rooms_use_each_other_exactly_as_the_picture_says() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let picture = picture(&fs::read_to_string(docs).unwrap());
    let (tree, sources) = sources();
    let unknown: Vec<_> =
        tree.keys().filter(|file| file.as_str() != "lib.rs" && !picture.contains_key(room(file))).collect();
    assert!(unknown.is_empty(), "in no room of the picture: {unknown:?}");
    let arrows = sources.arrows(true);
    assert!(arrows.len() > 500, "the test read only {} arrows", arrows.len());
    let wrong = differences(&arrows, &picture);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let (_, sources) = sources();
    let circles = circles_of(&sources);
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn what_is_pure_or_in_one_place_stays_so() {
    let (tree, _) = sources();
    let mut wrong = Vec::new();
    for (file, text) in tree {
        for foreign in ["tokio", "sqlx", "axum", "reqwest"] {
            if room(&file) == "domain" && text.contains(&format!("{foreign}::")) {
                wrong.push(format!("{file} uses {foreign}: the domain is pure"));
            }
        }
        if room(&file) != "net" && (text.contains("Client::builder(") || text.contains("ClientBuilder::new("))
        {
            wrong.push(format!("{file} builds an HTTP client: net::client does that"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Planted faults: small trees that the checks must refuse, or must not.
mod planted {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Sources {
        Sources::read(&files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect())
    }

    fn wrong(files: &[(&str, &str)]) -> Vec<String> {
        let drawn = picture("```text\nL2  web   -> store\nL1  store -> domain\n    mail\nL0  domain\n```");
        let rest = [
            ("lib.rs", ""),
            ("domain/mod.rs", "pub struct Id;"),
            ("web.rs", "use crate::store::Store;"),
            ("store/mod.rs", "pub struct Store(crate::domain::Id);"),
        ];
        let files: Vec<_> = rest.iter().chain(files).copied().collect();
        differences(&tree(&files).arrows(true), &drawn)
    }

    #[test]
    fn an_arrow_up_is_found_however_it_is_written() {
        assert_eq!(wrong(&[]), Vec::<String>::new());
        for text in [
            "use crate::store::Store;",
            "use crate::{mail, store::{self}};",
            "pub(crate) use crate::{self as top, store::{row::{Row as R, *}}};",
            "use super::super::store::Store;",
            "fn open() { let _ = crate::store::open(1); }",
            "fn open(_: &'static str, _: crate::store::Store<'_>) {}",
            "use crate as top;\nfn open() -> top::store::Store { todo!() }",
            "#[cfg(test)]\nmod tests {\n    use super::super::super::store::Store;\n}",
            "macro_rules! open { () => { $crate::store::open() } }",
        ] {
            let found = wrong(&[("domain/id.rs", text)]);
            assert!(found.iter().any(|it| it.starts_with("domain/id.rs uses")), "{text}: {found:?}");
        }
        for harmless in [
            "//! See [`crate::store::Store`].\n/* crate::store::open() /* nested */ crate::store::open() */",
            "const TEXT: &str = \"use crate::store::Store;\"; const RAW: &str = r#\"\"crate::store::X\"#;",
            "fn quote<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' } // crate::store::X \"",
            "use std::store::Store; use crate::domain::Id; fn f() { store::open(); self::f(); }",
        ] {
            let found = wrong(&[("domain/id.rs", harmless)]);
            assert_eq!(found, Vec::<String>::new(), "{harmless}");
        }
    }

    #[test]
    fn siblings_and_rooms_without_a_place_are_found() {
        let found = wrong(&[("mail.rs", "use crate::store::Store;")]);
        assert_eq!(found, ["mail.rs uses Store of store/mod.rs: the picture has no arrow mail -> store"]);
        let found = wrong(&[("cellar/wine.rs", "use crate::domain::Id;")]);
        assert_eq!(found, ["cellar/wine.rs: the picture has no room cellar"]);
    }

    #[test]
    fn a_drawn_arrow_that_no_file_has_or_that_goes_up_is_found() {
        let of = |text: &str| {
            differences(
                &tree(&[("web.rs", "use crate::store::Store;"), ("store.rs", "")]).arrows(true),
                &picture(text),
            )
        };
        let found = of("```text\nL1  web -> store, domain\nL0  store\n    domain\n```");
        assert_eq!(found, ["the picture draws web -> domain, and no file has it"]);
        for text in ["```text\nL1  web -> store\n    store\n```", "```text\nL0  web -> store\nL1  store\n```"]
        {
            assert_eq!(of(text), ["the picture draws web -> store, which does not go down"]);
        }
    }

    #[test]
    fn a_circle_is_found_behind_what_others_hand_on() {
        for (files, files_in_it) in [
            (
                vec![
                    ("a.rs", "use crate::b::B; pub struct A;"),
                    ("b.rs", "pub struct B; fn f(_: crate::a::A) {}"),
                ],
                2,
            ),
            // The room's own file only hands the name on.
            (
                vec![
                    ("room/mod.rs", "mod a; mod b; pub use a::A; pub use b::*;"),
                    ("room/a.rs", "use super::B; pub struct A;"),
                    ("room/b.rs", "use crate::room::A; pub struct B;"),
                ],
                2,
            ),
            // From room to room, through two hands.
            (
                vec![
                    ("lib.rs", "pub use low::Deep;"),
                    ("low/mod.rs", "pub mod deep; pub use self::deep::Deep;"),
                    ("low/deep.rs", "pub struct Deep; use crate::high::{self, High};"),
                    ("high.rs", "pub struct High(crate::Deep);"),
                ],
                2,
            ),
            (
                vec![
                    ("a.rs", "use crate::b;"),
                    ("b.rs", "use crate::{c::{self}};"),
                    ("c.rs", "fn f() { crate::a::f() }"),
                ],
                3,
            ),
        ] {
            let found = circles_of(&tree(&files));
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("a circle of {files_in_it} ")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_no_circle_is_none() {
        for files in [
            vec![("a.rs", "use crate::b::B;"), ("b.rs", "pub struct B;")],
            // A child uses what its room defines, and the room uses the child.
            vec![
                ("room/mod.rs", "mod a; pub struct Room(a::A);"),
                ("room/a.rs", "use super::Room; pub struct A;"),
            ],
            vec![
                ("room.rs", "mod a; pub struct Room(a::A);"),
                ("room/a.rs", "use super::Room; pub struct A;"),
            ],
            // A test may use what stands above.
            vec![
                ("a.rs", "#[cfg(test)]\nmod tests { use crate::b::B; }\npub struct A;"),
                ("b.rs", "use crate::a::A; pub struct B;"),
            ],
            // The re-exporting room is no part of it.
            vec![
                ("room/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
                ("room/a.rs", "use super::B;"),
                ("room/b.rs", "pub struct B;"),
            ],
        ] {
            assert_eq!(circles_of(&tree(&files)), Vec::<String>::new());
        }
    }
}
