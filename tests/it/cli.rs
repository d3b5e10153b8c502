//! The command line of the real binary: what goes to which stream, and every exit code.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Said, config, keywheel, private, run, serve};
use crate::support::{group, new_key, old_key};
use keywheel::sim::world::{KeyState, demo_key};

impl Said {
    /// Fails unless the command ended with `code`; no command ever panics.
    #[track_caller]
    fn ended(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains("stack backtrace"), "{self:?}");
        self
    }

    /// Fails unless standard error says all of `parts` and standard output nothing.
    #[track_caller]
    fn only_says(&self, parts: &[&str]) {
        assert_eq!(self.out, "", "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} in {self:?}");
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Plain lines that say what is waited for, and the way on and out.
#[track_caller]
fn says_what_is_waited_for(lines: &[String], id: &str) {
    for part in [
        "    It waits for approvals: 0 of 1 are given",
        &format!("    to let it go on: keywheel approve {id}"),
        &format!("    to end it: keywheel reject {id}, or keywheel cancel {id}"),
        "awaiting_approval -> approved  command  grace  command.approve.given=1 comment=looks right",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} {lines:?}");
    }
}

#[track_caller]
fn is_shown_as_a_tree(it: &Daemon, id: &str) {
    let shown = it.cli(&["rotation", "show", id, "--journal", "--checks"]);
    for part in [
        &format!("payments-prod  {id}"),
        "\u{2713} completed",
        &new_key(),
        "by grace: looks right",
        "\u{2713} place: its place matches",
        "patch.target=new",
        "comment=looks right",
    ] {
        assert!(shown.ended(0).out.contains(part), "{part} {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_rotate_a_key_from_the_command_line() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    it.token("grace", "approver");
    let group = group(1);
    let added =
        it.cli_as("ada", &words(&format!("project add {group} --owner ada@example.com --since 2026-09-01")));
    assert!(added.ended(0).out.contains(&old_key()) && added.err.is_empty(), "{added:?}");
    it.cli_as("ada", &words(&format!("project add {group}"))).ended(3).only_says(&[
        "error: ",
        "code: project-exists",
        "hint: ",
    ]);

    let rotate = ["rotate", "payments-prod", "--to", &new_key(), "--reason", "Q3"];
    let dry = it.cli_as("ada", &[&rotate[..], &["--dry-run"]].concat());
    assert!(dry.ended(0).out.contains("current_key_valid") && dry.err.contains("nothing was proposed"));
    let made = it.cli_as("ada", &[&rotate[..], &["-o", "json"]].concat());
    let made: Value = serde_json::from_str(&made.ended(0).out).unwrap();
    let id = made["id"].as_str().unwrap();
    assert_eq!(it.get(&ada, &format!("/rotations/{id}")).await.json, made);
    let same = it.cli_as("ada", &rotate);
    assert!(same.ended(0).out.contains(id) && same.err.contains("was proposed before"), "{same:?}");
    let other = it.cli_as("ada", &["rotate", "payments-prod", "--to", &demo_key("AWS", "", 1, 3)]);
    other.ended(3).only_says(&["code: rotation-open", &format!("keywheel cancel {id}")]);
    it.cli_as("ada", &["approve", id]).ended(3).only_says(&["code: forbidden", "role approver", "hint: "]);
    it.cli_as("ada", &["project", "remove", "payments-prod"]).ended(3).only_says(&["code: rotation-open"]);
    it.cli_as("ada", &["resume", id]).ended(3).only_says(&["code: illegal-transition"]);

    // Following begins before the yes, in a pipe: one plain line for each entry.
    let args = ["--server", &it.base, "--token-file", "ada.token", "rotation", "watch", id];
    let mut watch =
        keywheel(it.folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("awaiting_approval  proposed  ada"));
    let yes = it.cli_as("grace", &["approve", id, "--comment", "looks right"]);
    assert!(
        yes.ended(0).out.contains("looks right") && yes.err.contains("approving for payments-prod"),
        "{yes:?}"
    );
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    says_what_is_waited_for(&lines, id);
    assert!(
        lines.last().unwrap().contains("ing -> completed") && !lines.concat().contains('\r'),
        "{lines:?}"
    );
    let ended = watch.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), format!("rotation {id} is completed\n"));

    is_shown_as_a_tree(&it, id);
    for (line, path) in [
        (format!("rotation show {id}"), format!("/rotations/{id}")),
        ("rotation list".to_owned(), "/rotations".to_owned()),
        ("project show payments-prod".to_owned(), format!("/projects/{group}")),
        ("project list".to_owned(), "/projects".to_owned()),
        (format!("why {group}"), format!("/projects/{group}/why")),
        ("outbox list".to_owned(), "/outbox".to_owned()),
        ("audit list".to_owned(), "/audit".to_owned()),
    ] {
        let said = it.cli_as("ada", &[&words(&line)[..], &["-o", "json"]].concat());
        let said: Value = serde_json::from_str(&said.ended(0).out).unwrap();
        assert_eq!(said, it.get(&ada, &path).await.json, "{line}");
        it.cli_as("ada", &words(&line)).ended(0);
    }
    let mail = it.cli(&["outbox", "list", "-o", "json"]);
    let mail: Value = serde_json::from_str(&mail.out).unwrap();
    let mail = it.cli(&["outbox", "show", mail["items"][0]["id"].as_str().unwrap()]);
    assert!(mail.ended(0).out.contains("ada@example.com"), "{mail:?}");
    let newest = it.cli(&["audit", "list", "--limit", "1"]);
    assert!(newest.ended(0).out.contains("rotation.") && newest.err.contains("there are more"), "{newest:?}");
    let verified = it.cli(&["audit", "verify"]);
    assert!(verified.ended(0).out.contains("the chain is intact"), "{verified:?}");
}

