//! Large files in parts, each with a signed URL of its own. What was begun is sealed into `upload_id`, so that
//! every process can go on with it and nothing is stored for an upload that is given up.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::UploadBody;
use super::storage::{Base, Upload};
use super::transfer::{record_stored, wrong_content};
use crate::http::Failure;
use crate::net::objects::{Bucket, Folder, Incoming, ObjectError, Objects};
use crate::services::jobs::append;
use crate::services::jobs::decide::{
    Grant, GrantedMethod, MultipartGrant, ObjectKey, SealError, seal, unseal,
};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::{Body, Client};
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::shapes::at;
use crate::services::jobs::event::FileKind;

/// Time in which an upload has to be completed.
pub const MULTIPART_TIME: Duration = Duration::from_hours(24);

/// Least and largest part of S3, bytes; the last part may be smaller.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
const PART_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// Size of parts when the client names none, bytes.
const PART_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// Most parts of S3.
const PARTS_MAX: u64 = 10_000;

/// Most URLs of one answer.
const URLS_MAX: u32 = 100;

/// Longest mark of a part, bytes.
const ETAG_BYTES_MAX: usize = 256;

/// The body of a request about an upload that was begun.
#[derive(Debug, Deserialize)]
pub(in super::super) struct MultipartBody {
    #[serde(default)]
    pub(in super::super) upload_id: String,
    /// First part and number of parts whose URLs are wanted.
    from: Option<u32>,
    count: Option<u32>,
    /// The `ETag`s of all parts, in order.
    #[serde(default)]
    etags: Vec<String>,
    #[serde(default)]
    worker_id: String,
    lease_token: Option<String>,
}

pub(in super::super) async fn begin(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<UploadBody>,
) -> Result<Json<Value>, Failure> {
    let answer = begin_upload(&state, &client, &body).await;
    answer.map(Json).map_err(|refused| state.refuse(refused))
}

async fn begin_upload(state: &JobsState, client: &Client, body: &UploadBody) -> Result<Value, Refused> {
    let storage = state.storage()?;
    let upload = state.upload(client, body).await?;
    let size = upload.size.filter(|size| *size > 0);
    let size = size.ok_or_else(|| Refused::field("size", "is required and more than 0"))?;
    if let Some(existing) = state.existing(body, &upload).await? {
        return Ok(existing);
    }
    let part_size = body.part_size.unwrap_or_else(|| PART_BYTES_DEFAULT.max(size.div_ceil(PARTS_MAX)));
    if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&part_size) || size.div_ceil(part_size) > PARTS_MAX {
        let problem =
            format!("must be between {PART_BYTES_MIN} and {PART_BYTES_MAX}, with at most {PARTS_MAX} parts");
        return Err(Refused::field("part_size", problem));
    }
    let key = upload.key.to_string();
    let id = match storage.objects() {
        Objects::Bucket(bucket) => bucket.begin_multipart(&key, &upload.content_type).await?,
        Objects::Folder(_) => {
            storage.check_space(size)?;
            Uuid::new_v4().to_string()
        }
    };
    let grant = MultipartGrant {
        key,
        upload: id,
        size,
        part_size,
        content_type: upload.content_type.clone(),
        sha256: upload.sha256.map(hex::encode),
        claim: upload.claim,
        expires: state.expiry(MULTIPART_TIME),
    };
    // In a bucket the content is not bound: S3 has no SHA-256 over all parts.
    let is_bound = matches!(storage.objects(), Objects::Folder(_)) && upload.sha256.is_some();
    storage.record(upload.entry(FileKind::Announced, is_bound)).await?;
    Ok(json!({
        "upload_id": seal(&state.lease_key().await?, &grant),
        "key": grant.key,
        "parts": grant.parts(),
        "part_size": part_size,
        "expires_at": at(grant.expires.saturating_mul(1_000_000)),
    }))
}

