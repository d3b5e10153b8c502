//! What the machine decides, case by case.

use super::world::{NEW, OLD, PLAIN, World, key, propose};
use keywheel::domain::key::{Place, Provider};
use keywheel::domain::preflight::{Check, CheckName, Verdict};
use keywheel::domain::rotation::machine::{Announcement, Effect, extras, next};
use keywheel::domain::rotation::outcome::{Command, Look, Observation, Outcome};
use keywheel::domain::rotation::state::{Cause, Hold, State, Target};
use keywheel::domain::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn looks_that_always_come_too_late_page_when_the_guard_is_over() {
    let mut world = World::new(PLAIN);
    let mut rotation = propose(&world);
    let patched = next(&rotation, &Outcome::Looked(world.look(extras(&rotation)).unwrap()), world.now);
    let reply = world.patch(Target::New);
    rotation = next(&patched.rotation, &Outcome::Replied(reply), world.now).rotation;
    // An overloaded daemon: each look is later than two cadences after the last.
    for _ in 0..40 {
        world.pass(Duration::from_secs(40));
        let look = world.look(extras(&rotation)).unwrap();
        rotation = next(&rotation, &Outcome::Looked(look), world.now).rotation;
    }
    assert_eq!((rotation.state, rotation.cause), (State::NeedsOperator, Some(Cause::Unproven)));
}

#[test]
fn every_verb_is_legal_where_it_means_something() {
    use State as S;
    let world = World::new(PLAIN);
    let before = [S::AwaitingApproval, S::Approved];
    let stuck = [S::NeedsOperator];
    let table: [(Command, &[State]); 8] = [
        (Command::Approve { given: 1 }, &[S::AwaitingApproval]),
        (Command::Withdraw { given: 0 }, &before),
        (Command::Reject, &before),
        (Command::Cancel, &before),
        (Command::Resume, &stuck),
        (Command::Rollback, &stuck),
        (Command::Accept, &stuck),
        (Command::Close, &stuck),
    ];
    for state in State::ALL {
        for (command, legal) in &table {
            let mut rotation = propose(&world);
            rotation.state = *state;
            // A PATCH was sent, and Atlas shows the new key, valid.
            rotation.patching.attempts = 1;
            rotation.observing.last =
                Some(Observation { key: Some(key(NEW)), ..rotation.observing.last.unwrap() });
            let step = next(&rotation, &Outcome::Said(command.clone()), world.now);
            assert_eq!(!step.illegal, legal.contains(state), "{command:?} in {state}");
            if step.illegal {
                assert_eq!((step.rotation, step.effect, step.notices.len()), (rotation, Effect::Rest, 0));
            }
        }
    }
    // Nothing to put back, and nothing to take, where no PATCH was sent and the new key is not seen.
    let mut rotation = propose(&world);
    rotation.state = S::NeedsOperator;
    for command in [Command::Rollback, Command::Accept] {
        assert!(next(&rotation, &Outcome::Said(command), world.now).illegal);
    }
}

/// A look before the PATCH with a checklist of one line.
pub(super) fn checked(now: Timestamp, result: Verdict) -> Look {
    Look {
        seen: Observation {
            at: now,
            provider: Some(Provider::Aws),
            key: Some(key(OLD)),
            valid: Some(true),
            private_networking: false,
            place: Place::default(),
            block_hash: String::new(),
            invalid_beside: None,
            skew_ms: Some(0),
        },
        network_denied: None,
        clusters: Some(Vec::new()),
        checks: Some(vec![Check { name: CheckName::KeyEnabled, result, detail: "seen".to_owned() }]),
        unanswered: BTreeMap::new(),
    }
}

#[test]
fn a_check_that_fails_holds_the_patch_and_is_told_when_it_begins() {
    let mut world = World::new(PLAIN);
    let mut rotation = propose(&world);
    assert!(extras(&rotation).preflight, "asked for before a PATCH");
    for (verdict, told) in [(Verdict::Fail, true), (Verdict::Fail, false)] {
        world.pass(Duration::from_secs(30));
        let step = next(&rotation, &Outcome::Looked(checked(world.now, verdict)), world.now);
        assert_eq!((step.rotation.state, step.rotation.hold), (State::Approved, Some(Hold::Preflight)));
        assert_eq!(step.notices.contains(&Announcement::PreflightFailed), told);
        assert_eq!((step.effect, step.rotation.observing.checks[0].result), (Effect::Rest, Verdict::Fail));
        rotation = step.rotation;
    }
    // A warning is the approver's business.
    let step = next(&rotation, &Outcome::Looked(checked(world.now, Verdict::Warn)), world.now);
    assert_eq!((step.rotation.state, step.effect), (State::Applying, Effect::Patch(Target::New)));
    assert!(!extras(&step.rotation).preflight);
}
