//! A fingerprint of everything that the machine decides.

use super::grid::{At, play, scenarios};
use super::tables::checked;
use super::world::{NEW, OLD, OTHER, PLAIN, World, failure, key, proposed, start};
use keywheel::domain::key::{Place, Provider};
use keywheel::domain::preflight::Verdict;
use keywheel::domain::rotation::machine::{MACHINE_VERSION, next, resume};
use keywheel::domain::rotation::outcome::{
    Class, Cluster, Command, Failure, Look, Observation, Outcome, PatchReply,
};
use keywheel::domain::rotation::state::{Cause, Rotation, State, Target};
use keywheel::domain::time::{Span, Timestamp};
use sha2::Digest;
use std::collections::BTreeMap;
use std::time::Duration;

fn cluster(state: &str, paused: bool) -> Cluster {
    Cluster { name: "c0".to_owned(), state: state.to_owned(), paused, ..Cluster::default() }
}

/// What a rotation may be told at some instant.
fn outcomes(now: Timestamp) -> Vec<Outcome> {
    let mut all = Vec::new();
    for shown in [Some(OLD), Some(NEW), Some(OTHER), None] {
        for valid in [Some(true), Some(false), None] {
            for (private, skew_ms, network_denied, clusters, place) in [
                (false, 0, None, None, Place::default()),
                (true, 0, Some(false), Some(vec![cluster("IDLE", false)]), Place::default()),
                (
                    false,
                    0,
                    Some(true),
                    Some(vec![cluster("UPDATING", false), cluster("IDLE", true)]),
                    Place::default(),
                ),
                (false, 120_001, None, Some(vec![]), Place::default()),
                (false, 120_000, Some(false), Some(vec![cluster("REPAIRING", false)]), Place::default()),
            ] {
                all.push(Outcome::Looked(Look {
                    seen: Observation {
                        at: now,
                        provider: shown.map(|_| Provider::Aws),
                        key: shown.map(key),
                        valid,
                        private_networking: private,
                        place,
                        block_hash: String::new(),
                        invalid_beside: None,
                        skew_ms: Some(skew_ms),
                    },
                    network_denied,
                    clusters,
                    checks: None,
                    unanswered: BTreeMap::new(),
                }));
            }
        }
    }
    for verdict in [Verdict::Warn, Verdict::Fail] {
        all.push(Outcome::Looked(checked(now, verdict)));
    }
    let long = Failure { retry_after: Some(Span::from_secs(45)), ..failure(Class::Transient, Some(429)) };
    let failures = [
        failure(Class::Unknown, None),
        failure(Class::Transient, Some(429)),
        failure(Class::Transient, None),
        long,
        failure(Class::Refused, Some(400)),
        failure(Class::BadKey, Some(400)),
        failure(Class::Config, Some(406)),
        failure(Class::Auth, Some(401)),
        failure(Class::Gone, Some(404)),
    ];
    for failure in failures {
        all.push(Outcome::Blind(failure.clone()));
        all.extend(
            [
                PatchReply::Unknown,
                PatchReply::Refused,
                PatchReply::NotTaken,
                PatchReply::Auth,
                PatchReply::Gone,
            ]
            .map(|reply| Outcome::Replied(reply(failure.clone()))),
        );
    }
    all.push(Outcome::Replied(PatchReply::Accepted));
    let commands = [
        Command::Approve { given: 1 },
        Command::Withdraw { given: 0 },
        Command::Withdraw { given: 1 },
        Command::Reject,
        Command::Cancel,
        Command::Resume,
        Command::Rollback,
        Command::Accept,
        Command::Close,
    ];
    all.extend(commands.into_iter().map(Outcome::Said));
    all
}

