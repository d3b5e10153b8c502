//! The named grid: every way in which Atlas or a key can misbehave, times every instant at which the
//! process can end, on both databases. The engine and the store are the real ones; time, Atlas and
//! the kills are scripted. The invariants are judged from the world's log, as in the random search.
//!
//! `page` writes `docs/reliability.md` from the tables in this file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use keywheel::domain::ids::RotationId;
use keywheel::domain::rotation::outcome::Class;
use keywheel::domain::rotation::state::State;
use keywheel::engine::command::OperatorVerb;
use keywheel::store::Store;

use super::world::{At, Fault, HALF_A_DAY, Kill, Lie, OLD, Odd, Plan, Script, THIRD, When, World};
use super::{Search, TABLES, runtime};
use crate::support::db::{Backend, TestDb};

/// A fault of Atlas, and what becomes of a rotation that meets it.
pub(super) struct FaultRow {
    pub(super) id: &'static str,
    pub(super) fault: &'static str,
    calls: Vec<Fault>,
    plan: fn(&mut Plan),
    more: fn(&mut Script),
    /// How it ends, whenever the process is killed in between.
    pub(super) end: &'static str,
}

/// An instant at which the process ends.
pub(super) struct Column {
    pub(super) id: &'static str,
    pub(super) instant: &'static str,
    kills: &'static [Kill],
    change: fn(&mut Script),
}

const fn kill(call: &'static str, at: At, state: Option<State>, skip: u32) -> Kill {
    Kill { call, at, state, skip }
}

pub(super) const COLUMNS: &[Column] = &[
    Column { id: "-", instant: "nothing is killed", kills: &[], change: |_| {} },
    Column {
        id: "C1",
        instant: "before the intent to PATCH is committed",
        kills: &[kill("observe", At::Answered, Some(State::Approved), 0)],
        change: |_| {},
    },
    Column {
        id: "C2",
        instant: "the intent is committed, the PATCH has not left",
        kills: &[kill("patch_new", At::Before, None, 0)],
        change: |_| {},
    },
    Column {
        id: "C3",
        instant: "the PATCH has left, no reply yet",
        kills: &[kill("patch_new", At::Acted, None, 0)],
        change: |_| {},
    },
    Column {
        id: "C4",
        instant: "the reply is here and not yet committed",
        kills: &[kill("patch_new", At::Answered, None, 0)],
        change: |_| {},
    },
    Column {
        id: "C5",
        instant: "in the middle of the proof, twice",
        kills: &[
            kill("observe", At::Answered, Some(State::Verifying), 1),
            kill("observe", At::Before, Some(State::Verifying), 1),
        ],
        change: |_| {},
    },
    Column {
        id: "C6",
        instant: "while the clusters are waited for",
        kills: &[kill("clusters", At::Before, Some(State::Deploying), 0)],
        change: |_| {},
    },
    Column {
        id: "C7",
        instant: "between the end of a rotation and its mail",
        kills: &[],
        change: |script| script.torn_end = true,
    },
    Column {
        id: "C9",
        instant: "before and after PATCH(old) leaves, and in the proof of the old key",
        kills: &[
            kill("patch_old", At::Before, None, 0),
            kill("patch_old", At::Acted, None, 0),
            kill("observe", At::Answered, Some(State::RollingBack), 1),
        ],
        change: |_| {},
    },
    Column {
        id: "C10",
        instant: "while an approval is being written",
        kills: &[],
        change: |script| script.torn_vote = true,
    },
    Column {
        id: "C15",
        instant: "asked to stop after every single step",
        kills: &[],
        change: |script| script.restarts = true,
    },
];

const fn calls(call: &'static str, skip: u32, times: u32, odd: Odd) -> Fault {
    Fault { call, when: When::Calls { skip, times }, odd }
}

const fn seconds(call: &'static str, from: u64, to: u64, odd: Odd) -> Fault {
    Fault { call, when: When::Seconds(from, to), odd }
}

const EVER: u32 = u32::MAX;

fn row(id: &'static str, fault: &'static str, calls: Vec<Fault>, end: &'static str) -> FaultRow {
    FaultRow { id, fault, calls, plan: |_| {}, more: |_| {}, end }
}

fn in_world(id: &'static str, fault: &'static str, plan: fn(&mut Plan), end: &'static str) -> FaultRow {
    FaultRow { plan, ..row(id, fault, vec![], end) }
}

