//! `keywheel demo`: simulator, database and daemon in one process, and three rotations; an event starts
//! the last one. Atlas and the key services are simulated; everything else is real.
//!
//! Nothing is printed here: the caller shows each scene, and follows a rotation over the API as any user does.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::net::TcpListener;

use super::{DRAIN, Running, make_token, start};
use crate::config::{Config, Sources};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::role::Role;
use crate::domain::rotation::state::State;
use crate::domain::time::{Clock, SystemClock};
use crate::engine::Engine;
use crate::engine::command::{NewProject, OperatorVerb};
use crate::engine::propose::Proposed;
use crate::lifecycle::Shutdown;
use crate::net::client;
use crate::sim::world::{DEMO_APP, DEMO_TENANT, demo_key};
use crate::sim::{Sim, World};
use crate::store::RotationRow;
use crate::web::auth::new_token;

/// Key ages in days, for the projects in the order of the seed.
const AGES: [u64; 12] = [71, 12, 88, 64, 95, 3, 40, 20, 89, 55, 101, 7];

/// Waits of the interactive demo.
const SLOW: [(&str, &str); 14] = [
    ("verify.every", "1s"),
    ("verify.false_grace", "3s"),
    ("verify.timeout", "30s"),
    ("verify.guard", "45s"),
    ("verify.private_network_hold", "50s"),
    ("verify.deploy_poll", "1s"),
    ("verify.deploy_grace", "6s"),
    ("verify.deploy_timeout", "60s"),
    ("pace.backoff_min", "500ms"),
    ("pace.backoff_max", "3s"),
    ("pace.settle", "3s"),
    ("sweep.watch_every", "2s"),
    ("sweep.watch_for", "10s"),
    ("sweep.drift_every", "30s"),
];

/// Waits of `--fast`.
const FAST: [(&str, &str); 14] = [
    ("verify.every", "150ms"),
    ("verify.false_grace", "400ms"),
    ("verify.timeout", "10s"),
    ("verify.guard", "15s"),
    ("verify.private_network_hold", "20s"),
    ("verify.deploy_poll", "150ms"),
    ("verify.deploy_grace", "3s"),
    ("verify.deploy_timeout", "20s"),
    ("pace.backoff_min", "100ms"),
    ("pace.backoff_max", "1s"),
    ("pace.settle", "1s"),
    ("sweep.watch_every", "500ms"),
    ("sweep.watch_for", "1s"),
    ("sweep.drift_every", "30s"),
];

/// What the demo shows.
#[derive(Debug)]
pub enum Scene<'a> {
    /// A line of text.
    Line(&'a str),
    /// The server runs at this address and takes the token in this file.
    Server(&'a str, &'a Path),
    /// A rotation was proposed; it is shown to its end.
    Rotation(RotationId),
}

