//! `needs_operator`: pages, what heals by itself, and what an operator decides.

use super::*;
use keywheel::domain::rotation::machine::Announcement;
use keywheel::domain::rotation::state::ClusterProgress;

#[test]
fn a_page_leaves_the_machine_once_and_the_readings_go_on() {
    let it = stuck(Cause::Unproven);
    for minutes in [1, 15, 60, 1440] {
        let at = t(minutes * 60);
        let step = sees(&it, NEW, None, at);
        assert_eq!((&step.notices[..], step.rotation.operator), (&[][..], it.operator));
        assert_eq!(rests(&step), Some(at + Duration::from_secs(30)));
        assert_eq!(fails(&it, unknown(), at, Duration::from_secs(30)).notices, []);
    }
}

#[test]
fn a_page_begins_the_count_and_takes_every_hold_away() {
    let mut it = verifying();
    it.readings.trues = 2;
    it.hold = Some(keywheel::domain::rotation::state::Hold::Window);
    let step = sees(&it, NEW, None, t(600));
    let after = &step.rotation;
    assert_eq!(step.notices, [Announcement::Page]);
    assert_eq!((after.hold, after.readings.trues), (None, 0));
    assert_eq!(after.operator.paged_at, Some(t(600)));
    assert_eq!(rests(&step), Some(t(630)));
}

#[test]
fn an_operator_is_waited_for_as_long_as_atlas_wants_no_calls() {
    let it = stuck(Cause::Unproven);
    let asked = rests(&fails(&it, limited(45), t(1), Duration::from_secs(30))).unwrap();
    assert!(asked >= t(46) && asked < t(48), "{asked}");
    let brief = rests(&fails(&it, limited(3), t(1), Duration::from_secs(30)));
    assert_eq!(brief, Some(t(31)));
}

#[test]
fn a_refused_rollback_goes_forward_by_itself_once_the_new_key_works() {
    let mut it = stuck(Cause::RollbackRefused);
    let state = |it: &Rotation, shown, valid| sees(it, shown, valid, t(60)).rotation.state;
    for (trues, becomes) in [(1, State::NeedsOperator), (2, State::Verifying)] {
        it.readings.trues = trues;
        assert_eq!(state(&it, NEW, Some(true)), becomes);
    }
    let step = sees(&it, NEW, Some(true), t(60));
    let after = &step.rotation;
    assert_eq!((after.cause, after.rollback.healed, after.operator.paged_at), (None, true, None));
    assert_eq!((after.readings.since, after.patching.guard_deadline), (Some(t(60)), Some(t(840))));
    assert_eq!((after.readings.trues, after.rollback.since, rests(&step)), (0, None, Some(t(75))));
    assert_eq!(state(&it, NEW, None), State::NeedsOperator);
    let mut old = it.clone();
    old.observing.last.as_mut().unwrap().key = Some(key(OLD));
    assert_eq!(state(&old, OLD, Some(true)), State::NeedsOperator);
    // Once, and for this cause.
    let mut other = it.clone();
    other.cause = Some(Cause::NewKeyInvalid);
    assert_eq!(state(&other, NEW, Some(true)), State::NeedsOperator);
    it.rollback.healed = true;
    assert_eq!(state(&it, NEW, Some(true)), State::NeedsOperator);
}

#[test]
fn a_credential_that_is_accepted_again_goes_on_by_itself_where_the_key_works() {
    let mut it = stuck(Cause::Auth);
    for (trues, becomes) in [(1, State::NeedsOperator), (2, State::Verifying)] {
        it.readings.trues = trues;
        assert_eq!(sees(&it, NEW, Some(true), t(60)).rotation.state, becomes);
    }
    let step = sees(&it, NEW, Some(true), t(60));
    let after = &step.rotation;
    assert_eq!((after.cause, after.operator.paged_at, rests(&step)), (None, None, Some(t(75))));
    assert_eq!((after.readings.since, after.patching.guard_deadline), (Some(t(60)), Some(t(840))));
    for valid in [Some(false), None] {
        assert_eq!(sees(&it, NEW, valid, t(60)).rotation.state, State::NeedsOperator);
    }
    // The old key is in force: put back by us, or never changed.
    it.observing.last.as_mut().unwrap().key = Some(key(OLD));
    for (sent_old, becomes) in [(true, State::RollingBack), (false, State::Approved)] {
        it.patching.sent_old = sent_old;
        let expires_at = it.permission.expires_at;
        let after = sees(&it, OLD, Some(true), t(60)).rotation;
        assert_eq!((after.state, after.permission.expires_at), (becomes, expires_at));
        assert_eq!(after.rollback.since, sent_old.then_some(t(60)));
    }
    assert_eq!(sees(&it, super::super::world::OTHER, Some(true), t(60)).rotation.state, State::NeedsOperator);
}

