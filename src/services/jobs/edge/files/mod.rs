//! Files of jobs: sources and outputs. Clients get signed URLs, by which they read and write the storage itself; a
//! folder on this machine is served here, by the same contract.

mod multipart;
mod outputs;
mod received;
mod storage;
mod transfer;

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::JobsState;
use super::access::{Body, Client};
use super::jobs::number;
use super::refusal::Refused;
use super::shapes::{Members, member};
use crate::http::Failure;
use crate::net::objects::Objects;
use crate::services::jobs::append;
use crate::services::jobs::command::{Change, Fence, FencedLease};
use crate::services::jobs::decide::{OUTPUT_NAME, ObjectKey, Refusal, Scope, check_text};
use crate::services::jobs::event::{ClaimedJob, FileKind};
use crate::services::jobs::read;

pub use multipart::MULTIPART_TIME;
pub use storage::Storage;

pub(super) use multipart::{MultipartBody, abort, begin, complete, parts};
pub(super) use outputs::result_with;
pub(super) use storage::Base;
pub(super) use transfer::{get, put};

use storage::Upload;

/// Content type of a client that states none, as in the original.
const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";

/// Longest content type, bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The body of a request for an upload. `key` belongs to the original; what proves a lease is as in
/// `POST /api/jobs/{id}/complete`.
#[derive(Debug, Deserialize)]
pub(super) struct UploadBody {
    #[serde(default)]
    pub(super) key: String,
    /// Of an output, instead of the key.
    name: Option<String>,
    content_type: Option<String>,
    /// Exact size in bytes.
    size: Option<u64>,
    /// SHA-256 in lower-case hex.
    sha256: Option<String>,
    /// Of a multipart upload: size of each part but the last.
    part_size: Option<u64>,
    /// A source that is there already is answered with `exists` instead of a URL.
    #[serde(default)]
    if_missing: bool,
    #[serde(default)]
    worker_id: String,
    lease_token: Option<String>,
}

impl UploadBody {
    pub(super) fn content_type(&self) -> Result<String, Refused> {
        let given = self.content_type.as_deref().filter(|given| !given.is_empty());
        let given = given.unwrap_or(CONTENT_TYPE_DEFAULT);
        check_text("content_type", given, CONTENT_TYPE_BYTES_MAX)?;
        if HeaderValue::from_str(given).is_err() || given.trim() != given || !given.is_ascii() {
            return Err(Refused::field("content_type", "must be the text of a header"));
        }
        Ok(given.to_owned())
    }

    pub(super) fn sha256(&self) -> Result<Option<[u8; 32]>, Refused> {
        let Some(text) = &self.sha256 else { return Ok(None) };
        match ObjectKey::of_source(text) {
            Some(ObjectKey::Source(sha256)) => Ok(Some(sha256)),
            _ => Err(Refused::field("sha256", "must be 64 digits of lower-case hex")),
        }
    }
}

impl JobsState {
    /// Whether the client may upload this key now. Returns the lease of an output.
    async fn authorize_upload(
        &self,
        client: &Client,
        key: &ObjectKey,
        worker: &str,
        token: Option<&str>,
    ) -> Result<Option<Uuid>, Refused> {
        match key {
            ObjectKey::Source(_) => client.require(Scope::Submit).map(|()| None),
            ObjectKey::Output { job, attempt, .. } => {
                let lease = self.authorize_output(client, *job, worker, token).await?;
                if lease.attempt != *attempt {
                    return Err(Refused::Change(Refusal::NotLeased));
                }
                Ok(Some(lease.claim))
            }
        }
    }

    /// The lease under which the client may upload an output of `job`. The request is a sign of life, as a
    /// heartbeat is, and is refused for the same reasons.
    async fn authorize_output(
        &self,
        client: &Client,
        job: i64,
        worker: &str,
        token: Option<&str>,
    ) -> Result<FencedLease, Refused> {
        let fence: Fence = self.fence(client, job, worker, token).await?;
        let named = fence.lease;
        if let Some(worker) = &fence.worker {
            self.parts().beats.heard(worker, Some(job));
        }
        let beat = Change::Heartbeat { fence, lease_s: None, progress: None };
        self.change(client, job, beat).await?;
        if let Some(named) = named {
            return Ok(named);
        }
        let held = append::held_lease(&self.parts().pools, job).await?;
        let held = held.ok_or(Refused::Change(Refusal::NotLeased))?;
        Ok(FencedLease { attempt: held.attempt, claim: held.claim })
    }

