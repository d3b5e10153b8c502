//! The pre-flight checklist of a rotation: run at the proposal and again before the PATCH.
//!
//! The calls to the key service and the database are made first, so that Atlas' configuration, which is
//! compared last, is the freshest part. A failed lookup stops nothing: Atlas uses an identity of its own,
//! and a permission that ours lacks proves nothing about Atlas' identity. The check then names the missing
//! permission. The machine and the approvers decide on the verdicts.

use std::time::Duration;

use super::Engine;
use crate::atlas::AtlasApi;
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Place};
use crate::domain::preflight::{Check, CheckName, Verdict};
use crate::domain::project::BEFORE_END;
use crate::domain::rotation::machine::MAX_SKEW;
use crate::domain::rotation::outcome::{Cluster, Failure, Observation};
use crate::domain::time::{Span, Timestamp};
use crate::kms::{ErrorKind, Found, KeyState, KmsError};
use crate::store::StoreError;

/// The clusters that the checklist names.
const NAMED: usize = 5;

/// A key that expires sooner fails the check.
const MUST_LAST: Duration = Duration::from_hours(48);

/// The project whose key is to be changed, the new key, and the place that Atlas' configuration names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) group_id: &'a GroupId,
    pub(super) credential: &'a str,
    pub(super) new_key: &'a KeyRef,
    pub(super) place: &'a Place,
    pub(super) environment: Option<&'a str>,
    /// The name of the lookup for its keys.
    pub(super) kms: Option<&'a str>,
    /// After how long the new key is to be replaced.
    pub(super) interval: Span,
}

/// The results of calls and queries that the checklist needs.
#[derive(Debug)]
pub(super) struct Gathered {
    key: KeySide,
    /// Name and environment of other projects that use the new key; `None` without a tag to compare.
    elsewhere: Option<Vec<(String, String)>>,
    owner: Result<bool, Failure>,
    interval: Span,
}

/// The key service's findings about the new key.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Debug)]
enum KeySide {
    /// No lookup was made, with the reason.
    NotAsked(String),
    /// The lookup of this name answered, or failed.
    Asked { service: String, found: Result<Found, KmsError>, probe: Option<Result<(), KmsError>> },
}

/// Queries Atlas, the key service and the database about the new key, side by side. A failed call to
/// Atlas or the key service leaves its checks open.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn gather(engine: &Engine, project: Subject<'_>) -> Result<Gathered, StoreError> {
    let Subject { group_id, credential, new_key, place, environment, kms, interval } = project;
    let timeout = engine.settings.request_timeout.get();
    let elsewhere = async {
        match environment {
            Some(own) => engine.store.elsewhere(group_id, own, new_key).await.map(Some),
            None => Ok(None),
        }
    };
    let (owner, key, elsewhere) = tokio::join!(
        engine.atlas.may_change(credential, group_id, timeout),
        key_side(engine, kms, new_key, place),
        elsewhere
    );
    Ok(Gathered { key, elsewhere: elsewhere?, owner, interval })
}

async fn key_side(engine: &Engine, kms: Option<&str>, key: &KeyRef, place: &Place) -> KeySide {
    let Some(name) = kms else {
        return KeySide::NotAsked(
            "no lookup is named for this project; keywheel project edit PROJECT --kms NAME names one"
                .to_owned(),
        );
    };
    let Some(service) = engine.kms.get(name) else {
        return KeySide::NotAsked(format!("the project's lookup {name:?} is not configured any more"));
    };
    let found = service.describe(key, place).await;
    // An identity that may not describe a key may still use it.
    let worth = match &found {
        Ok(_) => true,
        Err(error) => error.kind == ErrorKind::Denied,
    };
    let probe = if worth { Some(service.probe(key, place).await) } else { None };
    KeySide::Asked { service: name.to_owned(), found, probe }
}

