//! The archive: crawls every known Nostr relay and stores its events.
//!
//! Journals: `relay_log`, `sync_log`, `relay_metadata` (with `nip11`, `nip66`); and those that
//! `store/ingest/` writes: `ingest_log`, `events`, `sightings`, `vanish_requests`.
//!
//! Projections: `relays`, `candidates`, `relay_progress`, `deletions`, `expirations` (updated in the same
//! commit); `kind_totals`, `relay_totals`, `minute_totals` (updated at ticks).
//!
//! Working tables: `relay_visits` (wishes of the operator, newest sessions), `candidate_tries`,
//! `list_fetches`, `reading` (how far the finder has read), `event_offers` (events that SQL programs hand
//! over, until they are verified).
//!
//! Invariants: `sync_log` alone decides what is complete. A window is recorded after its events are
//! committed. Windows end at the present, so an event dated 2100 affects no other event.
//!
//! Limits: `services.synchronizer`, `services.finder`, `services.validator`, `services.monitor` in the
//! configuration.

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
