//! The layers of the house: imports only go down, and siblings never import each other.

use std::fs;
use std::path::Path;

/// Which modules a module may name in a `crate::` path, itself aside.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("config", &["domain", "secret"]),
    ("secret", &[]),
    ("net", &["domain"]),
    ("lifecycle", &["domain"]),
    ("telemetry", &["config"]),
    ("store", &["domain", "secret"]),
    ("atlas", &["domain", "secret", "net"]),
    ("kms", &["domain", "secret", "net"]),
    ("sim", &["domain", "secret", "net"]),
    ("mail", &["domain", "secret", "net"]),
    ("webhook", &["domain", "secret", "net"]),
    (
        "engine",
        &["store", "atlas", "kms", "mail", "webhook", "domain", "config", "secret", "lifecycle", "telemetry"],
    ),
    ("web", &["net", "engine", "store", "domain", "config", "secret", "lifecycle", "telemetry"]),
    (
        "app",
        &[
            "web",
            "net",
            "engine",
            "store",
            "atlas",
            "kms",
            "mail",
            "webhook",
            "sim",
            "domain",
            "config",
            "secret",
            "lifecycle",
            "telemetry",
        ],
    ),
    ("cli", &["net", "app", "config", "domain", "secret", "lifecycle", "telemetry"]),
];

fn walk(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn imports_only_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let mut arrows = 0;
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let module = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if module == "main" || module == "lib" {
            continue;
        }
        let allowed =
            ALLOWED.iter().find(|(it, _)| *it == module).unwrap_or_else(|| panic!("{name}: no layer")).1;
        let text = fs::read_to_string(&file).unwrap();
        for path in text.split("crate::").skip(1) {
            let target: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            arrows += 1;
            let known = ALLOWED.iter().any(|(it, _)| *it == target);
            if !known || target == module {
                continue;
            }
            if !allowed.contains(&target.as_str()) {
                wrong.push(format!("{name} imports {target}"));
            }
        }
        if module == "domain" {
            for banned in ["tokio", "sqlx", "axum", "reqwest"] {
                if text.contains(&format!("{banned}::")) {
                    wrong.push(format!("{name} uses {banned}"));
                }
            }
        }
    }
    assert!(arrows > 10, "the test read nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