#[expect(clippy::too_many_lines, reason = "the table")]
pub(super) fn rows() -> Vec<FaultRow> {
    use Class::{Auth, BadKey, Gone, Transient, Unknown};
    vec![
        row("-", "none", vec![], "completed"),
        row(
            "A1",
            "the PATCH times out and never arrives",
            vec![calls("patch_new", 0, 1, Odd::Lost)],
            "completed",
        ),
        row(
            "A2",
            "the PATCH is applied, its reply times out",
            vec![calls("patch_new", 0, 1, Odd::LostReply)],
            "completed",
        ),
        row(
            "A3",
            "the PATCH times out and is applied 90 s later",
            vec![calls("patch_new", 0, 1, Odd::Late(90))],
            "completed",
        ),
        row(
            "A4",
            "500 and an HTML page, for the PATCH and for a look",
            vec![
                calls("patch_new", 0, 1, Odd::Fails(Unknown, 502, None)),
                calls("observe", 2, 1, Odd::Fails(Unknown, 500, None)),
            ],
            "completed",
        ),
        row(
            "A5",
            "429 with Retry-After, for the PATCH and for looks",
            vec![
                calls("patch_new", 0, 2, Odd::Fails(Transient, 429, Some(20))),
                calls("observe", 3, 1, Odd::Fails(Transient, 429, Some(40))),
            ],
            "completed",
        ),
        row(
            "A6",
            "429 without Retry-After",
            vec![
                calls("patch_new", 0, 2, Odd::Fails(Transient, 429, None)),
                calls("observe", 3, 2, Odd::Fails(Transient, 429, None)),
            ],
            "completed",
        ),
        row(
            "A7",
            "429 to everything from the PATCH on, for an hour",
            vec![seconds("any", 1, 3600, Odd::Fails(Transient, 429, Some(60)))],
            "needs_operator(unreachable)",
        ),
        row(
            "A8",
            "409, a cluster is busy",
            vec![calls("patch_new", 0, 2, Odd::Fails(Unknown, 409, None))],
            "completed",
        ),
        row(
            "A9",
            "400, the key is refused",
            vec![calls("patch_new", 0, EVER, Odd::Fails(BadKey, 400, None))],
            "failed(refused)",
        ),
        row(
            "A10",
            "replies that stop, that lie about their length, or are too large",
            vec![calls("patch_new", 0, 1, Odd::Unreadable), calls("observe", 2, 2, Odd::Unreadable)],
            "completed",
        ),
        in_world(
            "A11",
            "`valid` is false once, then true",
            |it| it.validity = vec![(0, Some(false)), (10, Some(true))],
            "completed",
        ),
        in_world(
            "A12",
            "`valid` stays false, and Atlas lets go of the key",
            |it| (it.validity, it.lets_go) = (vec![(0, Some(false))], true),
            "rolled_back",
        ),
        in_world(
            "A13",
            "`valid` flaps every 20 s, and Atlas lets go of the key",
            |it| {
                it.validity = (0..400).map(|step| (step * 20, Some(step % 2 == 0))).collect();
                it.lets_go = true;
            },
            "rolled_back",
        ),
        in_world(
            "A14",
            "`valid` is missing for eight minutes, then true",
            |it| it.validity = vec![(0, None), (480, Some(true))],
            "completed",
        ),
        row(
            "A15",
            "Atlas shows a key that is neither old nor new",
            vec![calls("patch_new", 0, 1, Odd::HumanAfter(THIRD))],
            "superseded(key_changed)",
        ),
        FaultRow {
            more: |it| it.disabled_from = Some(20),
            ..row(
                "A16",
                "encryption with the provider is disabled after the PATCH",
                vec![],
                "needs_operator(config_changed)",
            )
        },
        row(
            "A17",
            "the credential is refused from the PATCH on",
            vec![seconds("any", 1, HALF_A_DAY, Odd::Fails(Auth, 401, None))],
            "needs_operator(auth)",
        ),
        row(
            "A18",
            "the project is gone, or the API version is",
            vec![seconds("any", 1, HALF_A_DAY, Odd::Fails(Gone, 410, None))],
            "needs_operator(gone)",
        ),
        row(
            "A19",
            "another person sets a key between our look and our PATCH",
            vec![calls("patch_new", 0, 1, Odd::HumanBefore(THIRD))],
            "completed",
        ),
        row(
            "A20",
            "another person sets a key in the middle of the proof",
            vec![calls("observe", 3, 1, Odd::HumanBefore(THIRD))],
            "superseded(key_changed)",
        ),
        FaultRow {
            more: |it| it.humans = vec![(7200, OLD)],
            ..row("A21", "another person puts the old key back after the end", vec![], "completed")
        },
        in_world(
            "A22",
            "the new key is disabled during the proof, and Atlas refuses any change",
            |it| it.validity = vec![(0, Some(true)), (10, Some(false))],
            "needs_operator(rollback_refused)",
        ),
        in_world(
            "A23",
            "the old key is disabled during the rotation, the new one works",
            |it| it.old_dies = Some(0),
            "completed",
        ),
        in_world(
            "A24",
            "both keys are bad",
            |it| (it.validity, it.old_dies) = (vec![(0, Some(false))], Some(0)),
            "needs_operator(rollback_refused)",
        ),
        in_world(
            "A25",
            "the key service cannot be reached, and an alert says so",
            |it| (it.validity, it.network_denied, it.lets_go) = (vec![(0, Some(false))], true, true),
            "needs_operator(kms_unreachable)",
        ),
        FaultRow {
            plan: |it| (it.validity, it.lets_go) = (vec![(0, Some(false))], true),
            ..row(
                "A26",
                "PATCH(old) meets 429, 503 and silence",
                vec![
                    calls("patch_old", 0, 1, Odd::Fails(Transient, 429, Some(10))),
                    calls("patch_old", 0, 1, Odd::Fails(Unknown, 503, None)),
                    calls("patch_old", 0, 1, Odd::Lost),
                ],
                "rolled_back",
            )
        },
        in_world(
            "A27",
            "PATCH(old) is taken, and the old key is not valid either",
            |it| (it.validity, it.old_dies, it.lets_go) = (vec![(0, Some(false))], Some(60), true),
            "needs_operator(old_key_invalid)",
        ),
        in_world(
            "A28",
            "a cluster never comes back from its update, others are paused or being created",
            |it| it.clusters = vec!["STUCK", "PAUSED", "CREATING"],
            "completed",
        ),
        row(
            "A29",
            "no connection at all for three minutes after the PATCH",
            vec![seconds("any", 1, 180, Odd::Lost)],
            "completed",
        ),
        in_world(
            "A30",
            "looks show the old key for 60 s after the PATCH",
            |it| it.stale = Duration::from_secs(60),
            "completed",
        ),
        in_world(
            "A31",
            "PATCH(old) is refused because the new key does not work; it is re-enabled after ten minutes",
            |it| it.validity = vec![(0, Some(false)), (600, Some(true))],
            "completed",
        ),
        in_world(
            "A32",
            "private networking: `valid` at once, false after twelve minutes",
            |it| {
                (it.validity, it.private, it.lets_go) =
                    (vec![(0, Some(true)), (720, Some(false))], true, true);
            },
            "rolled_back",
        ),
        row(
            "A33",
            "no token can be had for four minutes of the proof",
            vec![seconds("any", 1, 240, Odd::Fails(Transient, 429, Some(30)))],
            "completed",
        ),
        row(
            "A34",
            "the bucket of the clusters is drained for a quarter of an hour after the PATCH (429 with Retry-After)",
            vec![seconds("clusters", 1, 900, Odd::Fails(Transient, 429, Some(60)))],
            "completed",
        ),
        row(
            "A35",
            "the bucket of the clusters is drained before the PATCH (429 without Retry-After)",
            vec![calls("clusters", 0, 6, Odd::Fails(Transient, 429, None))],
            "completed",
        ),
        row(
            "A36",
            "the bucket of the private endpoints is drained (429 with Retry-After, then without)",
            vec![
                calls("may_change", 0, 1, Odd::Fails(Transient, 429, Some(90))),
                calls("may_change", 0, EVER, Odd::Fails(Transient, 429, None)),
            ],
            "completed",
        ),
        FaultRow {
            plan: |it| (it.validity, it.lets_go) = (vec![(0, Some(false))], true),
            ..row(
                "A37",
                "the new key is invalid, and the bucket of the alerts is drained for two minutes (429 with Retry-After)",
                vec![seconds("alerts", 1, 120, Odd::Fails(Transient, 429, Some(20)))],
                "rolled_back",
            )
        },
        FaultRow {
            plan: |it| (it.validity, it.lets_go) = (vec![(0, Some(false))], true),
            ..row(
                "A38",
                "the new key is invalid, and the bucket of the alerts stays drained (429 without Retry-After)",
                vec![seconds("alerts", 1, HALF_A_DAY, Odd::Fails(Transient, 429, None))],
                "rolled_back",
            )
        },
    ]
}

