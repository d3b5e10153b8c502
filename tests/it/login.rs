//! `keywheel login`: servers and tokens by name, where they are used, and where they are not.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Said, keywheel};

/// Runs a command as a user whose configuration folder is `home`, with more of the environment and standard input.
fn as_user(home: &Path, args: &[&str], env: &[(&str, &str)], input: &str) -> Said {
    let mut command = keywheel(home, args);
    command.env("XDG_CONFIG_HOME", home).envs(env.iter().copied());
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A command that reads none may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_saved_by_name_and_its_token_goes_nowhere_else() {
    let it = Daemon::start().await;
    let (ada, grace) = (it.token("ada", "operator"), it.token("grace", "viewer"));
    let user = tempfile::tempdir().unwrap();
    let home = user.path();
    let token_file = |name: &str| it.folder.path().join(format!("{name}.token")).display().to_string();
    let cli = |line: &[&str]| as_user(home, line, &[], "");
    let ended = |said: Said, code: i32, parts: &[&str]| {
        assert_eq!(said.code, Some(code), "{said:?}");
        for part in parts {
            assert!(said.err.contains(part), "{part:?} in {said:?}");
        }
        for token in [&ada, &grace] {
            assert!(!said.err.contains(token.as_str()) && !said.out.contains(token.as_str()), "{said:?}");
        }
        said
    };
    let url = it.base.as_str();

    // Nothing is saved that the server does not take, nor what would cross a network readable.
    ended(cli(&["login", "--list"]), 0, &["no server is saved"]);
    ended(as_user(home, &["login", url], &[], "kw_canary\n"), 3, &["nothing was saved", "unauthenticated"]);
    ended(cli(&["login", url]), 2, &["no token was given", "--token-command"]);
    ended(cli(&["login", "http://k.example.com"]), 2, &["use https://"]);
    ended(cli(&["login", "https://u:p@k.example.com"]), 2, &["leave them out"]);
    ended(cli(&["login", "https://k.example.com/?a=b"]), 2, &["give only the server"]);
    ended(cli(&["login", "k.example.com"]), 2, &["takes an address"]);
    ended(cli(&["login", url, "--name", "a b"]), 2, &["the name \"a b\" cannot be used"]);
    ended(cli(&["login", "--server", url]), 2, &[]);
    ended(cli(&["login", url, "--server", url]), 2, &["keywheel login URL"]);
    ended(
        cli(&["login", "http://127.0.0.1:1", "--token-file", &token_file("ada")]),
        5,
        &["nothing was saved", "could not be asked"],
    );
    assert!(!home.join("keywheel").exists());

    let saved = cli(&["login", url, "--token-file", &token_file("ada")]);
    let name = url.trim_start_matches("http://");
    ended(saved, 0, &[&format!("{url} is saved as {name} in "), &format!("--server {name}")]);
    let file = home.join("keywheel/servers.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Who asks is who the saved token belongs to.
    let count = home.join("count");
    let command = format!("echo x >> {}; cat {}", count.display(), token_file("grace"));
    ended(cli(&["login", url, "--name", "prod", "--token-command", &command]), 0, &["saved as prod"]);
    let add = ["project", "add", "ffffffffffffffffffffffff", "--server"];
    let asks = |server: &str| cli(&[&add[..], &[server]].concat());
    ended(asks(name), 1, &["code: atlas-not-found"]);
    ended(asks("prod"), 3, &["code: forbidden"]);
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 2, "the command runs each time");
    // An address that has two tokens names no one; with one, it uses that.
    ended(asks(url), 2, &[&format!("name one with --server: {name}, prod")]);
    ended(cli(&["logout", name]), 0, &["is forgotten", "keywheel token revoke"]);
    ended(asks(url), 3, &["code: forbidden"]);
    ended(asks(&format!("{url}/")), 3, &["code: forbidden"]);
    // A token file of the command line wins; one of the environment belongs to the address of the environment.
    let own = [("KEYWHEEL_TOKEN_FILE", token_file("ada"))];
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    ended(cli(&[&add[..], &["prod", "--token-file", &token_file("ada")]].concat()), 1, &["atlas-not-found"]);
    ended(as_user(home, &[&add[..], &["prod"]].concat(), &own, ""), 3, &["code: forbidden"]);
    ended(as_user(home, &[&add[..], &[url]].concat(), &own, ""), 1, &["atlas-not-found"]);
    ended(as_user(home, &add[..3], &[("KEYWHEEL_SERVER", "prod")], ""), 3, &["code: forbidden"]);
    // To empty a variable is to unset it: the command looks for the local socket.
    let unset = as_user(home, &add[..3], &[("KEYWHEEL_SERVER", ""), ("KEYWHEEL_CONFIG", "")], "");
    assert!(!unset.err.contains("--server takes"), "{unset:?}");

    ended(asks("prud"), 2, &["none is saved as \"prud\"; did you mean \"prod\"? Saved: prod"]);
    ended(asks("http://127.0.0.1:1"), 2, &["keywheel login URL", "--token-file FILE"]);
    ended(cli(&["logout", "nothing"]), 4, &["none is saved as \"nothing\"; saved: prod"]);
    let listed = ended(cli(&["login", "--list", "-o", "json"]), 0, &[]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed["items"], json!([{ "name": "prod", "url": url, "token": "by command" }]));
    ended(cli(&["config", "show"]), 0, &[]);

    ended(
        as_user(home, &["login", url, "--name", "prod"], &[], &format!("{ada}\r\n")),
        0,
        &["saved as prod"],
    );
    ended(asks("prod"), 1, &["code: atlas-not-found"]);
    ended(
        cli(&["login", url, "--name", "x", "--token-command", "exit 7"]),
        1,
        &["of x failed (exit status: 7)"],
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    ended(asks("prod"), 1, &["the saved servers hold tokens", "chmod o-rwx"]);
    ended(cli(&["logout", "prod"]), 1, &["chmod o-rwx"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_the_same_time_lose_none_and_a_link_stays_a_link() {
    let it = Daemon::start().await;
    it.token("ada", "viewer");
    let file = it.folder.path().join("ada.token").display().to_string();
    let user = tempfile::tempdir().unwrap();
    let home = user.path();
    // The file lies in a folder of dotfiles.
    let (real, link) = (home.join("dotfiles.toml"), home.join("keywheel/servers.toml"));
    std::fs::create_dir(home.join("keywheel")).unwrap();
    crate::support::daemon::private(&real, "");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let names: Vec<String> = (0..8).map(|number| format!("server-{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let args = ["login", &it.base, "--name", name, "--token-file", &file];
            scope.spawn(move || assert_eq!(as_user(home, &args, &[], "").code, Some(0)));
        }
    });
    let text = std::fs::read_to_string(&real).unwrap();
    assert!(names.iter().all(|name| text.contains(name.as_str())), "{text}");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(as_user(home, &["logout", "server-3"], &[], "").code, Some(0));
    let text = std::fs::read_to_string(&real).unwrap();
    assert!(!text.contains("server-3") && text.contains("server-7"), "{text}");
}
