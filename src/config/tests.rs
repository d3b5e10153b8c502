//! Settings, faults and warnings as an operator meets them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use croner::parser::{CronParser, Seconds};
#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
use url::Url;

#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
use super::kms::{Follow, Login};
use super::webhooks::Format;
use super::*;
use crate::domain::notice::Kind;

/// A directory of its own with a configuration file that only its owner can read.
struct ConfigFolder(tempfile::TempDir);

impl ConfigFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let file = self.0.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn load(&self, text: &str) -> Result<Loaded, ConfigError> {
        let file = self.write("k.toml", text, 0o600);
        Config::load(&Sources { file: Some(file), ..Sources::default() })
    }

    fn faults(&self, text: &str) -> Vec<String> {
        self.load(text).unwrap_err().0
    }
}

/// The warnings but for that about the address of this server, which is the default here.
fn unwise(loaded: &Loaded) -> Vec<&String> {
    loaded.warnings.iter().filter(|it| !it.starts_with("server.public_url")).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn the_defaults_are_legal_quiet_and_equal_to_the_domains() {
    let loaded = Config::load(&Sources::default()).unwrap();
    assert_eq!((loaded.warnings, loaded.unkept), (Vec::new(), Vec::<String>::new()));
    let config = loaded.config;
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.verify, Verify::default());
    assert_eq!(config.pace, Pace::default());
    assert_eq!(config.server.public_url, "http://localhost:8440");
    assert_eq!(config.server.socket.as_deref(), Some(Path::new("keywheel-data/keywheel.sock")));
    assert_eq!(config.database.url.expose(), "sqlite:keywheel-data/keywheel.db");
    assert_eq!(config.atlas.base_url, "https://cloud.mongodb.com");
    assert!(config.atlas.credentials.is_empty() && config.mail.smtp_url.is_none());
}

#[test]
fn every_setting_of_the_reference_is_read_and_none_is_missing_from_it() {
    let defaults = layer::from_toml(DEFAULTS, None).unwrap();
    let shown = Config::load(&Sources::default()).unwrap().entries;
    let shown: Vec<&str> = shown.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(shown.len(), defaults.len());
    assert!(defaults.keys().all(|path| shown.contains(&path.as_str())));
}

#[test]
fn each_layer_beats_the_one_below_and_is_named_as_origin() {
    let folder = ConfigFolder::new();
    let file =
        folder.write("k.toml", "[policy]\napprovals = 2\ninterval = \"60d\"\nself_approval = false\n", 0o600);
    let sources = Sources {
        file: Some(file.clone()),
        env: pairs(&[
            ("KEYWHEEL_POLICY__APPROVALS", "3"),
            ("KEYWHEEL_POLICY__REMIND_BEFORE", "[\"5d\", \"0d\"]"),
            ("KEYWHEEL_DATA_DIR", "/var/lib/keywheel"),
            ("KEYWHEEL_SERVER", "http://elsewhere"),
            ("KEYWHEEL_PORT", "tcp://10.0.0.1:80"),
        ]),
        overrides: pairs(&[("policy.approvals", "4")]),
        ..Sources::default()
    };
    let loaded = Config::load(&sources).unwrap();
    assert_eq!(loaded.config.policy.approvals, 4);
    assert_eq!(loaded.config.policy.interval, Span::from_days(60));
    assert_eq!(loaded.config.policy.remind_before.len(), 2);
    let origin = |path: &str| loaded.entries.iter().find(|entry| entry.path == path).unwrap().origin.clone();
    assert_eq!(origin("policy.approvals"), "flag policy.approvals");
    assert_eq!(origin("policy.interval"), format!("{}:3", file.display()));
    assert_eq!(origin("data_dir"), "environment KEYWHEEL_DATA_DIR");
    assert_eq!(origin("policy.approval_ttl"), "default");
    assert_eq!(Config::socket(&sources).unwrap(), Some(PathBuf::from("/var/lib/keywheel/keywheel.sock")));
}

#[test]
fn an_unknown_setting_is_named_with_its_place_and_the_nearest_known_one() {
    let folder = ConfigFolder::new();
    let faults = folder.faults(
        "[server]\nlisten_on = \"x\"\n[verify]\nreading = 3\napprovals = 2\n[keyservice.prod]\nkind = \"azure\"\n[atlas.credentials.default]\nkind = \"service-account\"\nclient_id = \"a\"\nclient_secret = \"b\"\nsecret = \"canary\"\n[policy.interval]\ndays = 3\n",
    );
    let all = faults.join("\n");
    for wanted in [
        "k.toml:2): there is no such setting; did you mean server.listen?",
        "verify.reading (",
        "did you mean verify.readings?",
        "did you mean policy.approvals?",
        "keyservice (",
        "known here: atlas, data_dir, database, heartbeat, hooks, kms, log, mail, oidc, pace, policy, retention, server, sweep, verify, webhooks",
        "atlas.credentials.default.secret (",
        "policy.interval is a value and has nothing below it",
    ] {
        assert!(all.contains(wanted), "{wanted:?} not in:\n{all}");
    }
    assert!(!all.contains("canary") && !all.contains("vault.prod.kind"), "{all}");
    let env = Sources { env: pairs(&[("KEYWHEEL_DATABSE__URL", "x")]), ..Sources::default() };
    let all = Config::load(&env).unwrap_err().to_string();
    assert_eq!(
        all,
        "databse (environment KEYWHEEL_DATABSE__URL): there is no such setting; did you mean database?"
    );
}

#[test]
fn all_faults_come_at_once_and_say_what_is_taken() {
    let faults = ConfigFolder::new().faults(
        r#"
        [server]
        listen = "localhost"
        public_url = "ftp://x"
        [database]
        url = "mysql://u:canary@h/d"
        [atlas]
        base_url = "cloud.mongodb.com"
        request_timeout = "55s"
        patch_body = "all"
        [policy]
        approvals = 11
        interval = "90"
        escalate = [{ after = "3d", to = ["nobody"] }]
        windows = [{ cron = "0 0 1 30 2 *", duration = "4h" }, { cron = "x", duration = "4h" }, { cron = "0 0 1 * * Sat", duration = "4h", timezone = "Mars/Base" }]
        [verify]
        readings = 0
        timeout = "13m"
        [sweep]
        cron = "*/5 * * * *"
        [mail]
        smtp_url = "http://me:canary@mail"
        from = "nobody"
        digest_at = "25:00"
        [log]
        level = "infoo"
        format = "xml"
        "#,
    );
    let all = faults.join("\n");
    for path in [
        "server.listen",
        "server.public_url",
        "database.url",
        "atlas.base_url",
        "atlas.request_timeout",
        "atlas.patch_body",
        "policy.approvals",
        "policy.interval",
        "policy.escalate",
        "policy.windows",
        "verify.readings",
        "verify.timeout",
        "sweep.cron",
        "mail.digest_at",
        "mail.smtp_url",
        "mail.from",
        "log.level",
        "log.format",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(&format!("{path} ("))), "{path} not in:\n{all}");
    }
    assert!(all.contains("window 1: ") && all.contains("can never open"), "{all}");
    assert!(all.contains("window 2: ") && all.contains("Mars/Base"), "{all}");
    assert!(
        all.contains("verify.timeout") && all.contains("13m must be less than verify.guard (13m)"),
        "{all}"
    );
    assert!(all.contains("a span such as \"15s\""), "{all}");
    assert!(!all.contains("canary"), "{all}");
}

