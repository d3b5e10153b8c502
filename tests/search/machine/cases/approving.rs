//! `awaiting_approval` and `approved`: holds, waits and the end of permission.

use super::*;
use keywheel::domain::policy::Window;
use keywheel::domain::rotation::state::Hold;

fn awaiting() -> Rotation {
    let mut it = approved();
    it.state = State::AwaitingApproval;
    it.permission.quorum.given = 0;
    it.permission.approved_at = None;
    it.permission.expires_at = t(5000);
    it
}

#[test]
fn a_proposal_is_compared_with_atlas_each_quarter_of_an_hour_and_when_it_lapses() {
    let mut it = awaiting();
    assert_eq!(rests(&sees(&it, OLD, Some(true), t(0))), Some(t(900)));
    it.permission.expires_at = t(899);
    assert_eq!(rests(&sees(&it, OLD, Some(true), t(0))), Some(t(899)));
    // Lapsed, but the clocks disagree: nothing expires, and nothing spins.
    let mut skewed = look(OLD, Some(true), t(900));
    skewed.seen.skew_ms = Some(120_001);
    let step = looks(&it, skewed);
    assert_eq!((ends(&step), step.rotation.hold), ((State::AwaitingApproval, None), Some(Hold::ClockSkew)));
    assert_eq!(rests(&step), Some(t(1800)));
    // At the very instant too.
    let mut skewed = look(OLD, Some(true), t(899));
    skewed.seen.skew_ms = Some(-120_001);
    assert_eq!(rests(&looks(&it, skewed)), Some(t(1799)));
}

#[test]
fn permission_lapses_at_its_instant_and_not_before() {
    for mut it in [awaiting(), approved()] {
        let state = it.state;
        it.permission.expires_at = t(50);
        // Something else holds the PATCH, so only the lapse decides.
        let before = sees(&it, OLD, Some(false), t(50) - TICK);
        assert_eq!(before.rotation.state, state);
        assert_eq!(ends(&sees(&it, OLD, Some(false), t(50))), (State::Expired, None));
    }
}

#[test]
fn an_approval_without_its_quorum_asks_again_until_the_proposal_lapses() {
    let mut it = approved();
    it.permission.quorum.given = 0;
    let step = sees(&it, OLD, Some(true), t(0));
    assert_eq!((ends(&step), rests(&step)), ((State::AwaitingApproval, None), Some(t(0))));
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(step.rotation.permission.approved_at, None);
    assert_eq!(step.rotation.permission.expires_at, it.created_at + week);
}

#[test]
fn a_vote_that_is_withdrawn_takes_the_approval_back_only_if_too_few_remain() {
    let given = |it: &Rotation, given| {
        let step = says(it, Command::Withdraw { given }, t(3));
        assert_eq!((step.illegal, rests(&step)), (false, Some(t(3))));
        (step.rotation.state, step.rotation.permission)
    };
    let (state, permission) = given(&approved(), 0);
    assert_eq!((state, permission.quorum.given, permission.approved_at), (State::AwaitingApproval, 0, None));
    let (state, permission) = given(&approved(), 1);
    assert_eq!((state, permission.approved_at), (State::Approved, approved().permission.approved_at));
    let (state, permission) = given(&awaiting(), 0);
    assert_eq!((state, permission.expires_at), (State::AwaitingApproval, t(5000)));
}

#[test]
fn a_quorum_sets_how_long_the_approval_may_wait_to_run() {
    let mut it = awaiting();
    it.permission.quorum.required = 2;
    let first = says(&it, Command::Approve { given: 1 }, t(3));
    assert_eq!((ends(&first), rests(&first)), ((State::AwaitingApproval, None), Some(t(3))));
    assert_eq!(
        (first.rotation.permission.approved_at, first.rotation.permission.expires_at),
        (None, t(5000))
    );
    let second = says(&first.rotation, Command::Approve { given: 2 }, t(4));
    assert_eq!(ends(&second), (State::Approved, None));
    let permission = second.rotation.permission;
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!((permission.approved_at, permission.expires_at), (Some(t(4)), t(4) + week));
}

