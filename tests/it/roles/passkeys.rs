//! Passkeys and the database: what counts, since when, and what an edit by SQL does to it.

use keywheel::engine::command::Voter;
use keywheel::engine::passkeys::{Answer, Made, holder};
use keywheel::store::{NewAudit, Passkey};

use super::*;
use crate::support::authenticator::{Authenticator, Kind};

const GRACE: &str = "grace@example.com";
const ROOT: &str = "root@example.com";

/// The same with `approval_method = "passkey"`.
async fn fixture(backend: Backend) -> Fixture {
    let mut it = Fixture::on(backend).await;
    it.0.rule(|settings| {
        settings.policy.approval_method = keywheel::domain::approver::Strength::Passkey;
        "http://localhost:8440".clone_into(&mut settings.public_url);
    });
    it
}

impl Fixture {
    async fn enrol(&self, by: &str, device: &mut Authenticator) -> Passkey {
        let mail = format!("{by}@example.com");
        let asked = self.engine.ask_to_enrol(&mail).unwrap();
        let made: Made = serde_json::from_value(device.made(&asked.challenge)).unwrap();
        self.engine.enrol_passkey((by, &mail), "Phone", &asked.ticket, &made).await.unwrap()
    }

    /// Enrolled, confirmed, told, and old enough.
    async fn counting(&self, by: &str) -> Authenticator {
        let mut device = Authenticator::new(Kind::Es256);
        let it = self.enrol(by, &mut device).await;
        self.engine.confirm_passkey(Actor::admin("root"), Some(ROOT), (&it.id, &it.code())).await.unwrap();
        self.deliver(&[&format!("{by}@example.com"), SECURITY]).await;
        self.round().await;
        self.pass(2 * DAY);
        device
    }

    async fn sign(
        &self,
        by: &str,
        device: &mut Authenticator,
        row: &RotationRow,
    ) -> Result<RotationRow, CommandError> {
        let mail = holder(&format!("{by}@example.com"));
        let asked = self.engine.ask_to_approve(&mail, row)?;
        let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
        let shown = vec!["it".to_owned()];
        let vote = self.engine.signed_vote(&mail, row, (&asked.ticket, &answer), shown).await?;
        let voter = Voter::from(by).signing(&vote);
        self.engine.say(voter, row.rotation.id, OperatorVerb::Approve, None, None).await
    }

