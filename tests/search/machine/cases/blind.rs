//! Atlas could not be read.

use super::*;
use keywheel::domain::rotation::machine::{Resume, extras, resume};
use keywheel::domain::rotation::outcome::Extras;
use keywheel::domain::rotation::state::Hold;

const FRESH: Duration = Duration::from_secs(15);
const OLDER: Duration = Duration::from_secs(31);

fn awaiting() -> Rotation {
    let mut it = approved();
    it.state = State::AwaitingApproval;
    it
}

#[test]
fn before_a_patch_the_reason_is_shown_and_only_a_project_that_is_gone_ends_the_rotation() {
    for it in [awaiting(), approved()] {
        let told = |class| fails(&it, failure(class, Some(500)), t(0), FRESH);
        assert_eq!(ends(&told(Class::Gone)), (State::Failed, Some(Cause::Gone)));
        for (class, hold) in [
            (Class::Auth, Hold::AtlasAuth),
            (Class::TooOld, Hold::TooOld),
            (Class::Unknown, Hold::AtlasUnreachable),
            (Class::Transient, Hold::AtlasUnreachable),
            (Class::Config, Hold::AtlasUnreachable),
        ] {
            let step = told(class);
            assert_eq!((ends(&step), step.rotation.hold), ((it.state, None), Some(hold)));
        }
    }
}

#[test]
fn permission_lapses_although_atlas_cannot_be_read_unless_the_clocks_disagree() {
    for mut it in [awaiting(), approved()] {
        let state = it.state;
        it.permission.expires_at = t(0);
        assert_eq!(ends(&fails(&it, unknown(), t(0), FRESH)), (State::Expired, None));
        assert_eq!(ends(&fails(&it, unknown(), t(0) - TICK, FRESH)), (state, None));
        it.observing.last.as_mut().unwrap().skew_ms = Some(120_001);
        assert_eq!(ends(&fails(&it, unknown(), t(0), FRESH)), (state, None));
    }
}

#[test]
fn a_wait_ends_at_the_lapse_of_permission() {
    let mut it = approved();
    it.permission.expires_at = t(5);
    assert_eq!(rests(&fails(&it, limited(45), t(0), FRESH)), Some(t(5)));
    it.permission.expires_at = t(500);
    let until = rests(&fails(&it, limited(45), t(0), FRESH)).unwrap();
    assert!(until >= t(45) && until < t(47), "{until}");
}

#[test]
fn a_wait_that_runs_is_not_begun_anew() {
    let mut it = verifying();
    it.observing.not_before = Some(t(30));
    let waits = |at| fails(&it, limited(45), at, FRESH).rotation.observing.not_before.unwrap();
    assert_eq!(waits(t(30) - TICK), t(30));
    assert!(waits(t(30)) >= t(75));
}

#[test]
fn only_a_limit_of_atlas_forbids_calls_and_a_worker_that_takes_over_keeps_to_it() {
    let plain = fails(&verifying(), unknown(), t(0), FRESH).rotation;
    assert_eq!((plain.observing.not_before, plain.observing.failures), (None, 1));
    assert_eq!(resume(&plain, t(0)), Resume::Look(extras(&plain)));
    for limit in [limited(45), failure(Class::Transient, Some(429))] {
        let it = fails(&verifying(), limit.clone(), t(0), FRESH).rotation;
        let until = it.observing.not_before.unwrap();
        assert_eq!(resume(&it, until - TICK), Resume::Blind(limit));
        assert_eq!(resume(&it, until), Resume::Look(extras(&it)));
        // The next answer ends it.
        let seen = sees(&it, NEW, Some(true), until).rotation.observing;
        assert_eq!((seen.not_before, seen.failures), (None, 0));
    }
}

#[test]
fn each_failure_in_a_row_lengthens_the_wait() {
    let mut it = approved();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let step = fails(&it, unknown(), t(0), FRESH);
        waits.push(t(0).until(rests(&step).unwrap()).as_millis());
        it = step.rotation;
    }
    for (wait, plain) in waits.iter().zip([1000, 2000, 4000, 8000]) {
        assert!((plain * 8 / 10..=plain * 12 / 10).contains(wait), "{waits:?}");
    }
}

