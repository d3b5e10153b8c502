//! Checks a configuration beyond the types of its values.
//!
//! Errors are contradictions and values that cannot work. Warnings are values that work and are unwise
//! in production; each names the production value. The rules follow from Atlas' behaviour (it re-checks
//! keys every 15 minutes, so a rotation must be decided before) and from the length of a lease. Network
//! and database are not touched.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::{Host, Url, form_urlencoded};

use super::access::open_to_others;
use super::reader::Reader;
use super::{
    Atlas, Config, Credential, Database, Heartbeat, LONGEST_BEAT, Mail, PlainHttp, RawConfig, RawCredential,
    Server, Sweep, below, oidc, tls,
};
use crate::domain::address::is_loopback;
use crate::domain::approver::{Named, Strength};
use crate::domain::condition::Daily;
use crate::domain::policy::{Pace, Policy, Verify};
use crate::domain::role::Role;
use crate::domain::text::did_you_mean;
use crate::domain::time::{Span, Timestamp};
use crate::passkey::Site;
use crate::secret::{Secret, SecretUrl};

/// A lease lasts 60 s, and 5 s of it are kept for storing the result of a request.
pub(super) const LONGEST_REQUEST: Span = Span::from_secs(55);
/// How often Atlas re-checks a key before it shuts clusters down.
const ATLAS_CYCLE: Span = Span::from_secs(15 * 60);
/// The longest path of a Unix socket that every system accepts (`sun_path`, macOS).
const LONGEST_SOCKET: usize = 103;

/// The configuration, or `None` when an error keeps it from being built.
pub(super) fn check(mut raw: RawConfig, r: &mut Reader, now: Timestamp) -> Option<Config> {
    if raw.data_dir.as_os_str().is_empty() {
        r.fault("data_dir", "a directory is needed, such as \"keywheel-data\"");
    }
    check_policy(&raw.policy, &raw.public_url, r, now);
    check_verify(&raw.verify, r);
    check_pace(&raw.pace, r);
    check_groups(&raw, r);
    check_auto_approve(&raw, r);
    check_delays(&raw, r);
    check_sweep(&raw.sweep, r, now);
    let heartbeat = check_heartbeat(&raw, r);
    let mail = check_mail(&raw, r);
    if !is_log_level(&raw.log.level) {
        r.fault(
            "log.level",
            "takes error, warn, info, debug, trace, or directives such as \"info,keywheel::engine=debug\"",
        );
    }
    if let Some(endpoint) = &raw.log.otlp_endpoint {
        check_web_url("log.otlp_endpoint", endpoint, r);
    }
    let server = check_server(&raw, r, now);
    let url = check_database(raw.database_url.as_ref(), &raw.data_dir, r);
    check_database_files(url.as_ref(), r);
    let atlas = check_atlas(&raw, r);
    let kms = raw.kms.iter().filter_map(|(name, one)| Some((name.clone(), one.check(name, r)?))).collect();
    let oidc = oidc::check(std::mem::take(&mut raw.oidc), r);
    Some(Config {
        server: server?,
        database: Database { url: url?, migrate: raw.migrate },
        atlas: atlas?,
        oidc,
        kms,
        data_dir: raw.data_dir,
        policy: raw.policy,
        loosen_after: raw.loosen_after,
        settle_in: Some(raw.settle_in),
        verify: raw.verify,
        pace: raw.pace,
        sweep: raw.sweep,
        heartbeat,
        mail: mail?,
        hooks: raw.hooks,
        webhooks: raw.webhooks,
        retention: raw.retention,
        log: raw.log,
    })
}

/// A bare word must be a level: the filter would take "infoo" for the name of a module.
fn is_log_level(text: &str) -> bool {
    let word = text.split(',').all(|part| part.contains('=') || part.parse::<LevelFilter>().is_ok());
    word && EnvFilter::try_new(text).is_ok()
}

