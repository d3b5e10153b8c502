//! `verifying`: what readings amount to.

use super::*;

fn bad(at: Timestamp, denied: Option<bool>) -> Look {
    Look { network_denied: denied, ..look(NEW, Some(false), at) }
}

#[test]
fn as_many_true_readings_as_are_wanted_verify_a_key() {
    let mut it = verifying();
    for (trues, state) in [(1, State::Verifying), (2, State::Deploying)] {
        it.readings.trues = trues;
        let step = sees(&it, NEW, Some(true), t(45));
        assert_eq!(step.rotation.state, state);
        assert_eq!(step.rotation.readings.trues, trues + 1);
    }
    let step = sees(&it, NEW, Some(true), t(45));
    let readings = &step.rotation.readings;
    assert_eq!((readings.valid_at, readings.false_since), (Some(t(45)), None));
    assert_eq!(step.rotation.rollout.since, Some(t(45)));
    assert_eq!(rests(&step), Some(t(75)));
    // An absent reading interrupts, and is no fall.
    let step = sees(&it, NEW, None, t(45));
    let readings = &step.rotation.readings;
    assert_eq!((readings.trues, readings.flaps, readings.false_since), (0, 0, None));
    assert_eq!(rests(&step), Some(t(60)));
}

#[test]
fn private_networking_holds_what_is_verified_until_the_nodes_have_reported() {
    let mut it = verifying();
    it.readings.trues = 40;
    let at = |secs, private| {
        let mut look = look(NEW, Some(true), secs);
        look.seen.private_networking = private;
        looks(&it, look).rotation.state
    };
    assert_eq!(at(t(960) - TICK, true), State::Verifying);
    assert_eq!(at(t(960), true), State::Deploying);
    assert_eq!(at(t(20), false), State::Deploying);
}

#[test]
fn a_key_is_bad_after_its_grace_or_too_many_falls_and_not_before() {
    let state = |it: &Rotation, at| looks(it, bad(at, Some(false))).rotation.state;
    let mut it = verifying();
    it.readings.false_since = Some(t(0));
    assert_eq!(state(&it, t(60)), State::Verifying);
    assert_eq!(state(&it, t(60) + TICK), State::RollingBack);
    it.readings.false_since = Some(t(50));
    for (flaps, becomes) in [(2, State::Verifying), (3, State::RollingBack)] {
        it.readings.flaps = flaps;
        assert_eq!(state(&it, t(60)), becomes);
    }
    // A fall counts where a true reading was before, and only there.
    for (trues, flaps) in [(0, 2), (1, 3)] {
        (it.readings.trues, it.readings.flaps) = (trues, 2);
        assert_eq!(looks(&it, bad(t(60), Some(true))).rotation.readings.flaps, flaps);
    }
}

#[test]
fn nothing_is_decided_before_a_full_round_of_readings() {
    let mut it = verifying();
    it.readings.false_since = Some(t(0));
    for (round, state) in [(1, State::Verifying), (2, State::RollingBack)] {
        it.readings.round = round;
        assert_eq!(looks(&it, bad(t(700), Some(false))).rotation.state, state);
        let missing = sees(&it, NEW, None, t(600));
        assert_eq!(missing.rotation.state == State::NeedsOperator, state == State::RollingBack);
    }
}

#[test]
fn the_timeout_pages_without_a_false_reading_and_rolls_back_with_one() {
    let mut it = verifying();
    assert_eq!(ends(&sees(&it, NEW, None, t(600) - TICK)), (State::Verifying, None));
    let unproven = (State::NeedsOperator, Some(Cause::Unproven));
    assert_eq!(ends(&sees(&it, NEW, None, t(600))), unproven);
    assert_eq!(ends(&sees(&it, NEW, Some(true), t(600))), unproven);
    // False lately, absent now: nothing is rolled back on what is missing.
    it.readings.false_since = Some(t(590));
    assert_eq!(ends(&sees(&it, NEW, None, t(600))), unproven);
    assert_eq!(ends(&looks(&it, bad(t(600) - TICK, Some(false)))), (State::Verifying, None));
    assert_eq!(ends(&looks(&it, bad(t(600), Some(false)))), (State::RollingBack, None));
}

