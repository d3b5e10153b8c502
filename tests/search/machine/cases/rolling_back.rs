//! `rolling_back`: before and after PATCH(old), and the verification of the old key.

use super::*;

#[test]
fn only_a_false_reading_or_an_operator_sends_the_old_key() {
    let mut it = rolling_back();
    let effect = |it: &Rotation, valid| sees(it, NEW, valid, t(9)).effect;
    assert_eq!(effect(&it, Some(false)), Effect::Patch(Target::Old));
    assert_eq!((effect(&it, Some(true)), effect(&it, None)), (Effect::Rest, Effect::Rest));
    assert_eq!(rests(&sees(&it, NEW, None, t(9))), Some(t(24)));
    it.rollback.ordered = true;
    for valid in [Some(true), Some(false), None] {
        assert_eq!(effect(&it, valid), Effect::Patch(Target::Old));
    }
    let sent = sees(&it, NEW, None, t(9)).rotation;
    assert!(sent.patching.sent_old);
    // The guard counts on from the first PATCH.
    assert_eq!((sent.patching.first_at, sent.patching.guard_deadline), (Some(t(0)), Some(t(780))));
}

#[test]
fn an_old_key_that_was_not_valid_is_no_way_back() {
    let mut it = rolling_back();
    it.rollback.old_key_was_valid = false;
    it.rollback.ordered = true;
    assert_eq!(ends(&sees(&it, NEW, Some(false), t(9))), (State::NeedsOperator, Some(Cause::OldKeyInvalid)));
}

#[test]
fn a_new_key_that_recovers_before_anything_left_goes_forward_once() {
    let mut it = rolling_back();
    let state = |it: &Rotation| sees(it, NEW, Some(true), t(9)).rotation.state;
    for (trues, becomes) in [(1, State::RollingBack), (2, State::Verifying)] {
        it.readings.trues = trues;
        assert_eq!(state(&it), becomes);
    }
    let step = sees(&it, NEW, Some(true), t(9));
    let after = &step.rotation;
    assert_eq!((after.rollback.returned, after.rollback.since, rests(&step)), (true, None, Some(t(24))));
    assert_eq!((after.readings.since, after.readings.trues, after.readings.round), (Some(t(9)), 0, 1));
    it.rollback.returned = true;
    assert_eq!(state(&it), State::RollingBack);
    (it.rollback.returned, it.rollback.ordered) = (false, true);
    assert_eq!(state(&it), State::RollingBack);
}

#[test]
fn no_old_key_leaves_after_the_guard() {
    for mut it in [rolling_back(), sent_back(Some(PatchReply::Unknown(unknown())))] {
        let seen = |it: &Rotation, at| sees(it, NEW, Some(false), at);
        assert_eq!(seen(&it, t(780) - TICK).effect, Effect::Patch(Target::Old));
        let paged = (State::NeedsOperator, Some(Cause::RollbackUnproven));
        assert_eq!(ends(&seen(&it, t(780))), paged);
        it.patching.guard_deadline = None;
        assert_eq!(seen(&it, t(780)).effect, Effect::Patch(Target::Old));
    }
}

#[test]
fn the_old_key_waits_until_the_patch_of_a_dead_sender_can_take_effect_no_more() {
    let mut it = rolling_back();
    let patch = it.patching.latest.as_mut().unwrap();
    patch.interrupted = true;
    // Its deadline is t(30), and Atlas may show it two minutes later.
    let waits = sees(&it, NEW, Some(false), t(150) - TICK);
    assert_eq!((ends(&waits), rests(&waits)), ((State::RollingBack, None), Some(t(165) - TICK)));
    assert_eq!(sees(&it, NEW, Some(false), t(150)).effect, Effect::Patch(Target::Old));
    it.patching.latest.as_mut().unwrap().interrupted = false;
    assert_eq!(sees(&it, NEW, Some(false), t(1)).effect, Effect::Patch(Target::Old));
}

#[test]
fn a_refusal_of_the_old_key_pages_and_anything_else_is_tried_again() {
    let refused = PatchReply::Refused(failure(Class::Refused, Some(400)));
    let refused = sees(&sent_back(Some(refused)), NEW, Some(false), t(1));
    assert_eq!(ends(&refused), (State::NeedsOperator, Some(Cause::RollbackRefused)));
    let accepted = sent_back(Some(PatchReply::Accepted));
    let waits = sees(&accepted, NEW, Some(false), t(120) - TICK);
    assert_eq!((ends(&waits), rests(&waits)), ((State::RollingBack, None), Some(t(135) - TICK)));
    assert_eq!(sees(&accepted, NEW, Some(false), t(120)).effect, Effect::Patch(Target::Old));
    let mut lost = sent_back(Some(PatchReply::Unknown(unknown())));
    lost.patching.retry_at = Some(t(7));
    assert_eq!(rests(&sees(&lost, NEW, Some(false), t(7) - TICK)), Some(t(7)));
    let again = sees(&lost, NEW, Some(false), t(7));
    assert_eq!((again.effect, again.rotation.patching.attempts), (Effect::Patch(Target::Old), 3));
    assert!(again.rotation.patching.sent_old);
}

#[test]
fn the_patch_of_an_earlier_rollback_says_nothing_of_this_one() {
    let refused = PatchReply::Refused(failure(Class::Refused, Some(400)));
    let mut it = sent_back(Some(refused));
    it.rollback.since = Some(t(0) + TICK);
    assert_eq!(sees(&it, NEW, Some(false), t(5)).effect, Effect::Patch(Target::Old));
}