#[test]
fn a_secret_may_be_in_a_file_and_nowhere_else_then() {
    let folder = ConfigFolder::new();
    let secret = folder.write("secret", "s3cret\r\n\n", 0o600);
    let text = |more: &str| {
        format!("[atlas.credentials.default]\nkind = \"service-account\"\nclient_id = \"id\"\n{more}\n")
    };
    let named = format!("client_secret_file = {secret:?}");
    let loaded = folder.load(&text(&named)).unwrap();
    let Credential::ServiceAccount { client_secret, .. } = &loaded.config.atlas.credentials["default"] else {
        panic!("another kind")
    };
    assert_eq!(client_secret.expose(), "s3cret");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert!(loaded.to_text().contains("client_secret = \"***\""));

    let both = folder.faults(&text(&format!("{named}\nclient_secret = \"canary\"")));
    assert!(both.len() == 1 && both[0].contains("are both set"), "{both:?}");
    let missing = folder.faults(&text("client_secret_file = \"/nowhere/secret\""));
    assert!(
        missing.len() == 1 && missing[0].contains("/nowhere/secret cannot be read: No such file"),
        "{missing:?}"
    );
    let empty = folder.write("empty", "\n", 0o600);
    let empty = folder.faults(&text(&format!("client_secret_file = {empty:?}")));
    assert!(empty.len() == 1 && empty[0].contains("is empty"), "{empty:?}");
    let none = folder.faults(&text(""));
    assert!(
        none.len() == 1 && none[0].contains("client_secret or client_secret_file is missing"),
        "{none:?}"
    );
    let number = folder.faults(&text("client_secret = 5551212"));
    assert!(number.len() == 1 && !number[0].contains("5551212"), "{number:?}");

    let url = folder.write("url", "postgres://kw:canary@db/keywheel\n", 0o600);
    let loaded = folder.load(&format!("[database]\nurl_file = {url:?}\n")).unwrap();
    assert_eq!(loaded.config.database.url.expose(), "postgres://kw:canary@db/keywheel");
}

#[test]
fn files_that_others_may_open_are_refused_with_the_command_that_closes_them() {
    let folder = ConfigFolder::new();
    let load = |text: &str, mode| {
        let file = folder.write("k.toml", text, mode);
        Config::load(&Sources { file: Some(file), ..Sources::default() })
    };
    let secret = |mode| folder.write("secret", "canary", mode).display().to_string();
    let named = |mode| {
        format!(
            "[atlas.credentials.a]\nkind = \"service-account\"\nclient_id = \"i\"\nclient_secret_file = {:?}\n",
            secret(mode)
        )
    };
    for (mode, what) in [(0o604, "read"), (0o602, "written"), (0o666, "read and written")] {
        let text = named(mode);
        let told = load(&text, 0o644).unwrap_err().to_string();
        let path = folder.write("secret", "canary", mode).display().to_string();
        let wanted =
            format!("{path} can be {what} by others than its owner and its group; run: chmod o-rwx {path}");
        assert!(
            told.starts_with("atlas.credentials.a.client_secret_file (") && told.ends_with(&wanted),
            "{told}"
        );
    }
    load(&named(0o640), 0o644).unwrap();
    // A file with a secret in it is a secret file.
    let inline = "[mail]\nsmtp_url = \"smtps://u:canary@mail.example\"\n";
    load(inline, 0o640).unwrap();
    let told = load(inline, 0o644).unwrap_err().to_string();
    assert!(told.contains("mail.smtp_url is a secret") && told.contains("run: chmod o-rwx"), "{told}");
    assert!(told.contains("mail.smtp_url_file") && !told.contains("canary"), "{told}");
    // The database and what SQLite keeps beside it.
    let database =
        format!("[database]\nurl = {:?}\n", format!("sqlite:{}", folder.write("kw.db", "", 0o600).display()));
    load(&database, 0o644).unwrap();
    for companion in ["kw.db", "kw.db-wal", "kw.db-shm"] {
        let file = folder.write(companion, "", 0o644);
        let told = load(&database, 0o644).unwrap_err().to_string();
        let wanted = format!("run: chmod o-rwx {}", file.display());
        assert!(told.starts_with("database.url (") && told.ends_with(&wanted), "{told}");
        folder.write(companion, "", 0o660);
        load(&database, 0o644).unwrap();
    }
}

#[test]
fn what_leaves_unencrypted_is_a_warning_and_the_group_may_read_a_secret() {
    let folder = ConfigFolder::new();
    let secret = folder.write("secret", "s", 0o640);
    let text = format!(
        "[atlas]\nbase_url = \"http://atlas.example\"\n[atlas.credentials.a]\nkind = \"service-account\"\nclient_id = \"i\"\nclient_secret_file = {secret:?}\n[mail]\nsmtp_url = \"smtp://u:canary@mail.example\"\n"
    );
    let file = folder.write("group.toml", &text, 0o640);
    let loaded = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    let all = loaded.warnings.join("\n");
    for wanted in ["atlas.base_url is plain http", "may leave this machine unencrypted"] {
        assert!(all.contains(wanted), "{wanted:?} not in:\n{all}");
    }
    assert!(!all.contains("by others"), "{all}");
    assert!(!all.contains("canary"));
    let local = "[atlas]\nbase_url = \"http://127.0.0.1:1\"\n[mail]\nsmtp_url = \"smtp://127.0.0.1:25\"\n";
    assert_eq!(unwise(&folder.load(local).unwrap()), Vec::<&String>::new());
    let strict = "[mail]\nsmtp_url = \"smtp://mail.example?tls=required\"\n";
    assert_eq!(unwise(&folder.load(strict).unwrap()), Vec::<&String>::new());
}

