//! The final states: what is observed after the end, and a PATCH that takes effect late.

use super::super::world::OTHER;
use super::*;
use keywheel::domain::rotation::machine::Announcement;

/// Ended at `t(0)` after one PATCH(new), while Atlas held `settled`.
fn ended(settled: &str) -> Rotation {
    let mut it = applying(Some(PatchReply::Unknown(unknown())));
    it.state = State::Failed;
    it.observing.last = Some(observation(Some(settled), Some(true), t(0)));
    it.ending.finished_at = Some(t(0));
    it.ending.settled_key = Some(key(settled));
    it.ending.watch_until = Some(t(900));
    it
}

#[test]
fn an_end_is_recorded_announced_and_watched_if_a_patch_was_sent() {
    let mut it = applying(Some(PatchReply::Refused(failure(Class::BadKey, Some(400)))));
    it.operator.resuming = true;
    it.hold = Some(keywheel::domain::rotation::state::Hold::Window);
    let step = sees(&it, OLD, Some(true), t(5));
    let after = &step.rotation;
    assert_eq!(step.notices, [Announcement::Finished(State::Failed)]);
    assert_eq!((after.hold, after.operator.resuming), (None, false));
    let ending = &after.ending;
    assert_eq!((ending.finished_at, ending.settled_key.clone()), (Some(t(5)), Some(key(OLD))));
    assert_eq!((ending.watch_until, rests(&step)), (Some(t(905)), Some(t(65))));
    let never = says(&approved(), Command::Cancel, t(5));
    assert_eq!((never.rotation.ending.watch_until, rests(&never)), (None, None));
}

#[test]
fn an_end_is_watched_until_its_time_is_over() {
    let it = ended(OLD);
    for step in [sees(&it, OLD, Some(true), t(900) - TICK), fails(&it, unknown(), t(900) - TICK, TICK)] {
        assert_eq!(rests(&step), Some(t(960) - TICK));
    }
    for step in [sees(&it, OLD, Some(true), t(900)), fails(&it, unknown(), t(900), TICK)] {
        assert_eq!((rests(&step), step.rotation.state), (None, State::Failed));
    }
}

#[test]
fn a_patch_that_takes_effect_after_the_end_is_announced_once() {
    let told = |it: &Rotation, shown| {
        let step = sees(it, shown, Some(true), t(60));
        assert_eq!(step.rotation.state, State::Failed);
        assert_eq!(step.rotation.ending.late_apply, it.ending.late_apply || !step.notices.is_empty());
        step.notices
    };
    let mut it = ended(OLD);
    assert_eq!(told(&it, NEW), [Announcement::LateApply]);
    assert_eq!((told(&it, OLD), told(&it, OTHER)), (vec![], vec![]));
    it.ending.late_apply = true;
    assert_eq!(told(&it, NEW), []);
    it = ended(OLD);
    it.patching.attempts = 0;
    assert_eq!(told(&it, NEW), []);
    // The old key is ours only if we sent it.
    it = ended(NEW);
    assert_eq!((told(&it, NEW), told(&it, OLD)), (vec![], vec![]));
    it.patching.sent_old = true;
    assert_eq!(told(&it, OLD), [Announcement::LateApply]);
    it.ending.settled_key = None;
    assert_eq!(told(&it, OLD), []);
}