#[test]
fn a_reply_to_the_old_key_that_shuts_us_out_pages() {
    let gone = PatchReply::Gone(failure(Class::Gone, Some(404)));
    let step = next(&sent_back(None), &Outcome::Replied(gone), t(1));
    assert_eq!(ends(&step), (State::NeedsOperator, Some(Cause::Gone)));
    // A refused credential is tried again within the guard.
    let refused = PatchReply::Auth(failure(Class::Auth, Some(403)));
    let borne = next(&sent_back(None), &Outcome::Replied(refused), t(1)).rotation;
    assert_eq!((borne.state, borne.cause), (State::RollingBack, None));
    let again = borne.patching.retry_at.unwrap();
    assert!(again < t(60), "{again}");
    assert_eq!(sees(&borne, NEW, Some(false), again).effect, Effect::Patch(Target::Old));
    assert_eq!(ends(&sees(&borne, NEW, Some(false), t(780))), (State::NeedsOperator, Some(Cause::Auth)));
    // And no reply to it concerns the new key.
    let lost = PatchReply::Unknown(unknown());
    let mut it = sent_back(None);
    it.patching.first_at = Some(t(0));
    let after = next(&it, &Outcome::Replied(lost), t(1)).rotation.patching;
    assert_eq!(after.unknown_at, None);
    let refused = PatchReply::Refused(failure(Class::Refused, Some(400)));
    let after = next(&it, &Outcome::Replied(refused), t(1)).rotation.patching;
    assert_eq!((after.first_at, after.guard_deadline), (Some(t(0)), Some(t(780))));
    let seen = sees(&sent_back(None), NEW, Some(false), t(0) + TICK).rotation.patching;
    assert!(seen.latest.unwrap().interrupted && seen.unknown_at.is_none());
}

#[test]
fn the_old_key_is_verified_from_its_first_observation_on() {
    for it in [sent_back(Some(PatchReply::Accepted)), {
        let mut it = rolling_back();
        it.rollback.ordered = true;
        it
    }] {
        let mut it = it;
        (it.readings.trues, it.readings.flaps, it.readings.round) = (2, 5, 9);
        let first = sees(&it, OLD, Some(true), t(200));
        let readings = &first.rotation.readings;
        assert_eq!((ends(&first), rests(&first)), ((State::RollingBack, None), Some(t(215))));
        assert_eq!((readings.since, readings.trues, readings.flaps, readings.round), (Some(t(200)), 1, 0, 1));
        let second = sees(&first.rotation, OLD, Some(true), t(215));
        assert_eq!(second.rotation.readings.since, Some(t(200)));
        let third = sees(&second.rotation, OLD, Some(true), t(230));
        assert_eq!(ends(&third), (State::RolledBack, None));
    }
}

#[test]
fn an_old_key_that_an_earlier_rollback_of_ours_may_have_brought_is_verified() {
    let mut it = rolling_back();
    it.patching.sent_old = true;
    assert_eq!(ends(&sees(&it, OLD, Some(true), t(200))), (State::RollingBack, None));
}

#[test]
fn an_old_key_that_is_not_verified_pages() {
    let mut it = sent_back(Some(PatchReply::Accepted));
    it.readings.since = Some(t(0));
    it.readings.false_since = Some(t(0));
    let invalid = (State::NeedsOperator, Some(Cause::OldKeyInvalid));
    assert_eq!(ends(&sees(&it, OLD, Some(false), t(60) + TICK)), invalid);
    it.readings.false_since = None;
    assert_eq!(ends(&sees(&it, OLD, None, t(600))), invalid);
    assert_eq!(ends(&sees(&it, OLD, None, t(600) - TICK)), (State::RollingBack, None));
    // The guard is over: with too few readings it pages, with enough only the hold is missing.
    let private = |trues, valid, guard| {
        let mut it = it.clone();
        (it.readings.trues, it.patching.guard_deadline) = (trues, Some(guard));
        let mut look = look(OLD, valid, t(500));
        look.seen.private_networking = true;
        ends(&looks(&it, look))
    };
    let unproven = (State::NeedsOperator, Some(Cause::RollbackUnproven));
    assert_eq!(private(0, None, t(500)), unproven);
    assert_eq!(private(1, Some(true), t(500)), unproven);
    assert_eq!(private(2, Some(true), t(500)), (State::RollingBack, None));
    assert_eq!(private(1, Some(true), t(501)), (State::RollingBack, None));
}

#[test]
fn a_rollback_of_a_key_that_somebody_else_set_keeps_the_guard_that_runs() {
    let mut it = rolling_back();
    it.patching.first_at = None;
    it.patching.guard_deadline = Some(t(300));
    let sent = sees(&it, NEW, Some(false), t(100));
    assert_eq!(sent.effect, Effect::Patch(Target::Old));
    assert_eq!(sent.rotation.patching.guard_deadline, Some(t(300)));
}

#[test]
fn a_repeated_rollback_does_not_wait_beyond_the_guard() {
    let mut it = sent_back(Some(PatchReply::Unknown(unknown())));
    it.patching.retry_at = Some(t(900));
    assert_eq!(rests(&sees(&it, NEW, Some(false), t(700))), Some(t(780)));
}
