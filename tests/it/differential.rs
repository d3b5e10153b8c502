//! Both databases, told the same: random sequences of store operations run on SQLite and on
//! PostgreSQL, every answer is compared, and at the end every row of every table.
//!
//! PostgreSQL sorts by a language's rules here, as installations do. Not compared: ids that the
//! store makes itself, and lease times, which on PostgreSQL are the server's.
//!
//! A failing sequence is shortened before it is printed. `KEYWHEEL_SEED=7` plays one seed.

use std::fmt::Write as _;
use std::time::Duration;

use keywheel::domain::ids::{GroupId, LeaseToken, RotationId};
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::notice::Notice;
use keywheel::domain::policy::Rules;
use keywheel::domain::project::{PolicyOverride, Project, SinceSource};
use keywheel::domain::role::Role;
use keywheel::domain::rotation::journal::JournalKind;
use keywheel::domain::rotation::outcome::Observation;
use keywheel::domain::rotation::state::{Cause, Proposal, Rotation, State};
use keywheel::domain::time::Timestamp;
use keywheel::store::{
    KeyChange, NewApproval, NewAudit, NewJournal, NewOutbox, NewRotation, ProjectFilter, ProjectWrite,
    RotationRow, StepWrite, Store, StoreError, Vote,
};
use sqlx::{AssertSqlSafe, Row};

use crate::support::db::{Backend, TestDb};
use crate::support::notice;

const SEEDS: u64 = 40;
const LENGTH: usize = 90;

/// Longer than any sequence lasts.
const LONG: Duration = Duration::from_secs(10 * 86_400);

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.roll(2) == 0).then(|| make(self))
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    InsertProject,
    UpdateProject,
    DeleteProject,
    ListProjects,
    InsertRotation,
    Claim,
    Commit,
    Command,
    Release,
    ClearLeases,
    ReadRotations,
    InsertToken,
    RevokeToken,
    TokenRequest,
    ReadPeople,
    Verify,
}

const KINDS: [Kind; 24] = [
    Kind::InsertProject,
    Kind::InsertProject,
    Kind::UpdateProject,
    Kind::UpdateProject,
    Kind::DeleteProject,
    Kind::ListProjects,
    Kind::InsertRotation,
    Kind::InsertRotation,
    Kind::InsertRotation,
    Kind::Claim,
    Kind::Claim,
    Kind::Commit,
    Kind::Commit,
    Kind::Commit,
    Kind::Commit,
    Kind::Command,
    Kind::Command,
    Kind::Release,
    Kind::ClearLeases,
    Kind::ReadRotations,
    Kind::InsertToken,
    Kind::RevokeToken,
    Kind::TokenRequest,
    Kind::ReadPeople,
];

/// One operation; its dice make every choice, so that it means the same wherever it is played.
#[derive(Clone, Copy, Debug)]
struct Op {
    kind: Kind,
    seed: u64,
    now: Timestamp,
}

fn sequence(seed: u64) -> Vec<Op> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    let mut now: Timestamp = "2026-03-01T12:00:00.123456Z".parse().unwrap();
    let mut ops: Vec<Op> = (0..LENGTH)
        .map(|_| {
            // Sometimes no time passes: order must not depend on it.
            now = now + Duration::from_micros(dice.roll(3) * dice.roll(40_000_000));
            Op { kind: dice.one(&KINDS), seed: dice.roll(u64::MAX), now }
        })
        .collect();
    ops.push(Op { kind: Kind::Verify, seed: 0, now });
    ops
}

const NAMES: [&str; 6] = ["b", "B", "a-b", "ab", "ä <&>", "_z"];
/// Free text, as people and Atlas write it.
const TEXTS: [&str; 3] = ["plain", "\u{202e}ä <&>\n", "nul\0here"];
const STATES: [State; 16] = [
    State::AwaitingApproval,
    State::Approved,
    State::Applying,
    State::Verifying,
    State::Deploying,
    State::RollingBack,
    State::NeedsOperator,
    State::Completed,
    State::RolledBack,
    State::Failed,
    State::Rejected,
    State::Cancelled,
    State::Expired,
    State::Superseded,
    State::Accepted,
    State::Closed,
];

