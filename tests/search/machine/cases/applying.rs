//! `applying`: Atlas shows the old key, or does not answer.

use super::*;
use keywheel::domain::rotation::state::Hold;

fn refused() -> PatchReply {
    PatchReply::Refused(failure(Class::BadKey, Some(400)))
}

fn not_taken() -> PatchReply {
    PatchReply::NotTaken(failure(Class::Transient, Some(405)))
}

#[test]
fn a_refusal_ends_the_rotation_once_no_earlier_attempt_can_take_effect() {
    let failed = (State::Failed, Some(Cause::Refused));
    let mut it = applying(Some(refused()));
    assert_eq!(ends(&sees(&it, OLD, Some(true), t(1))), failed);
    it.patching.unknown_at = Some(t(0));
    let waits = sees(&it, OLD, Some(true), t(120) - TICK);
    assert_eq!((ends(&waits), rests(&waits)), ((State::Applying, None), Some(t(135) - TICK)));
    assert_eq!(ends(&sees(&it, OLD, Some(true), t(120))), failed);
}

#[test]
fn an_accepted_patch_is_repeated_when_a_stale_read_cannot_explain_the_old_key_any_more() {
    let it = applying(Some(PatchReply::Accepted));
    let waits = sees(&it, OLD, Some(true), t(120) - TICK);
    assert_eq!((ends(&waits), rests(&waits)), ((State::Applying, None), Some(t(135) - TICK)));
    assert_eq!(sees(&it, OLD, Some(true), t(120)).effect, Effect::Patch(Target::New));
}

#[test]
fn a_patch_of_unknown_outcome_is_repeated_after_its_backoff_and_not_before() {
    let mut it = applying(Some(PatchReply::Unknown(unknown())));
    it.patching.retry_at = Some(t(7));
    assert_eq!(rests(&sees(&it, OLD, Some(true), t(7) - TICK)), Some(t(7)));
    let sent = sees(&it, OLD, Some(true), t(7));
    assert_eq!(sent.effect, Effect::Patch(Target::New));
    let patching = &sent.rotation.patching;
    assert_eq!((patching.attempts, patching.tries, patching.retry_at), (2, 2, None));
    // The guard counts from the first attempt, not from this one.
    assert_eq!((patching.first_at, patching.guard_deadline), (Some(t(0)), Some(t(780))));
    assert_eq!((patching.sent_old, sent.rotation.wake_at), (false, Some(t(7))));
}

#[test]
fn no_wait_sleeps_through_the_guard_and_an_old_key_after_it_is_not_applied() {
    let it = applying(Some(PatchReply::Accepted));
    let late = |guard| {
        let mut it = it.clone();
        it.patching.guard_deadline = Some(guard);
        it
    };
    assert_eq!(rests(&sees(&late(t(20)), OLD, Some(true), t(10))), Some(t(20)));
    assert_eq!(rests(&sees(&late(t(25)), OLD, Some(true), t(10))), Some(t(25)));
    assert_eq!(rests(&sees(&late(t(26)), OLD, Some(true), t(10))), Some(t(25)));
    let mut unanswered = applying(Some(PatchReply::Unknown(unknown())));
    (unanswered.patching.retry_at, unanswered.patching.guard_deadline) = (Some(t(60)), Some(t(30)));
    assert_eq!(rests(&sees(&unanswered, OLD, Some(true), t(10))), Some(t(30)));
    // A guard that is over wakes nothing: the refused attempt waits for an earlier one as it would before.
    let mut refused = applying(Some(refused()));
    (refused.patching.unknown_at, refused.patching.guard_deadline) = (Some(t(0)), Some(t(10)));
    assert_eq!(rests(&sees(&refused, OLD, Some(true), t(10))), Some(t(25)));
    let over = sees(&late(t(10)), OLD, Some(true), t(10));
    assert_eq!(ends(&over), (State::Failed, Some(Cause::NotApplied)));
}