#[test]
fn a_bad_key_waits_for_the_alerts_that_tell_it_from_a_network() {
    let mut it = verifying();
    it.readings.false_since = Some(t(0));
    let denied = looks(&it, bad(t(100), Some(true)));
    assert_eq!(ends(&denied), (State::NeedsOperator, Some(Cause::KmsUnreachable)));
    // They were asked for and not answered.
    let waits = looks(&it, bad(t(100), None));
    assert_eq!((ends(&waits), rests(&waits)), ((State::Verifying, None), Some(t(115))));
    assert_eq!(waits.rotation.readings.alerts_unanswered_since, Some(t(100)));
    // One request without an answer is not enough, however late it is.
    assert_eq!(ends(&looks(&it, bad(t(500), None))), (State::Verifying, None));
    it.readings.alerts_unanswered_since = Some(t(440) + TICK);
    assert_eq!(ends(&looks(&it, bad(t(500), None))), (State::Verifying, None));
    it.readings.alerts_unanswered_since = Some(t(440));
    assert_eq!(ends(&looks(&it, bad(t(500), None))), (State::RollingBack, None));
    // The second half of the guard is kept for the way back.
    it.readings.alerts_unanswered_since = Some(t(15));
    assert_eq!(ends(&looks(&it, bad(t(390) - TICK, None))), (State::Verifying, None));
    assert_eq!(ends(&looks(&it, bad(t(390), None))), (State::RollingBack, None));
    assert_eq!(ends(&looks(&it, bad(t(780) - TICK, None))), (State::RollingBack, None));
    assert_eq!(ends(&looks(&it, bad(t(780), None))), (State::NeedsOperator, Some(Cause::Unproven)));
    // They were not asked for yet: the first false reading comes with the timeout.
    it.readings.false_since = None;
    let asks = looks(&it, bad(t(780), None));
    assert_eq!(ends(&asks), (State::Verifying, None));
    assert!(matches!(asks.effect, Effect::Look(extras) if extras.alerts));
}

#[test]
fn a_key_that_somebody_else_set_has_a_guard_too() {
    let mut it = applying(Some(PatchReply::NotTaken(failure(Class::Transient, Some(429)))));
    (it.patching.first_at, it.patching.guard_deadline) = (None, None);
    let step = sees(&it, NEW, Some(true), t(100));
    assert_eq!(step.rotation.state, State::Verifying);
    assert_eq!(step.rotation.patching.guard_deadline, Some(t(100 + 780)));
    // A guard that runs already does not begin anew.
    it.patching.guard_deadline = Some(t(300));
    let step = sees(&it, NEW, Some(true), t(100));
    assert_eq!(step.rotation.patching.guard_deadline, Some(t(300)));
}

#[test]
fn the_first_bad_report_on_private_networking_begins_the_guard_anew() {
    let guard = |private, trues, flaps, valid| {
        let mut it = verifying();
        (it.readings.trues, it.readings.flaps) = (trues, flaps);
        let mut look = look(NEW, valid, t(500));
        look.seen.private_networking = private;
        looks(&it, look).rotation.patching.guard_deadline
    };
    assert_eq!(guard(true, 3, 0, Some(false)), Some(t(500 + 780)));
    for (private, trues, flaps, valid) in [
        (false, 3, 0, Some(false)),
        (true, 2, 0, Some(false)),
        (true, 3, 1, Some(false)),
        (true, 3, 0, Some(true)),
        (true, 3, 0, None),
    ] {
        assert_eq!(guard(private, trues, flaps, valid), Some(t(780)));
    }
}

#[test]
fn observations_with_gaps_between_them_page_at_the_guard() {
    let state = |gaps, at| {
        let mut it = verifying();
        (it.readings.gaps, it.readings.round) = (gaps, 0);
        ends(&sees(&it, NEW, None, at))
    };
    assert_eq!(state(4, t(780)), (State::NeedsOperator, Some(Cause::Unproven)));
    assert_eq!(state(3, t(780)), (State::Verifying, None));
    assert_eq!(state(4, t(780) - TICK), (State::Verifying, None));
}

