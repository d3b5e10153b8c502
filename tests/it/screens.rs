//! What the command line prints, in snapshots: help of every verb, the tables of a small fleet, `doctor`, and a
//! configuration full of faults. What differs from run to run (ids, times, ports) is replaced by its name.

use std::fmt::Write as _;

use clap::Command;
use keywheel::config::{Config, Sources};

use crate::support::daemon::Daemon;
use crate::support::{group, new_key};

/// The same text in every run, on every machine.
fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    for (pattern, name) in [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"\d{4}-\d\d-\d\d", "DAY"),
        (r"[0-9a-f]{64}", "HASH"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"/tmp/[\w./]+", "PATH"),
        (r"-?\b\d+ days", "N days"),
        (r"\b(\d+d \d\dh|\d+h \d\dm|\d+m \d\ds)\b", "SPAN"),
        (r"\b\d+(\.\d+)? ?(ms|s)\b", "SPAN"),
        // How far the daemon has come when it is asked.
        (r"\b\d+ audit rows", "N audit rows"),
        (r"audit row \d+", "audit row N"),
        (r"\b\d+ mails wait", "N mails wait"),
        // Columns are as wide as what was replaced.
        (r"─{2,}", "──"),
        (r" {2,}", "  "),
        (r" +\n", "\n"),
    ] {
        settings.add_filter(pattern, name);
    }
    settings
}

/// The help of a verb and of those below it, with colour as `{1}` and `{0}`.
fn help(command: &mut Command, path: &str, colour: bool, all: &mut String) {
    let text = command.render_long_help();
    let text = if colour { text.ansi().to_string() } else { text.to_string() };
    let _ = writeln!(all, "## {path}\n\n{text}");
    for verb in command.get_subcommands_mut().filter(|it| it.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        help(verb, &path, colour, all);
    }
}

/// The command line as a terminal of this width lays it out.
fn command(width: usize) -> Command {
    // The width of this process' own terminal must not count.
    let mut command = keywheel::cli::command(Some(width));
    command.build();
    command
}

#[test]
fn the_help_of_every_verb() {
    let names: Vec<String> = command(80).get_subcommands().map(|it| it.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        let mut all = String::new();
        for width in [80, 140] {
            let _ = writeln!(all, "# {width} columns\n");
            let mut command = command(width);
            let verb = command.find_subcommand_mut(name).unwrap();
            help(verb, &format!("keywheel {name}"), false, &mut all);
        }
        insta::assert_snapshot!(format!("help_{name}"), all);
    }
    let all = [80, 140].map(|width| command(width).render_long_help().to_string());
    insta::assert_snapshot!("help", all.join("\n"));
}

#[test]
fn the_help_of_every_verb_in_colour() {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("\u{1b}\\[([0-9;]*)m", "{$1}");
    for width in [80, 140] {
        let mut all = String::new();
        help(&mut command(width), "keywheel", true, &mut all);
        settings.bind(|| insta::assert_snapshot!(format!("help_colour_{width}"), all));
    }
}

#[test]
fn no_line_of_a_help_is_wider_than_its_terminal() {
    for width in [80, 140] {
        let mut all = String::new();
        help(&mut command(width), "keywheel", false, &mut all);
        let wide: Vec<&str> = all.lines().filter(|line| line.chars().count() > width).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_of_a_small_fleet() {
    let it = Daemon::start().await;
    it.token("ada", "operator");
    it.token("grace", "approver");
    let mut all = String::new();
    let mut run = |who: &str, line: &[&str]| {
        let said = if who.is_empty() { it.cli(line) } else { it.cli_as(who, line) };
        let code = said.code.unwrap();
        let _ = writeln!(all, "$ keywheel {}\n{}{}exit code {code}\n", line.join(" "), said.out, said.err);
        said
    };
    run("ada", &["status"]);
    let since = ["--since", "2026-03-01", "--environment", "prod"];
    run("ada", &[&["project", "add", &group(1), "--owner", "ada@example.com"], &since[..]].concat());
    run("ada", &["project", "add", &group(5), "--kms", "azure"]);
    run("ada", &["project", "add", &group(1)]);
    run("ada", &["project", "list"]);
    run("ada", &["project", "show", "payments-prod"]);
    run(
        "ada",
        &["project", "edit", "payments-prod", "--owner", "ada@example.com", "--owner", "eve@example.com"],
    );
    run("ada", &["rotate", "payments-prod", "--to", &new_key(), "--reason", "due", "--dry-run"]);
    run("ada", &["rotate", "payments-prod", "--to", &new_key(), "--reason", "due"]);
    let open = it.cli(&["rotation", "list", "-o", "json"]).out;
    let open: serde_json::Value = serde_json::from_str(&open).unwrap();
    let id = open["items"][0]["id"].as_str().unwrap().to_owned();
    run("ada", &["rotation", "list"]);
    run("ada", &["rotation", "show", &id, "--checks"]);
    run("ada", &["status"]);
    run("ada", &["due"]);
    run("ada", &["why", "payments-prod"]);
    run("ada", &["approve", &id]);
    run("grace", &["withdraw", &id]);
    run("grace", &["reject", &id, "--comment", "wrong key"]);
    run("ada", &["rotation", "show", &id, "--journal"]);
    run("ada", &["rotation", "watch", &id]);
    run("ada", &["why", "payments-prod"]);
    run("ada", &["why", &group(5)]);
    run("ada", &["history", "payments-prod"]);
    run("", &["outbox", "list"]);
    run("", &["audit", "list", "--limit", "3"]);
    run("", &["audit", "verify"]);
    run("", &["token", "list"]);
    run("", &["token", "revoke", "grace"]);
    run("", &["project", "remove", "payments-prod"]);
    run("ada", &["project", "show", "payments-prod"]);
    run("ada", &["rotation", "list", "--state", "odd"]);
    run("", &["token", "list"]);
    settings().bind(|| insta::assert_snapshot!("tables", all));
    let report = it.cli(&["doctor"]);
    settings().bind(|| insta::assert_snapshot!("doctor", format!("{}{}", report.out, report.err)));
}

#[test]
fn a_configuration_full_of_faults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keywheel.toml");
    let text = r#"
surprise = 1
data_dir = 3
[server]
listen = "everywhere"
public_url = "ftp://x"
[database]
url = "mysql://x"
[atlas]
base_url = "http://cloud.mongodb.com"
request_timeout = "0s"
patch_body = "some"
[atlas.credentials.default]
kind = "password"
[atlas.credentials.other]
kind = "service-account"
client_id = "id"
[mail]
smtp_url = "http://mail.example.com"
from = "nobody"
[policy]
max_age = "1h"
approvals = 0
auto_approve = ["cron"]
window = "sometimes"
[verify]
every = "1d"
guard = "1s"
[sweep]
cron = "often"
[kms.odd]
kind = "vault"
[[hooks]]
name = "a b"
kind = "atlas"
[[hooks]]
name = "twice"
kind = "cloudevents"
token = "short"
[[webhooks]]
name = "ops"
url = "http://10.0.0.1/x"
secret = "plain"
[log]
level = "loud"
format = "xml"
"#;
    crate::support::daemon::private(&file, text);
    let faults = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap_err();
    settings().bind(|| insta::assert_snapshot!("configuration", faults.to_string()));
}