#[test]
fn a_mail_server_that_cannot_be_meant_is_refused_without_its_password() {
    let folder = ConfigFolder::new();
    for (url, way_out) in [
        ("smtp://kw:p@Zx9canary/Yq7@127.0.0.1:587", "write a / in user or password as %2F"),
        ("smtp://kw:12345/Yq7canary@127.0.0.1:587", "write a / in user or password as %2F"),
        ("smtp://kw:12?canary@127.0.0.1:587", "write a ? in user or password as %3F"),
        ("smtp://kw:12#canary@127.0.0.1:587", "%23"),
        ("smtp://kw:ca#canary@127.0.0.1:587", "a # %23"),
        ("smtp://kw:canary@mail.example:465", "use smtps://"),
        ("smtps://kw:canary@mail.example:587", "use smtp:// with ?tls=required"),
    ] {
        let told = folder.load(&format!("[mail]\nsmtp_url = {url:?}\n")).unwrap_err().to_string();
        assert!(told.contains("mail.smtp_url") && told.contains(way_out), "{url}: {told}");
        assert!(!told.contains("canary"), "{told}");
    }
    for helo in ["keywheel", "https://x.example", "a b.example", "10.0.0.1"] {
        let told = folder.load(&format!("[mail]\nhelo = {helo:?}\n")).unwrap_err().to_string();
        assert!(told.contains("mail.helo"), "{helo}: {told}");
    }
    let good = "[mail]\nhelo = \"kw.example.com\"\nsmtp_url = \"smtp://kw%40example.test:pa+s%25s@127.0.0.1:2525\"\n";
    assert_eq!(folder.load(good).unwrap().config.mail.helo.as_deref(), Some("kw.example.com"));
}

#[test]
fn what_only_libpq_takes_in_a_database_url_is_refused_for_what_it_is() {
    let folder = ConfigFolder::new();
    for (url, what) in [
        ("postgres://kw:canary@one.example,two.example/kw", "names several"),
        ("postgres://kw:canary@one.example:5432,two.example:5433/kw", "names several"),
        ("postgres:///kw?host=one.example,two.example", "names several"),
        (
            "postgres://kw:canary@one.example/kw?target_session_attrs=read-write",
            "takes no target_session_attrs",
        ),
        ("postgres://kw:canary@one.example/kw?sslmode=verify-ful", "sslmode takes disable"),
    ] {
        let told = folder.load(&format!("[database]\nurl = {url:?}\n")).unwrap_err().to_string();
        assert!(told.contains("database.url") && told.contains(what), "{url}: {told}");
        assert!(!told.contains("canary"), "{told}");
    }
}

#[test]
fn what_a_user_of_other_tools_writes_is_taken_as_meant_or_refused_with_the_right_form() {
    let folder = ConfigFolder::new();
    for url in ["sqlite:/srv/kw.db", "sqlite:///srv/kw.db", "sqlite:////srv/kw.db"] {
        let loaded = folder.load(&format!("[database]\nurl = {url:?}\n")).unwrap();
        assert_eq!(loaded.config.database.url.expose(), "sqlite:/srv/kw.db", "{url}");
    }
    let told = folder
        .load("[atlas]\nbase_url = \"https://cloud.mongodb.com/api/atlas/v2\"\n")
        .unwrap_err()
        .to_string();
    assert!(told.contains("atlas.base_url") && told.contains("takes no path"), "{told}");

    let env = |name: &str| Config::load(&Sources { env: pairs(&[(name, "x")]), ..Sources::default() });
    for (name, right) in [
        ("KEYWHEEL_DATABASE_URL", "KEYWHEEL_DATABASE__URL sets database.url"),
        ("KEYWHEEL_MAIL_SMTP_URL", "KEYWHEEL_MAIL__SMTP_URL sets mail.smtp_url"),
        ("KEYWHEEL_LOG_LEVEL", "KEYWHEEL_LOG__LEVEL"),
    ] {
        let told = env(name).unwrap_err().to_string();
        assert!(told.contains(name) && told.contains(right), "{told}");
    }
    // Kubernetes puts the addresses of a service called keywheel into every container.
    for name in ["KEYWHEEL_SERVICE_HOST", "KEYWHEEL_PORT", "KEYWHEEL_PORT_8440_TCP_ADDR", "KEYWHEEL_SERVER"] {
        assert!(env(name).is_ok(), "{name}");
    }

    let quoted = folder.write("quoted", "\"canary\"\n", 0o600);
    let blank = folder.write("blank", " canary \n", 0o600);
    for (file, doubt) in [(quoted, "in quotation marks"), (blank, "begins or ends with a blank")] {
        let loaded = folder.load(&format!("[mail]\n[heartbeat]\nurl_file = {file:?}\n"));
        let said = match loaded {
            Ok(loaded) => loaded.warnings.join("\n"),
            Err(error) => error.to_string(),
        };
        assert!(!said.contains("canary"), "{said}");
        let credential = format!(
            "[atlas.credentials.a]\nkind = \"service-account\"\nclient_id = \"i\"\nclient_secret_file = {file:?}\n"
        );
        let warnings = folder.load(&credential).unwrap().warnings.join("\n");
        assert!(
            warnings.contains("atlas.credentials.a.client_secret_file") && warnings.contains(doubt),
            "{warnings}"
        );
        assert!(!warnings.contains("canary"), "{warnings}");
    }

    let hook = "[[webhooks]]\nname = \"chat\"\nurl = \"https://chat.example/x\"\nformat = \"slack\"\n";
    for (text, warned) in
        [(hook.to_owned(), true), (format!("{hook}proxy = \"http://u:canary@proxy.example:3128\"\n"), false)]
    {
        let file = Some(folder.write("proxied.toml", &text, 0o600));
        let env = pairs(&[("HTTPS_PROXY", "http://u:canary@proxy.example:3128")]);
        let loaded = Config::load(&Sources { file, env, ..Sources::default() }).unwrap();
        let said = loaded.warnings.join("\n");
        assert_eq!(
            said.contains("webhooks.chat is called without the proxy that HTTPS_PROXY names"),
            warned,
            "{said}"
        );
        assert!(!format!("{said}{:?}", loaded.entries).contains("canary"));
    }
    let told = folder.load(&format!("{hook}proxy = \"socks5://x\"\n")).unwrap_err().to_string();
    assert!(told.contains("webhooks.chat.proxy"), "{told}");

    let mails = folder.load("[mail]\nsmtp_url = \"smtps://mail.example\"\n").unwrap().warnings.join("\n");
    assert!(mails.contains("server.public_url") && mails.contains("open on this machine only"), "{mails}");
    let port = folder.load("[server]\nlisten = \"127.0.0.1:9000\"\n").unwrap().warnings.join("\n");
    assert!(port.contains("another port"), "{port}");
}

