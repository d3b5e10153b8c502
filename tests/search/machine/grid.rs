//! The grid: every scenario times every pair of instants at which the worker dies.
//!
//! The driver loop is imitated exactly (claim, observe, decide, commit, act) and killed at named
//! points. Invariants are judged from the world's own log of what it received, never from our rows.

use super::world::{Human, NEW, OLD, PLAIN, Patching, Rollback, Scenario, Validity, World, propose};
use keywheel::domain::rotation::machine::{Announcement, Effect, Resume, Step, next, resume};
use keywheel::domain::rotation::outcome::{Outcome, PatchReply};
use keywheel::domain::rotation::state::{Cause, Rotation, State, Target};
use keywheel::domain::time::Timestamp;
use std::time::Duration;

pub(super) type Decide = fn(&Rotation, &Outcome, Timestamp) -> Step;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum At {
    BeforeLook,
    AfterLook,
    BeforePatch,
    InPatch,
    AfterPatch,
    BeforeCommit,
    AfterCommit,
}

pub(super) const POINTS: [At; 7] = [
    At::BeforeLook,
    At::AfterLook,
    At::BeforePatch,
    At::InPatch,
    At::AfterPatch,
    At::BeforeCommit,
    At::AfterCommit,
];

pub(super) struct Run {
    pub(super) rotation: Rotation,
    /// The rotation as it was committed each time.
    pub(super) visited: Vec<Rotation>,
    pub(super) world: World,
    pub(super) notices: Vec<Announcement>,
    pub(super) steps: usize,
}

/// Plays one scenario to its end, killed the first time each of `crashes` is reached, in order.
#[expect(clippy::too_many_lines, reason = "the world and the machine take turns in one loop")]
pub(super) fn play(decide: Decide, scenario: Scenario, crashes: &[At]) -> Result<Run, String> {
    let mut world = World::new(scenario);
    let mut crashes = crashes.iter().copied().peekable();
    let mut durable = propose(&world);
    let mut notices = Vec::new();
    let mut visited = vec![durable.clone()];
    let mut steps = 0;
    let mut crash = |at: At| {
        let hit = crashes.peek() == Some(&at);
        if hit {
            crashes.next();
        }
        hit
    };
    while let Some(wake) = durable.wake_at {
        let stuck_for = durable.operator.paged_at.map_or(Duration::ZERO, |at| world.now.since(at));
        let done = durable.state == State::NeedsOperator && stuck_for > Duration::from_secs(300);
        if done || steps > 3000 {
            break;
        }
        world.pass(world.now.until(wake).max(Duration::from_millis(1)));
        let mut outcome = None;
        let mut effect = match resume(&durable, world.now) {
            Resume::Look(extras) => Effect::Look(extras),
            Resume::Blind(failure) => {
                outcome = Some(Outcome::Blind(failure));
                Effect::Rest
            }
        };
        loop {
            steps += 1;
            let happened = match (outcome.take(), effect) {
                (Some(outcome), _) => outcome,
                (None, Effect::Rest) => break,
                (None, Effect::Look(extras)) => {
                    if crash(At::BeforeLook) {
                        world.pass(Duration::from_secs(20));
                        break;
                    }
                    let looked = world.look(extras);
                    if crash(At::AfterLook) {
                        world.pass(Duration::from_secs(20));
                        break;
                    }
                    looked.map_or_else(Outcome::Blind, Outcome::Looked)
                }
                (None, Effect::Patch(target)) => {
                    let intent = durable
                        .patching
                        .latest
                        .as_ref()
                        .is_some_and(|it| it.target == target && it.reply.is_none());
                    if !intent {
                        return Err(format!("I2: PATCH({target}) without a committed intent"));
                    }
                    check_permission(&durable, target, world.now)?;
                    if crash(At::BeforePatch) {
                        world.pass(Duration::from_secs(20));
                        break;
                    }
                    let reply = world.patch(target);
                    if crash(At::InPatch) || crash(At::AfterPatch) {
                        world.pass(Duration::from_secs(70));
                        break;
                    }
                    Outcome::Replied(reply)
                }
            };
            world.pass(Duration::from_millis(20));
            let step = decide(&durable, &happened, world.now);
            if crash(At::BeforeCommit) {
                world.pass(Duration::from_secs(20));
                break;
            }
            if durable.state.is_final() && step.rotation.state != durable.state {
                return Err(format!("{} left its end for {}", durable.state, step.rotation.state));
            }
            durable = step.rotation;
            visited.push(durable.clone());
            notices.extend(step.notices);
            check(&durable, &world, notices.contains(&Announcement::Page))?;
            if crash(At::AfterCommit) {
                world.pass(Duration::from_secs(20));
                break;
            }
            effect = step.effect;
        }
    }
    let run = Run { rotation: durable, visited, world, notices, steps };
    check_end(&run)?;
    Ok(run)
}

