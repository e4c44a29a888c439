//! The archive: crawls and watches every known Nostr relay and keeps what it saw.

pub mod seeds;