#[test]
fn an_address_at_which_pages_or_passkeys_do_not_work_is_refused() {
    let folder = ConfigFolder::new();
    let refused = |text: &str| folder.load(text).unwrap_err().to_string();
    let path = refused("[server]\npublic_url = \"https://ops.example.com/keywheel/\"\n");
    assert!(path.contains("takes an address without a path"), "{path}");
    folder.load("[server]\npublic_url = \"https://keywheel.example.com/\"\n").unwrap();
    for (url, why) in [
        ("http://127.0.0.1:8440", "the host of server.public_url is an IP address"),
        ("http://keywheel.example.com", "over HTTPS only"),
    ] {
        let text = format!("[server]\npublic_url = \"{url}\"\n[policy]\napproval_method = \"passkey\"\n");
        let said = refused(&text);
        assert!(said.contains("policy.approval_method") && said.contains(why), "{said}");
    }
    folder.load("[policy]\napproval_method = \"passkey\"\n").unwrap();
}

#[test]
fn values_below_the_safe_minimum_are_warned_of_with_the_production_value() {
    let folder = ConfigFolder::new();
    let loaded = folder
        .load("[verify]\nreadings = 1\nevery = \"200ms\"\nfalse_grace = \"1s\"\ntimeout = \"10s\"\nguard = \"20s\"\n[pace]\nbackoff_min = \"10ms\"\n")
        .unwrap();
    let all = loaded.warnings.join("\n");
    for wanted in [
        "verify.readings = 1 is below the safe minimum; production value 3",
        "verify.every = 200ms is below the safe minimum; production value 15s",
        "production value 1m",
        "production value 10m",
        "production value 13m",
        "pace is changed",
    ] {
        assert!(all.contains(wanted), "{wanted:?} not in:\n{all}");
    }
    assert!(folder.load("[verify]\nguard = \"16m\"\n").unwrap().warnings[0].contains("15-minute"));
}

#[test]
fn an_api_key_is_a_credential_and_what_it_lacks_is_named() {
    let folder = ConfigFolder::new();
    let text = |more: &str| format!("[atlas.credentials.old]\nkind = \"api-key\"\n{more}\n");
    let secret = folder.write("private", "canary\n", 0o600);
    for private in ["private_key = \"canary\"".to_owned(), format!("private_key_file = {secret:?}")] {
        let loaded = folder.load(&text(&format!("public_key = \"abcdefgh\"\n{private}"))).unwrap();
        let Credential::ApiKey { public_key, private_key } = &loaded.config.atlas.credentials["old"] else {
            panic!("another kind")
        };
        assert_eq!((public_key.as_str(), private_key.expose()), ("abcdefgh", "canary"));
        for shown in [format!("{loaded:?}"), loaded.to_text(), loaded.to_json().to_string()] {
            assert!(shown.contains("abcdefgh") && !shown.contains("canary"), "{shown}");
        }
    }
    let none = folder.faults(&text(""));
    assert_eq!(
        none,
        [
            "atlas.credentials.old: public_key is missing",
            "atlas.credentials.old: private_key or private_key_file is missing"
        ]
    );
    let mixed =
        folder.faults(&text("public_key = \"abcdefgh\"\nprivate_key = \"canary\"\nclient_id = \"id\""));
    assert!(mixed.len() == 1 && mixed[0].contains("client_id"), "{mixed:?}");
    let unknown = folder
        .faults("[atlas.credentials.old]\nkind = \"apikey\"\npublic_key = \"a\"\nprivate_key = \"canary\"\n");
    assert!(unknown.len() == 1 && unknown[0].contains("\"service-account\" or \"api-key\""), "{unknown:?}");
    assert!(!mixed[0].contains("canary") && !unknown[0].contains("canary"));
}