/// The checklist.
pub(super) fn judge(
    gathered: &Gathered,
    (old_key, new_key): (&KeyRef, &KeyRef),
    seen: &Observation,
    clusters: Result<&[Cluster], &Failure>,
    now: Timestamp,
) -> Vec<Check> {
    let mut checks = vec![place(new_key, gathered, &seen.place)];
    key_lines(gathered, new_key, now, &mut checks);
    checks.push(shared(gathered.elsewhere.as_deref(), old_key, new_key));
    checks.push(owner(&gathered.owner));
    checks.push(current_key(seen));
    checks.push(cluster_line(clusters));
    checks.push(skew(seen));
    checks
}

fn line(name: CheckName, result: Verdict, detail: impl Into<String>) -> Check {
    Check { name, result, detail: detail.into() }
}

fn place(new_key: &KeyRef, gathered: &Gathered, place: &Place) -> Check {
    if let Err(error) = new_key.check_place(place) {
        return line(CheckName::Place, Verdict::Fail, error.message);
    }
    // A bare key id names no region; the key service does.
    if let KeySide::Asked { found: Ok(found), .. } = &gathered.key
        && let Err(error) = found.key.check_place(place)
    {
        return line(CheckName::Place, Verdict::Fail, error.message);
    }
    line(CheckName::Place, Verdict::Pass, "its place matches Atlas' configuration")
}

/// The checks that need the key service.
fn key_lines(gathered: &Gathered, new_key: &KeyRef, now: Timestamp, checks: &mut Vec<Check>) {
    use CheckName::{EncryptDecrypt, KeyDeletion, KeyEnabled, KeyExists, KeyExpiry, KeySymmetric};
    const DESCRIBED: [CheckName; 4] = [KeyEnabled, KeySymmetric, KeyDeletion, KeyExpiry];
    let mut push = |name, (result, detail): (Verdict, String)| checks.push(line(name, result, detail));
    let (service, found, probe) = match &gathered.key {
        KeySide::NotAsked(why) => {
            push(KeyExists, (Verdict::NotChecked, why.clone()));
            for name in DESCRIBED.into_iter().chain([EncryptDecrypt]) {
                push(name, (Verdict::NotChecked, "no lookup was made".to_owned()));
            }
            return;
        }
        KeySide::Asked { service, found, probe } => (service, found, probe),
    };
    match found {
        Ok(found) => {
            let made = found.created.map(|at| format!(", created {at}")).unwrap_or_default();
            push(KeyExists, (Verdict::Pass, format!("{service} has {}{made}", found.key)));
            push(KeyEnabled, enabled(&found.state));
            push(
                KeySymmetric,
                match &found.suits {
                    Ok(()) => (Verdict::Pass, "it is of a kind that Atlas can use".to_owned()),
                    Err(why) => (Verdict::Fail, why.to_string()),
                },
            );
            push(KeyDeletion, deletion(&found.state));
            push(KeyExpiry, expiry(found, gathered.interval, now));
        }
        Err(error) => {
            push(KeyExists, (missing(new_key, error), format!("{service}: {error}")));
            for name in DESCRIBED {
                push(name, (Verdict::NotChecked, "the key could not be looked up".to_owned()));
            }
        }
    }
    let tried = match probe {
        None => (Verdict::NotChecked, "the key could not be looked up".to_owned()),
        Some(Ok(())) => (Verdict::Pass, "both work for our own identity".to_owned()),
        Some(Err(error)) if error.kind == ErrorKind::Unusable => {
            (Verdict::Fail, format!("{service}: {error}"))
        }
        Some(Err(error)) => (missing(new_key, error), format!("{service}: {error}")),
    };
    push(EncryptDecrypt, tried);
}

/// The verdict on a failed lookup. A bare AWS key id means a key in the account of Atlas' role but is
/// looked up in the account of our identity, so `NotFound` is only a warning there.
fn missing(key: &KeyRef, error: &KmsError) -> Verdict {
    let elsewhere = matches!(key, KeyRef::Aws(key) if key.account().is_none());
    if error.kind == ErrorKind::NotFound && !elsewhere { Verdict::Fail } else { Verdict::Warn }
}

