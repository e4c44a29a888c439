//! Which upstreams get a blob.

use tokio_util::sync::CancellationToken;

use super::super::BlossomState;
use super::begin::Upload;
use super::fan_out::Pieces;
use crate::base::{Secret, Sha256};
use crate::services::blossom::decide::authorization::{Credential, Verb};
use crate::services::blossom::event::{KnownBlob, ReplicaState};
use crate::services::blossom::upstream::{Accepted, HashToCome, PutBlob, Upstream, UpstreamError};

/// Where a blob is, and where it is sent.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Upstreams that have a copy.
    pub(super) holders: Vec<String>,
    /// Upstreams that it is sent to.
    pub(super) targets: Vec<Upstream>,
    /// How many of them have to take it.
    pub(super) needed: usize,
}

/// Why one upstream did not take a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// Status of its answer.
    pub(super) status: Option<u16>,
    /// In one line, for rows.
    pub(super) why: String,
}

impl From<UpstreamError> for Reason {
    fn from(error: UpstreamError) -> Self {
        Self { status: error.status, why: error.reason }
    }
}

/// What the request to an upstream is made of.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// The hash, set before the body is released.
    pub(super) hash: HashToCome,
    /// Size in bytes, if it is known.
    pub(super) size: Option<u64>,
    pub(super) media_type: String,
}

impl BlossomState {
    /// Plans the copies of a blob, of which this is known. Those that are there are not made again (BL-02.2); of the others, as many
    /// as the target needs are made, first at upstreams that answer.
    pub(super) fn plan(&self, known: Option<&KnownBlob>) -> Plan {
        let list = self.parts().upstreams.list();
        let has_copy = |upstream: &&Upstream| {
            let replicas = known.map_or(&[][..], |known| known.replicas.as_slice());
            replicas.iter().any(|replica| {
                let is_there = matches!(replica.state, ReplicaState::Readable | ReplicaState::Accepted);
                is_there && replica.upstream == upstream.name()
            })
        };
        let (holders, mut others): (Vec<&Upstream>, Vec<&Upstream>) = list.iter().partition(has_copy);
        others.sort_by_key(|upstream| (!upstream.is_available(), upstream.priority()));
        let missing = self.settings().target(list.len()).saturating_sub(holders.len());
        let least = usize::try_from(self.settings().replicas_min.get()).unwrap_or(usize::MAX);
        let needed = least.saturating_sub(holders.len());
        Plan {
            holders: holders.iter().map(|upstream| upstream.name().to_owned()).collect(),
            targets: others.into_iter().take(missing.max(needed)).cloned().collect(),
            needed,
        }
    }

    /// The requests to the upstreams of a plan.
    pub(super) fn sinks(
        &self,
        plan: &Plan,
        upload: &Upload,
        sent: &Sent,
    ) -> Vec<impl FnOnce(Pieces, CancellationToken) -> Request + use<>> {
        let hash = sent.hash.get().or(upload.expected);
        let sink = |upstream: &Upstream| {
            let credential = self.credential(upstream, upload, hash);
            let (upstream, sent, claimed, within) =
                (upstream.clone(), sent.clone(), upload.expected, upload.within);
            move |body: Pieces, too_slow: CancellationToken| -> Request {
                Box::pin(async move {
                    let token = credential?;
                    let Sent { hash: sha256, size, media_type } = sent;
                    let claimed = sha256.get().or(claimed);
                    let blob = PutBlob { claimed, sha256, size, media_type, token, body, too_slow, within };
                    upstream.put(blob).await.map_err(Reason::from)
                })
            }
        };
        plan.targets.iter().map(sink).collect()
    }

    /// What an upstream is shown for an upload.
    pub(super) fn credential(
        &self,
        upstream: &Upstream,
        upload: &Upload,
        blob: Option<Sha256>,
    ) -> Result<Option<Secret>, Reason> {
        let (client, now) = (upload.client.token(), self.now_s());
        match self.parts().upstreams.credential(upstream, client, Verb::Upload, blob, now) {
            Credential::Token(token) => Ok(Some(token)),
            Credential::Nothing => Ok(None),
            Credential::Unavailable => {
                Err(Reason { status: None, why: "no token that is valid there".to_owned() })
            }
        }
    }
}

/// A request to an upstream.
pub(super) type Request = futures_util::future::BoxFuture<'static, Result<Accepted, Reason>>;