/// Runs the demo and gives each scene to `show`; with `fast` it ends by itself.
///
/// # Errors
/// Fails when a part cannot be started, a scene cannot be shown, or a rotation ends in another state than expected.
pub async fn demo(
    fast: bool,
    mut show: impl AsyncFnMut(Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::new();
    shutdown.listen()?;
    let folder = tempfile::Builder::new().prefix("keywheel-demo-").tempdir()?;
    let sim = Sim::start(TcpListener::bind("127.0.0.1:0").await?, World::demo(), Arc::new(SystemClock))?;
    let secret = new_token()?;
    let config = config(fast, folder.path(), &sim, &secret)?;
    let running = start(&config, None, &[], &shutdown).await?;
    let told = tokio::select! {
        told = tell(&running, &sim, folder.path(), &secret, &mut show) => told,
        () = shutdown.ending() => Ok(()),
    };
    if told.is_ok() && !shutdown.is_ending() {
        say(
            &mut show,
            "To go on: write keywheel.toml with a credential (README, \"Rotate a key\"; config/default.toml has every setting), check it with \
            `keywheel doctor`, start `keywheel serve`, and track a project with `keywheel project add`. To rehearse: docs/rehearse.md.",
        )
        .await?;
    }
    if told.is_ok() && !fast {
        say(&mut show, "The server runs until Ctrl-C.").await?;
        shutdown.ending().await;
    }
    shutdown.begin();
    let code = shutdown.finish(DRAIN).await;
    running.engine.store.close().await;
    sim.shutdown().await;
    told.map(|()| code)
}

fn config(fast: bool, folder: &Path, sim: &Sim, secret: &str) -> anyhow::Result<Config> {
    let paces = if fast { FAST } else { SLOW };
    // The pages need to know their own address, with a name: links and passkeys hold it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut overrides: Vec<(String, String)> =
        paces.into_iter().map(|(path, value)| (path.to_owned(), value.to_owned())).collect();
    let own = [
        ("data_dir", folder.display().to_string()),
        ("server.listen", format!("127.0.0.1:{port}")),
        ("server.public_url", format!("http://localhost:{port}")),
        ("atlas.base_url", sim.base_url()),
        ("atlas.request_timeout", "5s".to_owned()),
        ("atlas.credentials.default.kind", "service-account".to_owned()),
        ("atlas.credentials.default.client_id", "mdb_sa_id_demo".to_owned()),
        ("atlas.credentials.default.client_secret", "mdb_sa_sk_demo".to_owned()),
        ("kms.vaults.kind", "azure".to_owned()),
        ("kms.vaults.endpoint", format!("{}/kms/azure", sim.base_url())),
        ("kms.vaults.authority", format!("{}/kms/entra", sim.base_url())),
        ("kms.vaults.tenant_id", DEMO_TENANT.to_owned()),
        ("kms.vaults.client_id", DEMO_APP.to_owned()),
        ("kms.vaults.client_secret", "keywheel-demo-azure".to_owned()),
    ];
    overrides.extend(own.map(|(path, value)| (path.to_owned(), value)));
    let file = folder.join("keywheel.toml");
    let hook = format!("[[hooks]]\nname = \"vaults\"\nkind = \"azure-event-grid\"\ntoken = \"{secret}\"\n");
    private(&file, &hook)?;
    let loaded = Config::load(&Sources { file: Some(file), overrides, ..Sources::default() })?;
    Ok(Config { settle_in: None, ..loaded.config })
}

/// Writes a new file for this user only.
fn private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    new.write_all(text.as_bytes())
}