fn group(dice: &mut Dice) -> GroupId {
    format!("{:024x}", 0x00ab_cdef_u64 * (dice.roll(5) + 1)).parse().unwrap()
}

fn key(dice: &mut Dice) -> KeyRef {
    let text = "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx".replace('x', &dice.roll(4).to_string());
    KeyRef::parse(Provider::Aws, &text).unwrap()
}

fn instant(dice: &mut Dice, now: Timestamp) -> Timestamp {
    let day = Duration::from_secs(86_400);
    now - day + Duration::from_micros(dice.roll(8) * 21_600_000_001)
}

fn audits(dice: &mut Dice) -> Vec<NewAudit> {
    (0..dice.roll(3))
        .map(|_| NewAudit {
            actor: dice.one(&NAMES).to_owned(),
            action: "test.done".to_owned(),
            subject: format!("project/{}", group(dice)),
            detail: "{\"b\":1.50,\"a\":\"ü\\u0000\"}".to_owned(),
        })
        .collect()
}

fn mails(dice: &mut Dice, now: Timestamp) -> Vec<NewOutbox> {
    (0..dice.roll(3))
        .map(|_| NewOutbox {
            channel: keywheel::store::Channel::Mail,
            content: notice(group(dice).as_str(), Notice::Completed),
            subject: (&group(dice)).into(),
            recipient: "ada@example.com".to_owned(),
            // The same logical mail comes more than once.
            message_id: format!("<{}@keywheel>", dice.roll(40)),
            next_try_at: instant(dice, now),
        })
        .collect()
}

fn project(dice: &mut Dice, now: Timestamp) -> Project {
    let since = dice.maybe(|dice| instant(dice, now));
    Project {
        group_id: group(dice),
        name: dice.one(&TEXTS).to_owned(),
        provider: dice.maybe(|dice| dice.one(&[Provider::Aws, Provider::Azure, Provider::Gcp])),
        current_key: dice.maybe(key),
        place: Place { aws_region: dice.maybe(|_| "EU_WEST_1".to_owned()), ..Place::default() },
        key_since: since,
        key_since_source: since.map(|_| dice.one(&[SinceSource::Operator, SinceSource::FirstSeen])),
        valid: dice.maybe(|dice| dice.roll(2) == 0),
        private_networking: dice.roll(2) == 0,
        owners: (0..dice.roll(4)).map(|_| dice.one(&NAMES).to_owned()).collect(),
        environment: dice.maybe(|dice| dice.one(&TEXTS).to_owned()),
        credential: "default".to_owned(),
        kms: dice.maybe(|dice| dice.one(&NAMES).to_owned()),
        alias: dice.maybe(|dice| dice.one(&NAMES).to_owned()),
        policy: dice.maybe(|_| PolicyOverride { approvals: Some(2), ..PolicyOverride::default() }),
        drift_key: dice.maybe(key),
        last_checked_at: dice.maybe(|dice| instant(dice, now)),
        last_error: dice.maybe(|dice| dice.one(&TEXTS).to_owned()),
        next_check_at: instant(dice, now),
        next_reminder_at: dice.maybe(|dice| instant(dice, now)),
        created_at: now,
        open_rotation: None,
        holding: Vec::new(),
        silence: None,
        due_ack: None,
        key_ends_at: None,
        version: 1,
    }
}