fn check_policy(policy: &Policy, public_url: &str, r: &mut Reader, now: Timestamp) {
    for (field, rule) in policy.faults(now) {
        r.fault(&format!("policy.{field}"), &rule);
    }
    if policy.self_approval {
        r.warnings.push(
            "policy.self_approval is on: one person can rotate alone; production value false".to_owned(),
        );
    }
    if policy.approval_method == Strength::Passkey
        && let Err(why) = Site::of(public_url)
    {
        r.fault("policy.approval_method", &format!("with \"passkey\" nobody could approve: {why}"));
    }
    if policy.approval_method == Strength::Link && policy.approvers.is_empty() {
        r.warnings.push(
            "policy.approval_method is \"link\", and policy.approvers names nobody who could vote by a link"
                .to_owned(),
        );
    }
}

/// Without a provider nobody has a group.
fn check_groups(raw: &RawConfig, r: &mut Reader) {
    let named = raw.policy.approvers.iter().find(|it| matches!(it.who, Named::Group(_)));
    if let Some(named) = named.filter(|_| raw.oidc.is_empty()) {
        r.warnings.push(format!(
            "policy.approvers names {named}, and without an identity provider nobody has a group; add [oidc.NAME]"
        ));
    }
}

fn check_socket_role(raw: &RawConfig, r: &mut Reader) -> Option<Role> {
    let role = raw.socket_role.parse().ok();
    let role = role.filter(|role| matches!(role, Role::Admin | Role::Operator | Role::Viewer));
    if role.is_none() {
        r.fault("server.socket_role", "takes \"admin\", \"operator\" or \"viewer\"");
    }
    role
}

fn check_delays(raw: &RawConfig, r: &mut Reader) {
    let day = Span::from_days(1);
    if raw.loosen_after < day {
        r.warnings.push(low("policy.loosen_after", &raw.loosen_after.to_string(), &day.to_string()));
    }
}

fn check_auto_approve(raw: &RawConfig, r: &mut Reader) {
    for named in &raw.policy.auto_approve {
        let known =
            named == "poll" || raw.hooks.iter().any(|hook| named.strip_prefix("hook:") == Some(&hook.name));
        if !known {
            let hooks = raw.hooks.iter().map(|hook| format!("hook:{}", hook.name));
            let known: Vec<String> = std::iter::once("poll".to_owned()).chain(hooks).collect();
            let near = did_you_mean(named, known.iter().map(String::as_str));
            r.fault("policy.auto_approve", &format!("{named:?} proposes nothing; {near}"));
        }
    }
    if !raw.policy.auto_approve.is_empty() && raw.kms.is_empty() {
        r.warnings.push(
            "policy.auto_approve has no effect without a lookup: only a key service can confirm a newer key; add [kms.NAME] and name it in the projects"
                .to_owned(),
        );
    }
}

fn check_verify(verify: &Verify, r: &mut Reader) {
    let normal = Verify::default();
    if verify.readings == 0 {
        r.fault("verify.readings", "at least one reading must verify a key; production value 3");
    }
    must_be_less(r, ("verify.timeout", verify.timeout), ("verify.guard", verify.guard));
    must_be_less(r, ("verify.every", verify.every), ("verify.timeout", verify.timeout));
    must_be_less(r, ("verify.false_grace", verify.false_grace), ("verify.timeout", verify.timeout));
    must_be_less(
        r,
        ("verify.deploy_poll", verify.deploy_poll),
        ("verify.deploy_timeout", verify.deploy_timeout),
    );
    must_be_less(
        r,
        ("verify.deploy_grace", verify.deploy_grace),
        ("verify.deploy_timeout", verify.deploy_timeout),
    );
    let needed = verify.every.get().saturating_mul(verify.readings.saturating_sub(1));
    if needed >= verify.timeout.get() {
        r.fault("verify.readings", "so many readings, verify.every apart, do not fit into verify.timeout: no key could ever be verified");
    }
    if verify.readings > 0 && verify.readings < normal.readings {
        let (own, normal) = (verify.readings.to_string(), normal.readings.to_string());
        r.warnings.push(low("verify.readings", &own, &normal));
    }
    for (path, own, normal) in [
        ("verify.every", verify.every, normal.every),
        ("verify.false_grace", verify.false_grace, normal.false_grace),
        ("verify.timeout", verify.timeout, normal.timeout),
        ("verify.guard", verify.guard, normal.guard),
        ("verify.private_network_hold", verify.private_network_hold, normal.private_network_hold),
        ("verify.deploy_poll", verify.deploy_poll, normal.deploy_poll),
        ("verify.deploy_grace", verify.deploy_grace, normal.deploy_grace),
        ("verify.deploy_timeout", verify.deploy_timeout, normal.deploy_timeout),
    ] {
        if own < normal {
            r.warnings.push(low(path, &own.to_string(), &normal.to_string()));
        }
    }
    if verify.guard >= ATLAS_CYCLE {
        r.warnings.push(format!(
            "verify.guard = {} is not below Atlas' 15-minute check, after which clusters with a bad key are shut down; production value {}",
            verify.guard, normal.guard
        ));
    }
}