#[test]
fn a_gap_forgets_the_readings_before_it() {
    let mut it = verifying();
    let before = |it: &mut Rotation, ago| {
        (it.readings.trues, it.readings.round, it.readings.gaps) = (2, 9, 1);
        it.readings.false_since = Some(t(0));
        it.observing.last.as_mut().unwrap().at = t(40) - ago;
        next(it, &Outcome::Looked(look(NEW, None, t(40))), t(40)).rotation.readings
    };
    let kept = before(&mut it, Duration::from_secs(30));
    assert_eq!((kept.round, kept.gaps, kept.false_since), (10, 0, Some(t(0))));
    let lost = before(&mut it, Duration::from_secs(30) + TICK);
    assert_eq!((lost.round, lost.gaps, lost.false_since), (1, 2, None));
    // One reading more than before the gap does not verify, either.
    (it.readings.trues, it.readings.round) = (2, 9);
    it.observing.last.as_mut().unwrap().at = t(0);
    assert_eq!(
        next(&it, &Outcome::Looked(look(NEW, Some(true), t(40))), t(40)).rotation.state,
        State::Verifying
    );
    it.observing.last = None;
    assert_eq!(
        next(&it, &Outcome::Looked(look(NEW, Some(true), t(40))), t(40)).rotation.state,
        State::Verifying
    );
    // Gaps are forgotten with a full round.
    for (round, gaps) in [(1, 2), (2, 0)] {
        (it.readings.round, it.readings.gaps) = (round, 2);
        it.observing.last = verifying().observing.last;
        assert_eq!(sees(&it, NEW, None, t(40)).rotation.readings.gaps, gaps);
    }
}

#[test]
fn an_old_key_soon_after_the_patch_is_a_stale_read_and_later_a_revert() {
    for it in [verifying(), deploying(), rolling_back()] {
        let stale = sees(&it, OLD, Some(true), t(120) - TICK);
        assert_eq!((ends(&stale), rests(&stale)), ((it.state, None), Some(t(135) - TICK)));
        let reverted = sees(&it, OLD, Some(true), t(120));
        assert_eq!(ends(&reverted), (State::Superseded, Some(Cause::Reverted)));
    }
    // Our own rollback may have arrived late: it is verified.
    for mut it in [verifying(), deploying()] {
        it.patching.sent_old = true;
        let step = sees(&it, OLD, Some(true), t(120));
        assert_eq!(ends(&step), (State::RollingBack, None));
        assert!(matches!(step.effect, Effect::Look(_)));
    }
}

#[test]
fn the_first_sight_of_the_new_key_begins_the_readings() {
    let mut it = applying(Some(PatchReply::Unknown(unknown())));
    it.hold = Some(keywheel::domain::rotation::state::Hold::Window);
    (it.readings.trues, it.readings.flaps, it.readings.round) = (2, 3, 9);
    it.readings.false_since = Some(t(0));
    it.patching.unknown_at = Some(t(0));
    it.rollout.clusters = deploying().rollout.clusters;
    let step =
        looks(&it, Look { clusters: Some(vec![cluster("a", "UPDATING")]), ..look(NEW, Some(true), t(5)) });
    let after = &step.rotation;
    assert_eq!((after.state, after.hold, after.patching.patched_at), (State::Verifying, None, Some(t(5))));
    assert_eq!((after.patching.unknown_at, after.readings.since), (None, Some(t(5))));
    let readings = &after.readings;
    assert_eq!((readings.trues, readings.flaps, readings.round, readings.false_since), (1, 0, 1, None));
    assert!(after.rollout.clusters[0].seen_updating);
}

#[test]
fn a_stale_read_between_two_readings_begins_their_count_again() {
    let mut it = verifying();
    it.patching.latest.as_mut().unwrap().sent_at = t(0);
    it.readings.trues = 2;
    let stale = sees(&it, OLD, Some(true), t(30));
    assert_eq!((ends(&stale), rests(&stale)), ((State::Verifying, None), Some(t(45))));
    assert_eq!(ends(&sees(&stale.rotation, NEW, Some(true), t(45))), (State::Verifying, None));
    assert_eq!(ends(&sees(&it, NEW, Some(true), t(30))), (State::Deploying, None));
}
