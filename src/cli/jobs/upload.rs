//! Uploads a file by signed URLs: at once, or in parts if it is large. An upload in parts that was broken off goes on
//! with the parts that are missing.

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::AsyncSeekExt as _;

use super::client::{Server, Trouble};
use super::resend::several_times;
use super::transfer_error::TransferError;
use super::upload_notes::{Begun, Notes};
use crate::base::Secret;
use crate::net::{Call, Content, Reply, Verb};
use crate::telemetry::notice;

/// The media type that the original's upload URLs are bound to.
const MEDIA_TYPE: &str = "application/octet-stream";

/// Largest file that is uploaded at once, bytes.
const WHOLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Size of a part, bytes, unless there would be more than S3 accepts.
const PART_BYTES: u64 = 8 * 1024 * 1024;
const PARTS_MAX: u64 = 10_000;

/// Parts that are uploaded at the same time.
const PARTS_AT_ONCE: usize = 4;

/// Time limit of one request with content: this, and a second for each of so many bytes.
const SLOW: Duration = Duration::from_mins(10);
const SLOW_BYTES: u64 = 64 * 1024;

/// Time limit for putting parts together: the server reads a file in its folder once.
const COMPLETE_WITHIN: Duration = Duration::from_hours(1);

/// The header by which S3 checks an upload. A server can ask for no other one beside the content type.
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// A file to upload.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    pub(super) server: &'a Server,
    pub(super) path: &'a Path,
    /// Bytes.
    pub(super) size: u64,
    /// Hex digits.
    pub(super) sha256: &'a str,
    /// Members of all requests about it: `key`, and the proof of the lease of an output.
    pub(super) asked: Value,
    /// Where unfinished uploads in parts are noted.
    pub(super) notes: Option<&'a Notes>,
    /// Moves by the bytes that have arrived.
    pub(super) bar: &'a ProgressBar,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// The file was uploaded.
    Uploaded,
    /// The storage has it already.
    Present,
    /// The server stores no files.
    NoStorage,
}

