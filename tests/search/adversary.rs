//! Random search with an adversary who writes the database: between the steps rows are edited, removed and put back as
//! they were before, one table or all of them. What leaves for Atlas is judged by what people said.
//!
//! `KEYWHEEL_SEED` as for the search without one; of `KEYWHEEL_SEEDS` it plays a fifth, because each seed reads the whole
//! audit log again and again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keywheel::domain::ids::RotationId;
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::Clock;
use keywheel::engine::command::{NewProject, OperatorVerb};
use keywheel::engine::epoch::EpochWatch;
use keywheel::engine::propose::Proposed;
use keywheel::engine::{driver, sweep};
use keywheel::store::Store;
use tokio_util::sync::CancellationToken;

use super::world::{Lie, NEW, OLD, THIRD};
use super::{Database, GROUP, SEEDS, Search, TABLES, number, runtime};

/// Seeds that once failed.
const KEPT: &[u64] = &[803];

/// What is done between two steps, in a hundred.
const ATTACKS: u64 = 30;

/// Turns of a seed.
const TURNS: usize = 30;

/// `ID` is the rotation, `NEW` its new key, `THIRD` a key that nobody proposed.
const EDITS: &[&str] = &[
    "UPDATE rotations SET machine = replace(machine, 'NEW', 'THIRD')",
    "UPDATE rotations SET machine = replace(machine, 'NEW', 'THIRD'), new_key = 'THIRD', version = version + 1",
    "UPDATE rotations SET machine = replace(machine, 'OLD', 'THIRD')",
    "UPDATE rotations SET state = 'approved', machine = replace(machine, '\"state\":\"awaiting_approval\"', '\"state\":\"approved\"'), wake_at = created_at",
    "UPDATE rotations SET state = 'approved', finished_at = NULL, machine = replace(replace(machine, '\"state\":\"cancelled\"', '\"state\":\"approved\"'), '\"state\":\"rejected\"', '\"state\":\"approved\"'), wake_at = created_at",
    "UPDATE rotations SET state = 'rolling_back', finished_at = NULL, machine = replace(machine, '\"state\":\"completed\"', '\"state\":\"rolling_back\"'), wake_at = created_at",
    "UPDATE rotations SET machine = replace(machine, '\"required\":2', '\"required\":1')",
    "UPDATE rotations SET machine = replace(machine, '\"given\":0', '\"given\":2')",
    "UPDATE rotations SET requested_by = 'bob'",
    "UPDATE rotations SET lease = NULL, lease_until = NULL, wake_at = created_at",
    "INSERT OR IGNORE INTO approvals (rotation_id, approver, at, method) SELECT id, 'edsger', created_at, 'api' FROM rotations",
    "INSERT OR IGNORE INTO approvals (rotation_id, approver, at, method) SELECT id, 'policy:auto_approve', created_at, 'auto_approve' FROM rotations",
    "DELETE FROM approvals",
    "DELETE FROM rotations",
    "DELETE FROM projects",
    "DELETE FROM tokens",
    "UPDATE tokens SET roles = 'admin', revoked_at = NULL",
    "UPDATE tokens SET person = 'eve@example.com'",
    "UPDATE tokens SET revoked_at = created_at WHERE name = 'grace'",
    "UPDATE projects SET policy = '{\"approvals\":1,\"selfApproval\":true}'",
    "UPDATE projects SET policy = '{', current_key = 'THIRD'",
    "UPDATE owners SET mail = 'eve@example.com'",
    "UPDATE outbox SET state = 'sent', sent_at = created_at",
    "UPDATE audit SET detail = replace(detail, 'NEW', 'THIRD')",
    "UPDATE audit SET seal = ''",
    "UPDATE audit SET seals = ''",
    "DELETE FROM audit WHERE seq > (SELECT seq - 2 FROM audit_head); UPDATE audit_head SET seq = COALESCE((SELECT MAX(seq) FROM audit), 0), hash = COALESCE((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), '')",
    "DELETE FROM audit; UPDATE audit_head SET seq = 0, hash = ''",
    "DELETE FROM audit WHERE seq = 3",
    "DELETE FROM meta WHERE name = 'installation'",
    "DELETE FROM conditions",
    "DELETE FROM settings",
    "DELETE FROM loosenings",
    "DELETE FROM journal",
];

/// Tables that are copied and put back, with the head of the log.
const COPIED: [&str; 2] = ["audit_head", "meta"];

struct Play {
    search: Search,
    id: RotationId,
    /// Where the epoch file is.
    folder: tempfile::TempDir,
    /// Whether tables were copied.
    copied: bool,
    /// Who has approved, and has not withdrawn.
    yes: BTreeSet<&'static str>,
    needed: u32,
    /// People ended the rotation, or it ended before anything was edited that it rests on.
    over: bool,
    /// PATCHes that were judged.
    judged: usize,
    sent_new: bool,
}