#[test]
fn applying_goes_back_to_approved_only_if_nothing_that_counts_was_sent_and_permission_lapsed() {
    let state = |guard, expires_at| {
        let mut it = applying(Some(PatchReply::NotTaken(limited(1))));
        (it.patching.guard_deadline, it.permission.expires_at) = (guard, expires_at);
        fails(&it, unknown(), t(9), FRESH).rotation.state
    };
    assert_eq!(state(None, t(9)), State::Approved);
    assert_eq!(state(None, t(9) + TICK), State::Applying);
    assert_eq!(state(Some(t(780)), t(9)), State::Applying);
}

#[test]
fn applying_pages_at_the_guard_although_nothing_is_known() {
    let it = applying(Some(PatchReply::Unknown(unknown())));
    let before = fails(&it, limited(45), t(780) - TICK, OLDER);
    assert_eq!((ends(&before), rests(&before)), ((State::Applying, None), Some(t(780))));
    assert_eq!(ends(&fails(&it, unknown(), t(780), FRESH)), (State::NeedsOperator, Some(Cause::Unreachable)));
}

#[test]
fn after_the_patch_a_lost_project_pages() {
    for it in [verifying(), deploying(), rolling_back()] {
        let step = fails(&it, failure(Class::Gone, None), t(1), FRESH);
        assert_eq!(ends(&step), (State::NeedsOperator, Some(Cause::Gone)));
    }
}

#[test]
fn after_the_patch_a_refused_credential_is_borne_until_the_guard() {
    for it in [verifying(), rolling_back()] {
        let step = |at| fails(&it, failure(Class::Auth, Some(403)), at, OLDER);
        assert_eq!(ends(&step(t(780) - TICK)), (it.state, None));
        assert_eq!(ends(&step(t(780))), (State::NeedsOperator, Some(Cause::Auth)));
    }
    let mut it = deploying();
    assert_eq!(ends(&fails(&it, failure(Class::Auth, None), t(1), FRESH)), (State::Deploying, None));
    it.observing.failures = 2;
    let unread = Duration::from_secs(600);
    assert_eq!(
        ends(&fails(&it, failure(Class::Auth, None), t(900), unread)),
        (State::NeedsOperator, Some(Cause::Auth))
    );
}

#[test]
fn the_guard_pages_blind_only_when_the_last_observation_is_old() {
    let at_guard = |it: &Rotation, unseen, at| ends(&fails(it, unknown(), at, unseen));
    let limit = Duration::from_secs(30);
    for (it, cause) in [(verifying(), Cause::Unreachable), (rolling_back(), Cause::RollbackUnproven)] {
        let stays = (it.state, None);
        assert_eq!(at_guard(&it, limit, t(780)), stays);
        assert_eq!(at_guard(&it, limit + TICK, t(780)), (State::NeedsOperator, Some(cause)));
        assert_eq!(at_guard(&it, OLDER, t(780) - TICK), stays);
    }
    let mut never = verifying();
    never.observing.last = None;
    assert_eq!(at_guard(&never, OLDER, t(780)), (State::NeedsOperator, Some(Cause::Unreachable)));
    // What the roll-out's wait says means nothing outside of it.
    let mut it = verifying();
    it.rollout.since = Some(t(0));
    it.patching.guard_deadline = Some(t(90_000));
    assert_eq!(at_guard(&it, OLDER, t(80_000)), (State::Verifying, None));
}

