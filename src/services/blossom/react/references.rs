//! Searches the archived events of followed keys for blobs: all that there are when a key is followed, then what the
//! archive's journal adds.
//!
//! Invariants: an event that is stored after a key was followed, or that was there then, is searched. A step is marked
//! as done after what it found is committed, so a crash repeats at most one step. One process reads at a time, by
//! lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::ReactParts;
use crate::lifecycle::{CycleOutcome, Service, guarded_call, set_aside};
use crate::services::blossom::append::{cursors_at, move_cursor, read_cursor};
use crate::services::blossom::command::{BlobCommand, WantedBlob};
use crate::services::blossom::decide::references::{Reference, references_of};
use crate::services::blossom::read::{self, EventPlace, ReferringEvent};
use crate::store::Error;
use crate::store::lease::LoopLease;
use crate::store::reading::{Reader, months_of};

/// Most keys that are followed.
const KEYS_MAX: i64 = 100_000;

/// Most events in one step, unless a single batch has more.
const STEP_EVENTS_MAX: i64 = 20_000;

/// Most references in one command.
const WANTED_MAX: usize = 256;

/// Least time between two steps, however many hints arrive.
const PAUSE: Duration = Duration::from_millis(500);

/// What the name of the cursor of a key begins with; its hexadecimal digits follow.
const CURSOR: &str = "followed ";

/// The value of the cursor of a key whose events have been searched.
const SEARCHED: &str = "done";

/// The loop that searches events.
#[derive(Debug)]
pub struct References {
    parts: Arc<ReactParts>,
    lease: LoopLease,
    reader: Reader,
    /// Keys whose older events have been searched; `None` before they were read from the cursors.
    searched: Mutex<Option<BTreeSet<[u8; 32]>>>,
}

impl References {
    /// A loop that continues where the last one stopped.
    #[must_use]
    pub fn new(parts: Arc<ReactParts>) -> Self {
        let lease = LoopLease::new(parts.leases.clone(), "blossom/references");
        let reader = Reader::new(parts.pools.write.clone(), "blossom");
        Self { parts, lease, reader, searched: Mutex::default() }
    }

    /// One step. Returns whether there may be more.
    async fn step(&self, drain: &CancellationToken) -> Result<bool, Error> {
        let keys = followed(&self.parts).await?;
        if keys.is_empty() && self.searched.lock().await.as_ref().is_none_or(BTreeSet::is_empty) {
            return Ok(false);
        }
        if !self.reader.has_begun().await? {
            // What is stored by now is found below, key by key.
            self.reader.begin_at_newest().await?;
        }
        self.search_new(&keys, drain).await?;
        let Some(step) = self.reader.next(STEP_EVENTS_MAX).await? else { return Ok(false) };
        for month in months_of(&step.batches) {
            let mut after = None;
            while !drain.is_cancelled() {
                let page = read::events_of_batches(&self.parts.pools, &keys, &month, after).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.place());
                self.record(&page).await?;
            }
        }
        // Drained in the middle of a step, it is repeated later: what was recorded is kept.
        if drain.is_cancelled() {
            return Ok(false);
        }
        self.reader.done(&step).await?;
        Ok(true)
    }

    /// Searches the events of keys that are followed since the last step.
    async fn search_new(&self, keys: &BTreeSet<[u8; 32]>, drain: &CancellationToken) -> Result<(), Error> {
        let pools = &self.parts.pools;
        let mut searched = self.searched.lock().await;
        if searched.is_none() {
            let names = cursors_at(pools, CURSOR, SEARCHED).await?;
            *searched = Some(names.iter().filter_map(|name| key_of(name.strip_prefix(CURSOR)?)).collect());
        }
        let searched = searched.get_or_insert_default();
        // A key that is followed again has missed events meanwhile.
        let gone: Vec<_> = searched.difference(keys).copied().collect();
        for key in gone {
            move_cursor(pools, &cursor_of(&key), None).await?;
            searched.remove(&key);
        }
        for key in keys {
            if drain.is_cancelled() {
                return Ok(());
            }
            if !searched.contains(key) && self.search_author(key, drain).await? {
                searched.insert(*key);
            }
        }
        Ok(())
    }

    /// Searches all events of a key that are stored. Returns whether it came to their end.
    async fn search_author(&self, key: &[u8; 32], drain: &CancellationToken) -> Result<bool, Error> {
        let (pools, cursor) = (&self.parts.pools, cursor_of(key));
        let mut after = read_cursor(pools, &cursor).await?.as_deref().and_then(place);
        while !drain.is_cancelled() {
            let page = read::events_of_author(pools, key, after).await?;
            let Some(last) = page.last() else {
                move_cursor(pools, &cursor, Some(SEARCHED)).await?;
                return Ok(true);
            };
            let (created_at, id) = last.place();
            self.record(&page).await?;
            move_cursor(pools, &cursor, Some(&format!("{created_at} {}", hex::encode(id)))).await?;
            after = Some((created_at, id));
        }
        Ok(false)
    }

    async fn record(&self, events: &[ReferringEvent]) -> Result<(), Error> {
        let wanted: Vec<WantedBlob> = events
            .iter()
            .flat_map(|event| {
                let wanted = |found: Reference| WantedBlob {
                    sha256: found.sha256,
                    owner: event.author,
                    event_id: event.id,
                    url: found.url.map(String::from),
                };
                found_in(event).into_iter().map(wanted)
            })
            .collect();
        for wanted in wanted.chunks(WANTED_MAX) {
            self.parts.journal.append(BlobCommand::Want(wanted.to_vec())).await?;
        }
        Ok(())
    }
}

/// The keys that are followed now: by command, by the settings, and those of uploaders if the settings say so.
pub(super) async fn followed(parts: &ReactParts) -> Result<BTreeSet<[u8; 32]>, Error> {
    let mut keys = read::followed_keys(&parts.pools, KEYS_MAX).await?;
    keys.extend(parts.settings.followed_keys());
    if parts.settings.follow_uploaders {
        keys.extend(read::uploaders(&parts.pools, KEYS_MAX).await?);
    }
    Ok(keys)
}

/// The blobs that an event refers to. An event whose tags are not lists of texts (inserted by SQL), or whose parsing
/// panics, refers to none; neither may stop the events after it.
fn found_in(event: &ReferringEvent) -> Vec<Reference> {
    let id = hex::encode(event.id);
    let read = guarded_call("blob_reference", &id, || {
        let tags: Vec<Vec<String>> = serde_json::from_str(&event.tags).map_err(|error| error.to_string())?;
        Ok::<_, String>(references_of(event.kind, &tags, &event.content))
    });
    match read.map_err(|panicked| panicked.to_string()).and_then(std::convert::identity) {
        Ok(found) => found,
        Err(reason) => {
            set_aside("blob_reference", &id, None, &reason);
            Vec::new()
        }
    }
}

fn cursor_of(key: &[u8; 32]) -> String {
    format!("{CURSOR}{}", hex::encode(key))
}

/// 32 bytes in hexadecimal digits.
fn key_of(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// The place in the text of a cursor.
fn place(text: &str) -> Option<EventPlace> {
    let (created_at, id) = text.split_once(' ')?;
    Some((created_at.parse().ok()?, key_of(id)?))
}

impl Service for References {
    type Error = Error;

    fn name(&self) -> &'static str {
        "blossom references"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if self.lease.hold(self.step(drain)).await?.transpose()? == Some(true) {
            return Ok(CycleOutcome::More);
        }
        drain.run_until_cancelled(sleep(PAUSE)).await;
        Ok(CycleOutcome::Idle)
    }
}
