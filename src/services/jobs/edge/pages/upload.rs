//! Submits a job with a file from a browser. The fields come before the file, so that they are checked before
//! anything is stored. The file streams into the storage; its SHA-256, computed meanwhile, becomes its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, HttpBody as _};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use maud::{Markup, html};
use serde_json::Value;

use super::manage::priority_of;
use super::parts::priority_field;
use super::refused::refused_page;
use super::visitor::Visitor;
use crate::http::page::bytes;
use crate::services::jobs::append::Submitted;
use crate::services::jobs::decide::{PRIORITY_DEFAULT, Scope, TYPE_BYTES_MAX};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::access::Client;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::edge::submit::{SubmitBody, given};

/// Most fields before the file.
const FIELDS_MAX: usize = 8;

/// Longest field but the file, bytes.
const FIELD_BYTES_MAX: usize = 8_192;

/// Bytes of the body that the reader of the form may hold without giving them on. A head of a field that does not end
/// would otherwise be kept in memory, whatever its length.
const HELD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A hash by which the other fields are checked before the file is there.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The largest file that a form may send here, bytes; `None` if there is no place for files.
pub(super) fn form_file_bytes_max(state: &JobsState) -> Option<u64> {
    Some(state.storage().ok()?.form_file_bytes_max())
}

/// The form. `types` are offered.
pub(super) fn form(most: u64, types: &[&str]) -> Markup {
    let size = bytes(i64::try_from(most).unwrap_or(i64::MAX));
    html! {
        section.actions.upload aria-labelledby="upload-title" {
            h2 #upload-title { "Submit a file" small { "at most " (size) } }
            form action="/actions/jobs" method="post" enctype="multipart/form-data" {
                label {
                    span { "type" }
                    input type="text" name="type" list="upload-types" maxlength=(TYPE_BYTES_MAX) required autocomplete="off";
                }
                datalist #upload-types { @for job_type in types { option value=(job_type) {} } }
                (priority_field(PRIORITY_DEFAULT))
                label { span { "tags" } input type="text" name="tags" maxlength="2000" placeholder="a, b" autocomplete="off"; }
                // The last one: the others are checked before it is stored.
                label { span { "file" } input type="file" name="file" required data-bytes-max=(most); }
                button type="submit" { "Submit" }
            }
        }
    }
}