fn enabled(state: &KeyState) -> (Verdict, String) {
    match state {
        KeyState::Enabled => (Verdict::Pass, "it is enabled".to_owned()),
        KeyState::Disabled => (Verdict::Fail, "it is disabled; enable it, or choose another".to_owned()),
        KeyState::PendingDeletion { .. } => {
            (Verdict::Fail, "it cannot be used while its deletion is pending".to_owned())
        }
        KeyState::Other(word) => (
            Verdict::Fail,
            format!("its key service reports it as {word}; bring it into use, or choose another"),
        ),
    }
}

fn deletion(state: &KeyState) -> (Verdict, String) {
    match state {
        KeyState::PendingDeletion { at } => {
            let when = at.map_or_else(|| "soon".to_owned(), |at| format!("at {at}"));
            (Verdict::Fail, format!("it will be deleted {when}; cancel that, or choose another"))
        }
        _ => (Verdict::Pass, "its deletion is not pending".to_owned()),
    }
}

fn expiry(found: &Found, interval: Span, now: Timestamp) -> (Verdict, String) {
    if let Some(from) = found.not_before.filter(|from| *from > now) {
        return (Verdict::Fail, format!("it may not be used before {from}"));
    }
    match found.expires {
        Some(end) if end <= now => (Verdict::Fail, format!("it expired at {end}; choose another")),
        Some(end) if now.until(end) < MUST_LAST => (
            Verdict::Fail,
            format!("it expires at {end}, in less than 48 hours; choose another, or move that date"),
        ),
        Some(end) if end < now + interval.get() + BEFORE_END => (
            Verdict::Warn,
            format!(
                "it expires at {end}, before the {interval} are over after which keys are replaced: the next rotation is due {} days \
                 before that",
                BEFORE_END.as_secs() / 86_400
            ),
        ),
        Some(end) => (Verdict::Pass, format!("it expires at {end}")),
        None => (Verdict::Pass, "it does not expire".to_owned()),
    }
}

/// A rotation that begins to share a key between environments fails; one that continues to share is
/// warned about.
fn shared(elsewhere: Option<&[(String, String)]>, old_key: &KeyRef, new_key: &KeyRef) -> Check {
    let name = CheckName::SharedKey;
    let Some(others) = elsewhere else {
        return line(
            name,
            Verdict::NotChecked,
            "this project has no environment; keywheel project edit PROJECT --environment NAME sets one",
        );
    };
    let Some((first, environment)) = others.first() else {
        return line(name, Verdict::Pass, "no project of another environment uses it");
    };
    let more = match others.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let who = format!("{first} ({environment}){more} uses the same key");
    if old_key.shares_key(new_key) {
        line(name, Verdict::Warn, format!("{who}, as before; give each environment a key of its own"))
    } else {
        line(
            name,
            Verdict::Fail,
            format!("{who}; give this project a key of its own, or tag the projects with one environment"),
        )
    }
}

fn owner(owner: &Result<bool, Failure>) -> Check {
    let name = CheckName::ProjectOwner;
    match owner {
        Ok(true) => line(name, Verdict::Pass, "the Atlas credential is Project Owner"),
        Ok(false) => line(
            name,
            Verdict::Fail,
            "the Atlas credential is not Project Owner of this project, so Atlas would refuse the change; grant it that role",
        ),
        Err(failure) => line(name, Verdict::NotChecked, format!("Atlas: {failure}")),
    }
}

fn current_key(seen: &Observation) -> Check {
    let (result, detail) = match seen.valid {
        Some(true) => (Verdict::Pass, "Atlas reports the current key as valid"),
        Some(false) => (
            Verdict::Fail,
            "Atlas reports the current key as invalid and refuses any change until it works again; re-enable it in its key service",
        ),
        None => (Verdict::Fail, "Atlas does not report whether the current key is valid"),
    };
    line(CheckName::CurrentKeyValid, result, detail)
}

