//! Serves the folder of files by signed URLs. Contents pass through as streams; an upload appears whole or not at
//! all.

use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::CONTENT_TYPE_DEFAULT;
use super::storage::{Storage, Upload, output_of};
use crate::http::{Failure, Rejection};
use crate::net::objects::{Folder, Incoming};
use crate::services::jobs::append;
use crate::services::jobs::decide::{Grant, GrantedMethod, ObjectKey, Refusal, SealError, unseal};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::FileKind;

/// Bytes between two looks at the free space.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;

/// The query of a signed URL.
#[derive(Debug, Deserialize)]
pub(in super::super) struct GrantQuery {
    #[serde(default)]
    grant: String,
}

impl JobsState {
    /// What the URL of a request allows.
    async fn granted(&self, key: &str, query: &GrantQuery, method: GrantedMethod) -> Result<Grant, Refused> {
        let denied = |code, why: &str| Refused::coded(StatusCode::FORBIDDEN, code, why);
        let now = self.parts().clock.now().timestamp();
        let grant = unseal::<Grant>(&self.lease_key().await?, &query.grant, now);
        let grant = grant.map_err(|error| match error {
            SealError::Expired => denied("url_expired", "the URL is no longer valid: ask for another one"),
            SealError::Foreign => denied("bad_signature", "the signature of the URL is not valid"),
        })?;
        if grant.key != key || grant.method != method {
            return Err(denied("bad_signature", "the URL is signed for another request"));
        }
        Ok(grant)
    }

    /// Refuses an upload under a lease that is no longer held.
    pub(super) async fn check_lease(&self, key: &ObjectKey, claim: Option<Uuid>) -> Result<(), Refused> {
        let Some((job, attempt)) = output_of(key) else { return Ok(()) };
        let held = append::held_lease(&self.parts().pools, job).await?;
        let is_held = held.is_some_and(|held| held.attempt == attempt && Some(held.claim) == claim);
        if is_held { Ok(()) } else { Err(Refused::Change(Refusal::NotLeased)) }
    }
}

pub(in super::super) async fn get(
    State(state): State<JobsState>,
    method: Method,
    Path(key): Path<String>,
    Query(query): Query<GrantQuery>,
) -> Result<Response, Failure> {
    let answer = async {
        if method != Method::GET {
            let why = "the URL is signed for GET";
            return Err(Refused::coded(StatusCode::FORBIDDEN, "bad_signature", why));
        }
        let storage = state.storage()?;
        storage.folder()?;
        state.granted(&key, &query, GrantedMethod::Get).await?;
        let object = storage.objects().read(&key).await?.ok_or_else(|| Refused::not_found("file"))?;
        // A browser must save it: what a worker has written is no page of this server.
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_DEFAULT)),
            (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
            (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
            (CONTENT_LENGTH, HeaderValue::from(object.facts.size)),
        ];
        Ok((headers, Body::from_stream(object.bytes)).into_response())
    };
    state.answer(answer).await
}

pub(in super::super) async fn put(
    State(state): State<JobsState>,
    Path(key): Path<String>,
    Query(query): Query<GrantQuery>,
    request: Request,
) -> Result<Response, Failure> {
    let answer = async {
        state.storage()?.folder()?;
        let grant = state.granted(&key, &query, GrantedMethod::Put).await?;
        receive(&state, &grant, request).await
    };
    state.answer(answer).await
}

async fn receive(state: &JobsState, grant: &Grant, request: Request) -> Result<Response, Refused> {
    let storage = state.storage()?;
    storage.folder()?;
    let key = ObjectKey::parse("key", &grant.key)?;
    check_type(request.headers(), grant)?;
    let stated = request.body().size_hint().exact();
    if let (Some(stated), Some(size)) = (stated, grant.size)
        && stated != size
    {
        return Err(wrong_size(size, stated));
    }
    if let Some(bytes) = stated.or(grant.size) {
        storage.check_size("content-length", bytes)?;
    }
    storage.check_space(stated.or(grant.size).unwrap_or(0))?;
    state.check_lease(&key, grant.claim).await?;
    let _one_of_few = storage.begin_upload()?;

    let mut incoming = storage.objects().begin().await?;
    let received = stream(storage, grant, request.into_body(), &mut incoming).await;
    let (size, sha256) = match received {
        Ok(received) => received,
        Err(refused) => {
            incoming.discard().await?;
            return Err(refused);
        }
    };
    let flushed = incoming.flush().await?;
    let wanted = match (&key, &grant.sha256, grant.part) {
        // The whole is checked when its parts are put together.
        (_, _, Some(_)) => None,
        (ObjectKey::Source(sha256), _, _) => Some(hex::encode(sha256)),
        (ObjectKey::Output { .. }, stated, _) => stated.clone(),
    };
    let checked = match wanted {
        Some(wanted) if wanted != hex::encode(sha256) => Err(wrong_content(&wanted, sha256)),
        // Again, because an upload takes time.
        _ => state.check_lease(&key, grant.claim).await,
    };
    if let Err(refused) = checked {
        flushed.discard().await?;
        return Err(refused);
    }
    if let Some((upload, part)) = grant.part {
        flushed.publish(&Folder::part_key(upload, part)).await?;
    } else {
        flushed.publish(&grant.key).await?;
        let content_type = grant.content_type.clone().unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned());
        record_stored(storage, key, content_type, size, sha256, grant.actor.clone()).await?;
    }
    let etag = format!("\"{}\"", hex::encode(sha256));
    Ok(([(ETAG, etag)], ()).into_response())
}

