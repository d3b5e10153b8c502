//! `deploying`: the roll-out, and a key that does not stay verified.

use super::*;
use keywheel::domain::rotation::machine::Announcement;
use keywheel::domain::rotation::state::{ClusterProgress, Deployed};

fn with(clusters: Vec<Cluster>, at: Timestamp) -> Look {
    Look { clusters: Some(clusters), ..look(NEW, Some(true), at) }
}

fn known(name: &str, seen_updating: bool, idle: u32) -> ClusterProgress {
    ClusterProgress { name: name.to_owned(), seen_updating, idle, exception: None }
}

fn progress(before: Vec<ClusterProgress>, seen: Vec<Cluster>) -> Vec<ClusterProgress> {
    let mut it = deploying();
    it.rollout.clusters = before;
    looks(&it, with(seen, t(1))).rotation.rollout.clusters
}

#[test]
fn the_record_of_a_cluster_follows_its_state() {
    let one = |before, state| progress(vec![before], vec![cluster("a", state)]);
    assert_eq!(one(known("a", false, 1), "IDLE"), [known("a", false, 2)]);
    assert_eq!(one(known("a", true, 0), "IDLE"), [known("a", true, 1)]);
    assert_eq!(one(known("a", false, 2), "UPDATING"), [known("a", true, 0)]);
    assert_eq!(one(known("a", true, 2), "A_NEWER_STATE"), [known("a", true, 0)]);
    for (state, exception) in [("CREATING", "creating"), ("REPAIRING", "repairing"), ("DELETING", "deleting")]
    {
        let expected = ClusterProgress { exception: Some(exception.to_owned()), ..known("a", true, 0) };
        assert_eq!(one(known("a", true, 2), state), [expected]);
    }
    let paused = Cluster { paused: true, ..cluster("a", "IDLE") };
    let expected = ClusterProgress { exception: Some("paused".to_owned()), ..known("a", false, 1) };
    assert_eq!(progress(Vec::new(), vec![paused]), [expected]);
}

#[test]
fn clusters_come_and_go_by_name() {
    let before = vec![known("gone", true, 1), known("b", true, 1)];
    let after = progress(before, vec![cluster("new", "UPDATING"), cluster("b", "IDLE")]);
    assert_eq!(after, [known("b", true, 2), known("new", true, 0)]);
}

fn outcome(
    before: Vec<ClusterProgress>,
    seen: Option<Vec<Cluster>>,
    at: Timestamp,
) -> (State, Option<Deployed>) {
    let mut it = deploying();
    it.rollout.clusters = before;
    let after = looks(&it, Look { clusters: seen, ..look(NEW, Some(true), at) }).rotation;
    (after.state, after.rollout.deployed)
}

#[test]
fn a_roll_out_is_over_when_every_cluster_was_updating_and_then_idle_twice() {
    let going = (State::Deploying, None);
    let observed = (State::Completed, Some(Deployed::Observed));
    let idle = |names: &[&str]| Some(names.iter().map(|name| cluster(name, "IDLE")).collect::<Vec<_>>());
    assert_eq!(outcome(vec![known("a", true, 1)], idle(&["a"]), t(1)), observed);
    assert_eq!(outcome(vec![known("a", true, 0)], idle(&["a"]), t(1)), going);
    assert_eq!(outcome(vec![known("a", true, 1), known("b", false, 1)], idle(&["a", "b"]), t(1)), going);
    assert_eq!(outcome(vec![known("a", true, 1), known("b", true, 0)], idle(&["a", "b"]), t(1)), going);
    // Without an answer on the clusters nothing is concluded from what is known.
    assert_eq!(outcome(vec![known("a", true, 2)], None, t(1)), going);
    // One that is excepted is not waited for, and not counted on.
    let mut excepted = known("b", false, 0);
    excepted.exception = Some("creating".to_owned());
    let seen = Some(vec![cluster("a", "IDLE"), cluster("b", "CREATING")]);
    assert_eq!(outcome(vec![known("a", true, 1), excepted.clone()], seen, t(1)), observed);
    assert_eq!(outcome(vec![excepted], Some(vec![cluster("b", "CREATING")]), t(1)), going);
    assert_eq!(outcome(Vec::new(), Some(Vec::new()), t(1)), going);
}