fn low(path: &str, own: &str, normal: &str) -> String {
    format!("{path} = {own} is below the safe minimum; production value {normal}")
}

fn must_be_less(r: &mut Reader, small: (&str, Span), large: (&str, Span)) {
    if small.1 >= large.1 {
        r.fault(small.0, &format!("{} must be less than {} ({})", small.1, large.0, large.1));
    }
}

fn check_pace(pace: &Pace, r: &mut Reader) {
    if pace.backoff_min > pace.backoff_max {
        r.fault("pace.backoff_min", "must not be more than pace.backoff_max");
    }
    if pace.lease.get() < Duration::from_secs(1) {
        r.fault("pace.lease", "must be 1s or more: a call to Atlas has to fit into it");
    }
    if *pace != Pace::default() {
        r.warnings.push("pace is changed: the machine's waits are only for rehearsals and tests; leave the section out in production".to_owned());
    }
}

fn check_sweep(sweep: &Sweep, r: &mut Reader, now: Timestamp) {
    check_cron(&sweep.cron, r, now);
    if sweep.told_after.get().is_zero() {
        r.fault(
            "sweep.told_after",
            "must be more than 0, or each approved rotation would be told as held; production value 15m",
        );
    }
    for (path, span, normal) in [
        ("sweep.drift_every", sweep.drift_every, "90s"),
        ("sweep.watch_every", sweep.watch_every, "30s"),
        ("sweep.confirm_after", sweep.confirm_after, "10s"),
    ] {
        if span.get().is_zero() {
            r.fault(path, &format!("must be more than 0; production value {normal}"));
        }
    }
    let longest = sweep.longest_drift();
    if sweep.drift_every > longest {
        r.unkept.push(format!(
            "sweep.drift_every is {}: an unusable key must be told within two minutes, which takes {longest} or less beside \
             sweep.confirm_after = {}; production value 90s. The daemon uses {longest}",
            sweep.drift_every, sweep.confirm_after
        ));
    }
}

/// Whether `cron` has an occurrence in every [`LONGEST_BEAT`] of the hour that begins at `now`, its first and its last
/// seconds included. One that names hours or days has none at other ones.
pub(super) fn beats_often(text: &str, cron: &Cron, now: Timestamp) -> bool {
    let whole = text.split_whitespace().skip(2).all(|field| matches!(field, "*" | "?" | "*/1"));
    let end = now + Duration::from_hours(1);
    let mut last = now;
    for at in cron.iter_after(now.as_chrono()).map(Timestamp::from_chrono).take_while(|at| *at < end) {
        if last.until(at) > LONGEST_BEAT {
            return false;
        }
        last = at;
    }
    whole && last.until(end) <= LONGEST_BEAT
}

fn check_cron(cron: &str, r: &mut Reader, now: Timestamp) {
    let parsed = CronParser::builder().seconds(Seconds::Required).build().parse(cron);
    let wrong = match parsed {
        Err(error) => error.to_string(),
        Ok(parsed) => match parsed.find_next_occurrence(&now.as_chrono(), false) {
            Ok(_) => {
                if !beats_often(cron, &parsed, now) {
                    r.unkept.push(format!(
                        "sweep.cron is {cron:?}: an unusable key must be told within two minutes, which takes a beat each 15 \
                         seconds or more often; production value \"*/15 * * * * *\". The daemon sweeps every 15 s all the same"
                    ));
                }
                return;
            }
            Err(_) => "it matches no time".to_owned(),
        },
    };
    if !cron.is_empty() || r.is_clean() {
        r.fault(
            "sweep.cron",
            &format!("{wrong}; it takes six fields in UTC, seconds first, such as \"*/15 * * * * *\""),
        );
    }
}