/// The same statements on either database.
async fn raw(store: &Store, text: &str) {
    let sql = |text: String| sqlx::raw_sql(sqlx::AssertSqlSafe(text));
    match store {
        Store::Sqlite { write, .. } => {
            sql(text.to_owned()).execute(write).await.unwrap();
        }
        // A kill may have cut off a BEGIN, and the connection is still in that transaction: without a
        // COMMIT of its own, what is written here would be undone when the server ends it.
        Store::Postgres { write, .. } => {
            sql(format!("BEGIN;{text}COMMIT;")).execute(write).await.unwrap();
        }
    }
}

/// No mail that says how a rotation ended can be written until [`repair`].
async fn tear(store: &Store) {
    let ends: Vec<_> = State::ALL.iter().filter(|it| it.is_final()).map(|it| format!("'{it}'")).collect();
    let ends = ends.join(", ");
    let text = if store.is_shared() {
        format!(
            "CREATE FUNCTION torn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'torn'; END $$;\
             CREATE TRIGGER torn BEFORE INSERT ON outbox FOR EACH ROW WHEN (NEW.kind IN ({ends})) EXECUTE FUNCTION torn();"
        )
    } else {
        format!(
            "CREATE TRIGGER torn BEFORE INSERT ON outbox WHEN NEW.kind IN ({ends}) BEGIN SELECT RAISE(ABORT, 'torn'); END;"
        )
    };
    raw(store, &text).await;
}

