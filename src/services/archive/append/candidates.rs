//! Appends found and dropped candidates to `relay_log`, and maintains the working tables `candidate_tries`
//! and `list_fetches`.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::archive::command::{CandidateBounds, RelayCommand};
use crate::services::archive::decide::candidate::domain;
use crate::store::append::Client;
use crate::store::{Error, Pools};

/// Outcome for a URL named by an event or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// It became a candidate.
    New,
    /// It was a relay or a candidate before.
    Known,
    /// It was a candidate and was given up recently.
    Dropped,
    /// The limits of its registrable domain are reached.
    DomainFull,
    /// The limits of its network are reached.
    Full,
}

impl Finding {
    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Known => "known",
            Self::Dropped => "dropped",
            Self::DomainFull => "domain_full",
            Self::Full => "full",
        }
    }

    fn of(outcome: &str) -> Result<Self, Error> {
        let all = [Self::New, Self::Known, Self::Dropped, Self::DomainFull, Self::Full];
        let unknown = || {
            Error::inconsistent(
                "candidates",
                format!("`{outcome}` is not an outcome of quipu_find_candidates"),
            )
        };
        all.into_iter().find(|finding| finding.as_str() == outcome).ok_or_else(unknown)
    }
}

const FIND: &str = "-- find_candidates\nSELECT quipu_find_candidates($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const DROP: &str = "-- drop_candidates\nSELECT quipu_drop_candidates($1, $2, $3, $4)";

const FOUND_BEFORE: &str = "-- candidates_found_before\nSELECT url, kind = 'found' FROM relay_log WHERE batch = $1 AND kind IN ('found', 'dropped')";

/// The candidates of a batch, one array per column.
#[derive(Default)]
pub(super) struct Candidates<'a> {
    found: Columns<'a>,
    networks: Vec<&'static str>,
    bounds: Option<CandidateBounds>,
    dropped: Columns<'a>,
}

#[derive(Default)]
struct Columns<'a> {
    slots: Vec<i32>,
    urls: Vec<&'a str>,
    details: Vec<Value>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, slot: i32, url: &'a str, detail: Value) {
        self.slots.push(slot);
        self.urls.push(url);
        self.details.push(detail);
    }
}

impl<'a> Candidates<'a> {
    /// Adds the command if it concerns a candidate. Returns whether it does.
    pub(super) fn take(&mut self, command: &'a RelayCommand) -> bool {
        let taken = self.found.slots.len() + self.dropped.slots.len();
        let slot = i32::try_from(taken).unwrap_or(i32::MAX);
        match command {
            RelayCommand::Find { url, detail, bounds } => {
                let mut detail = detail.clone();
                detail["domain"] = domain(url).into();
                self.found.push(slot, url.as_str(), detail);
                self.networks.push(url.network().as_str());
                self.bounds = Some(*bounds);
                true
            }
            RelayCommand::Drop { url, detail } => {
                self.dropped.push(slot, url.as_str(), detail.clone());
                true
            }
            RelayCommand::Add { .. }
            | RelayCommand::Retire { .. }
            | RelayCommand::Restore { .. }
            | RelayCommand::Refuse { .. }
            | RelayCommand::Observe { .. } => false,
        }
    }

    /// Number of SQL statements.
    pub(super) fn statements(&self) -> usize {
        usize::from(self.bounds.is_some()) + usize::from(!self.dropped.slots.is_empty())
    }

    /// Records them. Returns the outcome for each found URL.
    pub(super) async fn append(
        &self,
        client: &impl GenericClient,
        batch: Uuid,
    ) -> Result<HashMap<String, Finding>, Error> {
        let mut findings = HashMap::new();
        if let Some(bounds) = self.bounds {
            let rows = client
                .query_typed(
                    FIND,
                    &[
                        (&batch, Type::UUID),
                        (&self.found.slots, Type::INT4_ARRAY),
                        (&self.found.urls, Type::TEXT_ARRAY),
                        (&self.networks, Type::TEXT_ARRAY),
                        (&self.found.details, Type::JSONB_ARRAY),
                        (&bounds.waiting_max, Type::INT4),
                        (&bounds.domain_max, Type::INT4),
                        (&bounds.day_max, Type::INT4),
                        (&bounds.domain_day_max, Type::INT4),
                    ],
                )
                .await?;
            let outcomes: Vec<String> = rows.first().map(|row| row.get(0)).unwrap_or_default();
            for (url, outcome) in self.found.urls.iter().zip(&outcomes) {
                findings.insert((*url).to_owned(), Finding::of(outcome)?);
            }
        }
        if !self.dropped.slots.is_empty() {
            let Columns { slots, urls, details } = &self.dropped;
            client
                .query_typed(
                    DROP,
                    &[
                        (&batch, Type::UUID),
                        (slots, Type::INT4_ARRAY),
                        (urls, Type::TEXT_ARRAY),
                        (details, Type::JSONB_ARRAY),
                    ],
                )
                .await?;
        }
        Ok(findings)
    }

    /// The answer for a batch without new candidates.
    pub(super) fn all_known(&self) -> HashMap<String, Finding> {
        self.found.urls.iter().map(|url| ((*url).to_owned(), Finding::Known)).collect()
    }

    /// The outcomes recorded under this batch. `None` when there are none; then the batch is sent again,
    /// which is idempotent.
    pub(super) async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
    ) -> Result<Option<HashMap<String, Finding>>, Error> {
        let rows = client.query_typed(FOUND_BEFORE, &[(&batch, Type::UUID)]).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        // A URL without a row was not new.
        let mut findings = self.all_known();
        for row in rows.iter().filter(|row| row.get(1)) {
            findings.insert(row.get(0), Finding::New);
        }
        Ok(Some(findings))
    }
}

/// Working rows are not facts, so the commit need not wait for the disk.
const PUT_OFF: &str = "-- put_off_candidate
    INSERT INTO candidate_tries (url, tries, next_try_at, last_reason)
    SELECT $1, $2, clock_timestamp() + make_interval(secs => $3), $4 FROM set_config('synchronous_commit', 'off', true)
    WHERE EXISTS (SELECT FROM candidates c WHERE c.url = $1)
    ON CONFLICT (url) DO UPDATE SET tries = excluded.tries, next_try_at = excluded.next_try_at, last_reason = excluded.last_reason";

/// Records that a candidate has failed `tries` times and is due again after `pause`.
pub(in crate::services::archive) async fn put_off(
    pools: &Pools,
    url: &str,
    tries: i32,
    pause: Duration,
    reason: &str,
) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client
        .execute_typed(
            PUT_OFF,
            &[
                (&url, Type::TEXT),
                (&tries, Type::INT4),
                (&pause.as_secs_f64(), Type::FLOAT8),
                (&reason, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}

const CLAIM_LIST: &str = "-- claim_list
    INSERT INTO list_fetches AS l (url, fetched_at) VALUES ($1, clock_timestamp())
    ON CONFLICT (url) DO UPDATE SET fetched_at = excluded.fetched_at
    WHERE l.fetched_at <= clock_timestamp() - make_interval(secs => $2)
    RETURNING url";

/// Returns true if this process must fetch the list at `url` now: no process has done so within `interval`.
/// The row is written before the fetch, so that a crash or a failure does not repeat it.
pub(in crate::services::archive) async fn claim_list(
    pools: &Pools,
    url: &str,
    interval: Duration,
) -> Result<bool, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(CLAIM_LIST, &[(&url, Type::TEXT), (&interval.as_secs_f64(), Type::FLOAT8)])
        .await?;
    Ok(!rows.is_empty())
}