#[test]
fn a_roll_out_that_nobody_sees_pages_after_as_long_as_a_verification() {
    let mut it = deploying();
    it.observing.failures = 2;
    let (unread, less) = (Duration::from_secs(600), Duration::from_millis(599_999));
    // The guard is over, and means nothing any more.
    assert_eq!(ends(&fails(&it, unknown(), t(780), less)), (State::Deploying, None));
    let paged = (State::NeedsOperator, Some(Cause::Unreachable));
    assert_eq!(ends(&fails(&it, unknown(), t(780), unread)), paged);
    assert_eq!(ends(&fails(&it, unknown(), t(6 * 3600), FRESH)), (State::Deploying, None));
    // After a restart, one failed reading says nothing.
    it.observing.failures = 0;
    assert_eq!(ends(&fails(&it, unknown(), t(780), unread)), (State::Deploying, None));
}

fn deploying_since(it: &Rotation) -> Rotation {
    Rotation { state: State::Deploying, ..it.clone() }
}

#[test]
fn a_reading_that_is_due_is_not_put_off_by_backoff_but_by_atlas() {
    let mut it = verifying();
    it.observing.failures = 9;
    assert_eq!(rests(&fails(&it, unknown(), t(1), FRESH)), Some(t(16)));
    it.observing.failures = 0;
    let soon = rests(&fails(&it, unknown(), t(1), FRESH)).unwrap();
    assert!(soon < t(3), "{soon}");
    let asked = rests(&fails(&it, limited(45), t(1), FRESH)).unwrap();
    assert!(asked >= t(46), "{asked}");
    // While a key is proven, for a third of what is left of the guard at most.
    it.patching.guard_deadline = Some(t(301));
    assert_eq!(rests(&fails(&it, limited(86_400), t(1), FRESH)), Some(t(101)));
    // After the guard as often as a roll-out is read; before a PATCH for five minutes.
    it.patching.guard_deadline = Some(t(0));
    assert_eq!(rests(&fails(&deploying_since(&it), limited(86_400), t(1), FRESH)), Some(t(31)));
    assert_eq!(rests(&fails(&approved(), limited(86_400), t(1), FRESH)), Some(t(301)));
    // The guard wakes it all the same.
    it.patching.guard_deadline = Some(t(20));
    assert_eq!(rests(&fails(&it, limited(45), t(1), FRESH)), Some(t(16)));
    // A roll-out is read less often.
    it = deploying();
    it.observing.failures = 9;
    let backoff = rests(&fails(&it, unknown(), t(1), FRESH)).unwrap();
    assert!(backoff >= t(25) && backoff <= t(31), "{backoff}");
}

#[test]
fn an_observation_brings_what_its_state_decides_on() {
    let wants = |it: &Rotation| {
        let Extras { alerts, clusters, preflight } = extras(it);
        (alerts, clusters, preflight)
    };
    assert_eq!(wants(&approved()), (false, true, true));
    assert_eq!(wants(&applying(None)), (false, true, false));
    assert_eq!(wants(&deploying()), (false, true, false));
    for it in [awaiting(), rolling_back(), stuck(Cause::Unproven)] {
        assert_eq!(wants(&it), (false, false, false));
    }
    // Alerts from the first bad reading on.
    let mut it = verifying();
    assert_eq!(wants(&it), (false, true, false));
    it.readings.false_since = Some(t(0));
    assert_eq!(wants(&it), (true, true, false));
    (it.readings.false_since, it.readings.flaps) = (None, 1);
    assert_eq!(wants(&it), (true, true, false));
    it.state = State::Deploying;
    assert_eq!(wants(&it), (false, true, false));
}

/// An API version that Atlas has retired ends nothing: the key is looked at until the guard is over, as when Atlas is silent.
#[test]
fn a_version_that_atlas_has_retired_ends_nothing() {
    for it in [applying(Some(PatchReply::Accepted)), verifying(), rolling_back()] {
        let step = fails(&it, failure(Class::TooOld, Some(410)), t(1), FRESH);
        assert_eq!(ends(&step), (it.state, None), "{:?}", it.state);
    }
    let mut it = applying(None);
    for at in [1, 2, 900] {
        it = next(&it, &Outcome::Replied(PatchReply::NotTaken(failure(Class::TooOld, Some(410)))), t(at))
            .rotation;
        assert_eq!(it.state, State::Applying);
    }
}