async fn repair(store: &Store) {
    let shared = "DROP TRIGGER IF EXISTS torn ON outbox; DROP FUNCTION IF EXISTS torn();";
    raw(store, if store.is_shared() { shared } else { "DROP TRIGGER IF EXISTS torn;" }).await;
}

impl Search {
    fn script<T>(&self, read: impl FnOnce(&mut Script) -> T) -> Option<T> {
        self.world.inner().plan.script.as_mut().map(read)
    }

    /// A step whose last transaction was torn left nothing behind; the next process may write again.
    pub(super) async fn repair_torn_end(&self) {
        if !self.script(|it| std::mem::take(&mut it.torn_end)).unwrap_or(false) {
            return;
        }
        let id = self.world.inner().watched.unwrap();
        let row = self.rotation(id).await;
        if row.rotation.state.is_final() {
            self.world.inner().accuse("I10: a rotation ended without its mail");
        }
        self.script(|it| it.killed += 1);
        repair(&self.engine.store).await;
        self.engine.store.clear_leases().await.unwrap();
    }

    /// Cuts the vote off at several points of its way to the database.
    pub(super) async fn tear_vote(&self, id: RotationId, actor: &str, verb: OperatorVerb) {
        let torn = self.script(|it| verb == OperatorVerb::Approve && std::mem::take(&mut it.torn_vote));
        if !torn.unwrap_or(false) {
            return;
        }
        for turns in 1..8 {
            let cut = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                said = self.engine.say(actor, id, verb, None, None) => drop(said),
                () = cut => drop(self.script(|it| it.killed += 1)),
            }
            // What was cut off here may still be written over there: count between two equal looks.
            let (state, votes) = loop {
                let state = self.rotation(id).await.rotation.state;
                let votes = self.engine.store.approvals(id).await.unwrap().len();
                if self.rotation(id).await.rotation.state == state {
                    break (state, votes);
                }
            };
            if (votes, state) != (0, State::AwaitingApproval) && (votes, state) != (1, State::Approved) {
                self.world.inner().accuse(&format!("I11: {votes} votes while {state}"));
            }
        }
    }

    /// Asked to stop, a process ends its step and gives back what it holds; another goes on.
    pub(super) fn restart_where_scripted(&mut self) {
        if !self.script(|it| it.restarts).unwrap_or(false) {
            return;
        }
        self.script(|it| it.killed += 1);
        self.restart();
        self.world.pass(Duration::from_secs(1));
    }
}

/// How a case ended, and whether what was to kill it came.
struct Played {
    end: String,
    killed: bool,
}