#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
#[test]
fn a_look_up_is_read_by_its_kind_and_shows_no_secret() {
    let folder = ConfigFolder::new();
    let account = folder.write("account.json", "{\"private_key\": \"canary\"}\n", 0o600);
    let text = format!(
        "[kms.a]\nkind = \"aws\"\nregion = \"eu-west-1\"\naccess_key_id = \"AKIA\"\nsecret_access_key = \"canary\"\nendpoint = \"http://127.0.0.1:1/kms/aws/\"\n\
         [kms.b]\nkind = \"azure\"\ntenant_id = \"t\"\nclient_id = \"c\"\nclient_secret = \"canary\"\ntimeout = \"3s\"\n\
         [kms.c]\nkind = \"gcp\"\nservice_account_file = {account:?}\nfollow = \"newest\"\n\
         [kms.d]\nkind = \"aws\"\n"
    );
    let loaded = folder.load(&text).unwrap();
    let kms = &loaded.config.kms;
    assert_eq!(kms["a"].endpoint.as_ref().map(Url::as_str), Some("http://127.0.0.1:1/kms/aws"));
    assert!(
        matches!(&kms["a"].login, Login::Aws { keys: Some((id, secret)), .. } if id == "AKIA" && secret.expose() == "canary")
    );
    assert!(matches!(&kms["b"].login, Login::Azure { tenant_id: Some(tenant), .. } if tenant == "t"));
    assert_eq!((kms["b"].timeout, kms["d"].timeout), (Span::from_secs(3), Span::from_secs(10)));
    assert!(
        matches!(&kms["c"].login, Login::Gcp { service_account: Some(key), follow: Follow::Newest } if key.expose().contains("canary"))
    );
    assert!(matches!(&kms["d"].login, Login::Aws { keys: None, profile: None, region: None }));
    for shown in [format!("{loaded:?}"), loaded.to_text(), loaded.to_json().to_string()] {
        assert!(shown.contains("AKIA") && !shown.contains("canary"), "{shown}");
    }
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
#[test]
fn what_a_look_up_lacks_or_has_too_much_of_is_named() {
    let folder = ConfigFolder::new();
    for (section, wanted) in [
        ("", "kind is missing"),
        ("kind = \"vault\"\nregion = \"r\"\nclient_id = \"c\"", "takes \"aws\", \"azure\" or \"gcp\""),
        ("kind = \"aws\"\naccess_key_id = \"A\"", "access_key_id needs secret_access_key"),
        ("kind = \"aws\"\nsecret_access_key = \"canary\"", "secret_access_key needs access_key_id"),
        (
            "kind = \"aws\"\naccess_key_id = \"A\"\nsecret_access_key = \"canary\"\nprofile = \"p\"",
            "keep one",
        ),
        ("kind = \"aws\"\ntenant_id = \"t\"", "kms.x.tenant_id ("),
        ("kind = \"azure\"\nclient_secret = \"canary\"\nclient_id = \"c\"", "client_secret needs tenant_id"),
        (
            "kind = \"azure\"\ntenant_id = \"t\"\nfederated_token_file = \"/t\"",
            "federated_token_file needs client_id",
        ),
        ("kind = \"azure\"\nclient_secret = \"canary\"\nfederated_token_file = \"/t\"", "keep one"),
        ("kind = \"gcp\"\nfollow = \"oldest\"", "kms.x.follow ("),
        ("kind = \"gcp\"\nservice_account_file = \"/nowhere\"", "/nowhere cannot be read"),
        ("kind = \"gcp\"\nendpoint = \"ftp://x\"", "kms.x.endpoint ("),
        ("kind = \"gcp\"\ntimeout = \"1m\"", "must be less than 55s"),
    ] {
        let faults = folder.faults(&format!("[kms.x]\n{section}\n"));
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{section}: {faults:?}");
        assert!(!faults[0].contains("canary"), "{faults:?}");
    }
    assert!(folder.faults("[kms.X]\nkind = \"aws\"\n")[0].contains("lower-case"));
    let plain = "[kms.x]\nkind = \"azure\"\nendpoint = \"http://vaults.example\"\nauthority = \"http://login.example\"\n";
    let warnings = folder.load(plain).unwrap().warnings;
    assert!(warnings.len() == 2 && warnings.iter().all(|it| it.contains("plain http")), "{warnings:?}");
}

#[cfg(not(feature = "azure"))]
#[test]
fn a_look_up_that_is_not_built_in_is_told_so() {
    let faults = ConfigFolder::new().faults("[kms.x]\nkind = \"azure\"\n");
    assert!(faults.len() == 1 && faults[0].contains("build it with the feature \"azure\""), "{faults:?}");
}

#[test]
fn a_database_in_memory_and_an_endless_socket_path_are_refused() {
    let folder = ConfigFolder::new();
    assert!(folder.faults("[database]\nurl = \"sqlite::memory:\"\n")[0].contains("would lose a rotation"));
    let long = format!("data_dir = \"/{}\"\n", "d".repeat(120));
    assert!(folder.faults(&long)[0].starts_with("server.socket"), "{:?}", folder.faults(&long));
    let absolute =
        folder.load("[database]\nurl = \"sqlite:/srv/kw.db\"\n[server]\nsocket = \"\"\n").unwrap().config;
    assert_eq!(absolute.database.url.expose(), "sqlite:/srv/kw.db");
    assert_eq!(absolute.server.socket, None);
    let odd = folder.load("data_dir = \"/srv/100%?\"\n").unwrap().config;
    assert_eq!(odd.database.url.expose(), "sqlite:/srv/100%?/keywheel.db");
}

#[test]
fn no_secret_is_in_debug_or_in_what_is_shown() {
    let loaded = ConfigFolder::new()
        .load(
            "[database]\nurl = \"postgres://kw:canary1@db/kw\"\n[mail]\nsmtp_url = \"smtps://kw:canary2@mail\"\n[atlas.credentials.default]\nkind = \"service-account\"\nclient_id = \"id\"\nclient_secret = \"canary3\"\n",
        )
        .unwrap();
    for shown in [format!("{loaded:?}"), loaded.to_text(), loaded.to_json().to_string()] {
        assert!(!shown.contains("canary"), "{shown}");
        assert!(
            shown.contains("postgres://kw:***@db/kw") && shown.contains("smtps://kw:***@mail"),
            "{shown}"
        );
    }
    assert_eq!(loaded.to_json()["atlas.credentials.default.client_secret"]["value"], "***");
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_its_name() {
    let sources = Sources { file: Some("/nowhere/k.toml".into()), ..Sources::default() };
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(error.starts_with("the configuration file /nowhere/k.toml cannot be read: "), "{error}");
}

const SIGNED: &str = "secret = \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"\n";

#[test]
fn a_webhook_is_read_with_its_defaults_and_shows_no_secret() {
    let folder = ConfigFolder::new();
    let url = folder.write("url", "https://hooks.example/canary1?k=canary2\n", 0o600);
    let old = folder.write("old", "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5\n", 0o600);
    let loaded = folder
        .load(&format!(
            "[[webhooks]]\nname = \"ops\"\nurl_file = {url:?}\n{SIGNED}previous_secret_file = {old:?}\ntoken = \"canary3\"\ntypes = [\"completed\", \"io.keywheel.drifted.v1\"]\n\n[[webhooks]]\nname = \"chat\"\nurl = \"http://10.0.0.1/canary4\"\nformat = \"slack\"\nallow_private = true\n"
        ))
        .unwrap();
    assert_eq!(unwise(&loaded), Vec::<&String>::new());
    let [chat, ops] = &loaded.config.webhooks[..] else { panic!("{:?}", loaded.config.webhooks) };
    assert_eq!((ops.name.as_str(), ops.format, ops.allow_private), ("ops", Format::CloudEvents, false));
    assert_eq!((ops.url.expose(), ops.keys.len()), ("https://hooks.example/canary1?k=canary2", 2));
    assert_eq!(ops.kinds, [Kind::Completed, Kind::Drifted]);
    assert_eq!((chat.format, chat.keys.len(), chat.kinds.len()), (Format::Slack, 0, 0));
    for shown in [format!("{loaded:?}"), loaded.to_text(), loaded.to_json().to_string()] {
        assert!(
            !shown.contains("canary") && !shown.contains("C2FVsBQI") && !shown.contains("Y2FuYXJ5"),
            "{shown}"
        );
        assert!(!shown.contains("10.0.0.1") && !shown.contains("hooks.example"), "{shown}");
    }
    let env = pairs(&[("KEYWHEEL_WEBHOOKS__CHAT__URL", "https://1.1.1.1/x")]);
    let file = folder.write("k2.toml", "[[webhooks]]\nname = \"chat\"\nformat = \"teams\"\n", 0o600);
    let loaded = Config::load(&Sources { file: Some(file), env, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.webhooks[0].url.expose(), "https://1.1.1.1/x");
}

#[test]
fn what_is_wrong_with_a_webhook_is_named_without_its_secrets() {
    let folder = ConfigFolder::new();
    let of = |more: &str| {
        let text = format!("[[webhooks]]\nname = \"ops\"\n{more}");
        let faults = folder.faults(&text).join("\n");
        assert!(!faults.contains("canary") && !faults.contains("Y2FuYXJ5"), "{faults}");
        faults
    };
    let url = "url = \"https://hooks.example/canary\"\n";
    for (more, wanted) in [
        (SIGNED.to_owned(), "webhooks.ops: url or url_file is missing"),
        (url.to_owned(), "webhooks.ops: secret or secret_file is missing"),
        (format!("{url}secret = \"\"\n"), "webhooks.ops.secret (k.toml:4): the secret is empty"),
        (format!("{url}secret = \"whsec_\"\n"), "webhooks.ops.secret"),
        (format!("{url}secret = \"whsec_Y2FuYXJ5Y2FuYXJ5\"\n"), "at least 24 random bytes"),
        (format!("{url}secret = \"canary?\"\n"), "webhooks.ops.secret"),
        (format!("{url}{SIGNED}previous_secret = \"whsec_Y2FuYXJ5\"\n"), "webhooks.ops.previous_secret"),
        (
            format!("{url}{SIGNED}format = \"xml\"\n"),
            "\"teams\", \"pagerduty\", \"opsgenie\" or \"alertmanager\"",
        ),
        (
            format!("{url}{SIGNED}types = [\"complete\"]\n"),
            "there is no type \"complete\"; there are approval_requested, auto_approved",
        ),
        (format!("{url}{SIGNED}ca_file = \"/nowhere.pem\"\n"), "that file does not exist"),
        (format!("{url}{SIGNED}tokn = \"canary\"\n"), "did you mean webhooks.ops.token?"),
        (format!("url = \"http://hooks.example/canary\"\n{SIGNED}"), "only with allow_private = true"),
        (format!("url = \"https://canary@hooks.example/\"\n{SIGNED}"), "without a user"),
        (format!("url = \"https://hooks.example/#canary\"\n{SIGNED}"), "webhooks.ops.url"),
        (format!("url = \"ftp://hooks.example/canary\"\nallow_private = true\n{SIGNED}"), "webhooks.ops.url"),
        (format!("url = \"https://127.1/canary\"\n{SIGNED}"), "names a loopback address"),
        (format!("url = \"https://[::ffff:10.0.0.1]/canary\"\n{SIGNED}"), "only public addresses are called"),
        (format!("url = \"https://0xa9fea9fe/canary\"\n{SIGNED}"), "names a link-local address"),
    ] {
        let faults = of(&more);
        let all = faults.replace(&format!("{}/", folder.0.path().display()), "");
        assert!(all.contains(wanted) && all.lines().count() == 1, "{more}\n{wanted:?} not alone in:\n{all}");
    }
    let twice = format!("[[webhooks]]\nname = \"a\"\n{url}{SIGNED}[[webhooks]]\nname = \"a\"\n{url}{SIGNED}");
    assert!(folder.faults(&twice)[0].contains("two webhooks named \"a\""), "{:?}", folder.faults(&twice));
    let nameless = folder.faults(&format!("[[webhooks]]\n{url}{SIGNED}"));
    assert!(nameless.len() == 1 && nameless[0].starts_with("webhooks.0: name is missing"), "{nameless:?}");
}

#[test]
fn a_target_for_incidents_is_read_and_shows_no_secret() {
    let folder = ConfigFolder::new();
    let key = folder.write("key", "canary-key\n", 0o600);
    let loaded = folder
        .load(&format!(
            "[[webhooks]]\nname = \"a\"\nformat = \"pagerduty\"\nrouting_key = \"canary-route\"\ntypes = [\"needs_operator\", \"held_over\"]\n\n[[webhooks]]\nname = \"b\"\nformat = \"opsgenie\"\napi_key_file = {key:?}\n\n[[webhooks]]\nname = \"c\"\nformat = \"alertmanager\"\nurl = \"http://10.0.0.1:9093/canary/api/v2/alerts\"\ntoken = \"canary-token\"\nallow_private = true\n"
        ))
        .unwrap();
    assert_eq!(unwise(&loaded), Vec::<&String>::new());
    let [a, b, c] = &loaded.config.webhooks[..] else { panic!("{:?}", loaded.config.webhooks) };
    assert_eq!(a.url.expose(), "https://events.pagerduty.com/v2/enqueue");
    assert_eq!(b.url.expose(), "https://api.opsgenie.com/v2/alerts");
    assert_eq!(a.service_key.as_ref().unwrap().expose(), "canary-route");
    assert_eq!(b.service_key.as_ref().unwrap().expose(), "canary-key");
    assert!(c.service_key.is_none() && c.token.is_some());
    // A start comes with its end, and an end with its start.
    assert_eq!(a.kinds, [Kind::NeedsOperator, Kind::Held, Kind::NeedsOperatorOver, Kind::HeldOver]);
    for shown in [format!("{loaded:?}"), loaded.to_text(), loaded.to_json().to_string()] {
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn what_is_wrong_with_a_target_for_incidents_is_named_with_the_way_out() {
    let folder = ConfigFolder::new();
    for (more, wanted) in [
        (
            "format = \"pagerduty\"\n",
            "webhooks.ops: routing_key or routing_key_file is missing: PagerDuty shows it",
        ),
        ("format = \"opsgenie\"\n", "webhooks.ops: api_key or api_key_file is missing: Opsgenie shows it"),
        ("format = \"alertmanager\"\n", "such as https://alertmanager.example/api/v2/alerts"),
        (
            "format = \"pagerduty\"\nrouting_key = \"\"\n",
            "webhooks.ops.routing_key (k.toml:4): the secret is empty",
        ),
        (
            "format = \"pagerduty\"\nrouting_key = \"canary\"\nurl = \"https://events.eu.pagerduty.com/canary\"\n",
            "webhooks.ops.url (k.toml:5): the path of its URL must end in /v2/enqueue",
        ),
        (
            "format = \"alertmanager\"\nurl = \"https://am.example\"\n",
            "the path of its URL must end in /api/v2/alerts",
        ),
        (
            "format = \"opsgenie\"\napi_key = \"canary\"\ntoken = \"canary\"\n",
            "webhooks.ops.token (k.toml:5): this format is sent with api_key and no token; remove it",
        ),
        (
            "format = \"pagerduty\"\nrouting_key = \"canary\"\ntypes = [\"completed\"]\n",
            "\"completed\" has no end, so nothing would close its incident; send it to a target of another format",
        ),
        (
            "format = \"teams\"\nurl = \"https://hooks.example/canary\"\nrouting_key = \"canary\"\n",
            "webhooks.ops.routing_key",
        ),
        (
            "format = \"pager\"\nrouting_key = \"canary\"\nurl = \"https://hooks.example/canary\"\n",
            "takes \"cloudevents\"",
        ),
    ] {
        let faults = folder.faults(&format!("[[webhooks]]\nname = \"ops\"\n{more}")).join("\n");
        let all = faults.replace(&format!("{}/", folder.0.path().display()), "");
        assert!(all.contains(wanted) && all.lines().count() == 1, "{more}\n{wanted:?} not alone in:\n{all}");
        assert!(!all.contains("canary"), "{all}");
    }
}

#[test]
fn a_hook_of_each_kind_is_read_and_its_secrets_are_masked() {
    let folder = ConfigFolder::new();
    let loaded = folder
        .load(
            r#"
            [[hooks]]
            name = "atlas"
            kind = "atlas"
            secret = "canary-canary-canary"
            previous_secret = "canary-canary-before"
            encoding = "hex"
            [[hooks]]
            name = "grid"
            kind = "azure-event-grid"
            token = "canary-canary-canary"
            entra = { tenant_id = "t", audience = "a" }
            [[hooks]]
            name = "bus"
            kind = "aws-eventbridge"
            basic = { user = "kw", password = "canary-canary-canary" }
            [[hooks]]
            name = "sns"
            kind = "aws-sns"
            topics = ["arn:aws:sns:us-west-2:111122223333:kms-events"]
            [[hooks]]
            name = "gcp"
            kind = "gcp-pubsub"
            audience = "https://kw.example/hooks/gcp"
            email = "push@p.iam.gserviceaccount.com"
            [[hooks]]
            name = "ci"
            kind = "cloudevents"
            token = "canary-canary-canary"
            [[hooks]]
            name = "signed"
            kind = "standard"
            secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
            [policy]
            auto_approve = ["hook:grid"]
            "#,
        )
        .unwrap();
    let kinds: Vec<_> =
        loaded.config.hooks.iter().map(|hook| (hook.name.as_str(), hook.sender.kind())).collect();
    assert_eq!(
        kinds,
        [
            ("atlas", "atlas"),
            ("bus", "aws-eventbridge"),
            ("ci", "cloudevents"),
            ("gcp", "gcp-pubsub"),
            ("grid", "azure-event-grid"),
            ("signed", "standard"),
            ("sns", "aws-sns"),
        ]
    );
    let hooks::Sender::AzureEventGrid { entra: Some(entra), allowed_origins, .. } =
        &loaded.config.hooks[4].sender
    else {
        panic!("{:?}", loaded.config.hooks[4])
    };
    assert_eq!(entra.jwks_url, "https://login.microsoftonline.com/t/discovery/v2.0/keys");
    assert_eq!(entra.app_id, "4962773b-9cdb-44cf-a8bf-237846a00ab7");
    assert_eq!(allowed_origins, &["eventgrid.azure.net"]);
    for shown in [loaded.to_text(), loaded.to_json().to_string(), format!("{:?}", loaded.config)] {
        assert!(!shown.contains("canary") && !shown.contains("C2FVsBQI"), "{shown}");
    }
    let env = Sources {
        env: pairs(&[
            ("KEYWHEEL_HOOKS__CI__KIND", "cloudevents"),
            ("KEYWHEEL_HOOKS__CI__TOKEN", "canary-canary-canary"),
        ]),
        ..Sources::default()
    };
    assert_eq!(Config::load(&env).unwrap().config.hooks[0].name, "ci");
}

#[test]
fn a_hook_without_a_proof_is_refused_and_says_what_is_missing() {
    for (text, wanted) in [
        (
            "name = \"a\"\nkind = \"atlas\"",
            "hooks.a: secret or secret_file is missing: without it any client could send",
        ),
        ("name = \"a\"\nkind = \"atlas\"\nsecret = \"\"", "hooks.a.secret"),
        (
            "name = \"a\"\nkind = \"atlas\"\nsecret = \"xxxxxxxxxxxxxxxx\"\nencoding = \"utf8\"",
            "takes \"base64\" or \"hex\"",
        ),
        ("name = \"a\"\nkind = \"azure-event-grid\"", "entra = { tenant_id, audience }, is missing"),
        (
            "name = \"a\"\nkind = \"azure-event-grid\"\nentra = { tenant_id = \"t\" }",
            "hooks.a.entra: audience is missing",
        ),
        (
            "name = \"a\"\nkind = \"azure-event-grid\"\ntoken = \"xxxxxxxxxxxxxxxx\"\nallowed_origins = [\"*\"]",
            "would let any sender subscribe",
        ),
        ("name = \"a\"\nkind = \"aws-eventbridge\"", "basic = { user, password }, is missing"),
        ("name = \"a\"\nkind = \"aws-sns\"", "topics is missing"),
        ("name = \"a\"\nkind = \"aws-sns\"\ntopics = [\"kms-events\"]", "is no ARN of a topic"),
        ("name = \"a\"\nkind = \"gcp-pubsub\"\naudience = \"x\"", "email is missing"),
        (
            "name = \"a\"\nkind = \"gcp-pubsub\"\naudience = \"x\"\nemail = \"e\"\njwks_url = \"http://keys.example\"",
            "takes https",
        ),
        ("name = \"a\"\nkind = \"cloudevents\"", "token or token_file is missing"),
        ("name = \"a\"\nkind = \"standard\"\nsecret = \"whsec_\"", "at least 24 random bytes"),
        ("name = \"a\"\nkind = \"standard\"\nsecret = \"whsec_!\"", "as Standard Webhooks write it"),
        ("name = \"a\"\nkind = \"gitlab\"", "takes atlas, azure-event-grid, aws-eventbridge"),
        ("name = \"a\"", "kind is missing"),
        (
            "name = \"A b\"\nkind = \"cloudevents\"\ntoken = \"xxxxxxxxxxxxxxxx\"",
            "it is part of the hook's address",
        ),
        ("kind = \"cloudevents\"\ntoken = \"xxxxxxxxxxxxxxxx\"", "it is part of the hook's address"),
        ("name = \"a\"\nkind = \"cloudevents\"\ntoken = \"xxxxxxxxxxxxxxxx\"\ntopics = []", "hooks.a.topics"),
        (
            "name = \"a\"\nkind = \"cloudevents\"\ntoken = \"xxxxxxxxxxxxxxxx\"\n[[hooks]]\nname = \"a\"\nkind = \"cloudevents\"\ntoken = \"xxxxxxxxxxxxxxxx\"",
            "there are two hooks named \"a\"",
        ),
    ] {
        let faults = ConfigFolder::new().faults(&format!("[[hooks]]\n{text}\n")).join("\n");
        assert!(faults.contains(wanted), "{text}\n{wanted:?} not in:\n{faults}");
    }
    let faults = ConfigFolder::new().faults("[policy]\nauto_approve = [\"hook:nobody\"]\n").join("\n");
    assert!(faults.contains("\"hook:nobody\" proposes nothing"), "{faults}");
    for (text, setting) in [
        ("kind = \"cloudevents\"\ntoken = \"fifteen-letters\"", "token"),
        ("kind = \"cloudevents\"\ntoken = \"sixteen--letters\"\nprevious_token = \"short\"", "token"),
        ("kind = \"atlas\"\nsecret = \"short\"", "secret"),
        ("kind = \"azure-event-grid\"\ntoken = \"short\"", "token"),
        ("kind = \"aws-eventbridge\"\ntoken = \"short\"", "token"),
        ("kind = \"aws-eventbridge\"\nbasic = { user = \"u\", password = \"short\" }", "basic.password"),
    ] {
        let weak = ConfigFolder::new().load(&format!("[[hooks]]\nname = \"a\"\n{text}\n")).unwrap();
        let [told] = weak.unkept.as_slice() else { panic!("{text}: {:?}", weak.unkept) };
        assert!(
            told.starts_with(&format!("hooks.a.{setting}, or the previous one, has fewer than 16")),
            "{told}"
        );
        assert_eq!(weak.config.hooks[0].stopped.as_ref(), Some(told));
    }
    let strong = "[[hooks]]\nname = \"a\"\nkind = \"cloudevents\"\ntoken = \"sixteen--letters\"\n";
    let strong = ConfigFolder::new().load(strong).unwrap();
    assert!(strong.unkept.is_empty() && strong.config.hooks[0].stopped.is_none());
}

#[test]
fn an_old_name_of_a_setting_is_taken_with_a_warning_and_refused_beside_the_new_one() {
    let folder = ConfigFolder::new();
    for (old, new, value) in [
        ("[sweep]\ndiscover_every = \"1h\"", "poll_every = \"2h\"", "sweep.poll_every"),
        ("[pace]\nwatch_every = \"1h\"", "[sweep]\nwatch_every = \"2h\"", "sweep.watch_every"),
        ("[pace]\nwatch_for = \"1h\"", "[sweep]\nwatch_for = \"2h\"", "sweep.watch_for"),
        ("[retention]\nmails = \"1d\"", "messages = \"2d\"", "retention.messages"),
        ("[retention]\nlooks = \"1d\"", "observations = \"2d\"", "retention.observations"),
    ] {
        let loaded = folder.load(old).unwrap();
        let warned = loaded.warnings.iter().any(|it| it.contains(&format!("is called {value} now")));
        assert!(warned, "{:?}", loaded.warnings);
        let entry = loaded.entries.iter().find(|it| it.path == value).unwrap();
        assert!(matches!(entry.value.as_str(), Some("1h" | "1d")), "{entry:?}");
        let faults = folder.faults(&format!("{old}\n{new}\n"));
        assert!(faults.len() == 1 && faults[0].contains(&format!("is {value} now")), "{faults:?}");
    }
}

/// What a beat is called does not depend on the minute in which the configuration is read.
#[test]
fn a_beat_is_judged_alike_in_every_minute() {
    let start: crate::domain::time::Timestamp = "2026-11-29T21:00:00.5Z".parse().unwrap();
    for (text, often) in [
        ("*/15 * * * * *", true),
        ("* * * * * *", true),
        ("*/15 1 * * * *", false),
        ("*/15 1-58 * * * *", false),
        ("*/15 0 * * * *", false),
        ("*/15 * 8-23 * * *", false),
        ("*/16 * * * * *", false),
    ] {
        let cron = CronParser::builder().seconds(Seconds::Required).build().parse(text).unwrap();
        for second in (0..3600).step_by(7) {
            let now = start + Duration::from_secs(second);
            assert_eq!(check::beats_often(text, &cron, now), often, "{text} at {now}");
        }
    }
}

/// What breaks the promise of two minutes is told with the bound that the daemon uses.
#[test]
fn settings_that_break_the_promise_are_named_with_the_way_out() {
    let folder = ConfigFolder::new();
    for (text, wanted) in [
        ("drift_every = \"91s\"", Some("sweep.drift_every is 1m31s")),
        ("drift_every = \"15m\"", Some("takes 1m30s or less beside sweep.confirm_after = 10s")),
        ("drift_every = \"61s\"\nconfirm_after = \"40s\"", Some("takes 1m or less")),
        ("drift_every = \"60s\"\nconfirm_after = \"40s\"", None),
        ("cron = \"0 */5 * * * *\"", Some("sweep.cron is \"0 */5 * * * *\"")),
        ("cron = \"*/16 * * * * *\"", Some("a beat each 15 seconds")),
        ("cron = \"*/15 * 8-18 * * *\"", Some("production value \"*/15 * * * * *\"")),
        ("cron = \"*/15 1 * * * *\"", Some("sweep.cron")),
        ("cron = \"0,15,30,45 * * * * *\"", None),
        ("cron = \"*/7 * * * * *\"", None),
        ("cron = \"* * * * * *\"", None),
    ] {
        let loaded = folder.load(&format!("[sweep]\n{text}\n")).unwrap();
        match wanted {
            Some(wanted) => {
                assert!(
                    loaded.unkept.len() == 1 && loaded.unkept[0].contains(wanted),
                    "{text} {:?}",
                    loaded.unkept
                );
            }
            None => assert_eq!(loaded.unkept, Vec::<String>::new(), "{text}"),
        }
    }
    for (text, wanted) in [
        ("told_after = \"0s\"", "sweep.told_after"),
        ("drift_every = \"0s\"", "sweep.drift_every"),
        ("watch_every = \"0s\"", "sweep.watch_every"),
        ("confirm_after = \"0s\"", "sweep.confirm_after"),
    ] {
        let faults = folder.faults(&format!("[sweep]\n{text}\n")).join("\n");
        assert!(faults.contains(wanted) && faults.contains("more than 0"), "{faults}");
    }
}

#[test]
fn approvers_that_nobody_can_be_are_warned_of() {
    let folder = ConfigFolder::new();
    for (rules, warning) in [
        ("approvers = [\"group:payments\"]", "policy.approvers names group:payments"),
        ("approval_method = \"link\"", "policy.approvers names nobody who could vote by a link"),
    ] {
        let loaded = folder.load(&format!("[policy]\n{rules}\n")).unwrap();
        let found = unwise(&loaded);
        assert!(found.iter().any(|it| it.contains(warning)), "{rules}: {found:?}");
    }
    let faults = folder.faults("[policy]\napprovers = [\"ann@example.com\"]\n");
    assert!(faults.join("\n").contains("\"mail:ann@example.com\""), "{faults:?}");
}
