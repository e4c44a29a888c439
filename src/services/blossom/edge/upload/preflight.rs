//! `HEAD /upload` and `HEAD /media` (BUD-06): whether an upload would be accepted.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use futures_util::future::join_all;

use super::super::BlossomState;
use super::super::access::Need;
use super::super::refusal::Refused;
use super::begin::{check_size, claimed, stated_type};
use super::outcome::NotStored;
use crate::base::Sha256;
use crate::http::Failure;
use crate::services::blossom::decide::authorization::{About, Credential, Token, Verb};
use crate::services::blossom::decide::media::is_accepted;
use crate::services::blossom::decide::quorum::{Quorum, quorum, status_without_quorum};
use crate::services::blossom::upstream::{Announced, Upstream};

const X_CONTENT_LENGTH: HeaderName = HeaderName::from_static("x-content-length");
const X_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-content-type");

/// `HEAD /upload`.
pub(in super::super) async fn preflight(
    State(state): State<BlossomState>,
    request: Request,
) -> Result<StatusCode, Failure> {
    let checked = state.preflight(&request.into_parts().0, Verb::Upload).await;
    checked.map(|()| StatusCode::OK).map_err(|not_stored| state.refuse(not_stored.refused))
}

/// `HEAD /media`.
pub(in super::super) async fn preflight_media(
    State(state): State<BlossomState>,
    request: Request,
) -> Result<StatusCode, Failure> {
    let checked = state.preflight(&request.into_parts().0, Verb::Media).await;
    checked.map(|()| StatusCode::OK).map_err(|not_stored| state.refuse(not_stored.refused))
}

impl BlossomState {
    /// Refuses what an upload would be refused for.
    async fn preflight(&self, head: &Parts, verb: Verb) -> Result<(), NotStored> {
        let headers = &head.headers;
        // First: the usual client sends its token only after a 401 (BL-06.5).
        let claimed = claimed(headers)?;
        let about = claimed.map_or(About::BlobToCome, About::Blob);
        let client = self.admit(headers, Need::Change, verb, about)?;
        let sha256 = claimed.ok_or_else(|| Refused::bad_hash("x-sha-256"))?;
        let missing = || {
            let message = "X-Content-Length is required";
            Refused::new(StatusCode::LENGTH_REQUIRED, "bad_length", message)
        };
        let length = headers.get(&X_CONTENT_LENGTH).ok_or_else(missing)?.to_str().ok();
        let wrong = || Refused::field("bad_length", "x-content-length", "expected a number of bytes");
        let size: u64 = length.and_then(|text| text.trim().parse().ok()).ok_or_else(wrong)?;
        check_size(size, self.settings().upload_bytes_max.get())?;
        let media_type = stated_type(headers, &X_CONTENT_TYPE)?;
        if let Some(media_type) = &media_type
            && !is_accepted(&self.settings().media_types, media_type)
        {
            let message = "blobs of this type are not accepted here";
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_type", message).into());
        }
        self.check_quota(&client, Some(sha256), size).await?;
        let known = self.known(&sha256).await?;
        // What is processed here has another hash and size at the upstreams.
        if verb == Verb::Upload {
            let plan = self.plan(known.as_ref());
            let media_type = media_type.as_deref();
            self.ask_upstreams(&plan.targets, plan.needed, sha256, size, media_type, client.token()).await?;
        }
        Ok(())
    }

    /// Asks the upstreams that can say it whether they would take a blob. The others are believed to.
    async fn ask_upstreams(
        &self,
        targets: &[Upstream],
        needed: usize,
        sha256: Sha256,
        size: u64,
        media_type: Option<&str>,
        token: Option<&Token>,
    ) -> Result<(), Refused> {
        let now = self.now_s();
        let asked = targets.iter().filter(|upstream| upstream.supports_upload_head());
        let answers = join_all(asked.map(|upstream| async move {
            let credential =
                self.parts().upstreams.credential(upstream, token, Verb::Upload, Some(sha256), now);
            let token = match &credential {
                Credential::Token(token) => Some(token),
                Credential::Nothing => None,
                Credential::Unavailable => return Err(None),
            };
            let blob = Announced { sha256, size: Some(size), media_type, token, is_media: false };
            upstream.preflight(blob).await.map_err(|error| error.status)
        }));
        let failures: Vec<Option<u16>> = answers.await.into_iter().filter_map(Result::err).collect();
        if quorum(needed, 0, targets.len().saturating_sub(failures.len())) != Quorum::Lost {
            return Ok(());
        }
        let message = "the servers behind this one would not take the blob";
        Err(match StatusCode::from_u16(status_without_quorum(&failures)) {
            Ok(status) if status.is_client_error() => Refused::new(status, "no_quorum", message),
            _ => Refused::gateway("no_quorum", message),
        })
    }
}