/// Plays one case; on failure with its story.
async fn play(row: &FaultRow, column: &Column, lie: Lie, store: &Store) -> Result<Played, String> {
    repair(store).await;
    let all = TABLES.map(|table| format!("DELETE FROM {table};")).concat();
    raw(store, &format!("{all}UPDATE audit_head SET seq = 0, hash = '';")).await;
    store.seals().begin_anew();
    store.follow_seals().await.unwrap();
    crate::support::people(store).await;
    let mut script =
        Script { faults: row.calls.clone(), kills: column.kills.to_vec().into(), ..Script::default() };
    (row.more)(&mut script);
    (column.change)(&mut script);
    if script.torn_end {
        tear(store).await;
    }
    let plan = |plan: &mut Plan| {
        plan.fleet = store.is_shared();
        (row.plan)(plan);
    };
    let world = World::scripted(lie, script, plan, store.clone());
    let mut search = Search::of(world, store, &Arc::default());
    let played = std::panic::AssertUnwindSafe(search.play()).catch_unwind().await;
    let (killed, trace) = {
        let mut inner = search.world.inner();
        (inner.plan.script.as_ref().is_some_and(|it| it.killed > 0), std::mem::take(&mut inner.trace))
    };
    let told = |why: &str| {
        let (row, column, trace) = (row.id, column.id, trace.join("\n"));
        format!(
            "{row} {column} on {}: {why}\n{trace}",
            if store.is_shared() { "PostgreSQL" } else { "SQLite" }
        )
    };
    let state = match played {
        Ok(Ok(state)) => state,
        Ok(Err(why)) => return Err(told(&why)),
        Err(_) => return Err(told("it panicked")),
    };
    let id = search.world.inner().watched.unwrap();
    let last = search.rotation(id).await.rotation;
    let paged = search.paged().await;
    let end = match (state, last.cause, paged) {
        (State::Closed, _, Some(cause)) => format!("needs_operator({cause})"),
        (state, Some(cause), _) => format!("{state}({})", cause.as_str()),
        (state, None, _) => state.to_string(),
    };
    let expected = row.end == end;
    if expected || lie != Lie::None {
        Ok(Played { end, killed })
    } else {
        Err(told(&format!("it ended {end}")))
    }
}

impl Search {
    /// The cause of the last page.
    async fn paged(&self) -> Option<String> {
        let mails = self.engine.store.outbox(None, 500).await.unwrap();
        let page = mails.iter().find(|mail| mail.kind == "needs_operator")?;
        page.model["cause"].as_str().map(str::to_owned)
    }
}

#[expect(clippy::print_stdout, reason = "how many cases were killed is for the reader of a run")]
fn grid(backend: Backend) {
    let broken: Vec<String> = runtime().block_on(async {
        let db = TestDb::new(backend).await;
        let mut broken = Vec::new();
        let mut killed = BTreeMap::<&str, usize>::new();
        let rows = rows();
        for row in &rows {
            for column in COLUMNS {
                match Box::pin(play(row, column, Lie::None, &db.store)).await {
                    Ok(played) => *killed.entry(column.id).or_default() += usize::from(played.killed),
                    Err(why) => broken.push(why),
                }
            }
        }
        println!("{} cases; killed, by instant: {killed:?}", rows.len() * COLUMNS.len());
        for column in &COLUMNS[1..] {
            let least = match column.id {
                "C9" => 5,
                // Clusters that take up the key during the readings are not waited for.
                "C6" => 15,
                _ => 20,
            };
            if killed.get(column.id).is_none_or(|count| *count < least) {
                broken.push(format!("{} came only {:?} times", column.id, killed.get(column.id)));
            }
        }
        broken
    });
    assert!(broken.is_empty(), "{} cases broke:\n{}", broken.len(), broken.join("\n\n"));
}

#[test]
fn every_fault_times_every_kill_on_sqlite() {
    grid(Backend::Sqlite);
}

#[test]
fn every_fault_times_every_kill_on_postgres() {
    grid(Backend::Postgres);
}

#[test]
fn the_named_grid_catches_each_lie() {
    runtime().block_on(async {
        let db = TestDb::new(Backend::Sqlite).await;
        for (lie, id) in [(Lie::UnknownIsRefused, "A3"), (Lie::AlwaysValid, "A12"), (Lie::ThirdIsOld, "A20")]
        {
            let rows = rows();
            let row = rows.iter().find(|row| row.id == id).unwrap();
            let mut caught = false;
            for column in COLUMNS {
                let played = Box::pin(play(row, column, lie, &db.store)).await;
                caught |= played.map_or(true, |it| !it.killed && it.end != row.end);
            }
            assert!(caught, "{lie:?} passes as the truth in {id}");
        }
    });
}