#[test]
fn a_changed_block_holds_only_where_the_whole_block_is_sent() {
    let held = |whole, hash: &str| {
        let mut it = approved();
        it.rules.whole_block = whole;
        let mut look = look(OLD, Some(true), t(0));
        hash.clone_into(&mut look.seen.block_hash);
        looks(&it, look).rotation.hold
    };
    assert_eq!(held(true, "another"), Some(Hold::BlockChanged));
    assert_eq!((held(true, ""), held(false, "another")), (None, None));
}

#[test]
fn clocks_may_differ_by_two_minutes_and_no_more() {
    for (ms, hold) in [
        (120_000, None),
        (-120_000, None),
        (120_001, Some(Hold::ClockSkew)),
        (-120_001, Some(Hold::ClockSkew)),
    ] {
        let mut look = look(OLD, Some(true), t(0));
        look.seen.skew_ms = Some(ms);
        assert_eq!(looks(&approved(), look).rotation.hold, hold, "{ms}");
    }
}

#[test]
fn a_cluster_that_is_repaired_or_not_seen_holds_the_patch() {
    for (clusters, hold) in [
        (None, Some(Hold::ClustersUnknown)),
        (Some(vec![cluster("a", "IDLE"), cluster("b", "REPAIRING")]), Some(Hold::ClusterRepairing)),
        (Some(vec![cluster("a", "UPDATING")]), None),
    ] {
        let mut look = look(OLD, Some(true), t(0));
        look.clusters = clusters;
        assert_eq!(looks(&approved(), look).rotation.hold, hold);
    }
}

#[test]
fn a_hold_waits_for_its_window_half_a_minute_otherwise_and_never_past_the_lapse() {
    let mut it = approved();
    it.permission.expires_at = t(86_400);
    let wait = |it: &Rotation, valid| rests(&sees(it, OLD, valid, t(0)));
    assert_eq!(wait(&it, Some(false)), Some(t(30)));
    it.permission.expires_at = t(29);
    assert_eq!(wait(&it, Some(false)), Some(t(29)));
    // A clock that is wrong does not say when that is.
    let mut skewed = look(OLD, Some(true), t(0));
    skewed.seen.skew_ms = Some(120_001);
    assert_eq!(rests(&looks(&it, skewed)), Some(t(30)));

    it.permission.expires_at = t(86_400);
    let window = |cron: &str| -> Vec<Window> {
        let text = format!(r#"{{ "cron": "{cron}", "duration": "1h", "timezone": "UTC" }}"#);
        vec![serde_json::from_str(&text).unwrap()]
    };
    // It is 12:16:40; the window opens at 12:20, or in the night.
    it.rules.policy.windows = window("0 20 12 * * *");
    let step = sees(&it, OLD, Some(true), t(0));
    assert_eq!((step.rotation.hold, rests(&step)), (Some(Hold::Window), Some(t(200))));
    it.rules.policy.windows = window("0 0 1 * * *");
    assert_eq!(wait(&it, Some(true)), Some(t(900)));
    // Another hold is asked about soon, whatever the window.
    assert_eq!(wait(&it, None), Some(t(30)));
}

#[test]
fn a_key_that_is_invalid_is_told_by_the_watch_and_not_by_the_hold() {
    let told = |held: Option<Hold>, valid| {
        let mut it = approved();
        it.hold = held;
        sees(&it, OLD, valid, t(0)).notices
    };
    assert_eq!(told(None, Some(false)), []);
    assert_eq!(told(Some(Hold::Window), Some(false)), []);
    assert_eq!(told(Some(Hold::CurrentKeyInvalid), Some(false)), []);
    assert_eq!(told(None, None), []);
}

#[test]
fn a_key_of_ours_that_appears_late_is_verified_and_not_called_done_by_hand() {
    let mut it = approved();
    assert_eq!(ends(&sees(&it, NEW, Some(true), t(0))), (State::Superseded, Some(Cause::DoneByHand)));
    it.patching.first_at = Some(t(0));
    it.patching.latest = Some(attempt(Target::New, t(0), Some(PatchReply::Unknown(unknown()))));
    assert_eq!(ends(&sees(&it, NEW, Some(true), t(0))), (State::Verifying, None));
}