pub(super) fn check_permission(rotation: &Rotation, target: Target, now: Timestamp) -> Result<(), String> {
    let allowed = target == Target::Old
        || (rotation.permission.quorum.is_met()
            && now < rotation.permission.expires_at
            && rotation.rules.policy.window_open(now));
    if allowed { Ok(()) } else { Err("I3: a PATCH without permission".to_owned()) }
}

pub(super) fn check(rotation: &Rotation, world: &World, paged: bool) -> Result<(), String> {
    if rotation.state == State::Completed && rotation.ending.finished_at == Some(world.now) {
        let wanted = rotation.rules.verify.readings as usize;
        let last: Vec<_> = world.looks.iter().rev().take(wanted).collect();
        if last.len() < wanted || last.iter().any(|(_, key, valid)| *key != NEW || *valid != Some(true)) {
            return Err("I5: completed without readings that the world gave".to_owned());
        }
    }
    if let Some(first) = world.first_applied {
        let unresolved = matches!(rotation.state, State::Applying | State::Verifying | State::RollingBack);
        let limit = Duration::from_secs(if world.scenario.private { 22 * 60 } else { 16 * 60 });
        if unresolved && !paged && world.now.since(first) > limit {
            return Err(format!("I6: still {} after {:?}", rotation.state, world.now.since(first)));
        }
    }
    Ok(())
}

pub(super) fn check_end(run: &Run) -> Result<(), String> {
    let (state, world) = (run.rotation.state, &run.world);
    let held = world.key;
    let agrees = match state {
        State::Completed => held == NEW || world.human_done,
        State::RolledBack | State::Failed => held == OLD,
        State::Superseded => world.human_done,
        State::NeedsOperator => run.notices.contains(&Announcement::Page),
        _ => false,
    };
    if !agrees {
        return Err(format!("I16: ended {state} ({:?}) while Atlas holds {held}", run.rotation.cause));
    }
    let announced = state == State::NeedsOperator || run.notices.contains(&Announcement::Finished(state));
    if !announced {
        return Err(format!("{state} was not announced"));
    }
    if run.steps > 3000 {
        return Err("I16: does not converge".to_owned());
    }
    // Idempotent by value is no excuse for a storm.
    if world.patches.len() > 8 {
        return Err(format!("I4: {} PATCHes", world.patches.len()));
    }
    Ok(())
}

pub(super) fn scenarios() -> Vec<Scenario> {
    use Patching as P;
    use Validity as V;
    let base = PLAIN;
    let mut all = Vec::new();
    for patching in [
        P::Good,
        P::DropRequest,
        P::DropReply,
        P::LateApply,
        P::StaleReads,
        P::DropReplyStale,
        P::RateLimited,
        P::RefusedBadKey,
        P::AppliedThen500,
        P::AuthLost,
        P::Gone,
    ] {
        for validity in [
            V::True,
            V::FalseForever,
            V::FalseOnce,
            V::Flapping,
            V::Absent,
            V::SlowTrue,
            V::BadLater,
            V::Blind,
            V::NetworkDenied,
        ] {
            all.push(Scenario { patching, validity, ..base });
        }
    }
    for rollback in [Rollback::Refused, Rollback::DropReply, Rollback::DropRequest] {
        for validity in [V::FalseForever, V::Flapping] {
            all.push(Scenario { validity, rollback, ..base });
        }
    }
    for human in [Human::ThirdKey, Human::Revert] {
        for validity in [V::True, V::FalseForever, V::Absent] {
            all.push(Scenario { validity, human, ..base });
        }
    }
    all.push(Scenario { private: true, ..base });
    all.push(Scenario { private: true, validity: V::BadLater, ..base });
    all
}

