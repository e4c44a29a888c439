//! Deletion (BUD-12): a key gives up a blob. The copies go with its last owner, and the answer says what each upstream did.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use super::BlossomState;
use super::access::{Client, Need};
use super::refusal::Refused;
use crate::base::{Secret, Sha256};
use crate::http::{Failure, RequestContext, reason};
use crate::services::blossom::append::BlobAnswer;
use crate::services::blossom::command::{BlobCommand, ReplicaResult};
use crate::services::blossom::decide::authorization::{About, Credential, Verb};
use crate::services::blossom::decide::name::BlobName;
use crate::services::blossom::event::{KnownBlob, ReplicaEvent, ReplicaState};
use crate::services::blossom::read;
use crate::services::blossom::upstream::{Deleted, Upstream};

/// How long a deletion waits for uploads of the same blob.
const TURN_MAX: Duration = Duration::from_secs(10);

/// What an upstream did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Receipt {
    upstream: String,
    /// Whether it has no copy any more.
    deleted: bool,
    /// Why it may have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The body of the answer.
#[derive(Debug, Serialize)]
struct Receipts {
    sha256: String,
    /// Keys that own the blob still; its copies stay for them.
    owners_left: i64,
    upstreams: Vec<Receipt>,
}

pub(super) async fn delete(State(state): State<BlossomState>, request: Request) -> Result<Response, Failure> {
    let head = request.into_parts().0;
    let answer = state.delete(&head).await;
    answer.map_err(|refused| state.refuse(refused))
}

impl BlossomState {
    async fn delete(&self, head: &Parts) -> Result<Response, Refused> {
        let name = head.uri.path().strip_prefix('/').unwrap_or_default();
        let sha256 = BlobName::parse(name).map_err(|_| Refused::bad_hash("path"))?.sha256;
        let client = self.admit(&head.headers, Need::Change, Verb::Delete, About::Blob(sha256))?;
        // A client without a token owns nothing, also where uploads need none.
        let owner = client.pubkey().ok_or_else(Refused::no_token)?;
        let Ok(_turn) = timeout(TURN_MAX, self.turns().deletion(sha256)).await else {
            return Err(Refused::busy("too_many"));
        };
        let known = read::look_up(&self.parts().pools, &sha256).await?.blob;
        if known.is_none() {
            return self.delete_elsewhere(head, &client, &sha256).await;
        }
        let disown = BlobCommand::Disown { sha256, owner, actor: client.actor() };
        let (was_owner, owners_left) = match self.parts().journal.append(disown).await? {
            BlobAnswer::Disowned { was_owner, owners_left } => (was_owner, owners_left),
            other => {
                let problem = format!("a deletion was answered with {other:?}");
                return Err(crate::store::Error::inconsistent("blob_log", problem).into());
            }
        };
        match (was_owner, owners_left) {
            (false, 0) => Err(Refused::absent()),
            (false, _) => {
                let message = "the blob belongs to other keys";
                Err(Refused::new(StatusCode::FORBIDDEN, "not_owner", message))
            }
            (true, 0) => {
                // Read again: an upload may have added copies until the deletion was committed.
                let known = read::look_up(&self.parts().pools, &sha256).await?.blob;
                let receipts = self.delete_copies(known, &client, sha256).await?;
                Ok(answer(&sha256, 0, receipts))
            }
            (true, _) => Ok(answer(&sha256, owners_left, Vec::new())),
        }
    }