impl JobsState {
    /// The upload that a body names, if the client may go on with it.
    async fn begun(
        &self,
        client: &Client,
        body: &MultipartBody,
    ) -> Result<(MultipartGrant, ObjectKey), Refused> {
        let now = self.parts().clock.now().timestamp();
        let grant = unseal::<MultipartGrant>(&self.lease_key().await?, &body.upload_id, now);
        let grant = grant.map_err(|error| match error {
            SealError::Foreign => Refused::field("upload_id", "is not one of this server"),
            SealError::Expired => Refused::field("upload_id", "is no longer valid: begin another upload"),
        })?;
        let key = ObjectKey::parse("upload_id", &grant.key)?;
        let token = body.lease_token.as_deref();
        let claim = self.authorize_upload(client, &key, &body.worker_id, token).await?;
        if claim != grant.claim {
            return Err(Refused::field("upload_id", "is that of another lease"));
        }
        Ok((grant, key))
    }
}

pub(in super::super) async fn parts(
    State(state): State<JobsState>,
    client: Client,
    base: Base,
    Body(body): Body<MultipartBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let storage = state.storage()?;
        let (upload, _) = state.begun(&client, &body).await?;
        let from = body.from.unwrap_or(1);
        let count = body.count.unwrap_or(URLS_MAX);
        if from == 0 || !(1..=URLS_MAX).contains(&count) {
            return Err(Refused::field(
                "count",
                format!("must be between 1 and {URLS_MAX}, and from at least 1"),
            ));
        }
        let mut parts = Vec::new();
        for part in from..from.saturating_add(count) {
            let Some(size) = upload.size_of(part) else { break };
            let url = match storage.objects() {
                Objects::Bucket(bucket) => {
                    bucket.sign_part(&upload.key, &upload.upload, part, storage.lifetime()).await?
                }
                Objects::Folder(_) => {
                    let grant = Grant {
                        method: GrantedMethod::Put,
                        key: upload.key.clone(),
                        expires: state.expiry(storage.lifetime()),
                        content_type: None,
                        size: Some(size),
                        sha256: None,
                        claim: upload.claim,
                        part: Some((upload_id(&upload)?, part)),
                        actor: client.actor.label(),
                    };
                    state.sealed_url(&base, &grant).await?
                }
            };
            parts.push(json!({ "part": part, "size": size, "url": url }));
        }
        Ok(json!({ "parts": parts }))
    };
    state.json(answer).await
}

fn upload_id(upload: &MultipartGrant) -> Result<Uuid, Refused> {
    upload.upload.parse().map_err(|_| Refused::field("upload_id", "belongs to another storage"))
}

pub(in super::super) async fn complete(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<MultipartBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let (upload, key) = state.begun(&client, &body).await?;
        match state.storage()?.objects() {
            // S3 has no SHA-256 over all parts, and the whole would replace what was checked. It is the same or wrong.
            Objects::Bucket(bucket) if state.is_protected(&key).await? => {
                match bucket.abort_multipart(&upload.key, &upload.upload).await {
                    // A repeated request.
                    Err(ObjectError::Refused(_)) => {}
                    aborted => aborted?,
                }
            }
            Objects::Bucket(bucket) => {
                complete_in_bucket(&state, bucket, &upload, &body.etags).await?;
                // The check of sources looks at recent entries, and the upload may have begun a day ago.
                let (size, sha256) = (Some(upload.size), upload.sha256());
                let (content_type, claim) = (upload.content_type.clone(), upload.claim);
                let actor = client.actor.label();
                let arrived = Upload { key, content_type, size, sha256, sends_headers: false, claim, actor };
                state.storage()?.record(arrived.entry(FileKind::Announced, false)).await?;
            }
            Objects::Folder(folder) => {
                put_together(&state, folder, &upload, key, client.actor.label()).await?;
            }
        }
        Ok(json!({ "status": "completed", "key": upload.key, "size": upload.size }))
    };
    state.json(answer).await
}