fn cluster_line(clusters: Result<&[Cluster], &Failure>) -> Check {
    let name = CheckName::Clusters;
    let clusters = match clusters {
        Ok(clusters) => clusters,
        Err(failure) => {
            let detail = format!("Atlas did not list the clusters: {failure}");
            return line(name, Verdict::NotChecked, detail);
        }
    };
    let among = |state| {
        let all: Vec<_> = clusters.iter().filter(|it| it.state == state).map(|it| it.name.as_str()).collect();
        all.join(", ")
    };
    let (repairing, updating) = (among("REPAIRING"), among("UPDATING"));
    if !repairing.is_empty() {
        line(name, Verdict::Fail, format!("Atlas is repairing {repairing}; wait until that is over"))
    } else if !updating.is_empty() {
        line(name, Verdict::Warn, format!("Atlas is updating {updating}; the new key joins that queue"))
    } else {
        let which = match clusters.len() {
            0 => "no cluster uses this key".to_owned(),
            1 => {
                format!("one cluster uses this key, and it is not updating or repairing: {}", named(clusters))
            }
            count => {
                format!("{count} clusters use this key, none is updating or repairing: {}", named(clusters))
            }
        };
        line(name, Verdict::Pass, which)
    }
}

/// The first clusters, and how many more there are.
fn named(clusters: &[Cluster]) -> String {
    let first = clusters.iter().take(NAMED).map(Cluster::label).collect::<Vec<_>>().join(", ");
    match clusters.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// A warning only: the machine holds each PATCH until the clocks agree.
fn skew(seen: &Observation) -> Check {
    let name = CheckName::ClockSkew;
    let Some(skew) = seen.skew_ms else {
        return line(name, Verdict::NotChecked, "Atlas' reply named no time");
    };
    let apart = Span::from_secs(skew.unsigned_abs() / 1000);
    let which = if skew < 0 { "behind" } else { "ahead of" };
    if apart.get() > MAX_SKEW {
        line(
            name,
            Verdict::Warn,
            format!(
                "this machine's clock is {apart} {which} Atlas'; no new key is sent until they agree: check its time service"
            ),
        )
    } else {
        // No number: Atlas' `Date` header is exact to the second only.
        line(name, Verdict::Pass, "this machine's clock and Atlas' agree")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::Provider;

    const NOW: &str = "2026-03-01T00:00:00Z";

    fn lines(spoil: impl FnOnce(&mut Gathered, &mut Observation, &mut Vec<Cluster>)) -> Vec<Check> {
        let key = |number: u8| {
            let text = format!("https://vault1.vault.azure.net/keys/k{number}/{:032x}", 1);
            KeyRef::parse(Provider::Azure, &text).unwrap()
        };
        let now: Timestamp = NOW.parse().unwrap();
        let found = Found {
            key: key(2),
            state: KeyState::Enabled,
            suits: Ok(()),
            created: None,
            expires: None,
            not_before: None,
            region: None,
            material: None,
        };
        let mut gathered = Gathered {
            key: KeySide::Asked { service: "vaults".to_owned(), found: Ok(found), probe: Some(Ok(())) },
            elsewhere: Some(Vec::new()),
            owner: Ok(true),
            interval: Span::from_days(90),
        };
        let mut seen = Observation {
            at: now,
            provider: Some(Provider::Azure),
            key: Some(key(1)),
            valid: Some(true),
            private_networking: false,
            place: Place { aws_region: None, azure_vault: Some("vault1".to_owned()) },
            block_hash: String::new(),
            invalid_beside: None,
            skew_ms: Some(0),
        };
        let mut clusters = vec![Cluster {
            name: "c".to_owned(),
            state: "IDLE".to_owned(),
            paused: false,
            ..Cluster::default()
        }];
        spoil(&mut gathered, &mut seen, &mut clusters);
        judge(&gathered, (&key(1), &key(2)), &seen, Ok(&clusters), now)
    }

    fn key_side(
        gathered: &mut Gathered,
    ) -> (&mut Result<Found, KmsError>, &mut Option<Result<(), KmsError>>) {
        let KeySide::Asked { found, probe, .. } = &mut gathered.key else { panic!("it was asked") };
        (found, probe)
    }

    fn refusal(kind: ErrorKind) -> KmsError {
        KmsError { kind, code: None, message: "no".to_owned(), advice: "grant it".to_owned() }
    }

    #[test]
    fn a_key_that_ends_before_the_next_rotation_is_warned_of() {
        let expiry = |days: u64| {
            let now: Timestamp = NOW.parse().unwrap();
            let ends = now + Duration::from_hours(24 * days);
            let lines = lines(|all, _, _| key_side(all).0.as_mut().unwrap().expires = Some(ends));
            lines.into_iter().find(|it| it.name == CheckName::KeyExpiry).unwrap()
        };
        for (days, result) in [(3, Verdict::Warn), (96, Verdict::Warn), (97, Verdict::Pass)] {
            assert_eq!(expiry(days).result, result, "{days}");
        }
        let said = expiry(5).detail;
        assert!(
            said.starts_with("it expires at 2026-03-06T00:00:00.000000Z, before the 90d are over"),
            "{said}"
        );
    }

    #[test]
    fn clusters_are_named_with_tier_and_regions() {
        let cluster = |number: usize| Cluster {
            name: format!("c{number}"),
            state: "IDLE".to_owned(),
            paused: number == 1,
            tier: Some("M30".to_owned()),
            regions: vec!["EU_CENTRAL_1".to_owned()],
        };
        let all: Vec<_> = (0..7).map(cluster).collect();
        let said = cluster_line(Ok(&all)).detail;
        assert!(said.contains(": c0 (M30, EU_CENTRAL_1), c1 (M30, EU_CENTRAL_1, paused), c2"), "{said}");
        assert!(said.ends_with("c4 (M30, EU_CENTRAL_1) and 2 more"), "{said}");
    }

    #[test]
    fn each_line_but_the_clock_s_fails_in_some_world_and_the_clock_s_warns() {
        assert!(lines(|_, _, _| {}).iter().all(|check| check.result == Verdict::Pass));
        let later =
            |days: i64| -> Timestamp { format!("2026-03-{:02}T00:00:00Z", 1 + days).parse().unwrap() };
        let worlds = [
            lines(|_, seen, _| seen.place.azure_vault = Some("another".to_owned())),
            lines(|all, _, _| *key_side(all).0 = Err(refusal(ErrorKind::NotFound))),
            lines(|all, _, _| key_side(all).0.as_mut().unwrap().state = KeyState::Disabled),
            lines(|all, _, _| {
                key_side(all).0.as_mut().unwrap().suits = Err(crate::kms::Unfit::AzureKind("EC".to_owned()));
            }),
            lines(|all, _, _| {
                key_side(all).0.as_mut().unwrap().state = KeyState::PendingDeletion { at: None }
            }),
            lines(|all, _, _| key_side(all).0.as_mut().unwrap().expires = Some(later(1))),
            lines(|all, _, _| *key_side(all).1 = Some(Err(refusal(ErrorKind::Unusable)))),
            lines(|all, _, _| all.elsewhere = Some(vec![("other".to_owned(), "prod".to_owned())])),
            lines(|all, _, _| all.owner = Ok(false)),
            lines(|_, seen, _| seen.valid = Some(false)),
            lines(|_, _, clusters| clusters[0].state = "REPAIRING".to_owned()),
            lines(|_, seen, _| seen.skew_ms = Some(3_600_000)),
        ];
        for name in CheckName::ALL.iter().copied().filter(|name| *name != CheckName::Format) {
            let worst = if name == CheckName::ClockSkew { Verdict::Warn } else { Verdict::Fail };
            let met =
                |world: &Vec<Check>| world.iter().any(|check| check.name == name && check.result == worst);
            assert!(worlds.iter().any(met), "no world in which {name} is {worst}");
        }
    }
}