    /// Deletes all copies, and records what each upstream did.
    async fn delete_copies(
        &self,
        known: Option<KnownBlob>,
        client: &Client,
        sha256: Sha256,
    ) -> Result<Vec<Receipt>, Refused> {
        let replicas = known.map(|known| known.replicas).unwrap_or_default();
        let holders = replicas.into_iter().filter(|replica| replica.state != ReplicaState::Deleted);
        let receipts = join_all(holders.map(|replica| async move {
            let deleted = self.delete_copy(&replica.upstream, client, sha256).await;
            let (deleted, reason) = match deleted {
                Ok(()) => (true, None),
                Err(reason) => (false, Some(reason)),
            };
            Receipt { upstream: replica.upstream, deleted, reason }
        }))
        .await;
        let results: Vec<ReplicaResult> = receipts
            .iter()
            .map(|receipt| ReplicaResult {
                upstream: receipt.upstream.clone(),
                event: if receipt.deleted { ReplicaEvent::Deleted } else { ReplicaEvent::NotDeleted },
                why: receipt.reason.clone(),
            })
            .collect();
        if !results.is_empty() {
            let command = BlobCommand::Replicas { sha256, results, actor: client.actor() };
            self.parts().journal.append(command).await?;
        }
        Ok(receipts)
    }

    async fn delete_copy(&self, name: &str, client: &Client, sha256: Sha256) -> Result<(), String> {
        let upstreams = &self.parts().upstreams;
        let upstream = upstreams.named(name).ok_or("it is not in the settings any more")?;
        let credential =
            upstreams.credential(upstream, client.token(), Verb::Delete, Some(sha256), self.now_s());
        let token = match credential {
            Credential::Token(token) => Some(token),
            Credential::Nothing => None,
            Credential::Unavailable => {
                return Err("no token is valid there: sign one that names its domain (server)".to_owned());
            }
        };
        upstream.delete(&sha256, token.as_ref()).await.map(drop).map_err(|error| error.reason)
    }

    /// Passes the deletion of a blob that was never stored here on to the upstreams that have it and where the client's own token
    /// is valid.
    async fn delete_elsewhere(
        &self,
        head: &Parts,
        client: &Client,
        sha256: &Sha256,
    ) -> Result<Response, Refused> {
        if let Some(context) = head.extensions.get::<RequestContext>()
            && !self.limits().admits_lookup(context.client().address)
        {
            return Err(Refused::too_many("too many look-ups of unknown blobs from this address"));
        }
        let upstreams = &self.parts().upstreams;
        let asked: Vec<(&Upstream, Secret)> = upstreams
            .list()
            .iter()
            .filter_map(|upstream| {
                let token = upstreams.clients_token(
                    upstream,
                    client.token()?,
                    Verb::Delete,
                    Some(*sha256),
                    self.now_s(),
                )?;
                Some((upstream, token))
            })
            .collect();
        let receipts: Vec<Receipt> = join_all(asked.into_iter().map(|(upstream, token)| async move {
            let (deleted, reason) = match upstream.delete(sha256, Some(&token)).await {
                Ok(Deleted::Absent) => return None,
                Ok(Deleted::Done) => (true, None),
                Err(error) => (false, Some(error.reason)),
            };
            Some(Receipt { upstream: upstream.name().to_owned(), deleted, reason })
        }))
        .await
        .into_iter()
        .flatten()
        .collect();
        self.lookups().forget(sha256).await;
        if receipts.is_empty() {
            return Err(Refused::absent());
        }
        if receipts.iter().all(|receipt| !receipt.deleted) {
            let first = receipts.into_iter().find_map(|receipt| receipt.reason).unwrap_or_default();
            let message = format!("no server has deleted its copy: {first}");
            return Err(Refused::gateway("not_deleted", message));
        }
        Ok(answer(sha256, 0, receipts))
    }
}

/// 200 with the receipts; 202 if upstreams have kept copies, which are not served here any more.
fn answer(sha256: &Sha256, owners_left: i64, upstreams: Vec<Receipt>) -> Response {
    let (all, failed) = (upstreams.len(), upstreams.iter().filter(|receipt| !receipt.deleted).count());
    let receipts = Receipts { sha256: sha256.to_string(), owners_left, upstreams };
    let mut response = Json(receipts).into_response();
    if failed > 0 {
        *response.status_mut() = StatusCode::ACCEPTED;
        let text = format!("deleted here; {failed} of {all} servers have not deleted their copy");
        response.headers_mut().insert("x-reason", reason(&text));
    }
    response
}