/// The instants around which a rotation decides differently.
fn instants(it: &Rotation) -> Vec<Timestamp> {
    let (verify, pace) = (&it.rules.verify, &it.rules.pace);
    let after = |at: Option<Timestamp>, spans: &[Span]| -> Vec<Timestamp> {
        at.into_iter().flat_map(|at| spans.iter().map(move |span| at + span.get())).collect()
    };
    let zero = Span::from_millis(0);
    let twice = |span: &Span| Span::from_millis(u64::try_from(span.get().as_millis()).unwrap() * 2);
    let last = it.observing.last.as_ref().map(|last| last.at);
    let sent = it.patching.latest.as_ref().map(|patch| patch.sent_at);
    [
        after(it.wake_at, &[zero]),
        after(last, &[twice(&verify.every), twice(&verify.deploy_poll)]),
        after(sent, &[pace.settle, verify.private_network_hold]),
        after(it.patching.latest.as_ref().map(|patch| patch.deadline), &[pace.settle]),
        after(it.patching.unknown_at, &[pace.settle]),
        after(it.patching.retry_at, &[zero]),
        after(it.observing.not_before, &[zero]),
        after(it.patching.guard_deadline, &[zero]),
        after(Some(it.permission.expires_at), &[zero]),
        after(it.readings.false_since, &[verify.false_grace]),
        after(it.readings.since, &[verify.timeout]),
        after(it.rollout.since, &[verify.deploy_grace, verify.deploy_timeout]),
        after(it.ending.watch_until, &[zero]),
    ]
    .concat()
}

fn paged(it: &mut Rotation, at: Timestamp) {
    (it.state, it.cause) = (State::NeedsOperator, Some(Cause::Unproven));
    it.operator.paged_at = Some(at);
}

/// The rotation in every state, and with each thing that a decision may hang on turned the other way.
/// Most of these cannot come to be; what is decided about them must not change unseen either.
#[expect(clippy::too_many_lines, reason = "a list of variants")]
fn variants(base: &Rotation) -> Vec<Rotation> {
    let mut all = vec![base.clone()];
    let open = State::ALL.iter().filter(|state| !state.is_final() && **state != base.state);
    all.extend(open.map(|state| Rotation { state: *state, ..base.clone() }));
    let sent = base.patching.latest.as_ref().map_or(base.created_at, |patch| patch.sent_at);
    let changes: [fn(&mut Rotation, Timestamp); 31] = [
        |it, _| it.permission.quorum.given = 0,
        |it, _| it.patching.first_at = None,
        |it, _| it.patching.guard_deadline = None,
        |it, sent| it.patching.guard_deadline = Some(sent + Duration::from_secs(1)),
        |it, sent| it.patching.unknown_at = Some(sent),
        |it, sent| it.patching.retry_at = Some(sent + Duration::from_secs(7)),
        |it, sent| it.observing.not_before = Some(sent + Duration::from_secs(300)),
        |it, _| it.rollback.old_key_was_valid = !it.rollback.old_key_was_valid,
        |it, _| it.rollback.returned = !it.rollback.returned,
        |it, _| it.rollback.ordered = !it.rollback.ordered,
        |it, _| it.patching.sent_old = !it.patching.sent_old,
        |it, _| it.rollback.healed = !it.rollback.healed,
        |it, _| it.operator.resuming = !it.operator.resuming,
        |it, _| it.ending.late_apply = !it.ending.late_apply,
        |it, sent| (it.readings.flaps, it.readings.false_since) = (3, Some(sent)),
        |it, sent| (it.readings.trues, it.readings.round, it.readings.since) = (2, 5, Some(sent)),
        |it, sent| (it.readings.trues, it.readings.gaps, it.rollout.since) = (3, 9, Some(sent)),
        |it, sent| {
            (it.cause, it.operator.paged_at) = (Some(Cause::RollbackRefused), Some(sent));
        },
        |it, sent| {
            if let Some(patch) = &mut it.patching.latest {
                (patch.target, patch.interrupted, it.rollback.since) = (Target::Old, true, Some(sent));
            }
        },
        |it, _| {
            if let Some(patch) = &mut it.patching.latest {
                patch.reply = Some(PatchReply::Refused(failure(Class::Refused, Some(400))));
            }
        },
        |it, _| it.patching.attempts = 0,
        |it, sent| {
            (it.state, it.patching.unknown_at) = (State::Applying, Some(sent));
            if let Some(patch) = &mut it.patching.latest {
                patch.reply = Some(PatchReply::Refused(failure(Class::Refused, Some(400))));
            }
        },
        |it, sent| {
            (it.state, it.readings.flaps, it.readings.trues, it.readings.round) = (State::Verifying, 3, 0, 9);
            (it.readings.false_since, it.patching.guard_deadline) =
                (Some(sent), Some(sent + Duration::from_secs(1)));
        },
        |it, sent| {
            (it.state, it.patching.sent_old, it.readings.trues, it.readings.round) =
                (State::RollingBack, true, 2, 9);
            (it.readings.since, it.patching.guard_deadline) =
                (Some(sent), Some(sent + Duration::from_secs(1)));
        },
        paged,
        |it, _| {
            (it.state, it.rules.whole_block, it.block.hash) = (State::Approved, true, "another".to_owned());
        },
        |it, _| (it.state, it.block.hash) = (State::Approved, "another".to_owned()),
        |it, sent| {
            (it.state, it.readings.round, it.readings.trues, it.readings.flaps) = (State::Verifying, 2, 0, 3);
            it.readings.false_since = Some(sent);
        },
        |it, _| {
            let never = r#"{ "cron": "0 0 3 29 2 *", "duration": "1m", "timezone": "UTC" }"#;
            (it.state, it.rules.policy.windows) =
                (State::Approved, vec![serde_json::from_str(never).unwrap()]);
        },
        |it, sent| {
            (it.state, it.readings.trues, it.readings.round, it.readings.flaps) = (State::Verifying, 2, 9, 0);
            (it.readings.since, it.patching.guard_deadline) = (Some(sent), None);
        },
        |it, sent| {
            (it.state, it.readings.trues, it.readings.gaps, it.readings.round) =
                (State::Verifying, 0, it.rules.verify.readings, 1);
            (it.readings.since, it.patching.guard_deadline) =
                (Some(sent), Some(sent + Duration::from_secs(1)));
        },
    ];
    // Each in the state it is in, and two together.
    for (number, change) in changes.iter().enumerate() {
        let mut one = base.clone();
        change(&mut one, sent);
        let mut two = one.clone();
        changes[(number + 7) % changes.len()](&mut two, sent);
        all.extend([one, two]);
    }
    all
}

