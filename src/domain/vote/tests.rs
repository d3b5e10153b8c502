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
        former: Vec::new(),
        made_by: Some(by.to_owned()),
        given_at: Some(at(given)),
        given_by: Some(by.to_owned()),
        groups: BTreeSet::new(),
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
        approvers: Vec::new(),
        owners: Vec::new(),
        least: Strength::Session,
        only_people: false,
        site: None,
        votes: (101..)
            .zip(voters)
            .map(|(hour, by)| CastVote {
                by: (*by).to_owned(),
                at: at(hour),
                of_policy: false,
                strength: Strength::Session,
                passkey: None,
            })
            .collect(),
        identities: identities.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
        passkeys: BTreeMap::new(),
        removed: BTreeMap::new(),
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
    assert_eq!(it.refusal("new", Strength::Session, None).and_then(|why| why.from()), Some(at(119)));
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
    assert!(
        it.refusal("ada-ci", Strength::Session, None).unwrap().to_string().contains("when it is withdrawn")
    );
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

fn named(voters: &[&str], approvers: &[&str]) -> Ballot {
    let mut it = ballot(voters);
    it.approvers = approvers.iter().map(|it| it.parse().unwrap()).collect();
    let ann = "ann@example.com";
    it.identities.insert(format!("mail:{ann}"), Identity::mail(ann));
    for (name, groups) in [("grace", ["payments", "on-call"]), ("edsger", ["payments", "storage"])] {
        it.identities.get_mut(name).unwrap().groups = groups.map(str::to_owned).into();
    }
    it
}

#[test]
fn where_the_policy_names_approvers_nobody_else_counts() {
    let it = named(&["grace", "edsger"], &["mail:Grace@example.com"]);
    assert!(matches!(void(&it).as_slice(), [(by, Void::NotNamed { .. })] if by == "edsger"), "{it:?}");
    let it = named(&["grace", "edsger"], &["group:storage"]);
    assert!(matches!(void(&it).as_slice(), [(by, Void::NotNamed { .. })] if by == "grace"), "{it:?}");
    let mut it = named(&["grace", "edsger"], &["owners"]);
    it.owners = vec!["GRACE@example.com".to_owned()];
    assert!(matches!(void(&it).as_slice(), [(by, Void::NotNamed { .. })] if by == "edsger"), "{it:?}");
    // The local socket belongs to no person, so it is never named.
    assert!(matches!(void(&named(&["local:root"], &["owners"])).as_slice(), [(_, Void::NotNamed { .. })]));
    // To be named does not make up for a role that a token lacks.
    let mut it = named(&["grace"], &["mail:grace@example.com"]);
    it.identities.get_mut("grace").unwrap().may_approve = false;
    assert!(matches!(void(&it).as_slice(), [(_, Void::NotApprover(_))]), "{it:?}");
    // Nor does it make the proposer another person.
    assert!(matches!(void(&named(&["ada"], &["mail:ada@example.com"])).as_slice(), [(_, Void::Proposer(_))]));
}

#[test]
fn who_comes_by_mail_votes_only_where_the_policy_names_the_address() {
    let ann = "mail:ann@example.com";
    let mut it = named(&[ann], &[ann]);
    assert_eq!(it.count().given, 1, "{it:?}");
    it.votes[0].strength = Strength::Link;
    assert!(matches!(void(&it).as_slice(), [(_, Void::TooWeak { .. })]), "{it:?}");
    it.least = Strength::Link;
    assert_eq!(it.count().given, 1, "{it:?}");
    assert!(matches!(void(&named(&[ann], &[])).as_slice(), [(_, Void::NotApprover(_))]));
    assert!(matches!(
        void(&named(&[ann], &["mail:bob@example.com"])).as_slice(),
        [(_, Void::NotNamed { .. })]
    ));
    // A token of the same person is no second one.
    let mut it = named(&[ann, "grace"], &[ann, "mail:grace@example.com"]);
    it.identities.get_mut("grace").unwrap().person = Some("Ann@example.com".to_owned());
    assert!(matches!(void(&it).as_slice(), [(_, Void::SecondVote { .. })]), "{it:?}");
    assert_eq!(it.own_vote("grace").map(|vote| vote.by.as_str()), Some(ann));
}

#[test]
fn of_a_group_that_is_named_once_one_vote_counts() {
    let it = named(&["grace", "edsger"], &["one:group:payments"]);
    assert!(matches!(void(&it).as_slice(), [(by, Void::OneOfThem { .. })] if by == "edsger"), "{it:?}");
    // Each takes an entry, whichever came first.
    for voters in [["grace", "edsger"], ["edsger", "grace"]] {
        let it = named(&voters, &["one:group:payments", "one:group:on-call"]);
        assert_eq!(it.count().given, 2, "{it:?}");
    }
    // An entry without `one:` has room for all.
    let it = named(&["grace", "edsger"], &["one:group:payments", "mail:edsger@example.com"]);
    assert_eq!(it.count().given, 2, "{it:?}");
}

#[test]
fn where_people_sign_in_a_token_votes_only_for_a_person() {
    let mut it = ballot(&["bare", "grace", "local:root"]);
    it.only_people = true;
    let found = void(&it);
    assert!(matches!(found.as_slice(), [(by, Void::NoPerson(_))] if by == "bare"), "{found:?}");
    assert!(found[0].1.to_string().contains("keywheel token edit bare --person MAIL"));
    let person = Identity { made_by: None, given_by: None, ..token(None, 30, "") };
    it.identities.insert("oidc:acme/7".to_owned(), person);
    it.votes[0].by = "oidc:acme/7".to_owned();
    assert_eq!(void(&it), []);
    // Whose token proposed is the same person as who signs in with that address.
    let signed_in = token(Some("ada@example.com"), 30, "x");
    it.identities
        .insert("mail:ada@example.com".to_owned(), Identity { made_by: None, given_by: None, ..signed_in });
    it.votes[0].by = "mail:ada@example.com".to_owned();
    assert!(matches!(void(&it).as_slice(), [(_, Void::SamePerson { .. })]));
    it.votes[0].by = "grace".to_owned();
    it.votes.truncate(1);
    it.excluded = vec!["Grace@Example.com".to_owned()];
    assert!(matches!(void(&it).as_slice(), [(_, Void::OwnsHook(_))]), "addresses differ by case alone");
}
