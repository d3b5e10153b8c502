//! Decisions at the same moment: each is made on what is there when it is written, and one person is one vote.

use futures_util::future::join;
use keywheel::domain::approver::Strength;
use keywheel::engine::command::Voter;

use super::*;

/// Each race is run this often, with the two in turn first.
const ROUNDS: u64 = 6;

async fn race<A, B>(round: u64, one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    if round.is_multiple_of(2) {
        join(one, other).await
    } else {
        let (other, one) = join(other, one).await;
        (one, other)
    }
}

impl Fixture {
    async fn read(&self, row: &RotationRow) -> RotationRow {
        self.engine.rotation(row.rotation.id).await.unwrap()
    }

    async fn votes(&self, row: &RotationRow) -> Vec<String> {
        let votes = self.engine.store.approvals(row.rotation.id).await.unwrap();
        votes.into_iter().map(|vote| vote.by).collect()
    }

    async fn cancel(&self, row: &RotationRow) -> Result<RotationRow, CommandError> {
        self.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await
    }
}

async fn two_approvers(backend: Backend) {
    let it = Fixture::on(backend).await;
    it.edit("root".into(), approvals(2)).await.unwrap();
    for round in 0..ROUNDS {
        let row = it.propose("ada").await;
        let (one, other) = race(round, it.approve("grace", &row), it.approve("edsger", &row)).await;
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let row = it.read(&row).await;
        assert_eq!((row.rotation.state, row.rotation.permission.quorum.given), (State::Approved, 2));
        assert_eq!(it.votes(&row).await.len(), 2);
        it.cancel(&row).await.unwrap();
    }
}

#[tokio::test]
async fn two_approvers_at_once_are_two_votes_on_sqlite() {
    Box::pin(two_approvers(Backend::Sqlite)).await;
}

#[tokio::test]
async fn two_approvers_at_once_are_two_votes_on_postgres() {
    Box::pin(two_approvers(Backend::Postgres)).await;
}

#[tokio::test]
async fn the_proposer_among_approvers_at_once_is_no_vote() {
    let it = Fixture::new().await;
    it.give("ada", &[Role::Operator, Role::Approver]).await;
    it.edit("root".into(), approvals(2)).await.unwrap();
    for round in 0..ROUNDS {
        let row = it.propose("ada").await;
        let (own, other) = race(round, it.approve("ada", &row), it.approve("grace", &row)).await;
        assert!(matches!(own, Err(CommandError::VoteVoid(_))), "{own:?}");
        assert!(other.is_ok(), "{other:?}");
        let row = it.read(&row).await;
        assert_eq!(
            (row.rotation.state, it.votes(&row).await),
            (State::AwaitingApproval, vec!["grace".to_owned()])
        );
        it.cancel(&row).await.unwrap();
    }
}

#[tokio::test]
async fn an_approval_against_a_cancellation_sends_nothing() {
    let it = Fixture::new().await;
    for round in 0..ROUNDS {
        let row = it.propose("ada").await;
        let (approved, cancelled) = race(round, it.approve("grace", &row), it.cancel(&row)).await;
        cancelled.unwrap();
        assert!(matches!(approved, Ok(_) | Err(CommandError::Illegal { .. })), "{approved:?}");
        Box::pin(driver::run_due(&it.engine)).await.unwrap();
        assert_eq!(it.read(&row).await.rotation.state, State::Cancelled);
    }
    assert_eq!(it.patches(), [] as [&str; 0]);
}

#[tokio::test]
async fn an_approval_at_the_end_of_its_time_counts_or_is_refused_and_not_both() {
    for round in 0..4 {
        let it = Fixture::new().await;
        let row = it.propose("ada").await;
        it.pass_until(row.rotation.permission.expires_at);
        let engine = &it.engine;
        let (approved, stepped) =
            race(round, it.approve("grace", &row), Box::pin(driver::run_due(engine))).await;
        stepped.unwrap();
        let row = it.read(&row).await;
        match approved {
            Ok(_) => assert_ne!(row.rotation.state, State::Expired, "it counted"),
            Err(CommandError::Illegal { .. }) => {
                assert_eq!((row.rotation.state, it.votes(&row).await.len()), (State::Expired, 0));
                assert_eq!(it.patches(), [] as [&str; 0]);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_rule_that_is_loosened_meanwhile_needs_no_fewer_people() {
    let it = Fixture::new().await;
    it.edit("root".into(), approvals(2)).await.unwrap();
    for round in 0..ROUNDS {
        let row = it.propose("ada").await;
        let (voted, loosened) =
            race(round, it.approve("grace", &row), Box::pin(it.edit(Actor::admin("root"), approvals(1))))
                .await;
        voted.unwrap();
        loosened.unwrap();
        it.pass(2 * DAY);
        it.deliver(&["ada@example.com", SECURITY]).await;
        it.round().await;
        Box::pin(driver::run_due(&it.engine)).await.unwrap();
        let row = it.read(&row).await;
        assert_eq!(
            (row.rotation.state, row.rotation.permission.quorum.required),
            (State::AwaitingApproval, 2)
        );
        it.cancel(&row).await.unwrap();
        it.edit("root".into(), approvals(2)).await.unwrap();
    }
    assert_eq!(it.patches(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_link_and_a_session_of_one_person_are_one_vote() {
    let mut it = Fixture::new().await;
    it.0.rule(|settings| {
        settings.policy.approvers =
            ["mail:grace@example.com", "mail:edsger@example.com"].map(|it| it.parse().unwrap()).to_vec();
        settings.policy.approval_method = Strength::Link;
        settings.policy.approvals = 2;
    });
    for round in 0..ROUNDS {
        let row = it.propose("ada").await;
        let path = it.engine.link_for(row.rotation.id, "grace@example.com").await.unwrap().expect("no link");
        let link = it.engine.link(path.strip_prefix("/a/").unwrap()).await.unwrap().unwrap();
        let session = Voter { method: Strength::Session.as_str(), ..Voter::from("grace") };
        let signed_in = it.engine.say(session, row.rotation.id, OperatorVerb::Approve, None, None);
        let (by_link, by_session) =
            race(round, it.engine.answer(&link, OperatorVerb::Approve, None), signed_in).await;
        assert!(by_link.is_ok() || by_session.is_ok(), "{by_link:?} {by_session:?}");
        let row = it.read(&row).await;
        assert_eq!((row.rotation.state, row.rotation.permission.quorum.given), (State::AwaitingApproval, 1));
        it.cancel(&row).await.unwrap();
    }
}
