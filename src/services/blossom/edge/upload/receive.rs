//! Reads the body of an upload, hashes it and sends it on.

use std::pin::pin;

use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt as _};
use sha2::Digest as _;

use super::super::BlossomState;
use super::super::refusal::Refused;
use super::begin::{Upload, check_size, hash_mismatch};
use super::fan_out::{Beginning, FanOut, QuorumLost};
use super::outcome::{NotStored, Stored};
use super::plan::{Plan, Reason, Sent};
use super::settle::{Settlement, no_quorum, reasons};
use crate::base::Sha256;
use crate::services::blossom::decide::authorization::TokenError;
use crate::services::blossom::decide::media::accepted_type;
use crate::services::blossom::event::{BlobFacts, KnownBlob, Ownership};
use crate::services::blossom::read;
use crate::services::blossom::upstream::{Accepted, HashToCome};

/// Counts and hashes a body.
#[derive(Debug)]
struct Meter {
    hasher: sha2::Sha256,
    size: u64,
    bytes_max: u64,
}

impl Meter {
    fn add(&mut self, piece: &[u8]) -> Result<(), Refused> {
        self.size = self.size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        check_size(self.size, self.bytes_max)?;
        self.hasher.update(piece);
        Ok(())
    }

    fn hash(&mut self) -> Sha256 {
        Sha256::from_bytes(self.hasher.finalize_reset().into())
    }
}

impl BlossomState {
    /// Receives a body, and returns when its blob is stored: when enough upstreams have taken it, and that is committed. If it is
    /// dropped before the body was complete and right, all requests to upstreams are broken off; after that they go on.
    pub(super) async fn receive(
        &self,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, NotStored>> + Send,
    ) -> Result<Stored, NotStored> {
        let mut body = pin!(body);
        let known = match upload.expected {
            Some(expected) => self.known(&expected).await?,
            None => None,
        };
        let mut plan = self.plan(known.as_ref());
        let mut meter = Meter { hasher: sha2::Sha256::new(), size: 0, bytes_max: upload.bytes_max };
        let mut beginning = Beginning::new();
        let mut rest = Bytes::new();
        let is_large = loop {
            if beginning.is_full() {
                break true;
            }
            let Some(piece) = body.next().await.transpose()? else { break false };
            meter.add(&piece)?;
            let left = beginning.fill(&piece).len();
            rest = piece.slice(piece.len() - left..);
        };
        let media_type = self.media_type(&upload, beginning.content())?;

        if !is_large {
            let hash = check_hash(&upload, meter.hash())?;
            let turn = self.turns().upload(hash).await;
            let known = self.known(&hash).await?;
            plan = self.plan(known.as_ref());
            let sent = Sent { hash: HashToCome::known(hash), size: Some(meter.size), media_type };
            let settling = beginning.complete(plan.needed, self.sinks(&plan, &upload, &sent));
            let facts = facts(known.as_ref(), hash, meter.size, sent.media_type);
            let is_known = known.is_some();
            let state = self.clone();
            return Settlement { state, settling, plan, upload, facts, is_known, turn: Some(turn) }
                .finish()
                .await;
        }

        let sent = Sent { hash: HashToCome::default(), size: upload.size, media_type };
        let mut fan_out = beginning.fan_out(plan.needed, self.sinks(&plan, &upload, &sent));
        let mut written = fan_out.write(&rest).await;
        while written.is_ok() {
            let piece = tokio::select! {
                biased;
                piece = body.next() => piece,
                lost = fan_out.tend() => {
                    written = Err(lost);
                    break;
                }
            };
            let Some(piece) = piece.transpose()? else { break };
            meter.add(&piece)?;
            written = fan_out.write(&piece).await;
        }
        if written == Err(QuorumLost) {
            return Err(lost(&plan, fan_out));
        }
        let hash = check_hash(&upload, meter.hash())?;
        let turn = self.turns().upload(hash).await;
        let known = self.known(&hash).await?;
        let has = self.plan(known.as_ref()).holders;
        if plan.holders.iter().any(|holder| !has.contains(holder)) {
            // The copies on which the upload counted were deleted meanwhile.
            return Err(Refused::busy("no_quorum").into());
        }
        sent.hash.set(hash);
        let facts = facts(known.as_ref(), hash, meter.size, sent.media_type);
        let (settling, is_known) = (fan_out.release(), known.is_some());
        let state = self.clone();
        Settlement { state, settling, plan, upload, facts, is_known, turn: Some(turn) }.finish().await
    }

    /// What is known of a blob; 403 if it is banned.
    pub(super) async fn known(&self, sha256: &Sha256) -> Result<Option<KnownBlob>, NotStored> {
        let found = read::look_up(&self.parts().pools, sha256).await?;
        match found.ban {
            Some(ban) => Err(Refused::banned(&ban.why).into()),
            None => Ok(found.blob),
        }
    }

    fn media_type(&self, upload: &Upload, start: &[u8]) -> Result<String, Refused> {
        let stated = upload.stated_type.as_deref();
        accepted_type(&self.settings().media_types, stated, start).ok_or_else(|| {
            let message = "blobs of this type are not accepted here";
            Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_type", message)
        })
    }
}

/// Checks the hash of a whole body against what was announced.
fn check_hash(upload: &Upload, hash: Sha256) -> Result<Sha256, NotStored> {
    if upload.expected == Some(hash) {
        return Ok(hash);
    }
    let is_named = upload.client.token().is_none_or(|token| token.names(&hash));
    // What was copied from elsewhere is not what the client has asked for (BL-04.5).
    if upload.claimed.is_some() || (upload.how == Ownership::Mirrored && !is_named) {
        return Err(hash_mismatch(hash).into());
    }
    if !is_named {
        return Err(Refused::from(TokenError::OtherBlob).into());
    }
    Ok(hash)
}

/// What is recorded of a blob. The type of a known one does not change.
fn facts(known: Option<&KnownBlob>, sha256: Sha256, size: u64, media_type: String) -> BlobFacts {
    known.map_or(BlobFacts { sha256, size, media_type }, |known| known.facts.clone())
}

fn lost(plan: &Plan, fan_out: FanOut<Accepted, Reason>) -> NotStored {
    let ends: Vec<_> = fan_out.into_ends().into_iter().flatten().collect();
    no_quorum(plan, &reasons(&ends))
}
