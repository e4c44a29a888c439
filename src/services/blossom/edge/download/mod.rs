//! Downloads: `GET` and `HEAD` of a blob (BUD-01).
//!
//! A known blob is answered from memory: what was read of it lately, as long as nothing about it was committed. Clients are
//! redirected to an upstream whose copy is known to be readable, or the blob is streamed through here. A blob that is not
//! known is searched at the upstreams, then at the servers that the client names.

mod answer;
mod contents;
mod elsewhere;
mod lookup;
mod search;
mod servable;

use axum::extract::{Request, State};
use axum::http::header::{IF_NONE_MATCH, IF_RANGE, ORIGIN, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::BlossomState;
use super::access::Need;
use super::descriptor::strategy;
use super::refusal::Refused;
use crate::base::Sha256;
use crate::http::{Failure, RequestContext};
use crate::lifecycle::BoxError;
use crate::services::blossom::command::{BlobCommand, ReplicaResult};
use crate::services::blossom::decide::authorization::{About, Verb};
use crate::services::blossom::decide::choice::Strategy;
use crate::services::blossom::decide::name::{BadName, BlobName};
use crate::services::blossom::decide::range::{Wanted, is_in_cache, range_applies, wanted};
use crate::services::blossom::event::ReplicaEvent;
use crate::services::blossom::metrics::{DownloadOutcome, LookupSource};
use crate::services::blossom::upstream::Upstream;

pub(super) use lookup::Lookups;

use answer::{for_its_client, not_modified, of_head, redirect, unsatisfiable};
use lookup::Known;
use search::Searched;
use servable::Servable;

/// As whom the journal names this service.
const ACTOR: &str = "quipu";

pub(super) async fn get(State(state): State<BlossomState>, request: Request) -> Result<Response, Failure> {
    serve(&state, request.into_parts().0, false).await
}

pub(super) async fn head(State(state): State<BlossomState>, request: Request) -> Result<Response, Failure> {
    serve(&state, request.into_parts().0, true).await
}

async fn serve(state: &BlossomState, head: Parts, is_head: bool) -> Result<Response, Failure> {
    let answer = async {
        let name =
            BlobName::parse(head.uri.path().strip_prefix('/').unwrap_or_default()).map_err(
                |bad| match bad {
                    BadName::Hash => Refused::bad_hash("path"),
                    BadName::Extension => Refused::field("bad_hash", "path", bad.to_string()),
                },
            )?;
        let need = if state.settings().get_needs_token { Need::Read } else { Need::Open };
        state.admit(&head.headers, need, Verb::Get, About::BlobOrOpen(name.sha256))?;
        let answer = Download { state, head: &head, name, is_head }.answer().await;
        answer.map(|answer| if need == Need::Read { for_its_client(answer) } else { answer })
    };
    answer.await.map_err(|refused: Refused| {
        let outcome = match refused.status() {
            StatusCode::NOT_FOUND => DownloadOutcome::Absent,
            _ if refused.is_unavailable() => DownloadOutcome::Unavailable,
            _ => return state.refuse(refused),
        };
        state.parts().metrics.downloaded(outcome);
        state.refuse(refused)
    })
}

/// A request for a blob.
#[derive(Clone, Copy)]
struct Download<'a> {
    state: &'a BlossomState,
    head: &'a Parts,
    name: BlobName<'a>,
    is_head: bool,
}

