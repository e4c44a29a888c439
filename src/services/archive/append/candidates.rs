//! Candidates in `relay_log`: found, given up; and the working rows beside them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::archive::command::{CandidateBounds, RelayCommand};
use crate::services::archive::decide::candidate::domain;
use crate::store::append::Client;
use crate::store::{Doors, Error};

/// What became of a URL that somebody named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// It is a candidate from now on.
    New,
    /// It is a relay or a candidate already.
    Known,
    /// It was given up not long ago.
    Dropped,
    /// Enough candidates of its registrable domain wait, or were found today.
    DomainFull,
    /// Enough candidates wait, or were found today.
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
        let unknown = || Error::inconsistent("candidates", format!("`{outcome}` is no outcome"));
        all.into_iter().find(|finding| finding.as_str() == outcome).ok_or_else(unknown)
    }
}

const FIND: &str = "SELECT quipu_find_candidates($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const DROP: &str = "SELECT quipu_drop_candidates($1, $2, $3, $4)";

const FOUND_BEFORE: &str =
    "SELECT url, kind = 'found' FROM relay_log WHERE batch = $1 AND kind IN ('found', 'dropped')";

/// The candidates of a batch, one array a column.
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
    /// Takes the command if it is about a candidate.
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

    /// How many statements they take.
    pub(super) fn statements(&self) -> usize {
        usize::from(self.bounds.is_some()) + usize::from(!self.dropped.slots.is_empty())
    }

    /// Records them. Returns what became of each URL that was found.
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

    /// The answer when nothing of it was new.
    pub(super) fn all_known(&self) -> HashMap<String, Finding> {
        self.found.urls.iter().map(|url| ((*url).to_owned(), Finding::Known)).collect()
    }

    /// What stands under this batch, or `None` when nothing does: then it is sent again, which does nothing twice.
    pub(super) async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
    ) -> Result<Option<HashMap<String, Finding>>, Error> {
        let rows = client.query_typed(FOUND_BEFORE, &[(&batch, Type::UUID)]).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        // Whatever of it was not written was not new.
        let mut findings = self.all_known();
        for row in rows.iter().filter(|row| row.get(1)) {
            findings.insert(row.get(0), Finding::New);
        }
        Ok(Some(findings))
    }
}

/// Nothing here is a fact, so nothing waits for the disk.
const PUT_OFF: &str = "
    INSERT INTO candidate_tries (url, tries, next_try_at, last_reason)
    SELECT $1, $2, clock_timestamp() + make_interval(secs => $3), $4 FROM set_config('synchronous_commit', 'off', true)
    WHERE EXISTS (SELECT FROM candidates c WHERE c.url = $1)
    ON CONFLICT (url) DO UPDATE SET tries = excluded.tries, next_try_at = excluded.next_try_at, last_reason = excluded.last_reason";

/// Notes that a candidate has failed for the `tries`th time and is due again after `pause`.
pub(in crate::services::archive) async fn put_off(
    doors: &Doors,
    url: &str,
    tries: i32,
    pause: Duration,
    reason: &str,
) -> Result<(), Error> {
    let client = doors.write.get().await?;
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

const CLAIM_LIST: &str = "
    INSERT INTO list_fetches AS l (url, fetched_at) VALUES ($1, clock_timestamp())
    ON CONFLICT (url) DO UPDATE SET fetched_at = excluded.fetched_at
    WHERE l.fetched_at <= clock_timestamp() - make_interval(secs => $2)
    RETURNING url";

/// Whether the list at `url` is ours to fetch now: nobody has asked for it within `interval`. Written before it is fetched, so
/// that a crash or a failure does not ask twice.
pub(in crate::services::archive) async fn claim_list(
    doors: &Doors,
    url: &str,
    interval: Duration,
) -> Result<bool, Error> {
    let client = doors.write.get().await?;
    let rows = client
        .query_typed(CLAIM_LIST, &[(&url, Type::TEXT), (&interval.as_secs_f64(), Type::FLOAT8)])
        .await?;
    Ok(!rows.is_empty())
}
