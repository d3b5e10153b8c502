//! Follows one rotation through its event stream.
//!
//! The stream replays the journal and then goes on live; every entry has a sequence number, so a dropped
//! connection is resumed where it broke and nothing is shown twice. An entry alone never ends the watch:
//! an old `needs_operator` in the replay may be long resolved, so the rotation itself is read. On a
//! terminal the rotation is a tree that rewrites itself every second, and is read again every two: equal
//! readings in a row are one entry of the journal, so no event tells of the later ones. Elsewhere there is one
//! plain line per entry, with what is waited for after each change of the state, and with `-o json` one JSON
//! object per line.

use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::failure::{Exit, Failure};
use super::printer::{Printer, cell};
use super::tree::{Depth, tree, waits};
use crate::api::rotation::{JournalEntry, Rotation};
use crate::domain::ids::RotationId;
use crate::domain::rotation::state::State;

/// How long a stream may be silent before it counts as dropped.
const SILENCE: Duration = Duration::from_mins(1);
/// How often a tree counts down.
const TICK: Duration = Duration::from_secs(1);
/// Attempts to reconnect: five minutes in all.
const RETRIES: u32 = 60;
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// The largest event that is read, in bytes.
const LARGEST_EVENT: usize = 1 << 20;

/// Follows `id` until it ends or needs an operator; returns the exit code of its state.
pub(super) async fn follow(
    id: RotationId,
    depth: Depth,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let mut watch = Watch { id, depth, client, printer, last: None, shown: None, failures: 0 };
    loop {
        match watch.once().await {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => {}
            // A first connection that fails is not retried: the address or the token is probably wrong.
            Err(failure) if may_pass(&failure) && watch.may_come_back() => {
                if watch.failures == 0 {
                    watch.printer.note(&format!("{failure}; trying again"));
                }
                watch.failures += 1;
                #[expect(clippy::disallowed_methods, reason = "a command ends with its process")]
                tokio::time::sleep(RETRY_EVERY).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether a failure may come from a restart of the server.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } => true,
        Failure::Problem(problem) => problem.status >= 500 || problem.status == 429,
        _ => false,
    }
}

struct Watch<'a> {
    id: RotationId,
    depth: Depth,
    client: &'a Client,
    printer: &'a mut Printer,
    /// The last entry shown.
    last: Option<String>,
    /// What the tree shows.
    shown: Option<(Rotation, Vec<JournalEntry>)>,
    failures: u32,
}

impl Watch<'_> {
    fn may_come_back(&self) -> bool {
        self.last.is_some() && self.failures < RETRIES
    }

    /// One connection, from the last entry shown to the drop or the end.
    async fn once(&mut self) -> Result<Option<Exit>, Failure> {
        let path = format!("/rotations/{}/stream", self.id);
        let mut stream = self.client.stream(&path, self.last.as_deref()).await?;
        self.failures = 0;
        let mut events = Events::default();
        let mut ended = false;
        let wait = if self.printer.is_live() { TICK } else { SILENCE };
        let mut silent = Duration::ZERO;
        loop {
            match tokio::time::timeout(wait, stream.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    silent = Duration::ZERO;
                    for event in events.push(&chunk) {
                        ended |= self.show(&event).await?;
                    }
                    self.draw(true).await?;
                }
                Ok(_) => break,
                Err(_) => {
                    silent += wait;
                    if silent >= SILENCE {
                        break;
                    }
                    self.draw(silent.as_secs().is_multiple_of(2)).await?;
                }
            }
            if std::mem::take(&mut ended)
                && let Some(exit) = self.ended().await?
            {
                return Ok(Some(exit));
            }
        }
        let over = self.ended().await?;
        if over.is_none() {
            // A server that closes every stream at once must not be called in a tight loop.
            #[expect(clippy::disallowed_methods, reason = "a command ends with its process")]
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(over)
    }

    /// Shows one entry; true when it may be the last.
    async fn show(&mut self, event: &Event) -> Result<bool, Failure> {
        let entry: JournalEntry = self.client.event(&event.data)?;
        let seq = entry.seq.to_string();
        if self.last.as_ref() == Some(&seq) {
            return Ok(false);
        }
        self.last = Some(seq);
        let to = entry.to_state;
        if self.printer.is_json() {
            self.printer.line(&event.data)?;
        } else if !self.printer.is_live() {
            self.printer.line(&plain(&entry))?;
            if entry.from_state != Some(to) {
                self.tell_waits(to).await?;
            }
        }
        Ok(stops(to))
    }

    async fn rotation(&self) -> Result<Rotation, Failure> {
        self.client.get(&format!("/rotations/{}", self.id), &[]).await?.read()
    }

    /// Below a plain line: what the state waits for. An entry of the past has nothing to wait for.
    async fn tell_waits(&mut self, state: State) -> Result<(), Failure> {
        let rotation = self.rotation().await?;
        if rotation.state == state {
            for line in waits(&rotation, self.printer.now()) {
                self.printer.line(&format!("    {line}"))?;
            }
        }
        Ok(())
    }

    /// Draws the tree anew, after it was read anew.
    async fn draw(&mut self, read: bool) -> Result<(), Failure> {
        if !self.printer.is_live() {
            return Ok(());
        }
        if read {
            let rotation = self.rotation().await?;
            let journal = match self.shown.take() {
                Some((shown, journal)) if shown.version == rotation.version => journal,
                _ => {
                    self.client.items(&format!("/rotations/{}/journal", self.id), &[], None).await?.read()?
                }
            };
            self.shown = Some((rotation, journal));
        }
        if let Some((rotation, journal)) = &self.shown {
            let lines = tree(rotation, journal, self.depth, self.printer.now(), &self.printer.screen());
            self.printer.frame(&lines)?;
        }
        Ok(())
    }

    /// Reads the rotation; returns its exit code when it ended or needs an operator.
    async fn ended(&mut self) -> Result<Option<Exit>, Failure> {
        let rotation = self.rotation().await?;
        let state = rotation.state;
        if !stops(state) {
            return Ok(None);
        }
        self.draw(true).await?;
        if let Some((rotation, journal)) = self.shown.take() {
            // The last tree stays, however high it is.
            let lines = tree(&rotation, &journal, self.depth, self.printer.now(), &self.printer.screen());
            self.printer.lines(&lines)?;
        }
        let cause = rotation.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        self.printer.note(&format!("rotation {} is {state}{cause}", self.id));
        if state == State::NeedsOperator {
            self.printer.note(&format!(
                "hint: `keywheel rotation show {id}` shows the observations; then resume, rollback, accept or close",
                id = self.id
            ));
        }
        Ok(Some(exit(state)))
    }
}

