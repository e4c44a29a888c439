//! Asks upstreams for a blob: one that the journal does not know, or whose copies were not read back yet. Requests for the same
//! blob share one search.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use moka::Expiry;
use tokio::time::{sleep, timeout};

use super::BlossomState;
use super::servable::Servable;
use crate::base::Sha256;
use crate::services::blossom::edge::refusal::Refused;
use crate::services::blossom::metrics::LookupSource;
use crate::services::blossom::upstream::{HeadFacts, Upstream};

/// Longest search.
pub(super) const SEARCH_TIME: Duration = Duration::from_secs(10);

/// How long a search goes on after the first upstream has the blob: others that have it as well share the downloads.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// Time for which a search that found nothing is remembered, and one in which upstreams failed.
const ABSENT_LIFE: Duration = Duration::from_mins(1);
const UNCLEAR_LIFE: Duration = Duration::from_secs(5);

/// Media type of a blob whose upstream states none.
pub(super) const TYPE_DEFAULT: &str = "application/octet-stream";

/// How a search ended.
#[derive(Debug)]
pub(super) enum Searched {
    /// Upstreams have the blob.
    Found(Servable),
    /// None has it, of those that answered.
    Absent {
        /// Whether all have answered.
        is_sure: bool,
    },
    /// No upstream has answered.
    Unclear,
}

/// How long searches are remembered.
pub(super) struct Life {
    pub(super) found: Duration,
}

impl Expiry<Sha256, Arc<Searched>> for Life {
    fn expire_after_create(&self, _: &Sha256, searched: &Arc<Searched>, _: Instant) -> Option<Duration> {
        Some(match **searched {
            Searched::Found(_) => self.found,
            Searched::Absent { is_sure: true } => ABSENT_LIFE,
            Searched::Absent { is_sure: false } | Searched::Unclear => UNCLEAR_LIFE,
        })
    }
}

/// What the upstreams answered.
#[derive(Debug, Default)]
struct Answers {
    have: Vec<(String, HeadFacts)>,
    have_not: usize,
    failed: usize,
}

impl BlossomState {
    /// Searches a blob at all upstreams, unless that was done lately. `admit` is asked before a search begins.
    pub(super) async fn search(
        &self,
        sha256: &Sha256,
        admit: impl FnOnce() -> Result<(), Refused>,
    ) -> Result<Arc<Searched>, Refused> {
        let lookups = self.lookups();
        if let Some(searched) = lookups.searched.get(sha256).await {
            self.parts().metrics.looked_up(LookupSource::Cached);
            return Ok(searched);
        }
        admit()?;
        let searching = async {
            let Ok(_one_of_few) = lookups.searches.acquire().await else {
                return Arc::new(Searched::Unclear);
            };
            let answers = ask(self.parts().upstreams.list().iter(), sha256).await;
            Arc::new(match answers {
                Answers { have, .. } if !have.is_empty() => Searched::Found(servable(*sha256, have)),
                Answers { have_not: 0, failed: 1.., .. } => Searched::Unclear,
                Answers { failed, .. } => Searched::Absent { is_sure: failed == 0 },
            })
        };
        let searched = lookups.searched.get_with(*sha256, searching).await;
        if matches!(*searched, Searched::Found(_)) {
            self.parts().metrics.looked_up(LookupSource::Asked);
        }
        Ok(searched)
    }

    /// The copies of a known blob that can be read although the journal does not say so yet. An upstream may answer an upload
    /// with success before the blob can be read there.
    ///
    /// # Errors
    /// 503 if there is none.
    pub(super) async fn confirm(&self, known: &Servable) -> Result<Arc<Servable>, Refused> {
        let lookups = self.lookups();
        let mark = lookups.mark(&known.sha256);
        if let Some((then, confirmed)) = lookups.confirmed.get(&known.sha256).await {
            if then == mark {
                return Ok(confirmed);
            }
            lookups.confirmed.invalidate(&known.sha256).await;
        }
        let asking = async {
            let upstreams = &self.parts().upstreams;
            let doubtful = known.doubtful.iter().filter_map(|name| upstreams.named(name));
            let mut answers = ask(doubtful, &known.sha256).await;
            answers.have.retain(|(_, facts)| facts.size.is_none() || facts.size == known.size);
            if answers.have.is_empty() {
                return Err(());
            }
            let holders = answers.have.into_iter().map(|(name, _)| name).collect();
            Ok((mark, Arc::new(Servable { holders, ..known.clone() })))
        };
        let confirmed = lookups.confirmed.try_get_with(known.sha256, asking).await;
        self.parts().metrics.looked_up(LookupSource::Asked);
        confirmed
            .map(|(_, confirmed)| confirmed)
            .map_err(|_| Refused::unavailable("no copy of this blob can be read now: try again"))
    }
}

/// Asks these upstreams at once.
async fn ask<'a>(upstreams: impl Iterator<Item = &'a Upstream>, sha256: &Sha256) -> Answers {
    let mut asked: FuturesUnordered<_> =
        upstreams.map(|upstream| async move { (upstream, upstream.head(sha256).await) }).collect();
    let mut answers = Answers::default();
    let gathering = async {
        let mut until = None;
        loop {
            let next = match &mut until {
                None => asked.next().await,
                Some(until) => tokio::select! {
                    biased;
                    next = asked.next() => next,
                    () = until => return,
                },
            };
            match next {
                None => return,
                Some((upstream, Ok(Some(facts)))) => {
                    answers.have.push((upstream.name().to_owned(), facts));
                    until.get_or_insert_with(|| Box::pin(sleep(GATHER_TIME)));
                }
                Some((_, Ok(None))) => answers.have_not += 1,
                Some((_, Err(_))) => answers.failed += 1,
            }
        }
    };
    let is_complete = timeout(SEARCH_TIME, gathering).await.is_ok();
    if !is_complete {
        answers.failed += asked.len();
    }
    answers
}

/// A blob that these upstreams have. They may state different sizes: then none is believed.
fn servable(sha256: Sha256, have: Vec<(String, HeadFacts)>) -> Servable {
    let sizes = || have.iter().filter_map(|(_, facts)| facts.size);
    let size = sizes().next().filter(|size| sizes().all(|other| other == *size));
    let media_type = have.iter().find_map(|(_, facts)| facts.media_type.clone());
    let holders = have.into_iter().map(|(name, _)| name).collect();
    Servable::new(sha256, size, media_type.as_deref().unwrap_or(TYPE_DEFAULT), holders)
}
