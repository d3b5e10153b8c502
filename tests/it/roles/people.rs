//! People who come, go, and are told apart: nobody counts twice by it, and those who must hear of it do.

use std::collections::BTreeSet;

use keywheel::domain::approver::Strength;
use keywheel::engine::command::Voter;
use keywheel::engine::feeds::FeedHolder;
use keywheel::engine::passkeys::{Answer, Made};
use keywheel::engine::people::Known;
use keywheel::store::{NewAudit, Person, PersonRefusal, SeenPerson, WebSession};

use super::*;
use crate::support::authenticator::{Authenticator, Kind};

const ISSUER: &str = "https://id.example.com";
const EVE: &str = "eve@example.com";
const MALLORY: &str = "mallory@example.com";
const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Postgres];

/// What the provider says about an account.
fn seen(subject: &str, mail: &str, roles: &[Role]) -> SeenPerson {
    SeenPerson {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        name: format!("mail:{mail}"),
        mail: Some(mail.to_owned()),
        roles: roles.to_vec(),
        groups: vec!["staff".to_owned()],
    }
}

impl Fixture {
    /// The same, where people sign in with an identity provider.
    async fn with_provider(backend: Backend) -> Self {
        let mut it = Self::on(backend).await;
        it.0.rule(|settings| settings.issuers = BTreeSet::from([ISSUER.to_owned()]));
        it
    }

    async fn signs_in(&self, subject: &str, mail: &str, roles: &[Role]) -> Result<Person, PersonRefusal> {
        self.engine.sign_in_person(&seen(subject, mail, roles)).await.unwrap()
    }

    /// Opens a session of the pages; gives the hash of its cookie.
    async fn session(&self, name: &str, issuer: Option<&str>) -> String {
        let (hash, now) = (format!("hash of {name} at {}", self.engine.clock.now()), self.engine.clock.now());
        let kind = if issuer.is_some() { "person" } else { "token" };
        let audit = NewAudit {
            actor: name.to_owned(),
            action: "web_session.started".to_owned(),
            subject: format!("{kind}/{name}"),
            detail: "{}".to_owned(),
        };
        let session = WebSession {
            name: name.to_owned(),
            issuer: issuer.map(str::to_owned),
            created_at: now,
            ends_at: now + Duration::from_hours(8),
            seen_at: now,
        };
        assert!(self.engine.store.start_web_session(&hash, &session, audit).await.unwrap());
        hash
    }

    async fn known(&self, address: &str) -> Option<Known> {
        let all = self.engine.known_people().await.unwrap();
        all.into_iter().find(|it| it.address == address)
    }

    /// Has an announced change take effect.
    async fn takes_effect(&self) {
        self.deliver(&[SECURITY]).await;
        self.round().await;
        self.pass(DAY);
        self.round().await;
        assert_eq!(self.pending().await, []);
    }

    async fn give_to(&self, token: &str, person: &str) {
        let edit = TokenEdit { roles: None, person: Some(person.to_owned()) };
        let done = self.engine.edit_token(Actor::admin("root"), token, edit).await.unwrap();
        assert!(done.to_come.is_some(), "{done:?}");
    }