#[test]
fn idle_clusters_are_taken_for_done_after_the_grace_and_others_are_given_up_after_the_timeout() {
    let idle = || Some(vec![cluster("a", "IDLE")]);
    let going = (State::Deploying, None);
    assert_eq!(outcome(vec![known("a", false, 5)], idle(), t(600) - TICK), going);
    assert_eq!(
        outcome(vec![known("a", false, 5)], idle(), t(600)),
        (State::Completed, Some(Deployed::Assumed))
    );
    assert_eq!(outcome(vec![known("a", false, 0)], idle(), t(600)), going);
    assert_eq!(outcome(vec![known("a", false, 5)], None, t(600)), going);
    let stuck = || Some(vec![cluster("a", "UPDATING")]);
    let timeout = t(6 * 3600);
    assert_eq!(outcome(vec![known("a", true, 0)], stuck(), timeout - TICK), going);
    assert_eq!(outcome(vec![known("a", true, 0)], stuck(), timeout), (State::Completed, Some(Deployed::No)));
    assert_eq!(outcome(vec![known("a", true, 0)], None, timeout), (State::Completed, Some(Deployed::No)));
}

#[test]
fn a_roll_out_that_is_given_up_is_announced_with_the_end() {
    let mut it = deploying();
    it.rollout.clusters = vec![known("a", false, 5)];
    let given_up = looks(&it, with(vec![cluster("a", "UPDATING")], t(6 * 3600)));
    assert_eq!(given_up.notices, [Announcement::NotDeployed, Announcement::Finished(State::Completed)]);
    assert_eq!(given_up.rotation.rollout.deployed_at, Some(t(6 * 3600)));
    let assumed = looks(&it, with(vec![cluster("a", "IDLE")], t(600)));
    assert_eq!(assumed.notices, [Announcement::Finished(State::Completed)]);
}

#[test]
fn completion_wants_the_readings_of_the_beginning() {
    let mut it = deploying();
    it.rollout.clusters = vec![known("a", true, 1)];
    for (trues, state) in [(1, State::Deploying), (2, State::Completed)] {
        it.readings.trues = trues;
        assert_eq!(looks(&it, with(vec![cluster("a", "IDLE")], t(9))).rotation.state, state);
    }
    // It is read as often as at first until it is verified again.
    let mut going = deploying();
    assert_eq!(rests(&sees(&going, NEW, Some(true), t(1))), Some(t(31)));
    going.readings.trues = 1;
    assert_eq!(rests(&sees(&going, NEW, Some(true), t(1))), Some(t(16)));
    assert_eq!(rests(&sees(&going, NEW, None, t(1))), Some(t(16)));
}

#[test]
fn a_verified_key_that_turns_bad_pages_after_its_grace() {
    let mut it = deploying();
    it.readings.false_since = Some(t(0));
    assert_eq!(ends(&sees(&it, NEW, Some(false), t(60))), (State::Deploying, None));
    let paged = (State::NeedsOperator, Some(Cause::NewKeyInvalid));
    assert_eq!(ends(&sees(&it, NEW, Some(false), t(60) + TICK)), paged);
}

#[test]
fn a_verified_key_that_flaps_pages() {
    let mut it = deploying();
    it.readings.flaps = 2;
    let flapped = sees(&it, NEW, Some(false), t(1));
    assert_eq!(ends(&flapped), (State::NeedsOperator, Some(Cause::NewKeyInvalid)));
    it.readings.flaps = 1;
    assert_eq!(ends(&sees(&it, NEW, Some(false), t(1))), (State::Deploying, None));
    // What happened before the roll-out is not counted, and `resume` begins anew.
    let mut it = verifying();
    (it.readings.trues, it.readings.round, it.readings.flaps) = (2, 9, 2);
    let begun = sees(&it, NEW, Some(true), t(1)).rotation;
    assert_eq!((begun.state, begun.readings.flaps), (State::Deploying, 0));
}

#[test]
fn a_verified_key_of_which_atlas_says_nothing_pages() {
    let mut it = deploying();
    let silent = |it: &Rotation, at| sees(it, NEW, None, at);
    assert_eq!(silent(&it, t(0)).rotation.readings.absent_since, Some(t(0)));
    it.readings.absent_since = Some(t(0));
    it.observing.last = Some(observation(Some(NEW), None, t(599)));
    assert_eq!(ends(&silent(&it, t(600) - TICK)), (State::Deploying, None));
    assert_eq!(ends(&silent(&it, t(600))), (State::NeedsOperator, Some(Cause::Unproven)));
    assert_eq!(sees(&it, NEW, Some(true), t(600)).rotation.readings.absent_since, None);
}

#[test]
fn the_gap_of_a_roll_out_is_one_of_its_own_cadence() {
    let trues = |trues, ago| {
        let mut it = deploying();
        it.readings.trues = trues;
        it.observing.last.as_mut().unwrap().at = t(500) - Duration::from_secs(ago);
        next(&it, &Outcome::Looked(look(NEW, Some(true), t(500))), t(500)).rotation.readings.trues
    };
    assert_eq!((trues(3, 60), trues(3, 61)), (4, 1));
    assert_eq!((trues(2, 30), trues(2, 31)), (3, 1));
}
