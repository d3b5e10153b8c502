//! Whose turn it is: one bundle at a time is made and fetched, because each takes room in the folder for temporary files.
//!
//! A download that rests keeps its room for [`FETCHED_WITHIN`]; who asks after that takes it away. It needs no timer: until
//! somebody asks nobody misses the room.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::domain::time::Timestamp;

/// How long a bundle may take to be made and fetched while others wait for it.
const FETCHED_WITHIN: Duration = Duration::from_mins(10);

/// Bytes that are read of the file at once.
const PART: usize = 64 * 1024;

/// Where the bundle is, once it is made.
type Place = tokio::sync::Mutex<Option<tokio::fs::File>>;

/// The turns of a daemon.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Option<(Timestamp, Weak<Place>)>>);

/// A turn. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Place>);

impl Turns {
    /// A turn that begins `now`.
    ///
    /// # Errors
    /// Since when another one lasts.
    pub(super) fn take(&self, now: Timestamp) -> Result<Turn, Timestamp> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, place)) = held.as_ref().and_then(|(since, it)| Some((*since, it.upgrade()?))) {
            if now.since(since) < FETCHED_WITHIN {
                return Err(since);
            }
            // Where it is read right now, it does not rest.
            if let Ok(mut file) = place.try_lock() {
                file.take();
            }
        }
        let turn = Turn(Arc::default());
        *held = Some((now, Arc::downgrade(&turn.0)));
        Ok(turn)
    }
}

impl Turn {
    pub(super) async fn hold(self, file: File) -> Self {
        *self.0.lock().await = Some(tokio::fs::File::from_std(file));
        self
    }

    /// The next bytes of the bundle; empty at its end.
    ///
    /// # Errors
    /// Fails when the file cannot be read, or when it was taken away because it took too long.
    pub async fn read(&self) -> io::Result<Vec<u8>> {
        let mut held = self.0.lock().await;
        let Some(file) = held.as_mut() else {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the bundle was not fetched in time"));
        };
        let mut part = vec![0; PART];
        let read = file.read(&mut part).await?;
        part.truncate(read);
        Ok(part)
    }
}