/// A number for everything the machine decides about many rotations in many situations.
fn fingerprint() -> String {
    let mut visited: Vec<Rotation> = Vec::new();
    for (number, scenario) in scenarios().into_iter().enumerate() {
        for crashes in [&[][..], &[At::InPatch]] {
            let run = play(next, scenario, crashes).unwrap();
            let mut last = None;
            // Where a state begins; not of each run, they are much alike.
            visited.extend(run.visited.into_iter().filter(|it| {
                let fresh = last != Some(it.state);
                last = Some(it.state);
                fresh && number % 4 == 0
            }));
        }
    }
    let mut all = sha2::Sha256::default();
    all.update(serde_json::to_vec(&proposed(&World::new(PLAIN))).unwrap());
    let told = outcomes(start());
    let (mut probes, mut dice) = (0u64, 1u64);
    for rotation in visited.iter().flat_map(variants) {
        // Both sides of each edge, and the edge.
        let micro = Duration::from_micros(1);
        let edges = instants(&rotation).into_iter().flat_map(|at| [at - micro, at, at + micro]);
        for now in edges.filter(|at| *at > rotation.created_at) {
            all.update(format!("{:?}", resume(&rotation, now)));
            for outcome in &told {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if !(dice >> 33).is_multiple_of(PROBED) {
                    continue;
                }
                probes += 1;
                let mut outcome = outcome.clone();
                if let Outcome::Looked(look) = &mut outcome {
                    look.seen.at = now;
                }
                let step = next(&rotation, &outcome, now);
                all.update(serde_json::to_vec(&step.rotation).unwrap());
                all.update(format!("{:?}{:?}{}", step.effect, step.notices, step.illegal));
            }
        }
    }
    assert!(probes > 100_000, "only {probes} probes");
    hex::encode(all.finalize())
}

/// One of so many situations is probed: enough to meet each decision many times, in a few seconds.
const PROBED: u64 = 199;

/// Journals are replayed by the version they were written under, so what [`next`] decides may change
/// only together with [`MACHINE_VERSION`]. When it was meant to: count up, and take the new print over.
#[test]
fn decisions_change_only_together_with_their_version() {
    const KNOWN: (i32, &str) = (5, "72e5b2af88f1282aec3d9cf501cfdb860277771cbd466e903c61c9d3081a9d61");
    assert_eq!((MACHINE_VERSION, fingerprint().as_str()), KNOWN);
}