    /// The upload that a body asks for.
    async fn upload(&self, client: &Client, body: &UploadBody) -> Result<Upload, Refused> {
        if body.key.is_empty() {
            return Err(Refused::field("key", "is required"));
        }
        let key = ObjectKey::parse("key", &body.key)?;
        let claim = self.authorize_upload(client, &key, &body.worker_id, body.lease_token.as_deref()).await?;
        self.upload_of(client, body, key, claim)
    }

    /// Whether the bucket has this source, and its content was checked: no other content may come under its key. In
    /// the folder none can.
    async fn is_protected(&self, key: &ObjectKey) -> Result<bool, Refused> {
        let objects = self.storage()?.objects();
        if !matches!((key, objects), (ObjectKey::Source(_), Objects::Bucket(_))) {
            return Ok(false);
        }
        let text = key.to_string();
        // A later URL whose content is bound does not count: it changes nothing.
        let kinds = [FileKind::Verified, FileKind::Refused];
        let newest = append::file_facts(&self.parts().pools, std::slice::from_ref(&text), &kinds).await?;
        if newest.get(&text).is_none_or(|facts| facts.kind != FileKind::Verified) {
            return Ok(false);
        }
        Ok(objects.head(&text).await?.is_some())
    }

    fn upload_of(
        &self,
        client: &Client,
        body: &UploadBody,
        key: ObjectKey,
        claim: Option<Uuid>,
    ) -> Result<Upload, Refused> {
        let stated = body.sha256()?;
        let sha256 = match &key {
            ObjectKey::Source(sha256) if stated.is_some_and(|stated| stated != *sha256) => {
                return Err(Refused::field("sha256", "is not that of the key"));
            }
            ObjectKey::Source(sha256) => Some(*sha256),
            ObjectKey::Output { .. } => stated,
        };
        if let Some(size) = body.size {
            self.storage()?.check_size("size", size)?;
        }
        Ok(Upload {
            key,
            content_type: body.content_type()?,
            size: body.size,
            sha256,
            sends_headers: body.size.is_some() || stated.is_some(),
            claim,
            actor: client.actor.label(),
        })
    }

    /// The answer about a source that is there already, if the client asks for it.
    async fn existing(&self, body: &UploadBody, upload: &Upload) -> Result<Option<Value>, Refused> {
        let key = upload.key.to_string();
        let exists = body.if_missing && self.has_source(&upload.key).await?;
        Ok(exists.then(|| json!({ "key": key, "exists": true })))
    }

    /// Whether the storage has this source with the content that its key says.
    async fn has_source(&self, key: &ObjectKey) -> Result<bool, Refused> {
        if !matches!(key, ObjectKey::Source(_)) {
            return Ok(false);
        }
        match self.storage()?.objects() {
            Objects::Bucket(_) => self.is_protected(key).await,
            folder @ Objects::Folder(_) => Ok(folder.head(&key.to_string()).await?.is_some()),
        }
    }

    /// Gives the URL, and records that it was given.
    async fn announce(&self, base: &Base, upload: &Upload) -> Result<Value, Refused> {
        let storage = self.storage()?;
        // By a URL that binds no checksum every client could replace what the jobs of others read.
        let link = if !upload.sends_headers && self.is_protected(&upload.key).await? {
            self.discarded_link(upload).await?
        } else {
            self.upload_link(base, upload).await?
        };
        storage.record(upload.entry(FileKind::Announced, link.is_bound)).await?;
        let headers = link.headers.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
        Ok(json!({
            "url": link.url,
            "key": upload.key.to_string(),
            "method": "PUT",
            "headers": headers.collect::<Map<_, _>>(),
            "expires_at": super::shapes::at(link.expires.saturating_mul(1_000_000)),
        }))
    }