#[test]
fn an_attempt_that_is_not_permitted_any_more_goes_back_to_approved() {
    let mut it = applying(Some(not_taken()));
    let hold = |it: &Rotation, look| {
        let step = looks(it, look);
        assert_eq!(
            (step.rotation.state, rests(&step)),
            (State::Approved, Some(step.rotation.wake_at.unwrap()))
        );
        assert_eq!(step.rotation.wake_at, Some(t(9)));
        step.rotation.hold
    };
    assert_eq!(hold(&it, look(OLD, Some(false), t(9))), Some(Hold::CurrentKeyInvalid));
    assert_eq!(hold(&it, look(OLD, None, t(9))), Some(Hold::CurrentKeyUnknown));
    it.permission.quorum.given = 0;
    assert_eq!(hold(&it, look(OLD, Some(true), t(9))), None);
    it.permission.quorum.given = 1;
    it.permission.expires_at = t(9);
    assert_eq!(hold(&it, look(OLD, Some(true), t(9))), None);
    it.permission.expires_at = t(9) + TICK;
    assert_eq!(sees(&it, OLD, Some(true), t(9)).effect, Effect::Patch(Target::New));
}

#[test]
fn a_lost_project_pages_only_if_atlas_may_hold_our_key() {
    let lost = failure(Class::Gone, Some(404));
    let ended = |it: &Rotation| ends(&fails(it, lost.clone(), t(9), Duration::from_secs(15)));
    let (paged, failed) = ((State::NeedsOperator, Some(Cause::Gone)), (State::Failed, Some(Cause::Gone)));
    for open in [None, Some(PatchReply::Accepted), Some(PatchReply::Unknown(unknown()))] {
        assert_eq!(ended(&applying(open)), paged);
    }
    for no in [refused(), not_taken()] {
        let mut it = applying(Some(no));
        assert_eq!(ended(&it), failed);
        it.patching.unknown_at = Some(t(0));
        assert_eq!(ended(&it), paged);
    }
    // The same when the PATCH itself was answered so.
    let mut it = applying(None);
    let replied = |it: &Rotation| ends(&next(it, &Outcome::Replied(PatchReply::Gone(lost.clone())), t(1)));
    assert_eq!(replied(&it), failed);
    it.patching.unknown_at = Some(t(0));
    assert_eq!(replied(&it), paged);
}

/// An address that is listed again, a secret that is renewed.
#[test]
fn a_refused_credential_is_borne_within_the_guard() {
    let no = || failure(Class::Auth, Some(403));
    let refused = next(&applying(None), &Outcome::Replied(PatchReply::Auth(no())), t(1));
    let it = refused.rotation;
    assert_eq!((it.state, it.cause, it.patching.guard_deadline), (State::Applying, None, None));
    let retry_at = it.patching.retry_at.unwrap();
    assert!(retry_at > t(1) && retry_at < t(60), "{retry_at}");
    assert_eq!(sees(&it, OLD, Some(true), retry_at).effect, Effect::Patch(Target::New));
    // Still refused after as long as the guard: it waits as before the PATCH, and says why.
    let mut long = it.clone();
    long.patching.retry_at = Some(t(2000));
    let waits = sees(&long, OLD, Some(true), t(1000)).rotation;
    assert_eq!((waits.state, waits.hold), (State::Approved, Some(Hold::AtlasAuth)));
    assert_eq!(waits.put_off_by(), Hold::AtlasAuth);
    // Atlas may hold our key: nobody knows until the guard.
    let mut open = applying(Some(PatchReply::Unknown(unknown())));
    let ended = |it: &Rotation, at| ends(&fails(it, no(), at, Duration::from_secs(31)));
    assert_eq!(ended(&open, t(780) - TICK), (State::Applying, None));
    assert_eq!(ended(&open, t(780)), (State::NeedsOperator, Some(Cause::Auth)));
    // Without a guard nothing was applied.
    open.patching.guard_deadline = None;
    assert_eq!(ended(&open, t(780)), (State::Applying, None));
}

