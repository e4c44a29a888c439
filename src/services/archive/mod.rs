//! The archive: crawls every known Nostr relay and keeps what it saw.
//!
//! Journals: `relay_log`, `sync_log`, `relay_metadata` (with `nip11`, `nip66`), and with the store `ingest_log`, `events`, `sightings`.
//! Projections: `relays`, `candidates`, `relay_progress` (same commit); `kind_totals`, `relay_totals`, `minute_totals` (ticks).
//! Working: `event_offers`, events that SQL programs hand over, until they are verified.
//! Invariants: what is complete is decided by `sync_log` alone; a window is recorded after its events are committed; one
//! event dated 2100 freezes nothing, because windows end at the present.
//! Limits: `services.synchronizer`, `services.finder`, `services.validator`, `services.monitor` in the configuration.

mod append;
pub mod command;
pub mod decide;
pub mod event;
pub mod metrics;
pub mod project;
pub mod react;
pub mod read;
pub mod seeds;
mod service;

pub use append::visits::ask;
pub use append::{Finding, MetadataJournal, RelayAnswer, RelayJournal, SyncJournal, WindowAnswer};
pub use service::ROOM;
