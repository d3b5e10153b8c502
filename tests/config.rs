//! Configuration as an operator meets it: the real program, its environment, its files.
//!
//! Apart from the other integration tests because every case runs a child with an environment of
//! its own. What a setting means is tested beside the code.

#![expect(clippy::unwrap_used, reason = "a failed preparation fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct ConfigFolder(tempfile::TempDir);

impl ConfigFolder {
    fn new(file: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keywheel.toml");
        fs::write(&path, file).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self(dir)
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keywheel"))
            .current_dir(self.0.path())
            .env_clear()
            .envs(env.iter().copied())
            .args(args)
            .output()
            .unwrap()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn refused(output: &Output, wanted: &[&str]) {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(text(&output.stdout), "");
    assert!(err.starts_with("error: "), "{err}");
    for part in wanted {
        assert!(err.contains(part), "{part:?} not in:\n{err}");
    }
    assert!(!err.contains("canary") && !err.contains("backtrace"), "{err}");
}

const ACCOUNT: &str = "[atlas.credentials.default]\nkind = \"service-account\"\nclient_id = \"id\"\n";

#[test]
fn the_bad_inputs_an_operator_makes_are_refused_with_the_way_out() {
    let check = ["config", "check"];
    refused(
        &ConfigFolder::new("[server]\nlisten_adress = \"127.0.0.1:1\"\n").run(&check, &[]),
        &["server.listen_adress (keywheel.toml:2): there is no such setting"],
    );
    refused(
        &ConfigFolder::new("[policy]\nintervall = \"30d\"\n").run(&check, &[]),
        &["policy.intervall (keywheel.toml:2)", "did you mean policy.interval?"],
    );
    refused(
        &ConfigFolder::new(&format!("{ACCOUNT}client_secret_file = \"/nowhere/secret\"\n")).run(&check, &[]),
        &["atlas.credentials.default.client_secret_file (keywheel.toml:4)", "/nowhere/secret cannot be read"],
    );
    refused(
        &ConfigFolder::new(&format!("{ACCOUNT}client_secret = \"canary\"\nclient_secret_file = \"s\"\n"))
            .run(&check, &[]),
        &["client_secret (keywheel.toml:4) and", "client_secret_file (keywheel.toml:5) are both set"],
    );
    refused(
        &ConfigFolder::new("[policy]\nwindows = [{ cron = \"0 0 1 30 2 *\", duration = \"4h\" }]\n")
            .run(&check, &[]),
        &["policy.windows (keywheel.toml:2): window 1", "can never open"],
    );
    refused(
        &ConfigFolder::new("[verify]\ntimeout = \"14m\"\n[policy]\napprovals = 0\n").run(&check, &[]),
        &["the configuration has 2 faults", "14m must be less than verify.guard (13m)", "policy.approvals"],
    );
    refused(
        &ConfigFolder::new("").run(&["config", "check", "--config", "other.toml"], &[]),
        &["other.toml cannot be read"],
    );
}

#[test]
fn an_identity_provider_that_could_sign_nobody_in_or_anybody_is_refused() {
    let check = ["config", "check"];
    let good = "issuer = \"https://id.example.com/\"\nclient_id = \"keywheel\"\nclient_secret = \"canary\"\nroles = { admin = [\"root\"] }\n";
    let of = |text: &str| ConfigFolder::new(&format!("[oidc.acme]\n{text}")).run(&check, &[]);
    assert!(of(good).status.success(), "{}", text(&of(good).stderr));
    let shown = ConfigFolder::new(&format!("[oidc.acme]\n{good}")).run(&["config", "show"], &[]);
    let shown = text(&shown.stdout);
    assert!(shown.contains("issuer = \"https://id.example.com/\"") && !shown.contains("canary"), "{shown}");
    let plain = good.replace("https://id.example.com/", "http://127.0.0.1:9/x");
    assert!(of(&plain).status.success());
    for (from, to, wanted) in [
        ("https://id.example.com/", "http://id.example.com", "takes https"),
        ("https://id.example.com/", "id.example.com", "takes the issuer's address"),
        ("https://id.example.com/", "https://id.example.com/?a=b", "without a user, a password, a query"),
        ("issuer = \"https://id.example.com/\"\n", "", "issuer is missing"),
        ("client_id = \"keywheel\"\n", "", "client_id is missing"),
        ("client_secret = \"canary\"\n", "", "client_secret or client_secret_file is missing"),
        ("client_secret = \"canary\"\n", "client_secret_file = \"/nowhere\"\n", "/nowhere cannot be read"),
        ("roles = { admin = [\"root\"] }\n", "", "roles is missing"),
        ("admin = [", "admins = [", "did you mean oidc.acme.roles.admin?"),
        ("[\"root\"]", "[\" \"]", "a group has a name"),
        ("client_id", "scopes = [\"email\"]\nclient_id", "takes \"openid\""),
        ("client_id", "group_claim = \"g\"\nclient_id", "did you mean oidc.acme.groups_claim?"),
    ] {
        refused(&of(&good.replacen(from, to, 1)), &["oidc.acme", wanted]);
    }
    let twice = format!("[oidc.acme]\n{good}[oidc.same]\n{good}");
    refused(&ConfigFolder::new(&twice).run(&check, &[]), &["oidc.same.issuer", "the same issuer"]);
    refused(
        &ConfigFolder::new(&format!("[oidc.Acme]\n{good}")).run(&check, &[]),
        &["oidc.Acme", "lower-case"],
    );
}

#[test]
fn the_environment_beats_the_file_and_an_unknown_name_in_it_is_refused() {
    let folder = ConfigFolder::new("[policy]\napprovals = 2\n");
    let shown = folder
        .run(&["config", "show"], &[("KEYWHEEL_POLICY__APPROVALS", "3"), ("KEYWHEEL_LOG__LEVEL", "debug")]);
    let out = text(&shown.stdout);
    let line = out.lines().find(|line| line.starts_with("approvals = 3")).unwrap();
    assert!(line.ends_with("# environment KEYWHEEL_POLICY__APPROVALS"), "{line}");
    assert!(out.contains("[log]\n") && out.contains("level = \"debug\""), "{out}");
    refused(
        &folder.run(&["config", "check"], &[("KEYWHEEL_POLICY__APROVALS", "3")]),
        &["policy.aprovals (environment KEYWHEEL_POLICY__APROVALS)", "did you mean policy.approvals?"],
    );
    // What belongs to the command line or to a cluster scheduler is not part of the configuration.
    let env = [("KEYWHEEL_SERVER", "http://x"), ("KEYWHEEL_TOKEN_FILE", "t"), ("KEYWHEEL_PORT", "tcp://1")];
    assert!(folder.run(&["config", "check"], &env).status.success());
    let named = folder.path().join("named.toml");
    fs::write(&named, "[policy]\napprovals = 5\n").unwrap();
    let shown =
        folder.run(&["config", "show", "-o", "json"], &[("KEYWHEEL_CONFIG", named.to_str().unwrap())]);
    let json: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(json["policy.approvals"]["value"], 5);
}

#[test]
fn no_secret_is_shown_and_warnings_go_to_standard_error() {
    let folder =
        ConfigFolder::new(&format!("{ACCOUNT}client_secret = \"canary-a\"\n[verify]\nreadings = 1\n"));
    let env = [
        ("KEYWHEEL_DATABASE__URL", "postgres://kw:canary-b@db/kw"),
        ("KEYWHEEL_MAIL__SMTP_URL", "smtps://kw:canary-c@mail"),
        ("KEYWHEEL_SERVER__PUBLIC_URL", "https://keywheel.example.com"),
    ];
    for args in [&["config", "show"][..], &["config", "show", "-o", "json"], &["config", "check"]] {
        let output = folder.run(args, &env);
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && !all.contains("canary"), "{all}");
    }
    let check = folder.run(&["config", "check"], &env);
    assert_eq!(text(&check.stdout), "the configuration may be used (keywheel.toml), with one warning\n");
    assert!(
        text(&check.stderr).starts_with("warning: verify.readings = 1 is below"),
        "{}",
        text(&check.stderr)
    );
}

#[test]
fn exit_codes_tell_usage_from_a_server_that_is_not_there() {
    let folder = ConfigFolder::new("data_dir = \"d\"\n");
    assert_eq!(folder.run(&["rotate"], &[]).status.code(), Some(2));
    assert_eq!(folder.run(&["project", "add", "short"], &[]).status.code(), Some(2));
    assert_eq!(folder.run(&["status", "--server", "http://127.0.0.1:1"], &[]).status.code(), Some(2));
    let output = folder.run(&["status"], &[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output.stderr).contains("cannot reach the local socket d/keywheel.sock"),
        "{}",
        text(&output.stderr)
    );
    assert!(folder.run(&["completions", "bash"], &[]).status.success());
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keywheel"))
        .args(["completions", "bash"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.code().is_some());
}
