//! Who writes the database and has a role too: no row that stands for a delay, a bar, an announcement or a person is
//! believed when Keywheel has not written it.

use std::collections::BTreeMap;
use std::time::Duration;

use keywheel::domain::role::Role;
use keywheel::domain::rotation::state::{Cause, State};
use keywheel::domain::time::Span;
use keywheel::engine::command::{Actor, CommandError};
use keywheel::engine::{deciding, driver};
use keywheel::store::{RotationRow, StoreError};

use super::{DAY, Fixture, SECURITY, approvals, counts_from, owners};
use crate::four_eyes::raw;
use crate::support::db::Backend;

const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Postgres];

impl Fixture {
    /// What becomes of a rotation whose votes are enough by what the tables say.
    async fn outcome(&self, row: &RotationRow) -> (State, Option<Cause>) {
        for _ in 0..20 {
            driver::run_due(&self.engine).await.unwrap();
            self.pass(Duration::from_secs(15));
        }
        assert_eq!(self.patches(), Vec::<String>::new());
        let row = self.engine.rotation(row.rotation.id).await.unwrap();
        (row.rotation.state, row.rotation.cause)
    }

    async fn unfit(&self) -> Vec<String> {
        let found = self.engine.store.tampered().await.unwrap();
        found.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn who_changed_the_owners_stays_barred_whatever_the_tables_say() {
    for backend in BACKENDS {
        for sql in [
            "DELETE FROM loosenings WHERE kind = 'owners'",
            "UPDATE loosenings SET requested_by = 'edsger' WHERE kind = 'owners'",
            "UPDATE loosenings SET state = 'withdrawn' WHERE kind = 'owners'",
            "UPDATE loosenings SET effective_at = '2026-01-01T00:00:00.000000Z' WHERE kind = 'owners'",
            "UPDATE loosenings SET kind = 'tightening' WHERE kind = 'owners'",
            "UPDATE loosenings SET subject = 'installation' WHERE kind = 'owners'",
        ] {
            let it = Fixture::on(backend).await;
            it.edit(Actor::admin("root"), owners(&["root@example.com"])).await.unwrap();
            let row = it.propose("ada").await;
            assert!(counts_from(it.approve("root", &row).await).is_some());
            raw(&it.engine.store, sql).await;
            let row = it.approve("root", &row).await.unwrap();
            assert_eq!(row.rotation.state, State::Approved, "the tables say so: {sql}");
            assert!(it.unfit().await.iter().any(|it| it.contains("loosening")), "{sql}");
            assert_eq!(it.outcome(&row).await, (State::NeedsOperator, Some(Cause::Tampered)), "{sql}");
        }
    }
}

#[tokio::test]
async fn a_tightening_that_somebody_wrote_is_not_undone() {
    for backend in BACKENDS {
        let it = Fixture::on(backend).await;
        it.edit("grace".into(), approvals(2)).await.unwrap();
        raw(&it.engine.store, "UPDATE loosenings SET requested_by = 'ada' WHERE kind = 'tightening'").await;
        let undone = it.edit("ada".into(), approvals(1)).await;
        assert!(matches!(undone, Err(CommandError::Store(StoreError::Tampered { .. }))), "{undone:?}");
        assert_eq!(it.approvals().await, 2);
    }
}

#[tokio::test]
async fn a_delay_that_somebody_wrote_shortens_nothing() {
    for backend in BACKENDS {
        for sql in [
            "UPDATE settings SET value = '1s' WHERE name = 'policy.loosen_after'",
            "UPDATE settings SET value = '3650d' WHERE name = 'policy.settle_in'",
            "UPDATE settings SET value = '2036-01-01T00:00:00.000000Z' WHERE name = 'installation.since'",
            "DELETE FROM settings",
        ] {
            let mut it = Fixture::on(backend).await;
            it.0.rule(|settings| settings.loosen_after = Span::from_days(1));
            let found = [("policy.approvals", "1"), ("mail.security", r#"["security@example.com"]"#)];
            let found: BTreeMap<_, _> =
                found.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
            deciding::record(&it.engine, found.clone()).await.unwrap();
            it.make_as("grace", "puppet", &[Role::Approver]).await;
            let made = it.engine.clock.now();
            let row = it.propose("ada").await;
            raw(&it.engine.store, sql).await;
            assert!(it.unfit().await.iter().any(|it| it.starts_with("settings")), "{sql}");
            let refused = it.approve("puppet", &row).await;
            assert!(matches!(refused, Err(CommandError::Store(StoreError::Tampered { .. }))), "{refused:?}");
            // A start records them anew, and says so.
            deciding::record(&it.engine, found).await.unwrap();
            assert_eq!((it.audited("config.changed").await, it.unfit().await.len()), (1, 0), "{sql}");
            assert_eq!(it.told("config_changed").await, [SECURITY]);
            assert_eq!(counts_from(it.approve("puppet", &row).await), Some(made + DAY), "{sql}");
        }
    }
}

#[tokio::test]
async fn an_announcement_that_did_not_leave_as_it_was_written_announces_nothing() {
    for backend in BACKENDS {
        for sql in [
            "UPDATE outbox SET state = 'sent', sent_at = created_at WHERE kind = 'loosening_announced'",
            "UPDATE outbox SET recipient = 'mallory@example.com' WHERE kind = 'loosening_announced' AND recipient LIKE 'ada%'",
            "UPDATE outbox SET model = replace(model, 'approvals', 'nothing') WHERE kind = 'loosening_announced'",
        ] {
            let it = Fixture::on(backend).await;
            it.edit("ada".into(), approvals(2)).await.unwrap();
            it.pass(2 * DAY);
            it.edit(Actor::admin("root"), approvals(1)).await.unwrap();
            raw(&it.engine.store, sql).await;
            assert!(it.unfit().await.iter().any(|it| it.starts_with("outbox/")), "{sql}");
            it.deliver(&["ada@example.com", "mallory@example.com", SECURITY]).await;
            for _ in 0..3 {
                it.round().await;
                it.pass(2 * DAY);
            }
            assert_eq!((it.approvals().await, it.pending().await.len()), (2, 1), "{sql}");
        }
    }
}

#[tokio::test]
async fn whose_a_revoked_token_was_is_not_what_somebody_wrote_later() {
    for backend in BACKENDS {
        let it = Fixture::on(backend).await;
        let (roles, person) = ([Role::Operator], Some("root@example.com"));
        it.engine.create_token("root", ("second", "second"), &roles, person).await.unwrap();
        it.pass(2 * DAY);
        let row = it.propose("second").await;
        it.engine.revoke_token("root", "second").await.unwrap();
        assert!(it.approve("root", &row).await.is_err());
        raw(&it.engine.store, "UPDATE tokens SET person = 'someone@example.com' WHERE name = 'second'").await;
        let row = it.approve("root", &row).await.unwrap();
        assert_eq!(it.outcome(&row).await, (State::NeedsOperator, Some(Cause::Tampered)));
    }
}

#[tokio::test]
async fn a_row_that_somebody_removed_is_named() {
    for backend in BACKENDS {
        for (sql, subject) in [
            ("DELETE FROM owners; DELETE FROM projects", "project/"),
            ("DELETE FROM tokens WHERE name = 'grace'", "token/grace"),
            ("DELETE FROM approvals; DELETE FROM journal; DELETE FROM rotations", "rotation/"),
        ] {
            let it = Fixture::on(backend).await;
            it.propose("ada").await;
            assert_eq!(it.unfit().await, Vec::<String>::new());
            for sql in sql.split("; ") {
                raw(&it.engine.store, sql).await;
            }
            let unfit = it.unfit().await;
            assert!(unfit.iter().any(|it| it.starts_with(subject) && it.contains("removed")), "{unfit:?}");
        }
    }
}

/// A bar that somebody invents after the approval bars nobody: the log knows of none. It is named all the same.
#[tokio::test]
async fn a_bar_that_somebody_invented_stops_no_approved_key_and_is_named() {
    let it = Fixture::on(Backend::Sqlite).await;
    let row = it.propose("ada").await;
    let row = it.approve("grace", &row).await.unwrap();
    assert_eq!(row.rotation.state, State::Approved);
    let invented = format!(
        "INSERT INTO loosenings VALUES (randomblob(16), '{}', 'owners', 'effective', 'grace', \
         '2026-01-01T00:00:00.000000Z', '[]', '{{}}', '[]', '[]', NULL, '2099-01-01T00:00:00.000000Z', NULL, NULL, 1)",
        row.rotation.group_id
    );
    raw(&it.engine.store, &invented).await;
    assert!(it.unfit().await.iter().any(|it| it.contains("loosening")), "{:?}", it.unfit().await);
    driver::run_due(&it.engine).await.unwrap();
    assert_eq!(it.patches(), [row.rotation.new_key.to_string()]);
}
