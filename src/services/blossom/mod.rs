//! Blobs under their SHA-256: one endpoint in front of many servers, and the state of each copy.

pub mod command;
pub mod event;