fn check_heartbeat(raw: &RawConfig, r: &mut Reader) -> Option<Heartbeat> {
    let url = raw.heartbeat_url.clone()?;
    let is_web =
        Url::parse(url.expose()).is_ok_and(|it| matches!(it.scheme(), "http" | "https") && it.has_host());
    if !is_web {
        // The address is a secret, so it is not shown.
        r.fault("heartbeat.url", "takes the https address of a dead-man's switch");
        return None;
    }
    Some(Heartbeat { url, every: raw.heartbeat_every })
}

fn check_mail(raw: &RawConfig, r: &mut Reader) -> Option<Mail> {
    let sender = raw.mail_from.parse::<lettre::message::Mailbox>();
    if raw.mail_from.chars().any(char::is_control) || sender.is_err() {
        r.fault("mail.from", "takes an address such as \"Keywheel <keywheel@example.com>\"");
    }
    let helo = Some(raw.mail_helo.clone()).filter(|it| !it.is_empty());
    if let Some(name) = &helo {
        let is_host = matches!(Host::parse(name), Ok(Host::Domain(_))) && name.is_ascii();
        if !is_host || !name.trim_matches('.').contains('.') {
            r.fault("mail.helo", "takes a host name with a domain, such as keywheel.example.com");
        }
    }
    let per_minute = NonZeroU32::new(raw.mail_per_minute).filter(|it| it.get() <= 100_000);
    if per_minute.is_none() {
        r.fault("mail.per_minute", "takes 1 to 100000");
    }
    let ca_file = Some(PathBuf::from(&raw.mail_ca_file)).filter(|it| !it.as_os_str().is_empty());
    if ca_file.as_ref().is_some_and(|file| !file.is_file()) {
        r.fault("mail.ca_file", "takes a file with PEM certificates; that file does not exist");
    }
    let named = [("mail.operators", &raw.mail_operators), ("mail.security", &raw.mail_security)];
    for (setting, mail) in
        named.into_iter().flat_map(|(setting, all)| all.iter().map(move |it| (setting, it)))
    {
        if mail.parse::<lettre::Address>().is_err() {
            r.fault(setting, &format!("takes mail addresses such as ada@example.com, which {mail:?} is not"));
        }
    }
    check_smtp_url(raw, r);
    let daily = check_daily(raw, r);
    Some(Mail {
        smtp_url: raw.smtp_url.clone(),
        from: raw.mail_from.clone(),
        helo,
        ca_file,
        operators: raw.mail_operators.clone(),
        security: raw.mail_security.clone(),
        digest: check_digest(raw, daily, r),
        daily: daily?,
        per_minute: per_minute?,
    })
}

fn check_digest(raw: &RawConfig, daily: Option<Daily>, r: &mut Reader) -> Option<Daily> {
    if raw.mail_digest_at.is_empty() {
        return None;
    }
    let Ok(at) = chrono::NaiveTime::parse_from_str(&raw.mail_digest_at, "%H:%M") else {
        r.fault("mail.digest_at", "takes a time of day such as \"08:00\", or \"\" to remind at once");
        return None;
    };
    Some(Daily { at, zone: daily?.zone })
}

fn check_daily(raw: &RawConfig, r: &mut Reader) -> Option<Daily> {
    let at = chrono::NaiveTime::parse_from_str(&raw.mail_daily_at, "%H:%M");
    if at.is_err() {
        r.fault("mail.daily_at", "takes a time of day such as \"08:00\"");
    }
    let zone = raw.mail_timezone.parse();
    if zone.is_err() {
        r.fault("mail.timezone", "takes a name of the IANA database such as \"Europe/Berlin\"");
    }
    Some(Daily { at: at.ok()?, zone: zone.ok()? })
}