impl Play {
    async fn start(seed: u64, database: &Database) -> Self {
        for table in TABLES.iter().chain(&COPIED) {
            raw(&database.store, &format!("DROP TABLE IF EXISTS copy_of_{table}")).await;
        }
        let fingerprint = database.store.seals().fingerprint().unwrap();
        raw(
            &database.store,
            &format!("INSERT OR REPLACE INTO meta (name, value) VALUES ('installation', '{fingerprint}')"),
        )
        .await;
        let search = Search::start(seed, Lie::None, database).await;
        {
            let mut inner = search.world.inner();
            (inner.plan.accidents, inner.plan.bad_commits, inner.plan.fleet) = (0, 0, false);
        }
        let new = NewProject {
            group_id: GROUP.to_owned(),
            owners: vec!["a@b.c".to_owned()],
            ..NewProject::default()
        };
        search.insist_on_project(new).await;
        let group = GROUP.parse().unwrap();
        let row = loop {
            let proposed = search.engine.propose("ada", &group, NEW.parse().unwrap(), None, false).await;
            match proposed {
                Ok(Proposed::Created(row) | Proposed::Same(row)) => break row,
                _ => search.world.pass(Duration::from_secs(60)),
            }
        };
        search.world.inner().watched = Some(row.rotation.id);
        search.world.release_humans();
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut it = Self {
            id: row.rotation.id,
            needed: row.rotation.permission.quorum.required,
            search,
            folder,
            copied: false,
            yes: BTreeSet::new(),
            over: false,
            judged: 0,
            sent_new: false,
        };
        it.restart().await;
        it
    }

    fn store(&self) -> &Store {
        &self.search.engine.store
    }

    /// A new process, which knows what is in the database and in the epoch file.
    async fn restart(&mut self) {
        self.search.restart();
        self.store().seals().begin_anew();
        let guard = EpochWatch::new(self.folder.path().join("epoch")).unwrap();
        let now = self.search.world.clock.now();
        let is_new = !self.folder.path().join("epoch").exists();
        if !is_new {
            let _ = guard.start(self.store(), now).await;
        }
        self.search.engine = self.search.engine.clone().with_guard(guard);
        if let Err(error) = self.store().follow_seals().await {
            self.search.note(format!("the log is not read: {error}"));
        }
        if is_new {
            self.search.engine.epoch.record(self.store(), now).await.unwrap();
        }
    }

    async fn attack(&mut self) {
        let (what, which, restarts) = {
            let dice = &mut self.search.world.inner().dice;
            (dice.roll(100), dice.roll(1000), dice.chance(30))
        };
        let which = usize::try_from(which).unwrap();
        match what {
            0..20 => {
                for table in TABLES.iter().chain(&COPIED) {
                    raw(
                        self.store(),
                        &format!(
                            "DROP TABLE IF EXISTS copy_of_{table}; CREATE TABLE copy_of_{table} AS SELECT * FROM {table}"
                        ),
                    )
                    .await;
                }
                self.copied = true;
                self.search.note("ADVERSARY copies the database");
            }
            20..50 if self.copied => {
                let table = TABLES[which % TABLES.len()];
                self.put_back(&[table]).await;
            }
            50..60 if self.copied => {
                let all: Vec<&str> = TABLES.iter().chain(&COPIED).copied().collect();
                self.put_back(&all).await;
            }
            _ => {
                let edit = EDITS[which % EDITS.len()];
                let sql = edit.replace("NEW", NEW).replace("OLD", OLD).replace("THIRD", THIRD);
                self.search.note(format!("ADVERSARY {edit}"));
                raw(self.store(), &sql).await;
            }
        }
        if restarts {
            self.search.note("a new process starts");
            self.restart().await;
        }
    }

    async fn put_back(&self, tables: &[&str]) {
        self.search.note(format!("ADVERSARY puts back {}", tables.join(", ")));
        let removed = tables.iter().map(|table| format!("DELETE FROM {table};"));
        let back = tables.iter().rev();
        let back = back.map(|table| format!("INSERT OR IGNORE INTO {table} SELECT * FROM copy_of_{table};"));
        let all = removed.chain(back).collect::<String>();
        let sql = format!("PRAGMA foreign_keys = OFF; BEGIN;{all}COMMIT; PRAGMA foreign_keys = ON");
        raw(self.store(), &sql).await;
    }

    async fn person(&mut self) {
        let (who, verb) = {
            let dice = &mut self.search.world.inner().dice;
            let who = ["ada", "grace", "edsger", "bob"][usize::try_from(dice.roll(4)).unwrap()];
            let verb = match dice.roll(12) {
                0 => OperatorVerb::Withdraw,
                1 => OperatorVerb::Cancel,
                2 => OperatorVerb::Reject,
                3 => OperatorVerb::Resume,
                4 => OperatorVerb::Rollback,
                _ => OperatorVerb::Approve,
            };
            (who, verb)
        };
        let said = self.search.engine.say(who, self.id, verb, None, None).await;
        let said = said.map(|row| row.rotation.state).map_err(|error| error.to_string());
        self.search.note(format!("{who} says {}: {said:?}", verb.as_str()));
        match (verb, said) {
            (OperatorVerb::Approve, Ok(_)) => _ = self.yes.insert(who),
            (OperatorVerb::Withdraw, Ok(_)) => _ = self.yes.remove(who),
            (OperatorVerb::Cancel | OperatorVerb::Reject, Ok(state)) => self.over |= state.is_final(),
            _ => {}
        }
    }