async fn complete_in_bucket(
    state: &JobsState,
    bucket: &Bucket,
    upload: &MultipartGrant,
    etags: &[String],
) -> Result<(), Refused> {
    if etags.len() as u64 != upload.parts() || etags.iter().any(|etag| etag.len() > ETAG_BYTES_MAX) {
        let problem = format!("must name the ETag of each of the {} parts", upload.parts());
        return Err(Refused::field("etags", problem));
    }
    let made = bucket.complete_multipart(&upload.key, &upload.upload, etags.to_vec()).await;
    let objects = state.storage()?.objects();
    let size = objects.head(&upload.key).await?.map_or(0, |facts| facts.size);
    match made {
        // A repeated request: the answer to the first one was lost.
        Err(ObjectError::Refused(_)) if size == upload.size => return Ok(()),
        Err(ObjectError::Refused(why)) => {
            return Err(Refused::coded(StatusCode::CONFLICT, "parts_refused", why));
        }
        made => made?,
    }
    if size != upload.size {
        objects.delete(&upload.key).await?;
        let why = format!("the parts have {size} bytes, not {}; the file was deleted", upload.size);
        return Err(Refused::coded(StatusCode::CONFLICT, "wrong_size", why));
    }
    Ok(())
}

/// Makes the file of its parts, which are read once, and deletes them.
async fn put_together(
    state: &JobsState,
    folder: &Folder,
    upload: &MultipartGrant,
    key: ObjectKey,
    actor: String,
) -> Result<(), Refused> {
    let (storage, id) = (state.storage()?, upload_id(upload)?);
    let _one_of_few = storage.begin_upload()?;
    storage.check_space(upload.size)?;
    let mut incoming = storage.objects().begin().await?;
    let sha256 = match copy_parts(storage.objects(), upload, id, &mut incoming).await {
        Ok(sha256) => sha256,
        Err(refused) => {
            incoming.discard().await?;
            return if was_put_together(state, upload).await? { Ok(()) } else { Err(refused) };
        }
    };
    let flushed = incoming.flush().await?;
    let checked = match &upload.sha256 {
        Some(wanted) if *wanted != hex::encode(sha256) => Err(wrong_content(wanted, sha256)),
        _ => state.check_lease(&key, upload.claim).await,
    };
    if let Err(refused) = checked {
        flushed.discard().await?;
        return Err(refused);
    }
    flushed.publish(&upload.key).await?;
    record_stored(storage, key, upload.content_type.clone(), upload.size, sha256, actor).await?;
    folder.delete_parts(id).await?;
    Ok(())
}

/// Whether the file is there already: the answer to an earlier request was lost.
async fn was_put_together(state: &JobsState, upload: &MultipartGrant) -> Result<bool, Refused> {
    let keys = std::slice::from_ref(&upload.key);
    let stored = append::file_facts(&state.parts().pools, keys, &[FileKind::Stored]).await?;
    let is_same = stored.get(&upload.key).is_some_and(|stored| {
        stored.size.and_then(|size| u64::try_from(size).ok()) == Some(upload.size)
            && (upload.sha256.is_none() || stored.sha256 == upload.sha256())
    });
    Ok(is_same && state.storage()?.objects().head(&upload.key).await?.is_some())
}

async fn copy_parts(
    objects: &Objects,
    upload: &MultipartGrant,
    id: Uuid,
    incoming: &mut Incoming,
) -> Result<[u8; 32], Refused> {
    let mut hash = Sha256::new();
    for part in 1..=u32::try_from(upload.parts()).unwrap_or(u32::MAX) {
        let found = objects.read(&Folder::part_key(id, part)).await?;
        // Each has the size that its URL was signed for.
        let mut found = found.ok_or_else(|| {
            Refused::coded(StatusCode::CONFLICT, "part_missing", format!("part {part} was not uploaded"))
        })?;
        while let Some(piece) = found.bytes.next().await {
            let piece = piece?;
            hash.update(&piece);
            incoming.write(piece).await?;
        }
    }
    Ok(hash.finalize().into())
}

pub(in super::super) async fn abort(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<MultipartBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        let (upload, _) = state.begun(&client, &body).await?;
        match state.storage()?.objects() {
            Objects::Bucket(bucket) => bucket.abort_multipart(&upload.key, &upload.upload).await?,
            Objects::Folder(folder) => folder.delete_parts(upload_id(&upload)?).await?,
        }
        Ok(json!({ "status": "aborted" }))
    };
    state.json(answer).await
}