    async fn one(&self) -> Passkey {
        let mut all = self.engine.store.passkeys().await.unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

#[tokio::test]
async fn a_passkey_counts_a_day_after_everybody_heard_of_it() {
    let it = fixture(Backend::Sqlite).await;
    let row = it.propose("ada").await;
    let mut device = Authenticator::new(Kind::Es256);
    let passkey = it.enrol("grace", &mut device).await;
    assert!(it.sign("grace", &mut device, &row).await.is_err(), "nobody has confirmed it");
    let cancel = async |row: &RotationRow| {
        it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    };
    cancel(&row).await;
    let code = passkey.code();
    let key = (passkey.id.as_str(), code.as_str());
    let own = it.engine.confirm_passkey(Actor::admin("grace"), Some("Grace@Example.com"), key).await;
    assert!(matches!(own, Err(CommandError::NotAllowed { .. })), "her own: {own:?}");
    let operator = it.engine.confirm_passkey(Actor::from("edsger"), None, key).await;
    assert!(matches!(operator, Err(CommandError::NotAllowed { .. })), "{operator:?}");
    let nobody = it.engine.confirm_passkey(Actor::admin("root"), None, key).await;
    assert!(matches!(nobody, Err(CommandError::NotAllowed { .. })), "a token of nobody: {nobody:?}");
    let other =
        it.engine.confirm_passkey(Actor::admin("root"), Some(ROOT), (&passkey.id, "0000-0000-0000")).await;
    assert!(matches!(other, Err(CommandError::Invalid { field: "code", .. })), "another code: {other:?}");
    it.engine.confirm_passkey(Actor::admin("root"), Some(ROOT), key).await.unwrap();
    assert_eq!(it.told("passkey_confirmed").await, [GRACE, SECURITY]);
    it.pass(10 * DAY);
    it.round().await;
    assert_eq!(it.one().await.counts_from, None, "nobody was reached");
    it.deliver(&[GRACE]).await;
    it.round().await;
    assert_eq!(it.one().await.counts_from, None, "security was not");
    it.deliver(&[SECURITY]).await;
    it.round().await;
    let from = it.one().await.counts_from.unwrap();
    assert_eq!(from, it.engine.clock.now() + DAY);
    let row = it.propose("ada").await;
    assert!(it.sign("grace", &mut device, &row).await.is_err(), "a day has not passed");
    cancel(&row).await;
    it.pass(DAY);
    let row = it.propose("ada").await;
    let voted = it.sign("grace", &mut device, &row).await.unwrap();
    assert_eq!(voted.rotation.state, State::Approved);
    assert_eq!(it.settle(&voted).await.rotation.state, State::Completed);
}

#[tokio::test]
async fn a_further_one_is_confirmed_by_one_that_counts() {
    let it = fixture(Backend::Sqlite).await;
    let mut first = it.counting("grace").await;
    let mut foreign = it.counting("edsger").await;
    let mut second = Authenticator::new(Kind::EdDsa);
    let new = it.enrol("grace", &mut second).await;
    let another = Passkey { id: "another".to_owned(), ..new.clone() };
    let confirm = async |device: &mut Authenticator, asked: &Passkey| {
        let asked = it.engine.ask_to_confirm(GRACE, asked).unwrap();
        let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
        it.engine.confirm_by_own(("grace", GRACE), &new.id, (&asked.ticket, &answer)).await
    };
    assert!(confirm(&mut second, &new).await.is_err(), "itself");
    assert!(confirm(&mut foreign, &new).await.is_err(), "somebody else's");
    assert!(confirm(&mut first, &another).await.is_err(), "another one was signed for");
    confirm(&mut first, &new).await.unwrap();
    assert!(confirm(&mut first, &new).await.is_err(), "it is confirmed already");
}

#[tokio::test]
async fn what_was_signed_counts_once_and_for_one_person_and_proposal() {
    let it = fixture(Backend::Sqlite).await;
    let mut device = it.counting("grace").await;
    let row = it.propose("ada").await;
    let ask = || it.engine.ask_to_approve(GRACE, &row).unwrap();
    let asked = ask();
    let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
    let vote = async |row: &RotationRow, ticket: &str, answer: &Answer| {
        it.engine.signed_vote(GRACE, row, (ticket, answer), Vec::new()).await
    };
    let fresh = ask();
    assert!(vote(&row, &fresh.ticket, &answer).await.is_err(), "another challenge");
    let theirs =
        it.engine.signed_vote("edsger@example.com", &row, (&asked.ticket, &answer), Vec::new()).await;
    assert!(theirs.is_err(), "another person");
    let signed = vote(&row, &asked.ticket, &answer).await.unwrap();
    let say = async |verb| {
        it.engine.say(Voter::from("grace").signing(&signed), row.rotation.id, verb, None, None).await
    };
    say(OperatorVerb::Approve).await.unwrap();
    say(OperatorVerb::Withdraw).await.unwrap();
    assert!(vote(&row, &asked.ticket, &answer).await.is_err(), "it was signed before");
    assert!(say(OperatorVerb::Approve).await.is_err(), "the same vote again");
    // A copy of the device answers with a counter that was seen.
    let asked = ask();
    device.counter -= 1;
    let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
    let copied = vote(&row, &asked.ticket, &answer).await.unwrap_err().to_string();
    assert!(copied.contains("may have been copied"), "{copied}");
    // A page that was open for an hour.
    let asked = ask();
    let answer: Answer = serde_json::from_value(device.answer(&asked.challenge)).unwrap();
    it.pass(Duration::from_hours(1));
    assert!(vote(&row, &asked.ticket, &answer).await.unwrap_err().to_string().contains("load it again"));
}

#[tokio::test]
async fn a_passkey_that_is_removed_takes_its_vote_with_it() {
    let it = fixture(Backend::Sqlite).await;
    let mut device = it.counting("grace").await;
    let row = it.propose("ada").await;
    let voted = it.sign("grace", &mut device, &row).await.unwrap();
    assert_eq!(voted.rotation.state, State::Approved);
    it.engine.remove_passkey(Actor::admin("root"), None, &device.id()).await.unwrap();
    assert_eq!(it.told("passkey_removed").await, [GRACE, SECURITY]);
    Box::pin(driver::run_due(&it.engine)).await.unwrap();
    let row = it.engine.rotation(row.rotation.id).await.unwrap();
    assert_eq!(row.rotation.state, State::AwaitingApproval);
    assert_eq!(it.patches(), [] as [&str; 0]);
    // With another one she votes again, without taking anything back first.
    let mut other = it.counting("grace").await;
    let voted = it.sign("grace", &mut other, &row).await.unwrap();
    assert_eq!(voted.rotation.state, State::Approved);
}

#[tokio::test]
async fn who_made_the_token_that_enrolled_a_passkey_does_not_confirm_it() {
    let it = fixture(Backend::Sqlite).await;
    it.make_as("root", "victim", &[Role::Approver]).await;
    it.pass(2 * DAY);
    let passkey = it.enrol("victim", &mut Authenticator::new(Kind::Es256)).await;
    let own =
        it.engine.confirm_passkey(Actor::admin("root"), Some(ROOT), (&passkey.id, &passkey.code())).await;
    assert!(matches!(own, Err(CommandError::NotAllowed { .. })), "{own:?}");
}

/// Edits by SQL after the vote and before the PATCH.
const EDITS: [(&str, &str); 9] = [
    (
        "the signature",
        "UPDATE assertions SET evidence = replace(evidence, '\"signature\":\"', '\"signature\":\"AAAA')",
    ),
    (
        "what was shown",
        "UPDATE assertions SET evidence = replace(evidence, '\"shown\":[\"it\"]', '\"shown\":[\"that\"]')",
    ),
    ("the evidence removed", "DELETE FROM assertions"),
    ("the vote without evidence", "UPDATE approvals SET assertion = NULL"),
    ("the vote as one of a session", "UPDATE approvals SET method = 'session', assertion = NULL"),
    ("the key", "UPDATE passkeys SET public_key = 'pQECAyYgASFYIAAA'"),
    ("whose it is", "UPDATE passkeys SET holder = 'edsger@example.com'"),
    ("since when it counts", "UPDATE passkeys SET counts_from = confirmed_at"),
    ("the passkey removed", "DELETE FROM passkeys"),
];

async fn no_edit_sends_a_key(backend: Backend) {
    for (what, edit) in EDITS {
        let it = fixture(backend).await;
        let mut device = it.counting("grace").await;
        let row = it.propose("ada").await;
        it.sign("grace", &mut device, &row).await.unwrap();
        raw(&it.engine.store, edit).await;
        for _ in 0..5 {
            Box::pin(driver::run_due(&it.engine)).await.unwrap();
            it.pass(Duration::from_mins(1));
        }
        assert_eq!(it.patches(), [] as [&str; 0], "{what}");
        let row = it.engine.rotation(row.rotation.id).await.unwrap();
        let state = row.rotation.state;
        assert!(matches!(state, State::NeedsOperator | State::AwaitingApproval), "{what}: {state:?}");
    }
}

#[tokio::test]
async fn no_edit_of_what_a_passkey_signed_sends_a_key_on_sqlite() {
    no_edit_sends_a_key(Backend::Sqlite).await;
}

#[tokio::test]
async fn no_edit_of_what_a_passkey_signed_sends_a_key_on_postgres() {
    no_edit_sends_a_key(Backend::Postgres).await;
}

/// After an older copy of the database was accepted, what was removed may be there again.
#[tokio::test]
async fn after_an_older_database_was_accepted_each_is_confirmed_anew_and_a_planted_one_is_none() {
    let it = fixture(Backend::Sqlite).await;
    let mut device = it.counting("grace").await;
    raw(
        &it.engine.store,
        "INSERT INTO passkeys SELECT 'AAAA', 'edsger@example.com', name, site, public_key, counter, may_be_copied, is_copied, \
         enrolled_by, enrolled_at, confirmed_by, confirmed_at, told, counts_from FROM passkeys",
    )
    .await;
    let now = it.engine.clock.now();
    let row = NewAudit {
        actor: "local:root".to_owned(),
        action: "restore.accepted".to_owned(),
        subject: "installation".to_owned(),
        detail: "{}".to_owned(),
    };
    it.engine.store.void_after_restore(row, now).await.unwrap();
    let passkey = it.one().await;
    assert_eq!((passkey.id.clone(), passkey.confirmed_at, passkey.counts_from), (device.id(), None, None));
    for name in ["ada", "grace", "root"] {
        let row = NewAudit {
            actor: "local:root".to_owned(),
            action: "token.confirmed".to_owned(),
            subject: format!("token/{name}"),
            detail: "{}".to_owned(),
        };
        assert!(it.engine.store.confirm_token(name, row, now).await.unwrap());
    }
    let row = it.propose("ada").await;
    assert!(it.sign("grace", &mut device, &row).await.is_err());
}

/// Who writes rows of his own gets no vote out of them.
#[tokio::test]
async fn a_passkey_that_is_written_by_hand_signs_nothing() {
    let it = fixture(Backend::Sqlite).await;
    let mut device = Authenticator::new(Kind::Es256);
    it.enrol("grace", &mut device).await;
    raw(
        &it.engine.store,
        "UPDATE passkeys SET confirmed_by = 'root', confirmed_at = enrolled_at, counts_from = enrolled_at",
    )
    .await;
    let row = it.propose("ada").await;
    assert!(it.sign("grace", &mut device, &row).await.is_err());
    assert_eq!(it.engine.store.passkeys().await.unwrap(), []);
    let found = it.engine.store.tampered().await.unwrap();
    assert!(found.iter().any(|it| it.to_string().contains("passkey/")), "{found:?}");
}
