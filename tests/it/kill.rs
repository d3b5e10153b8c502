//! The real binary on SQLite, killed with SIGKILL at random instants while requests and replies get
//! lost. Judged from the simulator's log and from what Atlas holds afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keywheel::domain::ids::RotationId;
use keywheel::domain::rotation::state::State;
use keywheel::engine::command::{Proposed, Verb};
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;

use crate::support::{Rig, group};

const ROUNDS: usize = 60;

/// States that the machine must have been killed in at least this often.
const WANTED: [(State, usize); 4] =
    [(State::Applying, 5), (State::Verifying, 5), (State::Deploying, 5), (State::RollingBack, 5)];

/// A small generator, so that a failing run can be repeated from its printed seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(folder: &Path, base_url: &str) {
    let text = format!(
        r#"
data_dir = "{}"
[server]
listen = "127.0.0.1:0"
[database]
url = "sqlite:kw.db"
[atlas]
base_url = "{base_url}"
request_timeout = "2s"
[atlas.credentials.default]
kind = "service-account"
client_id = "mdb_sa_id_demo"
client_secret = "mdb_sa_sk_demo"
[verify]
every = "60ms"
false_grace = "200ms"
timeout = "20s"
guard = "30s"
private_network_hold = "31s"
deploy_poll = "60ms"
deploy_grace = "900ms"
deploy_timeout = "20s"
[pace]
backoff_min = "50ms"
backoff_max = "300ms"
rate_limit_floor = "200ms"
settle = "400ms"
watch_every = "1s"
watch_for = "1s"
[sweep]
cron = "* * * * * *"
drift_every = "1h"
[log]
level = "warn"
"#,
        folder.display()
    );
    std::fs::write(folder.join("keywheel.toml"), text).unwrap();
}

fn serve(folder: &Path) -> Daemon {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("daemon.log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_keywheel"))
        .args(["serve", "--config"])
        .arg(folder.join("keywheel.toml"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Daemon(child)
}

/// Log-ins are counted across restarts, ten a minute; this many restarts would only wait for that.
async fn forget_log_ins(rig: &Rig) {
    let keywheel::store::Store::Sqlite { write, .. } = &rig.engine.store else { unreachable!() };
    sqlx::query("DELETE FROM token_requests").execute(write).await.unwrap();
}

async fn state(rig: &Rig, id: RotationId) -> State {
    rig.engine.rotation(id).await.unwrap().rotation.state
}

/// Waits until the rotation is in `wanted` or final; says which.
async fn reach(rig: &Rig, id: RotationId, wanted: Option<State>, folder: &Path) -> State {
    let reached = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let now = state(rig, id).await;
            if Some(now) == wanted || now.is_final() {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let Ok(state) = reached.await else {
        let row = rig.engine.rotation(id).await.unwrap();
        let log = std::fs::read_to_string(folder.join("daemon.log")).unwrap_or_default();
        panic!("stuck in {} {:?} (wanted {wanted:?})\n{log}", row.rotation.state, row.rotation.cause);
    };
    state
}

fn faults(dice: &mut Dice) -> Vec<Fault> {
    // Every PATCH is slow enough to be killed in; some requests and replies are lost.
    let fault = |operation: &str, skip, times, kind| Fault {
        operation: operation.to_owned(),
        group_id: None,
        skip,
        times,
        kind,
    };
    let mut script = Vec::new();
    match dice.roll(4) {
        0 => script.push(fault("patch_ear", 0, Some(1), Kind::DropRequest)),
        1 => script.push(fault("patch_ear", 0, Some(1), Kind::DropReply)),
        2 => script.push(fault("get_ear", 2, Some(1), Kind::DropReply)),
        _ => {}
    }
    script.push(fault("patch_ear", 0, None, Kind::Delay(80)));
    script
}

#[expect(clippy::print_stdout, reason = "the seed and the histogram are for the reader of a run")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_loses_nothing_and_repeats_nothing_that_matters() {
    let rig = Rig::new().await;
    let folder = rig.db.folder.path().to_owned();
    config(&folder, &rig.sim.base_url());
    // A service account has at most 100 live tokens, and every daemon here takes one.
    rig.sim.with(|world| world.token_life = 20);
    let seed = rig.engine.clock.now().as_micros().unsigned_abs();
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut histogram: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let bad = round % 3 == 0;
        let old = rig.held();
        let new = format!("{round:08x}-bbbb-4bbb-8bbb-000000000000");
        let script = faults(&mut dice);
        rig.sim.with(|world| {
            world.keys.insert(new.clone(), if bad { KeyState::FailsOnNodes } else { KeyState::Enabled });
            let project = world.projects.get_mut(&group(1)).unwrap();
            (project.change_while_invalid, project.update_after_ms, project.update_takes_ms) =
                (true, 20, 150);
            project.changed = None;
        });
        let before = rig.sim.log().len();
        let id = {
            let proposed =
                rig.engine.propose("ada", &group(1).parse().unwrap(), &new, None, false).await.unwrap();
            let Proposed::Created(row) = proposed else { panic!("not new") };
            row.rotation.id
        };
        rig.engine.say("grace", id, Verb::Approve, None, None).await.unwrap();
        rig.sim.with(|world| world.faults = script);
        let wanted = match (round % 4, bad) {
            (0 | 1, true) => Some(State::RollingBack),
            (_, true) | (0, false) => Some(State::Verifying),
            (1 | 2, false) => Some(State::Applying),
            (_, false) => Some(State::Deploying),
        };
        forget_log_ins(&rig).await;
        let mut daemon = serve(&folder);
        reach(&rig, id, wanted, &folder).await;
        tokio::time::sleep(Duration::from_millis(dice.roll(40))).await;
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
        *histogram.entry(state(&rig, id).await.as_str()).or_default() += 1;
        let daemon = serve(&folder);
        let end = reach(&rig, id, None, &folder).await;
        drop(daemon);
        let held = rig.held();
        let project = rig.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(project.current_key.unwrap().to_string(), held, "round {round} ended {end}");
        assert_eq!(held, if bad { old.clone() } else { new.clone() }, "round {round} ended {end}");
        assert_eq!(end, if bad { State::RolledBack } else { State::Completed }, "round {round}");
        for entry in &rig.sim.log()[before..] {
            let known = entry.key.as_ref().is_none_or(|key| *key == old || *key == new);
            assert!(known, "round {round}: {:?} is neither old nor new", entry.key);
        }
    }
    println!("killed in: {histogram:?}");
    rig.engine.store.verify_audit().await.unwrap().unwrap();
    for (state, least) in WANTED {
        let times = histogram.get(state.as_str()).copied().unwrap_or(0);
        assert!(times >= least, "killed in {state} only {times} times: {histogram:?}");
    }
}