/// The rotation is numbered by its operation, so that it has the same id on both databases.
fn proposal(dice: &mut Dice, seed: u64, now: Timestamp) -> RotationRow {
    let (old_key, new_key) = (key(dice), key(dice));
    let observed = Observation {
        at: now,
        provider: Some(Provider::Aws),
        key: Some(old_key.clone()),
        valid: Some(true),
        private_networking: false,
        place: Place::default(),
        block_hash: String::new(),
        invalid_beside: None,
        skew_ms: Some(-7),
    };
    let proposal = Proposal {
        group_id: group(dice),
        new_key,
        seen: observed,
        checks: Vec::new(),
        old_key,
        rules: Rules::default(),
    };
    let mut rotation = Rotation::propose(proposal, now);
    rotation.id = RotationId(uuid::Uuid::from_u64_pair(seed, seed ^ 0x5555));
    shake(&mut rotation, dice, now);
    RotationRow {
        rotation,
        trigger: "operator".to_owned(),
        reason: dice.maybe(|dice| dice.one(&TEXTS).to_owned()),
        requested_by: "ada".to_owned(),
        proposal_hash: "hash".to_owned(),
        policy_version: "1".to_owned(),
        version: 1,
        project_name: dice.one(&TEXTS).to_owned(),
        credential: "default".to_owned(),
        environment: None,
        kms: None,
        lease: None,
    }
}

fn shake(it: &mut Rotation, dice: &mut Dice, now: Timestamp) {
    // Mostly open, as rotations that are stepped are.
    it.state = if dice.roll(4) > 0 { dice.one(&STATES[..7]) } else { dice.one(&STATES) };
    it.cause = dice.maybe(|dice| dice.one(&[Cause::Refused, Cause::Unproven]));
    it.patching.guard_deadline = dice.maybe(|dice| instant(dice, now));
    it.wake_at = dice.maybe(|dice| instant(dice, now));
    it.ending.finished_at = it.state.is_final().then_some(now);
}

fn vote(dice: &mut Dice) -> Vote {
    let by = dice.one(&NAMES).to_owned();
    if dice.roll(4) == 0 {
        return Vote::Withdrawn(by);
    }
    let comment = dice.maybe(|dice| dice.one(&TEXTS).to_owned());
    Vote::Yes(NewApproval { by, method: "api".to_owned(), comment, signed: None })
}

fn entry(dice: &mut Dice) -> NewJournal {
    NewJournal {
        actor: "ada".to_owned(),
        kind: dice.one(&[JournalKind::Look, JournalKind::Blind]),
        from_state: dice.maybe(|_| State::Approved),
        to_state: State::Approved,
        detail: serde_json::json!({ "same": dice.roll(2) == 0 }),
        replay: dice.maybe(|_| serde_json::json!({ "b": 1, "a": 2 })),
        merge: dice.roll(2) == 0,
    }
}

/// One database while a sequence is played on it.
struct Side<'a> {
    store: &'a Store,
    held: Vec<RotationRow>,
}

