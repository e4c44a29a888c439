//! The blobs of a key (BUD-12): those that are recorded here, and those that the upstreams list for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use moka::future::Cache;
use url::form_urlencoded;

use super::BlossomState;
use super::access::{Client, Need};
use super::descriptor::Descriptor;
use super::refusal::Refused;
use crate::base::Sha256;
use crate::http::{Failure, RequestContext, reason};
use crate::services::blossom::decide::authorization::{About, Verb};
use crate::services::blossom::decide::cursor::{Page, Place, Query, merge, place};
use crate::services::blossom::event::{BlobFacts, OwnedBlob};
use crate::services::blossom::read::{self, ListQuestion};
use crate::services::blossom::upstream::{RemoteDescriptor, Upstream};

/// Time for which the lists of upstreams are remembered: a client reads page after page.
const LISTS_LIFE: Duration = Duration::from_secs(30);

/// Entries of remembered lists.
const LISTS_ENTRIES_MAX: u64 = 100_000;

/// Entries of upstreams' lists that are looked up at a time.
const CHUNK: usize = 256;

/// Media type of a blob whose upstream states none.
const TYPE_DEFAULT: &str = "application/octet-stream";

/// What the upstreams list for a key.
#[derive(Debug, Default)]
struct Listed {
    /// By place, each blob once.
    blobs: Vec<OwnedBlob>,
    /// Upstreams that have not answered.
    failed: usize,
    asked: usize,
}

/// Lists of upstreams that were read lately, by key and whether the key's token was shown.
pub(super) struct Lists(Cache<([u8; 32], bool), Arc<Listed>>);

impl Default for Lists {
    fn default() -> Self {
        let weigh = |_: &([u8; 32], bool), listed: &Arc<Listed>| {
            u32::try_from(listed.blobs.len()).unwrap_or(u32::MAX).saturating_add(1)
        };
        Self(Cache::builder().weigher(weigh).max_capacity(LISTS_ENTRIES_MAX).time_to_live(LISTS_LIFE).build())
    }
}

pub(super) async fn list(State(state): State<BlossomState>, request: Request) -> Result<Response, Failure> {
    let head = request.into_parts().0;
    let answer = state.list(&head).await;
    answer.map_err(|refused| state.refuse(refused))
}

