//! Uploads: one body, hashed as it arrives, sent to all upstreams at once.
//!
//! **Invariant:** the last block of a body is held back until the hash and the length are known to be right. Until then every upstream
//! has an incomplete request, which is broken off if the client breaks off, sends too little or sends other bytes. So no
//! upstream ever has a complete body that was not checked here.

mod fan_out;
mod media;
mod mirror;
mod preflight;
mod receive;
mod settle;

pub(super) use media::put_media;
pub(super) use mirror::mirror;
pub(super) use preflight::{preflight, preflight_media};
pub(super) use receive::put;
