//! Stand-ins for the composition root, so that the command line can be built against its
//! signatures. Each says honestly that the part is missing; nothing here pretends to work.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

fn missing<T>(what: &str) -> anyhow::Result<T> {
    Err(anyhow::anyhow!("{what} is not part of this build yet"))
}

/// Runs the daemon until it is told to end.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn serve(_config: Config, _warnings: Vec<String>) -> anyhow::Result<ExitCode> {
    missing("serve")
}

/// Runs the simulator and a daemon with seeded projects in one process.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn demo(_fast: bool) -> anyhow::Result<ExitCode> {
    missing("demo")
}

/// Brings the database to this version's schema; the text says what was done.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn migrate(_config: Config) -> anyhow::Result<String> {
    missing("migrate")
}

/// Makes a token and returns it; it is never shown again.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn token_create(_config: Config, _name: String, _roles: Vec<String>) -> anyhow::Result<String> {
    missing("token create")
}

/// The tokens, without their secrets.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn token_list(_config: Config) -> anyhow::Result<serde_json::Value> {
    missing("token list")
}

/// Revokes a token; false when there is none of that name.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn token_revoke(_config: Config, _name: String) -> anyhow::Result<bool> {
    missing("token revoke")
}

/// Checks the audit log's hash chain: `Ok` text when intact, `Err` text naming the first broken row.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn audit_verify(_config: Config) -> anyhow::Result<Result<String, String>> {
    missing("audit verify")
}

/// Runs the Atlas simulator on its own.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn sim(_listen: SocketAddr, _seed: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    missing("sim")
}