impl BlossomState {
    async fn list(&self, head: &Parts) -> Result<Response, Refused> {
        self.refuse_other_pages(&head.headers)?;
        let digits = head.uri.path().strip_prefix("/list/").unwrap_or_default();
        let mut owner = [0; 32];
        hex::decode_to_slice(digits, &mut owner).map_err(|_| {
            Refused::field("bad_query", "pubkey", "expected a public key, 64 hexadecimal digits")
        })?;
        let need = if self.settings().list_is_private { Need::Read } else { Need::Open };
        let client = self.admit(&head.headers, need, Verb::List, About::Nothing)?;
        if self.settings().list_is_private && client.pubkey() != Some(owner) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "not_owner", "the list is for its key alone"));
        }
        let page = page(head.uri.query().unwrap_or_default())?;
        let listed = self.listed(head, &client, &owner).await?;
        let after = match page.cursor {
            None => None,
            Some(cursor) => Some(self.place_of(&owner, cursor, &listed).await?),
        };
        let question = ListQuestion {
            owner,
            after: after.map(|(uploaded, sha256)| (uploaded.0, sha256)),
            since: page.since,
            until: page.until,
            limit: i64::try_from(page.limit).unwrap_or(i64::MAX),
        };
        let own = read::list_page(&self.parts().pools, &question).await?;
        let theirs = self.elsewhere(&owner, &listed, &page, after).await?;
        let base = self.base(&head.headers);
        let describe =
            |blob: &OwnedBlob| self.descriptor(&base, &blob.facts, blob.uploaded, None, &blob.upstreams);
        let descriptors: Vec<Descriptor> = merge([own, theirs], &page, after).iter().map(describe).collect();
        let mut response = Json(descriptors).into_response();
        if listed.failed > 0 {
            let text = format!("partial list: {} of {} servers did not answer", listed.failed, listed.asked);
            response.headers_mut().insert("x-reason", reason(&text));
        }
        Ok(response)
    }

    /// The place of the last blob of the page before, whether it is still there or not.
    async fn place_of(&self, owner: &[u8; 32], cursor: Sha256, listed: &Listed) -> Result<Place, Refused> {
        if let Some(uploaded) = read::list_place(&self.parts().pools, owner, &cursor).await? {
            return Ok(place(uploaded, cursor));
        }
        let theirs = listed.blobs.iter().find(|blob| blob.facts.sha256 == cursor);
        theirs.map(|blob| place(blob.uploaded, cursor)).ok_or_else(|| {
            Refused::field("bad_query", "cursor", "this blob was never in the list: begin at the first page")
        })
    }

    /// The part of a page that other servers alone have.
    async fn elsewhere(
        &self,
        owner: &[u8; 32],
        listed: &Listed,
        page: &Page,
        after: Option<Place>,
    ) -> Result<Vec<OwnedBlob>, Refused> {
        let candidates: Vec<&OwnedBlob> = listed
            .blobs
            .iter()
            .filter(|blob| {
                page.includes(blob.uploaded)
                    && after.is_none_or(|after| place(blob.uploaded, blob.facts.sha256) > after)
            })
            .collect();
        let mut kept = Vec::new();
        for chunk in candidates.chunks(CHUNK) {
            let hashes: Vec<Sha256> = chunk.iter().map(|blob| blob.facts.sha256).collect();
            let allowed: BTreeSet<Sha256> =
                read::listed_elsewhere(&self.parts().pools, owner, &hashes).await?;
            kept.extend(
                chunk.iter().filter(|blob| allowed.contains(&blob.facts.sha256)).map(|&blob| blob.clone()),
            );
            if kept.len() >= page.limit {
                break;
            }
        }
        Ok(kept)
    }

    /// What the upstreams list for a key, remembered for a moment. They are shown the token of the key itself, if it is valid
    /// there.
    async fn listed(&self, head: &Parts, client: &Client, owner: &[u8; 32]) -> Result<Arc<Listed>, Refused> {
        let upstreams = &self.parts().upstreams;
        let servers: Vec<&Upstream> =
            upstreams.list().iter().filter(|upstream| !upstream.is_store()).collect();
        if servers.is_empty() {
            return Ok(Arc::default());
        }
        let token = client.token().filter(|token| token.pubkey() == owner);
        let key = (*owner, token.is_some());
        if let Some(listed) = self.lists().0.get(&key).await {
            return Ok(listed);
        }
        if let Some(context) = head.extensions.get::<RequestContext>()
            && !self.limits().admits_lookup(context.client().address)
        {
            return Err(Refused::too_many("too many lists from this address"));
        }
        let now = self.now_s();
        let asking = async {
            let lists = join_all(servers.iter().map(|upstream| async move {
                let token =
                    token.and_then(|token| upstreams.clients_token(upstream, token, Verb::List, None, now));
                (upstream.name(), upstream.blobs_of(owner, token.as_ref()).await)
            }))
            .await;
            let asked = lists.len();
            let failed = lists.iter().filter(|(_, list)| list.is_err()).count();
            let lists = lists.into_iter().map(|(name, list)| {
                list.unwrap_or_default().into_iter().filter_map(|blob| owned(name, blob)).collect()
            });
            let all = Page { limit: usize::MAX, cursor: None, since: None, until: None };
            Arc::new(Listed { blobs: merge(lists, &all, None), failed, asked })
        };
        Ok(self.lists().0.get_with(key, asking).await)
    }
}

/// An entry of an upstream's list; one without a size cannot be passed on.
fn owned(upstream: &str, blob: RemoteDescriptor) -> Option<OwnedBlob> {
    let media_type = blob.media_type.unwrap_or_else(|| TYPE_DEFAULT.to_owned());
    let facts = BlobFacts { sha256: blob.sha256, size: blob.size?, media_type };
    Some(OwnedBlob { facts, uploaded: blob.uploaded.unwrap_or(0), upstreams: vec![upstream.to_owned()] })
}

/// The page that a query asks for.
fn page(query: &str) -> Result<Page, Refused> {
    let (mut limit, mut cursor, mut since, mut until) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "limit" => limit = Some(value),
            "cursor" => cursor = Some(value),
            "since" => since = Some(value),
            "until" => until = Some(value),
            _ => {}
        }
    }
    let query = Query {
        limit: limit.as_deref(),
        cursor: cursor.as_deref(),
        since: since.as_deref(),
        until: until.as_deref(),
    };
    Page::parse(query).map_err(|bad| Refused::field("bad_query", bad.field, bad.to_string()))
}