impl Upload<'_> {
    /// Uploads the file, unless the storage has it already.
    pub(super) async fn store(&self) -> Result<Stored, TransferError> {
        if self.size > WHOLE_BYTES_MAX
            && let Some(stored) = self.in_parts().await?
        {
            return Ok(stored);
        }
        self.at_once().await
    }

    /// What is known without the file: `None` if it has to be uploaded.
    pub(super) async fn look(&self) -> Result<Option<Stored>, TransferError> {
        let facts = self.facts();
        let asked = several_times(|| async {
            let asked = self.server.post(&["api", "files", "upload-url"], &facts).await;
            where_there_are_files(asked).map_err(TransferError::from)
        });
        Ok(match asked.await? {
            None => Some(Stored::NoStorage),
            Some(answer) if answer["exists"] == json!(true) => Some(Stored::Present),
            Some(_) => None,
        })
    }

    /// The members of a request, with further ones.
    fn body(&self, further: Value) -> Value {
        let mut body = self.asked.clone();
        if let (Value::Object(body), Value::Object(further)) = (&mut body, further) {
            body.extend(further);
        }
        body
    }

    /// The members of a request that begins an upload.
    fn facts(&self) -> Value {
        self.body(json!({
            "content_type": MEDIA_TYPE, "size": self.size, "sha256": self.sha256, "if_missing": true,
        }))
    }

    fn key(&self) -> &str {
        self.asked["key"].as_str().unwrap_or_default()
    }

    /// Asks for a URL anew with each try, so that none has expired.
    async fn at_once(&self) -> Result<Stored, TransferError> {
        let facts = self.facts();
        let stored = several_times(|| async {
            let asked = self.server.post(&["api", "files", "upload-url"], &facts).await;
            let Some(answer) = where_there_are_files(asked)? else { return Ok(Stored::NoStorage) };
            if answer["exists"] == json!(true) {
                return Ok(Stored::Present);
            }
            let url = text(&answer, "url")?;
            put(self.server, url, &answer["headers"], File::open(self.path).await?, self.size).await?;
            Ok(Stored::Uploaded)
        })
        .await?;
        if stored == Stored::Uploaded {
            self.bar.inc(self.size);
        }
        Ok(stored)
    }

    /// `None` if the server takes no parts.
    async fn in_parts(&self) -> Result<Option<Stored>, TransferError> {
        if let Some(mut begun) = self.noted() {
            let there = begun.etags.len();
            notice(format_args!(
                "quipu: {}: the upload goes on; {there} of {} parts are there",
                self.path.display(),
                begun.parts()
            ));
            match self.go_on(&mut begun).await {
                // Its time is over, or the storage does not have it any longer.
                Err(error) if error.is_refusal() => self.give_up(&begun).await,
                ended => return ended.map(|()| Some(Stored::Uploaded)),
            }
        }
        let part_size = PART_BYTES.max(self.size.div_ceil(PARTS_MAX));
        let mut facts = self.facts();
        facts["part_size"] = part_size.into();
        let path = ["api", "files", "multipart"];
        let begin = several_times(|| async {
            where_there_are_files(self.server.post(&path, &facts).await).map_err(TransferError::from)
        });
        let Some(answer) = begin.await? else { return Ok(None) };
        if answer["exists"] == json!(true) {
            return Ok(Some(Stored::Present));
        }
        let mut note = Begun {
            server: self.server.base().to_string(),
            key: self.key().to_owned(),
            size: self.size,
            part_size,
            upload_id: text(&answer, "upload_id")?.to_owned(),
            etags: BTreeMap::new(),
        };
        let ended = self.go_on(&mut note).await;
        if ended.as_ref().is_err_and(TransferError::is_refusal) {
            self.give_up(&note).await;
        }
        ended.map(|()| Some(Stored::Uploaded))
    }

    /// Uploads the parts that are missing, and has them put together.
    async fn go_on(&self, begun: &mut Begun) -> Result<(), TransferError> {
        let is_there = |part: &u32| begun.etags.contains_key(part);
        let missing: Vec<_> = (1..=begun.parts())
            .filter(|part| !is_there(part))
            .map(|part| (part, begun.place(part)))
            .collect();
        self.bar.inc(begun.arrived());
        let upload_id = begun.upload_id.clone();
        let sending = missing.into_iter().map(|(part, place)| self.part(&upload_id, part, place));
        let mut sending = pin!(stream::iter(sending).buffer_unordered(PARTS_AT_ONCE));
        while let Some(sent) = sending.next().await {
            let (part, etag) = sent?;
            begun.etags.insert(part, etag);
            self.bar.inc(begun.place(part).1);
            self.note(begun);
        }
        let etags: Vec<_> = begun.etags.values().collect();
        let complete = self.body(json!({ "upload_id": upload_id, "etags": etags }));
        let path = ["api", "files", "multipart", "complete"];
        several_times(|| async {
            let completed = self.server.post_within(&path, &complete, COMPLETE_WITHIN).await;
            completed.map_err(TransferError::from)
        })
        .await?;
        self.forget();
        Ok(())
    }

    /// Uploads one part. Returns its number and its `ETag`.
    async fn part(
        &self,
        upload_id: &str,
        part: u32,
        (from, bytes): (u64, u64),
    ) -> Result<(u32, String), TransferError> {
        let asked = self.body(json!({ "upload_id": upload_id, "from": part, "count": 1 }));
        several_times(|| async {
            let answer = self.server.post(&["api", "files", "multipart", "parts"], &asked).await?;
            let mut file = File::open(self.path).await?;
            file.seek(SeekFrom::Start(from)).await?;
            let url = text(&answer["parts"][0], "url")?;
            let mut reply = put(self.server, url, &Value::Null, file, bytes).await?;
            Ok((part, reply.headers.remove("etag").unwrap_or_default()))
        })
        .await
    }

    fn noted(&self) -> Option<Begun> {
        self.notes?.find(self.server.base().as_str(), self.key(), self.size)
    }

    fn note(&self, begun: &Begun) {
        if let Some(notes) = self.notes
            && let Err(error) = notes.keep(begun)
        {
            tracing::warn!("an interrupted upload would begin anew, because it cannot be noted: {error}");
        }
    }

    fn forget(&self) {
        if let Some(notes) = self.notes {
            notes.forget(self.server.base().as_str(), self.key());
        }
    }

    /// Gives up an upload that is refused: its parts are of no use any longer.
    async fn give_up(&self, begun: &Begun) {
        self.forget();
        self.bar.dec(begun.arrived());
        let abort = self.body(json!({ "upload_id": begun.upload_id }));
        // Best effort: the server deletes what is left of it.
        let _ = self.server.post(&["api", "files", "multipart", "abort"], &abort).await;
    }
}

/// The answer; `None` if the server has no such request, or no storage.
fn where_there_are_files(answer: Result<Value, Trouble>) -> Result<Option<Value>, Trouble> {
    match answer {
        Err(trouble) if trouble.refusal().is_some_and(|(status, _)| matches!(status, 404 | 405 | 501)) => {
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

fn text<'a>(answer: &'a Value, member: &'static str) -> Result<&'a str, TransferError> {
    answer[member].as_str().ok_or(TransferError::Missing(member))
}

/// Sends `bytes` of the file from its position on, with the headers that the URL is signed for.
pub(super) async fn put(
    server: &Server,
    url: &str,
    told: &Value,
    file: File,
    bytes: u64,
) -> Result<Reply, TransferError> {
    let url = server.named(url)?;
    let (mut headers, mut media_type) = (Vec::new(), MEDIA_TYPE.to_owned());
    for (name, value) in told.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        match name.as_str() {
            "content-type" => value.clone_into(&mut media_type),
            CHECKSUM => headers.push((CHECKSUM, Secret::new(value))),
            _ => return Err(TransferError::Header(name.clone())),
        }
    }
    let content = Content::File { file, bytes, media_type };
    let head_within = SLOW + Duration::from_secs(bytes / SLOW_BYTES);
    let call = Call { verb: Verb::Put, url: &url, headers: &headers, content, head_within };
    Ok(server.send(call).await?)
}
