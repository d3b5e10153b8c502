//! Emergency rotations: for whom the policy names, never without another person, and one at a time until somebody else
//! has looked at it.

use keywheel::domain::emergency::Emergency;
use keywheel::domain::policy::Policy;
use keywheel::engine::propose::NewProposal;
use keywheel::store::Review;
use serde_json::json;

use super::*;
use crate::pages::{Browser, hidden};
use crate::support::daemon::Daemon;
use keywheel::sim::world::demo_key;

fn ask(key: &str, reason: Option<&str>) -> NewProposal {
    NewProposal {
        new_key: key.parse().unwrap(),
        reason: reason.map(str::to_owned),
        planned: None,
        emergency: true,
        dry_run: false,
    }
}

/// A window that opens on no day of the next months.
fn never() -> keywheel::domain::policy::Window {
    serde_json::from_str(r#"{ "cron": "0 0 3 29 2 *", "duration": "1m", "timezone": "UTC" }"#).unwrap()
}

impl Fixture {
    /// Two approvals, a window far away, and ada may propose an emergency that one approves.
    async fn for_emergencies(backend: Backend) -> Self {
        let mut it = Self::on(backend).await;
        it.0.rule(|settings| {
            settings.policy.approvals = 2;
            settings.policy.self_approval = true;
            settings.policy.windows = vec![never()];
            settings.policy.emergency.by = vec!["mail:Ada@example.com".parse().unwrap()];
        });
        it
    }

    async fn emergency(&self, by: &str) -> Result<RotationRow, CommandError> {
        let asked = self.engine.propose_on(by, &project(), ask(&new_key(), Some("it leaked"))).await;
        asked.map(|proposed| match proposed {
            Proposed::Created(row) => row,
            other => panic!("{other:?}"),
        })
    }

    /// Another token of ada's.
    async fn of_ada(&self, name: &str) {
        let made =
            self.engine.create_token("local:admin", (name, name), &[Role::Operator], Some("ada@example.com"));
        made.await.unwrap();
    }

    async fn close(&self, by: &str, row: &RotationRow) -> Result<Review, CommandError> {
        self.engine.close_review(by.into(), row.rotation.id, "in order").await
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(done: Result<T, CommandError>) -> String {
    match done {
        Err(CommandError::NoEmergency(why) | CommandError::ReviewNotClosed(why)) => why,
        Err(CommandError::Invalid { field, rule }) => format!("{field}: {rule}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_emergency_takes_fewer_people_and_never_none() {
    let by = vec!["owners".parse().unwrap()];
    for (asked, needed) in [(0, 1), (1, 1), (2, 2), (3, 3), (9, 3)] {
        let emergency = Emergency { approvals: asked, by: by.clone() };
        let usual = Policy { approvals: 3, self_approval: true, emergency, ..Policy::default() };
        let it = usual.in_emergency();
        assert_eq!((it.approvals, it.self_approval), (needed, false));
    }
}

async fn from_proposal_to_review(backend: Backend) {
    let it = Fixture::for_emergencies(backend).await;
    it.of_ada("ada-laptop").await;
    it.pass(2 * DAY);
    let row = it.emergency("ada").await.unwrap();
    assert_eq!((row.trigger.as_str(), row.rotation.permission.quorum.required), ("emergency", 1));
    let told = it.mails("emergency_requested").await;
    assert_eq!(it.told("emergency_requested").await, ["ada@example.com", SECURITY]);
    assert!(format!("{told:?}").contains("it leaked"), "{told:?}");
    // Never none: self_approval is off in an emergency.
    it.give("ada", &[Role::Operator, Role::Approver]).await;
    assert!(matches!(it.approve("ada", &row).await, Err(CommandError::VoteVoid(_))));
    assert!(refused(it.close("grace", &row).await).contains("after its end"));
    it.approve("grace", &row).await.unwrap();
    let row = it.settle(&row).await;
    assert_eq!((row.rotation.state, it.patches()), (State::Completed, vec![new_key()]));

    it.pass(2 * DAY);
    // One at a time for a person, by whatever identity.
    for by in ["ada", "ada-laptop"] {
        let second = it.engine.propose_on(by, &project(), ask(OLD, Some("again"))).await;
        assert!(matches!(second, Err(CommandError::ReviewOpen(id)) if id == row.rotation.id), "{second:?}");
        assert!(refused(it.close(by, &row).await).contains("another person"), "{by}");
    }
    let review = it.close("grace", &row).await.unwrap();
    assert_eq!((review.closed_by.as_deref(), review.finding.as_deref()), (Some("grace"), Some("in order")));
    assert!(refused(it.close("edsger", &row).await).contains("grace has closed"));
    assert_eq!(it.told("review_closed").await, ["ada@example.com", SECURITY]);
    assert_eq!(it.audited("review.closed").await, 1);
    let again = it.engine.propose_on("ada-laptop", &project(), ask(OLD, Some("again"))).await;
    assert!(matches!(again, Ok(Proposed::Created(_))), "{again:?}");
}

/// The key that Atlas held at first.
const OLD: &str = "00000001-aaaa-4aaa-8aaa-000000000001";

#[tokio::test]
async fn an_emergency_waits_for_one_person_and_no_window_and_is_reviewed_on_sqlite() {
    from_proposal_to_review(Backend::Sqlite).await;
}

#[tokio::test]
async fn an_emergency_waits_for_one_person_and_no_window_and_is_reviewed_on_postgres() {
    from_proposal_to_review(Backend::Postgres).await;
}

#[tokio::test]
async fn it_is_for_whom_the_policy_names_with_a_reason_and_no_date() {
    let mut it = Fixture::for_emergencies(Backend::Sqlite).await;
    let propose = async |by: &str, ask| it.engine.propose_on(by, &project(), ask).await;
    assert!(refused(propose("ada", ask(&new_key(), None)).await).starts_with("reason: "));
    assert!(refused(propose("ada", ask(&new_key(), Some("  "))).await).starts_with("reason: "));
    let planned = Some("2999-01-01".parse().unwrap());
    let dated = NewProposal { planned, ..ask(&new_key(), Some("it leaked")) };
    assert!(refused(propose("ada", dated).await).starts_with("plannedFor: "));
    for by in ["grace", "local:admin", "nobody"] {
        assert!(refused(it.emergency(by).await).contains("mail:Ada@example.com"), "{by}");
    }
    // A dry run says the same, and opens no review.
    let dry = NewProposal { dry_run: true, ..ask(&new_key(), Some("it leaked")) };
    assert!(matches!(propose("ada", dry).await, Ok(Proposed::Checked { .. })));
    assert_eq!(it.engine.reviews().await.unwrap(), []);
    it.0.rule(|settings| settings.policy.emergency.by.clear());
    assert!(refused(it.emergency("ada").await).contains("names nobody"));
}

#[tokio::test]
async fn an_identity_that_was_given_to_a_named_person_lately_proposes_none() {
    let it = Fixture::for_emergencies(Backend::Sqlite).await;
    it.of_ada("new").await;
    assert!(refused(it.emergency("new").await).contains("it may propose one from"));
    it.pass(DAY);
    it.emergency("new").await.unwrap();
}

#[tokio::test]
async fn a_freeze_binds_an_emergency_too() {
    let mut it = Fixture::for_emergencies(Backend::Sqlite).await;
    let day = it.engine.clock.now().to_string()[..10].to_owned();
    it.0.rule(|settings| {
        let freeze = format!(r#"{{ "name": "Winter", "from": "{day}", "to": "{day}" }}"#);
        settings.policy.freezes = vec![serde_json::from_str(&freeze).unwrap()];
    });
    let row = it.emergency("ada").await.unwrap();
    it.approve("grace", &row).await.unwrap();
    for _ in 0..3 {
        driver::run_due(&it.engine).await.unwrap();
        it.pass(Duration::from_mins(1));
    }
    assert_eq!(it.patches(), Vec::<String>::new());
    it.pass(DAY);
    assert_eq!(it.settle(&row).await.rotation.state, State::Completed);
}

#[tokio::test]
async fn a_review_that_is_edited_in_the_database_lets_nobody_propose_another() {
    for (backend, sql) in [
        (Backend::Sqlite, "DELETE FROM reviews"),
        (Backend::Sqlite, "UPDATE reviews SET closed_by = 'grace', closed_at = requested_at, finding = 'x'"),
        (Backend::Sqlite, "UPDATE reviews SET requested_by = 'edsger', people = '[]'"),
        (Backend::Sqlite, "UPDATE reviews SET people = 'nonsense'"),
        (Backend::Postgres, "DELETE FROM reviews"),
        (
            Backend::Postgres,
            "UPDATE reviews SET closed_by = 'grace', closed_at = requested_at, finding = 'x'",
        ),
    ] {
        let it = Fixture::for_emergencies(backend).await;
        let row = it.emergency("ada").await.unwrap();
        it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
        raw(&it.engine.store, sql).await;
        let again = it.emergency("ada").await;
        assert!(matches!(again, Err(CommandError::Store(StoreError::Tampered { .. }))), "{sql}: {again:?}");
        let found = it.engine.store.tampered().await.unwrap();
        assert!(found.iter().any(|it| it.to_string().starts_with("reviews ")), "{sql}: {found:?}");
        // Rotations that are no emergency go on.
        it.propose("ada").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_proposes_one_on_a_page_and_another_closes_its_review() {
    let daemon = Daemon::start_with("policy.emergency.by = [\"mail:ada@example.com\"]\n").await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let vera = daemon.token("vera", "viewer");
    let project = daemon.add(&ada, 1).await;
    let (here, there) = (Browser::signed_in(&daemon, &ada).await, Browser::signed_in(&daemon, &grace).await);
    let path = format!("/projects/{project}/propose");
    let page = here.get(&path).await;
    assert!(page.text.contains("This is an emergency") && page.text.contains("mail:ada@example.com"));
    let form = hidden(&page.text, "form");
    let key = new_key();
    let mut fields = vec![("form", form.as_str()), ("step", "check"), ("key", &key), ("emergency", "yes")];
    let missing = here.post(&path, &fields).await;
    assert!(missing.status == 422 && missing.text.contains("id=\"reason-why\""), "{}", missing.text);
    fields.push(("reason", "the old key leaked"));
    let checked = here.post(&path, &fields).await;
    assert!(checked.status == 200 && checked.text.contains("An emergency:"), "{}", checked.text);
    fields[1] = ("step", "propose");
    let to = here.post(&path, &fields).await.to.unwrap();
    assert!(here.get(&to).await.text.contains("Emergency."));
    let id = to.rsplit('/').next().unwrap();

    // The API says the same, and exit codes follow from it.
    let listed = daemon.get(&vera, "/reviews").await;
    assert_eq!(listed.json["items"][0]["reason"], json!("the old key leaked"), "{listed:?}");
    let body = json!({ "finding": "in order" });
    let close = format!("/rotations/{id}/review/close");
    assert_eq!(daemon.call(&vera, "POST", &close, body.clone()).await.status, 403);
    assert_eq!(daemon.call(&grace, "POST", &close, body.clone()).await.problem(409), "review-not-closed");
    assert_eq!(daemon.call(&ada, "POST", &format!("/rotations/{id}/cancel"), json!({})).await.status, 200);
    let again = json!({ "newKey": key, "emergency": true, "reason": "again" });
    let refused = daemon.call(&ada, "POST", &format!("/projects/{project}/rotations"), again).await;
    assert_eq!((refused.problem(409), &refused.json["rotationId"]), ("review-open", &json!(id)));
    let page = here.post(&path, &fields).await;
    assert!(page.text.contains("id=\"emergency-why\"") && page.text.contains("is open"), "{}", page.text);

    // Grace finds it on her first page, and closes it.
    assert!(there.get("/").await.text.contains("Review the emergency"));
    let page = there.get("/reviews").await;
    assert!(page.text.contains("1 review is open"), "{}", page.text);
    assert!(here.get("/reviews").await.text.contains("You do not close it"));
    let form = hidden(&page.text, "form");
    let path = format!("/reviews/{id}");
    let empty = there.post(&path, &[("form", &form), ("finding", " ")]).await;
    assert!(empty.status == 422 && empty.text.contains("say what you found"), "{}", empty.text);
    let done = there.post(&path, &[("form", &form), ("finding", "ticket <4711>")]).await;
    assert_eq!((done.status, done.to.as_deref()), (303, Some("/reviews")), "{}", done.text);
    let page = there.get("/reviews").await;
    assert!(
        page.text.contains("No review is open") && page.text.contains("ticket &#60;4711&#62;"),
        "{}",
        page.text
    );
    assert_eq!(daemon.call(&grace, "POST", &close, body).await.problem(409), "review-not-closed");
    assert_eq!(daemon.get(&vera, "/reviews").await.json["items"], json!([]));
    assert_eq!(daemon.get(&vera, "/reviews?all=true").await.json["items"][0]["closedBy"], json!("grace"));
    let none = daemon
        .call(
            &grace,
            "POST",
            "/rotations/01a223a1-054e-716a-93e6-e8347069bf69/review/close",
            json!({ "finding": "x" }),
        )
        .await;
    assert_eq!(none.problem(404), "not-found");
}

/// The second project of these tests, and a key for it.
async fn second(it: &Fixture) -> (GroupId, String) {
    let add = NewProject { group_id: group(2), ..NewProject::default() };
    it.engine.add_project("local:admin", add).await.unwrap();
    (group(2).parse().unwrap(), demo_key("AWS", "payments-staging", 2, 2))
}

async fn at_once(backend: Backend) {
    let mut it = Fixture::for_emergencies(backend).await;
    it.0.rule(|settings| settings.policy.emergency.by.push("mail:edsger@example.com".parse().unwrap()));
    it.of_ada("ada-laptop").await;
    let (other, key) = second(&it).await;
    it.pass(2 * DAY);
    for round in 0..6 {
        // One person by two identities, on two projects: one of them.
        let first = project();
        let here = it.engine.propose_on("ada", &first, ask(&new_key(), Some("it leaked")));
        let there = it.engine.propose_on("ada-laptop", &other, ask(&key, Some("it leaked")));
        let (here, there) = if round % 2 == 0 {
            futures_util::future::join(here, there).await
        } else {
            let (there, here) = futures_util::future::join(there, here).await;
            (here, there)
        };
        let row = match (here, there) {
            (Ok(Proposed::Created(row)), Err(CommandError::ReviewOpen(_)))
            | (Err(CommandError::ReviewOpen(_)), Ok(Proposed::Created(row))) => row,
            both => panic!("{both:?}"),
        };
        it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
        // Another person's may be open beside it, and both close at once.
        let free = if row.rotation.group_id == other {
            (project(), new_key())
        } else {
            (other.clone(), key.clone())
        };
        let (closed, opened) = futures_util::future::join(
            it.close("grace", &row),
            it.engine.propose_on("edsger", &free.0, ask(&free.1, Some("it leaked, too"))),
        )
        .await;
        closed.unwrap();
        let Ok(Proposed::Created(second)) = opened else { panic!("{opened:?}") };
        it.engine.say("ada", second.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
        let (one, two) =
            futures_util::future::join(it.close("grace", &second), it.close("ada", &second)).await;
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        assert!(it.engine.reviews().await.unwrap().iter().all(|it| !it.is_open()));
        assert!(it.engine.store.tampered().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn emergencies_and_reviews_at_once_are_one_after_the_other_on_sqlite() {
    at_once(Backend::Sqlite).await;
}

#[tokio::test]
async fn emergencies_and_reviews_at_once_are_one_after_the_other_on_postgres() {
    at_once(Backend::Postgres).await;
}

#[tokio::test]
async fn who_could_not_vote_closes_no_review() {
    let mut it = Fixture::for_emergencies(Backend::Sqlite).await;
    it.of_ada("ada-laptop").await;
    it.make("vera", &[Role::Viewer]).await;
    it.pass(2 * DAY);
    let row = it.emergency("ada").await.unwrap();
    it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    // A puppet that another identity of hers makes.
    it.make_as("ada-laptop", "puppet", &[Role::Approver]).await;
    for by in ["puppet", "vera", "nobody"] {
        let why = refused(it.close(by, &row).await);
        assert!(
            why.starts_with("a vote of yours would not count") || why.starts_with("you proposed"),
            "{by}: {why}"
        );
    }
    // Where people sign in with a provider, a token that was given to nobody is nobody.
    it.engine.create_token("local:admin", ("bare", "bare"), &[Role::Approver], None).await.unwrap();
    it.pass(2 * DAY);
    it.0.rule(|settings| settings.issuers = ["https://id.example.com".to_owned()].into());
    assert!(refused(it.close("bare", &row).await).contains("given to nobody"));
    // Whom the policy names as approvers does not matter.
    it.0.rule(|settings| settings.policy.approvers = vec!["mail:edsger@example.com".parse().unwrap()]);
    it.close("grace", &row).await.unwrap();
}

#[tokio::test]
async fn an_emergency_is_not_taken_for_the_same_proposal_without_one() {
    let it = Fixture::for_emergencies(Backend::Sqlite).await;
    let row = it.emergency("ada").await.unwrap();
    let plain = it.engine.propose("edsger", &project(), new_key().parse().unwrap(), None, false).await;
    assert!(
        matches!(plain, Err(CommandError::RotationOpen { id, .. }) if id == row.rotation.id),
        "{plain:?}"
    );
    it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    it.close("grace", &row).await.unwrap();
    it.propose("ada").await;
    let hurried = it.emergency("ada").await;
    assert!(matches!(hurried, Err(CommandError::RotationOpen { .. })), "{hurried:?}");
}
