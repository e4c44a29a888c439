//! `PUT /media` (BUD-05): images from which metadata is removed before they are stored, here or by an upstream. The client has no say
//! in it.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use http_body::Body as _;
use tokio::sync::OwnedSemaphorePermit;

use super::super::BlossomState;
use super::super::refusal::Refused;
use super::begin::{Upload, check_size, hash_mismatch, whole_body};
use super::outcome::{Counted, NotStored, Stored};
use crate::base::Sha256;
use crate::http::Failure;
use crate::services::blossom::decide::authorization::{TokenError, Verb};
use crate::services::blossom::decide::media::{NotStripped, Stripped, strip};
use crate::services::blossom::metrics::Way;
use crate::store;

/// Largest image, bytes: it is in memory as a whole.
const IMAGE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// `PUT /media`.
pub(in super::super) async fn put_media(
    State(state): State<BlossomState>,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let (base, size) = (state.base(&head.headers), body.size_hint().exact());
    let counted = Counted::begin(&state, Way::Media);
    let mut original = None;
    let storing = async {
        let mut upload = state.begin(&head, size, Verb::Media).await?;
        let processor = state.processor(&upload);
        if processor.is_none() && !state.settings().strip_metadata {
            return state.receive(upload, whole_body(body, &state)).await;
        }
        let mut memory = None;
        let content = state.image(&mut upload, body, &mut memory).await?;
        original = Some(Sha256::of(&content).to_string());
        match processor {
            Some(processor) => state.delegate(upload, processor, content).await,
            None => state.store_image(upload, content).await,
        }
    };
    let ended = storing.await;
    counted.end(&ended);
    state.answer(&base, ended, original)
}

impl BlossomState {
    /// Receives an image into `memory`, and checks its hash.
    async fn image(
        &self,
        upload: &mut Upload,
        body: Body,
        memory: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Bytes, NotStored> {
        upload.bytes_max = upload.bytes_max.min(IMAGE_BYTES_MAX);
        check_size(upload.size.unwrap_or(0), upload.bytes_max)?;
        let mut pieces = whole_body(body, self);
        let mut content = Vec::new();
        while let Some(piece) = pieces.next().await.transpose()? {
            let bytes = content.len() + piece.len();
            check_size(u64::try_from(bytes).unwrap_or(u64::MAX), upload.bytes_max)?;
            if !self.limits().grow_image(memory, bytes) {
                return Err(Refused::busy("too_many").into());
            }
            content.extend_from_slice(&piece);
        }
        let hash = Sha256::of(&content);
        if let Some(claimed) = upload.claimed
            && claimed != hash
        {
            return Err(hash_mismatch(hash).into());
        }
        if upload.client.token().is_some_and(|token| !token.names(&hash)) {
            return Err(Refused::from(TokenError::OtherBlob).into());
        }
        Ok(content.into())
    }

    /// Removes the metadata of an image, and stores the result.
    async fn store_image(&self, mut upload: Upload, content: Bytes) -> Result<Stored, NotStored> {
        // A ban of the original holds for what becomes of it.
        self.known(&Sha256::of(&content)).await?;
        let stripping = tokio::task::spawn_blocking(move || strip(content));
        let stripped = stripping.await.map_err(|_| NotStored::from(store::Error::Stopped))?;
        let Stripped { content, media_type } = stripped.map_err(|error| {
            let status = match error {
                NotStripped::OtherFormat => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                NotStripped::Broken => StatusCode::UNPROCESSABLE_ENTITY,
            };
            NotStored::from(Refused::new(status, "bad_type", error.to_string()))
        })?;
        upload.claimed = None;
        upload.expected = Some(Sha256::of(&content));
        upload.size = u64::try_from(content.len()).ok();
        upload.stated_type = Some(media_type.to_owned());
        self.receive(upload, stream::iter([Ok(content)])).await
    }
}