    /// Adds what the original tells workers about files to a leased job.
    pub(super) async fn add_links(
        &self,
        base: &Base,
        client: &Client,
        jobs: &[ClaimedJob],
        leased: &mut [Members],
    ) -> Result<(), Refused> {
        let Some(storage) = &self.parts().storage else { return Ok(()) };
        let actor = client.actor.label();
        let source = |job: &ClaimedJob| job.facts.source_hash.as_deref().and_then(ObjectKey::of_source);
        let keys: Vec<String> = jobs.iter().filter_map(source).map(|key| key.to_string()).collect();
        let is_bucket = matches!(storage.objects(), Objects::Bucket(_));
        let kinds = [FileKind::Verified, FileKind::Refused];
        let checked = if is_bucket {
            append::file_facts(&self.parts().pools, &keys, &kinds).await?
        } else {
            HashMap::new()
        };
        for (job, leased) in jobs.iter().zip(leased) {
            if let Some(key) = source(job) {
                let link = self.download_link(base, &key, &actor).await?;
                leased.insert("source_url", member(&link));
                // In the folder there is no other content than that of the key.
                let facts = checked.get(&key.to_string());
                let is_verified = !is_bucket || facts.is_some_and(|facts| facts.kind == FileKind::Verified);
                leased.insert("source_verified", member(&is_verified));
            }
            let output = ObjectKey::of_output(job.facts.job, job.attempt, OUTPUT_NAME)?;
            leased.insert("output_key", member(&output.to_string()));
            if storage.settings().compat_claim_upload_url {
                let upload = Upload {
                    key: output,
                    content_type: CONTENT_TYPE_DEFAULT.to_owned(),
                    size: None,
                    sha256: None,
                    sends_headers: false,
                    claim: Some(job.lease.claim),
                    actor: actor.clone(),
                };
                let link = self.upload_link(base, &upload).await?;
                leased.insert("upload_url", member(&link.url));
            }
        }
        Ok(())
    }
}

pub(super) async fn upload_url(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    Body(body): Body<UploadBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        state.storage()?;
        let upload = state.upload(&client, &body).await?;
        match state.existing(&body, &upload).await? {
            Some(existing) => Ok(existing),
            None => state.announce(&base, &upload).await,
        }
    };
    state.json(answer).await
}

/// The same for an output of a job, by its name.
pub(super) async fn output_url(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    Path(id): Path<String>,
    Body(body): Body<UploadBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let job = number(&id)?;
        state.storage()?;
        let name = body.name.as_deref().unwrap_or(OUTPUT_NAME);
        ObjectKey::of_output(job, 1, name)?;
        let token = body.lease_token.as_deref();
        let lease = state.authorize_output(&client, job, &body.worker_id, token).await?;
        let key = ObjectKey::of_output(job, lease.attempt, name)?;
        let upload = state.upload_of(&client, &body, key, Some(lease.claim))?;
        state.announce(&base, &upload).await
    };
    state.json(answer).await
}

pub(super) async fn download_url(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    Path((id, kind)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let job = number(&id)?;
        let storage = state.storage()?;
        if kind != "source" && kind != "output" {
            return Err(Refused::field("type", "must be `source` or `output`"));
        }
        let view = read::job(&state.parts().pools.session, job).await?;
        let view = view.ok_or_else(|| Refused::not_found("job"))?;
        let result: Option<Value> = view.result.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let key = if kind == "source" {
            view.source_hash.as_deref().and_then(ObjectKey::of_source)
        } else {
            let key = result.as_ref().and_then(|result| result["output_key"].as_str());
            // What a worker writes into its result leads to its own job alone.
            let key = key.and_then(|key| ObjectKey::parse("key", key).ok());
            key.filter(|key| storage::output_of(key).is_some_and(|(of, _)| of == job))
        };
        let missing = || Refused::not_found("file");
        let key = key.ok_or_else(missing)?;
        let facts = storage.objects().head(&key.to_string()).await?.ok_or_else(missing)?;
        let recorded = result.as_ref().map_or(&Value::Null, |result| &result["output"]);
        if kind == "output" && outputs::has_changed(recorded, &facts) {
            let why = "the file is no longer the one with which the job was completed";
            return Err(Refused::coded(StatusCode::CONFLICT, "output_changed", why));
        }
        let url = state.download_link(&base, &key, &client.actor.label()).await?;
        Ok(json!({ "url": url }))
    };
    state.json(answer).await
}