fn check_smtp_url(raw: &RawConfig, r: &mut Reader) {
    let Some(smtp) = &raw.smtp_url else { return };
    let url = match Url::parse(smtp.expose()) {
        // The path, or what follows a ?, may be a part of a password: it is not shown.
        Ok(url) if !matches!(url.path(), "" | "/") => {
            r.fault(
                "mail.smtp_url",
                "takes no path; write a / in user or password as %2F, a ? as %3F, a # as %23 and an @ as %40",
            );
            return;
        }
        Ok(url) if matches!(url.scheme(), "smtp" | "smtps") && url.has_host() => url,
        _ => {
            r.fault("mail.smtp_url", "takes smtp://host, smtps://host or \"\"; in user and password an @ is written %40, a / %2F, a ? %3F, a # %23, a : %3A");
            return;
        }
    };
    if let Err(why) = smtp.login() {
        r.fault("mail.smtp_url", &why.to_string());
    }
    let strange = url.query_pairs().any(|(name, _)| name != "tls") || url.fragment().is_some();
    if strange {
        r.fault(
            "mail.smtp_url",
            "takes nothing but tls=… after a ?, and no #; write a ? in user or password as %3F and a # as %23",
        );
    }
    match (url.scheme(), url.port()) {
        ("smtp", Some(465)) => r.fault("mail.smtp_url", "port 465 begins with TLS: use smtps://"),
        ("smtps", Some(port @ (25 | 587))) => r.fault(
            "mail.smtp_url",
            &format!("port {port} begins in plain text: use smtp:// with ?tls=required"),
        ),
        _ => {}
    }
    let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
    if tls.as_deref().is_some_and(|tls| !matches!(tls, "required" | "opportunistic" | "none")) {
        r.fault("mail.smtp_url", "tls takes required, opportunistic or none");
    }
    if url.scheme() == "smtp" && tls.as_deref() != Some("required") && !is_loopback(&url) {
        r.warnings.push(
            "mail.smtp_url: mail may leave this machine unencrypted; use smtps:// or add ?tls=required"
                .to_owned(),
        );
    }
}