#[test]
fn the_guard_runs_from_the_first_attempt_that_may_have_been_applied() {
    let told = |it: &Rotation, reply| next(it, &Outcome::Replied(reply), t(1)).rotation.patching;
    let fresh = applying(None);
    for no in [not_taken(), refused()] {
        let it = told(&fresh, no);
        assert_eq!((it.first_at, it.guard_deadline), (None, None));
    }
    for open in [PatchReply::Accepted, PatchReply::Unknown(unknown())] {
        let it = told(&fresh, open);
        assert_eq!((it.first_at, it.guard_deadline), (Some(t(0)), Some(t(780))));
    }
    // An earlier attempt may have been applied, so a later one that was not does not stop the guard.
    let mut second = applying(None);
    second.patching.first_at = Some(t(0) - TICK);
    assert_eq!(told(&second, not_taken()).guard_deadline, Some(t(780)));
}

#[test]
fn a_reply_that_comes_after_somebody_observed_changes_nothing() {
    let it = applying(Some(PatchReply::Unknown(unknown())));
    let step = next(&it, &Outcome::Replied(refused()), t(5));
    assert_eq!((step.rotation, step.effect), (it, Effect::Rest));
}

#[test]
fn a_patch_that_was_not_processed_waits_as_atlas_asked_and_its_wait_is_kept() {
    let step = next(&applying(None), &Outcome::Replied(PatchReply::NotTaken(limited(20))), t(1));
    let until = step.rotation.patching.retry_at.unwrap();
    assert!(until >= t(21) && until < t(23), "{until}");
    assert_eq!((step.rotation.observing.not_before, rests(&step)), (Some(until), Some(until)));
    // Maintenance names no wait: Atlas may be observed meanwhile.
    let step = next(&applying(None), &Outcome::Replied(not_taken()), t(1));
    assert_eq!(step.rotation.observing.not_before, None);
    assert_eq!(step.rotation.observing.failure, Some(failure(Class::Transient, Some(405))));
}

#[test]
fn an_attempt_without_a_reply_is_unknown_once_somebody_observes() {
    let step = sees(&applying(None), OLD, Some(true), t(0) + TICK);
    let patching = step.rotation.patching.clone();
    let latest = patching.latest.unwrap();
    assert!(latest.interrupted && matches!(latest.reply, Some(PatchReply::Unknown(_))));
    assert_eq!(patching.unknown_at, Some(t(0)));
    // Its backoff counts from when it was sent, and a wait that was already set stays.
    let retry_at = patching.retry_at.unwrap();
    assert!(retry_at >= t(0) + Duration::from_millis(800) && retry_at <= t(0) + Duration::from_millis(1200));
    assert_eq!(rests(&step), Some(retry_at));
    let mut it = applying(None);
    it.patching.retry_at = Some(t(40));
    assert_eq!(sees(&it, OLD, Some(true), t(1)).rotation.patching.retry_at, Some(t(40)));
}

#[test]
fn a_patch_that_is_only_ever_put_off_goes_back_to_wait_and_pages_nobody() {
    let mut it = applying(None);
    it.patching.first_at = Some(t(0));
    let put_off = next(&it, &Outcome::Replied(PatchReply::NotTaken(limited(86_400))), t(1)).rotation;
    assert_eq!((put_off.state, put_off.patching.put_off_since), (State::Applying, Some(t(0))));
    // PATCH(new) waits in full, the readings for five minutes.
    assert!(put_off.patching.retry_at.unwrap() >= t(86_400), "{:?}", put_off.patching.retry_at);
    assert_eq!(put_off.observing.not_before, Some(t(301)));
    let early = sees(&put_off, OLD, Some(true), t(780) - TICK);
    assert_eq!((ends(&early), early.rotation.hold), ((State::Applying, None), None));
    let back = sees(&put_off, OLD, Some(true), t(780));
    assert_eq!((ends(&back), back.rotation.hold), ((State::Approved, None), Some(Hold::RateLimited)));
    assert_eq!(back.notices, []);
    let waits = sees(&back.rotation, OLD, Some(true), t(800)).rotation;
    assert_eq!((waits.state, waits.hold), (State::Approved, Some(Hold::RateLimited)));
    // What else holds it is told instead.
    let invalid = sees(&back.rotation, OLD, Some(false), t(800)).rotation;
    assert_eq!(invalid.hold, Some(Hold::CurrentKeyInvalid));
    // An answer of another kind begins anew.
    let unknown = next(&it, &Outcome::Replied(PatchReply::Unknown(unknown())), t(1)).rotation;
    assert_eq!(unknown.patching.put_off_since, None);
}
