//! Waits for the upstreams after the body of an upload, and commits what they did. This goes on when the client is gone: it has sent
//! a body that is complete and right.

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::super::BlossomState;
use super::super::refusal::Refused;
use super::super::turns::Turn;
use super::begin::{Upload, over_blobs, over_bytes};
use super::fan_out::{LaneEnd, Settling};
use super::outcome::{NotStored, Stored};
use super::plan::{Plan, Reason};
use crate::lifecycle::{BoxError, guarded};
use crate::services::blossom::append::{BlobAnswer, BlobRefusal};
use crate::services::blossom::command::{BlobCommand, NewOwner, ReplicaResult, StoreBlob};
use crate::services::blossom::decide::quorum::status_without_quorum;
use crate::services::blossom::event::{ANONYMOUS, BlobFacts, ReplicaEvent};
use crate::services::blossom::upstream::Accepted;
use crate::store;

type End = LaneEnd<Accepted, Reason>;

/// An upload whose body was complete and right.
pub(super) struct Settlement {
    pub(super) state: BlossomState,
    pub(super) settling: Settling<Accepted, Reason>,
    pub(super) plan: Plan,
    pub(super) upload: Upload,
    pub(super) facts: BlobFacts,
    /// Whether the journal has the blob.
    pub(super) is_known: bool,
    /// Keeps deletions of the blob away until its owner is committed.
    pub(super) turn: Option<Turn>,
}

impl Settlement {
    /// Waits until enough upstreams have taken it and that is committed. The rest goes on in a task, also if this is dropped.
    pub(super) async fn finish(self) -> Result<Stored, NotStored> {
        let (answer, answered) = oneshot::channel();
        let (lifecycle, subject) = (self.state.parts().lifecycle.clone(), self.facts.sha256.to_string());
        lifecycle.spawn("blossom upload", async move {
            // A panic is counted and logged there; the client gets the error below.
            let _ = guarded("blossom_upload", &subject, self.run(answer)).await;
            Ok::<(), BoxError>(())
        });
        answered.await.unwrap_or_else(|_| Err(store::Error::Stopped.into()))
    }

    async fn run(mut self, answer: oneshot::Sender<Result<Stored, NotStored>>) {
        let is_reached = self.settling.quorum().await;
        if !is_reached {
            return self.give_up(answer).await;
        }
        let ends = self.settling.take_ends();
        let results = self.results(&ends);
        let taken = results.iter().filter(|result| result.event == ReplicaEvent::Accepted);
        self.plan.holders.extend(taken.map(|result| result.upstream.clone()));
        let stored = self.store(Some(self.state.owner(&self.upload)), results).await;
        drop(self.turn.take());
        // The client may be gone.
        let _ = answer.send(stored);
        if self.settling.running() == 0 {
            return;
        }
        let _counted = self.state.parts().metrics.background_began();
        self.settling.rest().await;
        let ends = self.settling.take_ends();
        let results = self.results(&ends);
        self.record(results).await;
    }

    /// Answers that there is no quorum, and records the copies that were made nevertheless, without an owner: a repeated upload finds
    /// them.
    async fn give_up(mut self, answer: oneshot::Sender<Result<Stored, NotStored>>) {
        let mut ends = self.settling.take_ends();
        let so_far: Vec<&End> = ends.iter().map(|(_, end)| end).collect();
        let _ = answer.send(Err(no_quorum(&self.plan, &reasons(so_far))));
        self.settling.rest().await;
        ends.extend(self.settling.take_ends());
        let results = self.results(&ends);
        if results.iter().any(|result| result.event == ReplicaEvent::Accepted) {
            if let Err(not_stored) = self.store(None, results).await {
                tracing::debug!(error = ?not_stored, "copies of blob {} are not recorded", self.facts.sha256);
            }
        } else if self.is_known {
            self.record(results).await;
        }
    }

    async fn store(&self, owner: Option<NewOwner>, results: Vec<ReplicaResult>) -> Result<Stored, NotStored> {
        self.state.commit(&self.upload, &self.plan, self.facts.clone(), owner, results).await
    }

    /// Records what the upstreams did of which the answer did not wait.
    async fn record(&self, results: Vec<ReplicaResult>) {
        let (sha256, actor) = (self.facts.sha256, self.upload.client.actor());
        let command = BlobCommand::Replicas { sha256, results: results.clone(), actor };
        match self.state.parts().journal.append(command).await {
            Ok(_) => self.state.count(&results),
            // Repair finds the copies at the upstreams.
            Err(error) => {
                tracing::warn!(error = %error, "copies of blob {sha256} are not recorded: {error}");
            }
        }
    }