    async fn cancelled(&self, by: &str, row: &RotationRow) {
        self.engine.say(by, row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    }

    async fn untie(&self, address: &str, from: Option<&str>) -> Result<Loosening, CommandError> {
        self.engine.untie_person(Actor::admin("root"), address, from).await
    }
}

#[track_caller]
fn as_one(voted: &Result<RotationRow, CommandError>) {
    match voted {
        Err(CommandError::VoteVoid(why)) => {
            assert!(why.to_string().contains("count as one person"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn everybody_is_listed_once_with_all_by_which_it_is_known() {
    for backend in BACKENDS {
        let it = Fixture::with_provider(backend).await;
        it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
        it.make("eve", &[Role::Operator]).await;
        it.session(&format!("mail:{EVE}"), Some(ISSUER)).await;
        it.session("eve", None).await;
        let eve = it.known(EVE).await.unwrap();
        assert_eq!((eve.accounts.len(), eve.tokens.len(), eve.sessions.len()), (1, 1, 2), "{eve:?}");
        assert_eq!(eve.roles, BTreeSet::from([Role::Operator, Role::Approver]));
        let refused = eve.refused.unwrap();
        assert_eq!(refused.from, Some(it.engine.clock.now() + DAY), "{}", refused.why);
        it.pass(DAY);
        assert_eq!(it.known(EVE).await.unwrap().refused, None);
        let ada = it.known("ada@example.com").await.unwrap().refused.unwrap();
        assert!(ada.why.contains("none of the roles approves") && ada.from.is_none(), "{ada:?}");
        it.session(&format!("mail:{EVE}"), Some(ISSUER)).await;
        it.session("eve", None).await;
        // Another address of the same account is the same person.
        it.signs_in("1", MALLORY, &[Role::Approver]).await.unwrap();
        let mallory = it.known(MALLORY).await.unwrap();
        assert!(mallory.others.contains(EVE) && mallory.tokens.len() == 1, "{mallory:?}");
        assert!(it.known(EVE).await.is_none());
        assert_eq!(mallory.sessions.len(), 1, "the session of the former name is over: {mallory:?}");
    }
}

/// A window that is closed, so that an approved rotation waits.
async fn closed_window(it: &Fixture) {
    let window = keywheel::domain::policy::Window {
        cron: "0 0 0 1 1 *".to_owned(),
        duration: Span::from_secs(1),
        timezone: "UTC".to_owned(),
    };
    it.edit("ada".into(), rule(|it| it.windows = Patch::Value(vec![window]))).await.unwrap();
}

#[tokio::test]
async fn with_a_person_all_goes_by_which_it_was_known() {
    for backend in BACKENDS {
        let it = Fixture::with_provider(backend).await;
        let name = format!("mail:{EVE}");
        it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
        it.make("eve", &[Role::Operator]).await;
        closed_window(&it).await;
        it.pass(2 * DAY);
        let (hers, tokens) = (it.session(&name, Some(ISSUER)).await, it.session("eve", None).await);
        let holder = FeedHolder { name: name.clone(), issuer: Some(ISSUER.to_owned()) };
        let feed = it.engine.make_feed(holder).await.unwrap();
        let row = it.propose("ada").await;
        let voter = Voter { name: &name, method: Strength::Session.as_str(), link: None, signed: None };
        let row = it.engine.say(voter, row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
        assert_eq!(row.rotation.state, State::Approved);

        let operator = it.engine.remove_person("ada".into(), EVE).await;
        assert!(matches!(operator, Err(CommandError::NotAllowed { .. })), "{operator:?}");
        let nobody = it.engine.remove_person(Actor::admin("root"), "ewe@example.com").await;
        let said = nobody.unwrap_err().to_string();
        assert!(said.contains("nobody is known") && said.contains(EVE), "{said}");
        let gone = it.engine.remove_person(Actor::admin("root"), "Eve@Example.com").await.unwrap();
        assert_eq!((gone.person.sessions.len(), gone.person.tokens.len()), (2, 1), "{gone:?}");

        let store = &it.engine.store;
        for hash in [hers, tokens] {
            assert_eq!(store.web_session(&hash).await.unwrap(), None);
        }
        assert_eq!(it.engine.feed_holder(&feed).await.unwrap(), None);
        assert!(store.token_in_force("eve").await.unwrap().is_none());
        assert_eq!(store.person(ISSUER, &name).await.unwrap(), None);
        assert!(it.known(EVE).await.is_none());
        assert_eq!(it.told("person_removed").await, [EVE, SECURITY]);
        for action in ["person.removed", "token.revoked", "calendar_feed.ended"] {
            assert!(it.audited(action).await > 0, "{action}");
        }
        driver::run_due(&it.engine).await.unwrap();
        let row = it.engine.rotation(row.rotation.id).await.unwrap();
        assert_eq!((row.rotation.state, row.rotation.permission.quorum.given), (State::AwaitingApproval, 0));
        assert_eq!(it.patches(), [] as [&str; 0]);
        assert!(store.tampered().await.unwrap().is_empty());
        let again = it.engine.remove_person(Actor::admin("root"), EVE).await;
        assert!(matches!(again, Err(CommandError::NobodyKnown { .. })), "{again:?}");

        // Who comes back begins anew, and is told.
        it.pass(Duration::from_secs(1));
        it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
        let back = it.engine.clock.now();
        assert_eq!(it.engine.feed_holder(&feed).await.unwrap(), None, "the old feed does not come back");
        assert_eq!(it.told("person_joined").await, [SECURITY, SECURITY]);
        let say = async || it.engine.say(voter, row.rotation.id, OperatorVerb::Approve, None, None).await;
        assert_eq!(counts_from(say().await), Some(back + DAY));
        it.pass(DAY);
        assert_eq!(say().await.unwrap().rotation.state, State::Approved);
    }
}

#[tokio::test]
async fn who_was_removed_is_still_the_same_person_as_who_proposed() {
    let it = Fixture::with_provider(Backend::Sqlite).await;
    it.signs_in("1", EVE, &[Role::Admin]).await.unwrap();
    it.pass(2 * DAY);
    let row = it.propose(&format!("mail:{EVE}")).await;
    it.engine.remove_person(Actor::admin("root"), EVE).await.unwrap();
    // The same account with another address.
    it.signs_in("1", MALLORY, &[Role::Admin]).await.unwrap();
    it.pass(2 * DAY);
    as_one(&it.approve(&format!("mail:{MALLORY}"), &row).await);
    // Another account does not take the address over.
    let other = it.signs_in("2", EVE, &[Role::Approver]).await;
    assert_eq!(other, Err(PersonRefusal::OtherAccount));
}

#[tokio::test]
async fn a_link_ends_with_its_person_and_none_follows_until_it_is_known_again() {
    for backend in BACKENDS {
        let mut it = Fixture::on(backend).await;
        it.0.rule(|settings| {
            settings.policy.approval_method = Strength::Link;
            settings.policy.approvers = vec![format!("mail:{EVE}").parse().unwrap()];
        });
        it.make("eve", &[Role::Viewer]).await;
        it.pass(2 * DAY);
        let row = it.propose("ada").await;
        let path = it.engine.link_for(row.rotation.id, EVE).await.unwrap().unwrap();
        let text = path.strip_prefix("/a/").unwrap();
        let link = it.engine.link(text).await.unwrap().unwrap();
        it.pass(Duration::from_secs(1));
        it.engine.remove_person(Actor::admin("root"), EVE).await.unwrap();
        let ended = it.engine.link(text).await.unwrap().unwrap();
        assert_eq!(ended.expires_at, it.engine.clock.now());
        let answered = it.engine.answer(&ended, OperatorVerb::Approve, None).await;
        assert!(matches!(answered, Err(CommandError::LinkEnded(_))), "{answered:?}");
        // Even who holds what was read before gets no vote by it.
        let voted = it.engine.answer(&link, OperatorVerb::Approve, None).await;
        assert!(matches!(voted, Err(CommandError::VoteVoid(_))), "{voted:?}");
        assert_eq!(it.engine.link_for(row.rotation.id, EVE).await.unwrap(), None);
        let known = "DELETE FROM removals";
        raw(&it.engine.store, known).await;
        assert!(matches!(it.engine.link(text).await, Err(StoreError::Tampered { .. })));
        let found = it.engine.store.tampered().await.unwrap();
        assert!(found.iter().any(|it| it.to_string().starts_with("removed/")), "{found:?}");
    }
}

#[tokio::test]
async fn whom_a_policy_or_a_project_names_is_removed_before_the_first_visit() {
    for backend in BACKENDS {
        let mut it = Fixture::on(backend).await;
        it.0.rule(|settings| {
            settings.policy.approval_method = Strength::Link;
            settings.policy.approvers =
                vec![format!("mail:{EVE}").parse().unwrap(), "owners".parse().unwrap()];
        });
        it.edit(Actor::admin("root"), owners(&[MALLORY])).await.unwrap();
        it.pass(3 * DAY);
        let row = it.propose("ada").await;
        it.pass(Duration::from_secs(1));
        for mail in [EVE, MALLORY] {
            let path = it.engine.link_for(row.rotation.id, mail).await.unwrap().unwrap();
            it.pass(Duration::from_secs(1));
            it.engine.remove_person(Actor::admin("root"), &mail.to_uppercase()).await.unwrap();
            let link = it.engine.link(path.strip_prefix("/a/").unwrap()).await.unwrap().unwrap();
            let answered = it.engine.answer(&link, OperatorVerb::Approve, None).await;
            assert!(matches!(answered, Err(CommandError::LinkEnded(_))), "{answered:?}");
            assert_eq!(it.engine.link_for(row.rotation.id, mail).await.unwrap(), None);
            let again = it.engine.remove_person(Actor::admin("root"), mail).await;
            assert!(matches!(again, Err(CommandError::NobodyKnown { .. })), "{again:?}");
        }
        let nobody = it.engine.remove_person(Actor::admin("root"), "nobody@example.com").await;
        assert!(matches!(nobody, Err(CommandError::NobodyKnown { .. })), "{nobody:?}");
    }
}

#[tokio::test]
async fn after_an_older_copy_was_accepted_people_and_links_begin_anew() {
    for backend in BACKENDS {
        let mut it = Fixture::with_provider(backend).await;
        it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
        it.0.rule(|settings| {
            settings.policy.approval_method = Strength::Link;
            settings.policy.approvers = vec![format!("mail:{EVE}").parse().unwrap()];
        });
        it.pass(2 * DAY);
        let row = it.propose("ada").await;
        let path = it.engine.link_for(row.rotation.id, EVE).await.unwrap().unwrap();
        let text = path.strip_prefix("/a/").unwrap();
        it.pass(Duration::from_secs(1));
        // Her removal is lost in the copy, so nobody in it is taken at their word.
        let audit = NewAudit {
            actor: "local:root".to_owned(),
            action: "installation.restore_accepted".to_owned(),
            subject: "installation".to_owned(),
            detail: "{}".to_owned(),
        };
        it.engine.store.void_after_restore(audit, it.engine.clock.now()).await.unwrap();
        assert_eq!(it.engine.store.people().await.unwrap(), []);
        let link = it.engine.link(text).await.unwrap().unwrap();
        assert_eq!(link.expires_at, it.engine.clock.now());
        let answered = it.engine.answer(&link, OperatorVerb::Approve, None).await;
        assert!(matches!(answered, Err(CommandError::LinkEnded(_))), "{answered:?}");
        it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
        let voted = it.approve(&format!("mail:{EVE}"), &row).await;
        assert!(matches!(voted, Err(CommandError::VoteVoid(_))), "{voted:?}");
        assert!(it.engine.store.tampered().await.unwrap().is_empty());
        raw(&it.engine.store, "DELETE FROM removals").await;
        assert!(matches!(it.engine.link(text).await, Err(StoreError::Tampered { .. })));
    }
}

#[tokio::test]
async fn a_token_that_changes_hands_counts_as_both_until_it_is_in_effect() {
    for backend in BACKENDS {
        let it = Fixture::on(backend).await;
        it.make("mallory", &[Role::Operator, Role::Approver]).await;
        it.pass(2 * DAY);
        let row = it.propose("edsger").await;
        it.give_to("edsger", MALLORY).await;
        assert_eq!(it.told("loosening_announced").await, ["edsger@example.com", MALLORY, SECURITY]);
        as_one(&it.approve("mallory", &row).await);
        it.cancelled("edsger", &row).await;
        // The other way round: her vote and his are one.
        it.edit("ada".into(), approvals(2)).await.unwrap();
        let row = it.propose("ada").await;
        it.approve("edsger", &row).await.unwrap();
        as_one(&it.approve("mallory", &row).await);
        it.takes_effect().await;
        let token = it.engine.store.token("edsger").await.unwrap().unwrap();
        assert_eq!(token.person.as_deref(), Some(MALLORY));
        // The rotation was proposed before: a token of the former person is his, too.
        it.make("edsger-too", &[Role::Approver]).await;
        let edit = TokenEdit { roles: None, person: Some("edsger@example.com".to_owned()) };
        it.engine.edit_token(Actor::admin("root"), "edsger-too", edit).await.unwrap();
        it.takes_effect().await;
        it.pass(2 * DAY);
        // What the token gave as his is void, and what it gives now is of both.
        it.approve("edsger", &row).await.unwrap();
        as_one(&it.approve("edsger-too", &row).await);
        it.cancelled("ada", &row).await;
        let row = it.propose("ada").await;
        it.approve("edsger", &row).await.unwrap();
        let voted = it.approve("edsger-too", &row).await.unwrap();
        assert_eq!(voted.rotation.permission.quorum.given, 2, "they are two people now");
        assert!(it.engine.store.tampered().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_token_is_taken_from_its_person_by_an_admin_later_and_not_if_withdrawn() {
    let it = Fixture::new().await;
    it.make("edsger-too", &[Role::Approver]).await;
    let operator = it.engine.untie_person("ada".into(), "edsger@example.com", None).await;
    assert!(matches!(operator, Err(CommandError::NotAllowed { .. })), "{operator:?}");
    let pending = it.untie("Edsger@example.com", Some("edsger")).await.unwrap();
    it.engine.withdraw_loosening("grace", pending.id).await.unwrap();
    it.pass(9 * DAY);
    it.round().await;
    let person = async || it.engine.store.token("edsger").await.unwrap().unwrap().person;
    assert!(person().await.is_some());
    it.untie("edsger@example.com", None).await.unwrap();
    it.deliver(&["edsger@example.com"]).await;
    it.pass(9 * DAY);
    it.round().await;
    assert!(person().await.is_some(), "security has not heard of it");
    it.takes_effect().await;
    assert_eq!(person().await, None);
    let nothing = it.untie("edsger@example.com", None).await.unwrap_err().to_string();
    assert!(nothing.contains("nobody is known"), "{nothing}");
    it.make("grace-too", &[Role::Approver]).await;
    it.give_to("grace-too", "grace@example.com").await;
    it.takes_effect().await;
    let several = it.untie("grace@example.com", None).await.unwrap_err().to_string();
    assert!(several.contains("is tied to grace, grace-too"), "{several}");
    for action in ["loosening.requested", "loosening.announced", "loosening.effective"] {
        assert!(it.audited(action).await > 0, "{action}");
    }
}

/// Edits by SQL after a token was given to somebody else, that would make one person two.
const EDITS: [(&str, &str); 6] = [
    ("the change removed", "DELETE FROM loosenings WHERE subject LIKE 'token/%'"),
    ("the change withdrawn", "UPDATE loosenings SET state = 'withdrawn' WHERE subject LIKE 'token/%'"),
    (
        "in effect before the proposal",
        "UPDATE loosenings SET effective_at = requested_at WHERE subject LIKE 'token/%'",
    ),
    (
        "about somebody else",
        "UPDATE loosenings SET changes = replace(changes, 'edsger@', 'nobody@') WHERE subject LIKE 'token/%'",
    ),
    ("of another token", "UPDATE loosenings SET subject = 'token/ada' WHERE subject = 'token/edsger'"),
    ("the person of the token", "UPDATE tokens SET person = 'nobody@example.com' WHERE name = 'edsger'"),
];

#[tokio::test]
async fn no_edit_of_the_database_makes_one_person_two() {
    for backend in BACKENDS {
        for (what, edit) in EDITS {
            let it = Fixture::on(backend).await;
            it.make("second", &[Role::Approver]).await;
            it.give_to("second", "edsger@example.com").await;
            it.takes_effect().await;
            it.pass(2 * DAY);
            it.edit("ada".into(), approvals(2)).await.unwrap();
            let row = it.propose("ada").await;
            it.approve("second", &row).await.unwrap();
            it.give_to("edsger", MALLORY).await;
            it.takes_effect().await;
            it.pass(2 * DAY);
            as_one(&it.approve("edsger", &row).await);
            raw(&it.engine.store, edit).await;
            let _ = it.approve("edsger", &row).await;
            for _ in 0..5 {
                driver::run_due(&it.engine).await.unwrap();
                it.pass(Duration::from_mins(1));
            }
            assert_eq!(it.patches(), [] as [&str; 0], "{what}");
            let found = it.engine.store.tampered().await.unwrap();
            assert!(!found.is_empty(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_former_address_goes_to_somebody_else_only_after_it_was_announced() {
    for backend in BACKENDS {
        let it = Fixture::with_provider(backend).await;
        it.signs_in("1", EVE, &[Role::Admin]).await.unwrap();
        it.signs_in("1", MALLORY, &[Role::Admin]).await.unwrap();
        it.pass(2 * DAY);
        let row = it.propose(&format!("mail:{MALLORY}")).await;
        let present = it.untie(MALLORY, None).await.unwrap_err().to_string();
        assert!(present.contains("present address"), "{present}");
        it.untie(EVE, None).await.unwrap();
        assert_eq!(it.signs_in("2", EVE, &[Role::Approver]).await, Err(PersonRefusal::OtherAccount));
        it.takes_effect().await;
        it.signs_in("2", EVE, &[Role::Approver]).await.unwrap();
        it.pass(2 * DAY);
        as_one(&it.approve(&format!("mail:{EVE}"), &row).await);
        it.cancelled("ada", &row).await;
        let row = it.propose(&format!("mail:{MALLORY}")).await;
        let voted = it.approve(&format!("mail:{EVE}"), &row).await.unwrap();
        assert_eq!(voted.rotation.state, State::Approved, "they are two people now");
        assert!(it.engine.store.tampered().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn who_may_approve_for_the_first_time_is_told_once() {
    for backend in BACKENDS {
        let mut it = Fixture::with_provider(backend).await;
        it.signs_in("1", EVE, &[Role::Viewer]).await.unwrap();
        assert_eq!(it.told("person_joined").await, [] as [&str; 0], "a reader");
        it.signs_in("1", EVE, &[Role::Viewer, Role::Approver]).await.unwrap();
        it.signs_in("1", EVE, &[Role::Viewer, Role::Approver]).await.unwrap();
        assert_eq!(it.told("person_joined").await, [SECURITY]);
        it.signs_in("2", MALLORY, &[Role::Admin]).await.unwrap();
        assert_eq!(it.told("person_joined").await, [SECURITY, SECURITY]);
        it.0.rule(|settings| settings.policy.approvers = vec!["group:payments".parse().unwrap()]);
        it.pass(Duration::from_secs(1));
        let mut in_group = seen("1", EVE, &[Role::Viewer, Role::Approver]);
        in_group.groups.push("payments".to_owned());
        for _ in 0..2 {
            it.engine.sign_in_person(&in_group).await.unwrap().unwrap();
        }
        assert_eq!(it.mails("person_joined").await.len(), 3);
        // Who may propose emergencies takes others' approvals away.
        it.0.rule(|settings| settings.policy.emergency.by = vec!["group:night".parse().unwrap()]);
        it.pass(Duration::from_secs(1));
        in_group.groups.push("night".to_owned());
        it.engine.sign_in_person(&in_group).await.unwrap().unwrap();
        assert_eq!(it.mails("person_joined").await.len(), 4);
        // Without anybody for the security it goes to those who look after the installation.
        it.0.rule(|settings| settings.security = Vec::new());
        it.signs_in("3", "trudy@example.com", &[Role::Approver]).await.unwrap();
        assert!(it.told("person_joined").await.contains(&"ada@example.com".to_owned()));
    }
}

/// Enrols a passkey of an address and has it count.
async fn counting(it: &Fixture, by: &str, mail: &str) -> (Authenticator, String) {
    let mut device = Authenticator::new(Kind::Es256);
    let asked = it.engine.ask_to_enrol(mail).unwrap();
    let made: Made = serde_json::from_value(device.made(&asked.challenge)).unwrap();
    let passkey = it.engine.enrol_passkey((by, mail), "Phone", &asked.ticket, &made).await.unwrap();
    let key = (passkey.id.as_str(), passkey.code());
    let root = Some("root@example.com");
    it.engine.confirm_passkey(Actor::admin("root"), root, (key.0, &key.1)).await.unwrap();
    it.deliver(&[mail, SECURITY]).await;
    it.round().await;
    it.pass(2 * DAY);
    (device, passkey.id)
}

#[tokio::test]
async fn what_a_former_address_left_opens_and_signs_nothing() {
    for backend in BACKENDS {
        let mut it = Fixture::with_provider(backend).await;
        it.0.rule(|settings| {
            "http://localhost:8440".clone_into(&mut settings.public_url);
            settings.policy.approval_method = Strength::Passkey;
        });
        let name = format!("mail:{EVE}");
        it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
        it.make("eve", &[Role::Approver]).await;
        let (mut device, _) = counting(&it, &name, EVE).await;
        let session = it.session(&name, Some(ISSUER)).await;
        let holder = FeedHolder { name: name.clone(), issuer: Some(ISSUER.to_owned()) };
        let feed = it.engine.make_feed(holder).await.unwrap();
        let row = it.propose("ada").await;
        let may = it.engine.why_waiting(&row).await.unwrap().join(" ");
        assert!(may.contains(&name) && may.contains("eve"), "{may}");

        it.signs_in("1", MALLORY, &[Role::Approver]).await.unwrap();
        assert_eq!(it.told("person_renamed").await, [EVE, MALLORY, SECURITY]);
        assert_eq!(it.engine.store.web_session(&session).await.unwrap(), None);
        assert_eq!(it.engine.feed_holder(&feed).await.unwrap(), None);
        // The token is of the former address still.
        it.pass(2 * DAY);
        let asked = it.engine.ask_to_approve(EVE, &row).unwrap();
        let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
        let signed = it.engine.signed_vote(EVE, &row, (&asked.ticket, &answer), Vec::new()).await;
        assert!(signed.is_err(), "{signed:?}");
        let may = it.engine.why_waiting(&row).await.unwrap().join(" ");
        assert!(!may.contains("eve") && !may.contains(MALLORY), "{may}");
        let mallory = it.known(MALLORY).await.unwrap();
        let why = mallory.passkeys[0].1.clone().unwrap();
        assert!(why.contains("former address eve@example.com"), "{why}");
    }
}

#[tokio::test]
async fn a_vote_of_a_passkey_whose_address_is_a_former_one_by_now_is_void() {
    let mut it = Fixture::with_provider(Backend::Sqlite).await;
    it.0.rule(|settings| {
        "http://localhost:8440".clone_into(&mut settings.public_url);
        settings.policy.approval_method = Strength::Passkey;
    });
    closed_window(&it).await;
    it.signs_in("1", EVE, &[Role::Approver]).await.unwrap();
    it.make("eve", &[Role::Approver]).await;
    let (mut device, _) = counting(&it, "eve", EVE).await;
    let row = it.propose("ada").await;
    let asked = it.engine.ask_to_approve(EVE, &row).unwrap();
    let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
    let signed = it.engine.signed_vote(EVE, &row, (&asked.ticket, &answer), Vec::new()).await.unwrap();
    let voter = Voter::from("eve").signing(&signed);
    let row = it.engine.say(voter, row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    assert_eq!(row.rotation.state, State::Approved);
    it.signs_in("1", MALLORY, &[Role::Approver]).await.unwrap();
    it.pass(Duration::from_mins(10));
    driver::run_due(&it.engine).await.unwrap();
    let row = it.engine.rotation(row.rotation.id).await.unwrap();
    assert_eq!(row.rotation.state, State::AwaitingApproval);
}

#[tokio::test]
async fn a_passkey_that_confirms_another_one_goes_on_counting_and_one_of_another_host_signs_nothing() {
    for backend in BACKENDS {
        let mut it = Fixture::on(backend).await;
        it.0.rule(|settings| {
            "http://localhost:8440".clone_into(&mut settings.public_url);
            settings.policy.approval_method = Strength::Passkey;
        });
        let grace = "grace@example.com";
        let (mut first, id) = counting(&it, "grace", grace).await;
        let mut second = Authenticator::new(Kind::EdDsa);
        let asked = it.engine.ask_to_enrol(grace).unwrap();
        let made: Made = serde_json::from_value(second.made(&asked.challenge)).unwrap();
        let new = it.engine.enrol_passkey(("grace", grace), "Key", &asked.ticket, &made).await.unwrap();
        let counter = async || {
            let all = it.engine.store.passkeys().await.unwrap();
            all.into_iter().find(|it| it.id == id).unwrap().credential.counter
        };
        let before = counter().await;
        let asked = it.engine.ask_to_confirm(grace, &new).unwrap();
        let answer: Answer = serde_json::from_value(first.answer(&asked.challenge)).unwrap();
        it.engine.confirm_by_own(("grace", grace), &new.id, (&asked.ticket, &answer)).await.unwrap();
        assert!(counter().await > before, "{before}");
        assert!(it.engine.store.tampered().await.unwrap().is_empty());
        let row = it.propose("ada").await;
        assert!(it.engine.why_waiting(&row).await.unwrap().join(" ").contains("grace can give one"));
        // A copy of it that has counted less is noticed.
        first.counter -= 1;
        let asked = it.engine.ask_to_approve(grace, &row).unwrap();
        let answer: Answer = serde_json::from_value(first.answer(&asked.challenge)).unwrap();
        let copied = it.engine.signed_vote(grace, &row, (&asked.ticket, &answer), Vec::new()).await;
        assert!(copied.unwrap_err().to_string().contains("may have been copied"));
        it.0.rule(|settings| "https://keys.example.com".clone_into(&mut settings.public_url));
        let said = it.engine.why_waiting(&row).await.unwrap().join(" ");
        assert!(said.contains("Nobody can give one now"), "{said}");
    }
}
