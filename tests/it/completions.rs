//! Completion in real shells: bash, fish and zsh ask the binary, and the binary asks the daemon.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::{Daemon, config};
use crate::support::{group, new_key};

/// What a shell prints for a script, in `folder` and with the binary on its path.
fn shell(folder: &Path, program: &[&str], script: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_keywheel")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program[0]);
    for name in ["KEYWHEEL_CONFIG", "KEYWHEEL_SERVER", "KEYWHEEL_TOKEN_FILE"] {
        command.env_remove(name);
    }
    let command = command.args(&program[1..]).arg(script).current_dir(folder).stdin(Stdio::null());
    let said = command.env("PATH", path).env("HOME", folder).env("XDG_CONFIG_HOME", folder).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{program:?} {script}");
    String::from_utf8(said.stdout).unwrap()
}

/// The candidates of bash for a line; its last word is the one to complete.
fn bash(folder: &Path, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let script = format!(
        "source <(keywheel completions bash); COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
         _clap_complete_keywheel keywheel '{}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words.last().unwrap()
    );
    shell(folder, &["timeout", "60", "bash", "--norc", "-c"], &script)
        .lines()
        .map(|line| line.trim().to_owned())
        .collect()
}

/// The candidates of fish for a line, each with its help.
fn fish(folder: &Path, line: &str) -> Vec<String> {
    let script = format!("keywheel completions fish | source; complete -C \"{line}\"");
    shell(folder, &["fish", "--no-config", "-c"], &script).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shells_complete_the_names_that_the_server_knows() {
    let it = Daemon::start().await;
    let folder = it.folder.path();
    let ada = it.token("ada", "operator");
    for number in [1, 2, 5] {
        it.add(&ada, number).await;
    }
    // Names come from Atlas unchecked; bash would run this one.
    for (number, name) in [(2, "$(touch owned)"), (5, "two words")] {
        assert_eq!(it.cli(&["project", "edit", &group(number), "--name", name]).code, Some(0));
    }
    let id = it.propose(&ada, &group(1), &new_key()).await;

    assert_eq!(bash(folder, "keywheel rotate pay"), ["payments-prod"]);
    assert_eq!(bash(folder, "keywheel rotate "), ["payments-prod", &group(2), &group(5)]);
    assert_eq!(bash(folder, &format!("keywheel why {}", &group(1)[..23])), [group(1), group(2), group(5)]);
    assert_eq!(bash(folder, "keywheel approve "), ["@latest", "payments-prod", &id]);
    assert_eq!(bash(folder, &format!("keywheel rotation show {}", &id[..8])), [id.as_str()]);
    assert_eq!(bash(folder, "keywheel rotate payments-prod --to la"), ["latest"]);
    assert_eq!(bash(folder, "keywheel rotation list --state ca"), ["cancelled"]);
    assert_eq!(bash(folder, "keywheel project list --owner ad"), ["ada@example.com"]);
    assert_eq!(bash(folder, "keywheel project add x --credential d"), ["default"]);
    assert_eq!(bash(folder, "keywheel ack payments-prod inv"), ["invalid"]);
    assert_eq!(bash(folder, "keywheel proj"), ["project"]);
    let by_flags = format!("keywheel --server {} --token-file ada.token rotate pay", it.base);
    assert_eq!(bash(folder, &by_flags), ["payments-prod"]);

    let help = format!("payments-prod\t{} rotating", group(1));
    assert_eq!(fish(folder, "keywheel rotate pay"), [help]);
    assert_eq!(
        fish(folder, "keywheel cancel "),
        [
            "@latest\tthe newest rotation",
            "payments-prod\tits newest rotation, awaiting_approval",
            &format!("{id}\tpayments-prod awaiting_approval"),
        ]
    );
    assert!(fish(folder, "keywheel rotate --env").concat().starts_with("--environment\tEvery project"));
    assert!(!folder.join("owned").exists());

    // A real session of zsh, with the script read at its start, and as a file among its functions, as a package has it.
    std::fs::create_dir(folder.join("site")).unwrap();
    std::fs::write(folder.join("site/_keywheel"), it.cli(&["completions", "zsh"]).out).unwrap();
    let compinit = "autoload -U compinit; compinit -u -D";
    for start in [
        format!("{compinit}; source <(keywheel completions zsh)"),
        format!("fpath=($PWD/site $fpath); {compinit}"),
    ] {
        let script = format!(
            "zmodload zsh/zpty; zpty z zsh -f -i; zpty -w z 'PS1=; {start}; print re\"\"ady'; zpty -r z line '*ready*'
            zpty -w -n z $'keywheel why pay\\t'; zpty -r z line '*payments-prod*'; print done"
        );
        assert_eq!(shell(folder, &["timeout", "30", "zsh", "-f", "-c"], &script), "done\n", "{start}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_slow_gives_no_names_and_no_message() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "127.0.0.1:0", "http://127.0.0.1:1");
    assert_eq!(bash(folder.path(), "keywheel rotate pay"), [""]);
    assert_eq!(fish(folder.path(), "keywheel rotate pay"), [""; 0]);
    assert_eq!(bash(folder.path(), "keywheel rotation list --state ca"), ["cancelled"]);
    // It accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    crate::support::daemon::private(folder.path().join("a.token"), "kw_x");
    let line = format!("keywheel --server http://{address} --token-file a.token rotate pay");
    assert_eq!(bash(folder.path(), &line), [""]);
    // Nor is a command waited for that prints the token in an hour.
    let saved = folder.path().join("keywheel");
    std::fs::create_dir_all(&saved).unwrap();
    let server = format!("[servers.slow]\nurl = \"http://{address}\"\ntoken_command = \"exec sleep 600\"\n");
    crate::support::daemon::private(saved.join("servers.toml"), server);
    assert_eq!(bash(folder.path(), "keywheel --server slow rotate pay"), [""]);
}