    fn results(&self, ends: &[(usize, End)]) -> Vec<ReplicaResult> {
        let result = |(place, end): &(usize, End)| {
            let upstream = self.plan.targets[*place].name().to_owned();
            let (event, why) = match end {
                LaneEnd::Took(_) => (ReplicaEvent::Accepted, None),
                LaneEnd::Failed(reason) => (ReplicaEvent::Failed, Some(reason.why.clone())),
                LaneEnd::Panicked => (ReplicaEvent::Failed, Some("internal error".to_owned())),
            };
            ReplicaResult { upstream, event, why }
        };
        ends.iter().map(result).collect()
    }
}

impl BlossomState {
    /// The owner that an upload adds. Clients without a key share one, which has no quota.
    pub(super) fn owner(&self, upload: &Upload) -> NewOwner {
        let pubkey = upload.client.pubkey();
        let limit = |most: u64| i64::try_from(most).ok().filter(|most| *most > 0 && pubkey.is_some());
        NewOwner {
            pubkey: pubkey.unwrap_or(ANONYMOUS),
            how: upload.how,
            origin: upload.origin.clone(),
            bytes_max: limit(self.settings().key_bytes_max),
            blobs_max: limit(self.settings().key_blobs_max),
        }
    }

    /// Commits a blob with what the upstreams did.
    pub(super) async fn commit(
        &self,
        upload: &Upload,
        plan: &Plan,
        facts: BlobFacts,
        owner: Option<NewOwner>,
        results: Vec<ReplicaResult>,
    ) -> Result<Stored, NotStored> {
        let store =
            StoreBlob { facts: facts.clone(), owner, results: results.clone(), actor: upload.client.actor() };
        let told = self.parts().journal.append(BlobCommand::Store(store)).await?;
        self.count(&results);
        match told {
            BlobAnswer::Stored { is_new, uploaded } => {
                Ok(Stored { facts, uploaded, is_new, holders: plan.holders.clone() })
            }
            BlobAnswer::Refused(BlobRefusal::Banned { why }) => Err(Refused::banned(&why).into()),
            BlobAnswer::Refused(BlobRefusal::OverBytes { max }) => Err(over_bytes(max, facts.size).into()),
            BlobAnswer::Refused(BlobRefusal::OverBlobs { max }) => Err(over_blobs(max).into()),
            BlobAnswer::Recorded | BlobAnswer::Disowned { .. } => {
                let why = format!("the answer to a stored blob is {told:?}");
                Err(store::Error::inconsistent("blob_log", why).into())
            }
        }
    }

    fn count(&self, results: &[ReplicaResult]) {
        let upstreams = &self.parts().upstreams;
        for result in results {
            if let Some(upstream) = upstreams.named(&result.upstream) {
                upstream.count_recorded(result.event);
            }
        }
    }
}

/// The statuses of the upstreams that failed.
pub(super) fn reasons<'a>(ends: impl IntoIterator<Item = &'a End>) -> Vec<Option<u16>> {
    let status = |end: &End| match end {
        LaneEnd::Took(_) => None,
        LaneEnd::Failed(reason) => Some(reason.status),
        LaneEnd::Panicked => Some(None),
    };
    ends.into_iter().filter_map(status).collect()
}

/// The refusal of an upload that too few upstreams took. It names none of them, and repeats nothing that one has said.
pub(super) fn no_quorum(plan: &Plan, failures: &[Option<u16>]) -> NotStored {
    let status = status_without_quorum(failures);
    let refused = match StatusCode::from_u16(status) {
        Ok(status) if status.is_client_error() => {
            let message = match status {
                StatusCode::UNAUTHORIZED => "the servers behind this one do not accept the token",
                StatusCode::PAYMENT_REQUIRED => "the servers behind this one want a payment",
                StatusCode::PAYLOAD_TOO_LARGE => "the blob is too large for the servers behind this one",
                _ => "the servers behind this one do not accept this type",
            };
            Refused::new(status, "no_quorum", message)
        }
        _ => {
            let (failed, asked) = (failures.len(), plan.targets.len());
            let needed = plan.needed;
            let message = format!(
                "{failed} of {asked} servers behind this one did not take the blob, and {needed} have to: try again"
            );
            Refused::gateway("no_quorum", message)
        }
    };
    NotStored::no_quorum(refused)
}