impl Download<'_> {
    async fn answer(self) -> Result<Response, Refused> {
        let (known, source) = self.state.recall(&self.name.sha256).await?;
        match &*known {
            Known::Banned(why) => Err(Refused::banned(why)),
            // Its last owner has deleted it: what a server still has is not ours to give away.
            Known::NotKept => {
                self.state.parts().metrics.looked_up(source);
                Err(Refused::absent())
            }
            Known::Kept(servable) if !servable.holders.is_empty() => {
                self.state.parts().metrics.looked_up(source);
                self.held(servable).await
            }
            Known::Kept(servable) => {
                // Taken, and not read back yet; or all copies are lost as far as is known.
                let found = self.state.confirm(servable).await?;
                self.held(&found).await
            }
            Known::Unknown => self.unknown().await,
        }
    }

    /// Answers for a blob that is nowhere in the journal.
    async fn unknown(self) -> Result<Response, Refused> {
        let searched = self.state.search(&self.name.sha256, || self.admit_lookup()).await?;
        match &*searched {
            Searched::Found(servable) => self.held(servable).await,
            Searched::Absent { .. } | Searched::Unclear => {
                let elsewhere = match self.head.uri.query() {
                    Some(query) => self.elsewhere(query).await?,
                    None => None,
                };
                if let Some(answer) = elsewhere {
                    return Ok(answer);
                }
                self.state.parts().metrics.looked_up(LookupSource::Absent);
                match &*searched {
                    Searched::Unclear => Err(Refused::unavailable("no server with this blob answers now")),
                    _ => Err(Refused::absent()),
                }
            }
        }
    }

    /// Refuses a client that has too many blobs searched.
    fn admit_lookup(self) -> Result<(), Refused> {
        let address = self.head.extensions.get::<RequestContext>().map(|context| context.client().address);
        match address {
            Some(address) if !self.state.limits().admits_lookup(address) => {
                Err(Refused::too_many("too many look-ups of unknown blobs from this address"))
            }
            _ => Ok(()),
        }
    }

    /// Answers with one of the copies of a blob.
    async fn held(self, servable: &Servable) -> Result<Response, Refused> {
        let (headers, metrics) = (&self.head.headers, &self.state.parts().metrics);
        if text(headers, IF_NONE_MATCH).is_some_and(|tags| is_in_cache(tags, &servable.sha256)) {
            metrics.downloaded(DownloadOutcome::NotModified);
            return Ok(not_modified(servable));
        }
        if self.is_head && servable.size.is_some() {
            metrics.downloaded(DownloadOutcome::Streamed);
            return Ok(of_head(servable));
        }
        let (strategy, is_page) = (self.state.download_strategy(), headers.contains_key(ORIGIN));
        let upstreams = &self.state.parts().upstreams;
        for upstream in upstreams.choose(strategy, servable.holders.iter().map(String::as_str)) {
            let mut url = match strategy {
                Strategy::Local => None,
                _ => upstream.public_url(&servable.sha256, self.name.extension),
            };
            // A page could not read it there (BL-01.16).
            if url.is_some() && is_page && !self.allows_pages(&upstream).await {
                url = None;
            }
            if let Some(url) = url {
                upstream.count_download();
                metrics.downloaded(DownloadOutcome::Redirected);
                return Ok(redirect(&url));
            }
            if let Some(answer) = self.stream(&upstream, servable).await? {
                upstream.count_download();
                return Ok(answer);
            }
        }
        Err(Refused::unavailable("no server with this blob answers now"))
    }

    /// Whether pages of other sites can read blobs at an upstream. Asked once if it is not known.
    async fn allows_pages(self, upstream: &Upstream) -> bool {
        match upstream.allows_pages() {
            Some(allows) => allows,
            None => matches!(upstream.head(&self.name.sha256).await, Ok(Some(facts)) if facts.allows_pages),
        }
    }

    /// The part of a blob of `size` bytes that is wanted.
    fn wanted(self, size: u64, servable: &Servable) -> Wanted {
        let headers = &self.head.headers;
        let range = text(headers, RANGE)
            .filter(|_| !self.is_head && range_applies(text(headers, IF_RANGE), &servable.sha256));
        wanted(range, size)
    }

    /// Streams a blob, or the wanted part, from an upstream. `None`: it has it not, or fails.
    async fn stream(self, upstream: &Upstream, servable: &Servable) -> Result<Option<Response>, Refused> {
        let wanted = servable.size.map_or(Wanted::Whole, |size| self.wanted(size, servable));
        if let (Wanted::Unsatisfiable, Some(size)) = (wanted, servable.size) {
            let refused = Refused::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "bad_range",
                format!("the blob has {size} bytes"),
            );
            return Ok(Some(unsatisfiable(self.state.refuse(refused).into_response(), size)));
        }
        match self.state.read_copy(upstream, servable, wanted).await {
            Ok(Some(body)) => Ok(Some(body)),
            Ok(None) => {
                let is_recorded = servable.is_recorded;
                self.state.lost(servable.sha256, is_recorded, upstream.name(), "absent at a download");
                Ok(None)
            }
            Err(error) => {
                let name = upstream.name();
                if error.is_other_bytes() {
                    let is_recorded = servable.is_recorded;
                    self.state.lost(servable.sha256, is_recorded, name, "other bytes at a download");
                }
                tracing::debug!(upstream = name, error = %error, "upstream {name} does not give a blob: {error}");
                Ok(None)
            }
        }
    }
}

impl BlossomState {
    /// The strategy for downloads.
    fn download_strategy(&self) -> Strategy {
        strategy(self.settings().download_strategy())
    }

    /// Records that a copy is not there any more, or has other bytes; repair makes another one.
    fn lost(&self, sha256: Sha256, is_recorded: bool, upstream: &str, why: &'static str) {
        let (state, upstream) = (self.clone(), upstream.to_owned());
        self.parts().lifecycle.spawn("blossom lost", async move {
            if !is_recorded {
                state.lookups().forget(&sha256).await;
                return Ok::<(), BoxError>(());
            }
            let result = ReplicaResult { upstream, event: ReplicaEvent::Lost, why: Some(why.to_owned()) };
            let command = BlobCommand::Replicas { sha256, results: vec![result], actor: ACTOR.to_owned() };
            if let Err(error) = state.parts().journal.append(command).await {
                // The next download or proof sees it again.
                tracing::debug!(error = %error, "cannot record that a copy of blob {sha256} is lost: {error}");
            }
            Ok(())
        });
    }
}

/// The value of a header field, if it is text.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