/// A plain http or https address without user, query or fragment; the slash at its end is dropped.
pub(super) fn check_web_url(path: &str, text: &str, r: &mut Reader) -> Option<String> {
    if text.is_empty() && !r.is_clean() {
        return None;
    }
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else {
        r.fault(path, "takes an address that begins with http:// or https://");
        return None;
    };
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        r.fault(path, "takes an address without a user, a password, a query or a fragment");
        return None;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// Warns of links that lead nowhere for those who read them.
fn check_public_url(url: &str, listen: SocketAddr, raw: &RawConfig, r: &mut Reader) {
    let Some(url) = Url::parse(url).ok().filter(is_loopback) else { return };
    if raw.smtp_url.is_some() || !raw.webhooks.is_empty() {
        r.warnings.push(format!(
            "server.public_url is {url}, so the links in mails and webhooks open on this machine only; set it to the address that people use"
        ));
    } else if url.port_or_known_default().is_some_and(|port| port != listen.port()) && listen.port() != 0 {
        r.warnings.push(format!(
            "server.public_url is {url}, and server.listen has port {}; its links lead to another port than the server's",
            listen.port()
        ));
    }
}

fn check_server(raw: &RawConfig, r: &mut Reader, now: Timestamp) -> Option<Server> {
    let listen = raw.listen.parse::<SocketAddr>();
    if listen.is_err() && !raw.listen.is_empty() {
        r.fault("server.listen", "takes an IP address and a port, such as \"127.0.0.1:8440\"");
    }
    let public_url = check_web_url("server.public_url", &raw.public_url, r);
    let socket = check_socket(raw, r);
    let socket_role = check_socket_role(raw, r);
    let key_file = below(&raw.data_dir, &raw.key_file);
    if key_file.is_none() {
        r.fault("server.key_file", "takes the path of the file that holds the installation key; leave it out for installation.key in data_dir");
    }
    let has_tls = !raw.tls_cert_file.is_empty() || !raw.tls_key_file.is_empty();
    let tls = tls::check(&raw.tls_cert_file, &raw.tls_key_file, r, now);
    if let Ok(listen) = listen
        && !listen.ip().to_canonical().is_loopback()
        && !has_tls
    {
        match raw.plain_http {
            PlainHttp::Loopback => r.fault(
                "server.listen",
                &format!(
                    "{listen} is reached from other machines, and plain HTTP shows tokens to everybody on the way. Set server.tls.cert_file and server.tls.key_file; or, where a proxy in front ends TLS, set server.plain_http = \"behind-a-proxy\""
                ),
            ),
            PlainHttp::BehindAProxy if raw.trusted_proxies.is_empty() => r.warnings.push(
                "server.trusted_proxies is empty, so every client behind the proxy has the proxy's address, and one that guesses secrets slows all of them down; list the proxy's addresses"
                    .to_owned(),
            ),
            PlainHttp::BehindAProxy => {}
        }
    }
    // The pages and their cookie are those of a host.
    let parsed = public_url.as_ref().and_then(|url| Url::parse(url).ok());
    if parsed.is_some_and(|url| url.path() != "/") {
        r.fault(
            "server.public_url",
            "takes an address without a path: the pages are at the root of a host. Give Keywheel a name of its own, such as \
             https://keywheel.example.com",
        );
    }
    if let (Some(url), Ok(listen)) = (&public_url, &listen) {
        check_public_url(url, *listen, raw, r);
    }
    Some(Server {
        listen: listen.ok()?,
        public_url: public_url?,
        socket,
        socket_role: socket_role?,
        key_file: key_file?,
        tls,
        trusted_proxies: raw.trusted_proxies.clone(),
    })
}

fn check_socket(raw: &RawConfig, r: &mut Reader) -> Option<PathBuf> {
    let socket = below(&raw.data_dir, &raw.socket)?;
    let length = socket.as_os_str().len();
    if length > LONGEST_SOCKET {
        r.fault(
            "server.socket",
            &format!("{} has {length} bytes and a socket's path may have {LONGEST_SOCKET}: choose a shorter data_dir or socket", socket.display()),
        );
    }
    Some(socket)
}

fn check_database(url: Option<&SecretUrl>, data_dir: &Path, r: &mut Reader) -> Option<SecretUrl> {
    let Some(url) = url else {
        if r.is_clean() {
            r.fault(
                "database.url",
                "a database is needed: \"sqlite:keywheel.db\" or \"postgres://user@host/db\"",
            );
        }
        return None;
    };
    let text = url.expose();
    if let Some(rest) = text.strip_prefix("sqlite:") {
        let file = sqlite_file(rest);
        if file.is_empty()
            || file.starts_with('?')
            || file.contains(":memory:")
            || file.contains("mode=memory")
        {
            r.fault(
                "database.url",
                "sqlite needs a file: a database in memory would lose a rotation in flight",
            );
            return None;
        }
        if file.contains('?') {
            r.fault(
                "database.url",
                "sqlite takes a file and no parameters: leave out what follows the \"?\"",
            );
            return None;
        }
        if Path::new(file).is_absolute() {
            return Some(SecretUrl::new(format!("sqlite:{file}")));
        }
        return Some(SecretUrl::new(format!("sqlite:{}", data_dir.join(file).display())));
    }
    if let Some(why) = unsupported_postgres(text) {
        r.fault("database.url", why);
        return None;
    }
    let known = Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql") && !url.cannot_be_a_base());
    if !known {
        r.fault("database.url", "takes \"sqlite:FILE\" or \"postgres://user@host/db\"");
    }
    known.then(|| url.clone())
}

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// What libpq takes in a URL and Keywheel does not.
fn unsupported_postgres(text: &str) -> Option<&'static str> {
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))?;
    let (authority, query) = (rest.split(['/', '?']).next()?, rest.split_once('?').map_or("", |(_, it)| it));
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let given = |name: &str| form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    if hosts.contains(',') || given("host").is_some_and(|(_, value)| value.contains(',')) {
        return Some(
            "takes one host, and this URL names several; name the address that always leads to the primary (a DNS name, a \
             virtual IP or a proxy)",
        );
    }
    if given("target_session_attrs").is_some() {
        return Some(
            "takes no target_session_attrs: Keywheel has one host and refuses a server that is read-only; leave it out",
        );
    }
    let mode = given("sslmode").or_else(|| given("ssl-mode"));
    if mode.is_some_and(|(_, value)| !SSL_MODES.contains(&value.as_ref())) {
        return Some("sslmode takes disable, allow, prefer, require, verify-ca or verify-full");
    }
    None
}

