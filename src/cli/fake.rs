//! Shared by the command line's tests: captured streams and a small server with scripted responses.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};

use super::client::Client;
use super::printer::{Format, Printer};
use super::screen::Screen;
use crate::domain::policy::Policy;
use crate::domain::time::ManualClock;

/// The time at which everything in a sample happened.
pub(super) const AT: &str = "2026-01-02T03:04:05.000000Z";

/// The time at which a printer prints.
pub(super) const NOW: &str = "2026-01-02T03:10:00Z";

/// A project as a server returns it.
pub(super) fn project(group_id: &str, name: &str) -> Value {
    let policy = Policy::default();
    json!({
        "groupId": group_id, "name": name, "provider": null, "currentKey": null, "keySince": null,
        "keySinceSource": null, "valid": null, "due": null, "status": "ok", "owners": [], "environment": null,
        "credential": "default", "kms": null, "alias": null, "policy": policy, "lastCheckedAt": null,
        "lastError": null, "openRotation": null,
    })
}

/// A rotation from the key `o` to the key `n` of the project `p` as a server returns it.
pub(super) fn rotation(id: &str, group_id: &str, state: &str) -> Value {
    json!({
        "id": id, "groupId": group_id, "projectName": "p", "provider": "AWS", "oldKey": "o", "newKey": "n",
        "newKeyTail": "n", "state": state, "cause": null, "trigger": "operator", "reason": null,
        "requestedBy": "ada", "proposalHash": "h", "approvals": { "required": 1, "given": [] },
        "lastObservation": null, "hold": null, "checks": [], "attempts": 0, "createdAt": AT,
        "approvedAt": null, "patchedAt": null, "validAt": null, "deployedAt": null, "finishedAt": null,
        "expiresAt": AT, "guardDeadline": null, "deployed": null, "clusters": [], "atlasErrorCode": null,
        "atlasDetail": null, "atlasEvent": null, "atlasEventId": null, "atlasEventAt": null,
        "atlasEventBy": null, "overwrote": [], "version": 1,
    })
}

/// Bytes that a printer wrote.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A printer with its standard output and standard error, on a terminal of 80 columns or in a pipe.
pub(super) fn printer(format: Format, terminal: bool) -> (Printer, Shared, Shared) {
    let (width, height) = (terminal.then_some(80), terminal.then_some(24));
    printer_on(format, Screen { width, height, ..Screen::default() })
}

/// The same on any screen.
pub(super) fn printer_on(format: Format, screen: Screen) -> (Printer, Shared, Shared) {
    let (out, err) = (Shared::default(), Shared::default());
    let clock = Box::new(ManualClock::new(NOW.parse().unwrap()));
    let (to_out, to_err) = (Box::new(out.clone()), Box::new(err.clone()));
    let to = Printer::new(to_out, to_err, format, Box::new(move || screen), screen, clock);
    (to, out, err)
}

/// A server on a local socket; the directory must outlive the test.
pub(super) fn on_socket(router: Router) -> (Client, tempfile::TempDir) {
    install_provider();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.sock");
    let listener = UnixListener::bind(&path).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a server of a test")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (Client::over_socket(&path).unwrap(), dir)
}

/// A server on TCP; gives its address.
pub(super) async fn on_tcp(router: Router) -> String {
    install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a server of a test")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// As `main` does. A second test in the same process fails to install it, which is harmless.
pub(super) fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
