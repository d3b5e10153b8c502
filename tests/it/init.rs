//! `keywheel init`: from flags and by questions, what it writes and for whom, and what it refuses.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use keywheel::domain::time::SystemClock;
use keywheel::sim::{Sim, World};
use serde_json::Value;

use crate::support::daemon::{Said, keywheel, private, run};
use crate::support::{group, old_key};

async fn sim() -> Sim {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Sim::start(listener, World::demo(), Arc::new(SystemClock)).unwrap()
}

/// The flags of a service account of the simulator, whose secret is in `file`.
fn flags<'a>(base: &'a str, file: &'a str) -> [&'a str; 6] {
    ["--client-id", "mdb_sa_id_demo", "--client-secret-file", file, "--atlas-base-url", base]
}

fn init(folder: &Path, args: &[&str]) -> Said {
    run(folder, &[&["init", "--config", "keywheel.toml"], args].concat())
}

fn mode(file: impl AsRef<Path>) -> u32 {
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_written_from_flags_and_its_projects_are_listed() {
    let sim = sim().await;
    let (folder, base) = (tempfile::tempdir().unwrap(), sim.base_url());
    let here = folder.path();
    private(here.join("secret"), "mdb_sa_sk_demo\n");
    let made = init(here, &flags(&base, "secret"));
    assert_eq!(made.code, Some(0), "{made:?}");
    for part in [&group(1), "payments-prod", "AZURE", &old_key()] {
        assert!(made.out.contains(part), "{part}: {made:?}");
    }
    for part in
        ["it sees 12 projects", "keywheel doctor", "keywheel serve", "keywheel project discover --add"]
    {
        assert!(made.err.contains(part), "{part}: {made:?}");
    }
    // It is found by the search, so no step names it.
    assert!(!made.err.contains("--config"), "{made:?}");
    assert_eq!((mode(here.join("keywheel.toml")), mode(here.join("keywheel-data"))), (0o600, 0o700));
    let text = std::fs::read_to_string(here.join("keywheel.toml")).unwrap();
    assert!(text.contains(&format!("client_secret_file = \"{}\"", here.join("secret").display())), "{text}");
    assert!(!text.contains("mdb_sa_sk"), "{text}");
    assert_eq!(run(here, &["config", "check"]).code, Some(0));
    // Before there is a database, doctor tries the credential all the same, and makes none.
    let doctor = run(here, &["doctor"]);
    assert!(doctor.code == Some(0) && doctor.out.contains("Atlas takes it; "), "{doctor:?}");
    assert!(
        doctor.out.contains("there is no database yet; the first `keywheel serve` makes it"),
        "{doctor:?}"
    );
    assert_eq!(std::fs::read_dir(here.join("keywheel-data")).unwrap().count(), 0);
    assert_eq!(run(here, &["migrate"]).code, Some(0));

    let again = init(here, &flags(&base, "secret"));
    assert!(again.code == Some(3) && again.err.contains("exists already") && again.err.contains("--force"));
    assert_eq!(std::fs::read_to_string(here.join("keywheel.toml")).unwrap(), text);

    sim.with(|world| world.api_keys.insert("abcdefgh".to_owned(), "canary".to_owned()));
    private(here.join("key"), "canary\n");
    let key = ["--public-key", "abcdefgh", "--private-key-file", "key", "--atlas-base-url", &base];
    let forced = init(here, &[&key[..], &["--force", "-o", "json"]].concat());
    let report: Value = serde_json::from_str(&forced.out).unwrap_or_else(|_| panic!("{forced:?}"));
    assert_eq!((forced.code, report["projects"].as_array().unwrap().len()), (Some(0), 12));
    let shown = run(here, &["config", "show"]);
    assert!(shown.out.contains("kind = \"api-key\"") && !shown.out.contains("canary"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_could_not_be_used_is_not_written_and_a_refused_credential_leaves_it() {
    let sim = sim().await;
    let (folder, base) = (tempfile::tempdir().unwrap(), sim.base_url());
    let here = folder.path();
    let missing = init(here, &["--smtp-url", "smtp://kw@mail.example.com"]);
    assert_eq!(missing.code, Some(2), "{missing:?}");
    let all = "missing: --client-id, --client-secret-file, --smtp-url-file (for the password), --mail-from;";
    assert!(missing.err.contains(all), "{missing:?}");
    private(here.join("wrong"), "canary");
    let below = ["init", "--config", "below/it/keywheel.toml"];
    for (args, code, part) in [
        (&["--mail-from", "nobody", "--smtp-url", "http://x"][..], 1, "below/it/keywheel.toml:"),
        (&["--smtp-url", "smtp://kw:canary@mail.example.com"], 2, "--smtp-url-file"),
        (&["--data-dir", "/proc/nowhere"], 1, "the folder /proc/nowhere cannot be made"),
        (&["--public-key", "abc"], 2, "cannot be used with"),
    ] {
        let said = run(here, &[&below[..], &flags(&base, "wrong"), args].concat());
        assert!(said.code == Some(code) && said.err.contains(part), "{args:?}: {said:?}");
        assert!(!said.err.contains("canary"), "{said:?}");
        assert!(!here.join("below").exists(), "{args:?} left something");
    }
    let open = here.join("open");
    std::fs::write(&open, "mdb_sa_sk_demo").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = init(here, &flags(&base, "open"));
    assert!(said.code == Some(1) && said.err.contains("chmod o-rwx"), "{said:?}");

    let refused = run(here, &[&below[..], &flags(&base, "wrong")].concat());
    assert!(refused.code == Some(1) && refused.err.contains("check its id and secret"), "{refused:?}");
    assert!(refused.err.contains("KEYWHEEL_CONFIG=") && here.join("below/it/keywheel.toml").exists());
    assert_eq!(mode(here.join("below/it")), 0o700);
    let server = run(here, &[&below[..], &["--server", "http://127.0.0.1:1"]].concat());
    assert!(server.code == Some(2) && server.err.contains("--server has no meaning"), "{server:?}");
}

/// On a terminal, which `script` is here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_asked_for_what_no_flag_gives() {
    let sim = sim().await;
    let (folder, base) = (tempfile::tempdir().unwrap(), sim.base_url());
    let here = folder.path();
    let line = format!(
        "{} init --config {} --atlas-base-url {base}",
        env!("CARGO_BIN_EXE_keywheel"),
        here.join("keywheel.toml").display()
    );
    let of_us = keywheel(here, &[]);
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(here);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in of_us.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let mut script = script.spawn().unwrap();
    let (mut input, mut output) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let mut said = String::new();
    for (question, answer) in [
        ("Folder", "data"),
        ("Atlas credential", ""),
        ("Client id", ""),
        ("Client id", "mdb_sa_id_demo"),
        ("Client secret", "mdb_sa_sk_demo"),
        ("Mail server", "smtp://kw@mail.example.com:587?tls=required"),
        ("Password", "p@ss%/x"),
        ("Sender", "Keywheel <kw@example.com>"),
        ("Mail addresses", "ada@example.com, bob@example.com"),
        ("Public URL", "https://kw.example.com"),
    ] {
        // Up to the question, and no further.
        let from = said.len();
        while !(said[from..].contains(question) && said.ends_with(": ")) {
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).unwrap(), 1, "{question}: {said}");
            said.push(char::from(byte[0]));
        }
        writeln!(input, "{answer}").unwrap();
    }
    output.read_to_string(&mut said).unwrap();
    assert_eq!(script.wait().unwrap().code(), Some(0), "{said}");
    for part in
        ["[service-account]", "Client secret (it is not shown)", "payments-prod", "it sees 12 projects"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let secret = |name: &str| {
        assert_eq!(mode(here.join(name)), 0o600);
        std::fs::read_to_string(here.join(name)).unwrap()
    };
    assert_eq!(secret("atlas-secret"), "mdb_sa_sk_demo\n");
    assert_eq!(secret("smtp-url"), "smtp://kw:p%40ss%25%2Fx@mail.example.com:587?tls=required\n");
    let shown = run(here, &["config", "show"]).out;
    for part in ["bob@example.com", "https://kw.example.com", "/data\"", "kw:***@mail.example.com"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_mean_what_people_mean_by_them() {
    let sim = sim().await;
    let (folder, base) = (tempfile::tempdir().unwrap(), sim.base_url());
    let here = folder.path();
    private(here.join("secret"), "mdb_sa_sk_demo\n");
    std::fs::write(here.join("a-file"), "").unwrap();
    for data_dir in ["a-file", "a-file/below"] {
        let refused = init(here, &[&flags(&base, "secret")[..], &["--data-dir", data_dir]].concat());
        assert!(refused.code == Some(1) && refused.err.contains("is a file"), "{refused:?}");
        assert!(!here.join("keywheel.toml").exists());
    }
    // What is to be typed has its blanks quoted.
    let args = [&["init", "--config", "a b/k w.toml"], &flags(&base, "secret")[..]].concat();
    let blank = run(here, &args);
    assert!(blank.code == Some(0) && blank.err.contains("/a b/k w.toml'"), "{blank:?}");
    // No shell replaces the tilde of an answer.
    let home = here.join("home");
    std::fs::create_dir(&home).unwrap();
    let args = [&["init", "--config", "keywheel.toml", "--data-dir", "~/data"], &flags(&base, "secret")[..]]
        .concat();
    let made = keywheel(here, &args).env("HOME", &home).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert!(home.join("data").is_dir() && !here.join("~").exists());
    // A link is replaced where it leads.
    std::fs::rename(here.join("keywheel.toml"), here.join("real.toml")).unwrap();
    std::os::unix::fs::symlink("real.toml", here.join("keywheel.toml")).unwrap();
    let again = init(here, &[&flags(&base, "secret")[..], &["--data-dir", "other", "--force"]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(std::fs::symlink_metadata(here.join("keywheel.toml")).unwrap().is_symlink());
    let text = std::fs::read_to_string(here.join("real.toml")).unwrap();
    assert!(text.contains(&here.join("other").display().to_string()), "{text}");
}