/// The file that stands after `sqlite:`. An absolute path may come with the slashes of a URL, three as for other
/// drivers or four as for `SQLAlchemy`.
fn sqlite_file(rest: &str) -> &str {
    let file = rest.strip_prefix("//").unwrap_or(rest);
    let bare = file.trim_start_matches('/');
    // One slash is left where there were any.
    &file[(file.len() - bare.len()).saturating_sub(1)..]
}

/// Refuses an SQLite database that others may open, and the files that SQLite keeps beside it.
fn check_database_files(url: Option<&SecretUrl>, r: &mut Reader) {
    let Some(file) = url.and_then(|url| url.expose().strip_prefix("sqlite:")) else { return };
    for companion in ["", "-wal", "-shm"] {
        if let Some(why) = open_to_others(Path::new(&format!("{file}{companion}"))) {
            r.fault("database.url", &why);
        }
    }
}

fn check_atlas(raw: &RawConfig, r: &mut Reader) -> Option<Atlas> {
    let base_url = check_web_url("atlas.base_url", &raw.base_url, r);
    let parsed = base_url.as_ref().and_then(|url| Url::parse(url).ok());
    if parsed.as_ref().is_some_and(|url| !matches!(url.path(), "" | "/")) {
        r.fault(
            "atlas.base_url",
            "takes no path: leave out what follows the host; Keywheel adds /api/atlas/v2 itself",
        );
        return None;
    }
    if parsed.is_some_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
        r.warnings.push("atlas.base_url is plain http: credentials and keys cross the network readable; production value https://cloud.mongodb.com".to_owned());
    }
    if raw.request_timeout >= LONGEST_REQUEST {
        r.fault(
            "atlas.request_timeout",
            &format!(
                "{} must be less than 55s: a lease lasts 60 s and 5 s of it are kept for writing",
                raw.request_timeout
            ),
        );
    }
    let credentials: BTreeMap<String, Credential> = raw
        .credentials
        .iter()
        .filter_map(|(name, one)| Some((name.clone(), check_credential(name, one, r)?)))
        .collect();
    Some(Atlas {
        base_url: base_url?,
        request_timeout: raw.request_timeout,
        patch_body: raw.patch_body,
        credentials,
    })
}

fn check_credential(name: &str, raw: &RawCredential, r: &mut Reader) -> Option<Credential> {
    let at = format!("atlas.credentials.{name}");
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_') {
        r.fault(&at, "a credential's name takes lower-case letters, digits, \"-\" and \"_\"");
        return None;
    }
    let (public, secret, build): (_, _, fn(String, Secret) -> Credential) = match raw.kind.as_deref() {
        Some("service-account") => ("client_id", "client_secret", |client_id, client_secret| {
            Credential::ServiceAccount { client_id, client_secret }
        }),
        Some("api-key") => ("public_key", "private_key", |public_key, private_key| Credential::ApiKey {
            public_key,
            private_key,
        }),
        Some(odd) => {
            let takes = "takes \"service-account\" or \"api-key\"";
            r.odd_word(&format!("{at}.kind"), odd, &["service-account", "api-key"], takes);
            return None;
        }
        None => {
            r.fault(&at, "kind is missing: write kind = \"service-account\" or kind = \"api-key\"");
            return None;
        }
    };
    let id = raw.public.clone().filter(|id| !id.trim().is_empty());
    if id.is_none() {
        r.fault(&at, &format!("{public} is missing"));
    }
    // A secret that is set but cannot be read has its own message already.
    let told = r.is_faulty(&format!("{at}.{secret}"));
    if raw.secret.is_none() && !told {
        r.fault(&at, &format!("{secret} or {secret}_file is missing"));
    }
    let (id, key) = (id?, raw.secret.clone()?);
    Some(build(id, key))
}
