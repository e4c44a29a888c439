//! Uploads: one body, hashed as it arrives, sent to all upstreams at once.
//!
//! **Invariant:** the newest part of a body is held back until the hash and the length are known to be right. Until then every
//! upstream has an incomplete request, which is broken off if the client breaks off, sends too little or sends other bytes. So no
//! upstream ever has a complete body that was not checked here.

mod begin;
mod delegate;
mod fan_out;
mod media;
mod mirror;
mod outcome;
mod plan;
mod preflight;
mod receive;
mod settle;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use http_body::Body as _;

use super::BlossomState;
use crate::http::Failure;
use crate::services::blossom::decide::authorization::Verb;
use crate::services::blossom::metrics::Way;

pub(super) use media::put_media;
pub(super) use mirror::mirror;
pub(super) use preflight::{preflight, preflight_media};

use begin::whole_body;
use outcome::{Counted, NotStored, Stored};

/// `PUT /upload` (BUD-02).
pub(super) async fn put(State(state): State<BlossomState>, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let (base, size) = (state.base(&head.headers), body.size_hint().exact());
    let counted = Counted::begin(&state, Way::Upload);
    let storing = async {
        let upload = state.begin(&head, size, Verb::Upload).await?;
        state.receive(upload, whole_body(body, &state)).await
    };
    let ended = storing.await;
    counted.end(&ended);
    state.answer(&base, ended, None)
}

impl BlossomState {
    /// The answer to a request that stores a blob. `original` is the hash of what a client sent that was changed here.
    fn answer(
        &self,
        base: &str,
        ended: Result<Stored, NotStored>,
        original: Option<String>,
    ) -> Result<Response, Failure> {
        let stored = ended.map_err(|not_stored| self.refuse(not_stored.refused))?;
        let url = self.chosen_url(&stored.facts, &stored.holders);
        let mut descriptor = self.descriptor(base, &stored.facts, stored.uploaded, url, &stored.holders);
        descriptor.nip94.extend(original.map(|hash| ["ox".to_owned(), hash]));
        let is_created = stored.is_new && !self.settings().compat_always_200;
        let status = if is_created { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(descriptor)).into_response())
    }
}
