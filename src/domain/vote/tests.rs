//! Which votes count, case by case.

use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn at(hours: u32) -> Timestamp {
    "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap() + HOUR * hours
}

fn token(person: Option<&str>, given: u32, by: &str) -> Identity {
    Identity {
        may_approve: true,
        person: person.map(str::to_owned),
        made_by: Some(by.to_owned()),
        given_at: Some(at(given)),
        given_by: Some(by.to_owned()),
    }
}

/// Ada proposes at hour 100; the first day is over at hour 24; it is hour 110.
fn ballot(voters: &[&str]) -> Ballot {
    let identities = [
        ("ada", token(Some("ada@example.com"), 30, "local:root")),
        ("ada-ci", token(Some("ada@example.com"), 30, "local:root")),
        ("grace", token(Some("grace@example.com"), 30, "local:root")),
        ("edsger", token(Some("edsger@example.com"), 30, "local:root")),
        ("bare", token(None, 30, "local:root")),
        ("bare-too", token(None, 30, "local:root")),
        ("new", token(Some("new@example.com"), 95, "edsger")),
        ("first-day", token(Some("first@example.com"), 3, "local:root")),
        ("local:root", Identity::local(true)),
    ];
    Ballot {
        proposer: "ada".to_owned(),
        proposed_at: at(100),
        self_approval: false,
        excluded: Vec::new(),
        votes: (101..)
            .zip(voters)
            .map(|(hour, by)| CastVote { by: (*by).to_owned(), at: at(hour), of_policy: false })
            .collect(),
        identities: identities.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
        bars: Vec::new(),
        loosen_after: "24h".parse().unwrap(),
        settling: Settling::Until(at(24)),
        now: at(110),
    }
}

fn void(ballot: &Ballot) -> Vec<(String, Void)> {
    ballot.count().void
}

#[test]
fn two_people_are_two_and_one_person_is_one() {
    assert_eq!(ballot(&["grace", "edsger"]).count(), Counted { given: 2, void: Vec::new() });
    let it = ballot(&["ada"]);
    assert!(matches!(void(&it).as_slice(), [(_, Void::Proposer(_))]));
    let it = ballot(&["ada-ci"]);
    assert!(matches!(void(&it).as_slice(), [(_, Void::SamePerson { .. })]), "{it:?}");
    let mut it = ballot(&["ada", "ada-ci"]);
    it.self_approval = true;
    assert_eq!(it.count().given, 1, "a second vote of one person");
    assert!(matches!(void(&it).as_slice(), [(by, Void::SecondVote { .. })] if by == "ada-ci"));
}

#[test]
fn a_token_that_was_given_to_nobody_is_its_makers() {
    let mut it = ballot(&["bare"]);
    it.proposer = "local:root".to_owned();
    assert!(matches!(void(&it).as_slice(), [(_, Void::SamePerson { .. })]));
    assert_eq!(ballot(&["bare", "bare-too"]).count().given, 2);
    assert_eq!(ballot(&["local:root", "bare"]).count().given, 1);
    let mut it = ballot(&["grace"]);
    it.proposer = "local:root".to_owned();
    assert_eq!(it.count().given, 1, "it was given to Grace long ago");
}

#[test]
fn a_new_token_counts_later_and_until_then_is_its_makers() {
    let it = ballot(&["new"]);
    assert!(matches!(&void(&it)[..], [(_, Void::TooNew { from, .. })] if *from == at(95 + 24)));
    assert_eq!(it.refusal("new").and_then(|why| why.from()), Some(at(119)));
    let mut it = ballot(&["edsger"]);
    it.proposer = "new".to_owned();
    assert!(matches!(void(&it).as_slice(), [(_, Void::SamePerson { .. })]));
    it.now = at(200);
    assert!(matches!(void(&it).as_slice(), [(_, Void::SamePerson { .. })]), "it was new at the proposal");
    let mut it = ballot(&["new"]);
    it.now = at(200);
    assert_eq!(it.count().given, 0, "it voted when it was new");
    it.votes[0].at = at(119);
    assert_eq!(it.count().given, 1);
    let mut it = ballot(&["first-day"]);
    it.identities.get_mut("first-day").unwrap().given_at = Some(at(23));
    (it.now, it.votes[0].at, it.proposed_at) = (at(25), at(25), at(24));
    assert_eq!(it.count().given, 1, "nothing is delayed that was done on the first day");
}

#[test]
fn a_token_that_is_gone_does_not_count() {
    let mut it = ballot(&["grace", "nobody"]);
    it.identities.get_mut("grace").unwrap().may_approve = false;
    assert!(matches!(void(&it).as_slice(), [(_, Void::NotApprover(_)), (_, Void::Unknown(_))]));
    it.settling = Settling::Demo;
    assert_eq!(it.count().given, 1);
}

#[test]
fn who_loosened_counts_a_day_after_it_took_effect() {
    let bar = |by: &str, effective_at| Bar { by: by.to_owned(), what: "changed the owners", effective_at };
    let mut it = ballot(&["grace"]);
    for (hour, given) in [(None, 0), (Some(109), 0), (Some(87), 0), (Some(86), 1), (Some(3), 1)] {
        it.bars = vec![bar("grace", hour.map(at))];
        assert_eq!(it.count().given, given, "{hour:?}");
    }
    it.bars = vec![bar("edsger", None)];
    assert_eq!(it.count().given, 1, "another person did it");
    let mut it = ballot(&["ada-ci"]);
    (it.proposer, it.bars) = ("edsger".to_owned(), vec![bar("ada", None)]);
    assert_eq!(it.count().given, 0, "the same person did it under another name");
    assert!(it.refusal("ada-ci").unwrap().to_string().contains("when it is withdrawn"));
}

#[test]
fn the_owner_of_a_hook_does_not_count_for_what_it_proposed() {
    for owner in ["grace", "grace@example.com"] {
        let mut it = ballot(&["grace", "edsger"]);
        (it.proposer, it.excluded) = ("hook:ci".to_owned(), vec![owner.to_owned()]);
        assert!(matches!(void(&it).as_slice(), [(by, Void::OwnsHook(_))] if by == "grace"), "{owner}");
    }
}

#[test]
fn the_policys_own_vote_counts() {
    let mut it = ballot(&["policy:auto_approve"]);
    it.votes[0].of_policy = true;
    assert_eq!(it.count(), Counted { given: 1, void: Vec::new() });
}