#[test]
fn colour_is_for_terminals_and_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let coloured = |args: &[&str], name: &str| {
        let output = keywheel(folder.path(), args).env(name, "1").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(!text.is_empty());
        text.contains(&0x1b)
    };
    for (line, wanted) in [
        ("status", false),
        ("--color always status", true),
        ("status --color=never", false),
        ("--color always --help", true),
        ("rotation --help", false),
        ("rotation --help --color=always", true),
        ("--color always frobnicate", true),
    ] {
        assert_eq!(coloured(&words(line), "KEYWHEEL_TEST"), wanted, "{line}");
    }
    assert!(!coloured(&["status"], "NO_COLOR"));
    assert!(
        coloured(&["status"], "CLICOLOR_FORCE")
            && !coloured(&["status", "--color", "never"], "CLICOLOR_FORCE")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_of_a_watch_is_how_the_rotation_ended() {
    let it = Daemon::start().await;
    let grace = it.token("grace", "approver,operator");
    let bad = "00000001-bbbb-4bbb-8bbb-000000000002";
    it.sim.with(|world| {
        world.keys.insert(bad.to_owned(), KeyState::FailsOnNodes);
        world.projects.get_mut(&group(1)).unwrap().change_while_invalid = true;
    });
    it.cli(&["project", "add", &group(1)]).ended(0);
    for (key, verb, code, state) in [
        (bad, "approve", 1, "rolled_back"),
        (&new_key(), "cancel", 3, "cancelled"),
        (&new_key(), "approve", 0, "completed"),
    ] {
        let rotate = ["rotate", "payments-prod", "--to", key, "--watch"];
        let mut watch = keywheel(it.folder.path(), &rotate)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("proposed"));
        let open = it.get(&grace, "/rotations?state=awaiting_approval").await.json;
        let id = open["items"][0]["id"].as_str().unwrap();
        it.cli_as("grace", &[verb, id]).ended(0);
        assert!(lines.map_while(Result::ok).last().unwrap().contains(&format!("-> {state}")));
        let ended = watch.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{state}");
        let err = String::from_utf8(ended.stderr).unwrap();
        assert!(err.ends_with(&format!("rotation {id} is {state}\n")), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn every_failure_says_what_to_do_and_has_its_exit_code() {
    let it = Daemon::start().await;
    it.token("ada", "operator");
    for (line, code, parts) in [
        ("project show nothing", 4, &["no project is named \"nothing\"", "keywheel project list"][..]),
        ("project show ffffffffffffffffffffffff", 4, &["code: project-not-found", "hint: "]),
        ("why nothing", 4, &["no project is named"]),
        ("rotation show 0198c5a0-0000-7000-8000-000000000001", 4, &["code: rotation-not-found", "hint: "]),
        ("rotation watch 0198c5a0-0000-7000-8000-000000000001", 4, &["code: rotation-not-found"]),
        ("outbox show 0198c5a0-0000-7000-8000-000000000001", 4, &["code: mail-not-found"]),
        ("token revoke nobody", 4, &["no token named \"nobody\" is in force"]),
        ("rotation show xyz", 4, &["no rotation's id begins with \"xyz\"", "keywheel rotation list"]),
        ("rotation show @latest", 4, &["there are no rotations yet"]),
        ("rotation list --state needs_operatr", 2, &["code: invalid"]),
        (
            "project add ffffffffffffffffffffffff --policy {\"aprovals\":2}",
            2,
            &["there is no `aprovals`; did you mean `approvals`?"],
        ),
        ("project add abc", 2, &["24 hexadecimal digits"]),
        ("project list --status fine", 2, &["status: ", "due_soon", "code: invalid"]),
        (
            "project add ffffffffffffffffffffffff --owner ada",
            2,
            &["owners: \"ada\" is not a mail address", "hint: "],
        ),
        ("project add ffffffffffffffffffffffff --since soon", 2, &["is not a date"]),
        ("project add ffffffffffffffffffffffff --policy []", 2, &["takes a JSON object"]),
        (
            "project add ffffffffffffffffffffffff --policy {\"self_approval\":true}",
            2,
            &["policy.self_approval", "`selfApproval`"],
        ),
        (
            "project add ffffffffffffffffffffffff",
            1,
            &["GROUP_NOT_FOUND", "code: atlas-not-found", "hint: check the group id"],
        ),
        ("frobnicate", 2, &["unrecognized subcommand"]),
        ("approve", 2, &["<ROTATION>"]),
        ("token create --name ada --role viewer", 3, &["a token named \"ada\" exists already"]),
        ("token create --name b --role king", 2, &["viewer"]),
        ("--server nowhere status", 2, &["--server takes an address"]),
        ("--server http://127.0.0.1:1 status", 2, &["--token-file"]),
        ("--server http://127.0.0.1:1 --token-file none status", 2, &["the token file none cannot be read"]),
        (
            "--server http://127.0.0.1:1 --token-file ada.token status",
            5,
            &["cannot reach the server", "hint: "],
        ),
        ("--config none.toml status", 1, &["the configuration file none.toml cannot be read"]),
    ] {
        it.cli(&words(line)).ended(code).only_says(&[parts, &["error: "]].concat());
    }
    std::fs::write(it.folder.path().join("wrong.token"), "kw_wrong\n").unwrap();
    let wrong = it.cli_as("wrong", &["status"]);
    wrong.ended(3).only_says(&[
        "warning: the token file wrong.token is open to others",
        "chmod 600",
        "code: unauthenticated",
        "hint: this server does not know the token",
    ]);
    let plain = it.base.replace("http://", "https://");
    it.cli(&words(&format!("--server {plain} --token-file ada.token status")))
        .ended(5)
        .only_says(&["the server speaks plain HTTP there", "use http://"]);
    for (line, code, name) in [
        ("project show ffffffffffffffffffffffff -o json", 4, "project-not-found"),
        ("project show nothing -o json", 4, "not-found"),
        ("--server http://127.0.0.1:1 --token-file ada.token status -o json", 5, "unreachable"),
    ] {
        let said = it.cli(&words(line));
        let document: Value = serde_json::from_str(&said.ended(code).out).unwrap();
        assert_eq!((&document["code"], &document["exitCode"]), (&json!(name), &json!(code)), "{document}");
        assert!(document["detail"].as_str().is_some_and(|it| !it.is_empty()), "{document}");
    }
    // Something else that speaks HTTP at that address.
    let line = format!("--server {} --token-file ada.token status", it.sim.base_url());
    it.cli(&words(&line)).ended(1).only_says(&["is there a Keywheel server at that address?"]);
    it.cli(&["token", "revoke", "ada"]).ended(0);
    it.cli_as("ada", &["status"]).ended(3).only_says(&["code: unauthenticated"]);
    it.cli(&["token", "create", "--name", "ada", "--role", "viewer"])
        .ended(3)
        .only_says(&["belongs to one token for good, revoked or not"]);

    for number in [1, 2] {
        it.cli(&["project", "add", &group(number), "--name", "twin"]).ended(0);
    }
    it.cli(&["project", "show", "twin"]).ended(2).only_says(&[
        "is the name of 2 projects",
        &group(1),
        &group(2),
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_known_is_answered_with_the_nearest() {
    let hook = "[[hooks]]\nname = \"vault-events\"\nkind = \"standard\"\nsecret = \"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\"\n";
    let target = "[[webhooks]]\nname = \"ops\"\nurl = \"http://127.0.0.1:9/\"\nformat = \"slack\"\nallow_private = true\n";
    let mut it = Daemon::start().await;
    it.restart_with(|text| format!("{text}\n{hook}{target}"));
    let ada = it.token("ada", "admin");
    it.cli(&["project", "add", &group(1), "--environment", "prod"]).ended(0);
    for (line, code, near) in [
        ("why payments-prd", 4, "did you mean payments-prod?"),
        ("rotation show paymentsprod", 4, "did you mean payments-prod?"),
        ("project list --status overdu", 2, "did you mean overdue?"),
        ("project edit payments-prod --credential defaul", 2, "did you mean default?"),
        ("project edit payments-prod --kms azur", 2, "did you mean azure?"),
        (
            "project edit payments-prod --policy {\"autoApprove\":[\"hook:vault-event\"]}",
            2,
            "did you mean hook:vault-events?",
        ),
        ("project discover --credential defalt", 2, "did you mean default?"),
        ("rotation list --state needs_operatr", 2, "did you mean needs_operator?"),
        ("ack payments-prod invlid", 2, "did you mean invalid?"),
        ("ack --installation not_sendin", 2, "did you mean not_sending?"),
        ("webhook enable opps", 4, "did you mean ops?"),
        ("token revoke adaa", 4, "did you mean ada?"),
        ("token edit adda --role viewer", 4, "did you mean ada?"),
        ("token create --name b --role operater", 2, "operator"),
        ("rotat payments-prod", 2, "rotate"),
    ] {
        let said = it.cli(&words(line));
        assert!(said.ended(code).err.contains(near), "{line}: {said:?}");
    }
    for (path, near) in [
        ("/projects?stat=ok", "query: there is no `stat`; did you mean `status`?"),
        ("/projects?provder=AWS", "did you mean `provider`?"),
        ("/rotations?stat=ok", "did you mean `state`?"),
        ("/discover?credental=default", "did you mean credential?"),
        ("/audit?limt=3", "did you mean `limit`?"),
        ("/outbox?curser=3", "did you mean `cursor`?"),
        ("/projects?limit=many", "limit"),
    ] {
        let answer = it.get(&ada, path).await;
        assert_eq!(answer.problem(400), "malformed", "{path}");
        assert!(answer.json["detail"].as_str().unwrap().contains(near), "{path}: {answer:?}");
    }
    for (text, near) in [
        ("[[hooks]]\nname = \"a\"\nkind = \"azure-eventgrid\"\n", "did you mean \"azure-event-grid\"?"),
        (
            "[[webhooks]]\nname = \"a\"\nurl = \"http://a.example/\"\nformat = \"slak\"\n",
            "did you mean \"slack\"?",
        ),
        ("[kms.a]\nkind = \"azur\"\n", "did you mean \"azure\"?"),
        ("[atlas.credentials.a]\nkind = \"service-acount\"\n", "did you mean \"service-account\"?"),
        ("[polcy]\napprovals = 2\n", "did you mean policy?"),
        ("[policy]\nauto_approve = [\"pol\"]\n", "did you mean poll?"),
    ] {
        std::fs::write(it.folder.path().join("odd.toml"), text).unwrap();
        let said = it.cli(&["config", "check", "--config", "odd.toml"]);
        assert!(said.ended(1).err.contains(near), "{text}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_empty_says_how_to_fill_it() {
    let it = Daemon::start().await;
    for (line, out, part) in [
        ("project list", "", "keywheel project add GROUP_ID"),
        ("status", "0 projects\n", "keywheel project add GROUP_ID"),
        ("rotation list", "", "keywheel rotate PROJECT --to KEY"),
        ("outbox list", "", "nothing there yet"),
        ("token list", "", "keywheel token create"),
    ] {
        let said = it.cli(&words(line));
        assert_eq!(said.ended(0).out, out, "{line}");
        assert!(said.err.contains(part), "{line}: {said:?}");
    }
    it.cli(&["project", "add", &group(1)]).ended(0);
    let window = r#"{"windows":[{"cron":"0 0 1 * * Sat","duration":"4h","timezone":"Europe/Kyiv"}]}"#;
    let edited = it.cli(&["project", "edit", "payments-prod", "--policy", window]);
    let err = &edited.ended(0).err;
    assert!(err.contains("a window opens at Sat ") && err.contains("01:00 (Europe/Kyiv), for 4h"), "{err}");
    it.cli(&words("project list --status overdue")).ended(0).only_says(&["no project matches"]);
    let status = it.cli(&["status"]);
    for part in ["1 project: 1 ok", "1 without an owner", "due next:", "payments-prod"] {
        assert!(status.ended(0).out.contains(part), "{part}: {status:?}");
    }
    assert!(!status.out.contains("policy") && status.err.is_empty(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_daemon_serves_a_folder_and_a_killed_one_is_not_in_the_way() {
    let mut it = Daemon::start().await;
    let folder = it.folder.path();
    let pid = it.child.id();
    run(folder, &["serve"]).ended(1).only_says(&[&format!("is in use by another keywheel (pid {pid})")]);
    let other = tempfile::tempdir().unwrap();
    let taken = it.base.trim_start_matches("http://");
    config(other.path(), taken, &it.sim.base_url());
    run(other.path(), &["serve"])
        .ended(1)
        .only_says(&[&format!("server.listen {taken} cannot be used; choose a free port")]);
    run(other.path(), &["status"])
        .ended(5)
        .only_says(&["cannot reach the local socket", "hint: start a server"]);

    it.cli(&["project", "add", &group(1)]).ended(0);
    it.child.kill().unwrap();
    it.child.wait().unwrap();
    assert!(folder.join("data/keywheel.sock").exists(), "a killed daemon leaves its socket");
    run(folder, &["status"]).ended(5).only_says(&["cannot reach the local socket", "hint: start a server"]);
    let (child, base, _) = serve(folder);
    (it.child, it.base) = (child, base);
    assert!(it.cli(&["project", "list"]).ended(0).out.contains("payments-prod"));

    let pid = it.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(it.child.wait().unwrap().code(), Some(0));
    assert!(!it.folder.path().join("data/keywheel.sock").exists());
    it.cli(&["status"]).ended(5);
}

#[test]
fn a_pipe_that_is_closed_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["completions bash", "config show", "config show -o json", "--help"] {
        let mut child = keywheel(folder.path(), &words(line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.code().is_some(), "{line}: {ended:?}");
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "{line}");
    }
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let checked = run(folder.path(), &["config", "check"]);
    assert!(checked.ended(0).out.contains("no file, defaults and environment only"), "{checked:?}");
    let file = folder.path().join("keywheel.toml");
    std::fs::write(&file, "[server]\nlissten = \"x\"\n").unwrap();
    run(folder.path(), &["config", "check"])
        .ended(1)
        .only_says(&["server.lissten (keywheel.toml:2)", "did you mean server.listen?"]);
    run(folder.path(), &["serve"]).ended(1).only_says(&["did you mean server.listen?"]);
    let json = run(folder.path(), &["config", "check", "-o", "json"]);
    let json: Value = serde_json::from_str(&json.ended(1).out).unwrap();
    assert_eq!(json["ok"], json!(false));
    crate::support::daemon::private(
        &file,
        "[atlas.credentials.default]\nkind = \"service-account\"\nclient_id = \"i\"\nclient_secret = \"canary\"\n",
    );
    for line in ["config show", "config show -o json", "config check"] {
        let said = run(folder.path(), &words(line));
        assert!(!said.ended(0).out.contains("canary") && !said.err.contains("canary"), "{said:?}");
    }
    // What only reads makes no database: an empty one would be found intact.
    for line in ["audit verify", "token list", "token revoke ada"] {
        run(folder.path(), &words(line))
            .ended(1)
            .only_says(&["there is no database keywheel-data/keywheel.db"]);
    }
    assert!(!folder.path().join("keywheel-data").exists());
    std::fs::write(&file, "data_dir = \"keywheel.toml\"\n").unwrap();
    run(folder.path(), &["serve"]).ended(1).only_says(&["data_dir keywheel.toml cannot be made"]);
}

#[test]
fn the_readme_rehearses_with_what_the_simulator_has() {
    let readme = include_str!("../../README.md");
    let world = keywheel::sim::World::demo();
    let (id, project) = world.projects.first_key_value().unwrap();
    assert!(readme.contains(&format!("keywheel project add {id} ")) && project.name == "payments-prod");
    assert!(readme.contains(&new_key()) && readme.contains(&format!("rotate {} --to", project.name)));
    let (client, secret) = world.service_accounts.first_key_value().unwrap();
    assert!(readme.contains(client) && readme.contains(secret));
    let folder = tempfile::tempdir().unwrap();
    for part in readme.split("```toml\n").skip(1) {
        let part = part.split("```").next().unwrap();
        let part =
            part.replace("client_secret_file = \"/etc/keywheel/atlas-secret\"", "client_secret = \"x\"");
        let part = part.replace("token_file = \"/etc/keywheel/ci-token\"", "token = \"xxxxxxxxxxxxxxxx\"");
        crate::support::daemon::private(folder.path().join("keywheel.toml"), part);
        run(folder.path(), &["config", "check"]).ended(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_what_was_and_what_changes_can_be_watched() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    it.cli_as("ada", &["due"]).ended(0).only_says(&["no key is due within 30d"]);
    let old = "2026-01-01";
    it.cli_as("ada", &words(&format!("project add {} --since {old}", group(1)))).ended(0);
    it.cli_as("ada", &words(&format!("project add {} --owner b@example.com", group(2)))).ended(0);
    let due = it.cli_as("ada", &["due"]);
    assert!(due.ended(0).out.contains("days overdue") && due.out.contains("nobody"), "{due:?}");
    assert!(!due.out.contains(&group(2)), "it is due in ninety days: {due:?}");
    let all = it.cli_as("ada", &["due", "--within", "100d", "-o", "json"]);
    let all: Value = serde_json::from_str(&all.ended(0).out).unwrap();
    let order: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|it| it["groupId"].as_str().unwrap()).collect();
    assert_eq!(order, [group(1), group(2)], "the most urgent first");
    it.cli_as("ada", &["due", "--within", "soon"]).ended(2).only_says(&["--within"]);

    let args = ["--server", &it.base, "--token-file", "ada.token", "status", "--watch"];
    let mut watch = keywheel(it.folder.path(), &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = |wanted: &str| lines.by_ref().map(Result::unwrap).any(|line| line.contains(wanted));
    assert!(next("2 projects: "));
    assert!(next("1 without an owner"));
    it.propose(&ada, &group(1), &new_key()).await;
    assert!(next("awaiting_approval"));
    watch.kill().unwrap();
    watch.wait().unwrap();

    let history = it.cli_as("ada", &["history", "payments-prod"]);
    assert!(
        history.ended(0).out.contains(&old_key()) && history.out.contains("awaiting_approval"),
        "{history:?}"
    );
    let fresh = it.cli_as("ada", &["history", "payments-staging"]);
    assert!(fresh.ended(0).err.contains("no rotations yet"), "{fresh:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_named_by_its_project_by_the_beginning_of_its_id_or_as_the_latest() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    it.token("grace", "approver,viewer");
    let id = it.propose(&ada, &it.add(&ada, 1).await, &demo_key("AWS", "payments-prod", 1, 2)).await;
    let other = it.propose(&ada, &it.add(&ada, 2).await, &demo_key("AWS", "payments-staging", 2, 2)).await;
    for (given, found) in [
        ("payments-prod", &id),
        (&*group(2), &other),
        ("@latest", &other),
        (&id[..id.len() - 1], &id),
        (&id, &id),
    ] {
        let said = it.cli(&["rotation", "show", given, "-o", "json"]);
        let shown: Value = serde_json::from_str(&said.ended(0).out).unwrap();
        assert_eq!(shown["id"], **found, "{given}");
    }
    it.cli(&["rotation", "show", &id[..4]]).ended(2).only_says(&[
        "2 rotations begin with",
        &id,
        "payments-prod",
    ]);
    it.cli(&words("rotation list --state needs_operator"))
        .ended(0)
        .only_says(&["no rotation needs an operator"]);
    it.cli(&words("rotation list --state rolled_back")).ended(0).only_says(&["no rotation is rolled back"]);
    it.cli(&["cancel", "payments-prod"]).ended(0);
    let refused = it.cli_as("grace", &["approve", "payments-prod"]);
    let err = &refused.ended(3).err;
    for part in ["while the rotation is cancelled: it ended at", "propose it again with `keywheel rotate"] {
        assert!(err.contains(part), "{err}");
    }
}

/// The configuration is found, and a command in any folder meets the daemon's database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_commands_know_where_they_are() {
    let it = Daemon::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = it.folder.path().join("keywheel.toml");
    let named = file.to_str().unwrap();
    // A relative data_dir is relative to its file.
    let text = std::fs::read_to_string(&file).unwrap();
    let data = format!("data_dir = \"{}\"", it.folder.path().join("data").display());
    assert!(text.contains(&data));
    std::fs::write(&file, text.replace(&data, "data_dir = \"data\"")).unwrap();
    let here = |args: &[&str]| run(elsewhere.path(), args);
    let made = here(&["token", "create", "--name", "ada", "--role", "viewer", "--config", named]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let listed = it.cli(&["token", "list"]);
    assert!(listed.ended(0).out.contains("ada"), "{listed:?}");
    here(&["status", "--config", named]).ended(0);
    // Without one, no database is made.
    here(&["token", "create", "--name", "bob", "--role", "viewer"]).ended(1).only_says(&[
        "there is no database",
        "keywheel serve",
        "--config",
    ]);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "something was made");
    // The user's own folder is searched.
    let home = elsewhere.path().join("home");
    std::fs::create_dir_all(home.join("keywheel")).unwrap();
    std::fs::copy(&file, home.join("keywheel/keywheel.toml")).unwrap();
    let shown =
        keywheel(elsewhere.path(), &["config", "show"]).env("XDG_CONFIG_HOME", &home).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let own = format!("data_dir = \"{}\"", home.join("keywheel/data").display());
    assert!(shown.contains(&own), "{own} not in {shown}");
    for args in [&["token", "list"][..], &["doctor"], &["migrate"], &["config", "check"], &["serve"]] {
        let args = [args, &["--server", "http://127.0.0.1:1"]].concat();
        it.cli(&args).ended(2).only_says(&["--server has no meaning", "leave --server out"]);
    }
    let mut env = keywheel(it.folder.path(), &["token", "list"]);
    let passed = env.env("KEYWHEEL_SERVER", "http://127.0.0.1:1").output().unwrap();
    let err = String::from_utf8(passed.stderr).unwrap();
    assert!(passed.status.success() && err.contains("KEYWHEEL_SERVER is passed over"), "{err}");
}

/// What only the environment says about a proxy is not used for webhooks.
#[test]
fn a_proxy_that_only_the_environment_names_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "[[webhooks]]\nname = \"ops\"\nurl = \"https://hooks.example.com/x/abcdefgh\"\nformat = \"slack\"\n";
    private(folder.path().join("keywheel.toml"), text);
    let mut command = keywheel(folder.path(), &["config", "check"]);
    let said = command.env("https_proxy", "http://127.0.0.1:9").output().unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(err.contains("without the proxy that https_proxy names"), "{err}");
}

#[test]
fn a_command_line_that_cannot_be_read_is_a_problem_document_too() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["-o", "json", "rotate"][..],
        &["-ojson", "nothing"],
        &["rotate", "p", "--due", "-1d", "--output=json"],
        &["status", "-o", "yaml", "-o", "json", "--nothing"],
    ] {
        let said = run(folder.path(), args);
        assert_eq!(said.code, Some(2), "{said:?}");
        let document: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        assert!(document["detail"].as_str().is_some_and(|it| !it.is_empty()), "{document}");
        assert!(said.err.starts_with("error: ") && !said.err.starts_with("error: error"), "{said:?}");
    }
    // Help is no failure, and people get text.
    let help = run(folder.path(), &["-o", "json", "--help"]);
    assert!(help.code == Some(0) && help.out.contains("Usage: keywheel"), "{help:?}");
    assert_eq!(run(folder.path(), &["rotate"]).out, "");
}