/// Records a file that this server has received.
pub(super) async fn record_stored(
    storage: &Storage,
    key: ObjectKey,
    content_type: String,
    size: u64,
    sha256: [u8; 32],
    actor: String,
) -> Result<(), Refused> {
    let (size, sha256) = (Some(size), Some(sha256));
    let stored = Upload { key, content_type, size, sha256, sends_headers: true, claim: None, actor };
    storage.record(stored.entry(FileKind::Stored, true)).await
}

/// Counts and hashes what arrives, and looks at the free space.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    storage: &'a Storage,
    looked: u64,
    pub(super) size: u64,
    hash: Sha256,
}

impl<'a> Meter<'a> {
    pub(super) fn new(storage: &'a Storage) -> Self {
        Self { storage, looked: 0, size: 0, hash: Sha256::new() }
    }

    /// Adds a piece that is kept.
    pub(super) fn add(&mut self, piece: &[u8]) -> Result<(), Refused> {
        self.size += piece.len() as u64;
        if self.size - self.looked >= LOOK_BYTES {
            self.looked = self.size;
            self.storage.check_space(0)?;
        }
        self.hash.update(piece);
        Ok(())
    }

    /// Size and SHA-256 of all pieces.
    pub(super) fn end(self) -> (u64, [u8; 32]) {
        (self.size, self.hash.finalize().into())
    }
}

/// Writes a body, and returns its size and SHA-256.
async fn stream(
    storage: &Storage,
    grant: &Grant,
    body: Body,
    incoming: &mut Incoming,
) -> Result<(u64, [u8; 32]), Refused> {
    let most = grant.size.unwrap_or_else(|| storage.settings().file_bytes_max.get());
    let mut meter = Meter::new(storage);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| {
            let why = format!("the body ended or broke off after {} bytes; nothing was stored", meter.size);
            Refused::coded(StatusCode::BAD_REQUEST, "body_cut", why)
        })?;
        let size = meter.size + piece.len() as u64;
        if size > most {
            return Err(match grant.size {
                Some(expected) => wrong_size(expected, size),
                None => storage.too_large("body", size),
            });
        }
        meter.add(&piece)?;
        incoming.write(piece).await?;
    }
    match grant.size {
        Some(expected) if expected != meter.size => Err(wrong_size(expected, meter.size)),
        _ => Ok(meter.end()),
    }
}

fn check_type(headers: &HeaderMap, grant: &Grant) -> Result<(), Refused> {
    let Some(wanted) = &grant.content_type else { return Ok(()) };
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok());
    if given == Some(wanted) {
        return Ok(());
    }
    let message = format!("the URL is signed for the content type `{wanted}`");
    let rejection = Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).field("content-type");
    Err(Refused::Other("content-type", rejection))
}

fn wrong_size(signed: u64, size: u64) -> Refused {
    let message = format!("the URL is signed for {signed} bytes; nothing was stored");
    let rejection = Rejection::new(StatusCode::BAD_REQUEST, message).code("wrong_size");
    Refused::Other("wrong_size", rejection.field("content-length").over_limit(signed, size))
}

/// 422: the content is not what the key or the request for the URL says.
pub(super) fn wrong_content(wanted: &str, sha256: [u8; 32]) -> Refused {
    let message = format!("the SHA-256 of the content is not {wanted}; nothing was stored");
    let rejection = Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, message).code("wrong_sha256");
    Refused::Other("wrong_sha256", rejection.field("body").value(hex::encode(sha256)))
}