#[test]
fn readings_of_another_key_do_not_count_for_this_one() {
    let mut it = stuck(Cause::RollbackRefused);
    it.readings.trues = 9;
    it.observing.last.as_mut().unwrap().key = Some(key(OLD));
    for (valid, trues) in [(Some(true), 1), (None, 0), (Some(false), 0)] {
        let step = sees(&it, NEW, valid, t(60));
        assert_eq!((step.rotation.state, step.rotation.readings.trues), (State::NeedsOperator, trues));
    }
}

fn note_update_of(name: &str, rotation: &mut Rotation) {
    rotation.rollout.clusters.push(ClusterProgress {
        name: name.to_owned(),
        seen_updating: true,
        idle: 2,
        exception: None,
    });
}

#[test]
fn resume_goes_on_from_what_atlas_holds() {
    let it = stuck(Cause::Unproven);
    let resumed = says(&it, Command::Resume, t(50));
    assert!(resumed.rotation.operator.resuming);
    assert_eq!((ends(&resumed), rests(&resumed)), ((State::NeedsOperator, it.cause), Some(t(50))));
    let mut resuming = resumed.rotation;
    (resuming.patching.tries, resuming.patching.retry_at) = (7, Some(t(9999)));
    note_update_of("a", &mut resuming);
    let forward = sees(&resuming, NEW, Some(true), t(60));
    assert_eq!((ends(&forward), rests(&forward)), ((State::Verifying, None), Some(t(75))));
    let after = &forward.rotation;
    assert_eq!((after.operator.resuming, after.operator.paged_at), (false, None));
    assert_eq!((after.readings.since, after.patching.guard_deadline), (Some(t(60)), Some(t(840))));
    assert_eq!((after.readings.trues, after.readings.round), (0, 1));
    // An update from before says nothing of the key that Atlas shows now.
    assert!(after.rollout.clusters.is_empty());
    let back = sees(&resuming, OLD, Some(true), t(60));
    assert_eq!((ends(&back), rests(&back)), ((State::Approved, None), Some(t(60))));
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(back.rotation.permission.expires_at, t(60) + week);
    assert_eq!((back.rotation.patching.tries, back.rotation.patching.retry_at), (0, None));
    let other = sees(&resuming, super::super::world::OTHER, Some(true), t(60));
    assert_eq!(ends(&other), (State::Superseded, Some(Cause::KeyChanged)));
    let none = Look { seen: observation(None, None, t(60)), ..look(NEW, None, t(60)) };
    assert_eq!(ends(&looks(&resuming, none)), (State::Superseded, Some(Cause::ConfigChanged)));
}

#[test]
fn an_ordered_rollback_begins_with_new_deadlines_and_needs_a_patch_that_was_sent() {
    let mut it = stuck(Cause::NewKeyInvalid);
    it.patching.tries = 5;
    it.operator.resuming = true;
    let step = says(&it, Command::Rollback, t(1000));
    let after = &step.rotation;
    assert_eq!((ends(&step), after.wake_at), ((State::RollingBack, None), Some(t(1000))));
    assert_eq!((after.rollback.ordered, after.rollback.since), (true, Some(t(1000))));
    assert_eq!((after.operator.paged_at, after.operator.resuming), (None, false));
    assert_eq!((after.patching.guard_deadline, after.patching.tries), (Some(t(1780)), 0));
    it.patching.attempts = 0;
    assert!(says(&it, Command::Rollback, t(1000)).illegal);
}

#[test]
fn an_operator_may_accept_a_new_key_that_was_observed_lately_and_is_not_bad() {
    let legal = |shown, valid, ago| {
        let mut it = stuck(Cause::Unproven);
        it.observing.last = Some(observation(Some(shown), valid, t(100) - ago));
        !says(&it, Command::Accept, t(100)).illegal
    };
    let minute = Duration::from_secs(60);
    assert!(legal(NEW, Some(true), minute) && legal(NEW, None, minute));
    assert!(!legal(NEW, Some(true), minute + TICK) && !legal(NEW, Some(false), minute));
    assert!(!legal(OLD, Some(true), minute));
    let mut never = stuck(Cause::Unproven);
    never.observing.last = None;
    assert!(says(&never, Command::Accept, t(100)).illegal);
}
