//! Media that one upstream processes: where the operator has no key, the client's token for `/media` is valid at an upstream's `/media`
//! alone. It is sent to one (BL-05.6), because others would give results with other hashes, and the result is read back.

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::super::BlossomState;
use super::super::refusal::Refused;
use super::begin::{Upload, check_size};
use super::outcome::{NotStored, Stored};
use super::plan::{Plan, Reason};
use super::settle::no_quorum;
use crate::base::{Secret, Sha256};
use crate::services::blossom::command::ReplicaResult;
use crate::services::blossom::decide::authorization::{Credential, Verb};
use crate::services::blossom::decide::media::{normal_type, type_of};
use crate::services::blossom::event::{BlobFacts, ReplicaEvent};
use crate::services::blossom::upstream::{BlobReader, HashToCome, PutBlob, Upstream, UpstreamError};

impl BlossomState {
    /// The upstream that is to process the media of a client, and what it is shown; `None` if results of our own can be stored.
    pub(super) fn processor(&self, upload: &Upload) -> Option<(Upstream, Secret)> {
        let targets = self.plan(None).targets;
        if targets.iter().any(|upstream| self.credential(upstream, upload, upload.expected).is_ok()) {
            return None;
        }
        let client = upload.client.token();
        targets.into_iter().find_map(|upstream| {
            let upstreams = &self.parts().upstreams;
            match upstreams.credential(&upstream, client, Verb::Media, upload.expected, self.now_s()) {
                Credential::Token(token) => Some((upstream, token)),
                Credential::Nothing | Credential::Unavailable => None,
            }
        })
    }

    /// Has media processed by an upstream, and stores the result.
    pub(super) async fn delegate(
        &self,
        upload: Upload,
        (upstream, token): (Upstream, Secret),
        content: Bytes,
    ) -> Result<Stored, NotStored> {
        let plan =
            Plan { holders: vec![upstream.name().to_owned()], targets: vec![upstream.clone()], needed: 1 };
        let refused = |error: UpstreamError| no_quorum(&plan, &[Reason::from(error).status]);
        if self.settings().replicas_min.get() > 1 {
            let message = "without a key of the operator, media can be stored at one server only, and more are required";
            return Err(NotStored::no_quorum(Refused::gateway("no_quorum", message)));
        }
        let hash = Sha256::of(&content);
        let blob = PutBlob {
            claimed: Some(hash),
            sha256: HashToCome::known(hash),
            size: u64::try_from(content.len()).ok(),
            media_type: type_of(upload.stated_type.as_deref(), &content),
            token: Some(token),
            body: stream::iter([Ok(content)]).boxed(),
            too_slow: CancellationToken::new(),
            within: upload.within,
        };
        let result = upstream.media(blob).await.map_err(refused)?;
        self.known(&result.sha256).await?;
        let reader = upstream.get(&result.sha256, None).await.map_err(refused)?;
        let reader = reader.ok_or_else(|| no_quorum(&plan, &[None]))?.verified(result.sha256);
        let facts = facts(reader, result.sha256, self.settings().upload_bytes_max.get()).await?;
        let happened = |event| ReplicaResult { upstream: upstream.name().to_owned(), event, why: None };
        let results = [ReplicaEvent::Accepted, ReplicaEvent::Readable].map(happened).to_vec();
        self.commit(&upload, &plan, facts, Some(self.owner(&upload)), results).await
    }
}

/// Reads a result to its end, which is checked.
async fn facts(reader: BlobReader, sha256: Sha256, bytes_max: u64) -> Result<BlobFacts, NotStored> {
    let BlobReader { media_type, mut bytes, .. } = reader;
    let (mut size, mut start) = (0, Bytes::new());
    while let Some(piece) = bytes.next().await {
        let piece = piece.map_err(|error| {
            let message = format!("the processed media cannot be read back: {}", error.reason);
            NotStored::no_quorum(Refused::gateway("no_quorum", message))
        })?;
        size += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        check_size(size, bytes_max)?;
        if start.is_empty() {
            start = piece;
        }
    }
    let media_type = type_of(media_type.as_deref().and_then(normal_type).as_deref(), &start);
    Ok(BlobFacts { sha256, size, media_type })
}