pub(super) async fn submit(visitor: Visitor, State(state): State<JobsState>, request: Request) -> Response {
    let outcome = async {
        visitor.require(Scope::Submit)?;
        received(&state, &visitor.client, request).await
    };
    match outcome.await {
        Ok(stored) => {
            let known = if stored.is_known { "?known=1" } else { "" };
            Redirect::to(&format!("/jobs/{}{known}", stored.job)).into_response()
        }
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

/// The fields before the file.
#[derive(Debug, Default)]
struct Fields {
    job_type: String,
    priority: String,
    tags: String,
}

impl Fields {
    /// The place of a field, and its name.
    fn place(&mut self, name: &str) -> Option<(&'static str, &mut String)> {
        match name {
            "type" => Some(("type", &mut self.job_type)),
            "priority" => Some(("priority", &mut self.priority)),
            "tags" => Some(("tags", &mut self.tags)),
            _ => None,
        }
    }

    /// The submission of a source. Tags are separated by commas.
    fn body(&self, path: &str, source_hash: &str, size: u64) -> Result<SubmitBody, Refused> {
        let tags = self.tags.split(',').map(str::trim).filter_map(given);
        let tags: Vec<Value> = tags.map(Value::from).collect();
        Ok(SubmitBody {
            r#type: self.job_type.trim().to_owned(),
            source_hash: source_hash.to_owned(),
            source_path: path.to_owned(),
            source_size: i64::try_from(size).unwrap_or(i64::MAX),
            priority: priority_of(&self.priority)?,
            tags: (!tags.is_empty()).then_some(Value::Array(tags)),
            ..SubmitBody::default()
        })
    }
}

async fn received(state: &JobsState, client: &Client, mut request: Request) -> Result<Submitted, Refused> {
    let storage = state.storage()?;
    storage.check_form(request.body().size_hint().exact().unwrap_or(0))?;
    // The library's limit is a fixed one; the file and the fields are counted here.
    DefaultBodyLimit::disable().apply(&mut request);
    let held = Held::default();
    let request = request.map(|body| held.bounded(body));
    let form = Multipart::from_request(request, state).await;
    let mut form = form.map_err(|_| {
        Refused::coded(StatusCode::UNSUPPORTED_MEDIA_TYPE, "no_form", "the body is no multipart/form-data")
    })?;
    let mut fields = Fields::default();
    for _ in 0..FIELDS_MAX {
        let Some(mut field) = form.next_field().await.map_err(|error| broken(&error))? else { break };
        let name = field.name().unwrap_or_default().to_owned();
        if name != "file" {
            let (name, place) = fields.place(&name).ok_or_else(|| unknown(&name))?;
            *place = text(&held, name, &mut field).await?;
            continue;
        }
        let path = field.file_name().and_then(given).map(str::to_owned);
        let path = path.ok_or_else(|| Refused::field("file", "has to be chosen"))?;
        state.checked(client, fields.body(&path, NO_HASH, 0)?, None)?;
        let content_type = field.content_type().map(str::to_owned);
        let pieces = field.by_ref().map_err(|error| broken(&error));
        let pieces = pieces.inspect_ok(|piece| held.give(piece.len()));
        let source = storage.receive(content_type.as_deref(), pieces).await?;
        drop(field);
        // The end of the body says that it has arrived whole.
        match form.next_field().await {
            Ok(None) => {}
            Ok(Some(_)) => {
                source.discard().await?;
                return Err(Refused::field("file", "has to be the last field"));
            }
            Err(error) => {
                source.discard().await?;
                return Err(broken(&error));
            }
        }
        let body = fields.body(&path, &source.source_hash(), source.size)?;
        source.keep(client.actor.label()).await?;
        return state.submit(state.checked(client, body, None)?).await;
    }
    Err(Refused::field("file", "is required"))
}

fn unknown(name: &str) -> Refused {
    let shown: String = name.chars().take(64).collect();
    Refused::field(
        "form",
        format!("has the field `{}`, which is none of type, priority, tags, file", shown.escape_debug()),
    )
}

async fn text(held: &Held, name: &'static str, field: &mut Field<'_>) -> Result<String, Refused> {
    let mut text = Vec::new();
    while let Some(piece) = field.try_next().await.map_err(|error| broken(&error))? {
        held.give(piece.len());
        text.extend_from_slice(&piece);
        if text.len() > FIELD_BYTES_MAX {
            return Err(Refused::field(name, format!("has more than {FIELD_BYTES_MAX} bytes")));
        }
    }
    String::from_utf8(text).map_err(|_| Refused::field(name, "is not UTF-8"))
}

/// 400: the body is no form, or has ended too early.
fn broken(error: &MultipartError) -> Refused {
    tracing::debug!("a form could not be read: {}", error.body_text());
    let why = "the body is no complete form; nothing was stored";
    Refused::coded(StatusCode::BAD_REQUEST, "body_cut", why)
}

/// Counts the bytes that the reader of the form holds.
#[derive(Debug, Clone, Default)]
struct Held(Arc<AtomicU64>);

impl Held {
    /// `body`, which fails when the reader holds too much of it.
    fn bounded(&self, body: Body) -> Body {
        let held = Arc::clone(&self.0);
        Body::from_stream(body.into_data_stream().map(move |piece| {
            let piece = piece?;
            let bytes = piece.len() as u64;
            if held.fetch_add(bytes, Ordering::Relaxed) + bytes > HELD_BYTES_MAX {
                return Err(axum::Error::new(std::io::Error::other("a part of the form is too long")));
            }
            Ok(piece)
        }))
    }

    /// Bytes were given on.
    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_form_become_a_submission() {
        let fields = Fields { job_type: " pdf ".into(), priority: "2".into(), tags: "a, ,b c,".into() };
        let body = fields.body("report.pdf", "abc", 7).unwrap();
        assert_eq!((body.r#type.as_str(), body.priority, body.source_size), ("pdf", Some(2), 7));
        assert_eq!(body.tags, Some(serde_json::json!(["a", "b c"])));
        assert_eq!(Fields::default().body("x", "abc", 0).unwrap().tags, None);
        assert!(Fields { priority: "9".into(), ..Fields::default() }.body("x", "abc", 0).is_err());
    }

    #[tokio::test]
    async fn a_reader_that_holds_too_much_is_stopped() {
        let piece = axum::body::Bytes::from(vec![0; 1024 * 1024]);
        let body = || {
            let piece = piece.clone();
            Body::from_stream(futures_util::stream::iter(
                (0..64).map(move |_| Ok::<_, axum::Error>(piece.clone())),
            ))
        };
        let held = Held::default();
        let mut pieces = held.bounded(body()).into_data_stream();
        let mut taken = 0;
        while let Some(Ok(_)) = pieces.next().await {
            taken += 1;
        }
        assert_eq!(taken, 4);
        let held = Held::default();
        let mut pieces = held.bounded(body()).into_data_stream();
        let mut taken = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            held.give(piece.len());
            taken += 1;
        }
        assert_eq!(taken, 64);
    }
}