    async fn daemon(&mut self) {
        let (engine, stop) = (self.search.engine.clone(), CancellationToken::new());
        if self.search.world.inner().dice.chance(30)
            && let Err(error) = sweep::once(&engine, &stop).await
        {
            self.search.note(format!("no sweep: {error}"));
        }
        if let Err(error) = driver::run_due(&engine).await {
            self.search.note(format!("no steps: {error}"));
        }
    }

    /// Whether what was sent is what people agreed to.
    fn judge(&mut self) -> Result<(), String> {
        let patches = self.search.world.inner().patches.clone();
        for patch in patches.iter().skip(self.judged) {
            match patch.key {
                NEW if self.sent_new && !self.over => {}
                NEW => {
                    let votes = self.yes.len();
                    if self.over || votes < usize::try_from(self.needed).unwrap() {
                        return Err(format!(
                            "the new key was sent on {votes} of {} votes{}",
                            self.needed,
                            if self.over { ", after the end" } else { "" }
                        ));
                    }
                    self.sent_new = true;
                }
                OLD if self.sent_new => {}
                OLD => return Err("the old key was sent, and the new one never was".to_owned()),
                key => return Err(format!("{key} was sent, which nobody proposed")),
            }
        }
        self.judged = patches.len();
        Ok(())
    }

    /// Whether the rotation has ended by what Keywheel wrote.
    async fn note_end(&mut self) {
        let Ok(Some(row)) = self.store().rotation(self.id).await else { return };
        if row.rotation.state.is_final()
            && self.store().seals().fault().is_none()
            && self.store().tampered().await.is_ok_and(|found| found.is_empty())
        {
            self.over = true;
        }
    }

    async fn play(&mut self) -> Result<Option<State>, String> {
        let mut genuine = true;
        for _ in 0..TURNS {
            if self.search.world.inner().dice.chance(ATTACKS) {
                self.attack().await;
                genuine = false;
            }
            if self.search.world.inner().dice.chance(35) {
                self.person().await;
            }
            self.daemon().await;
            self.judge()?;
            if genuine {
                self.note_end().await;
            }
            let pause = self.search.world.inner().dice.roll(240);
            self.search.world.pass(Duration::from_secs(5 + pause));
        }
        let row = self.store().rotation(self.id).await;
        Ok(row.ok().flatten().map(|row| row.rotation.state))
    }
}

async fn raw(store: &Store, text: &str) {
    let Store::Sqlite { write, .. } = store else { unreachable!() };
    // What the schema itself refuses is no attack.
    if sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(write).await.is_err() {
        let _ = sqlx::raw_sql("ROLLBACK").execute(write).await;
    }
}

/// Plays one seed; what broke, with its story.
async fn run(seed: u64, database: &Database) -> Result<(Option<State>, bool), (String, Vec<String>)> {
    let mut play = Play::start(seed, database).await;
    let played = play.play().await;
    let story = std::mem::take(&mut play.search.world.inner().trace);
    played.map(|state| (state, play.sent_new)).map_err(|why| (why, story))
}

#[expect(clippy::print_stdout, reason = "seeds and their ends are for the reader of a run")]
#[test]
fn no_adversary_who_writes_the_database_has_a_key_sent() {
    if let Some(seed) = number("KEYWHEEL_SEED") {
        let played = runtime().block_on(async { Box::pin(run(seed, &Database::new().await)).await });
        let (why, story) = match played {
            Ok(ended) => return println!("seed {seed} ends {ended:?}"),
            Err(broken) => broken,
        };
        panic!("seed {seed}: {why}\n{}", story.join("\n"));
    }
    let seeds = number("KEYWHEEL_SEEDS").map_or(SEEDS, |seeds| seeds / 5);
    let all: Vec<u64> = KEPT.iter().copied().chain(0..seeds).collect();
    let next = AtomicU64::new(0);
    let found = std::sync::Mutex::new((Vec::new(), 0_usize));
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let runtime = runtime();
                let database = runtime.block_on(Database::new());
                while let Some(seed) = all.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap())
                {
                    let played = runtime.block_on(Box::pin(run(*seed, &database)));
                    let mut found = found.lock().unwrap();
                    match played {
                        Ok((_, sent)) => found.1 += usize::from(sent),
                        Err((why, _)) => found.0.push((*seed, why)),
                    }
                    if found.0.len() >= 10 {
                        return;
                    }
                }
            });
        }
    });
    let (mut broken, sent) = found.into_inner().unwrap();
    broken.sort();
    println!("{seeds} seeds, and in {sent} the new key was sent with everybody's consent");
    assert!(broken.is_empty(), "KEYWHEEL_SEED=n tells the story of one:\n{broken:#?}");
    assert!(sent > all.len() / 20, "the search sees hardly a PATCH: {sent}");
}