impl Side<'_> {
    /// Carries out `op` and says what came of it, in words that do not depend on the database.
    async fn play(&mut self, op: Op) -> String {
        let mut dice = Dice(op.seed);
        match self.act(op.kind, op.seed, &mut dice, op.now).await {
            Ok(text) => text,
            Err(error) => kind(&error),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    async fn act(
        &mut self,
        kind: Kind,
        seed: u64,
        dice: &mut Dice,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let store = self.store;
        Ok(match kind {
            Kind::InsertProject => {
                shown(&store.insert_project(&project(dice, now), &audits(dice), now).await?)
            }
            Kind::UpdateProject => {
                let it = project(dice, now);
                let known = store.project(&it.group_id).await?.map_or(1, |it| it.version);
                let version = if dice.roll(4) == 0 { dice.roll(9).cast_signed() } else { known };
                shown(&store.update_project(&it, version, &audits(dice), &mails(dice, now), now).await?)
            }
            Kind::DeleteProject => shown(&store.delete_project(&group(dice), &audits(dice), now).await?),
            Kind::ListProjects => {
                let filter = ProjectFilter {
                    provider: dice.maybe(|_| Provider::Aws),
                    owner: dice.maybe(|dice| dice.one(&NAMES).to_owned()),
                    name: None,
                };
                let after = dice.maybe(group);
                let limit = usize::try_from(dice.roll(4) + 1).unwrap();
                let listed = store.projects(&filter, after.as_ref(), limit).await?;
                shown(&(listed, store.due_looks(now, now + std::time::Duration::from_secs(86_400)).await?))
            }
            Kind::InsertRotation => {
                let row = proposal(dice, seed, now);
                let (entry, audit, mail) = (entry(dice), audits(dice), mails(dice, now));
                let write = NewRotation {
                    row: &row,
                    journal: vec![entry],
                    vote: None,
                    audit: audit.clone(),
                    outbox: mail.clone(),
                    review: None,
                    now,
                };
                shown(&store.insert_rotation(write).await?)
            }
            Kind::Claim => {
                let ttl = if dice.roll(3) == 0 { Duration::ZERO } else { LONG };
                let rows = store.claim(now, usize::try_from(dice.roll(3) + 1).unwrap(), ttl).await?;
                self.held.extend(rows.iter().cloned());
                shown(&rows.into_iter().map(without_lease).collect::<Vec<_>>())
            }
            Kind::Commit | Kind::Command => {
                let Some(row) = self.pick(kind, dice).await? else {
                    return Ok("nothing to commit".to_owned());
                };
                let version = self.commit(&row, dice, now).await?;
                shown(&version)
            }
            Kind::Release => {
                let Some(row) = self.pick(Kind::Commit, dice).await? else {
                    return Ok("nothing held".to_owned());
                };
                shown(&store.release(&row).await?)
            }
            Kind::ClearLeases => {
                store.clear_leases().await?;
                // When exactly is a question of the database's clock on one of them.
                shown(&store.next_wake(now).await?.is_some())
            }
            Kind::ReadRotations => {
                let (state, group) = (dice.maybe(|dice| dice.one(&STATES)), dice.maybe(group));
                let rows = store.rotations(state, group.as_ref(), None, 5).await?;
                let mut text = String::new();
                for row in &rows {
                    let id = row.rotation.id;
                    let (votes, journal) = (store.approvals(id).await?, store.journal(id, 0, 50).await?);
                    let _ = write!(text, "{:?} {votes:?} {journal:?}", without_lease(row.clone()));
                }
                text
            }
            Kind::InsertToken => {
                let (name, hash) = (dice.one(&NAMES), dice.one(&NAMES));
                let roles = [Role::Viewer, Role::Operator];
                shown(&store.insert_token(name, hash, &roles, &audits(dice), now).await?)
            }
            Kind::RevokeToken => shown(&store.revoke_token(dice.one(&NAMES), &audits(dice), now).await?),
            Kind::TokenRequest => {
                let name = dice.one(&["one", "two"]);
                shown(&(
                    store.take_token_request(name, now).await?,
                    store.take_token_request(name, now).await?,
                ))
            }
            Kind::ReadPeople => {
                let by_hash = store.token_by_hash(dice.one(&NAMES)).await?;
                store.check_writable(now).await?;
                shown(&(
                    store.list_tokens().await?,
                    by_hash,
                    store.audit(Some(dice.roll(9).cast_signed()), 4).await?,
                ))
            }
            Kind::Verify => shown(&store.verify_audit().await?),
        })
    }

    /// A row that was claimed at some time, or for a command any row.
    async fn pick(&self, kind: Kind, dice: &mut Dice) -> Result<Option<RotationRow>, StoreError> {
        let rows = match kind {
            Kind::Command => self.store.rotations(None, None, None, 50).await?,
            _ => self.held.clone(),
        };
        if rows.is_empty() {
            return Ok(None);
        }
        let mut row = rows[usize::try_from(dice.roll(rows.len() as u64)).unwrap()].clone();
        match dice.roll(8) {
            0 => row.version += 1,
            1 => row.lease = row.lease.map(|_| LeaseToken(uuid::Uuid::nil())),
            _ => {}
        }
        if let Kind::Command = kind {
            row.lease = None;
        }
        Ok(Some(row))
    }

    async fn commit(
        &mut self,
        row: &RotationRow,
        dice: &mut Dice,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let mut after = row.rotation.clone();
        shake(&mut after, dice, now);
        let change = KeyChange { key: key(dice), since: instant(dice, now), source: SinceSource::Rotation };
        let write = StepWrite {
            before: row,
            after: &after,
            keep_lease: dice.maybe(|_| now + LONG),
            journal: dice.maybe(entry),
            audit: audits(dice),
            outbox: mails(dice, now),
            project: dice.maybe(|dice| ProjectWrite {
                group_id: row.rotation.group_id.clone(),
                valid: dice.maybe(|dice| dice.roll(2) == 0),
                checked_at: dice.maybe(|_| now),
                key_change: dice.maybe(|_| change),
            }),
            vote: dice.maybe(vote),
            sends: None,
            terms: None,
            now,
        };
        let version = self.store.commit(write).await?;
        for held in &mut self.held {
            if held.rotation.id == row.rotation.id && held.lease == row.lease {
                (held.version, held.rotation) = (version, after.clone());
            }
        }
        Ok(version)
    }
}

fn shown(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

fn without_lease(row: RotationRow) -> (RotationRow, bool) {
    let claimed = row.lease.is_some();
    (RotationRow { lease: None, ..row }, claimed)
}

/// The kind of an error; what the driver says differs.
fn kind(error: &StoreError) -> String {
    let text = format!("{error:?}");
    match error {
        StoreError::Unavailable(_) | StoreError::ReadOnly(_) => {
            text.split('(').next().unwrap_or_default().to_owned()
        }
        _ => text,
    }
}

/// Every column of our tables with its type on PostgreSQL.
async fn columns(postgres: &Store) -> Vec<(String, String, String)> {
    let Store::Postgres { write: pool, .. } = postgres else { unreachable!() };
    let rows = sqlx::query(
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY table_name, ordinal_position",
    );
    let rows = rows.fetch_all(pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn tables(columns: &[(String, String, String)]) -> Vec<&str> {
    let mut names: Vec<&str> = columns.iter().map(|(table, ..)| table.as_str()).collect();
    names.dedup();
    names
}

/// One column as text that is the same on both; `None` leaves it out.
fn column(backend: Backend, table: &str, name: &str, data_type: &str) -> Option<String> {
    if matches!((table, name), ("rotations", "lease_until") | ("outbox", "id")) {
        return None;
    }
    let lite = backend == Backend::Sqlite;
    let text = match (data_type, lite) {
        _ if name == "lease_token" && lite => "CAST(lease_token IS NOT NULL AS TEXT)".to_owned(),
        _ if name == "lease_token" => "(lease_token IS NOT NULL)::int::text".to_owned(),
        // hex of NULL is the empty text.
        ("uuid", true) => format!("CASE WHEN {name} IS NOT NULL THEN lower(hex({name})) END"),
        ("uuid", false) => format!("replace({name}::text, '-', '')"),
        ("boolean", false) => format!("{name}::int::text"),
        ("timestamp with time zone", false) => {
            format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        }
        _ => format!("CAST({name} AS TEXT)"),
    };
    Some(format!("COALESCE({text}, '-')"))
}

async fn dump(store: &Store, columns: &[(String, String, String)]) -> Vec<String> {
    let backend = if matches!(store, Store::Sqlite { .. }) { Backend::Sqlite } else { Backend::Postgres };
    let mut lines = Vec::new();
    for table in tables(columns) {
        let own: Vec<String> = columns
            .iter()
            .filter(|(it, ..)| it == table)
            .filter_map(|(_, name, data_type)| column(backend, table, name, data_type))
            .collect();
        let text = AssertSqlSafe(format!("SELECT {} FROM {table}", own.join(" || ' | ' || ")));
        let rows: Vec<(String,)> = match store {
            Store::Sqlite { write, .. } => sqlx::query_as(text).fetch_all(write).await.unwrap(),
            Store::Postgres { write: pool, .. } => sqlx::query_as(text).fetch_all(pool).await.unwrap(),
        };
        lines.extend(rows.into_iter().map(|(row,)| format!("{table}: {row}")));
    }
    lines.sort();
    lines
}

async fn empty(store: &Store, columns: &[(String, String, String)]) {
    let mut text = String::new();
    // Tables that others point to come last.
    let mut names = tables(columns);
    names.sort_by_key(|name| matches!(*name, "rotations" | "projects"));
    for name in names {
        let _ = match name {
            "audit_head" => write!(text, "UPDATE audit_head SET seq = 0, hash = '';"),
            other => write!(text, "DELETE FROM {other};"),
        };
    }
    let text = sqlx::raw_sql(AssertSqlSafe(text));
    match store {
        Store::Sqlite { write, .. } => drop(text.execute(write).await.unwrap()),
        Store::Postgres { write: pool, .. } => drop(text.execute(pool).await.unwrap()),
    }
}

/// Both databases, made once and emptied before each sequence.
struct Pair {
    lite: TestDb,
    postgres: TestDb,
    columns: Vec<(String, String, String)>,
}

impl Pair {
    async fn new() -> Self {
        let language = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
        let postgres = TestDb::with(Backend::Postgres, language).await;
        let columns = columns(&postgres.store).await;
        Self { lite: TestDb::new(Backend::Sqlite).await, postgres, columns }
    }

    /// Plays `ops` on both; says where they first differ, and counts what was answered.
    async fn differ(&self, ops: &[Op], errors: &mut usize) -> Option<(usize, String)> {
        let stores = [&self.lite.store, &self.postgres.store];
        for store in stores {
            empty(store, &self.columns).await;
        }
        let [mut lite, mut postgres] = stores.map(|store| Side { store, held: Vec::new() });
        for (index, op) in ops.iter().enumerate() {
            let (one, two) = (lite.play(*op).await, postgres.play(*op).await);
            *errors +=
                usize::from(["Conflict", "Exists", "OpenRotation"].iter().any(|it| one.starts_with(it)));
            if one != two {
                return Some((index, format!("{op:?}\n  SQLite:     {one}\n  PostgreSQL: {two}")));
            }
        }
        let (one, two) = (dump(lite.store, &self.columns).await, dump(postgres.store, &self.columns).await);
        if one == two {
            return None;
        }
        let mut text = String::from("the tables differ:");
        for (sign, lines, others) in [("SQLite only", &one, &two), ("PostgreSQL only", &two, &one)] {
            for line in lines.iter().filter(|line| !others.contains(line)) {
                let _ = write!(text, "\n  {sign}: {line}");
            }
        }
        Some((ops.len() - 1, text))
    }

    /// Leaves out what the difference does not need.
    async fn shorten(&self, mut ops: Vec<Op>, mut found: (usize, String)) -> (Vec<Op>, String) {
        ops.truncate(found.0 + 1);
        let mut index = ops.len();
        while index > 0 {
            index -= 1;
            let mut fewer = ops.clone();
            fewer.remove(index);
            if fewer.is_empty() {
                break;
            }
            if let Some(still) = self.differ(&fewer, &mut 0).await {
                fewer.truncate(still.0 + 1);
                index = index.min(fewer.len());
                (ops, found) = (fewer, still);
            }
        }
        (ops, found.1)
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what was played is for the reader of a run")]
async fn the_same_operations_come_to_the_same_on_both_databases() {
    let pair = Pair::new().await;
    let one = std::env::var("KEYWHEEL_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut rows, mut errors) = (0, 0);
    for seed in seeds.clone() {
        let ops = sequence(seed);
        if let Some(found) = pair.differ(&ops, &mut errors).await {
            let (ops, why) = pair.shorten(ops, found).await;
            let story: String = ops.iter().fold(String::new(), |text, op| text + &format!("\n{op:?}"));
            panic!("seed {seed}, {} operations:{story}\n\n{why}", ops.len());
        }
        rows += dump(&pair.lite.store, &pair.columns).await.len();
    }
    println!("{} sequences of {LENGTH}: {rows} rows, {errors} refusals", seeds.end - seeds.start);
    assert!(
        rows > 20 * usize::try_from(seeds.end - seeds.start).unwrap() && errors > 0,
        "too little happened"
    );
}