pub(super) fn grid(decide: Decide) -> (usize, Vec<String>) {
    let mut runs = 0;
    let mut broken = Vec::new();
    for scenario in scenarios() {
        let mut schedules: Vec<Vec<At>> = vec![vec![]];
        schedules.extend(POINTS.iter().map(|point| vec![*point]));
        schedules.extend(POINTS.iter().flat_map(|a| POINTS.iter().map(|b| vec![*a, *b])));
        for schedule in schedules {
            runs += 1;
            let outcome = std::panic::catch_unwind(|| play(decide, scenario, &schedule).map(|_| ()));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(why)) => broken.push(format!("{scenario:?} {schedule:?}: {why}")),
                Err(_) => broken.push(format!("{scenario:?} {schedule:?}: panicked")),
            }
        }
    }
    (runs, broken)
}

#[test]
fn every_pair_of_crash_points_times_every_outcome_keeps_the_invariants() {
    let (runs, broken) = grid(next);
    assert!(runs > 5000, "only {runs} runs");
    assert!(
        broken.is_empty(),
        "{} of {runs} runs broke a rule, first:\n{}",
        broken.len(),
        broken[..broken.len().min(12)].join("\n")
    );
}

pub(super) fn unknown_counts_as_failed(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    match outcome {
        Outcome::Replied(PatchReply::Unknown(failure)) => {
            next(rotation, &Outcome::Replied(PatchReply::Refused(failure.clone())), now)
        }
        other => next(rotation, other, now),
    }
}

pub(super) fn unhealthy_counts_as_done(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    match outcome {
        Outcome::Looked(look) => {
            let mut look = look.clone();
            look.seen.valid = Some(true);
            next(rotation, &Outcome::Looked(look), now)
        }
        other => next(rotation, other, now),
    }
}

#[test]
fn the_grid_catches_a_machine_that_takes_no_answer_for_a_no() {
    assert!(!grid(unknown_counts_as_failed).1.is_empty());
}

#[test]
fn the_grid_catches_a_machine_that_takes_unhealthy_for_done() {
    assert!(!grid(unhealthy_counts_as_done).1.is_empty());
}

pub(super) fn end_of(
    patching: Patching,
    validity: Validity,
    rollback: Rollback,
    private: bool,
) -> (State, Option<Cause>, usize) {
    let scenario = Scenario { patching, validity, rollback, human: Human::Nobody, private };
    let run = play(next, scenario, &[]).unwrap();
    (run.rotation.state, run.rotation.cause, run.world.patches.len())
}

#[test]
fn each_outcome_ends_where_the_table_says() {
    use Patching as P;
    use Rollback as R;
    use State as S;
    use Validity as V;
    let table = [
        (P::Good, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::DropRequest, V::True, R::Good, false, (S::Completed, None, 2)),
        (P::DropReply, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::AppliedThen500, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::StaleReads, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::RateLimited, V::True, R::Good, false, (S::Completed, None, 2)),
        (P::RefusedBadKey, V::True, R::Good, false, (S::Failed, Some(Cause::Refused), 1)),
        (P::AuthLost, V::True, R::Good, false, (S::Completed, None, 2)),
        (P::Gone, V::True, R::Good, false, (S::Failed, Some(Cause::Gone), 1)),
        (P::Good, V::FalseOnce, R::Good, false, (S::Completed, None, 1)),
        (P::Good, V::SlowTrue, R::Good, false, (S::Completed, None, 1)),
        (P::Good, V::FalseForever, R::Good, false, (S::RolledBack, None, 2)),
        (P::Good, V::FalseForever, R::DropReply, false, (S::RolledBack, None, 2)),
        (P::Good, V::FalseForever, R::Refused, false, (S::NeedsOperator, Some(Cause::RollbackRefused), 2)),
        (P::Good, V::NetworkDenied, R::Good, false, (S::NeedsOperator, Some(Cause::KmsUnreachable), 1)),
        (P::Good, V::Absent, R::Good, false, (S::NeedsOperator, Some(Cause::Unproven), 1)),
        (P::Good, V::Blind, R::Good, false, (S::NeedsOperator, Some(Cause::Unreachable), 1)),
        (P::Good, V::BadLater, R::Good, false, (S::NeedsOperator, Some(Cause::NewKeyInvalid), 1)),
        (P::Good, V::BadLater, R::Good, true, (S::RolledBack, None, 2)),
        (P::Good, V::True, R::Good, true, (S::Completed, None, 1)),
    ];
    for (patching, validity, rollback, private, expected) in table {
        assert_eq!(
            end_of(patching, validity, rollback, private),
            expected,
            "{patching:?} {validity:?} {rollback:?} private={private}"
        );
    }
}