async fn tell(
    running: &Running,
    sim: &Sim,
    folder: &Path,
    secret: &str,
    show: &mut impl AsyncFnMut(Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let engine = &running.engine;
    // The second version is added by `event`.
    sim.with(|world| world.keys.remove(&demo_key("AZURE", "identity-prod", 5, 2)));
    let groups = seed(engine, sim).await?;
    // The people of the demo: who proposes, and who approves.
    make_token(engine, "ada", &[Role::Operator], None).await?;
    make_token(engine, "grace", &[Role::Approver], None).await?;
    let token = make_token(engine, "you", &[Role::Operator, Role::Viewer, Role::Auditor], None).await?;
    let token_file = folder.join("token");
    private(&token_file, &token)?;
    let server = engine.settings.public_url.clone();
    let key = demo_key("AWS", "payments-staging", 2, 2);
    say(
        show,
        "Keywheel demo. Atlas and the key services are simulated; database, HTTP and rotations are real.",
    )
    .await?;
    say(show, &format!("  token   {token}")).await?;
    say(show, "To try in another terminal:").await?;
    say(show, &format!("  export KEYWHEEL_SERVER={server}")).await?;
    say(show, &format!("  export KEYWHEEL_TOKEN_FILE={}", token_file.display())).await?;
    say(show, "  keywheel status").await?;
    say(show, "  keywheel why ledger-prod").await?;
    say(show, &format!("  keywheel rotate payments-staging --watch \\\n    --to {key}")).await?;
    say(show, "").await?;
    show(Scene::Server(&server, &token_file)).await?;
    say(show, "1. payments-prod moves to a good key.").await?;
    rotate(engine, &groups[0], &demo_key("AWS", "payments-prod", 1, 2), State::Completed, show).await?;
    say(show, "").await?;
    say(
        show,
        "2. search-prod moves to a key that Atlas accepts and its nodes cannot use; Keywheel rolls back. \
        (This simulated Atlas lets a bad key be replaced. The documented one may refuse; then an operator is alerted.)",
    )
    .await?;
    rotate(engine, &groups[3], &demo_key("AWS", "search-prod", 4, 2), State::RolledBack, show).await?;
    say(show, "").await?;
    say(
        show,
        "3. A new version of identity-prod's key appears in the vault. Event Grid notifies Keywheel, which looks it \
        up in the vault and proposes it; an approver approves.",
    )
    .await?;
    let hook = format!("http://{}/hooks/vaults?code={secret}", running.address);
    event(engine, sim, &hook, &groups[4], show).await?;
    say(show, "").await?;
    let audit = engine.store.verify_audit().await?;
    match audit.intact() {
        Ok(audit) => {
            say(show, &format!("The audit log has {} rows and its chain is intact.", audit.rows)).await
        }
        Err(broken) => bail!("audit row {} is broken: {}", broken.seq, broken.why),
    }
}

async fn seed(engine: &Engine, sim: &Sim) -> anyhow::Result<Vec<GroupId>> {
    let projects: Vec<(String, String)> =
        sim.with(|world| world.projects.iter().map(|(id, it)| (id.clone(), it.name.clone())).collect());
    let now = SystemClock.now();
    let mut groups = Vec::new();
    for ((id, name), age) in projects.into_iter().zip(AGES) {
        let team = name.split('-').next().unwrap_or_default();
        // One project has no owner: real fleets have such projects too.
        let owners = if name == "catalog-prod" { vec![] } else { vec![format!("{team}-owners@example.com")] };
        let new = NewProject {
            group_id: id,
            owners,
            environment: name.rsplit('-').next().map(str::to_owned),
            kms: (name == "identity-prod").then(|| "vaults".to_owned()),
            key_since: Some(now - Duration::from_secs(age * 86_400)),
            ..NewProject::default()
        };
        groups.push(engine.add_project("demo", new).await?.group_id);
    }
    Ok(groups)
}

/// Proposes a rotation and follows it.
async fn rotate(
    engine: &Engine,
    group: &GroupId,
    key: &str,
    wanted: State,
    show: &mut impl AsyncFnMut(Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let reason = Some("quarterly rotation".to_owned());
    let Proposed::Created(row) = engine.propose("ada", group, key.parse()?, reason, false).await? else {
        bail!("the demo's proposal was not new");
    };
    follow(engine, row, wanted, show).await
}

/// Adds a key version to the simulated vault and follows the rotation that the event starts.
async fn event(
    engine: &Engine,
    sim: &Sim,
    hook: &str,
    group: &GroupId,
    show: &mut impl AsyncFnMut(Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut news = engine.journal.subscribe();
    let base = sim.base_url().parse()?;
    let http = client::build(client::builder(Some(&base), Duration::from_secs(10)))?;
    let subscription = json!({ "kind": "azure-event-grid", "url": hook });
    let key = json!({ "id": demo_key("AZURE", "identity-prod", 5, 2), "state": "enabled" });
    for (path, body) in [("subscriptions", subscription), ("keys", key)] {
        let url = format!("{}/sim/v1/{path}", sim.base_url());
        http.post(url).json(&body).send().await?.error_for_status()?;
    }
    let proposed = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(row) = engine.store.rotations(None, Some(group), None, 1).await?.pop() {
                return anyhow::Ok(row);
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), news.recv()).await;
        }
    });
    let row = proposed.await.context("the demo's event led to no proposal")??;
    follow(engine, row, State::Completed, show).await
}

/// Shows a rotation to its end, while another user than the proposer approves it.
async fn follow(
    engine: &Engine,
    row: RotationRow,
    wanted: State,
    show: &mut impl AsyncFnMut(Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let id = row.rotation.id;
    let approve = async {
        let comment = Some("looks right".to_owned());
        let hash = Some(row.proposal_hash.as_str());
        anyhow::Ok(engine.say("grace", id, OperatorVerb::Approve, comment, hash).await?)
    };
    let shown = async { tokio::try_join!(show(Scene::Rotation(id)), approve) };
    tokio::time::timeout(Duration::from_secs(180), shown)
        .await
        .context("the demo's rotation took too long")??;
    let row = engine.rotation(id).await?;
    if row.rotation.state != wanted {
        bail!("the rotation ended {} instead of {wanted}", row.rotation.state);
    }
    Ok(())
}

async fn say(show: &mut impl AsyncFnMut(Scene<'_>) -> anyhow::Result<()>, line: &str) -> anyhow::Result<()> {
    show(Scene::Line(line)).await
}