/// Whether a watch ends in this state: it is final, or needs an operator.
fn stops(state: State) -> bool {
    state.is_final() || state == State::NeedsOperator
}

fn exit(state: State) -> Exit {
    match state {
        State::Completed | State::Accepted => Exit::Done,
        State::Rejected | State::Cancelled | State::Expired | State::Superseded => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn plain(entry: &JournalEntry) -> String {
    let to = entry.to_state;
    let states = match entry.from_state {
        Some(from) if from != to => format!("{from} -> {to}"),
        _ => to.to_string(),
    };
    format!("{}  {states}  {}", cell(&json!(entry.at)), brief(entry)).trim_end().to_owned()
}

fn brief(entry: &JournalEntry) -> String {
    let parts = [json!(entry.kind), json!(entry.actor), entry.detail.clone()];
    parts.iter().filter(|value| !value.is_null()).map(cell).collect::<Vec<_>>().join("  ")
}

/// One server-sent event.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    data: String,
}

/// Assembles chunks into events; comments and unknown fields are skipped.
#[derive(Default)]
struct Events {
    pending: Vec<u8>,
    id: Option<String>,
    data: Vec<String>,
}

impl Events {
    fn push(&mut self, chunk: &[u8]) -> Vec<Event> {
        self.pending.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\r', '\n']), &mut events);
        }
        if self.pending.len() > LARGEST_EVENT {
            self.pending.clear();
        }
        events
    }

    fn line(&mut self, line: &str, events: &mut Vec<Event>) {
        if line.is_empty() {
            if !self.data.is_empty() {
                let data = std::mem::take(&mut self.data).join("\n");
                events.push(Event { id: self.id.take(), data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data.push(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_chunks() {
        let text = ": hello\nid: 7\nevent: entry\ndata: {\"a\":\ndata: 1}\r\n\r\nretry: 5\n\ndata: x\n\n";
        for size in [1, 2, 7, text.len()] {
            let mut events = Events::default();
            let all: Vec<Event> = text.as_bytes().chunks(size).flat_map(|chunk| events.push(chunk)).collect();
            assert_eq!(
                all,
                [
                    Event { id: Some("7".to_owned()), data: "{\"a\":\n1}".to_owned() },
                    Event { id: None, data: "x".to_owned() }
                ]
            );
        }
    }

    #[test]
    fn every_end_has_its_exit_code() {
        let done: Vec<State> =
            State::ALL.iter().copied().filter(|state| exit(*state) == Exit::Done).collect();
        assert_eq!(done, [State::Completed, State::Accepted]);
        assert_eq!(exit(State::NeedsOperator), Exit::Failed);
        assert_eq!(exit(State::RolledBack), Exit::Failed);
        assert_eq!(exit(State::Superseded), Exit::Refused);
        assert!(stops(State::NeedsOperator) && !stops(State::Deploying));
    }
}
